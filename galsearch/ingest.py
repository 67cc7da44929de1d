"""Making atlases: read, measure and embed galaxies in batches, then commit them at once.

Batches that are finished are kept beside the atlas, so that an interrupted run goes on where it stopped; the atlas
itself changes only in the last step.
"""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import formats, schema, sources
from galsearch.columns import Summary, check_roles
from galsearch.encode import CARD_FILE, Encoder, compatible, read_card, shipped
from galsearch.errors import (
    GalsearchError,
    ModelMismatchError,
    SchemaError,
    VersionTooNewError,
    VersionTooOldError,
)
from galsearch.escaping import check_path
from galsearch.science import images
from galsearch.sources import Reading, Source, known_embeddings
from galsearch.sources.known_embeddings import Publication
from galsearch.store import Staging, fixed_size_list, is_folder_atlas, open_store, staged, write_bundle

BATCH_ROWS = 256
VECTOR_BATCH_ROWS = 16_384  # of vectors that come with their table
THUMBNAILS = "thumbnails"
Progress = Callable[[int, int, str], None]

DEMO_CREDIT = {
    "title": "Hubble eXtreme Deep Field",
    "license": "public domain (NASA/ESA)",
    "acknowledgement": "NASA, ESA, G. Illingworth, D. Magee, P. Oesch, R. Bouwens, and the HUDF09 Team; "
    "picture as distributed by scikit-image",
    "bibtex": "@article{Illingworth2013, author={Illingworth, G. D. and others}, title={The HST eXtreme Deep Field "
    "(XDF)}, journal={ApJS}, volume={209}, pages={6}, year={2013}, doi={10.1088/0067-0049/209/1/6}}",
}


@dataclass(frozen=True)
class Report:
    """What a build did: where, how many objects are in the atlas, how many are new, and what was left out and why.

    `provider` is where ONNX Runtime ran the image encoder; None when the vectors came with their table. `summary` says
    which columns of the table were taken for what, `pictures` how many objects have one.
    """

    path: Path
    rows: int
    added: int
    rejected: list[dict[str, Any]]
    seconds: float
    provider: str | None = None
    summary: Summary = field(default_factory=Summary)
    pictures: int = 0

    def left_out(self) -> dict[str, int]:
        """Return how often each reason to leave a row or a file out was met, by reason without names and numbers."""
        return dict(Counter(reason_kind(item["reason"]) for item in self.rejected).most_common())

    def rarest_first(self) -> list[dict[str, Any]]:
        """Return what was left out so that thousands of one reason do not hide the few of another."""
        count = self.left_out()
        return sorted(self.rejected, key=lambda item: count[reason_kind(item["reason"])])

    def lines(self) -> list[str]:
        """Return the summary to tell, a line each: roles of columns, names changed, pictures, what was left out."""
        told = self.summary.lines()
        told += [f"pictures: {self.pictures} of {self.added} objects"] if self.pictures else []
        return told + [f"left out: {count} ({reason})" for reason, count in self.left_out().items()]


def reason_kind(reason: str) -> str:
    """Return a reason without the names and numbers that differ from row to row.

    >>> reason_kind("row 17: ra 400.0 dec 2.5 is not on the sky")
    'ra … dec … is not on the sky'
    """
    return re.sub(r"'.*?'|-?\b\d[\d.]*(e[-+]?\d+)?", "…", re.sub(r"^row \d+:? ", "", reason))


def _silent(done: int, total: int, what: str) -> None:
    """Report progress to nobody."""


