"""Semi-synthetic lenses: arcs of a ray-traced background source, injected into held-out galaxies of the same surveys.

No labeled set here has enough real lenses to judge a search for them, and what there is comes from another survey than
the rest. So arcs are drawn into pictures of held-out early-type galaxies, and every held-out galaxy as it is, the hosts
included, is what must not be found. Figures on such pictures are semi-synthetic and are always called so.

The lens is a singular isothermal ellipsoid of axis ratio q and Einstein radius E (Kormann, Schneider and Bartelmann
1994, A&A 284, 285; in the form of Keeton 2001, astro-ph/0102341), along its axes

    a_x = E sqrt(q) / f · atan(f x / s),   a_y = E sqrt(q) / f · atanh(f y / s),   f² = 1 - q²,   s² = q² x² + y²,

and the source at b is an exponential disk, exp(-1.678 r / R) with r elliptical and R its half-light radius; a picture
element at t shows the source at t - a(t). Arcs are blurred by a Gaussian, scaled to a share of the host's light and
added in linear light, x = sinh(v asinh 10) / 10 of a pixel value v in 0..1, the inverse of an asinh stretch. The E are
far larger on the sky than real ones of single galaxies: what is judged is whether the shape is found once it is seen.

Run `python -m export.lenses FOLDER` (env GALSEARCH_DATA names the folder of the sets), then look at FOLDER/sheet.png;
with `--report` it also builds the atlas and evaluates it with the shipped models.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.ndimage import gaussian_filter

from export.heldout import chosen
from export.prepare import data_folder
from galsearch.science import images

SETS = ("efigi", "gz1", "phys449")  # all of SDSS
STRETCH = 10.0
OVERSAMPLING = 3
EINSTEIN = (0.07, 0.17)  # Einstein radius as a share of the frame's side
AXIS_RATIO = (0.6, 0.95)  # of the lens
OFFSET = (0.0, 0.6)  # of the source from the optical axis, in Einstein radii; 0 makes rings
SOURCE_RADIUS = (0.10, 0.35)  # half-light, in Einstein radii
SOURCE_RATIO = (0.4, 1.0)
FLUX = (0.10, 0.60)  # of the arcs over the host's, drawn evenly in its logarithm
GREEN, BLUE = (1.0, 1.6), (1.0, 2.6)  # brightness of the arcs there over that in red
FWHM = (0.012, 0.030)  # of the blur, as a share of the frame's side
QUALITY = 95
SHOWN = 20


@dataclass(frozen=True)
class Arc:
    """What is drawn of one lens; lengths as shares of the frame's side or of the Einstein radius, as the ranges say.

    `angle` is that of the lens in the frame, the others are from its major axis; all in radians.
    """

    einstein: float
    axis_ratio: float
    angle: float
    offset: float
    offset_angle: float
    source_radius: float
    source_ratio: float
    source_angle: float
    flux: float
    green: float
    blue: float
    fwhm: float


def draw_arc(random: np.random.Generator) -> Arc:
    """Return a lens drawn evenly from the ranges."""
    turn = (0.0, np.pi)
    return Arc(
        einstein=random.uniform(*EINSTEIN),
        axis_ratio=random.uniform(*AXIS_RATIO),
        angle=random.uniform(*turn),
        offset=random.uniform(*OFFSET),
        offset_angle=random.uniform(0, 2 * np.pi),
        source_radius=random.uniform(*SOURCE_RADIUS),
        source_ratio=random.uniform(*SOURCE_RATIO),
        source_angle=random.uniform(*turn),
        flux=float(np.exp(random.uniform(*np.log(FLUX)))),
        green=random.uniform(*GREEN),
        blue=random.uniform(*BLUE),
        fwhm=random.uniform(*FWHM),
    )


def deflection(x: np.ndarray, y: np.ndarray, q: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the deflection of an isothermal ellipsoid of Einstein radius 1 along its major axis x and minor axis y."""
    f = np.sqrt(1 - q * q)
    s = np.hypot(q * x, y) + 1e-9
    return np.sqrt(q) / f * np.arctan(f * x / s), np.sqrt(q) / f * np.arctanh(f * y / s)


