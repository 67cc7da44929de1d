"""A check, not a target: the shipped models on a picture no model was trained on, the Hubble eXtreme Deep Field.

Finds the galaxies of scikit-image's copy (872 x 1000 RGB), embeds a cutout of each, asks in words, and prints what
galsearch.science.detection measured of the first ten. One choice was made after looking at it: edge-on disks no longer
count as examples of "spiral" (truth.py), which had put them first here. Run `python -m export.check_field`.
"""

import argparse
from pathlib import Path

import numpy as np

from galsearch.encode import Encoder, shipped
from galsearch.science import detection, images

QUERIES = (
    "edge-on galaxy",
    "face-on spiral galaxy",
    "red elliptical galaxy",
    "blue irregular galaxy",
    "spiral galaxy",
    "elliptical galaxy",
    "merging galaxies",
    "edge-on disk with a dust lane",
    "red",
    "blue",
    "round",
    "elongated galaxy",
    "barred spiral",
    "ring galaxy",
)
FIRST = 10


def field_cutouts() -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Return measurements and square cutouts (s, s, 3) uint8 of the field's galaxies; stars and artifacts left out."""
    from skimage.data import hubble_deep_field

    field = hubble_deep_field()
    found = detection.detect(field)
    keep = ~(found["is_star"] | found["is_artifact"])
    found = {name: values[keep] for name, values in found.items()}
    sizes = [detection.cutout_size(radius) for radius in np.nan_to_num(found["radius_px"], nan=3.0)]
    places = zip(found["x_px"], found["y_px"], sizes, strict=True)
    return found, [images.cutout(field, x, y, size) for x, y, size in places]


def main() -> None:
    """Print one line a query; with --sheet also write a contact sheet."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sheet", help="PNG to write")
    sheet = arguments.parse_args().sheet
    found, cutouts = field_cutouts()
    pictures = Encoder.from_folder(shipped("image")).encode(cutouts)
    queries = Encoder.from_folder(shipped("text")).encode(list(QUERIES))
    middle = {name: np.nanmedian(found[name]) for name in ("axis_ratio", "color_br")}
    print(f"{len(cutouts)} galaxies; median axis ratio {middle['axis_ratio']:.2f}, color_br {middle['color_br']:.2f}")
    sections = []
    for query, vector in zip(QUERIES, queries, strict=True):
        best = np.argsort(-(pictures @ vector), kind="stable")[:FIRST]
        ratio, color = np.nanmedian(found["axis_ratio"][best]), np.nanmedian(found["color_br"][best])
        size = np.nanmedian(found["radius_px"][best])
        print(f"{query:32s} axis ratio {ratio:.2f}  color_br {color:+.2f}  size {size:.1f} px")
        sections.append((query, [(cutouts[index], f"{found['axis_ratio'][index]:.2f}") for index in best]))
    if sheet:
        Path(sheet).write_bytes(images.contact_sheet(sections, columns=FIRST, tile_px=96))


if __name__ == "__main__":
    main()
