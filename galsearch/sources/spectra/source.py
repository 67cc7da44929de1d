"""Spectra as a source of objects: a folder or an archive of files, or one file that holds many.

The job of a spectrum is a file, or the arrays of one that was read already; worker processes read it, put it on the
grid of the encoder and on the one that is stored, and measure its lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.errors import SchemaError
from galsearch.science import lines
from galsearch.science.spectra import LogGrid, Spectrum, from_stored, model_input, to_stored
from galsearch.sources.cutouts import Joined, join_files, with_files, with_ids_of_files
from galsearch.sources.files import SPECTRA, Files, is_archive, open_files
from galsearch.sources.spectra import read_spectra, read_spectrum
from galsearch.sources.spectra.assembly import Options, SpectrumFile, Statements
from galsearch.sources.tables import Catalog, Source, digest, off_the_sky, own_table, without
from galsearch.sources.workshop import Craft, Job, Prepared, contents, plain
from galsearch.store import each_spectrum

TABLE = schema.MODALITIES["spectrum"].table
LINES = "lines"
FILE = "spectrum_file"  # the column, and the role of a table's column of file names
ARRAYS = ("wavelength_angstrom", "flux", "ivar")
STATED = ("name", "z", "medium", "frame", "flux_unit", "is_calibrated", "kind", "ivar_is_estimated", "ra", "dec")
SDSS_NAME = ("plate", "mjd", ("fiberid", "fiber", "fiber_id"))  # columns that name a spec file of SDSS
FRAMES = ("rest", "observed")
Frame = Literal["rest", "observed"]


@dataclass
class SpectrumSource(Source):
    """One spectrum an object: `files` are names in `home`, or `numbers` rows of the one file that was `opened`."""

    modality: ClassVar[str] = "spectrum"
    measured: ClassVar[tuple[str, ...]] = tuple(schema.LINE_MEASURES)
    completed: ClassVar[tuple[str, ...]] = ("z", "ra", "dec")
    file_column: ClassVar[str] = FILE
    doing: ClassVar[str] = "measuring and embedding spectra"
    files: list[str] = field(default_factory=list)
    home: Files | None = field(default=None, kw_only=True)
    opened: SpectrumFile | None = field(default=None, kw_only=True)
    numbers: list[int] = field(default_factory=list, kw_only=True)
    stated: Statements = field(default_factory=Statements, kw_only=True)
    frame: Frame = field(default="rest", kw_only=True)

    def job(self, row: int) -> Job:
        """Return the file of a row, or its arrays, with the redshift that the table has."""
        z = self.table["z"][row].as_py() if "z" in self.table.column_names else None
        if self.opened is not None:
            return _job_of_spectrum(self.opened.read(self.numbers[row]), z)
        assert self.home is not None
        file = self.files[row]
        source = self.home.read(file)
        return _job_of_file(source, name=PurePosixPath(file).name, z=z, stated=self.stated)

    def craft(self, measure: str, model_input: Mapping[str, Any] | None) -> Craft:
        """Return what is done with spectra: put on the grid of an encoder, in the frame that is compared."""
        grid = None if model_input is None else asdict(LogGrid.of_input(model_input))
        options = {"grid": grid, "frame": self.frame, "measure": measure}
        return Craft(prepared, ready, options, unpacked)


def stored_spectra(
    ids: list[str], read: Callable[[list[str]], pa.Table], measures: Mapping[str, str]
) -> SpectrumSource:
    """Return spectra of an atlas to be measured again; `read` gives the rows of the table `spectra` for ids."""
    table = pa.table([pa.array(ids, pa.string())], schema=pa.schema([schema.arrow_field("object_id")]))
    file = SpectrumFile("stored", ids, lambda row: from_stored(next(each_spectrum(read([ids[row]])))))
    numbers = list(range(len(ids)))
    return SpectrumSource(own_table(table), {}, opened=file, numbers=numbers, measures=measures)


def spectrum_source(
    path: Path,
    rows: Catalog | None,
    inputs: dict[str, str],
    *,
    frame: str,
    stated: Statements,
    id_from: str = "name",
    table: Path | None = None,
) -> SpectrumSource:
    """Join the spectra of a folder or an archive, or those in one file, to the rows of a table by file name or id.

    Without a table the ids are the files' names, or what the file calls its spectra. A table with plate, mjd and
    fiberid names the spec files of SDSS by them. A file of several spectra in a folder is left out: it is given alone.
    `frame` is the one that spectra are compared in, "rest" or "observed"; `stated` as `read_spectra` has it.
    """
    if frame not in FRAMES:
        raise SchemaError(f"frame {frame!r} is not known; spectra are compared in one of {', '.join(FRAMES)}")
    Options(**stated)  # refuses what contradicts itself before anything is read
    rows = None if rows is None else _with_sdss_files(rows)
    if path.is_dir() or is_archive(path):
        home = open_files(path, SPECTRA, leave_out=_beside(table, stated))
        inputs = {**inputs, str(path): home.digest()}
        joined = join_files(path, home, rows, id_from, column=FILE)
        return _source(joined, inputs, frame, stated, home=home)
    file = read_spectra(path, **stated)
    inputs = {**inputs, str(path): digest(path)}
    joined, numbers = _join_one(path, file, rows)
    return _source(joined, inputs, frame, stated, opened=file, numbers=numbers)


def _source(joined: Joined, inputs: dict[str, str], frame: str, stated: Statements, **where: Any) -> SpectrumSource:
    return SpectrumSource(
        joined.table, inputs, joined.rejected, files=joined.files, measures=joined.measures, summary=joined.summary,
        frame=cast("Frame", frame), stated=stated, **where,
    )  # fmt: skip


def _beside(table: Path | None, stated: Statements) -> frozenset[Path]:
    """Return the files that may lie in the folder of spectra and are none."""
    redshifts = stated.get("redshifts")
    given = [table, Path(redshifts) if isinstance(redshifts, (str, Path)) else None]
    return frozenset(each.resolve() for each in given if each is not None)


def _join_one(path: Path, file: SpectrumFile, rows: Catalog | None) -> tuple[Joined, list[int]]:
    """Join the spectra of one file to the rows of a table by id; return the number of each in the file too."""
    number = {name: index for index, name in enumerate(file.ids)}
    if len(number) < len(file.ids):
        twice = next(name for name in file.ids if list(file.ids).count(name) > 1)
        raise SchemaError(f"{path.name}: the id '{twice}' stands more than once; give each spectrum its own")
    if rows is None:
        table = pa.table([pa.array(list(file.ids), pa.string())], schema=pa.schema([schema.arrow_field("object_id")]))
        rows = Catalog(own_table(table), str(path))
    rows = with_ids_of_files(rows)
    ids = rows.table["object_id"].to_pylist()
    bad = {row: f"no spectrum of that id in {path.name}" for row, name in enumerate(ids) if name not in number}
    taken, rejected, _ = without(rows, {**off_the_sky(rows.table), **bad})
    kept = taken["object_id"].to_pylist()
    unused = [name for name in file.ids if name not in set(ids)]
    rejected += [{"object_id": name, "file": path.name, "reason": "no row in the table"} for name in unused]
    taken, summary = with_files(taken, [path.name] * len(kept), rows.summary, name=FILE)
    return Joined(taken, [path.name] * len(kept), rejected, rows.measures, summary), [number[name] for name in kept]


def _with_sdss_files(rows: Catalog) -> Catalog:
    """Return rows with the names of SDSS's spec files where the table has plate, mjd and fiberid and no file names."""
    there = {name.casefold(): name for name in rows.table.column_names}
    fiber = next((there[name] for name in SDSS_NAME[2] if name in there), None)
    if rows.files is not None or fiber is None or not {"plate", "mjd"} <= set(there):
        return rows
    columns = [rows.table[name].to_pylist() for name in (there["plate"], there["mjd"], fiber)]
    if not all(isinstance(value, int) for column in columns for value in column):
        return rows
    names = [f"spec-{plate:04d}-{mjd:05d}-{number:04d}.fits" for plate, mjd, number in zip(*columns, strict=True)]
    return replace(rows, files=cast("list[str | None]", names))


