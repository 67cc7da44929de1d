"""The models of an atlas as a browser runs them: a text model without its table of words, which is fetched by rows.

The table is the larger half of a small text model, and a question needs ten rows of it. What is left has its matrices
as 8-bit numbers by groups with a scale each (ONNX Runtime's MatMulNBits), which the runtime for browsers computes in
single precision; where the model stores them so already nothing is rounded again.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from galsearch import encode
from galsearch.encode import MOST_CHARACTERS, Encoder
from galsearch.errors import GalsearchError, ModelMismatchError
from galsearch.site.folder import Entry, Staging
from galsearch.site.vectors import coded, slug
from galsearch.store.read.base import BaseStore

TEXT, IMAGE = "text", "image"
IDS, MASK, ROWS_INPUT = "input_ids", "attention_mask", "word_vectors"
LEAST_COSINE = 0.999  # between what the browser's model and the atlas's give for a text
LEAST_NUMBERS = 1 << 14  # of a matrix that is stored in 8 bits; smaller ones stay as they are
GROUP = 32  # numbers with one scale, where a model has no groups of its own
GROUPS = (16, 32, 64, 128, 256)  # that MatMulNBits takes
ZERO = 128  # of unsigned 8-bit numbers
PROBES = (
    "edge-on disk with a dust lane", "NGC 1300", "a", "spiral galaxy without a bar, z < 0.05",
    "Röntgen-hell, très rouge",
    "two interacting galaxies joined by a bridge of stars, one of them with a long tidal tail and a bright nucleus",
    "銀河 galaxy 🌌 (M51)", "unbelievablyoverextendedcompoundword",
)  # fmt: skip
MISSING = (
    "the package onnx rewrites a text model for browsers, and is not installed: pip install 'galsearch[site]', or "
    "leave the models out with encoders=False (--no-encoders): visitors then ask by example phrases, objects, filters"
)


class NotForBrowsersError(Exception):
    """A model cannot be taken along; the message says why."""


def write_encoders(staging: Staging, store: BaseStore, phrases: list[str]) -> dict[str, Any]:
    """Write the models that a page runs; return `text_encoder`, `image_encoder`, `encoders_left_out`.

    `phrases` are texts on which the rewritten text model is compared with the one of the atlas.
    """
    there, left_out = store.models(), dict[str, str]()
    about: dict[str, Any] = {"text_encoder": None, "image_encoder": None}
    for name, write in ((TEXT, _write_text), (IMAGE, _write_image)):
        model = store.model(name) if name in there else None
        if model is None:
            continue
        try:
            about[f"{name}_encoder"] = write(staging, store, model, phrases)
        except NotForBrowsersError as error:
            left_out[name] = str(error)
    projectors = (about["text_encoder"] or {}).get("projectors", {})
    for name in store.manifest.embeddings:
        if f"words_{name}" in there and name not in projectors:
            left_out[f"words_{name}"] = "the text model that it takes vectors of does not go along"
    return {**about, "encoders_left_out": left_out}


def _misfit(store: BaseStore, space: str | None, card: Mapping[str, Any]) -> str | None:
    """Return why the vectors of an embedding may not be compared with those of a model; None where they may."""
    if space is None:
        return f"{card['id']} serves no embedding of the atlas"
    try:
        encode.check_same_model(store.manifest.embeddings[space], dict(card), name="the atlas")
    except ModelMismatchError as error:
        return str(error)
    return None


def _write_image(staging: Staging, store: BaseStore, model: tuple, phrases: list[str]) -> dict[str, Any]:
    card, onnx, _ = model
    if card["kind"] != "image":
        raise NotForBrowsersError(f"{card['id']} takes calibrated {card['kind']}, which a browser does not read")
    space = store.manifest.embedding_of_model(IMAGE)
    if (reason := _misfit(store, space, card)) is not None:
        raise NotForBrowsersError(reason)
    Encoder.from_bytes(card, onnx, device="cpu")  # raises where card and graph do not belong together
    body = compressed(staging, "image-model", onnx)
    stated = {key: value for key, value in card["input"].items() if key in ("size_px", "stretch")}
    return {
        "body": body,
        "model": card["id"],
        "space": space,
        "input": {**stated, "name": "image", "layout": "n, y, x, rgb uint8", "resized": "central square, bicubic"},
        "output": card.get("output", "embedding"),
        "bytes": body["bytes"],
    }


def compressed(staging: Staging, name: str, content: bytes) -> Entry:
    """Write bytes compressed by gzip; equal bytes give equal files."""
    return {**staging.put(name, gzip.compress(content, 9, mtime=0)), "encoding": "gzip"}


def _write_text(staging: Staging, store: BaseStore, model: tuple, phrases: list[str]) -> dict[str, Any]:
    card, onnx, tokenizer = model
    space, projecting = store.manifest.embedding_of_model(TEXT), _projecting(store, card)
    reason = _misfit(store, space, card)
    if reason is not None and not projecting:
        raise NotForBrowsersError(reason)
    encoder = Encoder.from_bytes(card, onnx, tokenizer, device="cpu")
    rules, vocabulary = word_pieces(tokenizer)
    body, table, scales = without_words(onnx, name=card["id"])
    output = card.get("output", "embedding")
    texts = list(dict.fromkeys([*PROBES, *phrases]))
    cosine = lowest_cosine(encoder, body, table, scales, texts)
    if not cosine >= LEAST_COSINE:
        raise NotForBrowsersError(f"{card['id']} in 8 bits differs from itself: cosine {cosine:.4f}")
    entries = {
        "body": compressed(staging, "text-model", body),
        "vocab": compressed(staging, "vocabulary", json.dumps(vocabulary, ensure_ascii=False).encode()),
    }
    words = {
        "file": staging.array("word-vectors", table, "i1"),
        "scales": staging.array("word-scales", scales, "<f4"),
        "dtype": "int8",
        "rows": len(table),
        "dim": table.shape[1],
    }
    projectors = {name: _projector(staging, name, *one) for name, one in projecting.items()}
    fetched = [*entries.values(), words["scales"], *(one["body"] for one in projectors.values())]
    return {
        **entries,
        "embedding_rows": words,
        "model": card["id"],
        "space": space if reason is None else None,
        "inputs": {"embeddings": ROWS_INPUT, "attention_mask": MASK},
        "output": output,
        "tokenizer": rules,
        "max_tokens": card["input"]["max_tokens"],
        "max_characters": MOST_CHARACTERS,
        "lowercase": rules["lowercase"],
        "projectors": projectors,
        "parity": {"texts": len(texts), "lowest_cosine": round(cosine, 6)},
        "bytes_total": sum(entry["bytes"] for entry in fetched),
    }


def _projecting(store: BaseStore, text: Mapping[str, Any]) -> dict[str, tuple[dict, bytes]]:
    """Return card and graph of the models that take the text model's vectors into other spaces, by embedding."""
    result = {}
    for name in store.manifest.embeddings:
        model = store.model(f"words_{name}") if f"words_{name}" in store.models() else None
        if model is None or _misfit(store, name, model[0]) is not None:
            continue
        try:
            encode.check_takes(model[0], text)
        except ModelMismatchError:
            continue  # it belongs to another text model, which does not go along
        result[name] = model[:2]
    return result


