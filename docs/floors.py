"""Draw docs/floors.svg, the rooms of galsearch by floor: `python docs/floors.py`.

Rooms and what they may import are read from tests/test_layers.py; a room stands above all that it may import. Its width
grows with the number of its lines.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from test_layers import MAY_IMPORT  # noqa: E402

OUT = ROOT / "docs" / "floors.svg"
NO_ROOMS = ("__init__", "prompts", "science", "service")
FLOORS = (  # from above; a room is drawn on the first floor that names it
    ("faces", ("cli", "service", "service.agents", "site", "site.serving", "space")),
    (
        "what reads and writes atlases",
        (
            "evaluation",
            "query_code",
            "atlas",
            "hits",
            "rerank",
            "captions",
            "knowledge",
            "discovery",
            "discovery.watch",
            "ingest",
        ),
    ),
    ("", ("retrieval", "lookup", "zeroshot", "crossmatch", "adql", "sources", "columns")),
    ("engines and the outside", ("store", "encode", "graphs", "formats", "remote", "remote.cutouts", "citations")),
    ("plain Python", ("query", "permalinks", "language", "workers", "quotas", "notebook", "atomic", "compiled")),
    ("science: numpy in, numpy out", ()),
    ("words", ("schema", "escaping", "errors", "progress")),
)
COLORS = ("#0b5d6b", "#2a7f8f", "#2a7f8f", "#7a6a3a", "#4f6d4a", "#5b5f97", "#5a5a5a")
WIDTH, HEIGHT, GAP = 100.0, 7.0, 0.8


def lines_of(room: str) -> int:
    """Return how many lines of code a room has."""
    path = ROOT / "galsearch" / room.replace(".", "/")
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return sum(len(file.read_text().splitlines()) for file in files)


def floors() -> list[tuple[str, list[str]]]:
    """Return the floors with their rooms, from above. Raises ValueError for a room that stands nowhere."""
    science = sorted(name for name in MAY_IMPORT if name.startswith("science."))
    found = [(title, list(science if title.startswith("science") else rooms)) for title, rooms in FLOORS]
    missing = set(MAY_IMPORT) - {name for _, rooms in found for name in rooms} - set(NO_ROOMS)
    if missing:
        raise ValueError(f"{', '.join(sorted(missing))}: no floor of docs/floors.py has them; add them to FLOORS")
    return found


def main() -> None:
    """Draw the picture."""
    plt.rcParams.update({"svg.hashsalt": "floors", "svg.fonttype": "none", "font.size": 8})
    drawn = floors()
    figure, axes = plt.subplots(figsize=(9, 0.72 * len(drawn) + 0.4))
    for level, ((title, rooms), color) in enumerate(zip(drawn, COLORS, strict=True)):
        bottom, left = (len(drawn) - 1 - level) * (HEIGHT + 2.6), 0.0
        shares = [26 + lines_of(room) ** 0.5 for room in rooms]  # a small room has room for its name
        for room, share in zip(rooms, shares, strict=True):
            width = (WIDTH - GAP * (len(rooms) - 1)) * share / sum(shares)
            box = FancyBboxPatch((left, bottom), width, HEIGHT, boxstyle="round,pad=0,rounding_size=0.6", color=color)
            axes.add_patch(box)
            name = room.removeprefix("science.")
            axes.text(
                left + width / 2, bottom + HEIGHT / 2, name, ha="center", va="center", color="white", fontsize=7.5
            )
            left += width + GAP
        axes.text(0, bottom + HEIGHT + 0.3, title, va="bottom", fontsize=7, color="#444444")
    axes.set(xlim=(0, WIDTH), ylim=(-1, len(drawn) * (HEIGHT + 2.6) + 1))
    axes.axis("off")
    figure.savefig(OUT, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    print(f"wrote {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