def build(
    path: str | Path,
    *,
    images: str | Path | None = None,
    mosaic: str | Path | None = None,
    table: str | Path | None = None,
    vectors: str | None = None,
    model: str | None = None,
    models: str | Path | None = None,
    id_column: str | None = None,
    columns: Mapping[str, str] | None = None,
    table_name: str | int | None = None,
    missing: Iterable[float] = (),
    ext: str | int | None = None,
    bands: Sequence[str] | None = None,
    id_from: str = "name",
    measure: str = "full",
    title: str | None = None,
    credits: list[dict[str, Any]] | None = None,
    projector: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    processes: int | None = None,
    progress: Progress = _silent,
    source: str | Path | None = None,
) -> Report:
    """Build the atlas `path` (a folder, by custom `name.atlas`) and report what landed.

    `images` is a folder, tar or zip of cutouts (JPEG, PNG, WebP, TIFF, FITS, .npy), or `mosaic` one large picture that
    is cut; `table` a CSV, ECSV, Parquet, FITS or VOTable joined by file name or id, whose columns are all kept.
    `vectors` names a column of the table that already holds embeddings, made by the model named `model`; of the tables
    that AION-Search publishes the column is known (model "aion-search" or "aion"). `projector` is a projector's folder,
    or a folder of several: the one of images takes the vectors into its space, the one of text travels along for asking
    by an array. `models` is a folder of model folders to use instead of those that ship. `credits` lists {title,
    license, acknowledgement, bibtex}.

    Which columns of the table are ids, positions, the redshift, file names and pixels is found by name, UCD, unit and
    values; `columns` says otherwise, such as {"z": "redshift", "ra": "RA_1"} (roles: object_id, ra, dec, z, file, x_px,
    y_px). `table_name` is which table of a file with several, `missing` are numbers that stand for no value (99, -99).
    The report's `lines()` tell what was found.

    Of a FITS file with several images the light is taken (SCI,
    IMAGE, the primary, else the first that is not called a mask, a weight, an error or a model), or `ext` (a name,
    "NAME,VERSION" or a number from 0); `bands` names the images, or planes of a stack, that are its bands. Without a
    table the ids are the files' names, or with `id_from="path"` their paths.

    `measure` is how much of each picture is measured: "full", "basic" (all but the form: no Petrosian radius,
    asymmetry, bar, arms, …) or "none"; `galsearch.measure` completes it later. Of a mosaic the sources are detected
    whatever it says, their sizes decide the cutouts. Pictures are read and measured by `processes` processes, by
    default one for each core; 0 is this one alone. They hold a few hundred small pictures at a time, and a file as
    large as `images.PICTURE` allows takes one of them 2 GB.

    A picture that cannot be used is left out and reported; repeated ids are a SchemaError. An interrupted build goes on
    when called again with the same arguments. An existing atlas is a GalsearchError unless `overwrite`, anything else
    that exists is one always. `source` is what `images` and `mosaic` were called before 0.2; it warns.
    """
    path, source = Path(path), _source(images, mosaic, source)
    _check_target(path, overwrite=overwrite)
    makers = _makers(
        _path(source), _path(table), vectors=vectors, model=model, models=models, projector=projector, device=device
    )
    reading = _reading(columns, id_column, table_name, missing)
    chosen = _pictures(ext, bands, id_from)
    workshop = sources.Workshop(measure, processes=processes)
    taken = sources.open_source(
        _path(source),
        _path(table),
        vectors=vectors,
        publication=makers.publication,
        reading=reading,
        **chosen,
    )
    parameters = {
        "source": str(source),
        "table": str(table),
        "vectors": vectors,
        "model": model,
        "id_column": id_column,
        "projector": None if projector is None else str(projector),
        **_stated(reading),
        **chosen,
        **_level(measure),
    }
    return _build(
        path,
        taken,
        makers,
        parameters,
        workshop=workshop,
        title=title or path.stem,
        credits=credits or [],
        progress=progress,
    )