def _projector(staging: Staging, name: str, card: dict, onnx: bytes) -> dict[str, Any]:
    Encoder.from_bytes(card, onnx, device="cpu")
    body = compressed(staging, f"words-{slug(name)}", onnx)
    return {"body": body, "input": "vector", "output": card.get("output", "embedding"), "model": card["id"]}


# ---- the tokenizer


def word_pieces(tokenizer: bytes | None) -> tuple[dict[str, Any], list[str | None]]:
    """Return the rules of a WordPiece tokenizer, and its pieces by number.

    Raises NotForBrowsersError for a tokenizer of another kind.
    """
    stated = json.loads(tokenizer or b"{}")
    normalizer, model = stated.get("normalizer") or {}, stated.get("model") or {}
    kinds = (normalizer.get("type"), (stated.get("pre_tokenizer") or {}).get("type"), model.get("type"))
    if kinds != ("BertNormalizer", "BertPreTokenizer", "WordPiece"):
        raise NotForBrowsersError(
            f"its tokenizer is {' + '.join(map(str, kinds))}, and the page knows BERT's WordPiece"
        )
    vocabulary: dict[str, int] = model["vocab"]
    if not vocabulary or max(vocabulary.values()) >= 4 * len(vocabulary):
        raise NotForBrowsersError("its tokenizer has no usable vocabulary")
    pieces: list[str | None] = [None] * (max(vocabulary.values()) + 1)
    for piece, number in vocabulary.items():
        pieces[number] = piece
    lower = bool(normalizer.get("lowercase"))
    stripped = normalizer.get("strip_accents")
    first, last = _ends(stated.get("post_processor") or {}, vocabulary)
    rules = {
        "lowercase": lower,
        "strip_accents": lower if stripped is None else bool(stripped),
        "clean_text": bool(normalizer.get("clean_text")),
        "handle_chinese_chars": bool(normalizer.get("handle_chinese_chars")),
        "unknown": model["unk_token"],
        "prefix": model["continuing_subword_prefix"],
        "max_characters_per_word": model["max_input_chars_per_word"],
        "first": first,
        "last": last,
        "added_tokens": {one["content"]: one["id"] for one in stated.get("added_tokens") or []},
    }
    return rules, pieces


