"""Train the projector of words into the space of galspec-1, and write it as ONNX with its card.

Two steps. First each statement of `spectra_words` gets a direction: the unit vector whose cosine ranks the spectra of
which it is true above those of which it is false, by the logistic loss of pairs, within the real and within the
semi-synthetic ones. Then a small network learns to send the 256 numbers that galtext-2 gives for each caption to the
direction of its statement. What is unknown of a spectrum makes no pair. galspec-1 and galtext-2 stay as they are.

Run `python -m export.train_spectra_words`; reads spectra_words_{train,real}.npz, writes onnx_models/galspec-words-1.
`--development` keeps two fifths of the real training objects for looks and ships nothing.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.parity import FLOOR_FP32, cosines, demand
from export.prepare import cache_folder
from export.prepare_spectra import split_of
from export.prepare_spectra_words import load
from export.spectra_synthetic import KINDS
from export.spectra_to_onnx import SETS, SPACE, SPECTRUM_ID
from export.spectra_words import Statement, captions, facts, statements, truth
from export.to_onnx import SHIPPED, export_graph, write_card
from export.train_align import say, settings, write_run_card
from galsearch.encode import Encoder
from galsearch.language.taught import stems
from galsearch.science.metrics import auroc

WORDS_ID, VERSION, TEXT_ID = "galspec-words-1", "1.0", "galtext-2"
SEED = 21
TEXT_DIM, HIDDEN, DIM = 256, 384, 128
SCALE = 12.0  # of a difference of cosines, in the logistic loss of a pair
DIRECTION_STEPS, SPECTRA, RATE_DIRECTIONS = 400, (160, 160), 0.03  # steps; real and semi-synthetic ones in each
CAPTIONS = 250  # of each statement, at most
TEXT_STEPS, BATCH, RATE = 3500, 256, 2e-3
NOISE = 0.0  # added to the whitened numbers of a text; none did best on held-out training objects
DROPOUT = 0.1
LEAST_SPREAD = 0.01  # standard deviation: less is not blown up further, so that rounding does not count; by validation
PARITY_ROWS = 256
SELF_TEST = ("strong [O III] emission", "no Hα emission", "broad-line quasar", "passive galaxy")


class WordProjector(nn.Module):
    """The exported graph: vectors of galtext-2 (n, 256) in, unit vectors (n, 128) in the space of galspec-1 out."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.register_buffer("middle", vectors.mean(dim=0))
        self.register_buffer("whiten", whitening(vectors))
        self.net = nn.Sequential(
            *(nn.Linear(TEXT_DIM, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT)),
            *(nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, DIM)),
        )

    def forward(self, vector: Tensor) -> Tensor:
        """Return unit vectors (n, 128)."""
        x = (vector - self.middle) @ self.whiten
        x = x + NOISE * torch.randn_like(x) if self.training else x
        return functional.normalize(self.net(x), dim=1)


def whitening(vectors: Tensor) -> Tensor:
    """Return the matrix (d, d) that makes vectors (n, d) uncorrelated, of unit spread down to LEAST_SPREAD.

    What tells "[O II]" from "[O III]" is small in galtext-2's vectors, which learned pictures.
    """
    values, columns = torch.linalg.eigh(torch.cov(vectors.T.double()))
    return (columns / values.clamp(min=LEAST_SPREAD**2).sqrt()).float()


