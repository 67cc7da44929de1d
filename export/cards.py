"""The words on the model cards: ids, credits, licenses, and the self-test inputs."""

import base64
import io

import numpy as np
from PIL import Image, ImageDraw

IMAGE_ID, TEXT_ID, VERSION = "galimage-2", "galtext-2", "2.0"
SPACE = "galsearch-2"  # encoders with this string may be compared with each other

CREDITS = {
    "efigi": (
        "EFIGI",
        "EFIGI catalogue, Baillard et al. 2011, A&A 532, A74; imaging from the Sloan Digital Sky Survey",
        "none stated; cite",
    ),
    "gz1": (
        "Galaxy Zoo 1",
        "Galaxy Zoo 1, Lintott et al. 2008, MNRAS 389, 1179 and 2011, MNRAS 410, 166; SDSS imaging",
        "none stated; cite",
    ),
    "phys449": (
        "Galaxy Zoo 2",
        "Galaxy Zoo 2, Willett et al. 2013, MNRAS 435, 2835; SDSS imaging",
        "none stated; cite",
    ),
    "spacewarps": (
        "Space Warps",
        "Space Warps, Marshall et al. 2016, MNRAS 455, 1171 and More et al. 2016, MNRAS 455, 1191; CFHTLS imaging",
        "none stated; cite",
    ),
    "esahubble": ("ESA/Hubble", "ESA/Hubble, images by NASA, ESA and the teams named on esahubble.org", "CC BY 4.0"),
    "galaxy10": (
        "Galaxy10 SDSS",
        "Galaxy10 SDSS (images only, no labels used), Leung & Bovy; SDSS imaging, Galaxy Zoo 2 selection",
        "none stated; cite",
    ),
}

MINILM_NOTICE = (
    "Derived from sentence-transformers/all-MiniLM-L6-v2, Copyright the sentence-transformers authors, "
    "licensed under the Apache License, Version 2.0 (https://www.apache.org/licenses/LICENSE-2.0). "
    "Changed: fine-tuned on descriptions of galaxies, projected to 256 dimensions, "
    "weights stored in 8 bits. tokenizer.json is unchanged but for padding and truncation."
)
SDSS_NOTICE = (
    "Trained on pixels of the Sloan Digital Sky Survey (www.sdss.org), CFHTLS (MegaPrime/MegaCam, CFHT and CEA/IRFU; "
    "NRC, CNRS and the University of Hawaii) and ESA/Hubble."
)

SELF_TEST_TEXTS = [
    "spiral galaxy",
    "an elliptical galaxy",
    "edge-on disk with a dust lane",
    "barred spiral",
    "spiral without a bar",
    "show me merging galaxies",
    "red",
    "face-on spiral galaxies with a ring and no companion",
]


SYNTHETIC = (
    "Semi-synthetic: gravitational arcs were ray-traced into early-type training galaxies of EFIGI and Galaxy Zoo 1, "
    "and Galaxy Zoo 1 galaxies were overlaid in pairs (export/synthetic.py). What is known of lenses is mostly theirs."
)


def training_sets(counts: dict[str, int]) -> list[dict]:
    """Return the card's list of sets: name, rows used in training, credit, license."""
    return [
        {"name": CREDITS[key][0], "rows": counts[key], "credit": CREDITS[key][1], "license": CREDITS[key][2]}
        for key in CREDITS
        if counts.get(key)
    ]


def drawn_pictures() -> list[np.ndarray]:
    """Draw four test pictures (64, 64, 3) uint8 by code: a disk, an edge-on ellipse, a ring, a gradient."""
    pictures = []
    for box, color, width in (
        ((20, 20, 44, 44), (200, 160, 90), 0),
        ((6, 28, 58, 36), (220, 180, 120), 0),
        ((14, 14, 50, 50), (90, 120, 220), 5),
    ):
        canvas = Image.new("RGB", (64, 64), (8, 8, 10))
        ImageDraw.Draw(canvas).ellipse(box, fill=None if width else color, outline=color, width=width or 1)
        pictures.append(np.asarray(canvas))
    ramp = np.arange(64, dtype=np.uint8) * 4
    pictures.append(
        np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), 60, np.uint8)], axis=2)
    )
    return pictures


def png_base64(picture: np.ndarray) -> str:
    """Return a picture as base64 PNG."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()