def _job_of_file(source: Path | bytes, *, name: str, z: float | None, stated: Statements) -> Job:
    """Return the job of a file of one spectrum, whose redshift is `z` unless that is None."""
    facts: dict[str, Any] = {"name": name, "z": z, "stated": _as_json(stated)}
    return Job(b"", {**facts, "path": str(source.absolute())}) if isinstance(source, Path) else Job(source, facts)


def _as_json(stated: Statements) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in stated.items()}


def _job_of_spectrum(spectrum: Spectrum, z: float | None) -> Job:
    """Return the job of a spectrum that was read."""
    facts, content = in_parts(spectrum)
    return Job(content, {"name": spectrum.name, "z": z, "arrays": facts})


def in_parts(spectrum: Spectrum) -> tuple[dict[str, Any], bytes]:
    """Return a spectrum as it travels between processes: what JSON can hold, and float64 arrays in a row."""
    facts = {name: getattr(spectrum, name) for name in STATED} | {"notes": list(spectrum.notes)}
    return facts, b"".join(np.ascontiguousarray(getattr(spectrum, name)).tobytes() for name in ARRAYS)


def of_parts(facts: dict[str, Any], content: bytes) -> Spectrum:
    """Return the spectrum again that `in_parts` took apart."""
    values = np.frombuffer(content, np.float64).reshape(len(ARRAYS), -1)
    return Spectrum(*values, **{**facts, "notes": tuple(facts["notes"])})


