"""A model is a program: what a stranger's ONNX graph or tokenizer may not have in it is refused before it is loaded."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galsearch import graphs
from galsearch.encode import Encoder, check_card, shipped
from galsearch.errors import ModelMismatchError
from galsearch.graphs import check_graph, check_tokenizer

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

WEIGHT = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight")


def model(nodes: list, weights: list | None = None, *, domains: tuple[str, ...] = ("",), **parts) -> bytes:
    """Return a model of one input (n, 4) and one output."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 4])],
        initializer=[WEIGHT] if weights is None else weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid(name, 18) for name in domains], **parts)
    return made.SerializeToString()


def node(op: str, inputs: str, outputs: str = "embedding", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


PLAIN = node("MatMul", "vector weight")


def whole(name: str, *values: int):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def external(location: str):
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[4, 4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def loop():
    body = helper.make_graph(
        [node("Identity", "go", "on")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    return node("Loop", "count yes", "x", body=body)


def branch():
    one = helper.make_graph([node("Identity", "vector", "y")], "b", [], [helper.make_tensor_value_info("y", 1, None)])
    return node("If", "yes", "embedding", then_branch=one, else_branch=one)


def overstated():
    return TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[1 << 20, 1 << 20], raw_data=b"1234")


def function_model() -> bytes:
    function = helper.make_function("own", "F", ["a"], ["b"], [node("Relu", "a", "b")], [helper.make_opsetid("", 18)])
    return model([PLAIN], domains=("", "own"), functions=[function])


def sparse() -> bytes:
    made = onnx.load_from_string(model([PLAIN]))
    made.graph.sparse_initializer.add()
    return made.SerializeToString()


def unordered() -> bytes:
    return model([node("Identity", "big", "embedding"), node("ConstantOfShape", "size", "big")], [whole("size", 4)])


BIG = 1 << 33
COLUMN = numpy_helper.from_array(np.ones((20_000, 1), np.float32), "column")
ROW = numpy_helper.from_array(np.ones((1, 20_000), np.float32), "row")
REFUSED = {
    "external data": (lambda: model([PLAIN], [external(".ssh/id_ed25519")]), "weights in another file"),
    "external data by location alone": (lambda: model([PLAIN], [_located()]), "weights in another file"),
    "external data in a constant": (
        lambda: model([node("Constant", "", "w", value=external("/etc/passwd")), PLAIN]),
        "weights in another file",
    ),
    "loop": (lambda: model([loop()]), "graph within a graph"),
    "branch": (lambda: model([branch()]), "graph within a graph"),
    "unknown domain": (
        lambda: model([node("Evil", "vector", domain="com.evil")], domains=("", "com.evil")),
        "com.evil.Evil",
    ),
    "unknown contributed operator": (
        lambda: model([node("Tokenizer", "vector", domain="com.microsoft")], domains=("", "com.microsoft")),
        "com.microsoft.Tokenizer",
    ),
    "another machine learning domain": (
        lambda: model([node("LabelEncoder", "vector", domain="ai.onnx.ml")], domains=("", "ai.onnx.ml")),
        "ai.onnx.ml.LabelEncoder",
    ),
    "regular expressions": (lambda: model([node("RegexFullMatch", "vector", pattern="(a+)+b")]), "RegexFullMatch"),
    "functions": (function_model, "functions of its own"),
    "sparse weights": (sparse, "sparse weights"),
    "weights that are not there": (lambda: model([PLAIN], [overstated()]), "has not so many"),
    "two weights of one name": (lambda: model([PLAIN], [WEIGHT, WEIGHT]), "two weights named"),
    "steps out of order": (unordered, "not in order"),
    "ConstantOfShape": (lambda: model([node("ConstantOfShape", "size", "x")], [whole("size", BIG)]), "8,589,934,592"),
    "ConstantOfShape of several": (
        lambda: model([node("ConstantOfShape", "size", "x")], [whole("size", 1 << 12, 1 << 12, 1 << 12)]),
        "constant of",
    ),
    "ConstantOfShape of a constant": (
        lambda: model([node("Constant", "", "size", value_ints=[BIG]), node("ConstantOfShape", "size", "x")], []),
        "constant of",
    ),
    "ConstantOfShape worked out": (
        lambda: model([node("Mul", "size size", "s"), node("ConstantOfShape", "s", "x")], [whole("size", 1 << 17)]),
        "cannot be told",
    ),
    "ConstantOfShape of joined parts": (
        lambda: model(
            [node("Concat", "a b", "s", axis=0), node("ConstantOfShape", "s", "x")],
            [whole("a", 1 << 17), whole("b", 1 << 17)],
        ),
        "constant of",
    ),
    "Expand": (
        lambda: model([node("Expand", "weight size", "x")], [WEIGHT, whole("size", 1 << 30, 4, 4)]),
        "constant of",
    ),
    "Tile": (
        lambda: model([node("Tile", "weight size", "x")], [WEIGHT, whole("size", 1 << 16, 1 << 16)]),
        "constant of",
    ),
    "Range": (
        lambda: model([node("Range", "a b c", "x")], [whole("a", 0), whole("b", BIG), whole("c", 1)]),
        "cannot be told",
    ),
    "Pad": (lambda: model([node("Pad", "weight pads", "x")], [WEIGHT, whole("pads", 0, 0, BIG, 4)]), "cannot be told"),
    "OneHot": (
        lambda: model([node("OneHot", "a b c", "x")], [whole("a", 0), whole("b", BIG), whole("c", 0, 1)]),
        "cannot",
    ),
    "Resize": (lambda: model([node("Resize", "weight scales", "x")], [WEIGHT, whole("scales", BIG)]), "cannot be told"),
    "sum of a column and a row": (lambda: model([node("Add", "column row", "x")], [COLUMN, ROW]), "400,000,000"),
    "product of a column and a row": (lambda: model([node("MatMul", "column row", "x")], [COLUMN, ROW]), "400,000,000"),
    "lookup": (
        lambda: model([node("Gather", "row at", "x")], [ROW, whole("at", *([0] * 20_000))]),
        "400,000,000",
    ),
    "too many steps": (lambda: model([node("Relu", "vector", f"v{n}") for n in range(20_001)]), "20,001 steps"),
    "nothing": (lambda: b"", "no ONNX graph"),
    "no protobuf": (lambda: b"PK\x03\x04 not a model", "no ONNX graph"),
    "a cut": (lambda: model([PLAIN])[:-7], "no ONNX graph"),
    "the runtime's own format": (lambda: b"\x00\x00\x00\x00ORTM" + bytes(100), "own format"),
    "endless number": (lambda: b"\x3a" + b"\xff" * 40, "no ONNX graph"),
    "longer than the file": (lambda: b"\x3a\xff\xff\xff\x7fxx", "no ONNX graph"),
}


def _located():
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[4, 4])
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


@pytest.mark.parametrize("name", REFUSED)
def test_a_graph_that_is_more_than_arithmetic_is_refused(name):
    make, reason = REFUSED[name]
    with pytest.raises(ModelMismatchError) as failed:
        check_graph(make(), name="evil")
    assert "model evil" in str(failed.value) and reason in str(failed.value)


def test_graphs_are_read_as_a_merge_when_a_file_has_two():
    with pytest.raises(ModelMismatchError, match="another file"):
        check_graph(model([PLAIN]) + model([PLAIN], [external("x")]), name="evil")


@pytest.mark.parametrize(
    "nodes",
    [
        [PLAIN],
        [node("Shape", "vector", "s"), node("ConstantOfShape", "s", "z"), node("Add", "vector z")],  # by the input
        [node("Shape", "weight", "s"), node("ConstantOfShape", "s", "z"), node("MatMul", "vector z")],
        [node("Unsqueeze", "weight axis", "u"), node("Squeeze", "u axis", "w"), node("MatMul", "vector w")],
        [node("Add", "weight weight", "w"), node("Mul", "w w", "v"), node("MatMul", "vector v")],
    ],
)
def test_ordinary_graphs_pass(nodes):
    check_graph(model(nodes, [WEIGHT, whole("axis", 0)]), name="good")


@pytest.mark.parametrize("kind", ["text", "image"])
def test_the_models_that_ship_pass(kind):
    check_graph((shipped(kind) / "model.onnx").read_bytes(), name=kind)


def test_the_shipped_tokenizer_passes():
    check_tokenizer((shipped("text") / "tokenizer.json").read_bytes(), name="text")


@given(content=st.binary(max_size=200), place=st.integers(0, 400))
def test_damaged_graphs_are_refused_or_read_and_nothing_else(content, place):
    good = model([PLAIN])
    with contextlib.suppress(ModelMismatchError):
        check_graph(good[:place] + content + good[place + len(content) :], name="damaged")


def test_an_evil_model_with_the_right_digest_is_not_loaded(tiny_models, tmp_path, monkeypatch):
    """The digest is the attacker's own: he writes the card too."""
    monkeypatch.chdir(tmp_path)
    Path("key").write_bytes(np.ones((4, 4), np.float32).tobytes())
    evil = model([PLAIN], [external("key")])
    card = json.loads((_folder(tiny_models, "image") / "card.json").read_text())
    card = {**card, "kind": "projector", "projects": "image", "input": {"dim": 4}, "dim": 4}
    with pytest.raises(ModelMismatchError, match="another file"):
        Encoder.from_bytes({**card, "sha256": hashlib.sha256(evil).hexdigest()}, evil, device="cpu")


def _folder(root: Path, kind: str) -> Path:
    return next(path.parent for path in root.rglob("card.json") if json.loads(path.read_text())["kind"] == kind)


# ---- tokenizers and cards

WORDS = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}


def tokenizer(**parts) -> bytes:
    return json.dumps({"model": WORDS, "normalizer": None, "pre_tokenizer": None, **parts}).encode()


def split(pattern: str) -> bytes:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return tokenizer(pre_tokenizer={"type": "Sequence", "pretokenizers": [step]})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (tokenizer(normalizer={"type": "Python"}), "'Python' that is not known"),
        (split("(a+)+b"), "repeats a group"),
        (split("(a|aa)*b"), "repeats a group"),
        (split("(a){1,1000000}"), "repeats a group"),
        (split(r"(a)\1"), "reference to a part"),
        (split("a*a*a*b"), "more than two repetitions"),
        (split("a" * 2000), "2000 characters"),
    ],
)
def test_a_tokenizer_that_could_take_for_ever_is_refused(content, reason):
    with pytest.raises(ModelMismatchError, match="model evil") as failed:
        check_tokenizer(content, name="evil")
    assert reason in str(failed.value)