def _ends(processor: dict[str, Any], vocabulary: dict[str, int]) -> tuple[list[int], list[int]]:
    """Return the tokens that are put before a text and behind it."""
    if processor.get("type") == "BertProcessing":
        return [processor["cls"][1]], [processor["sep"][1]]
    if processor.get("type") != "TemplateProcessing":
        raise NotForBrowsersError(f"its tokenizer ends texts by {processor.get('type')}, which the page does not know")
    known, before, after, seen = processor["special_tokens"], list[int](), list[int](), False
    for part in processor["single"]:
        if "Sequence" in part:
            seen = True
        else:
            (after if seen else before).extend(known[part["SpecialToken"]["id"]]["ids"])
    return before, after


# ---- the graph


def without_words(content: bytes, *, name: str) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Return a text model that takes the vectors of words, not their numbers; and those, `(v, h) int8` with scales.

    Raises NotForBrowsersError where its graph looks up words in another way, GalsearchError without the package onnx.
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError:
        raise GalsearchError(MISSING) from None
    model = onnx.load_from_string(content)
    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    table, scales, looked_up = _cut_words(graph, constants)
    for node in graph.node:
        for index, one in enumerate(node.input):
            if one == looked_up:
                node.input[index] = ROWS_INPUT
            elif one == IDS:
                if node.op_type != "Shape":
                    raise NotForBrowsersError(f"{name} uses the numbers of words beyond looking them up")
                node.input[index] = MASK
    _eight_bits(graph, constants)
    _drop_unused(graph)
    mask = next((one for one in graph.input if one.name == MASK), None)
    if mask is None:
        raise NotForBrowsersError(f"{name} takes no attention mask")
    shape = ["n", "length", table.shape[1]]
    del graph.input[:]
    graph.input.extend([helper.make_tensor_value_info(ROWS_INPUT, TensorProto.FLOAT, shape), mask])
    del graph.value_info[:]
    if not any(one.domain == "com.microsoft" for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model.SerializeToString(), table, scales


def _cut_words(graph: Any, constants: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, str]:
    """Take what looks words up out of a graph; return the table, its scales, and the name of what was looked up.

    It is one Gather of numbers, or of 8-bit numbers and of scales, which are multiplied.
    """
    from onnx import numpy_helper

    lookups = [node for node in graph.node if node.op_type == "Gather" and list(node.input[1:]) == [IDS]]
    tables = [numpy_helper.to_array(constants[node.input[0]]) for node in lookups if node.input[0] in constants]
    takes_first = all(one.i == 0 for node in lookups for one in node.attribute)  # axis, the only attribute
    if len(tables) != len(lookups) or not takes_first or any(table.ndim != 2 for table in tables):
        raise NotForBrowsersError("its graph looks words up in another way than from one table")
    if len(tables) == 1 and tables[0].dtype.kind == "f":
        codes, scales = coded(tables[0].astype(np.float32))
        graph.node.remove(lookups[0])
        return codes, scales, lookups[0].output[0]
    by_kind = {table.dtype.kind: (node, table) for node, table in zip(lookups, tables, strict=True)}
    if len(lookups) != 2 or set(by_kind) != {"i", "f"} or by_kind["i"][1].dtype != np.int8:
        raise NotForBrowsersError("its graph looks words up in another way than from one table")
    (codes_node, codes), (scales_node, scales) = by_kind["i"], by_kind["f"]
    cast = _only_user(graph, codes_node.output[0], "Cast")
    product = _only_user(graph, cast.output[0], "Mul")
    if set(product.input) != {cast.output[0], scales_node.output[0]} or scales.shape != (len(codes), 1):
        raise NotForBrowsersError("its graph scales the table of words in a way that is not known")
    for node in (codes_node, scales_node, cast, product):
        graph.node.remove(node)
    return codes, scales[:, 0].astype(np.float32), product.output[0]


def _only_user(graph: Any, name: str, kind: str) -> Any:
    users = [node for node in graph.node if name in node.input]
    if len(users) != 1 or users[0].op_type != kind:
        raise NotForBrowsersError(f"its graph does other things with the table of words than {kind}")
    return users[0]


def _eight_bits(graph: Any, constants: dict[str, Any]) -> None:
    """Replace products with large constant matrices by MatMulNBits."""
    from onnx import helper, numpy_helper

    made_by = {name: node for node in graph.node for name in node.output}
    for index, node in enumerate(graph.node):
        if node.op_type != "MatMul":
            continue
        grouped = _grouped(node.input[1], made_by, constants)
        if grouped is None:
            continue
        codes, scales = grouped  # (groups, size, n) int8, (groups, n)
        groups, size, wide = codes.shape
        packed = np.ascontiguousarray((codes.astype(np.int16) + ZERO).astype(np.uint8).transpose(2, 0, 1))
        weights, steps = f"{node.output[0]}_codes", f"{node.output[0]}_scales"
        graph.initializer.append(numpy_helper.from_array(packed, weights))
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(scales.T).reshape(-1), steps))
        attributes = {"K": groups * size, "N": wide, "bits": 8, "block_size": size}
        product = helper.make_node(
            "MatMulNBits", [node.input[0], weights, steps], list(node.output), domain="com.microsoft", **attributes
        )
        graph.node[index].CopyFrom(product)