def demo(
    folder: str | Path = "demo",
    *,
    models: str | Path | None = None,
    device: str = "auto",
    progress: Progress = _silent,
) -> tuple[Report, Path]:
    """Build `xdf.atlas` and `xdf.duckdb` in `folder` from the Hubble eXtreme Deep Field; return the report and bundle.

    What an earlier demo left there is replaced.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check_target(folder / "xdf.atlas", overwrite=True)
    taken = sources.demo_source()
    report = _build(
        folder / "xdf.atlas",
        taken,
        _Makers(None, _path(models), device),
        {"source": "skimage.data.hubble_deep_field"},
        workshop=sources.Workshop(),
        title="Hubble eXtreme Deep Field",
        credits=[DEMO_CREDIT],
        progress=progress,
    )
    return report, bundle(report.path, folder / "xdf.duckdb", progress=progress)


def add(
    path: str | Path,
    *,
    images: str | Path | None = None,
    mosaic: str | Path | None = None,
    table: str | Path | None = None,
    vectors: str | None = None,
    model: str | None = None,
    models: str | Path | None = None,
    id_column: str | None = None,
    columns: Mapping[str, str] | None = None,
    table_name: str | int | None = None,
    missing: Iterable[float] = (),
    ext: str | int | None = None,
    bands: Sequence[str] | None = None,
    id_from: str = "name",
    measure: str | None = None,
    projector: str | Path | None = None,
    device: str = "auto",
    processes: int | None = None,
    progress: Progress = _silent,
    source: str | Path | None = None,
) -> Report:
    """Append to the atlas folder `path`; arguments as for `build`, and `measure` as when it was built unless said.

    Raises SchemaError when an id is there already, ModelMismatchError when the vectors would come from another model.
    Readers see the atlas before or after, never between.
    """
    started, path, source = time.perf_counter(), Path(path), _source(images, mosaic, source)
    manifest, there = _existing(path)
    makers = _makers(
        _path(source), _path(table), vectors=vectors, model=model, models=models, projector=projector, device=device
    )
    measures = manifest.extra.get(schema.MEASURES_KEY) or _trusted(path)
    reading = _reading(columns, id_column, table_name, missing, measures=measures, z_was=_z_was(manifest))
    chosen = _pictures(ext, bands, id_from)
    measure = measure or _level_of(manifest)
    workshop = sources.Workshop(measure, processes=processes)
    taken = sources.open_source(
        _path(source),
        _path(table),
        vectors=vectors,
        publication=makers.publication,
        reading=reading,
        **chosen,
    )
    known = [i for i in taken.table["object_id"].to_pylist() if i in there]
    if known:
        raise SchemaError(
            f"{len(known)} objects are in {path} already, such as '{known[0]}'; leave them out of the input"
        )
    name, space, encoder = _space(taken, makers)
    _same_space(manifest.embeddings.get(name, {}), space, path)
    parameters = {
        "source": str(source),
        "table": str(table),
        "vectors": vectors,
        "model": model,
        "id_column": id_column,
        **_stated(reading),
        **chosen,
        **_level(measure),
    }
    plan = {**_plan("add", taken, parameters, space), "to": manifest.rows}
    with Staging(path, plan) as staging:
        added = _stage(staging, taken, name, encoder, workshop, progress=progress)
        rejected = taken.rejected + staging.rejected()
        if added:
            record = schema.provenance(
                "add", parameters=parameters, inputs=taken.inputs, seconds=time.perf_counter() - started
            )
            staging.append(_with_summary(record, taken, added, rejected), rejected=taken.rejected)
        else:
            staging.discard()
    counts = {"rows": manifest.rows + added, "added": added, "rejected": rejected}
    return _report(path, taken, encoder, started=started, **counts)


def measure(
    path: str | Path,
    *,
    images: str | Path | None = None,
    mosaic: str | Path | None = None,
    table: str | Path | None = None,
    measure: str = "full",
    processes: int | None = None,
    progress: Progress = _silent,
) -> Report:
    """Measure the pictures of the atlas folder `path` that were taken in with less; the report's `added` says how many.

    The pictures are read again from where they came from, as the provenance has it, and must be what they were. Where
    they are elsewhere by now, name them: `images` or `mosaic`, with the `table` that has their ids; objects that are
    not among them keep what they have. Vectors and thumbnails stay as they are. An interrupted run goes on when called
    again. Readers see the atlas before or after.
    """
    started, path = time.perf_counter(), Path(path)
    manifest, there = _existing(path)
    workshop = sources.Workshop(measure, processes=processes)
    given = _source(images, mosaic, None)
    lacking = [_input_of(record, manifest) for record in _less_measured(manifest, measure)]
    if not lacking:
        return Report(path, manifest.rows, 0, [], time.perf_counter() - started)
    opened = [each.again() for each in lacking] if given is None else [lacking[0].at(given, _path(table))]
    parameters = {"measure": measure, **({} if given is None else {"source": str(given), "table": str(table)})}
    inputs = {name: digest for each in opened for name, digest in each.inputs.items()}
    plan = {"action": "measure", "parameters": parameters, "inputs": inputs, "software": schema.software()}
    with Staging(path, plan) as staging:
        seen = _stage_measures(staging, opened, there, workshop, progress)
        rejected = staging.rejected()
        record = schema.provenance(
            "measure", parameters=parameters, inputs=inputs, seconds=time.perf_counter() - started
        )
        wanted = sum(each.rows for each in lacking)
        record["found"] = {"measured": seen, "left": max(0, wanted - seen - len(rejected))}
        staging.update(record)
    return Report(path, manifest.rows, seen, rejected, time.perf_counter() - started, pictures=seen)


def optimize(path: str | Path) -> Report:
    """Put the objects that were added to the folder `path` into its index; the report's `added` says how many.

    Until then every question compares them one by one. Adding does this by itself once a quarter of an atlas is not
    in the index; small atlases (up to 20,000 objects) need none. Readers see the atlas before or after.
    """
    started, path = time.perf_counter(), Path(path)
    manifest, _ = _existing(path)
    with Staging(path, {"action": "optimize", "rows": manifest.rows}) as staging:
        late = round(staging.unindexed() * manifest.rows)
        if late:
            staging.recluster(schema.provenance("optimize", parameters={}))
        else:
            staging.discard()
    return Report(path, manifest.rows, late, [], time.perf_counter() - started)


def bundle(
    path: str | Path,
    out: str | Path,
    *,
    models: bool = True,
    compact: bool = False,
    map: str | None = None,
    storage_version: str = "v1.2.0",
    progress: Progress = _silent,
) -> Path:
    """Write the atlas `path` as the single file `out`; return its path.

    `models=False` leaves the encoders out: the file is smaller, and asked in words only where the same model is
    installed. `compact` stores the vectors as 8-bit codes, a quarter of the size, which find 98 of 100 of the same
    objects or more; a bundle of a compact bundle is compact too. `map` is how the vectors are laid out in a projection
    (table `map_image`): "pca", or "umap", which needs the package umap-learn and minutes; unless said, as the atlas has
    it. Raises GalsearchError when `out` is there and not a
    bundle, or cannot be written; then nothing changes.
    """
    path, out = Path(path), Path(out)
    store = open_store(path)
    try:
        if out.exists():
            with contextlib.suppress(VersionTooOldError, VersionTooNewError):  # an atlas all the same
                open_store(out).close()  # refuses to replace anything else
        if not out.parent.is_dir():
            raise GalsearchError(f"{out.parent}: no such folder; make it first, or choose another place for the bundle")
        options = {"compact": compact, "storage_version": storage_version, "seed": 0}
        record = schema.provenance("bundle", parameters={"from": str(path), "models": models, "map": map, **options})
        write_bundle(store, out, record=record, with_models=models, projection=map, progress=progress, **options)
    finally:
        store.close()
    return out


# ---- steps


def _plan(action: str, taken: Source, parameters: dict[str, Any], space: dict[str, Any]) -> dict[str, Any]:
    """Return everything that decides what the batches hold: an interrupted run goes on only under the same plan."""
    made_by = {"software": schema.software(), "batch_rows": [BATCH_ROWS, VECTOR_BATCH_ROWS], "model": space["sha256"]}
    return {"action": action, "inputs": taken.inputs, "parameters": parameters, **made_by}


def _source(images: str | Path | None, mosaic: str | Path | None, source: str | Path | None) -> Path | None:
    """Return the pictures that are given: cutouts, a mosaic, or either by the name that the argument had before 0.2."""
    given = {
        name: Path(value) for name, value in {"images": images, "mosaic": mosaic, "source": source}.items() if value
    }
    if len(given) > 1:
        raise SchemaError(f"{' and '.join(given)} are given; a build takes one of them")
    if source is not None:
        warnings.warn("source is now called images (cutouts) or mosaic (one picture)", FutureWarning, stacklevel=3)
    if images is not None and not (
        given["images"].is_dir() or (given["images"].is_file() and sources.is_archive(given["images"]))
    ):
        raise SchemaError(f"{images}: no such folder; images takes a folder or an archive of cutouts")
    if mosaic is not None and not given["mosaic"].is_file():
        raise SchemaError(f"{mosaic}: no such file; mosaic takes one picture, images a folder")
    return next(iter(given.values()), None)


def _path(value: str | Path | None) -> Path | None:
    if value is None:
        return None
    path = Path(value)
    check_path(path)
    return path


@dataclass(frozen=True)
class _Makers:
    """What makes the vectors: the name of a model outside, or the folder of our models (None: those that ship).

    `publication` says whose vectors a table has, `projectors` are folders of projectors by what they project.
    """

    name: str | None
    root: Path | None
    device: str
    publication: Publication | None = None
    projectors: dict[str, Path] = field(default_factory=dict)

    def folder(self, kind: str) -> Path:
        return shipped(kind, root=self.root)

    def encoder(self, kind: str) -> Encoder:
        return Encoder.from_folder(self.folder(kind), device=self.device)


def _build(
    path: Path,
    taken: Source,
    makers: _Makers,
    parameters: dict[str, Any],
    *,
    workshop: sources.Workshop,
    title: str,
    credits: list[dict[str, Any]],
    progress: Progress,
) -> Report:
    started = time.perf_counter()
    name, space, encoder = _space(taken, makers)
    plan = _plan("build", taken, parameters, space)
    with Staging(path, plan) as staging:
        rows = _stage(staging, taken, name, encoder, workshop, progress=progress)
        rejected = taken.rejected + staging.rejected()
        if not rows:
            staging.discard()
            raise _nothing(path, rejected)
        extra = {schema.MEASURES_KEY: dict(taken.measures)}
        manifest = schema.Manifest(title=title, rows=rows, embeddings={name: space}, sources=credits, extra=extra)
        models, concepts = _models(space, makers, taken)
        seconds = time.perf_counter() - started
        record = schema.provenance("build", parameters=parameters, inputs=taken.inputs, seconds=seconds)
        record = _with_summary(record, taken, rows, rejected)
        staging.create(manifest, record, models=models, concepts=concepts, rejected=taken.rejected)
    return _report(path, taken, encoder, started=started, rows=rows, added=rows, rejected=rejected)


def _report(path: Path, taken: Source, encoder: Encoder | None, *, started: float, **counts: Any) -> Report:
    """Return what is reported of a build or an addition; `counts` are rows, added and rejected."""
    pictures = counts["added"] if taken.has_pictures else 0
    seconds, provider = time.perf_counter() - started, encoder.provider if encoder else None
    return Report(path, **counts, seconds=seconds, provider=provider, summary=taken.told(), pictures=pictures)


def _with_summary(record: dict[str, Any], taken: Source, added: int, rejected: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a provenance record with what was found in the table and how many rows were left out by reason."""
    left_out = Counter(reason_kind(item["reason"]) for item in rejected)
    result = {key: value for key, value in asdict(taken.told()).items() if value and key != "columns"}
    return {**record, "found": {**result, "added": added, "left_out": dict(left_out.most_common())}}