@pytest.mark.parametrize(
    "pattern",
    [r"\s+", r"'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", r" ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", r"[(+*)]+x"],
)
def test_the_patterns_of_known_tokenizers_pass(pattern):
    check_tokenizer(split(pattern), name="good")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dim": "256"}, "dim"),
        ({"dim": 0}, "dim"),
        ({"dim": 10**9}, "dim"),
        ({"dim": True}, "dim"),
        ({"id": ["x"]}, "id"),
        ({"space": {}}, "space"),
        ({"input": {"size_px": 10**6}}, "input.size_px"),
        ({"input": {"size_px": -1}}, "input.size_px"),
        ({"activation_bytes_per_row": -1}, "activation_bytes_per_row"),
        ({"activation_bytes_per_row": "many"}, "activation_bytes_per_row"),
        ({"self_test": {"inputs": ["x"] * 100_000, "outputs": []}}, "self_test"),
        ({"self_test": "none"}, "self_test"),
    ],
)
def test_a_card_with_other_types_or_wild_numbers_is_refused(tiny_models, change, named):
    card = json.loads((_folder(tiny_models, "image") / "card.json").read_text())
    check_card(card)
    with pytest.raises(ModelMismatchError, match=named):
        check_card({**card, **change})


def test_a_batch_is_bounded_whatever_the_card_says(tiny_models):
    folder = _folder(tiny_models, "image")
    card = {**json.loads((folder / "card.json").read_text()), "activation_bytes_per_row": 1}
    assert Encoder.from_bytes(card, (folder / "model.onnx").read_bytes(), device="cpu").batch_rows <= 4096


def test_a_long_text_is_cut_before_it_is_taken_apart(tiny_models, monkeypatch):
    encoder = Encoder.from_folder(_folder(tiny_models, "text"), device="cpu")
    monkeypatch.setattr("galsearch.encode.MOST_CHARACTERS", 3)
    assert np.array_equal(encoder.encode(["red edge"]), encoder.encode(["red"]))


def test_every_refused_operator_is_spelled_as_onnx_spells_it():
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert known >= graphs.VALUE_SIZED | graphs.SAME_SHAPE | graphs.SMALLER | graphs.MIXING
    assert graphs.REFUSED_OPS - known <= {"ImageDecoder", "StringConcat", "StringSplit", "RegexFullMatch"}
