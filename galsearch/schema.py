"""What an atlas is made of: its version, its tables, its columns with units and UCDs, its manifest.

This is the one place where a column name, a unit or a version number is written; the format's document and the
`galsearch_columns` table are generated from here.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pyarrow as pa

from galsearch.errors import FormatError, QueryError, VersionTooNewError, VersionTooOldError

FORMAT = "galsearch.atlas"
FORMAT_VERSION = (1, 1)
SOFTWARE = "galsearch"
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
METRIC = "cosine"
MANIFEST_TABLE = "galsearch_manifest"
COLUMNS_TABLE = "galsearch_columns"
FILE_DIGESTS = "files"  # folder manifest only: path in the folder -> CRC-32, for Lance data files and models
MAP_TABLE = "vector_map"
MAP_STATE = "map_state"  # bundle manifest only: the count of changes of the file that the map is for
CODES = "codes"  # manifest, of an embedding: how its vectors are coded; absent where they are stored as floats
RESIDUAL_CODES = "int8-residual"  # a share of the centroid, and 8-bit codes for the rest
PROJECTION = "map"  # manifest, of an embedding: how the places in its table map_<name> were found
LANCE_VERSIONS = "lance_versions"  # folder manifest only: Lance table -> the version that is committed
DELETED = "deleted"  # folder manifest only: deletions that can be undone: file, objects, time and CRC-32 of each


@dataclass(frozen=True)
class Modality:
    """A kind of data about an object, which an embedding can be made of.

    `table` keeps what can be shown of it, `reader` (module:function) reads a file of it (None: galsearch reads none
    yet), `encoder` is the name of the model that embeds it, `term_kind` the kind of a query term that is such a file.
    An embedding is called like its modality unless an atlas calls it otherwise.
    """

    name: str
    table: str
    reader: str | None
    encoder: str
    term_kind: str


MODALITIES = {
    one.name: one
    for one in (
        Modality("image", "thumbnails", "galsearch.science.images:read_picture", "image", "image"),
        Modality("spectrum", "spectra", "galsearch.sources.spectra:read_spectrum", "spectrum", "spectrum"),
    )
}
MAIN = "image"  # the embedding that is searched unless a query names one, and the modality that is meant unless stated


@dataclass(frozen=True)
class Column:
    """One public column: SQL type, VOUnit (empty when dimensionless), UCD1+ and one sentence of meaning."""

    name: str
    type: str
    unit: str
    ucd: str
    description: str


def _columns(*rows: tuple[str, str, str, str, str]) -> dict[str, Column]:
    return {row[0]: Column(*row) for row in rows}


GALAXIES = _columns(
    ("object_id", "VARCHAR", "", "meta.id;meta.main", "Unique, opaque identifier of the object"),
    (
        "ra",
        "DOUBLE",
        "deg",
        "pos.eq.ra;meta.main",
        "Right ascension, ICRS, 0 <= ra < 360; NULL where unknown",
    ),
    ("dec", "DOUBLE", "deg", "pos.eq.dec;meta.main", "Declination, ICRS; NULL where unknown"),
    ("z", "DOUBLE", "", "src.redshift", "Redshift"),
    ("mag_g", "DOUBLE", "mag", "phot.mag;em.opt.B", "AB magnitude in the g band"),
    ("mag_r", "DOUBLE", "mag", "phot.mag;em.opt.R", "AB magnitude in the r band"),
    ("mag_i", "DOUBLE", "mag", "phot.mag;em.opt.I", "AB magnitude in the i band"),
    ("mag_z", "DOUBLE", "mag", "phot.mag;em.opt.I", "AB magnitude in the z band (the redshift is z)"),
    (
        "x_px",
        "DOUBLE",
        "pixel",
        "pos.cartesian.x;instr.det",
        "Column of the center in the parent picture, from 0",
    ),
    (
        "y_px",
        "DOUBLE",
        "pixel",
        "pos.cartesian.y;instr.det",
        "Row of the center in the parent picture, from 0",
    ),
    (
        "radius_px",
        "DOUBLE",
        "pixel",
        "phys.angSize",
        "Half-light radius in circular apertures, in pixels of the source picture",
    ),
    ("radius_arcsec", "DOUBLE", "arcsec", "phys.angSize", "Half-light radius on the sky"),
    (
        "axis_ratio",
        "DOUBLE",
        "",
        "phys.size.axisRatio",
        "Minor over major axis from second moments above the threshold, 0 to 1, not freed from blur",
    ),
    (
        "position_angle",
        "DOUBLE",
        "deg",
        "pos.posAng",
        "Major axis in the picture, from +x to +y, -90 to 90; NULL above axis ratio 0.95",
    ),
    (
        "concentration",
        "DOUBLE",
        "",
        "src.morph.param",
        "5 log10(r80/r20) in circular apertures, of the light within 2.5 Kron radii",
    ),
    (
        "brightness",
        "DOUBLE",
        "",
        "phot.count",
        "Sum over bands within 2.5 Kron radii, sky and neighbors removed; 255 of an 8-bit picture is 1",
    ),
    (
        "color_gr",
        "DOUBLE",
        "mag",
        "phot.color",
        "Instrumental color -2.5 log10(middle/red band); higher is redder",
    ),
    ("color_br", "DOUBLE", "mag", "phot.color", "Instrumental color -2.5 log10(blue/red band); higher is redder"),
    ("snr", "DOUBLE", "", "stat.snr", "Noise-weighted light above the threshold over the noise of its pixels"),
    (
        "isophotal_radius_px",
        "DOUBLE",
        "pixel",
        "phys.angSize.smajAxis",
        "Semi-major axis of the ellipse with the area and second moments of the pixels above the threshold",
    ),
    (
        "petrosian_radius_px",
        "DOUBLE",
        "pixel",
        "phys.angSize.smajAxis;src.morph.param",
        "Semi-major axis where an elliptical ring has a fifth of the mean light inside it; NULL where none has",
    ),
    (
        "asymmetry",
        "DOUBLE",
        "",
        "src.morph.param",
        "Sum |I - I180| / sum |I| about the center where it is least, sky's part removed, within 1.5 Petrosian radii",
    ),
    (
        "smoothness",
        "DOUBLE",
        "",
        "src.morph.param",
        "Light above a copy smoothed over 0.25 Petrosian radii, over all light; higher is clumpier, edge-on highest",
    ),
    (
        "gini",
        "DOUBLE",
        "",
        "src.morph.param",
        "Gini coefficient of the pixels brighter, when blurred, than the Petrosian ellipse; 0 even, 1 all in one",
    ),
    (
        "m20",
        "DOUBLE",
        "",
        "src.morph.param",
        "log10 of the second moment of the brightest pixels with 20 % of the light over that of all, same pixels",
    ),
    (
        "sersic_n",
        "DOUBLE",
        "",
        "src.morph.param",
        "Index of the Sersic profile that fits elliptical rings best, not freed from blur or stretch; NULL for none",
    ),
    (
        "color_gradient",
        "DOUBLE",
        "mag",
        "phot.color;arith.grad",
        "color_br from 1 to 2 half-light radii minus that within 1; below 0 it is bluer outside",
    ),
    (
        "bar_strength",
        "DOUBLE",
        "",
        "src.morph.param",
        "Two-fold amplitude of constant angle in the inner disk, over the mean light of a circle; NULL if inclined",
    ),
    (
        "arm_strength",
        "DOUBLE",
        "",
        "src.morph.param",
        "Amplitudes of 2-, 3- and 4-armed spirals of pitch 10 to 30 degrees, added, over the mean; NULL if inclined",
    ),
    (
        "arm_pitch",
        "DOUBLE",
        "deg",
        "pos.posAng;src.morph.param",
        "Pitch of the strongest spiral, above 0 where the angle from +x to +y grows outward; NULL for weak arms",
    ),
    (
        "ring_contrast",
        "DOUBLE",
        "",
        "src.morph.param",
        "Height of the highest bump in the radial profile of log light over its dips; NULL if inclined",
    ),
    (
        "companions",
        "BIGINT",
        "",
        "meta.number",
        "Other sources, stars too, with a tenth of the light or more and their center within 2 Petrosian radii",
    ),
    (
        "morphology_flag",
        "BIGINT",
        "",
        "meta.code.qual",
        "Sum of 1 unmeasured, 2 border, 4 small, 8 faint, 16 inclined, 32 crowded, 64 no Petrosian radius, "
        "128 no Sersic fit, 256 a quarter without data; 0 is good",
    ),
    (
        "is_star",
        "BOOLEAN",
        "",
        "meta.code.class",
        "Diffraction spikes, or the half-light radius of the sharpest bright sources",
    ),
    (
        "is_artifact",
        "BOOLEAN",
        "",
        "meta.code.qual",
        "A piece of a diffraction spike, sharper than a star, or a point in the middle band alone",
    ),
    (
        "is_edge",
        "BOOLEAN",
        "",
        "meta.code.qual",
        "The source, or in a mosaic its cutout, touches the border of the picture",
    ),
    ("file", "VARCHAR", "", "meta.ref.url;meta.file", "File that the picture came from"),
    ("spectrum_file", "VARCHAR", "", "meta.ref.url;meta.file", "File that the spectrum came from"),
)

# What the lines of a spectrum say of its galaxy (`science/lines`): narrow lines, also where there are broad ones too.
# VOUnit has no Angstrom any more: 0.1nm is one.
ANGSTROM = "0.1nm"
LINE_MEASURES = _columns(
    *(
        (
            f"ew_{name}",
            "DOUBLE",
            ANGSTROM,
            "spect.line.eqWidth",
            f"Equivalent width of {line}, in Angstrom at rest, emission above 0",
        )
        for name, line in {
            "oii": "[O II] 3727, both lines",
            "hbeta": "H beta, freed from stars",
            "oiii": "[O III] 5007",
            "oi": "[O I] 6300",
            "halpha": "H alpha, freed from stars",
            "nii": "[N II] 6583",
            "sii": "[S II] 6716 and 6731",
        }.items()
    ),
    *(
        (f"snr_{name}", "DOUBLE", "", "stat.snr;spect.line", f"Flux of {line} over its error")
        for name, line in {
            "oii": "[O II] 3727",
            "hbeta": "H beta",
            "oiii": "[O III] 5007",
            "halpha": "H alpha",
            "nii": "[N II] 6583",
        }.items()
    ),
    *(
        (
            f"log_{name}",
            "DOUBLE",
            "",
            "spect.line.intensity;arith.ratio",
            f"log10 of {ratio}; NULL below S/N 3 of either",
        )
        for name, ratio in {
            "oiii_hbeta": "[O III] 5007 over H beta",
            "nii_halpha": "[N II] 6583 over H alpha",
            "sii_halpha": "[S II] 6716 and 6731 over H alpha",
            "oi_halpha": "[O I] 6300 over H alpha",
        }.items()
    ),
    (
        "d4000",
        "DOUBLE",
        "",
        "spect.index",
        "Narrow 4000 Angstrom break: mean flux per frequency at 4000-4100 over 3850-3950 (Balogh et al. 1999)",
    ),
    *(
        (name, "DOUBLE", ANGSTROM, "spect.index", f"Equivalent width in Angstrom of {what}, absorption above 0")
        for name, what in {
            "hdelta_a": "H delta in the wide band, emission included (Worthey and Ottaviani 1997)",
            "ca_hk": "Ca H and K (Serven et al. 2005)",
            "mg_b": "Mg b (Worthey et al. 1994)",
            "na_d": "Na D, stars and gas (Trager et al. 1998)",
        }.items()
    ),
    (
        "balmer_fwhm_kms",
        "DOUBLE",
        "km.s-1",
        "spect.line.width",
        "FWHM of broad H alpha or H beta, above 1000, else of the narrow line, the instrument included; NULL if faint",
    ),
    (
        "mgii_fwhm_kms",
        "DOUBLE",
        "km.s-1",
        "spect.line.width",
        "FWHM of each line of broad Mg II 2799, above 1000; NULL where it is not bright and broad",
    ),
    (
        "bpt_class",
        "VARCHAR",
        "",
        "meta.code.class;src.class",
        "star-forming, composite, Seyfert, LINER or AGN by four lines at S/N 3; NULL without them or with broad lines",
    ),
    (
        "whan_class",
        "VARCHAR",
        "",
        "meta.code.class;src.class",
        "star-forming, strong AGN, weak AGN, retired or passive by H alpha and [N II]; NULL with broad lines",
    ),
    ("snr_spectrum", "DOUBLE", "", "stat.snr;spect", "Median of flux over error of the pixels of the spectrum"),
)

GALAXIES |= LINE_MEASURES

SCORE = Column("score", "FLOAT", "", "stat.value", "Cosine similarity to the query, -1 to 1, more is better")

BY = "score_by_"  # and the name of an embedding: the cosine in it, of hits that are found by several
HITS = _columns(
    ("score", "FLOAT", "", "stat.value", "Similarity and matching words together, more is better"),
    ("score_vector", "FLOAT", "", "stat.value", "Cosine similarity to the query, where words count too"),
    ("score_words", "FLOAT", "", "stat.value", "BM25 of the words of the query in names and captions; NULL for none"),
    ("score_before", "FLOAT", "", "stat.value", "Score of the search, in deviations of ordinary objects above them"),
    ("score_crops", "FLOAT", "", "stat.value", "What looking at parts of the picture adds to it when re-ranked"),
    ("score_measured", "FLOAT", "", "stat.value", "What the measures that the words ask for add to it"),
    ("score_probe", "FLOAT", "", "stat.value", "What a probe of marked examples adds to it"),
    ("score_judge", "FLOAT", "", "stat.value", "What the answers of a vision model add to it; NULL for none"),
    ("judged", "FLOAT", "", "stat.mean", "Mean answer of a vision model, 1 to 10; NULL for none"),
    ("answers", "BIGINT", "", "meta.number", "Answers of a vision model that the mean is taken over"),
    ("explanation", "VARCHAR", "", "meta.note", "What the model said with the answer nearest to the mean"),
    ("rank_before", "BIGINT", "", "meta.number", "Rank in the order of the search, from 1"),
    ("copies", "BIGINT", "", "meta.number", "Objects that this one stands for, itself included"),
)

VERDICTS = _columns(  # of a table of verdicts; they are in a file of their own and in no atlas
    ("object_id", "VARCHAR", "", "meta.id;meta.main", "Object that is judged"),
    ("kind", "VARCHAR", "", "meta.code.class", "What it is judged for, such as merger"),
    ("verdict", "VARCHAR", "", "meta.code", "yes, no, unsure or label; undo for a row that takes one back"),
    ("label", "VARCHAR", "", "meta.note", "What it is in the words of who judged; NULL for nothing"),
    ("note", "VARCHAR", "", "meta.note", "What was noted; NULL for nothing"),
    ("by", "VARCHAR", "", "meta.id.PI", "Who judged"),
    ("time", "VARCHAR", "", "time.epoch", "When, ISO 8601 in UTC"),
    ("blind", "BOOLEAN", "", "meta.code", "Whether names, scores and verdicts of others were hidden"),
    ("id", "VARCHAR", "", "meta.id", "Unique id of the row"),
    ("replaces", "VARCHAR", "", "meta.id", "Id of the verdict of the same person that it corrects"),
    ("undoes", "VARCHAR", "", "meta.id", "Id of the verdict that it takes back"),
)

# Names that DuckDB, our macros, statements or results give a meaning to, and what it is. No column of a user's table
# has one of them in an atlas, in upper or lower case: intake stores `rowid` as `rowid_in_table` (`columns`).
ENGINE_NAMES = {
    "rowid": "the engine's number of a row",
    "row": "the number of a row in our statements",
    "place": "the number of a vector in our statements",
    "cut": "a parameter of the macros",
    "is_refused": "a column inside the macros",
    "cell": "a column of the tables of vectors",
    "embedding": "a column of the tables of vectors",
    "separation_arcsec": "a column of cones and matches",
    "atlas": "a column of results of several atlases",
    **dict.fromkeys(HITS, "a column of results"),
}
IN_TABLE = "_in_table"  # put after the name of a user's column that it cannot keep
MEASURED = "_measured"  # put after the name of a measure of ours where the user's table has a column of that name
MAX_NAME = 100  # characters of a column's name; longer ones are cut at intake


PHRASES = "concepts"  # table of the phrases of the main embedding
OTHER_PHRASES = PHRASES + "_{name}"  # and of another one that has a model of words of its own
WORDS_MODEL, WORDS_SHA256 = "words_model", "words_sha256"  # manifest, of an embedding: what projects words into it
MEASURES_KEY = "measures"  # manifest: measure -> the column of `galaxies` that holds it; absent before format 1.1


def is_engine_name(name: str) -> bool:
    """Say whether a user's column may not be called so in an atlas, in upper or lower case."""
    return name.casefold() in ENGINE_NAMES or name.casefold().startswith(BY)


