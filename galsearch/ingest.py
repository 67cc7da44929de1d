"""Making atlases: read, measure and embed galaxies in batches, then commit them at once.

Batches that are finished are kept beside the atlas, so that an interrupted run goes on where it stopped; the atlas
itself changes only in the last step.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import formats, schema, sources
from galsearch.columns import Summary, check_roles
from galsearch.encode import CARD_FILE, Encoder, check_takes, compatible, read_card, shipped, shipped_words
from galsearch.errors import (
    GalsearchError,
    ModelMismatchError,
    QueryError,
    SchemaError,
    UnknownIdError,
    VersionTooNewError,
    VersionTooOldError,
)
from galsearch.escaping import check_path
from galsearch.progress import Progress, silent
from galsearch.remote.cluster import RAY, check_cluster, each_done
from galsearch.science import images
from galsearch.sources import Reading, Source, SpectrumSource, Statements, known_embeddings
from galsearch.sources.known_embeddings import Publication
from galsearch.store import (
    Batches,
    Staging,
    Store,
    compact,
    delete_rows,
    fixed_size_list,
    is_folder_atlas,
    open_store,
    restore_rows,
    staged,
    write_bundle,
)

BATCH_ROWS = 256  # at most, that are prepared and kept at a time; what is killed loses those that are not kept
LEAST_BATCH_ROWS, BATCHES = 32, 8  # a small addition is kept in so many batches, so that little of it is lost
VECTOR_BATCH_ROWS = 16_384  # of vectors that come with their table
SHARDS, SHARD_BATCHES = 8, 16  # at least and at most: a worker that dies loses a shard's unfinished batches
SPECTRUM, LINES = schema.MODALITIES["spectrum"].name, "lines"

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
    which columns of the table were taken for what, `pictures` and `spectra` how many objects have one. `removed` counts
    the deleted objects that `optimize` removed for good.
    """

    path: Path
    rows: int
    added: int
    rejected: list[dict[str, Any]]
    seconds: float
    provider: str | None = None
    summary: Summary = field(default_factory=Summary)
    pictures: int = 0
    spectra: int = 0
    removed: int = 0

    def left_out(self) -> dict[str, int]:
        """Return how often each reason to leave a row or a file out was met, by reason without names and numbers."""
        return _left_out_by_reason(self.rejected)

    def rarest_first(self) -> list[dict[str, Any]]:
        """Return what was left out so that thousands of one reason do not hide the few of another."""
        count = self.left_out()
        told = _told_reasons(self.rejected)
        return sorted(self.rejected, key=lambda item: count[told[item["reason"]]])

    def lines(self) -> list[str]:
        """Return the summary to tell, a line each: roles of columns, names changed, pictures, what was left out."""
        told = self.summary.lines()
        kinds = {"pictures": self.pictures, "spectra": self.spectra}
        told += [
            f"{kind}: {count}" if count > self.added else f"{kind}: {count} of {self.added} objects"
            for kind, count in kinds.items()
            if count
        ]
        return told + [f"left out: {count} ({reason})" for reason, count in self.left_out().items()]