def _grouped(name: str, made_by: dict[str, Any], constants: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return a constant matrix (k, n) as 8-bit numbers in groups along k, with their scales; None for what is not one.

    One that a model stores so, int8 * scale and reshaped, is taken as it is.
    """
    from onnx import numpy_helper

    if name in constants:
        return _in_groups(numpy_helper.to_array(constants[name]))
    chain: list[Any] = []
    for kind in ("Reshape", "Mul", "Cast"):
        node = made_by.get(name)
        if node is None or node.op_type != kind:
            return None
        chain.append(node)
        name = node.input[0]
    stored = [chain[2].input[0], chain[1].input[1], chain[0].input[1]]
    if not all(one in constants for one in stored):
        return None
    codes, scales, shape = (numpy_helper.to_array(constants[one]) for one in stored)
    is_grouped = (
        codes.dtype == np.int8
        and codes.ndim == 3
        and codes.shape[1] in GROUPS
        and scales.shape == (len(codes), 1, codes.shape[2])
        and shape.tolist() == [codes.shape[0] * codes.shape[1], codes.shape[2]]
    )
    return (codes, scales[:, 0].astype(np.float32)) if is_grouped else None


def _in_groups(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return a matrix (k, n) as 8-bit numbers in groups of GROUP along k, and their scales; None for a small one."""
    if matrix.ndim != 2 or matrix.size < LEAST_NUMBERS or len(matrix) % GROUP or matrix.dtype.kind != "f":
        return None
    blocks = matrix.astype(np.float32).reshape(-1, GROUP, matrix.shape[1])
    scales = (np.abs(blocks).max(axis=1) / 127).astype(np.float32)
    codes = np.rint(blocks / np.maximum(scales, 1e-30)[:, None])
    return np.clip(codes, -127, 127).astype(np.int8), scales


def _drop_unused(graph: Any) -> None:
    """Take out the steps and the constants whose results nobody needs."""
    needed = {one.name for one in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [one for one in graph.initializer if one.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def lowest_cosine(encoder: Encoder, body: bytes, table: np.ndarray, scales: np.ndarray, texts: list[str]) -> float:
    """Return the lowest cosine between the vectors of `texts` by the encoder and by what a browser has of it."""
    expected = encoder.encode(texts)
    tokens = encoder.token_ids(texts)
    width = max(map(len, tokens))
    ids = np.array([[*row, *[0] * (width - len(row))] for row in tokens])
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in tokens], np.int64)
    rows = table[ids].astype(np.float32) * scales[ids][..., None]
    output = encoder.card.get("output", "embedding")
    got = encode.run_graph(body, {ROWS_INPUT: rows, MASK: mask}, output=output, name=encoder.model_id)
    return float(np.min(np.sum(got * expected, axis=1) / np.linalg.norm(got, axis=1)))