# ---- in worker processes


def ready(payload: bytes) -> tuple[dict, bytes]:
    """Load what is needed to read a spectrum, before the limits of a process hold."""
    text = b"wavelength [nm],flux\n" + b"".join(b"%d,1.0\n" % each for each in range(400, 480))
    read_spectrum(text, name="ready.csv", wavelength="wavelength [nm]", flux="flux", wavelength_unit="nm",
                  flux_unit="relative", medium="vacuum")  # fmt: skip
    return {}, b""


def prepared(
    payload: bytes, *, jobs: list[dict[str, Any]], grid: dict[str, Any] | None, frame: Frame, measure: str
) -> tuple[dict, bytes]:
    """Prepare spectra, as a task of a worker process (`workshop.Craft`)."""
    pixels = None if grid is None else LogGrid(**grid)
    facts: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for job in contents(payload, jobs):
        try:
            spectrum = replace(_read(job), name=job.facts["name"])  # by which messages call it
            seen = None if pixels is None else model_input(spectrum, pixels, frame=frame)
            kept = to_stored(spectrum)
            measured = None if measure == "none" else _lines_of(spectrum)
        except SchemaError as error:
            facts.append({"problem": str(error)})
            continue
        about = {name: kept[name] for name in kept if name not in ("flux", "ivar")}
        columns = {name: getattr(spectrum, name) for name in ("z", "ra", "dec")}
        columns |= {} if measured is None else measured.columns()
        facts.append(
            {"columns": plain(columns), "notes": list(spectrum.notes), "about": about, "pixels": len(kept["flux"]),
             "seen": None if seen is None else seen.shape[1], "lines": None if measured is None else _rows_of(measured)}
        )  # fmt: skip
        parts += [b"" if seen is None else seen.tobytes(), kept["flux"].tobytes(), kept["ivar"].tobytes()]
    return {"spectra": facts}, b"".join(parts)


def one_of(payload: bytes, *, name: str, stated: Statements) -> tuple[dict, bytes]:
    """Read a spectrum as `read_spectrum` does, as a task of a worker process; `of_parts` puts it together."""
    return in_parts(read_spectrum(payload, name=name, **stated))


def _lines_of(spectrum: Spectrum) -> lines.Lines | None:
    """Return the lines of a spectrum with a redshift, None for one without."""
    return None if spectrum.z is None and spectrum.frame != "rest" else lines.measure(spectrum)


def _rows_of(measured: lines.Lines) -> list[dict[str, Any]]:
    """Return the rows of the table `lines` that have something, NaN as None."""
    columns = {name: np.asarray(values).tolist() for name, values in measured.table().items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [row for row in map(_known, rows) if row["flux"] is not None or row["ew_angstrom"] is not None]


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def _read(job: Job) -> Spectrum:
    """Return the spectrum of a job; a redshift of the table comes before that of the file."""
    if "arrays" in job.facts:
        spectrum = of_parts(job.facts["arrays"], job.content)
    else:
        source: Path | bytes = Path(job.facts["path"]) if "path" in job.facts else job.content
        spectrum = _only(source, job.facts["name"], job.facts["stated"])
    z = job.facts["z"]
    return spectrum if z is None else replace(spectrum, z=float(z))


def _only(source: Path | bytes, name: str, stated: dict[str, Any]) -> Spectrum:
    file = read_spectra(source, name=name, **stated)
    if len(file) > 1:
        raise SchemaError(f"{name}: it holds several spectra; give it alone (spectra={name}), then add the others")
    return file.read(0)


def unpacked(stated: dict, content: bytes) -> Iterator[Prepared]:
    """Yield what `prepared` made of each spectrum."""
    take = partial(_take, content)
    start = 0
    for facts in stated["spectra"]:
        if "problem" in facts:
            yield Prepared(None, {}, problem=facts["problem"])
            continue
        width, pixels = facts["seen"] or 0, facts["pixels"]
        seen, start = take(start, 2 * width)
        flux, start = take(start, pixels)
        ivar, start = take(start, pixels)
        kept: dict[str, Any] = {TABLE: {**facts["about"], "flux": flux, "ivar": ivar}}
        kept |= {} if facts["lines"] is None else {LINES: facts["lines"]}
        yield Prepared(seen.reshape(2, width) if width else None, facts["columns"], facts["notes"], kept)


def _take(content: bytes, start: int, count: int) -> tuple[np.ndarray, int]:
    return np.frombuffer(content, np.float32, count, offset=start), start + 4 * count
