"""Turn words and pictures into unit vectors with ONNX Runtime; the only module that knows it or a tokenizer.

A model is a folder: `card.json`, `model.onnx`, and `tokenizer.json` for text. Bytes are compared with the
digests on the card before anything is run. All scaling is inside the graph, so pixels go in as uint8 (or as
calibrated flux, where the model was trained on that) and vectors come out. A projector takes vectors of
another model into a space that it shares with others.

    >>> encoder = Encoder.from_folder(shipped("text"))                                # doctest: +SKIP
    >>> encoder.encode(["edge-on galaxy", "ring galaxy"]).shape                       # doctest: +SKIP
    (2, 256)
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from galsearch.errors import GalsearchError, LimitError, ModelMismatchError, QueryError, SchemaError
from galsearch.escaping import is_text
from galsearch.graphs import check_graph, check_tokenizer
from galsearch.science import images
from galsearch.science.familiarity import Reference
from galsearch.science.spectra import LogGrid

CARD_FILE, ONNX_FILE, TOKENIZER_FILE = "card.json", "model.onnx", "tokenizer.json"
KINDS = {
    "text": "max_tokens",
    "image": "size_px",
    "flux": "size_px",
    "spectrum": "pixels",
    "projector": "dim",
}  # and what input must say
MEMORY_BYTES = 256 * 2**20  # activations of one batch; larger batches are not faster on a CPU
MOST_ROWS = 4_096  # of one batch, whatever a card says
MOST_CHARACTERS = 5_000  # of one text
MOST_EXAMPLES = 64  # of the self-test on a card
MOST_TAUGHT, LONGEST_WORD = 100_000, 64  # words on a card that training texts had, and letters of one
INPUT_BOUNDS = {"max_tokens": 8_192, "size_px": 4_096, "pixels": 65_536, "dim": 65_536}
NORM_TOLERANCE = 1e-3
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_REQUIRED = ("id", "kind", "embedding", "dim", "sha256", "space", "input")

_log = logging.getLogger("galsearch")


class Encoder:
    """One ONNX model, checked against its card and ready to run.

    `card` is the parsed card; `model_id`, `sha256`, `dim`, `kind`, `embedding` and `space` are read from it.
    `provider` names the ONNX Runtime provider really in use. Make one with `from_folder` or `from_bytes`.
    """

    def __init__(self, card: dict, session, tokenizer, *, batch_rows: int) -> None:
        self.card = card
        self.batch_rows = batch_rows
        self._session = session
        self._tokenizer = tokenizer

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        batch_rows: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> Encoder:
        """Load a model folder; the options are those of `from_bytes`."""
        folder = Path(path)
        card = read_card(folder)
        tokenizer = _read(folder / TOKENIZER_FILE) if card["kind"] == "text" else None
        return cls.from_bytes(
            card,
            _read(folder / ONNX_FILE),
            tokenizer,
            device=device,
            threads=threads,
            batch_rows=batch_rows,
            memory_bytes=memory_bytes,
        )

    @classmethod
    def from_bytes(
        cls,
        card: dict,
        onnx: bytes,
        tokenizer: bytes | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        batch_rows: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> Encoder:
        """Load a model from memory, as it travels inside a bundle.

        `device` is "auto" (a GPU where ONNX Runtime has one, else the CPU), "cpu" or "cuda" (no fallback).
        `threads` bounds the threads of one run, all cores by default. A batch holds `batch_rows` rows, by
        default as many as keep activations under `memory_bytes` by the card's `activation_bytes_per_row`.

        Raises ModelMismatchError when bytes and card disagree, GalsearchError when the runtime or the device
        is missing.
        """
        check_card(card)
        _check_digest(card, "sha256", onnx)
        check_graph(onnx, name=card["id"])
        words = _load_tokenizer(card, tokenizer) if card["kind"] == "text" else None
        session = _load_session(card, onnx, device=device, threads=threads)
        return cls(card, session, words, batch_rows=_rows_per_batch(card, batch_rows, memory_bytes))

    @property
    def model_id(self) -> str:
        return self.card["id"]

    @property
    def sha256(self) -> str:
        return self.card["sha256"]

    @property
    def dim(self) -> int:
        return self.card["dim"]

    @property
    def kind(self) -> str:
        return self.card["kind"]

    @property
    def embedding(self) -> str:
        return self.card["embedding"]

    @property
    def space(self) -> str:
        return self.card["space"]

    @property
    def grid(self) -> LogGrid:
        """The pixels that an encoder of spectra sees."""
        return LogGrid.of_input(self.card["input"])

    @property
    def provider(self) -> str:
        return self._session.get_providers()[0]

    def __repr__(self) -> str:
        return f"<Encoder {self.model_id} ({self.kind}, d={self.dim}, {self.provider})>"

    def encode(self, items: Iterable[str] | Iterable[np.ndarray]) -> np.ndarray:
        """Return unit vectors `(n, d) float32` in the order of `items`; no items give `(0, d)`.

        A text encoder takes strings, cut at MOST_CHARACTERS and at the card's `max_tokens`; an image encoder takes RGB
        pictures `(h, w, 3) uint8` of any size; a flux encoder takes calibrated pictures `(bands, h, w)` in the bands,
        zero point and pixel of its card, of which it uses the center; a spectrum encoder takes flux and ivar
        `(2, pixels) float32` on the grid of its card (`science.spectra.model_input`); a projector takes vectors of the
        card's `input.dim`. An iterator of pictures is read one batch at a time. A vector does not depend on the others
        of its batch beyond 1e-5.

        Raises QueryError for an empty text, SchemaError for a picture of another type or shape,
        ModelMismatchError for vectors of another length, or when the model returns something other than
        finite unit vectors.
        """
        if isinstance(items, (str, bytes)):
            raise QueryError(f"encode() takes a list, not one text ({items!r:.40}); write encode([text])")
        if self.kind == "text":
            return self._encode_texts([_checked_text(item) for item in items])
        prepare = {
            "image": self._image_feed,
            "flux": self._flux_feed,
            "spectrum": self._spectrum_feed,
            "projector": self._vector_feed,
        }[self.kind]
        parts = [self._run(prepare(batch)) for batch in _batches(items, self.batch_rows)]
        return np.concatenate([np.empty((0, self.dim), dtype=np.float32), *parts])

    def self_test(self) -> float:
        """Run the card's own examples and return the lowest cosine with the outputs written there.

        Raises ModelMismatchError below the card's `min_cosine`, or when the card has no examples.
        """
        test = self.card.get("self_test")
        if not test:
            raise ModelMismatchError(f"model {self.model_id}: its card has no self_test; export it again with one")
        result = self.encode(_self_test_inputs(self.kind, test["inputs"]))
        expected = np.asarray(test["outputs"], dtype=np.float32)
        if expected.shape != result.shape:
            raise ModelMismatchError(
                f"model {self.model_id}: self-test gave shape {result.shape}, the card has {expected.shape}; "
                "export it again"
            )
        cosine = float(np.min(np.sum(result * expected, axis=1) / np.linalg.norm(expected, axis=1)))
        floor = test.get("min_cosine", 0.999)
        if not cosine >= floor:
            raise ModelMismatchError(
                f"model {self.model_id} on {self.provider}: self-test cosine {cosine:.6f}, at least "
                f"{floor} expected; this runtime computes it wrongly, try device='cpu' or another onnxruntime"
            )
        return cosine

    def token_ids(self, texts: Iterable[str]) -> list[list[int]]:
        """Return the tokens of each text as a text encoder sees them, cut at MOST_CHARACTERS and at `max_tokens`."""
        checked = [_checked_text(text) for text in texts]
        cut = [text[:MOST_CHARACTERS] for text in checked]  # `max_tokens` cuts only what has been taken apart
        return [encoding.ids for encoding in self._tokenizer.encode_batch(cut)]

    def _encode_texts(self, texts: list[str]) -> np.ndarray:
        tokens = self.token_ids(texts)
        # neighbors of like length need little padding
        by_length = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        vectors = np.empty((len(tokens), self.dim), dtype=np.float32)
        for rows in _batches(by_length, self.batch_rows):
            vectors[rows] = self._run(_pad([tokens[row] for row in rows]))
        return vectors

    def _image_feed(self, pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
        for picture in pictures:
            _check_picture(picture)
        return {"image": images.model_input(pictures, self.card["input"]["size_px"])}

    def _flux_feed(self, pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
        size_px, bands = self.card["input"]["size_px"], self.card["input"]["bands"]
        return {"flux": np.stack([_centered(np.asarray(picture), size_px, bands) for picture in pictures])}

    def _spectrum_feed(self, spectra: list[np.ndarray]) -> dict[str, np.ndarray]:
        pixels = self.card["input"]["pixels"]
        for each in spectra:
            if np.shape(each) != (2, pixels) or not np.isfinite(each).all() or np.min(each[1]) < 0:
                raise SchemaError(
                    f"a spectrum encoder takes finite flux and ivar (2, {pixels}), ivar 0 for no data, not "
                    f"{np.shape(each)}; put the spectrum on its grid with galsearch.science.spectra.model_input"
                )
        both = np.stack(spectra).astype(np.float32, copy=False)
        return {"flux": np.ascontiguousarray(both[:, 0]), "ivar": np.ascontiguousarray(both[:, 1])}

    def _vector_feed(self, vectors: list[np.ndarray]) -> dict[str, np.ndarray]:
        wanted = self.card["input"]["dim"]
        lengths = {np.shape(vector) for vector in vectors}
        if lengths != {(wanted,)}:
            raise ModelMismatchError(
                f"model {self.model_id} projects vectors of {wanted} numbers ({self.card['input'].get('space')}), not "
                f"of shape {sorted(lengths)[0]}; use the projector that belongs to them"
            )
        return {"vector": np.asarray(vectors, dtype=np.float32)}

    def _run(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        rows = len(next(iter(feed.values())))
        try:
            vectors = self._session.run([self.card.get("output", "embedding")], feed)[0]
        except _runtime_errors() as error:
            raise ModelMismatchError(
                f"model {self.model_id}: the graph does not run on {_describe(feed)} ({_first_line(error)}); "
                "its inputs must be those of its card, export it again"
            ) from error
        return self._checked(vectors, rows)

    def _checked(self, vectors: np.ndarray, rows: int) -> np.ndarray:
        if vectors.shape != (rows, self.dim):
            raise ModelMismatchError(
                f"model {self.model_id}: output has shape {vectors.shape}, its card promises "
                f"({rows}, {self.dim}); use the card that belongs to this model"
            )
        error = np.abs(np.linalg.norm(vectors, axis=1) - 1)
        if not np.all(error <= NORM_TOLERANCE):  # also false for NaN
            raise ModelMismatchError(
                f"model {self.model_id} on {self.provider}: {np.sum(~(error <= NORM_TOLERANCE))} of {rows} "
                "vectors are not finite and of unit norm; put the L2 norm into the graph or try device='cpu'"
            )
        return vectors.astype(np.float32, copy=False)


# --- cards --------------------------------------------------------------------------------------------------


def read_card(folder: str | Path) -> dict:
    """Return the card of a model folder, its required keys present.

    Raises GalsearchError when there is no such file, ModelMismatchError when it is not a card.
    """
    path = Path(folder) / CARD_FILE
    try:
        card = json.loads(_read(path))
    except ValueError as error:
        raise ModelMismatchError(f"{path}: not valid JSON ({error}); copy the model folder again") from None
    if not isinstance(card, dict):
        raise ModelMismatchError(
            f"{path}: a card is a JSON object, this is a {type(card).__name__}; copy the folder again"
        )
    check_card(card)
    return card


def check_card(card: dict) -> None:
    """Raise ModelMismatchError unless the card has what an encoder needs and a kind that is known here."""
    missing = [key for key in _REQUIRED if key not in card]
    name = card.get("id", "unnamed")
    if missing:
        raise ModelMismatchError(f"model {name}: its card lacks {', '.join(missing)}; export it again")
    if card["kind"] not in KINDS:
        raise ModelMismatchError(
            f"model {name}: kind {card['kind']!r} is not one of {', '.join(KINDS)}; "
            "upgrade galsearch or use another model"
        )
    key = KINDS[card["kind"]]
    if not isinstance(card["input"], dict) or not isinstance(card["input"].get(key), int):
        raise ModelMismatchError(f"model {name}: its card lacks input.{key}, a whole number; export it again")
    _check_types(card, name, key)
    bands = card["input"].get("bands")
    if card["kind"] == "flux" and not (
        isinstance(bands, list) and 0 < len(bands) <= 64 and all(isinstance(band, str) for band in bands)
    ):
        raise ModelMismatchError(f"model {name}: its card lacks input.bands, a list of names; export it again")
    start, step = (card["input"].get(f"log_wavelength_{end}") for end in ("start", "step"))
    is_grid = isinstance(start, float) and isinstance(step, float) and 1 < start < 9 and 0 < step < 1
    if card["kind"] == "spectrum" and not is_grid:
        raise ModelMismatchError(
            f"model {name}: its card's input.log_wavelength_start and _step are {start!r:.40} and {step!r:.40}, not "
            "those of a grid in log10 of angstrom; export it again"
        )
    if card["kind"] == "projector" and card.get("projects") not in ("image", "text"):
        raise ModelMismatchError(f"model {name}: its card's projects is neither image nor text; export it again")


def _check_types(card: dict, name: str, key: str) -> None:
    """Raise ModelMismatchError where a card has another type or number than an encoder can work with."""
    wrong = [one for one in ("id", "embedding", "space", "sha256") if not isinstance(card[one], str)]
    numbers = {"dim": (card["dim"], INPUT_BOUNDS["dim"]), f"input.{key}": (card["input"][key], INPUT_BOUNDS[key])}
    if card.get("activation_bytes_per_row") is not None:
        numbers["activation_bytes_per_row"] = card["activation_bytes_per_row"], 1 << 40
    wrong += [
        one
        for one, (value, most) in numbers.items()
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most
    ]
    taught = card.get("taught_words")
    if taught is not None and not (
        isinstance(taught, list)
        and len(taught) <= MOST_TAUGHT
        and all(isinstance(word, str) and len(word) <= LONGEST_WORD for word in taught)
    ):
        wrong.append("taught_words")
    test = card.get("self_test")
    if test is not None and not (
        isinstance(test, dict)
        and isinstance(test.get("inputs"), list)
        and isinstance(test.get("outputs"), list)
        and len(test["inputs"]) <= MOST_EXAMPLES
    ):
        wrong.append("self_test")
    if not wrong:
        Reference.of_card(card)
    if wrong:
        raise ModelMismatchError(f"model {name!s:.80}: its card's {wrong[0]} is not what it must be; export it again")


@dataclass(frozen=True)
class Words:
    """How words become vectors of an embedding: by a text encoder, and a projector of what it gives if there is one.

    `correction` is what an atlas has learned of words, from unit vectors `(n, d)` to unit vectors.
    """

    text: Encoder
    projector: Encoder | None = None
    correction: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def card(self) -> dict:
        """The card of the model that gives the vectors."""
        return (self.projector or self.text).card

    @property
    def taught(self) -> frozenset[str] | None:
        """The stems of the words that training texts had; None where the card does not say."""
        words = self.card.get("taught_words")
        return None if words is None else frozenset(words)

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """Return unit vectors `(n, d) float32` of texts; raises as `Encoder.encode`."""
        vectors = self.text.encode(texts)
        vectors = vectors if self.projector is None else self.projector.encode(vectors)
        return vectors if self.correction is None else self.correction(vectors)


def compatible(card_a: dict, card_b: dict) -> bool:
    """Say whether vectors of the two models may be compared: one space, one length."""
    return card_a["space"] == card_b["space"] and card_a["dim"] == card_b["dim"]


def check_same_model(made_with: dict, card: dict, *, name: str) -> None:
    """Raise ModelMismatchError unless the vectors of an atlas may be compared with those of the model `card`.

    `made_with` is what the manifest of the atlas called `name` says of one embedding: `model`, `sha256`,
    `space`, `dim`. A text encoder must be of the same space and length; an encoder of the kind that made the
    vectors must be the very same file, since two trainings never agree. A projector of text is like a text encoder;
    so is one of images where the vectors came with their table, so that no file is known that made them.
    """
    asks = "text" in (card["kind"], card.get("projects")) or (
        card["kind"] == "projector" and made_with.get("sha256") is None
    )
    if asks and made_with.get("model") != card["id"]:
        same = made_with.get("space") == card["space"] and made_with.get("dim") == card["dim"]
    else:
        same = made_with.get("sha256") == card["sha256"]
    if not same:
        raise ModelMismatchError(
            f"{name}: its vectors were made with {_signature(made_with.get('model'), made_with)}, "
            f"this encoder is {_signature(card['id'], card)}; vectors of different models "
            "must not be compared: use the model that travels with the atlas, or re-embed it with "
            f"`galsearch build` and {card['id']}"
        )


def check_takes(projector: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    """Raise ModelMismatchError unless a projector of words takes the vectors of this text model, which its card names.

    Both are cards.
    """
    wanted = projector["input"]
    if wanted.get("sha256") != text["sha256"] or wanted["dim"] != text["dim"]:
        raise ModelMismatchError(
            f"projector {projector['id']} takes the vectors of {wanted.get('model')} (sha256 "
            f"{wanted.get('sha256')!s:.12}, d={wanted['dim']}), the text model is {text['id']} (sha256 "
            f"{text['sha256']:.12}, d={text['dim']}); keep the two together as they were exported"
        )


def _signature(model: str | None, facts: dict) -> str:
    digest = (facts.get("sha256") or "unknown")[:12]
    return f"{model or 'an unnamed model'} (sha256 {digest}, space {facts.get('space')}, d={facts.get('dim')})"


def shipped(kind: str, *, root: Path | None = None) -> Path:
    """Return the folder of the newest model of a kind, "text" or "image", under `root` or among those that ship.

    The shipped ones are in `onnx_models/` of a source checkout, or in the installed package. Newest is the
    highest `version` on the cards. Raises GalsearchError naming where it looked when there is none.
    """
    folder = _newest(lambda card: card["kind"] == kind, root)
    if folder is None:
        raise GalsearchError(
            f"no {kind} model found in {' or '.join(map(str, _roots(root)))}; reinstall galsearch, "
            "or name a folder with card.json and model.onnx"
        )
    return folder


def shipped_words(space: str, *, root: Path | None = None) -> Path | None:
    """Return the folder of the newest projector of words into a space, as `shipped` does; None where there is none."""

    def fits(card: dict) -> bool:
        return card["kind"] == "projector" and card["projects"] == "text" and card["space"] == space

    return _newest(fits, root)


def _newest(fits: Callable[[dict], bool], root: Path | None) -> Path | None:
    """Return the folder of the newest model whose card fits, in the first of the roots that has one."""
    for home in _roots(root):
        fitting = [(card, path) for card, path in _cards_in(home) if fits(card)]
        if fitting:
            return max(fitting, key=lambda pair: _version_key(pair[0]))[1]
    return None


def _roots(root: Path | None) -> tuple[Path, ...]:
    here = Path(__file__).resolve().parent
    return (here.parent / "onnx_models", here / "_models") if root is None else (root,)


def _cards_in(root: Path) -> list[tuple[dict, Path]]:
    return [(read_card(card.parent), card.parent) for card in sorted(root.glob(f"*/{CARD_FILE}"))]


def _version_key(card: dict) -> tuple:
    text = str(card.get("version") or card["id"])
    return tuple(int(part) for part in re.findall(r"\d+", text)), card["id"]


# --- loading ------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GalsearchError(
            f"{path}: {error.strerror}; a model folder holds {CARD_FILE}, {ONNX_FILE} and, for text, {TOKENIZER_FILE}"
        ) from error


def _check_digest(card: dict, key: str, content: bytes) -> None:
    result, expected = hashlib.sha256(content).hexdigest(), card.get(key)
    if result != expected:
        raise ModelMismatchError(
            f"model {card['id']}: {key} is {result}, its card says {expected}; "
            "the file was changed or damaged, copy the model again or use the card that belongs to it"
        )


def _load_tokenizer(card: dict, content: bytes | None):
    """Return the tokenizer, cutting at the card's `max_tokens` (special tokens included) and padding
    nothing."""
    if content is None:
        raise ModelMismatchError(
            f"model {card['id']}: a text model needs its {TOKENIZER_FILE}; copy it beside the model"
        )
    _check_digest(card, "tokenizer_sha256", content)
    check_tokenizer(content, name=card["id"])
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise _missing("tokenizers") from None
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except ValueError as error:
        raise ModelMismatchError(
            f"model {card['id']}: its tokenizer cannot be read ({_first_line(error)}); copy the model again"
        ) from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(card["input"]["max_tokens"])
    return tokenizer


def _load_session(card: dict, onnx: bytes, *, device: str, threads: int | None):
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.add_session_config_entry("session.load_model_format", "ONNX")  # the format that was checked
    options.log_severity_level = 3  # errors only: what matters of the rest is said below
    # A text and an image session live side by side: threads that spin while they wait slow the other one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    wanted = _providers(device, runtime.get_available_providers())
    try:
        session = runtime.InferenceSession(onnx, sess_options=options, providers=wanted)
    except _runtime_errors() as error:
        raise ModelMismatchError(
            f"model {card['id']}: ONNX Runtime {runtime.__version__} cannot load it ({_first_line(error)}); "
            "upgrade onnxruntime or export the model for an older opset"
        ) from error
    _check_provider(device, wanted, session.get_providers())
    return session


def _providers(device: str, available: Sequence[str]) -> list[str]:
    """Return the providers to ask for, best first."""
    if device not in ("auto", "cpu", "cuda"):
        raise GalsearchError(f"device is {device!r}; it is one of 'auto', 'cpu', 'cuda'")
    if device == "cuda" and _CUDA not in available:
        raise GalsearchError(
            f"device='cuda', but this ONNX Runtime has only {', '.join(available)}; "
            "install the GPU build with `pip install \"galsearch[gpu]\"` or use device='cpu'"
        )
    return [_CUDA, _CPU] if device != "cpu" and _CUDA in available else [_CPU]


def _check_provider(device: str, wanted: Sequence[str], used: Sequence[str]) -> None:
    """Say aloud, or refuse, that a GPU which ONNX Runtime lists could not be used."""
    if wanted[0] == used[0]:
        return
    if device == "cuda":
        raise GalsearchError(
            f"device='cuda', but ONNX Runtime fell back to {used[0]}; check the GPU driver and the "
            "CUDA and cuDNN versions this onnxruntime-gpu was built for, or use device='cpu'"
        )
    _log.warning("%s is listed but could not be used: running on %s", wanted[0], used[0])


def _onnxruntime():
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # what a compiled module makes of Ctrl-C while it is loaded
            raise KeyboardInterrupt from None
        raise _missing("onnxruntime") from None
    return onnxruntime


def _missing(package: str) -> GalsearchError:
    return GalsearchError(
        f"{package} is not installed, and encoding words or pictures needs it; "
        'run `pip install "galsearch[cpu]"`, or `pip install "galsearch[gpu]"` where there is an NVIDIA GPU'
    )


def _runtime_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions ONNX Runtime raises; they share no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented",
        "RuntimeException", "EPFail",
    )  # fmt: skip
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def run_graph(content: bytes, feed: dict[str, np.ndarray], *, output: str, name: str) -> np.ndarray:
    """Return one output of an ONNX graph that was made here of a model's, on the CPU.

    Raises ModelMismatchError, naming the model, where the graph does not load or does not run.
    """
    check_graph(content, name=name)
    session = _load_session({"id": name}, content, device="cpu", threads=None)
    try:
        return session.run([output], feed)[0]
    except _runtime_errors() as error:
        raise ModelMismatchError(
            f"model {name}: what was made of it does not run on {_describe(feed)} ({_first_line(error)})"
        ) from error


# --- pictures of visitors ---------------------------------------------------------------------------------------


def render_picture(payload: bytes, *, name: str, memory_bytes: int, most: int) -> tuple[dict, bytes]:
    """Read and render the picture file `payload` in a worker process: return height, width, and the pixels as RGB.

    Raises SchemaError for what is no picture or needs more than `memory_bytes`, LimitError for more than `most` bytes.
    """
    limits = images.Limits(values=memory_bytes // 16, file_bytes=memory_bytes // 4)
    pixels = images.render(images.read_picture(payload, name=name, limits=limits))
    height, width = pixels.shape[:2]
    if pixels.nbytes > most:
        raise LimitError(f"{name}: the picture has {width} x {height} pixels, too many here; cut the galaxy out of it")
    return {"height": height, "width": width}, np.ascontiguousarray(pixels, np.uint8).tobytes()


# --- batches ------------------------------------------------------------------------------------------------


def _rows_per_batch(card: dict, batch_rows: int | None, memory_bytes: int) -> int:
    if batch_rows is None:
        batch_rows = min(MOST_ROWS, max(1, memory_bytes // (card.get("activation_bytes_per_row") or 8 * 2**20)))
    if batch_rows < 1:
        raise GalsearchError(f"batch_rows is {batch_rows}; a batch has at least 1 row")
    return batch_rows


def _batches(items: Iterable, rows: int) -> Iterator[list]:
    items = iter(items)
    while batch := list(islice(items, rows)):
        yield batch


def _pad(tokens: list[list[int]]) -> dict[str, np.ndarray]:
    """Return the two text inputs, padded with masked zeros to the longest row."""
    width = max(map(len, tokens))
    ids = np.zeros((len(tokens), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, line in enumerate(tokens):
        ids[row, : len(line)] = line
        mask[row, : len(line)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _checked_text(text: object) -> str:
    if not isinstance(text, str):
        raise QueryError(f"a text encoder takes strings, not {type(text).__name__}; pictures go to an image encoder")
    if not text.strip():
        raise QueryError(f"the text is empty ({text!r}); write at least one word")
    if not is_text(text):
        raise QueryError(f"the text is not valid Unicode ({text!r:.60}); check the encoding of the terminal")
    return text


def _check_picture(picture: np.ndarray) -> None:
    facts = getattr(picture, "dtype", type(picture).__name__), getattr(picture, "shape", "")
    if facts[0] != np.uint8 or len(facts[1]) != 3 or facts[1][2] != 3 or 0 in facts[1]:
        raise SchemaError(
            f"an image encoder takes RGB pictures (h, w, 3) uint8, not {facts[0]} {facts[1]}; "
            "make one with galsearch.science.images.render"
        )


def _centered(picture: np.ndarray, size_px: int, bands: list[str]) -> np.ndarray:
    """Return the center of a picture as `(bands, size, size) float32`, never scaled."""
    if picture.ndim != 3 or len(picture) != len(bands) or min(picture.shape[1:]) < size_px or picture.dtype.kind != "f":
        raise SchemaError(
            f"a flux encoder takes pictures (bands, h, w) of floats, at least {size_px} px wide, in the bands "
            f"{', '.join(bands)}, not {picture.dtype} {picture.shape}; cut out more of the sky, in these bands"
        )
    top, left = ((side - size_px) // 2 for side in picture.shape[1:])
    center = picture[:, top : top + size_px, left : left + size_px].astype(np.float32)
    if not np.isfinite(center).all():
        raise SchemaError("the flux is not finite everywhere; put a number, such as 0, where it is missing")
    return center


def _self_test_inputs(kind: str, inputs: list) -> list:
    if kind == "text":
        return inputs
    if kind == "projector":
        return [np.array(vector, dtype=np.float32) for vector in inputs]
    if kind == "flux":
        return [_unpacked(picture) for picture in inputs]
    if kind == "spectrum":
        return [np.stack([_inflated(each[name]) for name in ("flux", "ivar")]) for each in inputs]
    return [images.decode_thumbnail(base64.b64decode(picture)) for picture in inputs]


def _unpacked(stated: dict) -> np.ndarray:
    """Return an array from its shape and its zlib-compressed little-endian float16 in base64."""
    size = 2 * int(np.prod(stated["shape"], dtype=np.float64))
    if not 0 < size <= MEMORY_BYTES:
        raise ModelMismatchError(
            f"an example on the card has the shape {stated['shape']!s:.80}; export the model again"
        )
    content = zlib.decompressobj().decompress(base64.b64decode(stated["float16_zlib"]), size)
    return np.frombuffer(content, "<f2").reshape(stated["shape"]).astype(np.float32)


def _inflated(text: str) -> np.ndarray:
    """Return an array `(n,)` from its zlib-compressed little-endian float32 in base64."""
    content = zlib.decompressobj().decompress(base64.b64decode(text), 4 * INPUT_BOUNDS["pixels"])
    return np.frombuffer(content[: len(content) // 4 * 4], "<f4")


def _describe(feed: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in feed.items())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
