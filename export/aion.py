"""AION-1's image encoder and AION-Search's projectors: from the layout of their hub to ONNX graphs with cards.

Written anew after the published architectures; modules have the names of the published state dictionaries, so that the
weights fit, and nothing of the original packages is needed.

    python -m export.aion encoder FOLDER OUT --survey legacy    FOLDER holds config.json, weights and codecs/image/
    python -m export.aion projectors FOLDER OUT                 FOLDER holds config.json and weights

Each writes model folders for galsearch.encode below OUT and prints how far torch and ONNX Runtime are apart.
"""

import argparse
import base64
import hashlib
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

from export import hub
from export.to_onnx import export_graph, write_card
from galsearch.encode import Encoder
from galsearch.errors import GalsearchError, ModelMismatchError

SIZE_PX, TOKENS = 96, 576  # 24 x 24 tokens; asking for fewer than 576 would silently drop part of the picture
ENCODER_SPACES = {768: "aion-1-base", 1024: "aion-1-large", 2048: "aion-1-xlarge"}
SEARCH_SPACE, TEXT_SPACE = "aion-search", "text-embedding-3-large"
FLOOR = 0.9999
PARITY_ROWS, SEED = 8, 7
LARGEST_BYTES = 2**31 - 2**20  # what one ONNX file holds
ENCODER_NOTICE = "AION-1, Polymathic AI, MIT; trained on Legacy Surveys, HSC, SDSS, DESI and Gaia data"
SEARCH_NOTICE = "AION-Search, Koblischke, Parker, Lanusse, Bovy, Espejo and Ho 2025 (arXiv:2512.11982), MIT"

# The codec's nine channels, in order: name, and the flux at which it is cut, in the survey's own zero point.
CHANNELS = {
    "HSC-G": 80.0,
    "HSC-R": 110.0,
    "HSC-I": 200.0,
    "HSC-Z": 330.0,
    "HSC-Y": 500.0,
    "DES-G": 6.0,
    "DES-R": 15.0,
    "DES-I": 20.0,
    "DES-Z": 25.0,
}


@dataclass(frozen=True)
class Survey:
    """What differs between the graphs: token embedding, bands in order, zero point (AB) and pixel of the flux."""

    key: str
    bands: tuple[str, ...]
    zero_point: float
    pixel_arcsec: float


SURVEYS = {
    "legacy": Survey("tok_image", ("DES-G", "DES-R", "DES-I", "DES-Z"), 22.5, 0.262),
    "hsc": Survey("tok_image_hsc", ("HSC-G", "HSC-R", "HSC-I", "HSC-Z", "HSC-Y"), 27.0, 0.168),
}


# --- the image codec: flux to 576 whole numbers ---------------------------------------------------------------