_ARROW = {
    "FLOAT[]": pa.list_(pa.float32()),
    "BLOB": pa.binary(),
    "VARCHAR[]": pa.list_(pa.string()),
    "BIGINT[]": pa.list_(pa.int64()),
    "DOUBLE[]": pa.list_(pa.float64()),
    "FLOAT": pa.float32(),
    "BIGINT": pa.int64(),
    "VARCHAR": pa.string(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
}

HASH_BYTES = {"rings-1": 72}  # of the hash of a picture, by the method that made it

# What is known of an object that was looked up in catalogs.
STATES = ("known of this kind", "known of another kind", "not found", "not checked")

# Tables that an atlas has besides `galaxies`; {name} stands for an embedding, {dim} for its length.
TABLES: dict[str, tuple[Column, ...]] = {
    MANIFEST_TABLE: (
        Column("key", "VARCHAR", "", "meta.id", "Name of the entry"),
        Column("value", "VARCHAR", "", "meta", "The entry as JSON"),
    ),
    COLUMNS_TABLE: (
        Column("table", "VARCHAR", "", "meta.table", "Table name"),
        Column("column", "VARCHAR", "", "meta.id", "Column name"),
        Column("unit", "VARCHAR", "", "meta.unit", "VOUnit; empty when dimensionless"),
        Column("ucd", "VARCHAR", "", "meta.ucd", "UCD1+"),
        Column("description", "VARCHAR", "", "meta.note", "Meaning in a sentence"),
    ),
    "embedding_{name}": (
        Column("object_id", "VARCHAR", "", "meta.id", "Object"),
        Column("cell", "INTEGER", "", "meta.code", "Cell of the index that the vector lies in"),
        Column("embedding", "FLOAT[{dim}]", "", "stat.value", "Unit vector"),
    ),
    "codes_{name}": (
        Column("object_id", "VARCHAR", "", "meta.id", "Object"),
        Column("cell", "INTEGER", "", "meta.code", "Cell of the index that the vector lies in"),
        Column("weights", "FLOAT[2]", "", "stat.weight", "Of the centroid of the cell, and of the code"),
        Column("code", "TINYINT[{dim}]", "", "stat.value", "What the vector has beside the centroid, -127 to 127"),
    ),
    "cells_{name}": (
        Column("cell", "INTEGER", "", "meta.code", "Cell, from 0"),
        Column("centroid", "FLOAT[{dim}]", "", "stat.mean", "Unit vector at the center of the cell"),
        Column("rows", "BIGINT", "", "meta.number", "Vectors in the cell"),
    ),
    "recall_{name}": (
        Column("asked", "VARCHAR", "", "meta.code", "like: queries like stored vectors; words: queries in words"),
        Column("depth", "INTEGER", "", "meta.number", "How many of the best rows were wanted"),
        Column("probes", "INTEGER", "", "meta.number", "Cells visited, closest first"),
        Column("recall", "DOUBLE", "", "stat.value", "Mean share of the wanted rows that lie in those cells"),
    ),
    "line_{name}": (
        Column("asked", "VARCHAR", "", "meta.code", "like or words, as in recall_{name}"),
        Column("score", "DOUBLE", "", "stat.value", "Score that the best answer reaches for 19 of 20 such queries"),
    ),
    "map_{name}": (
        Column("object_id", "VARCHAR", "", "meta.id", "Object"),
        Column("x", "FLOAT", "", "pos.cartesian.x", "Across: along the first principal component, unless it is UMAP"),
        Column("y", "FLOAT", "", "pos.cartesian.y", "Up: along the second one"),
    ),
    "word_postings": (
        Column("term", "VARCHAR", "", "meta.id", "Word of a name or caption, as terms_of() gives it"),
        Column("row", "BIGINT", "", "meta.number", "rowid in galaxies of an object that has it"),
        Column("weight", "FLOAT", "", "stat.weight", "What it adds to the BM25 score of that object"),
    ),
    MAP_TABLE: (
        Column("name", "VARCHAR", "", "meta.table", "embedding_{name}, cells_{name}, codes_{name} or weights_{name}"),
        Column("file", "VARCHAR", "", "meta.file", "File inside the atlas; NULL for this one"),
        Column("first_value", "BIGINT", "", "meta.number", "Number of the first value in the column, from 0"),
        Column("run_values", "BIGINT", "", "meta.number", "Values that follow one another there"),
        Column("byte_offset", "BIGINT", "byte", "meta.number", "Where the first of them begins in the file"),
        Column("head", "BIGINT", "", "meta.code", "The first eight bytes there, little-endian"),
        Column("crc32", "BIGINT", "", "meta.code", "CRC-32 of their bytes"),
    ),
    "thumbnails": (
        Column("object_id", "VARCHAR", "", "meta.id", "Object"),
        Column("image", "BLOB", "", "obs.image", "Small WebP picture"),
    ),
    "spectra": (
        Column("object_id", "VARCHAR", "", "meta.id", "Object"),
        Column(
            "log_wavelength_start",
            "DOUBLE",
            "",
            "em.wl;stat.min",
            "log10 of the vacuum wavelength of pixel 1 in Angstrom",
        ),
        Column("log_wavelength_step", "DOUBLE", "", "em.wl;arith.diff", "What it grows by from pixel to pixel"),
        Column(
            "flux",
            "FLOAT[]",
            "10**-10 W.m**-3",
            "phot.flux.density;em.wl",
            "Flux density, 1e-17 erg / (s cm2 Angstrom) where it is calibrated; 0 for no data",
        ),
        Column("ivar", "FLOAT[]", "", "stat.weight", "Inverse variance of the flux, in its unit; 0 for no data"),
        Column("medium", "VARCHAR", "", "meta.code", "Of these wavelengths: vacuum"),
        Column("frame", "VARCHAR", "", "meta.code", "Of these wavelengths: observed, or rest where the file had rest"),
        Column("z", "DOUBLE", "", "src.redshift", "Redshift that it was compared and measured with; NULL for none"),
        Column("is_calibrated", "BOOLEAN", "", "meta.code", "Whether the scale of the flux means something"),
        Column("flux_unit", "VARCHAR", "", "meta.unit", "What the unit was in the file"),
        Column("kind", "VARCHAR", "", "meta.code", "What the file was read as, such as SDSS spec"),
    ),
    "lines": (
        Column("object_id", "VARCHAR", "", "meta.id", "Object"),
        Column("line", "VARCHAR", "", "meta.id;spect.line", "Line, such as [O III] 5007, H alpha broad or Mg b"),
        Column("wavelength_angstrom", "DOUBLE", ANGSTROM, "em.wl;spect.line", "In vacuum, at rest"),
        Column("flux", "DOUBLE", "", "phot.flux;spect.line", "1e-17 erg/s/cm2 of a calibrated spectrum; NULL for none"),
        Column("flux_error", "DOUBLE", "", "stat.error;phot.flux;spect.line", "Its standard error"),
        Column("ew_angstrom", "DOUBLE", ANGSTROM, "spect.line.eqWidth", "Equivalent width at rest, emission above 0"),
        Column("ew_error", "DOUBLE", ANGSTROM, "stat.error;spect.line.eqWidth", "Its standard error"),
        Column(
            "sigma_kms", "DOUBLE", "km.s-1", "spect.line.width", "Standard deviation as observed, instrument included"
        ),
        Column("sigma_error", "DOUBLE", "km.s-1", "stat.error;spect.line.width", "Its standard error"),
    ),
    "models": (
        Column("name", "VARCHAR", "", "meta.id", "text, image, spectrum, image_projector or text_projector"),
        Column("card", "VARCHAR", "", "meta.note", "Model card as JSON"),
        Column("onnx", "BLOB", "", "meta.file", "The ONNX graph"),
        Column("tokenizer", "BLOB", "", "meta.file", "tokenizer.json of a text model, else NULL"),
    ),
    "rejected": (
        Column(
            "object_id",
            "VARCHAR",
            "",
            "meta.id",
            "Object that was left out at build; NULL when it had no row",
        ),
        Column("file", "VARCHAR", "", "meta.file", "Its picture"),
        Column("reason", "VARCHAR", "", "meta.note", "Why"),
    ),
    "captions": (
        Column("object_id", "VARCHAR", "", "meta.id", "Object"),
        Column("caption", "VARCHAR", "", "meta.note", "What is said of it, whole; NULL where there was no answer"),
        Column("summary", "VARCHAR", "", "meta.note", "One sentence of what it has, without negations; NULL for none"),
        Column("negatives", "VARCHAR[]", "", "meta.note", "Attributes said to be absent, such as bar; never NULL"),
        Column("model", "VARCHAR", "", "meta.software", "What wrote it: a captioner and its version, or a model"),
        Column("prompt_sha256", "VARCHAR", "", "meta.id", "Digest of the prompt, rules or table that it came from"),
        Column("seed", "BIGINT", "", "meta.number", "Seed of its wording; captions of one object differ in it"),
        Column("status", "VARCHAR", "", "meta.code", "ok, refused or malformed: the last two have no caption"),
        Column("reply", "VARCHAR", "", "meta.note", "What was answered where the status is not ok; else NULL"),
        Column("cost_usd", "DOUBLE", "", "meta.number", "What it cost in US dollars; NULL where the price is unknown"),
        Column("created", "VARCHAR", "", "time.creation", "When it was written, ISO 8601 in UTC"),
    ),
    "caption_costs": (
        Column("run", "VARCHAR", "", "meta.id", "One job of asking a service, its interruptions included"),
        Column("model", "VARCHAR", "", "meta.software", "Model that was asked"),
        Column("service", "VARCHAR", "", "meta.ref.url", "Host that answered"),
        Column("prompt_sha256", "VARCHAR", "", "meta.id", "Digest of the prompt"),
        Column("answers", "BIGINT", "", "meta.number", "Answers received, with those refused and malformed"),
        Column("refused", "BIGINT", "", "meta.number", "Answers that refused"),
        Column("malformed", "BIGINT", "", "meta.number", "Answers that were not what was asked for"),
        Column("failed", "BIGINT", "", "meta.number", "Questions without an answer"),
        Column("tokens_in", "BIGINT", "", "meta.number", "Tokens sent, as the service counts them"),
        Column("tokens_out", "BIGINT", "", "meta.number", "Tokens received, as the service counts them"),
        Column("cost_usd", "DOUBLE", "", "meta.number", "What the answers cost in US dollars; NULL for no known price"),
        Column("started", "VARCHAR", "", "time.start", "When the job began, ISO 8601 in UTC"),
        Column("ended", "VARCHAR", "", "time.end", "When its answers were put into the atlas, ISO 8601 in UTC"),
    ),
    "evaluations": (
        Column("run", "VARCHAR", "", "meta.id", "SHA-256 of the configuration and the time: one evaluation"),
        Column("target", "VARCHAR", "", "meta.id", "What was looked for, by its name in the targets file"),
        Column("system", "VARCHAR", "", "meta.code", "What ranked: text, first query, random, image, centroid, …"),
        Column("asked_prevalence", "DOUBLE", "", "stat.value", "Prevalence drawn to; NULL for all candidates"),
        Column("prevalence", "DOUBLE", "", "stat.value", "Relevant among the candidates of a set"),
        Column("n", "BIGINT", "", "meta.number", "Candidates of a set"),
        Column("relevant", "BIGINT", "", "meta.number", "Relevant ones among them"),
        Column("queries", "BIGINT", "", "meta.number", "Rankings that the means are taken over"),
        Column("ndcg_exp_10", "DOUBLE", "", "stat.value", "nDCG@10 with gain 2^relevance - 1, expected under ties"),
        Column("ndcg_exp_10_low", "DOUBLE", "", "stat.min", "Lower end of its bootstrap 95 % interval"),
        Column("ndcg_exp_10_high", "DOUBLE", "", "stat.max", "Upper end of its bootstrap 95 % interval"),
        Column("ndcg_exp_10_worst", "DOUBLE", "", "stat.min", "The same for the query that does worst"),
        Column("ndcg_lin_10", "DOUBLE", "", "stat.value", "nDCG@10 with gain equal to relevance"),
        Column("precision_10", "DOUBLE", "", "stat.value", "Relevant among the first 10"),
        Column("lift_10", "DOUBLE", "", "stat.value", "Precision at 10 over the prevalence"),
        Column("recall_100", "DOUBLE", "", "stat.value", "Part of the relevant ones among the first 100"),
        Column("recall_100_ceiling", "DOUBLE", "", "stat.max", "The most that 100 ranks can hold of them"),
        Column("auroc", "DOUBLE", "", "stat.value", "Area under the ROC curve, ties counting half"),
        Column("auroc_low", "DOUBLE", "", "stat.min", "Lower end of its bootstrap 95 % interval"),
        Column("auroc_high", "DOUBLE", "", "stat.max", "Upper end of its bootstrap 95 % interval"),
        Column("folds", "BIGINT", "", "meta.number", "Folds that have a relevant object; NULL where not by fold"),
        Column("fold_mean", "DOUBLE", "", "stat.mean", "Mean over folds of nDCG@10 within the fold"),
        Column("fold_std", "DOUBLE", "", "stat.stdev", "Standard deviation over folds of the same"),
        Column("worst_query", "VARCHAR", "", "meta.note", "The words that do worst"),
        Column("config_sha256", "VARCHAR", "", "meta.id", "Digest of targets, seed, folds, cut, measures and models"),
        Column("models", "VARCHAR", "", "meta.software", "sha256 of the models by kind, as JSON"),
        Column("software", "VARCHAR", "", "meta.software", "galsearch and its version"),
        Column("created", "VARCHAR", "", "time.creation", "When, ISO 8601 in UTC"),
    ),
    "knowledge_bases": (
        Column("base", "VARCHAR", "", "meta.id", "Name of a knowledge base: labeled objects that vote on others"),
        Column("version", "BIGINT", "", "meta.number", "Version of it, from 1; each is kept until it is dropped"),
        Column("embedding", "VARCHAR", "", "meta.id", "Embedding in which neighbors are looked for"),
        Column("kind", "VARCHAR", "", "meta.code", "class: labels are classes; number: labels are numbers"),
        Column("label_column", "VARCHAR", "", "meta.id", "What the SELECT calls the labels"),
        Column("target", "VARCHAR", "", "meta.code.class", "Class that was drawn to a share; NULL for none"),
        Column("share", "DOUBLE", "", "stat.value", "Share of the target that was drawn; NULL where all were taken"),
        Column("sql", "VARCHAR", "", "meta.note", "SELECT of object_id and label that the members come from"),
        Column("shown", "VARCHAR[]", "", "meta.id", "Columns of galaxies that are shown of neighbors; never NULL"),
        Column("seed", "BIGINT", "", "meta.number", "Seed of the draw and of the objects held out to calibrate"),
        Column("rows", "BIGINT", "", "meta.number", "Members"),
        Column("calibration", "VARCHAR", "", "meta.note", "What held-out members gave, as JSON; NULL for too few"),
        Column("software", "VARCHAR", "", "meta.software", "galsearch and its version"),
        Column("created", "VARCHAR", "", "time.creation", "When, ISO 8601 in UTC"),
    ),
    "knowledge_labels": (
        Column("base", "VARCHAR", "", "meta.id", "Knowledge base"),
        Column("version", "BIGINT", "", "meta.number", "Version of it"),
        Column("object_id", "VARCHAR", "", "meta.id", "Member"),
        Column("label", "VARCHAR", "", "meta.code.class", "Its class; NULL in a base of numbers"),
        Column("value", "DOUBLE", "", "stat.value", "Its number; NULL in a base of classes"),
    ),
    "probes": (
        Column("base", "VARCHAR", "", "meta.id", "Knowledge base whose members it was trained on"),
        Column("probe", "BIGINT", "", "meta.number", "Number of it, from 1"),
        Column("version", "BIGINT", "", "meta.number", "Version of the base"),
        Column("embedding", "VARCHAR", "", "meta.id", "Embedding whose vectors it classifies"),
        Column("model_sha256", "VARCHAR", "", "meta.id", "Digest of the model that made those vectors"),
        Column("classes", "VARCHAR[]", "", "meta.code.class", "Its classes, c of them"),
        Column(
            "weights", "DOUBLE[]", "", "stat.weight", "d × c numbers by rows: vector · weights + intercept = logits"
        ),
        Column("intercept", "DOUBLE[]", "", "stat.value", "c numbers; the softmax of the logits are probabilities"),
        Column("trained", "BIGINT", "", "meta.number", "Members that it was trained on"),
        Column("tested", "BIGINT", "", "meta.number", "Members that never train, on which it was judged"),
        Column("accuracy", "DOUBLE", "", "stat.value", "Part of those that it classifies rightly"),
        Column("accuracy_low", "DOUBLE", "", "stat.min", "Lower end of its bootstrap 95 % interval"),
        Column("accuracy_high", "DOUBLE", "", "stat.max", "Upper end of its bootstrap 95 % interval"),
        Column("log_loss", "DOUBLE", "", "stat.value", "Mean of -log probability of the true class, in nats"),
        Column(
            "confusion", "BIGINT[]", "", "meta.number", "c × c counts of those tested, by rows: true class, then given"
        ),
        Column("against", "VARCHAR", "", "meta.code", "What classified before it: votes, or probe and its number"),
        Column("gain", "DOUBLE", "", "stat.value", "Its accuracy less that of what classified before"),
        Column("gain_low", "DOUBLE", "", "stat.min", "Lower end of its bootstrap 95 % interval"),
        Column("gain_high", "DOUBLE", "", "stat.max", "Upper end of its bootstrap 95 % interval"),
        Column("promoted", "BIGINT", "", "meta.number", "The highest of a base is the one in use; NULL for never"),
        Column("seed", "BIGINT", "", "meta.number", "Seed of the parts left out while it was fitted"),
        Column("software", "VARCHAR", "", "meta.software", "galsearch and its version"),
        Column("created", "VARCHAR", "", "time.creation", "When, ISO 8601 in UTC"),
    ),
    "adaptations": (
        Column("adaptation", "BIGINT", "", "meta.id", "Number of a correction of text vectors, from 1"),
        Column("embedding", "VARCHAR", "", "meta.id", "Embedding in which corrected words are compared"),
        Column("model_sha256", "VARCHAR", "", "meta.id", "Digest of the model that made its vectors"),
        Column("words_sha256", "VARCHAR", "", "meta.id", "Digest of the model that makes the vectors of words"),
        Column("kinds", "VARCHAR[]", "", "meta.code", "Kinds of the verdicts that it was learned from, k of them"),
        Column("texts", "VARCHAR[]", "", "meta.note", "What was searched for each kind"),
        Column("gates", "DOUBLE[]", "", "stat.weight", "G, k × d by rows: a unit vector q becomes q + (q G^T) S"),
        Column("shifts", "DOUBLE[]", "", "stat.value", "S, k × d by rows; the result is scaled to unit length"),
        Column("strength", "DOUBLE", "", "stat.value", "Penalty that cross-validation chose; higher moves less"),
        Column("trained", "BIGINT", "", "meta.number", "Judged objects that it was learned from"),
        Column("tested", "BIGINT", "", "meta.number", "Judged objects that never train, on which it was judged"),
        Column("auroc_before", "DOUBLE", "", "stat.value", "Mean AUROC over kinds of what was in use before, on those"),
        Column("auroc", "DOUBLE", "", "stat.value", "Its own mean AUROC on those"),
        Column("against", "VARCHAR", "", "meta.code", "What was in use before it"),
        Column("gain", "DOUBLE", "", "stat.value", "The one less the other"),
        Column("gain_low", "DOUBLE", "", "stat.min", "Lower end of its bootstrap 95 % interval"),
        Column("gain_high", "DOUBLE", "", "stat.max", "Upper end of its bootstrap 95 % interval"),
        Column("kept", "DOUBLE", "", "stat.min", "Least cosine of another phrase with itself corrected"),
        Column("promoted", "BIGINT", "", "meta.number", "The highest is the one in use; NULL for never"),
        Column("sha256", "VARCHAR", "", "meta.id", "Digest of gates, then shifts, as little-endian doubles"),
        Column("seed", "BIGINT", "", "meta.number", "Seed of the folds and of the bootstrap"),
        Column("software", "VARCHAR", "", "meta.software", "galsearch and its version"),
        Column("created", "VARCHAR", "", "time.creation", "When, ISO 8601 in UTC"),
    ),
    "anomalies": (
        Column("run", "VARCHAR", "", "meta.id", "One search for anomalies; its parameters are in the provenance"),
        Column("object_id", "VARCHAR", "", "meta.id", "Object that was judged, odd or not"),
        Column("embedding", "VARCHAR", "", "meta.id", "Embedding that it was judged in"),
        Column("score", "DOUBLE", "", "stat.value", "Surprise of all detectors together in nats, higher is odder"),
        Column("p_value", "DOUBLE", "", "stat.probability", "Of a normal at least as odd; q-values and tiers follow"),
        Column("detector", "VARCHAR", "", "meta.code", "Detector that is most surprised"),
        Column("nearest", "VARCHAR[]", "", "meta.id", "Normals that are most like it; NULL beyond the list"),
        Column("odd_columns", "VARCHAR[]", "", "meta.note", "Measures that are furthest off; NULL beyond the list"),
        Column("created", "VARCHAR", "", "time.creation", "When, ISO 8601 in UTC"),
    ),
    "duplicates": (
        Column("run", "VARCHAR", "", "meta.id", "One search for duplicates; its parameters are in the provenance"),
        Column("group_id", "BIGINT", "", "meta.id", "Group of objects of the atlas that are one, from 0"),
        Column("object_id", "VARCHAR", "", "meta.id", "Member of it"),
        Column("is_kept", "BOOLEAN", "", "meta.code", "Whether it stands for the group: one in each does"),
        Column("linked_to", "VARCHAR", "", "meta.id", "Member that it is linked to; NULL for the one that is kept"),
        Column("grounds", "VARCHAR[]", "", "meta.code", "What links the two: position, picture, vector"),
        Column(
            "confidence", "DOUBLE", "", "stat.probability", "That the two are one, 0 to 1; of several grounds together"
        ),
        Column("separation_arcsec", "DOUBLE", "arcsec", "pos.angDistance", "Between the two; NULL without positions"),
        Column("hash_distance", "DOUBLE", "", "stat.value", "Root mean square difference of their picture hashes"),
        Column("cosine", "DOUBLE", "", "stat.value", "Of their vectors in the main embedding"),
        Column("correlation", "DOUBLE", "", "stat.correlation", "Of their pictures or spectra when aligned"),
        Column("created", "VARCHAR", "", "time.creation", "When, ISO 8601 in UTC"),
    ),
    "picture_hashes": (
        Column("object_id", "VARCHAR", "", "meta.id", "Object whose stored picture it is"),
        Column("method", "VARCHAR", "", "meta.code", "How it was made; hashes of other methods are not compared"),
        Column("hash", "BLOB", "", "stat.value", "Perceptual hash: 72 signed bytes"),
    ),
    "identifications": (
        Column("run", "VARCHAR", "", "meta.id", "One look at catalogs; its parameters are in the provenance"),
        Column("object_id", "VARCHAR", "", "meta.id", "Object that was looked up"),
        Column(
            "state", "VARCHAR", "", "meta.code", "known of this kind, known of another kind, not found, not checked"
        ),
        Column("kind", "VARCHAR", "", "meta.code", "Kind that it was taken for; any: whatever it is"),
        Column("radius_arcsec", "DOUBLE", "arcsec", "pos.angDistance", "How far a match may lie; NULL for no position"),
        Column("matches", "BIGINT", "", "meta.number", "Sources within the radius, in all catalogs"),
        Column("catalog", "VARCHAR", "", "meta.id", "Catalog of the best match; NULL for none, like what follows"),
        Column("name", "VARCHAR", "", "meta.id", "What that catalog calls it"),
        Column("type", "VARCHAR", "", "src.class", "What that catalog takes it for"),
        Column("separation_arcsec", "DOUBLE", "arcsec", "pos.angDistance", "How far the match lies from the object"),
        Column("false_probability", "DOUBLE", "", "stat.probability", "Of an unrelated source at least as close"),
        Column("chance_probability", "DOUBLE", "", "stat.probability", "Of any unrelated source within the radius"),
        Column("reference", "VARCHAR", "", "meta.ref", "Reference or link of the match"),
        Column(
            "reference_count", "BIGINT", "", "meta.number", "References to the match, where the catalog counts them"
        ),
        Column("checked", "VARCHAR[]", "", "meta.id", "Sources that answered for the object"),
        Column("failed", "VARCHAR[]", "", "meta.note", "Sources that did not, each with its error"),
        Column("answered", "VARCHAR", "", "time.epoch", "When the oldest answer of a service came; NULL for none"),
        Column("created", "VARCHAR", "", "time.creation", "When, ISO 8601 in UTC"),
    ),
    PHRASES: (
        Column("phrase", "VARCHAR", "", "meta.note", "Words"),
        Column("embedding", "FLOAT[{dim}]", "", "stat.value", "Their unit vector in the space of the main embedding"),
    ),
    OTHER_PHRASES: (
        Column("phrase", "VARCHAR", "", "meta.note", "Words"),
        Column("embedding", "FLOAT[{dim}]", "", "stat.value", "Their unit vector in the space of this embedding"),
    ),
}


# What is stored for objects beside their rows and vectors, table by table: how a row of it is handed on.
KEPT: dict[str, pa.DataType] = {
    "thumbnails": _ARROW["BLOB"],
    "spectra": pa.struct([(column.name, _ARROW[column.type]) for column in TABLES["spectra"][1:]]),
}


# What is stored for objects in rows of a table of facts, several for an object: they are handed on as a list.
LISTED: dict[str, pa.DataType] = {
    "lines": pa.list_(pa.struct([(column.name, _ARROW[column.type]) for column in TABLES["lines"][1:]])),
}


def kept_columns(table: str) -> dict[str, pa.DataType]:
    """Return the columns of a table of `KEPT` beside object_id."""
    return {column.name: _ARROW[column.type] for column in TABLES[table][1:]}


def table_columns(embeddings: Iterable[str]) -> list[tuple[str, str, str, str, str]]:
    """Return (table, column, unit, ucd, description) of every table besides `galaxies`, for these embeddings."""
    rows, every = [], list(embeddings)
    others = [name for name in every if name != main_embedding(every)]
    for table, columns in TABLES.items():
        several = others if table == OTHER_PHRASES else every
        names = [table.format(name=name) for name in several] if "{name}" in table else [table]
        rows += [(name, c.name, c.unit, c.ucd, c.description) for name in names for c in columns]
    return rows


def described(column: Column) -> pa.Field:
    """Return the Arrow field of a column, with its unit, UCD and meaning as metadata."""
    about = {"unit": column.unit, "ucd": column.ucd, "description": column.description}
    return pa.field(column.name, _ARROW[column.type], metadata=about)


def arrow_schema(table: str) -> pa.Schema:
    """Return the Arrow fields of a table besides `galaxies`, as `described` makes them."""
    return pa.schema([described(column) for column in TABLES[table]])


def arrow_field(name: str) -> pa.Field:
    """Return the Arrow field of a well-known column of `galaxies`, with its unit, UCD and meaning as metadata."""
    return described(GALAXIES[name])


def hit_field(name: str) -> pa.Field:
    """Return the Arrow field of a column that only hits have."""
    return described(replace(HITS["score_vector"], name=name) if name.startswith(BY) else HITS[name])


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def software() -> str:
    """Return `galsearch <version>` as recorded in manifests and provenance."""
    return f"{SOFTWARE} {metadata.version(SOFTWARE)}"


def revision() -> str | None:
    """Return the git commit of the checkout that this package lies in, 40 hex digits; None where it lies in none."""
    root = Path(__file__).resolve().parent.parent
    try:
        git = root / ".git"
        if git.is_file():  # of a worktree
            git = (root / git.read_text().removeprefix("gitdir:").strip()).resolve()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head if _COMMIT.fullmatch(head) else None
        name = head.removeprefix("ref:").strip()
        common = git / "commondir"
        home = (git / common.read_text().strip()).resolve() if common.is_file() else git
        if (home / name).is_file():
            commit = (home / name).read_text().strip()
        else:
            packed = (home / "packed-refs").read_text().splitlines()
            commit = next((line.split()[0] for line in packed if line.endswith(f" {name}")), "")
        return commit if _COMMIT.fullmatch(commit) else None
    except (OSError, UnicodeDecodeError):
        return None


def provenance(action: str, *, parameters: dict, inputs: dict | None = None, seconds: float = 0.0) -> dict:
    """Return one provenance record: what was done, with which parameters, seed, versions and input digests."""
    packages = ("numpy", "duckdb", "pylance", "pyarrow", "onnxruntime")
    return {
        "action": action,
        "time": now(),
        "software": software(),
        "parameters": parameters,
        "inputs": inputs or {},
        "environment": {
            "python": platform.python_version(),
            "system": platform.system(),
            **_versions(packages),
        },
        "seconds": round(seconds, 3),
    }


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    result = {}
    for name in packages:
        try:
            result[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # the GPU build of ONNX Runtime goes by another name, and a reader may have no engine
    return result


@dataclass
class Manifest:
    """What an atlas says of itself; stored as the rows of `galsearch_manifest`, one JSON value a key.

    `embeddings` maps a name to {dim, model, sha256, space, metric, rows}. `provenance` is only ever appended to.
    Keys that this version does not know are kept in `extra` and written back.
    """

    title: str
    rows: int
    embeddings: dict[str, dict]
    format: str = FORMAT
    version: str = ".".join(map(str, FORMAT_VERSION))
    created: str = field(default_factory=now)
    software: str = field(default_factory=software)
    sources: list[dict] = field(default_factory=list)
    provenance: list[dict] = field(default_factory=list)
    extra: dict = field(default_factory=dict)

    @property
    def main_embedding(self) -> str | None:
        """The embedding that is searched where a query names none: "image", else the first; None where there is none.

        Words are embedded into it, and the rows of a bundle are in the order of its cells.
        """
        return main_embedding(self.embeddings)

    def embedding_named(self, by: str | None, *, path: object) -> str:
        """Return the embedding of a name, the main one unless given.

        Raises QueryError, which names the atlas by its `path`, where there is none.
        """
        name = by or self.main_embedding
        if name is None or name not in self.embeddings:
            there = ", ".join(self.embeddings) or "none"
            raise QueryError(f"{path} has no embedding {by!r:.40}, it has: {there}")
        return name

    def runs(self, action: str) -> list[str]:
        """Return the runs of an action that the provenance names, the last one last."""
        stated = (one.get("parameters") for one in self.provenance if one.get("action") == action)
        names = (each.get("run") for each in stated if isinstance(each, dict))
        return list(dict.fromkeys(name for name in names if isinstance(name, str)))

    def modality(self, embedding: str) -> Modality:
        """Return the kind of data that an embedding is made of: what its entry says, else its name, else images."""
        stated = self.embeddings[embedding].get("modality") or embedding
        return MODALITIES.get(stated, MODALITIES[MAIN])

    def embedding_of(self, modality: str) -> str | None:
        """Return the embedding that is made of a kind of data, the main one first; None where there is none."""
        names = sorted(self.embeddings, key=lambda name: name != self.main_embedding)
        return next((name for name in names if self.modality(name).name == modality), None)

    def knows_words(self, embedding: str) -> bool:
        """Say whether words can be compared in an embedding: some model embeds them into its space."""
        return self.phrases_of(embedding) is not None

    def phrases_of(self, embedding: str) -> str | None:
        """Return the table of phrases that are embedded into the space of an embedding; None where words are not.

        The text model embeds them into the space of pictures, and where the entry of an embedding names one, a
        projector takes them from there to its space.
        """
        main = self.main_embedding
        if main is None or embedding not in self.embeddings:
            return None
        entry = self.embeddings[embedding]
        if entry.get(WORDS_MODEL) is not None:
            return phrases_table(embedding, main)
        if embedding == main:
            return PHRASES if self.modality(main).name == MAIN else None
        ours, words = (self.embeddings[name].get("space") for name in (embedding, main))
        return PHRASES if words is not None and ours == words and self.knows_words(main) else None

    def embedding_of_model(self, model: str) -> str | None:
        """Return the embedding that a model serves which travels along: that of its kind of data, else the main one.

        None where the atlas has none such: an addition that was killed may have left the models of what it would add.
        """
        start, _, name = model.partition("_")
        if name and start in WORDS_MODELS and not model.endswith(PROJECTOR):
            return name if name in self.embeddings and self.embeddings[name].get(WORDS_MODEL) else None
        return self.embedding_of(model) if model in MODALITIES else self.main_embedding

    def measure_column(self, measure: str) -> str | None:
        """Return the column of `galaxies` that holds a measure of ours, such as `snr`; None where none does.

        A table that an atlas was built from may have a column of that name: it is the user's, and the measure is
        `snr_measured`. Whatever reads measures asks here. Atlases before format 1.1 do not say; a name is trusted then.
        """
        held = self.extra.get(MEASURES_KEY)
        if held is None:
            return measure
        column = held.get(measure) if isinstance(held, dict) else None
        return column if isinstance(column, str) else None

    def to_rows(self) -> list[tuple[str, str]]:
        """Return (key, JSON value) pairs, the order in which they are stored.

        What is no character, such as a byte of a file's name that is not UTF-8, is stored as a question mark.
        """
        known = {key: value for key, value in vars(self).items() if key != "extra"}
        texts = {key: json.dumps(value, ensure_ascii=False) for key, value in {**known, **self.extra}.items()}
        return [(key, text.encode(errors="replace").decode()) for key, text in texts.items()]

    @classmethod
    def from_rows(cls, rows: list[tuple[str, str]], *, path: str) -> Manifest:
        """Rebuild a manifest from its stored pairs; `path` names the atlas in errors.

        Raises FormatError for a missing or unreadable entry, VersionTooNewError or VersionTooOldError for another
        major version. A newer minor version is read.
        """
        values = {key: _parse(key, value, path) for key, value in rows}
        _check_version(values, path)
        missing = [key for key in REQUIRED_KEYS if key not in values]
        if missing:
            raise FormatError(
                f"{path}: the manifest has no {', '.join(missing)}, and every atlas must say it; "
                "copy the file again or rebuild it with `galsearch bundle`"
            )
        _check_kinds(values, path)
        names = set(cls.__dataclass_fields__) - {"extra"}
        known = {key: value for key, value in values.items() if key in names}
        return cls(**known, extra={key: value for key, value in values.items() if key not in names})


def phrases_table(embedding: str, main: str | None) -> str:
    """Return what the table of the phrases of an embedding is called that has a model of words of its own."""
    return PHRASES if embedding == main else f"{PHRASES}_{embedding}"


WORDS_MODELS = ("words", "text")  # what the models for words in an embedding are called, before its name
PROJECTOR = "_projector"  # what the models end in that project vectors from a table into the space of its embedding


def text_model(embedding: str) -> str:
    """Return the name under which the text model of words for an embedding travels that is not that of the main one."""
    return f"text_{embedding}"


def words_model(embedding: str) -> str:
    """Return the name under which the projector of words into the space of an embedding travels with an atlas."""
    return f"words_{embedding}"


def main_embedding(embeddings: Iterable[str]) -> str | None:
    """Return which of the names of embeddings is the main one; see `Manifest.main_embedding`."""
    names = list(embeddings)
    return MAIN if MAIN in names else next(iter(names), None)


REQUIRED_KEYS = (
    "format",
    "version",
    "title",
    "rows",
    "created",
    "software",
    "embeddings",
    "sources",
    "provenance",
)
_KINDS = {
    "title": str,
    "rows": int,
    "created": str,
    "software": str,
    "embeddings": dict,
    "sources": list,
    "provenance": list,
}
MOST_DIM = 65_536  # numbers of a vector
_SPACE_KINDS = {"dim": int, "rows": int, "model": str, "metric": str}
_SPACE_TEXTS = (
    "sha256",
    "space",
    "words",
    WORDS_MODEL,
    WORDS_SHA256,
    "modality",
)  # of an embedding; each may be absent or null
_EMBEDDING_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")  # it is part of table names


MOST_JSON_BYTES = 64 << 20
MOST_JSON_DEPTH = 100


def read_json(text: str | bytes):
    """Return what JSON text from a file says. Raises ValueError unless it is JSON, not too long and not too deep.

    NaN and Infinity are no JSON, halves of a character are no text, and numbers have at most as many digits as Python
    reads.
    """
    if not isinstance(text, (str, bytes)) or len(text) > MOST_JSON_BYTES:
        raise ValueError("not a text, or too long")
    try:
        result = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    escaped = b"\\ud" in text.lower() if isinstance(text, bytes) else "\\ud" in text.lower()
    if escaped:
        json.dumps(result, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    level = [result]
    for _ in range(MOST_JSON_DEPTH):
        level = [item for one in level for item in _inside(one) if isinstance(item, (dict, list))]
        if not level:
            return result
    raise ValueError("nested too deeply")


def _inside(value: object) -> Iterable:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _no_number(name: str):
    raise ValueError(f"{name} is no JSON")


def _parse(key: str, value: str, path: str):
    try:
        return read_json(value)
    except ValueError:
        raise FormatError(
            f"{path}: manifest entry '{key}' is not valid JSON ({value!r:.40}), so the file is damaged; "
            "copy it again from its source"
        ) from None


def _check_version(values: dict, path: str) -> None:
    if values.get("format") != FORMAT:
        raise FormatError(
            f"{path}: format is {values.get('format')!r}, expected {FORMAT!r}; this is not a galsearch atlas"
        )
    stated = values.get("version")
    # "2.0", [2, 0] or 2: a later format may spell it otherwise, and being newer must not look like damage
    version = ".".join(map(str, stated)) if isinstance(stated, list) else str(stated)
    if not re.fullmatch(r"\d+(\.\d+)?", version, re.ASCII):
        raise FormatError(f'{path}: version is {stated!r}, expected "major.minor"; the file is damaged')
    major, ours = int(version.split(".")[0]), FORMAT_VERSION[0]
    if major > ours:
        raise VersionTooNewError(
            f"{path}: format {version} is newer than {ours}.x, which this {software()} reads; "
            "upgrade with `pip install --upgrade galsearch`"
        )
    if major < ours:
        raise VersionTooOldError(f"{path}: format {version} is older than {ours}.x; rebuild it with `galsearch build`")


def _check_kinds(values: dict, path: str) -> None:
    _check_each(values, _KINDS, path, "")
    for key in ("sources", "provenance"):
        odd = next((item for item in values[key] if not isinstance(item, dict)), None)
        if odd is not None or None in values[key]:
            raise FormatError(
                f"{path}: manifest entry '{key}' lists {odd!r:.40}, expected objects; the file is damaged, copy it "
                "again"
            )
    for name, space in values["embeddings"].items():
        if not (isinstance(space, dict) and _EMBEDDING_NAME.fullmatch(name)):
            raise FormatError(
                f"{path}: manifest entry 'embeddings' has {name!r:.40}, which is no name or not described; "
                "the file is damaged, copy it again"
            )
        _check_each(space, _SPACE_KINDS, path, f"embeddings.{name}.")
        odd = next((key for key in _SPACE_TEXTS if not isinstance(space.get(key), str | None)), None)
        if odd is not None:
            raise FormatError(
                f"{path}: manifest entry 'embeddings.{name}.{odd}' is {space[odd]!r:.40}, expected text; the file is "
                "damaged, copy it again"
            )
        if not 1 <= space["dim"] <= MOST_DIM:
            raise FormatError(
                f"{path}: manifest entry 'embeddings.{name}.dim' is {space['dim']:.3g}, expected 1 to {MOST_DIM}; "
                "the file is damaged, copy it again"
            )


def _check_each(values: dict, kinds: dict[str, type], path: str, where: str) -> None:
    for key, kind in kinds.items():
        value = values.get(key)
        negative = kind is int and isinstance(value, int) and value < 0
        if not isinstance(value, kind) or isinstance(value, bool) or negative:
            raise FormatError(
                f"{path}: manifest entry '{where}{key}' is {value!r:.40}, expected {kind.__name__}; "
                "the file is damaged, copy it again"
            )


@dataclass(frozen=True)
class Finding:
    """One thing that `check` looked at: whether it holds, what was found, and the remedy when it does not."""

    name: str
    ok: bool
    message: str
    remedy: str = ""

    @classmethod
    def of(cls, name: str, good: str, bad: str, remedy: str, *, ok: bool) -> Finding:
        """Return the finding with the message and remedy that fit the outcome."""
        return cls(name, True, good) if ok else cls(name, False, bad, remedy)