def _reading(
    columns: Mapping[str, str] | None,
    id_column: str | None,
    table_name: str | int | None,
    missing: Iterable[float],
    *,
    measures: Mapping[str, str] | None = None,
    z_was: str | None = None,
) -> Reading:
    """Return how a table is read, as the arguments of `build` say."""
    roles = check_roles(columns or {})
    if id_column is not None:
        roles["object_id"] = id_column
    return Reading(roles, table_name, tuple(float(each) for each in missing), measures, z_was)


def _pictures(ext: str | int | None, bands: Sequence[str] | None, id_from: str) -> dict[str, Any]:
    """Return what was said of pictures, for `open_source` and for provenance; nothing where nothing was."""
    images.check_bands(bands)
    stated = {"ext": ext, "bands": None if bands is None else list(bands), "id_from": id_from}
    return {key: value for key, value in stated.items() if value not in (None, "name")}


def _level(measure: str) -> dict[str, str]:
    """Return how much was measured, for provenance; nothing where it was all."""
    return {} if measure == "full" else {"measure": measure}


def _level_of(manifest: schema.Manifest) -> str:
    """Return how much was measured of the pictures of an atlas, when it was built or since."""
    levels = [_level_in(record) for record in manifest.provenance if record.get("action") in ("build", "measure")]
    return max(levels, key=sources.LEVELS.index) if levels else "full"