class Convolution(nn.Module):
    """A convolution that keeps the size, or halves it."""

    def __init__(self, channels: int, out: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (n, c, h, w)."""
        return self.conv(x)


class Gate(nn.Module):
    """Weighs channels by a mean over the picture that the picture itself weighs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(16, channels // 2)
        self.to_k = nn.Conv2d(channels, 1, 1)
        self.net = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.LeakyReLU(0.1), nn.Conv2d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (n, c, h, w)."""
        weights = self.to_k(x).flatten(2).softmax(dim=-1)
        mean = x.flatten(2) @ weights.transpose(1, 2)
        return x * self.net(mean.unsqueeze(-1))


class Residual(nn.Module):
    """Two convolutions and a gate, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = Convolution(channels, channels, 3), nn.ELU(), nn.Conv2d(channels, channels, 1), nn.ELU()
        self.net = nn.Sequential(*inner, Gate(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (n, c, h, w)."""
        return x + self.net(x)


class ChannelNorm(nn.Module):
    """A layer norm over channels; the published weights are called `1`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.add_module("1", nn.LayerNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (n, c, h, w)."""
        return self.get_submodule("1")(x.movedim(1, -1)).movedim(-1, 1)


def codec_layers(channels: int, *, halvings: int, repeats: int) -> nn.ModuleList:
    """Return the layers between the first convolution (which gives `channels`) and the quantizer."""
    layers: list[nn.Module] = [Residual(channels)]
    for _ in range(halvings):
        layers.append(Convolution(channels, 2 * channels, 3, stride=2))
        channels *= 2
        layers.append(nn.Sequential(*(Residual(channels) for _ in range(repeats))))
    layers.append(Convolution(channels, channels, 7))
    layers.append(nn.Sequential(*(Residual(channels) for _ in range(repeats))))
    return nn.ModuleList([*layers, ChannelNorm(channels)])


class Codec(nn.Module):
    """Flux of one survey, (n, bands, 96, 96) float32, to token ids (n, 576) int64.

    Nothing is written into the caller's array. Rounding is to the nearest level of a finite scalar quantizer (Mentzer
    et al. 2023), the id a number in mixed radix.
    """

    def __init__(self, config: dict, survey: Survey) -> None:
        super().__init__()
        hidden, levels = config.get("hidden_dims", 512), config["quantizer_levels"]
        halvings, width = config.get("n_compressions", 2), config.get("multisurvey_projection_dims", 54)
        first = hidden // 2**halvings
        self.subsample_in = nn.Linear(len(CHANNELS), width)
        self.model = nn.Module()
        self.model.conv_in = Convolution(width, first, 7)
        self.model.encoder_layers = codec_layers(first, halvings=halvings, repeats=config.get("num_consecutive", 4))
        self.pre_quant_proj = nn.Conv2d(hidden, config.get("embedding_dim", 5), 1)
        self._quantizer = nn.Module()
        self._quantizer.register_buffer("levels", torch.tensor(levels, dtype=torch.int32))
        self.knee, self.gain = config.get("range_compression_factor", 0.01), config.get("mult_factor", 10.0)
        self.scale = 10 ** ((survey.zero_point - 22.5) / 2.5)
        self.slots = [list(CHANNELS).index(band) for band in survey.bands]
        cut = torch.tensor([CHANNELS[band] for band in survey.bands])
        self.register_buffer("cut", cut[:, None, None], persistent=False)
        for name, values in quantizer_constants(levels).items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, flux: Tensor) -> Tensor:
        """Return token ids (n, 576)."""
        x = torch.minimum(torch.maximum(flux, -self.cut), self.cut) / self.scale
        x = torch.asinh(x / self.knee) * self.knee * self.gain
        weight = self.subsample_in.weight[:, self.slots, None, None]
        x = functional.conv2d(x, weight, self.subsample_in.bias) * math.sqrt(len(CHANNELS) / len(self.slots))
        x = self.model.conv_in(x)
        for layer in self.model.encoder_layers:
            x = layer(x)
        z = self.pre_quant_proj(x).flatten(2).transpose(1, 2)
        steps = torch.round(torch.tanh(z + self.shift) * self.reach - self.offset)
        return ((steps + self.below) * self.radix).sum(dim=-1).to(torch.int64)


def quantizer_constants(levels: list[int], *, slack: float = 1e-3) -> dict[str, list[float]]:
    """Return, for each dimension, half its range, the offset and shift of an even number of levels, and its radix."""
    half = [(count - 1) * (1 + slack) / 2 for count in levels]
    offset = [0.0 if count % 2 else 0.5 for count in levels]
    shift = [math.atanh(part / whole) if whole else 0.0 for part, whole in zip(offset, half, strict=True)]
    radix = [float(math.prod(levels[:place])) for place in range(len(levels))]
    return {
        "reach": half,
        "offset": offset,
        "shift": shift,
        "radix": radix,
        "below": [float(count // 2) for count in levels],
    }


# --- the transformer: tokens to one vector --------------------------------------------------------------------


class Attention(nn.Module):
    """Self-attention, its queries and keys normed where the model is of that kind."""

    def __init__(self, dim: int, config: dict) -> None:
        super().__init__()
        self.heads = config["num_heads"]
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.get("qkv_bias", True))
        self.proj = nn.Linear(dim, dim, bias=config.get("proj_bias", True))
        normed = config.get("qk_norm", False)
        self.q_norm = nn.LayerNorm(dim // self.heads, eps=1e-6) if normed else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // self.heads, eps=1e-6) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (n, tokens, dim)."""
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(self.q_norm(parts[0]), self.k_norm(parts[1]), parts[2])
        return self.proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """The two layers after attention, or three with a gate."""

    def __init__(self, dim: int, config: dict) -> None:
        super().__init__()
        gated, bias = config.get("gated_mlp", False), config.get("mlp_bias", True)
        hidden = int(dim * config.get("mlp_ratio", 4.0))
        hidden = int(2 * hidden / 3) if gated else hidden
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.fc2 = nn.Linear(hidden, dim, bias=bias)
        self.fc3 = nn.Linear(dim, hidden, bias=bias) if gated else None
        self.act = getattr(nn, config.get("act_layer", "GELU"))()

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (n, tokens, dim)."""
        inner = self.act(self.fc1(x))
        return self.fc2(inner if self.fc3 is None else inner * self.fc3(x))


class Block(nn.Module):
    """Attention and feed-forward, each added to what came in."""

    def __init__(self, dim: int, config: dict) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), Attention(dim, config)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), FeedForward(dim, config)

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (n, tokens, dim)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TokenEmbedding(nn.Module):
    """Vectors of token ids, and of where and what they are."""

    def __init__(self, words: int, dim: int) -> None:
        super().__init__()
        self.token_emb = nn.Embedding(words, dim)
        self.register_buffer("pos_emb", torch.zeros(1, TOKENS, dim))
        self.mod_emb = nn.Parameter(torch.zeros(1, 1, dim))


class Transformer(nn.Module):
    """Token ids of one picture, (n, 576), to the mean of its 576 encoded tokens, (n, dim)."""

    def __init__(self, config: dict, survey: Survey, *, words: int) -> None:
        super().__init__()
        dim = config["dim"]
        if config.get("num_register_tokens"):
            raise ModelMismatchError(
                "this AION has register tokens, and the exporter knows none without a test of them"
            )
        self.encoder_embeddings = nn.ModuleDict({survey.key: TokenEmbedding(words, dim)})
        self.encoder = nn.ModuleList(Block(dim, config) for _ in range(config["encoder_depth"]))
        self.encoder_norm = nn.LayerNorm(dim, eps=1e-6)
        self.decoder_proj_context = nn.Linear(dim, dim)
        self.key = survey.key

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the mean of what a decoder would attend to: the projected tokens plus their places."""
        known = self.encoder_embeddings[self.key]
        places = known.pos_emb + known.mod_emb
        x = known.token_emb(tokens) + places
        for block in self.encoder:
            x = block(x)
        return (self.decoder_proj_context(self.encoder_norm(x)) + places).mean(dim=1)


class FluxEncoder(nn.Module):
    """The exported graph: flux (n, bands, 96, 96) float32 in, unit vectors (n, dim) out."""

    def __init__(self, codec: Codec, transformer: Transformer) -> None:
        super().__init__()
        self.codec, self.transformer = codec, transformer

    def forward(self, flux: Tensor) -> Tensor:
        """Return unit vectors (n, dim)."""
        return functional.normalize(self.transformer(self.codec(flux)), dim=1)


def load_encoder(folder: Path, survey: Survey) -> FluxEncoder:
    """Return AION-1's image encoder for one survey, filled from a hub folder and in evaluation mode.

    The modality embeddings are shared with the decoder and may be stored under its name only.
    """
    config, weights = hub.read_config(folder), hub.read_weights(folder)
    place = f"embeddings.{survey.key}.mod_emb"
    if f"encoder_{place}" not in weights and f"decoder_{place}" in weights:
        weights[f"encoder_{place}"] = weights[f"decoder_{place}"]
    below = folder / "codecs" / "image"
    codec_config = hub.read_config(below)
    codec = hub.take(hub.read_weights(below), Codec(codec_config, survey), name=str(below))
    words = math.prod(codec_config["quantizer_levels"])
    transformer = hub.take(weights, Transformer(config, survey, words=words), name=str(folder))
    return FluxEncoder(codec, transformer).eval()


# --- the projectors -------------------------------------------------------------------------------------------


class Projector(nn.Module):
    """The exported graph: vectors (n, dim) in, unit vectors (n, out) of the shared space out.

    With `normed`, as for pictures, the input's length does not count; for text it does.
    """

    def __init__(self, dim: int, hidden: int, out: int, *, depth: int, normed: bool) -> None:
        super().__init__()
        self.fc_in, self.fc_out = nn.Linear(dim, hidden), nn.Linear(hidden, out)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(), nn.Linear(hidden, hidden))
            for _ in range(depth)
        )
        self.normed = normed

    def forward(self, vector: Tensor) -> Tensor:
        """Return unit vectors (n, out)."""
        x = self.fc_in(functional.normalize(vector, dim=-1, eps=1e-6) if self.normed else vector)
        for block in self.blocks:
            x = x + block(x)
        return functional.normalize(self.fc_out(x), dim=-1, eps=1e-3)


def load_projector(folder: Path, kind: str) -> Projector:
    """Return AION-Search's projector of "image" or "text" vectors, filled from a hub folder, in evaluation mode."""
    config, start = hub.read_config(folder), f"{kind}_projector."
    if kind == "image" and not config.get("use_mean_embeddings", True):
        raise ModelMismatchError(
            f"{folder}: its image projector takes all 576 tokens (use_mean_embeddings is false); the exporter takes "
            "the published kind, which projects their mean"
        )
    weights = {name.removeprefix(start): value for name, value in hub.read_weights(folder).items() if start in name}
    hidden = config.get(f"{kind}_hidden_dim", {"image": 768, "text": 1024}[kind])
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    shape = config.get(f"{kind}_input_dim", {"image": 768, "text": 3072}[kind]), hidden, config["embedding_dim"]
    return hub.take(weights, Projector(*shape, depth=depth, normed=kind == "image"), name=f"{folder}: {start}")


# --- graphs, cards, parity ------------------------------------------------------------------------------------


def write_encoder(folder: Path, out: Path, *, survey: str, name: str | None = None) -> Path:
    """Export the image encoder of one survey to a model folder below `out`; return it."""
    facts = SURVEYS[survey]
    model = load_encoder(folder, facts)
    dim = hub.read_config(folder)["dim"]
    space = name or ENCODER_SPACES.get(dim, f"aion-1-{dim}")
    fields = {"size_px": SIZE_PX, "layout": "NCHW", "dtype": "float32", "bands": list(facts.bands)}
    light = {"zero_point_ab": facts.zero_point, "pixel_arcsec": facts.pixel_arcsec, "tokens": TOKENS}
    card = base_card(f"{space}-{survey}", "flux", dim=dim, space=space, notice=ENCODER_NOTICE) | {
        "input": fields | light | {"resize": "center crop, never scaled"},
        "activation_bytes_per_row": 64 * 2**20,
    }
    flux = drawn_flux(PARITY_ROWS, survey=facts, seed=SEED)
    tests = [packed(flux[row]) for row in range(2)]
    return _write(model, card, out, name="flux", arrays=flux, stored=tests)


def write_projectors(folder: Path, out: Path, *, space: str = SEARCH_SPACE) -> list[Path]:
    """Export both projectors to model folders below `out`; return them, the image projector first."""
    spaces = {"image": ENCODER_SPACES[768], "text": TEXT_SPACE}
    return [_write_projector(folder, out, kind=kind, takes=takes, space=space) for kind, takes in spaces.items()]


def _write_projector(folder: Path, out: Path, *, kind: str, takes: str, space: str) -> Path:
    model = load_projector(folder, kind)
    dim, made = model.fc_in.in_features, model.fc_out.out_features
    card = base_card(f"{space}-{kind}-projector", "projector", dim=made, space=space, notice=SEARCH_NOTICE) | {
        "projects": kind,
        "input": {"dim": dim, "space": takes, "dtype": "float32", "length_counts": not model.normed},
        "activation_bytes_per_row": 64 * 1024,
    }
    vectors = np.random.default_rng(SEED).normal(size=(64, dim)).astype(np.float32)
    vectors = np.round(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 5)
    return _write(model, card, out, name="vector", arrays=vectors, stored=vectors[:2].astype(float).round(5).tolist())


def base_card(model_id: str, kind: str, *, dim: int, space: str, notice: str) -> dict:
    """Return what all cards share, without digest, parity and self-test."""
    return {
        "id": model_id,
        "version": "1.0",
        "kind": kind,
        "embedding": "image",
        "dim": dim,
        "metric": "cosine",
        "sha256": "",
        "space": space,
        "output": "embedding",
        "license": "MIT",
        "notices": [notice],
        "training": {"sets": [], "script": "none here: exported by export/aion.py from published weights"},
        "precision": "fp32",
    }


def _write(model: nn.Module, card: dict, out: Path, *, name: str, arrays: np.ndarray, stored: list) -> Path:
    """Export, compare with torch, then write card.json; `stored` are the first of `arrays`, as the card keeps them."""
    size = 4 * sum(weight.numel() for weight in model.parameters())
    if size > LARGEST_BYTES:
        raise GalsearchError(
            f"{card['id']} has {size / 1e9:.1f} GB of weights, and one ONNX file holds 2 GB; too large"
        )
    folder = out / card["id"]
    folder.mkdir(parents=True, exist_ok=True)
    path, example = folder / "model.onnx", torch.from_numpy(arrays)
    export_graph(model, (example[:2],), path, inputs=[name], dynamic={name: {0: torch.export.Dim("n", min=1)}})
    with torch.inference_mode():
        expected = np.concatenate([model(row[None]).numpy() for row in example])
    card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    card["parity"] = parity(expected, run(path, name, arrays), name=card["id"])
    outputs = np.round(expected[: len(stored)].astype(float), 6).tolist()
    card["self_test"] = {"inputs": stored, "outputs": outputs, "min_cosine": 0.999}
    write_card(folder, card)
    Encoder.from_folder(folder, device="cpu").self_test()
    return folder


def run(path: Path, name: str, arrays: np.ndarray) -> np.ndarray:
    """Return what ONNX Runtime computes on the CPU, row by row (a batch of encoders needs too much memory)."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["embedding"], {name: row[None]})[0] for row in arrays])


def parity(expected: np.ndarray, found: np.ndarray, *, name: str) -> dict:
    """Return the card's entry of how well two sets of unit vectors agree; ModelMismatchError below FLOOR."""
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    lowest = float(np.min(np.sum(expected * found, axis=1) / lengths))
    largest = float(np.abs(expected - found).max())
    if not lowest >= FLOOR:
        raise ModelMismatchError(
            f"{name}: ONNX Runtime and torch agree to a cosine of {lowest:.6f} only, at least {FLOOR} expected; "
            "do not use this graph, try another torch or onnxruntime"
        )
    figures = {"min_cosine": round(min(lowest, 1.0), 9), "max_difference": float(f"{largest:.3g}")}
    return {"reference": "torch fp32", "rows": len(expected), **figures}


def drawn_flux(rows: int, *, survey: Survey, seed: int) -> np.ndarray:
    """Draw galaxies with exponential disks on noise, (rows, bands, 96, 96) float32, in steps that compress well."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] - (SIZE_PX - 1) / 2
    pictures = []
    for _ in range(rows):
        angle, ratio, size = random.uniform(0, np.pi), random.uniform(0.2, 1), random.uniform(3, 12)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        disk = np.exp(-np.hypot(along, across / ratio) / size)
        peaks = np.array([CHANNELS[band] for band in survey.bands]) * random.uniform(0.05, 0.5)
        flux = peaks[:, None, None] * (disk + random.normal(scale=0.02, size=(len(peaks), SIZE_PX, SIZE_PX)))
        step = peaks[:, None, None] / 64
        pictures.append(np.round(flux / step) * step)
    return np.array(pictures, np.float16).astype(np.float32)


def packed(flux: np.ndarray) -> dict:
    """Return an array as a card keeps it: shape, and zlib-compressed float16 in base64."""
    content = zlib.compress(flux.astype("<f2").tobytes(), 9)
    return {"shape": list(flux.shape), "float16_zlib": base64.b64encode(content).decode()}


def main() -> None:
    """Export what was asked for and print the parity of each graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("encoder", "projectors"))
    parser.add_argument("folder", type=Path, help="the hub's folder: config.json and model.safetensors")
    parser.add_argument("out", type=Path, help="where to put the model folders")
    parser.add_argument("--survey", choices=sorted(SURVEYS), default="legacy", help="encoder: whose flux it takes")
    parser.add_argument("--space", help="name of the space, if the weights are not the published ones")
    given = parser.parse_args()
    if given.what == "encoder":
        folders = [write_encoder(given.folder, given.out, survey=given.survey, name=given.space)]
    else:
        folders = write_projectors(given.folder, given.out, space=given.space or SEARCH_SPACE)
    for folder in folders:
        card = json.loads((folder / "card.json").read_text())
        size = (folder / "model.onnx").stat().st_size / 1e6
        print(f"{folder}: {size:.1f} MB, {card['parity']}")


if __name__ == "__main__":
    main()