def turned(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates along axes turned by an angle."""
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def arc_light(arc: Arc, size_px: int) -> np.ndarray:
    """Return the light of the arcs in a frame, `(size_px, size_px)`, with a sum of 1."""
    fine = size_px * OVERSAMPLING
    axis = ((np.arange(fine) + 0.5) / fine - 0.5) / arc.einstein
    x, y = turned(*np.meshgrid(axis, axis), arc.angle)
    bent_x, bent_y = deflection(x, y, arc.axis_ratio)
    place = arc.offset * np.array([np.cos(arc.offset_angle), np.sin(arc.offset_angle)])
    u, v = turned(x - bent_x - place[0], y - bent_y - place[1], arc.source_angle)
    radius = np.hypot(u * np.sqrt(arc.source_ratio), v / np.sqrt(arc.source_ratio))
    light = gaussian_filter(np.exp(-1.678 * radius / arc.source_radius), arc.fwhm * fine / 2.355)
    light = light.reshape(size_px, OVERSAMPLING, size_px, OVERSAMPLING).sum(axis=(1, 3))
    return light / light.sum()


def inject(rgb: np.ndarray, arc: Arc) -> np.ndarray:
    """Return a square picture `(s, s, 3) uint8` with the arcs added in linear light."""
    linear = np.sinh(rgb / 255 * np.arcsinh(STRETCH)) / STRETCH
    sky = np.median(np.concatenate([linear[:3].reshape(-1, 3), linear[-3:].reshape(-1, 3)]), axis=0)
    host = np.maximum(linear - sky, 0).sum() / 3
    colors = np.array([1.0, arc.green, arc.blue])
    linear = linear + arc.flux * host * arc_light(arc, len(rgb))[..., None] * colors / colors.mean()
    stretched = np.arcsinh(STRETCH * linear) / np.arcsinh(STRETCH)
    return np.rint(255 * np.clip(stretched, 0, 1)).astype(np.uint8)


def is_host(row: dict) -> bool:
    """Say whether a galaxy may lens: Galaxy Zoo elliptical or EFIGI T <= -1, which most known lenses are."""
    return row.get("gz1_class") == "elliptical" or (row["set"] == "efigi" and row["T"] and float(row["T"]) <= -1)


def write_pictures(rows: list[dict], out: Path, *, seed: int) -> tuple[list[dict], list[tuple[np.ndarray, np.ndarray]]]:
    """Write every galaxy as it is and every host once more with arcs, the same way; return the table's rows and pairs.

    The second are the first SHOWN hosts without and with arcs.
    """
    random, table, pairs = np.random.default_rng(seed), [], []
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    for row in rows:
        rgb = images.square(np.asarray(Image.open(row["path"]).convert("RGB")))
        host = bool(is_host(row))
        named = {"object_id": row["object_id"], "set": row["set"], "injected": False, "is_host": host}
        table.append(_saved(rgb, named, out))
        if host:
            arc = draw_arc(random)
            with_arcs = inject(rgb, arc)
            lens = {"object_id": f"{row['object_id']}:arcs", "injected": True, "is_host": False}
            table.append(_saved(with_arcs, named | lens | asdict(arc), out))
            pairs += [(rgb, with_arcs)] if len(pairs) < SHOWN else []
    return table, pairs


def _saved(rgb: np.ndarray, row: dict, out: Path) -> dict:
    """Write a picture and return its row; originals are written anew too, so that all are compressed alike."""
    name = row["object_id"].replace(":", "_") + ".jpg"
    Image.fromarray(rgb).save(out / "pictures" / name, quality=QUALITY)
    return row | {"file": name}


def targets_text() -> str:
    """Return the targets file: the words are those of the lens targets that ship."""
    shipped = tomllib.loads(resources.files("galsearch").joinpath("targets", "efigi-gz.toml").read_text())
    words = ",\n".join(f'    "{query}"' for query in shipped["queries"]["lens"])
    return f"""version = "{shipped["version"]}"
title = "semi-synthetic lenses"
prevalences = [0.01, 0.001]

[queries]
lens = [
{words},
]

[[target]]
name = "semi-synthetic lens"
queries = "lens"
candidates = "true"
relevant = "injected"

[[target]]
name = "semi-synthetic lens among its hosts"
queries = "lens"
candidates = "injected OR is_host"
relevant = "injected"
"""


def report(results: list[dict]) -> str:
    """Return nDCG@10 of every system at every prevalence, a line each."""
    lines = ["semi-synthetic lenses, nDCG@10 [bootstrap 95 %]"]
    for row in results:
        interval = f" [{row['ndcg_exp_10_low']:.3f}, {row['ndcg_exp_10_high']:.3f}]" if "ndcg_exp_10_low" in row else ""
        size = f"{row['prevalence']:.1%} n {row['n']} ({row['relevant']} relevant)"
        lines.append(f"{row['target']}, {size}, {row['system']}: {row['ndcg_exp_10']:.3f}{interval}")
    return "\n".join(lines)


def main() -> None:
    """Write pictures/, table.parquet, targets.toml and sheet.png into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="build the atlas and evaluate it")
    arguments = parser.parse_args()
    out = arguments.folder
    rows = [row for row in chosen(data_folder(), arguments.split) if row["set"] in SETS]
    table, pairs = write_pictures(rows, out, seed=arguments.seed)
    columns = {name: [row.get(name) for row in table] for name in dict.fromkeys(key for row in table for key in row)}
    pq.write_table(pa.table(columns), out / "table.parquet")
    (out / "targets.toml").write_text(targets_text())
    shown = [("hosts", [(plain, "") for plain, _ in pairs]), ("with arcs", [(lens, "") for _, lens in pairs])]
    (out / "sheet.png").write_bytes(images.contact_sheet(shown, columns=10, tile_px=128))
    print(f"{len(rows)} galaxies, {len(table) - len(rows)} of them once more with arcs", file=sys.stderr)
    atlas, run = str(out / "lenses.atlas"), [sys.executable, "-m", "galsearch.cli"]
    build = ["build", atlas, "--images", str(out / "pictures"), "--table", str(out / "table.parquet"), "--overwrite"]
    judge = ["evaluate", atlas, "--targets", str(out / "targets.toml"), "--sheet", str(out / "sheets")]
    if arguments.report:
        subprocess.run([*run, *build], check=True)
        subprocess.run([*run, *judge, "-o", str(out / "results.json")], check=True)
        print(report(json.loads((out / "results.json").read_text())["results"]))
    else:
        print(f"next: galsearch {' '.join(build)}\n      galsearch {' '.join(judge)}", file=sys.stderr)


if __name__ == "__main__":
    main()
