"""Blind injection: which share of objects of a kind that nobody has trained on gets onto a list, by their contrast?

`python -m benchmarks.injection` draws faint arcs, companions and streaks into galaxies of Galaxy Zoo 1 that the encoder
has not seen (the test part of the project's split, GALSEARCH_DATA), builds an atlas of them among others that are left
as they are, and lists what is odd exactly as a watch does: no normals named, no kind named. The injected exist in a
temporary folder only, which is gone afterwards. Contrast is the peak of what is injected as a share of the brightest
tenth of a percent of its host, in the picture as it is displayed; 0 is a control that changes nothing, and says what
chance alone puts on a list. It writes docs/injection.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import galsearch
from benchmarks.anomalies import TEST, _of_gz1
from export.prepare import data_folder, labeled_rows
from export.split import assign
from galsearch.discovery.watch.shares import wilson

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "injection.json"
KINDS = ("arc", "companion", "streak")
CONTRASTS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
BUDGET, FDR = 50, 0.1


def injected(pixels: np.ndarray, kind: str, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """Return a picture `(h, w, 3) uint8` with something in it that was not there; contrast 0 returns it as it is."""
    side = pixels.shape[0]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    turn, width = rng.uniform(0, 2 * np.pi), side / 60
    radius, angle = np.hypot(x, y), np.angle(np.exp(1j * (np.arctan2(y, x) - turn)))
    if kind == "arc":  # blue, around the center, a third of a circle long
        ring = rng.uniform(0.12, 0.2) * side
        shape = np.exp(-0.5 * ((radius - ring) / width) ** 2) * np.exp(-0.5 * (angle / 0.5) ** 2)
        color = np.array([0.55, 0.75, 1.0])
    elif kind == "companion":  # red and round, beside the galaxy
        away = rng.uniform(0.2, 0.3) * side
        apart = np.hypot(x - away * np.cos(turn), y - away * np.sin(turn))
        shape, color = np.exp(-apart / (side / 30)), np.array([1.0, 0.75, 0.5])
    else:  # straight through the picture, without color
        shape = np.exp(-0.5 * ((x * np.sin(turn) - y * np.cos(turn) - 0.15 * side) / width) ** 2)
        color = np.ones(3)
    peak = contrast * np.percentile(pixels, 99.9)
    return np.clip(np.rint(pixels + peak * shape[..., None] * color), 0, 255).astype(np.uint8)


def lay_out(folder: Path, normals: int, each: int, seed: int) -> Path:
    """Write pictures as they are and injected ones, each into a host of its own, with a table; return the table."""
    rng = np.random.default_rng(seed)
    labeled = list(labeled_rows(data_folder()))
    pairs = zip(labeled, assign(labeled)[1], strict=True)
    hosts = [row for row in map(_of_gz1, pairs) if row is not None and row.kind == "gz1" and row.part == TEST]
    hosts = [hosts[index] for index in rng.permutation(len(hosts))]
    if len(hosts) < normals + each:
        raise SystemExit(f"{len(hosts)} galaxies of the test part, {normals + each} are needed; ask for fewer")
    (folder / "pictures").mkdir()
    rows = [(f"normal-{number}", "none", -1.0, host) for number, host in enumerate(hosts[:normals])]
    spare = hosts[normals : normals + each]  # the same hosts at every contrast, so that only the contrast differs
    for kind in KINDS:
        for contrast in CONTRASTS:
            rows += [(f"{kind}-{contrast:g}-{number}", kind, contrast, host) for number, host in enumerate(spare)]
    for name, kind, contrast, host in rows:
        pixels = np.asarray(Image.open(host.path).convert("RGB"))
        if kind != "none":
            number = int(name.rpartition("-")[2])
            pixels = injected(pixels, kind, contrast, np.random.default_rng([seed, number]))
        Image.fromarray(pixels).save(folder / "pictures" / f"{name}.png", compress_level=1)
    names, kinds, contrasts, _ = zip(*rows, strict=True)
    table = {"object_id": names, "file": [f"{name}.png" for name in names], "injected": kinds, "contrast": contrasts}
    pq.write_table(pa.table({key: list(values) for key, values in table.items()}), folder / "table.parquet")
    return folder / "table.parquet"


def measured(atlas: galsearch.Atlas, seed: int) -> list[dict]:
    """Return the share of the injected that is listed, by kind and contrast."""
    result = []
    for kind in KINDS:
        for contrast in CONTRASTS:
            among = f"injected = 'none' OR (injected = '{kind}' AND contrast = {contrast})"
            odd = atlas.anomalies(BUDGET, among=among, seed=seed)
            tested = atlas.count(among)
            n = atlas.count(f"injected = '{kind}' AND contrast = {contrast}")
            listed = sum(one.object_id.startswith(f"{kind}-") for one in odd)
            whole = atlas.anomalies(tested, among=among, seed=seed, fdr=FDR)
            sure = sum(one.object_id.startswith(f"{kind}-") for one in whole)
            row = {"kind": kind, "contrast": contrast, "n": n, "tested": tested}
            row |= {"listed": listed, "share": listed / n, "interval": wilson(listed, n), "by_chance": BUDGET / tested}
            row |= {
                "at_fdr": sure,
                "share_at_fdr": sure / n,
                "interval_at_fdr": wilson(sure, n),
                "all_at_fdr": len(whole),
            }
            print(json.dumps(row), flush=True)
            result.append(row)
    return result


def main() -> None:
    """Inject, list, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--normals", type=int, default=800)
    parser.add_argument("--each", type=int, default=40, help="Injected of each kind at each contrast.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        table = lay_out(Path(home), options.normals, options.each, options.seed)
        path = Path(home) / "blind.atlas"
        galsearch.build(path, images=Path(home) / "pictures", table=table, measure="none", device="cpu")
        with galsearch.open(path, device="cpu") as atlas:
            rows = measured(atlas, options.seed)
            model = atlas.manifest.embeddings["image"]["model"]
    result = {"normals": options.normals, "each": options.each, "seed": options.seed, "budget": BUDGET, "fdr": FDR}
    result |= {"model": model, "rows": rows, "seconds": round(time.perf_counter() - began), "load": os.getloadavg()[0]}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