def _told_reasons(rejected: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return how each reason is told: as it is where it is the only one of its kind, else by its kind."""
    kinds: dict[str, set[str]] = {}
    for item in rejected:
        kinds.setdefault(reason_kind(item["reason"]), set()).add(item["reason"])
    return {reason: reason if len(of) == 1 else kind for kind, of in kinds.items() for reason in of}


def _left_out_by_reason(rejected: Sequence[dict[str, Any]]) -> dict[str, int]:
    told = _told_reasons(rejected)
    return dict(Counter(told[item["reason"]] for item in rejected).most_common())


def reason_kind(reason: str) -> str:
    """Return a reason without the names and numbers that differ from row to row.

    >>> reason_kind("row 17: ra 400.0 dec 2.5 is not on the sky")
    'ra … dec … is not on the sky'
    """
    return re.sub(r"'.*?'|-?\b\d[\d.]*(e[-+]?\d+)?", "…", re.sub(r"^row \d+:? ", "", reason))


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
    on: str | None = None,
    address: str | None = None,
    progress: Progress = silent,
    source: str | Path | None = None,
    spectra: str | Path | None = None,
    observed_frame: bool = False,
    **stated: Unpack[Statements],
) -> Report:
    """Build the atlas `path` (a folder, by custom `name.atlas`) and report what landed.

    `images` is a folder, tar or zip of cutouts (JPEG, PNG, WebP, TIFF, FITS, .npy), or `mosaic` one large picture that
    is cut; `table` a CSV, ECSV, Parquet, FITS or VOTable joined by file name or id, whose columns are all kept.
    `vectors` names a column of the table that already holds embeddings, made by the model named `model`; of the tables
    that AION-Search publishes the column is known (model "aion-search" or "aion"). `projector` is a projector's folder,
    or a folder of several: the one of images takes the vectors into its space, the one of text travels along for asking
    by an array. `models` is a folder of model folders to use instead of those that ship. `credits` lists {title,
    license, acknowledgement, bibtex}.

    `spectra` is a folder, tar or zip of spectra, one a file, or one file that holds many (a DESI coadd, a table); they
    are joined by file name (role `spectrum_file`) or id, as pictures are, and an object may have both. They are
    compared in the rest frame, for which a redshift is needed, of the table or else of the file, or with
    `observed_frame` as they are. What files do not say of themselves (wavelength, flux, error, wavelength_unit,
    flux_unit, medium, …) is `stated` as for `read_spectra`; `redshifts` is the redrock file of a DESI coadd.

    Which columns of the table are ids, positions, the redshift, file names and pixels is found by name, UCD, unit and
    values; `columns` says otherwise, such as {"z": "redshift", "ra": "RA_1"} (roles: object_id, ra, dec, z, file,
    spectrum_file, x_px, y_px). `table_name` is which table of a file with several, `missing` are numbers that stand for
    no value (99, -99). The report's `lines()` tell what was found.

    Of a FITS file with several images the light is taken (SCI, IMAGE, the primary, else the first that is not called a
    mask, a weight, an error or a model), or `ext` (a name, "NAME,VERSION" or a number from 0); `bands` names the
    images, or planes of a stack, that are its bands. Without a table the ids are the files' names, or with
    `id_from="path"` their paths.

    `measure` is how much of each picture is measured: "full", "basic" (all but the form: no Petrosian radius,
    asymmetry, bar, arms, …) or "none"; `galsearch.measure` completes it later. Of a mosaic the sources are detected
    whatever it says, their sizes decide the cutouts. Pictures are read and measured by `processes` processes, by
    default one for each core; 0 is this one alone. They hold a few hundred small pictures at a time, and a file as
    large as `images.PICTURE` allows takes one of them 2 GB.

    With `on="ray"` the pictures and spectra are read, measured and embedded by the workers of a Ray cluster, one a
    core: that at `address` ("auto" for a running one), else one that is started here for the while. They must see the
    same files under the same paths, the folder of the atlas too. The result is that of a local build.

    A picture that cannot be used is left out and reported; repeated ids are a SchemaError. An interrupted build goes on
    when called again with the same arguments. An existing atlas is a GalsearchError unless `overwrite`, anything else
    that exists is one always. `source` is what `images` and `mosaic` were called before 0.2; it warns.
    """
    path, source = Path(path), _source(images, mosaic, source)
    check_cluster(on, address)
    _check_target(path, overwrite=overwrite)
    makers = _makers(
        _path(source), _path(table), vectors=vectors, model=model, models=models, projector=projector, device=device
    )
    reading = _reading(columns, id_column, table_name, missing)
    chosen = _pictures(ext, bands, id_from)
    workshop = sources.Workshop(measure, processes=processes)
    given = _Given(
        _path(source), _path(table), vectors, reading, chosen, _spectra(spectra, stated, observed_frame=observed_frame)
    )
    parameters = {
        **given.parameters(measure),
        "model": model,
        "id_column": id_column,
        "projector": None if projector is None else str(projector),
    }
    return _build(
        path,
        [_part(taken, makers) for taken in given.open(makers)],
        makers,
        parameters,
        workshop=workshop,
        title=title or path.stem,
        credits=credits or [],
        progress=progress,
        elsewhere=None if on is None else _Elsewhere(given.absolute(), makers.absolute(), measure, address),
    )


def demo(
    folder: str | Path = "demo",
    *,
    models: str | Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> tuple[Report, Path]:
    """Build `xdf.atlas` and `xdf.duckdb` in `folder` from the Hubble eXtreme Deep Field; return the report and bundle.

    What an earlier demo left there is replaced.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check_target(folder / "xdf.atlas", overwrite=True)
    taken, makers = sources.demo_source(), _Makers(None, _path(models), device)
    report = _build(
        folder / "xdf.atlas",
        [_part(taken, makers)],
        makers,
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
    progress: Progress = silent,
    source: str | Path | None = None,
    spectra: str | Path | None = None,
    observed_frame: bool | None = None,
    **stated: Unpack[Statements],
) -> Report:
    """Append to the atlas folder `path`; arguments as for `build`, and `measure` as when it was built unless said.

    Spectra of objects that are there and have none are given to them, and pictures where the atlas has any. Raises
    SchemaError for an object that has one already, ModelMismatchError when the vectors would come from another model.
    Readers see the atlas before or after, never between.
    """
    started, path, source = time.perf_counter(), Path(path), _source(images, mosaic, source)
    manifest, there = _existing(path)
    makers = _makers(
        _path(source), _path(table), vectors=vectors, model=model, models=models, projector=projector, device=device
    )
    measures = _measures_in(path, manifest)
    reading = _reading(columns, id_column, table_name, missing, measures=measures, z_was=_z_was(manifest))
    chosen = _pictures(ext, bands, id_from)
    measure = measure or _level_of(manifest)
    workshop = sources.Workshop(measure, processes=processes)
    if observed_frame is None:
        observed_frame = spectra is not None and _frame_of(manifest) == "observed"
    given = _Given(
        _path(source), _path(table), vectors, reading, chosen, _spectra(spectra, stated, observed_frame=observed_frame)
    )
    parts = [_part(taken, makers) for taken in given.open(makers)]
    for part in parts:
        _check_space(part, manifest, path)
        _check_new(part, path, there)
    parameters = {**given.parameters(measure), "model": model, "id_column": id_column}
    plan = {**_plan("add", parts, parameters), "to": manifest.rows}
    with Staging(path, plan) as staging:
        counts = _stage(staging, parts, workshop, progress=progress)
        before = _before_batches(staging, parts)
        rejected = before + staging.rejected()
        if sum(counts.values()):
            inputs = _inputs(part.taken for part in parts)
            seconds = time.perf_counter() - started
            record = schema.provenance("add", parameters=parameters, inputs=inputs, seconds=seconds)
            new = {part.name: part for part in parts if part.name not in manifest.embeddings and counts[part.name]}
            held = _text_model(path) if new else None
            travels = _travels(list(new.values()), makers, main=manifest.main_embedding, held=held)
            staging.append(
                _with_summary(record, parts, counts, rejected),
                rejected=before,
                embeddings={name: {**part.space, **travels.entries.get(name, {})} for name, part in new.items()},
                models=travels.folders,
                phrases=travels.phrases,
                extra={schema.MEASURES_KEY: dict(measures)},
            )
        else:
            staging.discard()
    with contextlib.closing(open_store(path)) as store:
        rows = store.manifest.rows
    return _report(path, parts, counts, started=started, rows=rows, added=rows - manifest.rows, rejected=rejected)


def measure(
    path: str | Path,
    *,
    images: str | Path | None = None,
    mosaic: str | Path | None = None,
    table: str | Path | None = None,
    measure: str = "full",
    processes: int | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure what the atlas folder `path` took in with less; the report's `added` says how many objects.

    Spectra are measured as they are stored. The pictures are read again from where they came from, as the provenance
    has it, and must be what they were. Where they are elsewhere by now, name them: `images` or `mosaic`, with the
    `table` that has their ids; objects that are not among them keep what they have. Vectors and thumbnails stay as they
    are. An interrupted run goes on when called again. Readers see the atlas before or after.
    """
    started, path = time.perf_counter(), Path(path)
    manifest, there = _existing(path)
    workshop = sources.Workshop(measure, processes=processes)
    given = _source(images, mosaic, None)
    less = _less_measured(manifest, measure)
    lacking = [_input_of(record, manifest) for record in less if record.get("parameters", {}).get("source") != "None"]
    with contextlib.closing(open_store(path)) as store:
        opened = _opened_again(lacking, given, _path(table)) + _unmeasured_spectra(store, less)
        if not opened:
            return Report(path, manifest.rows, 0, [], time.perf_counter() - started)
        spectra = sum(each.table.num_rows for each in opened if each.modality == SPECTRUM)
        wanted = sum(each.rows for each in lacking) + spectra
        where = {} if given is None else {"source": str(given), "table": str(table)}
        return _measure(path, opened, there, workshop, wanted=wanted, where=where, progress=progress)


def _measure(
    path: Path,
    opened: list[Source],
    there: set[str],
    workshop: sources.Workshop,
    *,
    wanted: int,
    where: dict[str, str],
    progress: Progress,
) -> Report:
    """Measure what is `opened`, of which there are `wanted`, and put it into the rows that are `there`."""
    started, measure = time.perf_counter(), workshop.measure
    parameters = {"measure": measure, **where}
    inputs = _inputs(opened)
    plan = {"action": "measure", "parameters": parameters, "inputs": inputs, "software": schema.software()}
    with Staging(path, plan) as staging:
        seen = _stage_measures(staging, opened, there, workshop, progress)
        objects = len(_staged_ids(staging))
        rejected = staging.rejected()
        record = schema.provenance(
            "measure", parameters=parameters, inputs=inputs, seconds=time.perf_counter() - started
        )
        record["found"] = {"measured": seen, "left": max(0, wanted - seen - len(rejected))}
        staging.update(record)
    return Report(path, len(there), objects, rejected, time.perf_counter() - started)


def optimize(path: str | Path) -> Report:
    """Put the objects that were added to the folder `path` into its index; the report's `added` says how many.

    Until then every question compares them one by one. Adding does this by itself once a quarter of an atlas is not
    in the index; small atlases (up to 20,000 objects) need none. What was deleted is removed for good, and cannot be
    brought back then (`removed`). Readers see the atlas before or after.
    """
    started, path = time.perf_counter(), Path(path)
    manifest, _ = _existing(path)
    with Staging(path, {"action": "optimize", "rows": manifest.rows}) as staging:
        late = round(staging.unindexed() * manifest.rows)
        if late:
            staging.recluster(schema.provenance("optimize", parameters={}))
        else:
            staging.discard()
    gone = compact(path, schema.provenance("optimize", parameters={"removed": "deleted objects"}))
    return Report(path, manifest.rows, late, [], time.perf_counter() - started, removed=gone)


def delete(
    path: str | Path, *, where: str | None = None, ids: Sequence[str] | Path | None = None, dry_run: bool = False
) -> list[str]:
    """Delete objects from the folder `path`, and return their ids: those that pass the SQL condition `where`, or `ids`.

    `ids` may be the path of a table with a column object_id, or of a .txt with an id in each line.
    They are gone at once from searches, SQL, captions, knowledge bases, saved lists, exports and bundles that are
    written later; vectors, pictures and spectra with them. Until `optimize` removes them for good, `undelete` brings
    them back. Verdicts and collections, which lie beside an atlas, stay. `dry_run` deletes nothing. Readers see the
    atlas before or after; one that is killed has deleted all or nothing.

    Raises UnknownIdError for an id that is not there, QueryError for a condition that is none, or where neither or both
    are given; GalsearchError for a bundle, and where no object would be left.
    """
    path = Path(path)
    if (where is None) == (ids is None):
        raise QueryError("say which objects to delete: where (a SQL condition) or ids (a list), one of the two")
    _existing(path)
    with contextlib.closing(open_store(path)) as store:
        if ids is None:
            names = store.select([], store.condition(where, None, None))["object_id"].to_pylist()
        else:
            listed = _listed_ids(ids) if isinstance(ids, Path) else ids
            names = [str(name) for name in dict.fromkeys(listed)]
            if lost := [name for name in names if not store.has(name)]:
                raise UnknownIdError(f"no object '{lost[0]}' in {path}; nothing was deleted, check the ids")
    if names and not dry_run:
        parameters = {"where": where, "objects": len(names)}
        delete_rows(path, names, schema.provenance("delete", parameters=parameters))
    return names


def _listed_ids(path: Path) -> list[str]:
    """Return the object_ids that a file names."""
    if path.suffix.lower() != ".txt":
        table = formats.read_table(path, text=("object_id",))
        if "object_id" not in table.column_names:
            raise SchemaError(f"{path}: has no column object_id; name the column of the ids so, or give a .txt of ids")
        return [name for name in table["object_id"].to_pylist() if name is not None]
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: cannot be read ({error}); give a text file with an id in each line") from None
    return [line for line in lines if line and line != "object_id"]


def undelete(path: str | Path) -> int:
    """Bring back what `delete` took out of the folder `path` last, and return how many objects that are.

    They come back with everything that was kept of them, but for lists and knowledge bases that were made anew since.
    Can be repeated for the deletion before. Raises GalsearchError where nothing is left to bring back, since `optimize`
    removes it for good, or where an object of the same id was added since.
    """
    path = Path(path)
    _existing(path)
    return restore_rows(path, schema.provenance("undelete", parameters={}))


def bundle(
    path: str | Path,
    out: str | Path,
    *,
    models: bool = True,
    compact: bool = False,
    map: str | None = None,
    block_bytes: int = 262_144,
    storage_version: str = "v1.2.0",
    progress: Progress = silent,
) -> Path:
    """Write the atlas `path` as the single file `out`; return its path.

    `models=False` leaves the encoders out: the file is smaller, and asked in words only where the same model is
    installed. `compact` stores the vectors as 8-bit codes, a quarter of the size, which find 98 of 100 of the same
    objects or more; a bundle of a compact bundle is compact too. `map` is how the vectors are laid out in a projection
    (table `map_image`): "pca", or "umap", which needs the package umap-learn and minutes; unless said, as the atlas has
    it. `block_bytes` is the size of the blocks of the file: with 16384 a bundle behind an address is asked with a
    tenth of the bytes (docs/remote.md), and is a little larger. Raises GalsearchError when `out` is there and not a
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
        options = {"compact": compact, "block_bytes": block_bytes, "storage_version": storage_version, "seed": 0}
        record = schema.provenance("bundle", parameters={"from": str(path), "models": models, "map": map, **options})
        write_bundle(store, out, record=record, with_models=models, projection=map, progress=progress, **options)
    finally:
        store.close()
    return out


# ---- steps


def _inputs(taken: Iterable[Source]) -> dict[str, str]:
    """Return the digests of everything that sources were read from, by name."""
    return {name: digest for each in taken for name, digest in each.inputs.items()}


def _plan(action: str, parts: Sequence[_Part], parameters: dict[str, Any]) -> dict[str, Any]:
    """Return everything that decides what the batches hold: an interrupted run goes on only under the same plan."""
    sizes = [_batch_rows(part.taken) for part in parts]
    made_by = {"software": schema.software(), "batch_rows": sizes}
    inputs = _inputs(part.taken for part in parts)
    models = [part.space["sha256"] for part in parts]
    return {"action": action, "inputs": inputs, "parameters": parameters, **made_by, "model": models}


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


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


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
    threads: int | None = None
    publication: Publication | None = None
    projectors: dict[str, Path] = field(default_factory=dict)

    def folder(self, kind: str) -> Path:
        return shipped(kind, root=self.root)

    def encoder(self, kind: str) -> Encoder:
        return Encoder.from_folder(self.folder(kind), device=self.device, threads=self.threads)

    def words(self, space: str) -> Path | None:
        """Return the folder of the projector of words into a space, if there is one."""
        return shipped_words(space, root=self.root)

    def absolute(self) -> _Makers:
        """Return it as another process finds the same files."""
        projectors = {name: folder.absolute() for name, folder in self.projectors.items()}
        return replace(self, root=_absolute(self.root), projectors=projectors)


@dataclass(frozen=True)
class _Spectra:
    """Spectra to take in: where, the frame they are compared in, what files do not say of themselves."""

    path: Path
    frame: str
    stated: Statements


def _spectra(path: str | Path | None, stated: Statements, *, observed_frame: bool) -> _Spectra | None:
    unknown = sorted(set(stated) - set(Statements.__annotations__))
    if unknown:
        raise TypeError(f"unexpected keyword argument '{unknown[0]}'")
    given = {name: value for name, value in stated.items() if value is not None}
    if path is None:
        if given or observed_frame:
            name = next(iter(given), "observed_frame")
            raise SchemaError(f"{name} is said of spectra, and none are given; name them with spectra")
        return None
    check_path(Path(path))
    if not Path(path).exists():
        raise SchemaError(f"{path}: no such file or folder; spectra takes a folder, an archive or a file of spectra")
    return _Spectra(Path(path), "observed" if observed_frame else "rest", cast("Statements", given))


@dataclass(frozen=True)
class _Given:
    """What a user gives to be taken in, and how it is read."""

    source: Path | None
    table: Path | None
    vectors: str | None
    reading: Reading
    chosen: dict[str, Any]
    spectra: _Spectra | None

    def open(self, makers: _Makers) -> list[Source]:
        """Return the sources: pictures or vectors, and spectra."""
        alone = self.source is None and self.vectors is None and self.spectra is not None
        result: list[Source] = []
        if not alone:
            result.append(
                sources.open_source(
                    self.source,
                    self.table,
                    vectors=self.vectors,
                    publication=makers.publication,
                    reading=self.reading,
                    **self.chosen,
                )
            )
        if self.spectra is not None:
            result.append(
                sources.open_spectra(
                    self.spectra.path,
                    self.table,
                    reading=self.reading,
                    frame=self.spectra.frame,
                    stated=self.spectra.stated,
                    id_from=self.chosen.get("id_from", "name"),
                    beside_pictures=not alone,
                )
            )
        return result

    @property
    def source_path(self) -> Path | None:
        """Where it is, for messages."""
        return self.source or self.table or (self.spectra.path if self.spectra else None)

    def absolute(self) -> _Given:
        """Return it as another process finds the same files."""
        spectra = self.spectra
        if spectra is not None:
            stated = {
                name: Path(value).absolute() if isinstance(value, Path) else value
                for name, value in spectra.stated.items()
            }
            spectra = replace(spectra, path=spectra.path.absolute(), stated=cast("Statements", stated))
        return replace(self, source=_absolute(self.source), table=_absolute(self.table), spectra=spectra)

    def parameters(self, measure: str) -> dict[str, Any]:
        """Return it for the provenance; what was not stated is not there."""
        result: dict[str, Any] = {"source": str(self.source), "table": str(self.table), "vectors": self.vectors}
        result |= {**_stated(self.reading), **self.chosen}
        if self.source is not None or self.spectra is not None:
            result |= _level(measure)
        if self.spectra is not None:
            result |= {"spectra": str(self.spectra.path), "frame": self.spectra.frame}
            result |= {"stated": {name: str(value) for name, value in self.spectra.stated.items()}}
        return result


@dataclass(frozen=True)
class _Part:
    """A source of a build: its objects, its embedding's name and entry in the manifest, what makes the vectors."""

    taken: Source
    name: str
    space: dict[str, Any]
    encoder: Encoder | None

    @property
    def staged(self) -> str:
        """The column of a batch that says that its rows are of this part."""
        return staged(self.name)


def _part(taken: Source, makers: _Makers) -> _Part:
    return _Part(taken, *_space(taken, makers))


def _build(
    path: Path,
    parts: list[_Part],
    makers: _Makers,
    parameters: dict[str, Any],
    *,
    workshop: sources.Workshop,
    title: str,
    credits: list[dict[str, Any]],
    progress: Progress,
    elsewhere: _Elsewhere | None = None,
) -> Report:
    started = time.perf_counter()
    with Staging(path, _plan("build", parts, parameters)) as staging:
        if elsewhere is not None:
            _stage_elsewhere(staging, parts, elsewhere, progress=progress)
        counts = _stage(staging, parts, workshop, progress=progress)
        before = _before_batches(staging, parts)
        rejected = before + staging.rejected()
        rows = len(_staged_ids(staging)) if len(parts) > 1 else sum(counts.values())
        if not rows:
            staging.discard()
            raise _nothing(path, rejected)
        filled = [part for part in parts if counts[part.name]]
        extra = {schema.MEASURES_KEY: dict(parts[0].taken.measures)}
        travels = _travels(filled, makers, main=schema.main_embedding(part.name for part in filled))
        embeddings = {part.name: {**part.space, **travels.entries.get(part.name, {})} for part in filled}
        manifest = schema.Manifest(title=title, rows=rows, embeddings=embeddings, sources=credits, extra=extra)
        inputs = _inputs(part.taken for part in parts)
        record = schema.provenance("build", parameters=parameters, inputs=inputs, seconds=time.perf_counter() - started)
        record = _with_summary(record, parts, counts, rejected)
        staging.create(manifest, record, models=travels.folders, phrases=travels.phrases, rejected=before)
    return _report(path, parts, counts, started=started, rows=rows, added=rows, rejected=rejected)


def _staged_ids(staging: Staging) -> set[str]:
    return {name for batch in staging.batches() for name in batch["object_id"].to_pylist()}


def _before_batches(staging: Staging, parts: Sequence[_Part]) -> list[dict[str, Any]]:
    """Return what was left out before batching; who has no picture and yet a spectrum is not."""
    rejected = [item for part in parts for item in part.taken.rejected]
    if len(parts) == 1:
        return rejected
    there = _staged_ids(staging)
    return [item for item in rejected if item["object_id"] is None or item["object_id"] not in there]


def _report(path: Path, parts: Sequence[_Part], counts: dict[str, int], *, started: float, **rows: Any) -> Report:
    """Return what is reported of a build or an addition; `rows` are rows, added and rejected."""
    encoders = [part.encoder.provider for part in parts if part.encoder]
    return Report(
        path,
        **rows,
        seconds=time.perf_counter() - started,
        provider=encoders[0] if encoders else None,
        summary=_told(parts),
        pictures=sum(counts[part.name] for part in parts if part.taken.has_pictures),
        spectra=sum(counts[part.name] for part in parts if part.taken.modality == SPECTRUM),
    )


def _told(parts: Sequence[_Part]) -> Summary:
    """Return the summary of the table with what was noted of pictures and spectra."""
    first, *others = (part.taken.told() for part in parts)
    notes = dict.fromkeys([*first.notes, *(note for each in others for note in each.notes)])
    reasons = {old: reason for each in (first, *others) for old, reason in each.reasons.items()}
    renamed = {old: new for each in (first, *others) for old, new in each.renamed.items()}
    return replace(first, notes=tuple(notes), reasons=reasons, renamed=renamed)


def _with_summary(
    record: dict[str, Any], parts: Sequence[_Part], counts: dict[str, int], rejected: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return a provenance record with what was found in the table and how many rows were left out by reason."""
    result = {key: value for key, value in asdict(_told(parts)).items() if value and key != "columns"}
    several = {"by_embedding": counts} if len(counts) > 1 else {}
    result |= {"added": max(counts.values()), **several, "left_out": _left_out_by_reason(rejected)}
    return {**record, "found": result}


def _frame_of(manifest: schema.Manifest) -> str | None:
    """Return the frame in which an atlas compares spectra; None where it has none."""
    name = manifest.embedding_of(SPECTRUM)
    return None if name is None else manifest.embeddings[name].get("frame")


def _check_space(part: _Part, manifest: schema.Manifest, path: Path) -> None:
    """Raise an error unless the vectors of a part may lie beside those of an atlas."""
    ours = manifest.embeddings.get(part.name)
    if ours is None and part.taken.modality == SPECTRUM:
        return
    if manifest.embedding_of(part.taken.modality) is None:
        raise SchemaError(
            f"{path} has {', '.join(manifest.embeddings)} vectors and none of pictures, which come first: build it "
            "again with images and spectra, or build the pictures by themselves"
        )
    _same_space(ours or {}, part.space, path)
    frames = [space.get("frame", "rest") for space in (ours or {}, part.space)]
    if part.taken.modality == SPECTRUM and frames[0] != frames[1]:
        raise SchemaError(
            f"{path} compares spectra in the {frames[0]} frame, and these would be compared in the {frames[1]} frame: "
            "leave --observed-frame as it was when the atlas was built"
        )


def _check_new(part: _Part, path: Path, there: set[str]) -> None:
    """Raise SchemaError where an object has an embedding of this name already."""
    ids = [name for name in part.taken.table["object_id"].to_pylist() if name in there]
    known = _holders(path, part.name, ids) if ids else []
    if known:
        what = "objects are" if part.taken.modality == schema.MAIN else f"objects with a {part.taken.modality} are"
        raise SchemaError(f"{len(known)} {what} in {path} already, such as '{known[0]}'; leave them out of the input")


def _holders(path: Path, name: str, ids: list[str]) -> list[str]:
    """Return those of `ids` that have a vector of that name in an atlas."""
    with contextlib.closing(open_store(path)) as store:
        if name not in store.manifest.embeddings:
            return []
        rows = store.rows_of(ids)
        return store.ids(rows[store.has_vector(name, rows)])


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


def _opened_again(lacking: list[_Input], given: Path | None, table: Path | None) -> list[Source]:
    """Return the pictures that were measured too little, from where they were or from where they are `given`."""
    if given is None or not lacking:
        return [each.again() for each in lacking]
    return [lacking[0].at(given, table)]


def _unmeasured_spectra(store: Store, less: list[dict[str, Any]]) -> list[Source]:
    """Return the stored spectra of an atlas whose lines were not measured, where any were taken in so."""
    if not any("spectra" in record.get("parameters", {}) for record in less):
        return []
    done = set() if (lines := store.table(LINES)) is None else set(lines["object_id"].to_pylist())
    ids = sorted(store.ids_with("spectra") - done)
    measures = {**{name: name for name in sources.MEASURES}, **store.manifest.extra.get(schema.MEASURES_KEY, {})}
    return [sources.stored_spectra(ids, store.spectra, measures)] if ids else []


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

        names = [*(taken.measures[name] for name in taken.measured), staged(LINES)]
        made = taken.batches(list(lacking.values()), workshop, seen=seen)
        for at, batch in zip(lacking, made, strict=True):
            table = batch.table
            if LINES in batch.stored:
                table = table.append_column(staged(LINES), batch.stored[LINES])
            kept = table.select([name for name in ("object_id", *names) if name in table.column_names])
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


def _measures_in(path: Path, manifest: schema.Manifest) -> dict[str, str]:
    """Return where an atlas has its measures, those that an older galsearch did not know included.

    Before format 1.1 they are in the columns of their names.
    """
    with contextlib.closing(open_store(path)) as store:
        there = set(store.describe()["column"].to_pylist())
    known = manifest.extra.get(schema.MEASURES_KEY) or {name: name for name in sources.MEASURES if name in there}
    new = [name for name in schema.LINE_MEASURES if name not in known]
    return {**known, **{name: f"{name}{schema.MEASURED}" if name in there else name for name in new}}


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
    count = Counter(reason_kind(item["reason"]) for item in rejected)
    first = max(rejected, key=lambda item: count[reason_kind(item["reason"])])
    name, reason = first["file"] or first["object_id"], first["reason"]
    others = "" if len(count) == 1 else f" ({len(count)} kinds of reasons)"
    return SchemaError(
        f"{path}: nothing was built, none of {len(rejected)} rows and files can be taken{others}; the first: "
        f"{name}: {reason}"
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
    modality = schema.MODALITIES[taken.modality]
    encoder = makers.encoder(modality.encoder)
    stated = {} if encoder.embedding in schema.MODALITIES else {"modality": modality.name}
    if isinstance(taken, SpectrumSource):
        stated["frame"] = taken.frame
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


@dataclass
class _Travels:
    """What makes an atlas answer by words and files: folders of models by name, tables of phrases, manifest entries.

    The phrases are embedded for readers without the models. The entries are by embedding.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    phrases: dict[str, pa.Table] = field(default_factory=dict)
    entries: dict[str, dict[str, str]] = field(default_factory=dict)


def _travels(parts: Sequence[_Part], makers: _Makers, *, main: str | None, held: str | None = None) -> _Travels:
    """Return what travels for these parts; `held` is the digest of the text model that the atlas has already."""
    result = _Travels()
    for part in parts:
        if part.taken.dim is not None:
            result.folders |= _checked_projectors(part, makers)
            continue
        modality = schema.MODALITIES[part.taken.modality]
        result.folders[modality.encoder] = makers.folder(modality.encoder)
        if part.taken.has_pictures:
            text = _text_encoder(part, makers)
            result.folders["text"], held = makers.folder("text"), text.sha256
            result.phrases[schema.PHRASES] = _embedded(concept_phrases(), text.encode)
        elif (folder := makers.words(part.space["space"])) is not None:
            held = _add_words(result, part, makers, folder, main=main, held=held)
    return result


def _checked_projectors(part: _Part, makers: _Makers) -> dict[str, Path]:
    """Return the projectors that travel with the vectors of a table by their names: nothing embeds phrases there."""
    for card in map(read_card, makers.projectors.values()):
        if not _fits(part.space, card):
            raise ModelMismatchError(
                f"projector {card['id']} projects into {card['space']} (d={card['dim']}), the vectors lie in "
                f"{part.space['space']} (d={part.space['dim']}); leave it out, or export it with the --space it shares"
            )
    return {f"{kind}{schema.PROJECTOR}": folder for kind, folder in makers.projectors.items()}


def _text_encoder(part: _Part, makers: _Makers) -> Encoder:
    text = makers.encoder("text")
    if not compatible(text.card, part.space):
        raise ModelMismatchError(
            f"text model {text.model_id} embeds into {text.card['space']}, image model {part.space['model']} into "
            f"{part.space['space']}: install models of one space"
        )
    return text


def _add_words(
    result: _Travels, part: _Part, makers: _Makers, folder: Path, *, main: str | None, held: str | None
) -> str:
    """Add the projector of words into the space of a part, and its text model where no other part has it.

    Returns the digest of the text model that is called "text" in the atlas.
    """
    projector, text = Encoder.from_folder(folder, device=makers.device), makers.encoder("text")
    check_takes(projector.card, text.card)
    if held != text.sha256:
        name = "text" if held is None and main == part.name else schema.text_model(part.name)
        result.folders[name] = makers.folder("text")
        held = held or text.sha256
    result.folders[schema.words_model(part.name)] = folder
    result.entries[part.name] = {schema.WORDS_MODEL: projector.model_id, schema.WORDS_SHA256: projector.sha256}

    def embed(phrases: list[str]) -> np.ndarray:
        return projector.encode(text.encode(phrases))

    phrases = concept_phrases(part.taken.modality)
    result.phrases[schema.phrases_table(part.name, main)] = _embedded(phrases, embed)
    return held


def _embedded(phrases: list[str], embed: Callable[[list[str]], np.ndarray]) -> pa.Table:
    return pa.table({"phrase": phrases, "embedding": fixed_size_list(embed(phrases))})


def _text_model(path: Path) -> str | None:
    """Return the digest of the text model of the main embedding that travels with an atlas, if one does."""
    with contextlib.closing(open_store(path)) as store:
        model = store.model("text") if "text" in store.models() else None
    return None if model is None else model[0]["sha256"]


def concept_phrases(modality: str = schema.MAIN) -> list[str]:
    """Return the phrases that every atlas of a kind of data can be asked by from plain SQL."""
    name = "concepts.txt" if modality == schema.MAIN else f"concepts_{modality}.txt"
    lines = resources.files("galsearch").joinpath(name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _batch_rows(taken: Source) -> int:
    """Return how many rows of a source are prepared and kept at a time."""
    if taken.dim is not None:
        return VECTOR_BATCH_ROWS
    return min(BATCH_ROWS, max(LEAST_BATCH_ROWS, taken.table.num_rows // BATCHES))


# ---- batches that are made elsewhere


@dataclass(frozen=True)
class _Elsewhere:
    """What workers on other machines need to make batches of a build, and the address of their cluster."""

    given: _Given
    makers: _Makers
    measure: str
    address: str | None


@dataclass(frozen=True)
class _Shared:
    """What each of them is sent: also the work in progress that they add to, and what they must find there."""

    elsewhere: _Elsewhere
    path: Path
    plan: dict[str, Any]
    expected: tuple[tuple[str, str | None, str], ...]


def _contents(parts: Sequence[_Part]) -> tuple[tuple[str, str | None, str], ...]:
    """Return what a worker must find where it opens the same sources: their objects, in order, and the same models."""
    ids = [hashlib.sha256("\0".join(part.taken.table["object_id"].to_pylist()).encode()).hexdigest() for part in parts]
    return tuple((part.name, part.space["sha256"], digest) for part, digest in zip(parts, ids, strict=True))


def _stage_elsewhere(staging: Staging, parts: Sequence[_Part], elsewhere: _Elsewhere, *, progress: Progress) -> None:
    """Let the workers of a cluster make the batches of pictures and spectra that are not there yet."""
    shared = _Shared(elsewhere, staging.path.absolute(), staging.plan, _contents(parts))
    every = {
        number: len(rows)
        for part, ranges in _ranges(parts)
        if part.taken.dim is None
        for number, rows in ranges.items()
    }
    lacking = sorted(every.keys() - staging.done())
    size = max(1, min(SHARD_BATCHES, len(lacking) // SHARDS))
    pieces = [lacking[start : start + size] for start in range(0, len(lacking), size)]
    total = sum(part.taken.table.num_rows for part in parts)
    options: dict[str, Any] = {"address": elsewhere.address, "gpus": elsewhere.makers.device != "cpu"}
    for done in (
        each_done(shards, pickle.dumps(shared), pieces, software=schema.software(), **options) if pieces else ()
    ):
        there = sum(rows for number, rows in every.items() if number in staging.done())
        progress(there, total, f"shard {done} of {len(pieces)} on {RAY}")


def shards(specification: bytes) -> Callable[[list[int]], None]:
    """Return what makes the batches with given numbers of a build, in a worker; a task of `cluster`.

    Raises GalsearchError where the worker does not find what the build was started with.
    """
    shared: _Shared = pickle.loads(specification)
    makers = replace(shared.elsewhere.makers, threads=1)
    parts = [_part(taken, makers) for taken in shared.elsewhere.given.open(makers)]
    if _contents(parts) != shared.expected:
        raise GalsearchError(
            f"a worker finds other objects or models in {shared.elsewhere.given.source_path} than the build was "
            "started with; give every machine the same files under the same paths"
        )
    staging, workshop = Batches(shared.path, shared.plan), sources.Workshop(shared.elsewhere.measure, processes=1)

    def make(numbers: list[int]) -> None:
        for part, ranges in _ranges(parts):
            chosen = {number: ranges[number] for number in numbers if number in ranges}
            if chosen:
                _stage_part(staging, part, chosen, workshop, lambda _: None)

    return make


def _ranges(parts: Sequence[_Part]) -> Iterator[tuple[_Part, dict[int, range]]]:
    """Yield each part with the rows of its batches by their numbers, which run through all parts."""
    number = 0
    for part in parts:
        ranges = _numbered(part.taken.table.num_rows, _batch_rows(part.taken), first=number)
        yield part, ranges
        number += len(ranges)


# ---- batches


def _numbered(total: int, size: int, *, first: int = 0) -> dict[int, range]:
    """Return the rows of batches by their numbers, which begin with `first`."""
    starts = range(0, total, size)
    return {number: range(start, min(start + size, total)) for number, start in enumerate(starts, first)}


def _stage(
    staging: Staging, parts: Sequence[_Part], workshop: sources.Workshop, *, progress: Progress
) -> dict[str, int]:
    """Make the batches that are not there yet; return how many rows each embedding gets."""
    total = sum(part.taken.table.num_rows for part in parts)
    before = 0
    for part, ranges in _ranges(parts):
        what = part.taken.doing if workshop.measure != "none" else "embedding"

        def seen(done: int, before: int = before, what: str = what) -> None:
            progress(before + done, total, what)

        _stage_part(staging, part, ranges, workshop, seen)
        before += part.taken.table.num_rows
    progress(total, total, what)
    counts = {part.name: 0 for part in parts}
    for batch in staging.batches():
        for part in parts:
            counts[part.name] += batch.num_rows if part.staged in batch.column_names else 0
    return counts


def _stage_part(
    staging: Batches,
    part: _Part,
    ranges: dict[int, range],
    workshop: sources.Workshop,
    seen: Callable[[int], None],
) -> None:
    """Make the batches of a part, with vectors by the name of its embedding and what else is stored by its table."""
    done, encoder = staging.done(), part.encoder
    lacking = {number: rows for number, rows in ranges.items() if number not in done}
    seen(sum(len(rows) for number, rows in ranges.items() if number in done))
    model_input = None if encoder is None else encoder.card["input"]
    made = part.taken.batches(list(lacking.values()), workshop, model_input=model_input, seen=seen)
    for number, batch in zip(lacking, made, strict=True):
        vectors = batch.content if encoder is None else encoder.encode(batch.content)
        table = batch.table.append_column(part.staged, fixed_size_list(np.asarray(vectors)))
        for name, values in batch.stored.items():
            table = table.append_column(staged(name), values)
        staging.put(number, table, batch.rejected)