class Spectra:
    """Vectors of one set of spectra, and the truth of every statement for each."""

    def __init__(self, columns: dict[str, np.ndarray], rows: np.ndarray, wanted: Sequence[Statement]) -> None:
        some = {name: values[rows] for name, values in columns.items()}
        self.vectors = torch.from_numpy(some["vectors"])
        self.truth = torch.from_numpy(truth(list(wanted), facts(some)))

    def draw(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return some vectors (count, d) and the truth (m, count)."""
        rows = torch.randint(len(self.vectors), (count,), generator=random)
        return self.vectors[rows], self.truth[:, rows]

    def auroc(self, directions: np.ndarray, *, least: int = 3) -> np.ndarray:
        """Return the AUROC of each statement by its direction (m, d), NaN with fewer than `least` of either side."""
        scores, values = directions @ self.vectors.numpy().T, self.truth.numpy()
        result = np.full(len(values), np.nan)
        for row, (score, value) in enumerate(zip(scores, values, strict=True)):
            known = value != 0
            if min((value == 1).sum(), (value == -1).sum()) >= least:
                result[row] = auroc(score[known], value[known] == 1)
        return result


def pair_loss(scores: Tensor, value: Tensor) -> Tensor:
    """Return the logistic loss of pairs of a true and a false one, the mean over statements (m, n) that have any."""
    good, bad = (value == 1).float(), (value == -1).float()
    each = functional.softplus(SCALE * (scores[:, None, :] - scores[:, :, None]))  # row: true, column: false
    pairs = good.sum(dim=1) * bad.sum(dim=1)
    total = torch.einsum("mt,mtf,mf->m", good, each, bad)
    return (total / pairs.clamp(min=1))[pairs > 0].mean()


def directions(sets: Sequence[Spectra], count: int) -> Tensor:
    """Return a unit vector (count, d) for each statement, learned on all sets."""
    random = torch.Generator().manual_seed(SEED)
    weight = nn.Parameter(0.1 * torch.randn(count, DIM, generator=random))
    optimizer = torch.optim.Adam([weight], lr=RATE_DIRECTIONS)
    for step in range(DIRECTION_STEPS):
        optimizer.param_groups[0]["lr"] = RATE_DIRECTIONS * (1 - step / DIRECTION_STEPS)
        loss = torch.zeros(())
        some = torch.randperm(count, generator=random)[:32]
        for spectra, size in zip(sets, SPECTRA, strict=True):
            vectors, value = spectra.draw(size, random)
            loss = loss + pair_loss(functional.normalize(weight[some], dim=1) @ vectors.T, value[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            say(f"directions {step} {float(loss.detach()):.4f}")
    return functional.normalize(weight.detach(), dim=1)


def text_vectors(texts: list[str]) -> np.ndarray:
    """Return what galtext-2 gives for texts, (n, 256) float32; what was computed once is kept in the cache folder."""
    path = cache_folder() / "spectra_words_texts.npz"
    kept: dict[str, np.ndarray] = {}
    if path.exists():
        with np.load(path) as file:
            kept = dict(zip(file["texts"].tolist(), file["vectors"], strict=True))
    new = [text for text in dict.fromkeys(texts) if text not in kept]
    if new:
        made = Encoder.from_folder(SHIPPED / TEXT_ID, device="cpu", threads=1).encode(new)
        kept |= dict(zip(new, made, strict=True))
        np.savez(path, texts=np.array(list(kept)), vectors=np.stack(list(kept.values())))
    return np.stack([kept[text] for text in texts])


def train_text(written: list[tuple[str, Statement]], targets: Tensor, wanted: Sequence[Statement]) -> WordProjector:
    """Return a projector that sends captions to the directions of their statements."""
    torch.manual_seed(SEED)
    vectors = torch.from_numpy(text_vectors([text for text, _ in written]))
    number = {statement: row for row, statement in enumerate(wanted)}
    owner = torch.tensor([number[statement] for _, statement in written])
    model = WordProjector(vectors)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    share = 1 / torch.bincount(owner, minlength=len(wanted)).float().clamp(min=1)
    weight = share[owner]
    for step in range(TEXT_STEPS):
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 100) * (1 - step / TEXT_STEPS)
        rows = torch.multinomial(weight, BATCH, replacement=True)
        loss = 1 - (model(vectors[rows]) * targets[owner[rows]]).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 500 == 0:
            say(f"text {step} {float(loss.detach()):.4f}")
    return model.eval()


def project(model: WordProjector, texts: list[str]) -> np.ndarray:
    """Return unit vectors (n, 128) of texts."""
    with torch.inference_mode():
        return model(torch.from_numpy(text_vectors(texts))).numpy()


def look(model: WordProjector, held: Spectra, wanted: Sequence[Statement]) -> dict[str, float]:
    """Return the mean AUROC over statements of captions that were not trained on, of each kind of being held out."""
    number, result = {statement: row for row, statement in enumerate(wanted)}, {}
    ways = {"other captions": {}, "other names": {"held_out_names": True}}
    ways |= {"other templates": {"held_out_templates": True}}
    for name, how in ways.items():
        asked = captions(4, seed=SEED + 1, **how)
        vectors = project(model, [text for text, _ in asked])
        scores, values = vectors @ held.vectors.numpy().T, held.truth.numpy()
        each = []
        for score, (_, statement) in zip(scores, asked, strict=True):
            value = values[number[statement]]
            if min((value == 1).sum(), (value == -1).sum()) >= 3:
                each.append(auroc(score[value != 0], value[value != 0] == 1))
        result[name] = round(float(np.mean(each)), 4)
    return result


# ---- the graph and its card


def taught_words() -> list[str]:
    """Return the stems of the words of the captions that are trained on, drawn often enough to have all templates."""
    return sorted(stems(text for text, _ in captions(200, seed=SEED)))


def card(rows: dict[str, int], sources: int) -> dict:
    """Return the card without digest, self-test and parity; `rows` counts real training spectra by source."""
    text = json.loads((SHIPPED / TEXT_ID / "card.json").read_text())
    spectrum = json.loads((SHIPPED / SPECTRUM_ID / "card.json").read_text())
    return {
        "id": WORDS_ID,
        "version": VERSION,
        "kind": "projector",
        "projects": "text",
        "embedding": "spectrum",
        "dim": DIM,
        "metric": "cosine",
        "sha256": "",
        "space": SPACE,
        "output": "embedding",
        "input": {
            "dim": TEXT_DIM,
            "dtype": "float32",
            "model": TEXT_ID,
            "sha256": text["sha256"],
            "space": text["space"],
        },
        "use": (
            "Texts about spectra (lines, strengths, widths, classes, and what is not there) against vectors of "
            f"{SPECTRUM_ID}. A cosine ranks spectra for one text; it is not comparable between texts."
        ),
        "taught_words": taught_words(),
        "architecture": f"whitened input, two hidden layers of {HIDDEN}, unit length",
        "activation_bytes_per_row": 64 * 1024,
        "license": "MIT",
        "notices": spectrum["notices"],
        "training": {
            "sets": [one | {"rows": rows.get(one["name"], 0)} for one in spectrum["training"]["sets"]],
            "semi_synthetic": {
                "sources": dict.fromkeys(KINDS, sources),
                "templates": spectrum["training"]["semi_synthetic"]["templates"],
                "note": "As galspec-1 was trained on; captions by their lines, measured without noise, and kinds.",
                "credit": spectrum["training"]["semi_synthetic"]["credit"],
            },
            "captions": (
                "Written from measured lines and classes by templates (export/spectra_words.py); classes are those of "
                "the surveys, of training objects alone."
            ),
            "spectrum_sha256": spectrum["sha256"],
            "seed": SEED,
            "script": "export/prepare_spectra_words.py, export/train_spectra_words.py",
        },
        "precision": "fp32",
    }


def write(model: WordProjector, made: dict, texts: list[str]) -> None:
    """Write graph and card, compare with torch on texts, run the self-test."""
    folder = SHIPPED / WORDS_ID
    folder.mkdir(parents=True, exist_ok=True)
    path, vectors = folder / "model.onnx", text_vectors(texts)
    dynamic = {"vector": {0: torch.export.Dim("n", min=1)}}
    export_graph(model, (torch.from_numpy(vectors[:2]),), path, inputs=["vector"], dynamic=dynamic)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    expected = project(model, texts)
    lowest = demand(WORDS_ID, cosines(expected, session.run(["embedding"], {"vector": vectors})[0]), FLOOR_FP32)
    made["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    parity = {"min_cosine_fp32": lowest, "min_cosine": lowest}  # its weights are single precision
    made["parity"] = {"reference": "torch fp32", "texts": len(texts), **parity}
    given = np.round(text_vectors(list(SELF_TEST)).astype(float), 6)
    outputs = session.run(["embedding"], {"vector": given.astype(np.float32)})[0]
    made["self_test"] = {
        "texts": list(SELF_TEST),
        "inputs": given.tolist(),
        "outputs": np.round(outputs.astype(float), 6).tolist(),
        "min_cosine": 0.999,
    }
    write_card(folder, made)
    Encoder.from_folder(folder, device="cpu").self_test()
    say(f"{folder}: {path.stat().st_size / 1e6:.2f} MB")


def source_names(sources: np.ndarray) -> dict[str, int]:
    """Return how many spectra of each set of galspec-1's card there are."""
    own = [str(name) for name in sources]
    fors2 = sum("FORS2" in name for name in own)
    stars = sum("Indo-US" in name for name in own)
    desi = sum("DESI" in name for name in own)
    counts = (len(own) - fors2 - stars - desi, fors2, stars, desi)
    return {name: count for (name, _, _), count in zip(SETS, counts, strict=True)}


def main() -> None:
    """Train; write the graph, or with --development look at held-out training objects."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--development", action="store_true", help="keep real training objects for looks, ship none")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    wanted, real, drawn = statements(), load("real"), load("train")
    trained = real["split"] == "train"
    mine = np.array([split_of("words " + str(name)) == "train" for name in real["object"]])
    used = trained & mine if options.development else trained
    sets = [Spectra(real, used, wanted), Spectra(drawn, np.ones(len(drawn["vectors"]), bool), wanted)]
    targets = directions(sets, len(wanted))
    np.save(cache_folder() / "spectra_words_directions.npy", targets.numpy())
    written = captions(CAPTIONS, seed=SEED)
    say(f"{used.sum()} real spectra, {len(drawn['vectors'])} views, {len(written)} captions")
    model = train_text(written, targets, wanted)
    result: dict = {}
    if options.development:
        check = load("validation")
        held = {"real": Spectra(real, trained & ~mine, wanted)}
        held["semi-synthetic"] = Spectra(check, np.ones(len(check["vectors"]), bool), wanted)
        for name, spectra in held.items():
            best = spectra.auroc(targets.numpy())
            result[name] = {"directions": round(float(np.nanmean(best)), 4)} | look(model, spectra, wanted)
            low = sorted((value, wanted[row]) for row, value in enumerate(best) if value < 0.9)
            say(f"{name}: {result[name]} {low}")
        print(json.dumps(result, indent=1))
    else:
        rows = source_names(real["source"][used])
        texts = [text for text, _ in written[:: len(written) // PARITY_ROWS]][:PARITY_ROWS]
        write(model, card(rows, len(np.unique(drawn["source"])) // len(KINDS)), texts)
    write_run_card(cache_folder(), "spectra_words", {"settings": settings(globals()), "looks": result})


if __name__ == "__main__":
    main()
