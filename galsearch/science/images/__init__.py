"""Pictures of galaxies: decoding files, rendering, cutting out, thumbnails, contact sheets, model input.

The package hides file formats (`decode`, `fits`), where pixels lie on the sky (`picture`), band order and stretches
(`render`). Pixels are numpy arrays with rows first and the row 0 of the file first; NaN means "no data" and stays NaN
until something is rendered. No function modifies its input. PIL and astropy are imported when first needed.
"""

from galsearch.science.images.decode import (
    MOSAIC,
    PICTURE,
    PICTURE_FORMATS,
    PICTURE_SUFFIXES,
    Limits,
    check_bands,
    decode_thumbnail,
    kind_of,
    read_picture,
)
from galsearch.science.images.line_plot import line_plot
from galsearch.science.images.picture import RGB, Picture, band_wavelength
from galsearch.science.images.render import (
    LUMA,
    PRESETS,
    color_map,
    contact_sheet,
    cutout,
    encode_thumbnail,
    model_input,
    red_first,
    render,
    square,
)

__all__ = [
    "LUMA",
    "MOSAIC",
    "PICTURE",
    "PRESETS",
    "PICTURE_FORMATS",
    "PICTURE_SUFFIXES",
    "RGB",
    "Limits",
    "Picture",
    "band_wavelength",
    "color_map",
    "contact_sheet",
    "cutout",
    "check_bands",
    "decode_thumbnail",
    "encode_thumbnail",
    "kind_of",
    "line_plot",
    "model_input",
    "read_picture",
    "red_first",
    "render",
    "square",
]
