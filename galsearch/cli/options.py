"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import galsearch

FORMATS = ("table", "json", "csv", "votable")
AtlasPath = Annotated[
    Path,
    typer.Argument(help="An atlas: a folder name.atlas, a file name.duckdb, or the address of one.", metavar="ATLAS"),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Write to FILE; the suffix is the format (.vot .fits .csv …)."),
]
QuoteFormulas = Annotated[
    bool,
    typer.Option("--quote-formulas", help="In a .csv of -o, put ' before text that a spreadsheet would compute."),
]
Format = Annotated[str, typer.Option("--format", help="How to print: table, json, csv or votable.")]
Device = Annotated[str, typer.Option("--device", help="Where the encoders run: auto, cpu or cuda.")]
Images = Annotated[
    Path | None, typer.Option("--images", help="Folder, tar or zip of cutouts: JPEG, PNG, WebP, TIFF, FITS, .npy.")
]
Mosaic = Annotated[
    Path | None,
    typer.Option("--mosaic", help="One large picture to cut at the table's positions, or at its own detections."),
]
Table = Annotated[
    Path | None,
    typer.Option("--table", help="CSV, ECSV, Parquet, FITS or VOTable; all columns are kept, with units."),
]
Vectors = Annotated[str | None, typer.Option("--vectors", help="Column of the table that already holds embeddings.")]
ModelName = Annotated[
    str | None,
    typer.Option("--model", help="Name of the model that made the --vectors; aion-search and aion need no --vectors."),
]
Projector = Annotated[
    Path | None,
    typer.Option("--projector", help="Folder of projectors: of images for the --vectors, of text for asking."),
]
Models = Annotated[Path | None, typer.Option("--models", help="Folder of model folders, instead of those that ship.")]
IdColumn = Annotated[str | None, typer.Option("--id-column", help="Column of the ids, if it is not found by its name.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        help="What a column is: ROLE=COLUMN, such as z=redshift; roles are object_id, ra, dec, z, file, "
        "spectrum_file, x_px, y_px.",
    ),
]
RaColumn = Annotated[str | None, typer.Option("--ra", help="Column of right ascension, if it is not found.")]
DecColumn = Annotated[str | None, typer.Option("--dec", help="Column of declination, if it is not found.")]
XColumn = Annotated[str | None, typer.Option("--x", help="Column of x in pixels of the mosaic, if it is not found.")]
YColumn = Annotated[str | None, typer.Option("--y", help="Column of y in pixels of the mosaic, if it is not found.")]
TableName = Annotated[
    str | None,
    typer.Option("--table-name", help="Which table of a FITS file or VOTable: its name or its number."),
]
Missing = Annotated[
    str | None, typer.Option("--missing", help="Numbers that stand for no value, separated by commas: 99,-99.")
]
Ext = Annotated[
    str | None, typer.Option("--ext", help="Image of a FITS file to take: NAME, NAME,VERSION or a number from 0.")
]
Bands = Annotated[
    str | None, typer.Option("--bands", help="Images of a FITS file, or planes of a stack, that are bands: g,r,z.")
]
IdFrom = Annotated[str, typer.Option("--id-from", help="Ids of cutouts without a table: the file's name, or its path.")]
Measure = Annotated[
    str | None,
    typer.Option(
        "--measure", help="How much of each picture to measure: full, basic (no form) or none; full unless said."
    ),
]
Processes = Annotated[
    int | None,
    typer.Option("--processes", help="How many processes read and measure pictures; one a core unless said."),
]
Words = Annotated[str | None, typer.Argument(help="What to look for, in words.", metavar="[WORDS]")]
Like = Annotated[list[str] | None, typer.Option("--like", help="Like this object of the atlas; may be repeated.")]
Image = Annotated[list[Path] | None, typer.Option("--image", help="Like this picture; may be repeated.")]
SpectrumFile = Annotated[list[Path] | None, typer.Option("--spectrum", help="Like this spectrum; may be repeated.")]
Redshift = Annotated[float | None, typer.Option("--z", help="Redshift of --spectrum, where its file has none.")]
Spectra = Annotated[
    Path | None,
    typer.Option("--spectra", help="Folder, tar or zip of spectra, or one file of many: FITS, CSV, ECSV, VOTable, …"),
]
ObservedFrame = Annotated[
    bool, typer.Option("--observed-frame", help="Compare spectra as observed, not in the rest frame, which needs z.")
]
Wavelength = Annotated[
    str | None, typer.Option("--wavelength", help="Column of wavelengths of the spectra, if it is not found.")
]
Flux = Annotated[str | None, typer.Option("--flux", help="Column of the flux of the spectra, if it is not found.")]
ErrorColumn = Annotated[str | None, typer.Option("--error", help="Column, or HDU, of the errors of the flux.")]
Ivar = Annotated[
    str | None, typer.Option("--ivar", help="Column, or HDU, of the inverse variance, instead of --error.")
]
WavelengthUnit = Annotated[
    str | None,
    typer.Option(
        "--wavelength-unit", help="Unit of the wavelengths, whatever files say: Angstrom, nm, log10(Angstrom)."
    ),
]
FluxUnit = Annotated[str | None, typer.Option("--flux-unit", help="Unit of the flux, whatever files say; or relative.")]
Medium = Annotated[
    str | None, typer.Option("--medium", help="air or vacuum: what the wavelengths are in, whatever files say.")
]
Redshifts = Annotated[Path | None, typer.Option("--redshifts", help="Redrock file of the DESI coadd --spectra.")]
Plus = Annotated[list[str] | None, typer.Option("--plus", help="And like these words, TEXT or WEIGHT:TEXT.")]
Minus = Annotated[list[str] | None, typer.Option("--minus", help="Unlike these words, TEXT or WEIGHT:TEXT.")]
Where = Annotated[str | None, typer.Option("--where", help='SQL condition, such as "z < 0.1 AND mag_r < 17".')]
Near = Annotated[
    tuple[str, str] | None,
    typer.Option("--near", help="Center of a cone, ICRS, degrees or sexagesimal.", metavar="RA DEC"),
]
RadiusArcsec = Annotated[float | None, typer.Option("--radius-arcsec", help="Radius of the cone.")]
HowMany = Annotated[int, typer.Option("-k", help="How many to return.")]
Closest = Annotated[
    bool, typer.Option("--closest", help="Like the closest of several examples or words, not like their mean.")
]
Distinct = Annotated[bool, typer.Option("--distinct", help="Leave out duplicates of the same object.")]
Hybrid = Annotated[
    str | None,
    typer.Option("--hybrid", help="Let the words match names and captions too; fused by sum, or --hybrid rank."),
]
By = Annotated[str | None, typer.Option("--by", help="Embedding to compare in, of an atlas with several.")]
WordsBy = Annotated[
    str | None, typer.Option("--words-by", help="Embedding to compare the words in, where it is not that of --by.")
]
On = Annotated[
    str | None, typer.Option("--on", help="Where pictures and spectra are worked on: ray, a cluster of machines.")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Of the Ray cluster; auto for a running one. Unless said, one is started here."),
]
Probes = Annotated[int | None, typer.Option("--probes", help="Cells of the index to look into, instead of --recall.")]
Recall = Annotated[
    float | None, typer.Option("--recall", help="Share of the best to find in a large atlas; 0.98 unless said.")
]
Exact = Annotated[bool, typer.Option("--exact", help="Compare all vectors, not the likeliest cells only.")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Say how the words were read and the answer was found, on stderr.")
]
WithSpectra = Annotated[bool, typer.Option("--spectra", help="With -o: write the spectra too, as arrays.")]
Sheet = Annotated[Path | None, typer.Option("--sheet", help="Also write a PNG of the pictures found.")]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="OpenAI-compatible endpoint, such as http://localhost:11434/v1.")
]
KeyEnv = Annotated[str, typer.Option("--key-env", help="Environment variable that holds the key.")]
PriceIn = Annotated[float | None, typer.Option("--price-in", help="US dollars per million tokens sent.")]
PriceOut = Annotated[float | None, typer.Option("--price-out", help="US dollars per million tokens received.")]
Concurrency = Annotated[int, typer.Option("--concurrency", help="Questions under way at a time.")]


def check_format(name: str) -> None:
    if name not in FORMATS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(FORMATS)}", param_hint="--format")


def numbers(text: str | None) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not numbers separated by commas, such as 99,-99", param_hint="--missing"
        ) from None


def position(near: tuple[str, str] | None) -> tuple[float, float] | None:
    """Return the position that --near says, ra and dec in degrees ICRS; None for none."""
    return galsearch.parse_position(" ".join(near)) if near else None