def _less_measured(manifest: schema.Manifest, measure: str) -> list[dict[str, Any]]:
    """Return the records of pictures that were taken in with less measured than `measure`, and not measured since."""
    records: list[dict[str, Any]] = []
    for record in manifest.provenance:
        enough = sources.LEVELS.index(_level_in(record)) >= sources.LEVELS.index(measure)
        if record.get("action") in ("build", "add") and not enough:
            records.append(record)
        if record.get("action") == "measure" and enough and not record.get("found", {}).get("left"):
            records = []
    return records


def _level_in(record: dict[str, Any]) -> str:
    """Return how much a record of provenance says was measured; a level of a later version counts as all."""
    level = record.get("parameters", {}).get("measure", "full")
    return level if level in sources.LEVELS else "full"


@dataclass(frozen=True)
class _Input:
    """What an atlas was made from, as its provenance has it, to be read again."""

    parameters: dict[str, Any]
    inputs: dict[str, str]
    rows: int
    measures: Mapping[str, str]
    z_was: str | None

    def again(self) -> Source:
        """Open it where it was; GalsearchError where it is gone or another by now."""
        source, table = (self.parameters.get(name) for name in ("source", "table"))
        known = [None if name in (None, "None") else Path(name) for name in (source, table)]
        remedy = "say where the pictures are: images (--images), or mosaic (--mosaic), with the table (--table)"
        gone = [each for each in known if each is not None and not each.exists()]
        if gone:
            raise GalsearchError(f"{gone[0]}: the atlas was built from it, and it is not there; {remedy}")
        taken = self.at(*known)
        other = [name for name, digest in taken.inputs.items() if self.inputs.get(name) != digest]
        if other:
            raise GalsearchError(
                f"{other[0]} has changed since the atlas was built from it; {remedy}, and they are taken as they are"
            )
        return taken

    def at(self, source: Path | None, table: Path | None) -> Source:
        """Open it with pictures and table in other places."""
        stated = self.parameters
        reading = _reading(
            stated.get("columns"), stated.get("id_column"), stated.get("table_name"), stated.get("missing", ()),
            measures=self.measures, z_was=self.z_was,
        )  # fmt: skip
        chosen = {name: stated[name] for name in ("ext", "bands", "id_from") if name in stated}
        return sources.open_source(source, table, vectors=None, reading=reading, **chosen)


