"""ONNX graphs and tokenizers of strangers, read without running them: what a model that travels with an atlas may be.

A model is a program. ONNX Runtime follows paths in it (external data), runs loops, loads other operators and works out
constants while it loads, so that 200 bytes can ask for any file or all memory. This reads the protobuf wire format
itself, no more of it than it takes to refuse: the package `onnx` would read the whole, and is no part of the runtime.

Field numbers are those of onnx/onnx.proto.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from galsearch.errors import ModelMismatchError

MOST_MODEL_BYTES = 2 << 30
MOST_NODES = 20_000
MOST_FIELDS = 4_000_000
MOST_CONSTANT = 1 << 26  # numbers that one step of working out constants may make
MOST_TOKENIZER_BYTES = 64 << 20
MOST_PATTERN = 1_000  # characters of a regular expression in a tokenizer
ORT_FORMAT = b"ORTM"  # in bytes 4 to 8: ONNX Runtime's own format, which is not read here
DOMAINS = {"", "ai.onnx"}
CONTRIB = "com.microsoft"
CONTRIB_OPS = {
    "BiasGelu", "DynamicQuantizeMatMul", "EmbedLayerNormalization", "FastGelu", "FusedMatMul", "Gelu",
    "GroupQueryAttention", "LayerNormalization", "MatMulNBits", "MultiHeadAttention", "QuickGelu", "RotaryEmbedding",
    "SimplifiedLayerNormalization", "SkipLayerNormalization",
}  # fmt: skip
REFUSED_OPS = {
    "If", "Loop", "Scan", "SequenceMap",  # programs within the program
    "StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer", "ImageDecoder",
}  # fmt: skip
VALUE_SIZED = {
    "ConstantOfShape",
    "Expand",
    "OneHot",
    "Pad",
    "Range",
    "Resize",
    "Tile",
    "Upsample",
}  # by what inputs say
SAME_SHAPE = {
    "Abs", "Cast", "Ceil", "Clip", "Cos", "Erf", "Exp", "Floor", "Identity", "Log", "Neg", "Not", "Reciprocal", "Relu",
    "Round", "Sigmoid", "Sign", "Sin", "Softmax", "Sqrt", "Tanh", "Trilu",
}  # fmt: skip
SMALLER = {
    "ArgMax", "ArgMin", "Flatten", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "NonZero", "TopK",
}  # fmt: skip
MIXING = {"Conv", "Einsum", "Gather", "GatherND", "Gemm", "MatMul"}  # whose size is no common shape
TOKENIZER_PARTS = {
    "BPE", "Bert", "BertNormalizer", "BertPreTokenizer", "BertProcessing", "ByteFallback", "ByteLevel", "CTC",
    "CharDelimiterSplit", "Digits", "FixedLength", "Fuse", "Lowercase", "Metaspace", "NFC", "NFD", "NFKC", "NFKD",
    "Nmt", "Precompiled", "Prepend", "Punctuation", "Replace", "RobertaProcessing", "Sequence", "Split", "Strip",
    "StripAccents", "TemplateProcessing", "Unigram", "UnicodeScripts", "Whitespace", "WhitespaceSplit", "WordLevel",
    "WordPiece",
}  # fmt: skip
TOKENIZER_STEPS = ("normalizer", "pre_tokenizer", "model", "post_processor", "decoder")


@dataclass
class _Constant:
    """What is known of a constant: how many numbers at most, its shape, and its whole numbers where they are few."""

    size: int
    dims: tuple[int, ...] | None = None
    values: tuple[int, ...] | None = None


@dataclass
class _Node:
    """One step of a graph."""

    op: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    tensors: list[memoryview] = field(default_factory=list)
    whole: dict[str, list[int]] = field(default_factory=dict)


class _Graph:
    """A reader of one model, which raises as soon as it meets something that is not taken."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left = MOST_FIELDS
        self.constants: dict[str, _Constant] = {}

    def refuse(self, reason: str, remedy: str = "export it again without that") -> ModelMismatchError:
        return ModelMismatchError(f"model {self.name}: it {reason}, which is not run here; {remedy}")

    # ---- the wire format

    def fields(self, content: memoryview) -> Iterator[tuple[int, memoryview | int]]:
        """Yield (number, value) of the fields of a message: bytes, or a whole number."""
        offset = 0
        value: memoryview | int
        while offset < len(content):
            self.left -= 1
            if self.left < 0:
                raise self.refuse(f"has more than {MOST_FIELDS:,} fields")
            tag, offset = self._varint(content, offset)
            if tag >> 32:
                raise self._damaged()
            kind = tag & 7
            if kind == 0:
                value, offset = self._varint(content, offset)
            elif kind == 2:
                size, offset = self._varint(content, offset)
                value, offset = content[offset : offset + size], offset + size
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
                value, offset = content[offset : offset + size], offset + size
            else:
                raise self._damaged()
            if offset > len(content):
                raise self._damaged()
            yield tag >> 3, value

    def _varint(self, content: memoryview, index: int) -> tuple[int, int]:
        value = 0
        for step in range(10):
            if index >= len(content):
                break
            byte = content[index]
            index += 1
            value |= (byte & 0x7F) << (7 * step)
            if byte < 0x80:
                return value & (1 << 64) - 1, index
        raise self._damaged()

    def _damaged(self) -> ModelMismatchError:
        return ModelMismatchError(f"model {self.name}: it is no ONNX graph, or damaged; copy the model again")

    def message(self, value: memoryview | int) -> memoryview:
        """Return a value that must be bytes."""
        if isinstance(value, int):
            raise self._damaged()
        return value

    def text(self, value: memoryview | int) -> str:
        """Return a value that must be text."""
        return bytes(self.message(value)).decode("utf-8", "replace")

    def numbers(self, value: memoryview | int) -> list[int]:
        """Return signed whole numbers, packed or alone."""
        result = [value] if isinstance(value, int) else []
        if not isinstance(value, int):
            index = 0
            while index < len(value):
                number, index = self._varint(value, index)
                result.append(number)
        return [number - (1 << 64) if number >> 63 else number for number in result]

    # ---- messages

    def model(self, content: memoryview) -> None:
        """Check a ModelProto."""
        seen = False
        for number, value in self.fields(content):
            if number == 7:
                self.graph(self.message(value))
                seen = True
            elif number == 25:
                raise self.refuse("has functions of its own", "inline them when it is exported")
            elif number == 20:
                raise self.refuse("has steps of training")
        if not seen:
            raise self._damaged()

    def graph(self, content: memoryview) -> None:
        """Check a GraphProto: first what is stored, then each step in order."""
        nodes = []
        for number, value in self.fields(content):
            if number == 1:
                nodes.append(self.message(value))
            elif number == 5:
                name, constant = self.tensor(self.message(value))
                if name in self.constants:
                    raise self.refuse(f"has two weights named {name[:80]!r}", "export it again")
                self.constants[name] = constant
            elif number == 15:
                raise self.refuse("has sparse weights")
        if len(nodes) > MOST_NODES:
            raise self.refuse(f"has {len(nodes):,} steps, at most {MOST_NODES:,} are taken", "export a smaller one")
        steps = [self.node(node) for node in nodes]
        to_come = {name for step in steps for name in step.outputs if name}
        for step in steps:
            if to_come & set(step.inputs):
                raise self.refuse("has steps that are not in order", "export it again")
            self.step(step)
            to_come -= set(step.outputs)

    def tensor(self, content: memoryview) -> tuple[str, _Constant]:
        """Check a TensorProto; return its name and what is known of it."""
        name, dims, raw, whole = "", [], None, []
        kind: memoryview | int = 0  # the field of a damaged file may hold bytes, which are no kind
        for number, value in self.fields(content):
            if number == 1:
                dims += self.numbers(value)
            elif number == 2:
                kind = value
            elif number == 7:
                whole += self.numbers(value) if isinstance(value, int) or len(value) <= 1024 else []
            elif number == 8:
                name = self.text(value)
            elif number == 9:
                raw = self.message(value)
            elif number == 13 or (number == 14 and value != 0):
                raise self.refuse(
                    "keeps weights in another file, and naming one lets it read any file of this machine",
                    "export it with all weights inside",
                )
        if any(dim < 0 for dim in dims):
            raise self._damaged()
        size = math.prod(dims)
        if size > 2 * len(content):
            raise self.refuse(f"says that a weight has {size:,} numbers, and has not so many", "copy the model again")
        if kind == 7 and raw is not None and len(raw) <= 1024:
            whole = [int.from_bytes(raw[at : at + 8], "little", signed=True) for at in range(0, len(raw), 8)]
        values = tuple(whole) if kind == 7 and len(whole) == size else None
        return name, _Constant(size, tuple(dims), values)

    def node(self, content: memoryview) -> _Node:
        """Return what a NodeProto does."""
        result = _Node()
        for number, value in self.fields(content):
            if number == 1:
                result.inputs.append(self.text(value))
            elif number == 2:
                result.outputs.append(self.text(value))
            elif number == 4:
                result.op = self.text(value)
            elif number == 5:
                self.attribute(self.message(value), result)
            elif number == 7:
                result.domain = self.text(value)
        return result

    def attribute(self, content: memoryview, node: _Node) -> None:
        """Check an AttributeProto, and keep what the size of a result depends on."""
        name, whole = "", []
        for number, value in self.fields(content):
            if number == 1:
                name = self.text(value)
            elif number in (3, 8):
                whole += self.numbers(value)
            elif number in (5, 10):
                node.tensors.append(self.message(value))
            elif number in (6, 11):
                raise self.refuse(f"has a graph within a graph (in {node.op or 'a step'}: a loop or a branch)")
            elif number in (22, 23):
                raise self.refuse("has sparse weights")
        node.whole[name] = whole

    # ---- what a step does

    def step(self, node: _Node) -> None:
        """Check one step, and how much it makes where all that it needs is constant."""
        ours = node.domain in DOMAINS and node.op not in REFUSED_OPS
        if not ours and not (node.domain == CONTRIB and node.op in CONTRIB_OPS):
            named = f"{node.domain}.{node.op}" if node.domain else node.op
            raise self.refuse(f"has the operator {named[:80]}")
        tensors = [self.tensor(tensor)[1] for tensor in node.tensors]
        if node.op == "Constant":
            made = tensors[0] if tensors else self._of_numbers(node)
        else:
            inputs = [name for name in node.inputs if name]
            if not inputs or any(name not in self.constants for name in inputs):
                return
            made = self.made(node, [self.constants[name] for name in inputs])
        if made.size > MOST_CONSTANT:
            raise self.refuse(
                f"works out a constant of {made.size:,} numbers while it loads (by {node.op}), at most "
                f"{MOST_CONSTANT:,} are taken",
            )
        for name in node.outputs:
            self.constants[name] = made

    def _of_numbers(self, node: _Node) -> _Constant:
        whole = next(iter(node.whole.values()), [])
        return _Constant(max(1, len(whole)), (len(whole),), tuple(whole))

    def made(self, node: _Node, known: list[_Constant]) -> _Constant:
        """Return what is known of the result of constants: its size is never more than said."""
        if node.op in VALUE_SIZED:
            return self._sized_by_values(node, known)
        if node.op == "Concat":
            parts = [one.values for one in known if one.values is not None]
            flat = tuple(value for part in parts for value in part) if len(parts) == len(known) else None
            return _Constant(sum(one.size for one in known), None if flat is None else (len(flat),), flat)
        if node.op in SAME_SHAPE | SMALLER:
            return self._of_one(node, known)
        shapes = [one.dims for one in known if one.dims is not None]
        wide = self._broadcast(shapes) if len(shapes) == len(known) and node.op not in MIXING else None
        return _Constant(math.prod(wide or [max(1, one.size) for one in known]), wide)

    def _of_one(self, node: _Node, known: list[_Constant]) -> _Constant:
        """Return what is known of a result that has the numbers of its first input, or fewer."""
        first, stated = known[0], known[1].values if len(known) == 2 else None
        result = _Constant(first.size)
        if node.op in SAME_SHAPE:
            result = _Constant(first.size, first.dims, first.values if node.op in ("Cast", "Identity") else None)
        elif node.op == "Shape":
            result = _Constant(64) if first.dims is None else _Constant(len(first.dims), (len(first.dims),), first.dims)
        elif node.op == "Unsqueeze" and first.dims is not None and stated is not None:
            result = _Constant(first.size, self._unsqueezed(first.dims, stated), first.values)
        elif node.op == "Reshape" and stated and min(stated) > 0:
            result = _Constant(first.size, stated, first.values)
        elif node.op == "NonZero":
            result = _Constant(first.size * (8 if first.dims is None else len(first.dims)))
        return result

    def _sized_by_values(self, node: _Node, known: list[_Constant]) -> _Constant:
        stated = known[0] if node.op == "ConstantOfShape" else known[-1] if node.op in ("Expand", "Tile") else None
        if stated is None or stated.values is None:
            raise self.refuse(f"works out a constant whose size cannot be told (by {node.op})")
        factor = math.prod(max(1, value) for value in stated.values)
        if node.op == "ConstantOfShape":
            return _Constant(factor, stated.values)
        if node.op == "Expand" and known[0].dims is not None:
            wide = self._broadcast([known[0].dims, stated.values])
            if wide is not None:
                return _Constant(math.prod(wide), wide)
        return _Constant(max(1, known[0].size) * factor)

    @staticmethod
    def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
        rank = max(map(len, shapes))
        full = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
        wide = tuple(max(axis) for axis in zip(*full, strict=True))
        fits = all(dim in (1, most) for shape in full for dim, most in zip(shape, wide, strict=True))
        return wide if fits else None

    @staticmethod
    def _unsqueezed(dims: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
        rank = len(dims) + len(axes)
        new, left = {axis % rank for axis in axes}, iter(dims)
        return tuple(1 if axis in new else next(left, 1) for axis in range(rank))


def check_graph(content: bytes, *, name: str) -> None:
    """Raise ModelMismatchError, naming the model, unless an ONNX graph is one that may be loaded.

    Refused are weights in other files, graphs within graphs (loops, branches), functions and operators of other
    domains, weights that are not there, more than MOST_NODES steps, and constants of more than MOST_CONSTANT numbers.
    """
    graph = _Graph(name)
    if len(content) > MOST_MODEL_BYTES:
        raise graph.refuse(f"has {len(content):,} bytes, at most {MOST_MODEL_BYTES:,} are taken", "use a smaller one")
    if content[4:8] == ORT_FORMAT:
        raise graph.refuse("is in ONNX Runtime's own format", "export it as ONNX")
    graph.model(memoryview(content))


# ---- tokenizers


def check_tokenizer(content: bytes, *, name: str) -> None:
    """Raise ModelMismatchError, naming the model, unless a tokenizer.json has known parts and harmless patterns."""

    def refuse(reason: str) -> ModelMismatchError:
        return ModelMismatchError(f"model {name}: its tokenizer {reason}; use the tokenizer that it was trained with")

    if len(content) > MOST_TOKENIZER_BYTES:
        raise refuse(f"has {len(content):,} bytes, at most {MOST_TOKENIZER_BYTES:,} are taken")
    try:
        stated = json.loads(content)
    except (ValueError, RecursionError):
        raise refuse("is not valid JSON") from None
    if not isinstance(stated, dict) or not isinstance(stated.get("model"), dict):
        raise refuse("is not a JSON object with a model")
    left = [stated.get(step) for step in TOKENIZER_STEPS]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            kind = part.get("type")
            if kind is not None and kind not in TOKENIZER_PARTS:
                raise refuse(f"has a part {str(kind)[:60]!r} that is not known here")
            pattern = part.get("pattern")
            if isinstance(pattern, dict) and "Regex" in pattern and (fault := _fault_of(str(pattern["Regex"]))):
                raise refuse(f"has a regular expression {fault}")
            left += [part.get(key) for key in ("normalizers", "pretokenizers", "processors", "decoders")]


_CLASS = re.compile(r"\[(?:\\.|[^\]\\])*\]|\\[pP]\{\w+\}|\\.")
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\d*\}")


def _fault_of(pattern: str) -> str | None:
    """Return why a pattern could take very long on some text, None where it cannot."""
    if len(pattern) > MOST_PATTERN:
        return f"of {len(pattern)} characters, at most {MOST_PATTERN} are taken"
    if re.search(r"\\[1-9k]", pattern):
        return "with a reference to a part of itself"
    plain = _CLASS.sub("x", pattern)
    if re.search(r"\)(?:[*+]|\{)", plain):
        return "that repeats a group"
    if max(len(_UNBOUNDED.findall(one)) for one in plain.split("|")) > 2:
        return "with more than two repetitions after one another"
    return None
