"""Does a search say so when the model was never taught what is searched? `python -m benchmarks.beyond ATLAS ...`.

Forty concepts that no training text of the shipped text model names, and forty that it was taught and that any sample
of nearby galaxies has, are searched in each atlas. A concept "ends convincing" where `hits.convincing` is above 0. Who
wrote the rule wrote the lists, and had seen the words of the training texts. Beside it: the same by the threshold on
scores alone, as it was before those words were on the card. Writes docs/beyond.json. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from scipy.stats import binomtest

import galsearch

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "beyond.json"
UNTAUGHT = (
    *("polar ring galaxy", "shell galaxy", "cluster of galaxies", "stellar stream around a galaxy", "jellyfish galaxy"),
    *("ram-pressure stripped tail", "X-shaped bulge", "boxy peanut bulge", "planetary nebula", "globular cluster"),
    *("supernova in a spiral galaxy", "galaxy with a jet", "radio lobes", "comet", "cosmic ray hit", "satellite trail"),
    *("green pea galaxy", "ultra-diffuse galaxy", "cartwheel galaxy", "Hoag's object", "tadpole galaxy", "warped disk"),
    *(
        "counter-rotating disk",
        "ionization cone",
        "light echo",
        "asteroid",
        "molecular cloud",
        "supermassive black hole",
    ),
    *(
        "intracluster light",
        "galaxy in a void",
        "compact group of galaxies",
        "bow shock",
        "chain galaxy",
        "active nucleus",
    ),
    *("crescent-shaped galaxy", "heart-shaped galaxy", "three-armed spiral", "galactic superwind", "dust cone"),
    *("tidal dwarf forming in a bridge",),
)
TAUGHT = (
    *("spiral galaxy", "elliptical galaxy", "lenticular galaxy", "irregular galaxy", "disk galaxy", "smooth galaxy"),
    *(
        "edge-on galaxy",
        "face-on spiral galaxy",
        "barred spiral",
        "strongly barred galaxy",
        "galaxy with an inner ring",
    ),
    *("galaxy with an outer ring", "ringed spiral", "grand design spiral", "flocculent spiral", "tightly wound arms"),
    *("loosely wound spiral arms", "two-armed spiral", "spiral with star-forming knots", "dusty spiral", "dust lane"),
    *("galaxy with a large bulge", "bulgeless disk", "asymmetric galaxy", "disturbed galaxy", "interacting galaxies"),
    *("galaxy with a companion", "star in front of a galaxy", "red elliptical", "blue spiral", "bright round galaxy"),
    *("faint blue irregular dwarf", "elongated galaxy", "round smooth galaxy", "unbarred spiral", "needle-like disk"),
    *("early-type galaxy", "late-type galaxy", "Sb galaxy", "S0"),
)


def convincing(atlas: galsearch.Atlas, text: str) -> tuple[bool, bool]:
    """Return whether a search ends with a convincing hit, now and by the threshold on scores alone."""
    hits = atlas.search(text, k=10)
    embedding = atlas.manifest.main_embedding
    least = atlas._store.threshold(embedding, "words")
    return bool(hits.convincing), least is not None and bool(hits.scores[0] >= least)


def share(flags: list[bool]) -> list[float]:
    """Return a share with its interval."""
    interval = binomtest(sum(flags), len(flags)).proportion_ci(method="wilson")
    return [round(value, 3) for value in (sum(flags) / len(flags), interval.low, interval.high)]


def tried(path: Path) -> dict:
    """Search all concepts in one atlas."""
    with galsearch.open(path) as atlas:
        result: dict = {"atlas": atlas.manifest.title or path.stem, "objects": len(atlas)}
        for name, texts in (("untaught", UNTAUGHT), ("taught", TAUGHT)):
            flags = {text: convincing(atlas, text) for text in texts}
            result[name] = {
                "concepts": len(texts),
                "convincing": share([now for now, _ in flags.values()]),
                "by_scores_alone": share([before for _, before in flags.values()]),
                "against_the_rule": [text for text, (now, _) in flags.items() if now == (name == "untaught")],
            }
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("atlas", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    options = parser.parse_args()
    result = {"atlases": [tried(path) for path in options.atlas]}
    print(json.dumps(result["atlases"], indent=1))
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