def _input_of(record: dict[str, Any], manifest: schema.Manifest) -> _Input:
    measures = manifest.extra.get(schema.MEASURES_KEY) or {name: name for name in sources.MEASURES}
    added = record.get("found", {}).get("added", 0)
    return _Input(record.get("parameters", {}), record.get("inputs", {}), added, measures, _z_was(manifest))


def _stage_measures(
    staging: Staging, opened: list[Source], there: set[str], workshop: sources.Workshop, progress: Progress
) -> int:
    """Make the batches of measures that are not there yet; return how many rows are in all of them."""
    total, done, number, before = sum(each.table.num_rows for each in opened), staging.done(), 0, 0
    known = pa.array(sorted(there))
    for taken in opened:
        ranges = _numbered(taken.table.num_rows, BATCH_ROWS, first=number)
        lacking = {at: rows for at, rows in ranges.items() if at not in done}

        def seen(row: int, before: int = before) -> None:
            progress(before + row, total, "measuring")

        names = [taken.measures[name] for name in (*sources.MEASURED, "radius_arcsec")]
        made = taken.batches(list(lacking.values()), workshop, seen=seen)
        for at, batch in zip(lacking, made, strict=True):
            kept = batch.table.select([name for name in ("object_id", *names) if name in batch.table.column_names])
            staging.put(at, kept.filter(pc.is_in(kept["object_id"], known)), batch.rejected)
        number, before = number + len(ranges), before + taken.table.num_rows
    progress(total, total, "measuring")
    return sum(batch.num_rows for batch in staging.batches())


def _stated(reading: Reading) -> dict[str, Any]:
    """Return what was said of a table, for provenance; nothing where nothing was."""
    stated = {"columns": dict(reading.roles), "table_name": reading.table_name, "missing": list(reading.missing)}
    return {key: value for key, value in stated.items() if value not in ({}, None, [])}


def _z_was(manifest: schema.Manifest) -> str | None:
    """Return what a column called z was taken for when an atlas was built, where it was renamed: "band" or "other"."""
    result = manifest.provenance[0].get("found") if manifest.provenance else None
    renamed = result.get("renamed") if isinstance(result, dict) else None
    called = {old.casefold(): str(new) for old, new in renamed.items()} if isinstance(renamed, dict) else {}
    return {None: None, "mag_z": "band"}.get(called.get("z"), "other")


def _trusted(path: Path) -> dict[str, str]:
    """Return where an atlas before format 1.1 has its measures: in the columns of their names."""
    store = open_store(path)
    try:
        there = set(store.describe()["column"].to_pylist())
    finally:
        store.close()
    return {name: name for name in sources.MEASURES if name in there}


def _check_target(path: Path, *, overwrite: bool) -> None:
    """Raise GalsearchError unless an atlas may be written to `path`; what is no atlas is never replaced."""
    check_path(path)
    if not path.exists():
        return
    if not is_folder_atlas(path):
        raise GalsearchError(f"{path} exists and is not an atlas folder; choose another name, or move it away first")
    if not overwrite:
        raise GalsearchError(f"{path} exists; add to it with `galsearch add`, or replace it with --overwrite")


