"""What agents may ask of atlases: plain functions with hard bounds, whose answers are data and pictures.

Nothing here knows a protocol. Every condition and every statement goes to the worker processes of visitors, no argument
is ever taken for a path, and nothing is written but verdicts, to the one file that was named when the service began.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import atlas as atlases
from galsearch.atlas import Atlas
from galsearch.discovery.verdicts import YES, Verdicts
from galsearch.errors import GalsearchError, LimitError, QueryError
from galsearch.hits import Hits
from galsearch.query import Query, Term
from galsearch.rerank.judge import panels
from galsearch.science import images
from galsearch.science.lines import SPECTRAL_LINES
from galsearch.science.sky import parse_position
from galsearch.science.spectra import Spectrum
from galsearch.service.agents.bounds import (
    MOST_COLUMNS,
    MOST_HITS,
    MOST_ID,
    MOST_ROWS,
    cut,
    fitted,
    lists_of,
    plain,
    rows_of,
    units_of,
)
from galsearch.workers import Limits

LIMITS = Limits(seconds=10.0, result_bytes=8 << 20, processes=2, spare=0)
SHOWN = ("atlas", "object_id", "score", "copies", "name", "ra", "dec", "z", "mag_r", "radius_arcsec", "axis_ratio")
OF_ANOMALIES = ("p_value", "q_value", "tier", "score", "detector", "odd_columns", "nearest", "run")
MOST_CHOSEN = 20  # columns that may be asked for beside those
MOST_DESCRIBED = 40  # columns in `describe`; all are in the resource
MOST_RADIUS_ARCSEC = 3_600.0  # of a cross-match
MOST_MARKS = 10_000  # of one service
UNDO = "undo"
SPECTRUM = "spectrum"
_ESCAPES = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U000[0-9a-f]{5}|[nrt])")


@dataclass(frozen=True)
class Answer:
    """What a tool gives: data as JSON holds it, and pictures as PNG."""

    data: dict[str, Any]
    pictures: tuple[bytes, ...] = ()


class Tools:
    """The tools over one atlas, or several asked as one; close it in the end.

    `verdicts` is the file that `mark` writes, None for no `mark`. Raises as `galsearch.open` does.
    """

    def __init__(self, paths: Sequence[Path], *, verdicts: Path | None = None, limits: Limits = LIMITS) -> None:
        self._paths = {path.name: path for path in paths}
        if len(self._paths) < len(paths):
            raise QueryError("two of the atlases have one name, by which an agent would call them; rename one")
        self._limits = limits
        self._opening = threading.Lock()
        self._writing = threading.Lock()
        self._single: dict[str, Atlas] = {}
        self._marked = 0
        self.whole = atlases.open(list(paths), visitors=limits)
        try:
            self.verdicts = None if verdicts is None else Verdicts(verdicts, atlas=self.whole)
        except BaseException:
            self.whole.close()
            raise

    def close(self) -> None:
        """Release the files and end the worker processes."""
        for atlas in (self.whole, *self._single.values()):
            atlas.close()

    @property
    def names(self) -> list[str]:
        """What the atlases are called."""
        return list(self._paths)

    def one(self, name: str | None) -> Atlas:
        """Return one atlas by its name, which may be left out where there is only one."""
        if len(self._paths) == 1 and name in (None, *self._paths):
            return self.whole
        if name not in self._paths:
            told = "several are open, and this asks one" if name is None else f"there is no atlas {name!r:.80}"
            raise QueryError(f"{told}; give atlas as one of: {', '.join(self._paths)}")
        with self._opening:
            if name not in self._single:
                self._single[name] = atlases.open(self._paths[name], visitors=self._limits)
            return self._single[name]

    def known(self, ids: Sequence[str]) -> list[str]:
        """Return ids as the atlas has them: an id with hidden characters is also known by how it is shown.

        Raises UnknownIdError for one that is not there; each is returned once.
        """
        exact = [name if name in self.whole else _unescaped(name) for name in dict.fromkeys(ids)]
        self.whole.rows(exact)
        return exact

    # ---- what there is

    def describe(self) -> Answer:
        """Return what the atlases hold and what can be asked of them."""
        manifest, columns = self.whole.manifest, self.whole.columns()
        spaces = {
            name: {"dimensions": space.get("dim"), "takes_words": manifest.knows_words(name)}
            for name, space in manifest.embeddings.items()
        }
        about = {
            "title": cut(manifest.title),
            "galaxies": len(self.whole),
            "embeddings": spaces,
            "main_embedding": manifest.main_embedding if spaces else None,
            "columns": [_of_column(row) for row in columns.slice(0, MOST_DESCRIBED).to_pylist()],
            "all_columns": columns.num_rows,
            "atlases": [self._part(name) for name in self._paths],
            "marks": None if self.verdicts is None else {"standing": len(self.verdicts), "kinds": self._kinds()},
            "bounds": {"k": MOST_HITS, "sql_rows": MOST_ROWS, "sql_seconds": self._limits.seconds},
        }
        return Answer(fitted(about, "columns"))

    def _part(self, name: str) -> dict[str, Any]:
        atlas = self.one(name)
        statement = "SELECT table_name, estimated_size FROM duckdb_tables() WHERE NOT internal ORDER BY table_name"
        tables = {row["table_name"]: row["estimated_size"] for row in atlas.sql(statement).to_pylist()}
        bases = atlas.bases()
        stated = bases.select(
            [one for one in ("base", "version", "kind", "target", "embedding", "rows") if one in bases.column_names]
        )
        return {
            "atlas": name,
            "galaxies": len(atlas),
            "tables": {cut(table, 100): rows for table, rows in list(tables.items())[:MOST_DESCRIBED]},
            "knowledge_bases": rows_of(stated, most=MOST_DESCRIBED),
            "saved_anomalies": self.has_anomalies(name),
        }

    def columns(self) -> list[dict[str, Any]]:
        """Return all columns that `where` may use, with units, UCDs and descriptions."""
        return [_of_column(row, ucd=True) for row in self.whole.columns().to_pylist()]

    def has_anomalies(self, name: str) -> bool:
        """Say whether an atlas keeps lists of anomalies."""
        with suppress(QueryError):
            return bool(self.one(name).saved_anomalies(budget=1).num_rows)
        return False

    # ---- asking

    def search(
        self,
        words: str | None,
        *,
        like: Sequence[str],
        minus: Sequence[str],
        where: str | None,
        near: str | None,
        radius_arcsec: float | None,
        k: int,
        by: str | None,
        distinct: bool,
        columns: Sequence[str],
        sheet: bool,
    ) -> Answer:
        """Return the best k hits of a search, and what was understood."""
        terms = [] if words is None else [Term("text", words, by=by)]
        terms += [Term("object", name, by=by) for name in self.known(like)]
        terms += [Term("text", text, -weight, by) for weight, text in map(_weighted, minus)]
        cone = None if near is None else parse_position(near)
        query = Query(tuple(terms), where=where, near=cone, radius_arcsec=radius_arcsec, k=k, distinct=distinct)
        named = self.whole.lookup(words) if words and len(terms) == 1 else None
        if named:
            hits = self.whole.candidates(named, where=where, near=cone, radius_arcsec=radius_arcsec, k=k)
        else:
            hits = self.whole.search(query)
        told = {
            "asked": cut(query.formula() or "a list, by object_id"),
            "matches": hits.plan.matches,
            "names": cut(str(named)) if named else None,
            "convincing": hits.convincing,
            "not_heeded": [cut(one) for one in self.whole.hints(words, by=by)] if words else [],
        }
        told = {name: value for name, value in told.items() if value not in (None, [])}
        return self._hits(hits, told, columns, sheet=sheet)

    def neighbors(
        self, object_id: str, *, by: str | None, where: str | None, k: int, columns: Sequence[str], sheet: bool
    ) -> Answer:
        """Return the k objects most like one, by its pictures or by its spectrum."""
        [name] = self.known([object_id])
        hits = self.whole.search(Query((Term("object", name, by=by),), where=where, k=k))
        told = {"like": cut(name, MOST_ID), "matches": hits.plan.matches, "convincing": hits.convincing}
        return self._hits(hits, told, columns, sheet=sheet)

    def _hits(self, hits: Hits, told: dict[str, Any], columns: Sequence[str], *, sheet: bool) -> Answer:
        wanted = self._wanted(hits.table, columns)
        table = hits.table.select(wanted)
        data = fitted({**told, "units": units_of(table), "hits": rows_of(table, most=MOST_HITS)}, "hits")
        labels = None if hits.scores is None else dict(zip(hits.ids, map("{:.2f}".format, hits.scores), strict=True))
        picture = self._sheet(hits.ids, labels) if sheet and len(hits) else None
        if sheet and picture is None:
            data["no_pictures"] = "none of these objects has a picture"
        return Answer(data, () if picture is None else (picture,))

    def _wanted(self, table: pa.Table, columns: Sequence[str]) -> list[str]:
        unknown = [name for name in columns if name not in table.column_names]
        if unknown:
            known = ", ".join(table.column_names[:30])
            raise QueryError(f"there is no column {unknown[0]!r:.80}; there are {known} …, see galsearch://columns")
        if len(columns) > MOST_CHOSEN:
            raise QueryError(f"{len(columns)} columns were asked for, at most {MOST_CHOSEN}; use show for all of one")
        return list(dict.fromkeys([*(name for name in SHOWN if name in table.column_names), *columns]))

    def show(self, object_id: str, *, picture: bool, spectrum: bool) -> Answer:
        """Return every column of one object that has a value, its picture, and a plot of its spectrum."""
        [object_id] = self.known([object_id])
        row = self.whole.rows([object_id])
        pictures: list[bytes] = []
        data: dict[str, Any] = {"units": units_of(row), "object": rows_of(row)[0]}
        thumbnail = self.whole.thumbnails([object_id]).get(object_id) if picture else None
        if thumbnail is not None:
            pictures.append(panels(images.decode_thumbnail(thumbnail)))
        data["picture"] = "the cutout, and beside it its middle half enlarged" if thumbnail else None
        kept = self.whole.spectra([object_id]).get(object_id) if spectrum else None
        if kept is not None:
            pictures.append(_plot(kept, object_id))
            data[SPECTRUM] = _of_spectrum(kept)
        return Answer({name: value for name, value in data.items() if value is not None}, tuple(pictures))

    def contact_sheet(self, object_ids: Sequence[str]) -> Answer:
        """Return one picture of several objects with their ids, in the order asked for."""
        ids = self.known(object_ids)
        there, picture = self.whole.thumbnails(ids), self._sheet(ids)
        lacking = [cut(name, MOST_ID) for name in ids if name not in there]
        data: dict[str, Any] = {"order": [cut(name, MOST_ID) for name in ids if name in there]}
        if lacking:
            data["without_picture"] = lacking
        return Answer(data, () if picture is None else (picture,))

    def _sheet(self, ids: Sequence[str], labels: dict[str, str] | None = None) -> bytes | None:
        """Return a contact sheet of the objects that have a picture, numbered in their order; None without any."""
        pictures = self.whole.thumbnails(ids)
        there = [name for name in ids if name in pictures]
        if not there:
            return None
        beside = labels or {}
        tiles = [
            (images.decode_thumbnail(pictures[name]), f"{rank}. {cut(name, 60)}\n{beside.get(name, '')}".strip())
            for rank, name in enumerate(there, start=1)
        ]
        columns = next(count for count in range(1, 9) if count * count >= len(tiles) or count == 8)
        return images.contact_sheet([(f"{len(tiles)} objects", tiles)], columns=columns, tile_px=144)

    def sql(self, statement: str, *, atlas: str | None) -> Answer:
        """Return the first rows of one SELECT."""
        table = self.one(atlas).sql(statement)
        data = {
            "columns": [cut(name, 100) for name in table.column_names[:MOST_COLUMNS]],
            "units": units_of(table),
            "rows": lists_of(table),
            "all_rows": table.num_rows,
        }
        if table.num_rows > MOST_ROWS:
            data["cut_off"] = f"the first {MOST_ROWS} of {table.num_rows} rows; add a LIMIT, or count and group"
        return Answer(fitted(data, "rows"))

    def classify(
        self, object_ids: Sequence[str], base: str, *, atlas: str | None, k: int, prevalence: float | None
    ) -> Answer:
        """Return what the nearest known neighbors vote for, and who voted."""
        result = self.one(atlas).classify(self.known(object_ids), base, k=k, prevalence=prevalence)
        table = result.to_arrow().drop_columns(["of"])
        return Answer(fitted({"base": cut(base), "k": k, "votes": rows_of(table, most=MOST_HITS)}, "votes"))

    def crossmatch(
        self, positions: Sequence[dict[str, Any]], *, radius_arcsec: float, mode: str, where: str | None
    ) -> Answer:
        """Return the objects within a radius of positions, each with the name that was given."""
        if not 0 < radius_arcsec <= MOST_RADIUS_ARCSEC:
            raise QueryError(f"radius_arcsec is {radius_arcsec:g}, expected above 0 and up to {MOST_RADIUS_ARCSEC:g}")
        names = [str(one.get("name") or number) for number, one in enumerate(positions, start=1)]
        values = {name: [float(one[name]) for one in positions] for name in ("ra", "dec")}
        table = pa.table({"position": pa.array(names, pa.string()), **values})
        result = self.whole.crossmatch(table, radius_arcsec=radius_arcsec, mode=mode, where=where, ra="ra", dec="dec")
        shown = ["position", "object_id", "separation_arcsec", *SHOWN[3:]]
        matched = set(result["position"].to_pylist())
        data = {
            "matches": rows_of(result.select([name for name in shown if name in result.column_names])),
            "pairs": result.num_rows,
            "without_match": [cut(name) for name in names if name not in matched][:MOST_ROWS],
            "meaning": "without a match means: not in this atlas; other catalogs were not asked",
        }
        return Answer(fitted(data, "matches"))

    def anomalies(self, *, atlas: str | None, run: str | None, fdr: float, k: int, sheet: bool) -> Answer:
        """Return the first k of a list of anomalies that the atlas keeps."""
        single = self.one(atlas)
        table = single.saved_anomalies(run, fdr=fdr)
        tiers = {str(tier["values"]): tier["counts"] for tier in pc.value_counts(table["tier"]).to_pylist()}
        table = table.slice(0, k)
        names = ["object_id", *(name for name in OF_ANOMALIES if name in table.column_names)]
        data = {"fdr": fdr, "tiers": tiers, "anomalies": rows_of(table.select(names), most=MOST_HITS)}
        picture = self._sheet(table["object_id"].to_pylist()) if sheet else None
        return Answer(fitted(data, "anomalies"), () if picture is None else (picture,))

    # ---- the one thing that is written

    def mark(
        self, object_ids: Sequence[str], verdict: str, *, kind: str, label: str | None, note: str | None, by: str
    ) -> Answer:
        """Keep verdicts on objects, or take back the last one of this agent."""
        if self.verdicts is None:
            raise QueryError("marks are not taken here; start galsearch mcp with --verdicts FILE")
        with self._writing:
            if verdict == UNDO:
                undone = self.verdicts.undo(by=by, kind=kind)
                told: dict[str, Any] = {"undone": None if undone is None else cut(undone.object_id)}
            else:
                told = {"marked": self._add(self.known(object_ids), verdict, kind=kind, label=label, note=note, by=by)}
        standing = self.verdicts.current(kind, by=by)
        told |= {"by": cut(by), "kind": cut(kind), "standing": len(standing)}
        told["yes"] = [cut(one.object_id) for one in standing if one.verdict == YES][-MOST_HITS:]
        return Answer(told)

    def _add(self, ids: list[str], verdict: str, **stated: Any) -> list[str]:
        assert self.verdicts is not None
        if not ids:
            raise QueryError("object_ids is empty; name the objects to mark, as search gives them")
        if self._marked + len(ids) > MOST_MARKS:
            raise LimitError(f"this service has taken {self._marked} marks, at most {MOST_MARKS}; start it again")
        for name in ids:
            self.verdicts.add(name, verdict, **stated)
        self._marked += len(ids)
        return [cut(name, MOST_ID) for name in ids]

    def _kinds(self) -> dict[str, int]:
        return {} if self.verdicts is None else {cut(name): count for name, count in self.verdicts.kinds().items()}


def verdicts_beside(path: Path) -> Path:
    """Return where the verdicts on an atlas are kept unless a file is named."""
    return path.with_suffix(".verdicts")


def _unescaped(text: str) -> str:
    """Return text with the escapes of `printable` taken back."""
    return _ESCAPES.sub(lambda one: one[0].encode().decode("unicode_escape"), text)


def _of_column(row: dict[str, Any], *, ucd: bool = False) -> dict[str, Any]:
    names = ("column", "type", "unit", *(["ucd"] if ucd else []), "description")
    return {name: plain(row[name]) for name in names if row[name]}


def _weighted(text: str) -> tuple[float, str]:
    """Split `0.5:bar` into a weight and words; words without a number weigh 1."""
    number, colon, rest = text.partition(":")
    try:
        return (float(number), rest) if colon else (1.0, text)
    except ValueError:
        return 1.0, text


def _of_spectrum(kept: Spectrum) -> dict[str, Any]:
    good = kept.ivar > 0
    ends = kept.wavelength_angstrom[good] if good.any() else kept.wavelength_angstrom
    facts = {"pixels": len(kept), "from_angstrom": float(ends[0]), "to_angstrom": float(ends[-1]), "z": kept.z}
    return plain({**facts, "median_snr": kept.median_snr, "frame": kept.frame, "medium": "vacuum"})


def _plot(kept: Spectrum, object_id: str) -> bytes:
    flux = np.where(kept.ivar > 0, kept.flux, np.nan)
    observed = kept.frame == "observed"
    stretch = 1 + kept.z if observed and kept.z is not None else 1.0
    known = kept.z is not None or not observed
    names = [(line.wavelength_angstrom * stretch, line.name) for line in SPECTRAL_LINES] if known else []
    unit = "flux, 1e-17 erg / (s cm2 Å)" if kept.is_calibrated else "flux, not calibrated"
    redshift = "z not known, so no lines are named" if kept.z is None else f"z = {kept.z:.4f}"
    try:
        return images.line_plot(
            kept.wavelength_angstrom,
            flux,
            title=f"{cut(object_id, 60)}   {redshift}",
            x_title=f"{'observed' if observed else 'rest'} wavelength in vacuum, Å",
            y_title=unit,
            names=names,
        )
    except GalsearchError as error:
        raise QueryError(f"the spectrum cannot be drawn ({error}); ask show with spectrum false") from None