def _nothing(path: Path, rejected: list[dict[str, Any]]) -> SchemaError:
    """Return the error for a build into which no object came."""
    if not rejected:
        return SchemaError(f"{path}: nothing was built, no source was detected; give a catalog with --table")
    name, reason = rejected[0]["file"] or rejected[0]["object_id"], rejected[0]["reason"]
    return SchemaError(
        f"{path}: nothing was built, none of {len(rejected)} objects can be taken; the first: {name}: {reason}"
    )


def _existing(path: Path) -> tuple[schema.Manifest, set[str]]:
    store = open_store(path)
    try:
        if not store.grows:
            raise GalsearchError(
                f"{path} is a bundle, and a bundle is never changed: add to the folder, then bundle it again"
            )
        return store.manifest, set(store.ids(np.arange(store.manifest.rows)))
    finally:
        store.close()


def _space(taken: Source, makers: _Makers) -> tuple[str, dict[str, Any], Encoder | None]:
    """Return the embedding's name, its entry in the manifest, and its encoder (None: the table holds the vectors)."""
    if taken.dim is not None:
        return schema.MAIN, *_space_of_vectors(taken.dim, makers)
    modality = schema.MODALITIES["image"]
    encoder = makers.encoder(modality.encoder)
    stated = {} if encoder.embedding in schema.MODALITIES else {"modality": modality.name}
    return encoder.embedding, {**_made_by(encoder), **stated}, encoder


def _made_by(encoder: Encoder) -> dict[str, Any]:
    known = {"dim": encoder.dim, "model": encoder.model_id, "sha256": encoder.sha256, "space": encoder.space}
    return {**known, "metric": schema.METRIC, "rows": 0}


def _space_of_vectors(dim: int, makers: _Makers) -> tuple[dict[str, Any], Encoder | None]:
    """Return what `_space` does for vectors of a table: as they are, or as a projector makes them."""
    publication, projector = makers.publication, None
    name = publication.model if publication else makers.name
    space: dict[str, Any] = {
        "dim": dim,
        "model": name,
        "sha256": None,
        "space": publication.space if publication else name,
    }
    space |= {"metric": schema.METRIC, "rows": 0}
    if "image" in makers.projectors:
        projector = Encoder.from_folder(makers.projectors["image"], device=makers.device)
        if _fits(space, projector.card):
            projector = None  # they went through it already
        else:
            _must_take(projector, space)
            space = _made_by(projector)
    if not space["model"]:
        raise SchemaError("the vectors' model has no name: give model (--model), so that no others get mixed in")
    published_as = known_embeddings.of_space(space["space"])
    if published_as:
        space["words"] = published_as.words_here if "text" in makers.projectors else published_as.words
    return space, projector


def _fits(space: dict[str, Any], card: dict[str, Any]) -> bool:
    return space["dim"] == card["dim"] and space["space"] == card["space"]


def _must_take(projector: Encoder, space: dict[str, Any]) -> None:
    """Raise ModelMismatchError unless a projector takes the vectors of a table; a space without a name is trusted."""
    wanted = projector.card["input"]
    if space["dim"] != wanted["dim"] or space["space"] not in (None, wanted.get("space")):
        raise ModelMismatchError(
            f"projector {projector.model_id} takes vectors of {wanted['dim']} numbers of {wanted.get('space')}; the "
            f"table's have {space['dim']}, of {space['space'] or 'a model without a name'}: name their column with "
            "--vectors, or leave --projector out"
        )


def _makers(
    source: Path | None,
    table: Path | None,
    *,
    vectors: str | None,
    model: str | None,
    models: str | Path | None,
    projector: str | Path | None,
    device: str,
) -> _Makers:
    """Return what makes the vectors of the input that the arguments describe."""
    projectors = {} if projector is None else _projectors(Path(projector))
    made = _Makers(model, _path(models), device, projectors=projectors)
    if table is None or source is not None:
        if projectors:
            raise SchemaError("projector is for vectors of a table: give the table, and no pictures")
        return made
    looks = vectors is None and (
        table.suffix.lower() in (".parquet", ".pq") or known_embeddings.of_model(model) is not None
    )
    names = formats.column_names(table) if looks else []
    takes = read_card(projectors["image"])["input"].get("space") if "image" in projectors else None
    return replace(made, publication=known_embeddings.find(names, vectors=vectors, model=model, takes=takes))


def _projectors(path: Path) -> dict[str, Path]:
    """Return the folders of the projectors in `path`, or `path` itself, by what they project."""
    folders = [path] if (path / CARD_FILE).is_file() else sorted(item.parent for item in path.glob(f"*/{CARD_FILE}"))
    cards = [(read_card(folder), folder) for folder in folders]
    result = {card["projects"]: folder for card, folder in cards if card["kind"] == "projector"}
    if not result or len(result) < sum(card["kind"] == "projector" for card, _ in cards):
        raise GalsearchError(
            f"{path}: expected the folder of a projector, or one of images and one of text in it, found "
            f"{', '.join(card['id'] for card, _ in cards) or 'no cards'}; python -m export.aion projectors writes them"
        )
    return result


def _same_space(ours: dict[str, Any], theirs: dict[str, Any], path: Path) -> None:
    differing = [key for key in ("model", "sha256", "dim") if ours.get(key) != theirs[key]]
    if differing:
        key = differing[0]
        raise ModelMismatchError(
            f"{path} holds vectors of {ours.get('model')} ({key} {ours.get(key)}), these would be of {theirs['model']} "
            f"({key} {theirs[key]}), and vectors of two models cannot be compared: rebuild the atlas with one of them"
        )


def _models(space: dict[str, Any], makers: _Makers, taken: Source) -> tuple[dict[str, Path], pa.Table | None]:
    """Return the model folders that travel with the atlas, and the phrases embedded for readers without them.

    With the vectors of a table these are projectors of their space, and nothing embeds phrases.
    """
    if not taken.has_pictures:
        for card in map(read_card, makers.projectors.values()):
            if not _fits(space, card):
                raise ModelMismatchError(
                    f"projector {card['id']} projects into {card['space']} (d={card['dim']}), the vectors lie in "
                    f"{space['space']} (d={space['dim']}); leave it out, or export it with the --space it shares"
                )
        return {f"{kind}_projector": folder for kind, folder in makers.projectors.items()}, None
    folders = {kind: makers.folder(kind) for kind in ("image", "text")}
    text = makers.encoder("text")
    if not compatible(text.card, space):
        raise ModelMismatchError(
            f"text model {text.model_id} embeds into {text.card['space']}, image model {space['model']} into "
            f"{space['space']}: install models of one space"
        )
    phrases = concept_phrases()
    return folders, pa.table({"phrase": phrases, "embedding": fixed_size_list(text.encode(phrases))})


def concept_phrases() -> list[str]:
    """Return the phrases that every atlas can be asked by from plain SQL."""
    lines = resources.files("galsearch").joinpath("concepts.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _numbered(total: int, size: int, *, first: int = 0) -> dict[int, range]:
    """Return the rows of batches by their numbers, which begin with `first`."""
    starts = range(0, total, size)
    return {number: range(start, min(start + size, total)) for number, start in enumerate(starts, first)}


def _stage(
    staging: Staging,
    taken: Source,
    name: str,
    encoder: Encoder | None,
    workshop: sources.Workshop,
    *,
    progress: Progress,
) -> int:
    """Make the batches that are not there yet, with vectors by the name of their embedding; return all rows."""
    total, done = taken.table.num_rows, staging.done()
    size = BATCH_ROWS if taken.has_pictures else VECTOR_BATCH_ROWS
    ranges = _numbered(total, size)
    lacking = {number: rows for number, rows in ranges.items() if number not in done}
    if encoder is not None and taken.has_pictures:
        workshop = replace(workshop, size_px=encoder.card["input"]["size_px"])
    what = "embedding" if workshop.measure == "none" or not taken.has_pictures else "measuring and embedding"

    def seen(done: int) -> None:
        progress(done, total, what)

    seen(sum(len(ranges[number]) for number in done))
    made = taken.batches(list(lacking.values()), workshop, seen=seen)
    for number, batch in zip(lacking, made, strict=True):
        vectors = batch.content if encoder is None else encoder.encode(batch.content)
        table = batch.table.append_column(staged(name), fixed_size_list(np.asarray(vectors)))
        if batch.thumbnails is not None:
            table = table.append_column(staged(THUMBNAILS), pa.array(batch.thumbnails, pa.binary()))
        staging.put(number, table, batch.rejected)
    seen(total)
    return sum(batch.num_rows for batch in staging.batches())
