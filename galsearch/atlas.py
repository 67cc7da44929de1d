"""An atlas to ask: open it, search it, look at what comes back. Nothing here writes to it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

import numpy as np
import pyarrow as pa

from galsearch import citations, formats, schema
from galsearch.encode import Encoder, Words, check_same_model, check_takes, read_card, shipped, shipped_words
from galsearch.errors import (
    FormatError,
    GalsearchError,
    LimitError,
    ModelMismatchError,
    QueryError,
    SchemaError,
    UnknownIdError,
)
from galsearch.escaping import printable
from galsearch.formats import describe, write_hats
from galsearch.formats.hats import PARTITION_ROWS
from galsearch.hits import Galaxy, Hits, term
from galsearch.language.taught import beyond_training, untaught
from galsearch.progress import Progress, silent
from galsearch.query import Query, QueryOptions, Term
from galsearch.retrieval import Result, retrieve
from galsearch.schema import Finding
from galsearch.science import images
from galsearch.science.familiarity import Familiarity, Reference
from galsearch.science.ranking import unit
from galsearch.science.spectra import Frame, Spectrum, from_stored, model_input
from galsearch.store import Store, comparing, each_spectrum, open_for_visitors, open_stores
from galsearch.store.check import verify
from galsearch.workers import Limits, Pool

if TYPE_CHECKING:
    from galsearch.discovery import Against, Anomalies, Duplicates, Identifications
    from galsearch.discovery.adaptation import Adaptation
    from galsearch.discovery.learning import Sample, Task
    from galsearch.discovery.query_log import QueryLog
    from galsearch.discovery.verdicts import Verdicts
    from galsearch.knowledge import KnowledgeBase
    from galsearch.knowledge.classify import Classification, Votes
    from galsearch.knowledge.heldout import Electorate
    from galsearch.knowledge.probes import TrainedProbe
    from galsearch.language.parser import Understanding
    from galsearch.lookup import Lookup
    from galsearch.remote.cutouts.survey_picture import SurveyPicture
    from galsearch.rerank.observe import Observer
    from galsearch.science.adaptation import Correction
    from galsearch.sources.spectra.assembly import Statements
    from galsearch.store.files import Content

LOG_VARIABLE = "GALSEARCH_QUERY_LOG"
MOST_ADQL_ROWS = 1_000_000
CACHED_TEXTS = 256
CACHED_BASES = 8  # knowledge bases whose members are kept; a million of them take some 20 MB
CACHED_SAMPLES = 2  # of vectors that verdicts are learned beside; 10 MB each at 256 dimensions
ITERATED_ROWS = 1_000  # read at a time while somebody goes through all galaxies
RENDER = "galsearch.encode:render_picture"  # tasks of a worker
TABLE = "galsearch.formats.reading:table_of"
ONE = "galsearch.sources.spectra.source:one_of"
CHECK = "galsearch.atlas:check_here"
CHECK_LIMITS = Limits(  # of a whole atlas and its models
    seconds=86_400.0, cpu_seconds=86_400.0, memory_bytes=16 << 30, processes=1, spare=0
)
SPECTRUM = schema.MODALITIES["spectrum"].name
QUERY_THREADS = 1  # one sentence or picture at a time gains nothing from more, and many users share the machine
_CALLS_EMBED = re.compile(r"\bembed(_\w+)?\s*\(", re.IGNORECASE)


class ClassifyOptions(TypedDict, total=False):
    """What `Atlas.classify` takes beside what is classified and the base, each as a keyword."""

    version: int | None
    by: str | None
    k: int
    weight: str
    tau: float
    prevalence: float | Mapping[str, float] | None
    least: float
    max_distance: float | None
    exact: bool
    method: str
    columns: Sequence[str] | None
    progress: Callable[[int, int, str], None] | None


def open(
    path: str | Path | Sequence[str | Path],
    *,
    device: str = "auto",
    visitors: Limits | None = None,
    log: str | Path | None = None,
) -> Atlas:
    """Open an atlas, a folder or a bundle, for reading; several in a list are asked as one.

    A bundle may lie behind an address, `https://…` or `http://…`, of a server that serves byte ranges: only what a
    question needs is read, and kept in the user's cache folder (needs `galsearch[remote]`). RemoteError where the
    server cannot be reached or serves no ranges; a file that is changed meanwhile is a FormatError.

    `device` is where its encoders run: "auto", "cpu" or "cuda". Where strangers ask, through a page or a service, give
    `visitors`: every condition, statement and picture file then goes to a worker process under these limits, with a
    list of allowed functions, and messages tell no folders; what overruns or ends its process is a LimitError. `log` is
    a file where searches are kept, on this machine alone (`QueryLog`); unless given, that of the environment variable
    GALSEARCH_QUERY_LOG, else none, and none for visitors. Raises
    FormatError when it is no atlas or damaged, VersionTooNewError or VersionTooOldError for another major version of
    the format, ModelMismatchError for several of different models.
    """
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    if visitors is None:
        kept = log or os.environ.get(LOG_VARIABLE) or None
        return Atlas(open_stores([_located(one) for one in paths]), device=device, log=kept)
    for one in paths:
        if _is_address(one):
            raise GalsearchError(
                f"{one}: what visitors ask is answered from a file on this machine; download the atlas and open that"
            )
    store, workers = open_for_visitors([Path(one) for one in paths], visitors)
    return Atlas(store, device=device, workers=workers, log=log)


def _located(path: str | Path) -> Path | Content:
    """Return the path of an atlas on this machine, or what reads one behind an address."""
    if not _is_address(path):
        return Path(path)
    from galsearch.remote.ranges.client import address_of
    from galsearch.remote.ranges.file import RemoteFile

    url = address_of(path)
    return Path(path) if url is None else RemoteFile(url)


def _is_address(path: str | Path) -> bool:
    return str(path).casefold().startswith(("http:/", "https:/"))


def check(path: str | Path, *, device: str = "auto", seed: int = 0, limits: Limits = CHECK_LIMITS) -> list[Finding]:
    """Verify an atlas as `Atlas.check` does, in a process of its own: a file that ends its reader ends only that.

    For files of strangers, before they are opened: a process that is lost, or takes more than `limits`, is the one
    finding, and it is not ok. Raises as `open` does.
    """
    if _is_address(path):
        raise GalsearchError(
            f"{path}: the process that checks a file reaches no network; download the file and check that"
        )
    path, pool = Path(path), Pool(limits)
    try:
        stated, _ = pool.run(CHECK, title="check", path=str(path.absolute()), device=device, seed=seed)
    except LimitError:
        most = f"{limits.memory_bytes >> 20} MB and {limits.seconds:g} s"
        message = f"{path} ended the process that read it, or takes more than {most}"
        return [Finding("reader", False, message, "do not open it; ask its sender for it again")]
    finally:
        pool.close()
    return [Finding(**finding) for finding in stated["findings"]]


def check_here(payload: bytes, *, path: str, device: str, seed: int) -> tuple[dict[str, Any], bytes]:
    """Verify an atlas; the task of `check`."""
    with open(path, device=device) as atlas:
        return {"findings": [asdict(finding) for finding in atlas.check(seed=seed)]}, b""


def _a(noun: str) -> str:
    """Return a noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _names(several: Sequence[object], parts: Sequence[Term]) -> list[str]:
    """Return what each of the things to classify is called: object_id, name of a file, else its number from 0.

    Files of one name in several folders are called by their paths.
    """
    paths = {str(one) for one in several if isinstance(one, Path)}
    often = Counter(Path(path).name for path in paths)
    result = []
    for index, (one, part) in enumerate(zip(several, parts, strict=True)):
        if isinstance(one, Path):
            result.append(printable(one.name if often[one.name] == 1 else one))
        elif part.kind == "object":
            result.append(part.text)
        else:
            named = one.name if isinstance(one, Spectrum) else ""
            result.append(printable(named) or f"vector {index}")
    return result


class Atlas:
    """A searchable set of galaxies, read-only; made by `galsearch.open`."""

    def __init__(
        self,
        store: Store,
        *,
        device: str = "auto",
        workers: Pool | None = None,
        log: str | Path | None = None,
    ) -> None:
        self._store = store
        self._log = log
        self._workers = workers
        self._device = device
        self._encoders: dict[str, Encoder] = {}
        self._loading = threading.Lock()
        self._words: dict[str, Words] = {}
        self._familiarity: dict[str, Familiarity | None] = {}
        self._embed_text = functools.lru_cache(CACHED_TEXTS)(self._encoded_text)
        self._electorates = functools.lru_cache(CACHED_BASES)(self._read_electorate)
        self._samples = functools.lru_cache(CACHED_SAMPLES)(self._drawn_sample)
        self._look_up = functools.lru_cache(CACHED_TEXTS)(self._named)

    def __enter__(self) -> Atlas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the files, and end the worker processes where there are any."""
        if self._workers is not None:
            self._workers.close()
        self._store.close()

    def __len__(self) -> int:
        return self.manifest.rows

    def __repr__(self) -> str:
        return f"<Atlas {self.manifest.title!r}: {len(self)} galaxies, {self._store.kind} {self._store.path}>"

    @property
    def manifest(self) -> schema.Manifest:
        """What the atlas says of itself: title, version, models, sources, provenance."""
        return self._store.manifest

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of the SHA-256 of what it says of itself: title, rows, date, models; links have it too."""
        manifest = self.manifest
        models = {name: about.get("sha256") for name, about in sorted(manifest.embeddings.items())}
        known = json.dumps([manifest.title, manifest.rows, manifest.created, models])
        return hashlib.sha256(known.encode()).hexdigest()[:8]

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._store.path

    @property
    def kind(self) -> str:
        """Its form: "folder" or "bundle"."""
        return self._store.kind

    @property
    def compares_with(self) -> str:
        """How vectors are compared on this machine: by the compiled function and how many threads, or by numpy."""
        return comparing()

    def columns(self) -> pa.Table:
        """Return the columns that `where` may use: column, type, unit, ucd, description."""
        return self._store.describe()

    def models(self) -> dict[str, dict[str, Any]]:
        """Return the cards of the models that travel with the atlas, by kind."""
        return dict(self._cards)

    def familiarity(self, *, by: str | None = None) -> Familiarity | None:
        """Return how a sample of the atlas compares with what the model of its vectors learned from, as percentiles.

        `by` is the embedding, the main one unless given. None where the model does not travel along or its card does
        not say, where there are no vectors, and for an atlas behind an address, of which a sample would have to come
        over the network. Raises QueryError for an embedding that there is not.
        """
        name = by or self.manifest.main_embedding
        if name is None or self._store.elsewhere:
            return None
        if name not in self.manifest.embeddings:
            there = ", ".join(self.manifest.embeddings)
            raise QueryError(f"{self.path} has no embedding {name!r:.40}, it has: {there}")
        if name not in self._familiarity:
            self._familiarity[name] = self._compared_with_training(name)
        return self._familiarity[name]

    def _compared_with_training(self, embedding: str) -> Familiarity | None:
        encoder = self.manifest.modality(embedding).encoder
        card = self._store.card(encoder) if encoder in self._store.models() else None
        space = self.manifest.embeddings[embedding]
        if card is None or card["sha256"] != space.get("sha256") or not space["rows"]:
            return None
        reference = Reference.of_card(card)
        if reference is None:
            return None
        scores = self._store.reference_scores(embedding, reference.scorer)
        return reference.compared(scores, model=card["id"])

    @functools.cached_property
    def _cards(self) -> dict[str, dict[str, Any]]:  # kept: a folder reads the whole model with its card, to check it
        result = {name: self._store.card(name) for name in self._store.models()}
        return {name: card for name, card in result.items() if card is not None}

    def bibtex(self) -> str:
        """Return the BibTeX entries to cite for what is in the atlas, and for galsearch."""
        return citations.bibtex(self.manifest.sources)

    def acknowledgements(self) -> str:
        """Return what the sources of the atlas, and the models that travel with it, want to be said of them."""
        return citations.acknowledgements(self.manifest.sources, self.models().values())

    # ---- asking

    def search(
        self,
        what: str | Path | Galaxy | Spectrum | np.ndarray | Query | None = None,
        *,
        by: str | None = None,
        where: str | None = None,
        near: tuple[float, float] | None = None,
        radius_arcsec: float | None = None,
        k: int | None = None,
        exact: bool | None = None,
        probes: int | None = None,
        recall: float | None = None,
        distinct: bool | None = None,
        hybrid: str | None = None,
    ) -> Hits:
        """Return the k (12 unless given) galaxies most like `what` among those that pass: always min(k, matches).

        A str is words, a Path the file of an image or of a spectrum, a Spectrum one that was read, a Hit or Galaxy its
        own stored embedding (and is left out of the answer), an array an embedding `(d,)` of any length, a Query
        everything at once, which takes no options beside it. Without `what`, lists by object_id. `by` is the embedding
        to compare in, where an atlas has several.
        `where` is a SQL condition on the columns; `near` is (ra, dec) in degrees ICRS with an inclusive radius. Of a
        large atlas a part of the vectors is compared: so many that `recall` (0.98 unless said) of the k best are found,
        as measured when the atlas was written; `probes` sets the number of cells instead, `exact` compares all.
        `distinct` leaves out duplicates (2 arcsec, or one and the same vector, and those of one group of the last
        `galsearch.save_duplicates`) and counts them in `copies`. `hybrid`
        lets words match captions and names too: "rank" fuses the two rankings, "sum" adds calibrated scores.

        Raises QueryError for a bad filter, an unknown id, empty text or options beside a Query; ModelMismatchError when
        the atlas has no encoder for what was asked.
        """
        options: dict[str, Any] = {
            "where": where,
            "near": near,
            "radius_arcsec": radius_arcsec,
            "k": k,
            "exact": exact,
            "probes": probes,
            "recall": recall,
            "distinct": distinct,
            "hybrid": hybrid,
        }
        given = {name: value for name, value in options.items() if value is not None}
        if not isinstance(what, Query):
            query = self.query(what, by=by, **given)
        elif given or by is not None:
            raise QueryError(
                f"{', '.join([*given, *(['by'] if by is not None else [])])} beside a Query, which says everything "
                "itself: put it there, with dataclasses.replace(query, …), or leave it out"
            )
        else:
            query = what
        result = retrieve(self._store, query, self._embed_term)
        result.plan.provider = next((e.provider for e in list(self._encoders.values())), None)
        if self._log is not None:
            self._keep(query, result)
        return Hits(self, query, result)

    def _keep(self, query: Query, result: Result) -> None:
        """Write a search into the log."""
        spent = sum(result.plan.milliseconds.values())
        self._query_log.add(query, self._store.ids(result.rows), atlas=self.fingerprint, milliseconds=spent)

    @functools.cached_property
    def _query_log(self) -> QueryLog:
        from galsearch.discovery.query_log import QueryLog

        assert self._log is not None
        return QueryLog(self._log)

    def query(
        self,
        what: str | Path | Galaxy | Spectrum | np.ndarray | None = None,
        *,
        by: str | None = None,
        **options: Unpack[QueryOptions],
    ) -> Query:
        """Return the Query that `search` with the same arguments would answer."""
        return Query(terms=() if what is None else (self._term(what, by=by),), **options)

    def __getitem__(self, object_id: str) -> Galaxy:
        """Return one galaxy; UnknownIdError, which is a KeyError, when there is none by that id."""
        self._must_have(object_id)
        return Galaxy(self._store.rows([object_id]).to_pylist()[0], self)

    def __iter__(self) -> Iterator[Galaxy]:
        """Yield every galaxy, by object_id."""
        rows, _ = self._store.listed(self._store.condition(None, None, None), k=max(len(self), 1))
        for start in range(0, len(rows), ITERATED_ROWS):
            for columns in self._store.rows(self._store.ids(rows[start : start + ITERATED_ROWS])).to_pylist():
                yield Galaxy(columns, self)

    def __contains__(self, what: object) -> bool:
        return self._store.has(what.object_id if isinstance(what, Galaxy) else str(what))

    def rows(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of `ids` in that order; UnknownIdError for one that is not there."""
        result = self._store.rows(ids)
        if result.num_rows != len(ids):
            self._must_have(next(i for i in ids if i not in set(result["object_id"].to_pylist())))
        return result

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return small pictures as WebP bytes by id; objects without one are absent."""
        return self._store.thumbnails(ids)

    def spectra(self, ids: Sequence[str]) -> dict[str, Spectrum]:
        """Return spectra by id, as they are stored: observed unless `frame` says rest; objects without one are absent.

        Flux is float32 on the grid of SDSS (1e-4 in log10 of the vacuum wavelength), resampled with its variance.
        """
        return {row["object_id"]: from_stored(row) for row in each_spectrum(self._store.spectra(ids))}

    def read_spectrum(self, source: Path | bytes, *, name: str | None = None, **stated: Unpack[Statements]) -> Spectrum:
        """Return the spectrum of a file, a path or its bytes, as `galsearch.read_spectrum` does with its keywords.

        Where the atlas was opened for `visitors`, a worker process reads it under their limits, and `redshifts`, a
        second file, is not taken. `search` and `embed` take what comes back. Raises SchemaError as that does,
        QueryError for `redshifts` of a visitor, LimitError for a file that takes more than a visitor's may.
        """
        from galsearch.sources.spectra import read_spectrum
        from galsearch.sources.spectra.source import of_parts

        if self._workers is None:
            return read_spectrum(source, name=name, **stated)
        if stated.get("redshifts") is not None:
            raise QueryError("redshifts is a second file, and one at a time is read here; give the redshift as z")
        content = self._bounded(source) if isinstance(source, Path) else source
        called = name or (source.name if isinstance(source, Path) else "spectrum")
        facts, arrays = self._workers.run(ONE, content, title="spectrum", name=called, stated=stated)
        return of_parts(facts, arrays)

    def count(self, where: str | None = None) -> int:
        """Return how many objects pass a SQL condition."""
        return self._store.count(self._store.condition(where, None, None))

    def sql(self, text: str, *, tables: Mapping[str, pa.Table] | None = None) -> pa.Table:
        """Run one SELECT over the atlas's tables and macros, read-only, and return its rows.

        `tables` are Arrow tables that the statement may name too, each by its name of letters, digits and _.

        `embed('any words')` gives a query vector, so that
        `FROM nearest(embed('ring galaxy'), cut := z < 0.1) JOIN galaxies USING (object_id)` works; beside pictures,
        words for spectra are `nearest_spectrum(embed_spectrum('strong [O III] emission'))`.
        Raises QueryError for anything but one SELECT, for a table by a name that the atlas has, and for what DuckDB
        refuses.
        """
        for call in _CALLS_EMBED.finditer(text) if self._workers is None else ():
            name = (call[1] or "")[1:].lower() or self.manifest.main_embedding
            if name in self.manifest.embeddings:
                self._words_of(self._worded(name))  # beforehand: inside a running query its connection reads no model
        alive = weakref.ref(self)  # DuckDB keeps the function: by itself it would keep an atlas that nobody closed

        def embed(embedding: str, words: str) -> np.ndarray:
            atlas = alive()
            if atlas is None:
                raise QueryError("the atlas was closed while it was asked; open it again")
            return atlas.embed(words, by=embedding)

        return self._store.sql(text, embed=embed, tables=tables)

    def adql(
        self, text: str, *, tables: Mapping[str, pa.Table] | None = None, most: int = MOST_ADQL_ROWS
    ) -> tuple[pa.Table, bool]:
        """Run one ADQL 2.1 query over the tables of the atlas; return its rows, and whether there are more than `most`.

        Geometry, TOP, joins and sub-queries are those of the standard; docs/service.md says what is not there.
        `gs_similarity('ring galaxy')` is the cosine of an object with words and `gs_like('object_id')` that with an
        object, in an embedding that may stand as a second argument; where a TOP query is ordered by one of them,
        downward, the index answers. `tables` are Arrow tables to be named as TAP_UPLOAD.name, or with a schema of their
        own as "schema.name". Columns keep units, UCDs and descriptions where they come from a table unchanged. Raises
        QueryError for what is no query, and for tables and functions that there are not.
        """
        from galsearch.adql import answer

        return answer(self, self._workers, text, tables=tables or {}, most=most)

    def tables(self) -> pa.Table:
        """Return the columns of all tables about objects: table, column, type, unit, ucd, description, in their order.

        Tables that only make searching quicker, vectors and pictures are not among them.
        """
        from galsearch.adql import published

        return published(self)

    def read_table(self, source: Path | bytes, *, name: str | None = None) -> pa.Table:
        """Return a table file, a path or its bytes with a `name`, as `crossmatch` and `build` read it.

        Where the atlas was opened for `visitors`, a worker process reads it under their limits. Raises SchemaError for
        what is no table, LimitError for one that takes more than a visitor's may.
        """
        called = name or (source.name if isinstance(source, Path) else "table.vot")
        if isinstance(source, Path):
            content = source.read_bytes() if self._workers is None else self._bounded(source)
        else:
            content = source
        if self._workers is None:
            return formats.read_table_file(content, called)
        _, stream = self._workers.run(TABLE, content, title="table", name=called)
        try:
            table = pa.ipc.open_stream(stream).read_all()
            table.validate(full=True)  # it comes from a process that a stranger may have taken over
        except pa.ArrowInvalid:
            raise SchemaError(
                f"{printable(called)}: what was read of it is no table; send it in another format"
            ) from None
        return table

    def crossmatch(
        self,
        table: pa.Table | Path | str,
        *,
        radius_arcsec: float | np.ndarray,
        mode: str = "best",
        where: str | None = None,
        ra: str | None = None,
        dec: str | None = None,
        table_name: str | int | None = None,
        missing: Iterable[float] = (),
        keep_unmatched: bool = False,
    ) -> pa.Table:
        """Return the rows of a table together with the objects of the atlas that lie within a radius of them.

        `table` is an Arrow table, or the path of a CSV, ECSV, FITS, VOTable or Parquet file (`table_name` is which
        table of it, `missing` numbers that stand for no value), or of the folder of a HATS catalog, of which only the
        partitions near the atlas are read. Its positions, ICRS, are the columns that `ra` and
        `dec` name, else found as in `build`: by name, UCD and unit, in degrees or sexagesimal. The radius is
        inclusive, one number or one for each row. "best" gives the closest object of each row, of equally close ones
        the first by object_id, "all" every object; `where` is a SQL condition on the objects. Objects without a
        position match nothing.

        The result has the columns of the table, then object_id, separation_arcsec and those of the atlas, with units;
        a column of the table that the result has already, in upper or lower case, ends in `_in_table`. Rows are in the
        table's order, then by separation and object_id. Rows without a match are left out, or with `keep_unmatched`
        stand there with NULLs; only so may positions be missing.

        Raises SchemaError for a table without readable positions, QueryError for a bad cut, radius or mode and for
        more than 10,000,000 pairs.
        """
        from galsearch.crossmatch import match

        return match(
            self._store,
            table,
            radius_arcsec=radius_arcsec,
            mode=mode,
            where=where,
            ra=ra,
            dec=dec,
            table_name=table_name,
            missing=missing,
            keep_unmatched=keep_unmatched,
        )

    def save_hats(
        self,
        out: str | Path,
        *,
        where: str | None = None,
        name: str | None = None,
        partition_rows: int = PARTITION_ROWS,
    ) -> int:
        """Write the galaxies that pass `where` as the HATS catalog `out`, a new folder; return how many were written.

        LSDB opens it: Parquet in HEALPix partitions of up to `partition_rows`, `_healpix_29`, properties, metadata. All
        columns go along with their units; galaxies without a position are left out, and vectors and pictures stay.
        `name` is what the catalog is called, the folder's name unless given. The folder appears whole or not at all.
        Raises GalsearchError where it is there already or cannot be written, QueryError for a bad cut, SchemaError
        where no galaxy has a position.
        """
        about = {row.pop("column"): row for row in self.columns().to_pylist()}
        table = self._store.select(list(about), self._store.condition(where, None, None))
        keys = ("unit", "ucd", "description")
        fields = [describe(each, **{key: about[each.name][key] for key in keys}) for each in table.schema]
        facts = {"obs_title": self.manifest.title, "bib_reference": "; ".join(self._credits())}
        described = pa.table(table.columns, schema=pa.schema(fields))
        stated = {key: value for key, value in facts.items() if value}
        return write_hats(described, out, name=name, facts=stated, partition_rows=partition_rows)

    def _credits(self) -> list[str]:
        return [str(source["title"]) for source in self.manifest.sources if source.get("title")]

    # ---- understanding

    def lookup(self, text: str) -> Lookup:
        """Return what a text names: an object, by its id or a name in a text column, a position, or nothing.

        An exact id wins; names are compared without case, blanks, hyphens and leading zeros ("NGC5194", "ngc 05194"),
        "M 87" is "Messier 87", and a column of several names holds each. A position is written as for
        `parse_position`, or as J132952+471143; its candidates lie within one unit of its last digit, 5 to 60 arcsec,
        the nearest first. No vector is compared, and what was looked up last is remembered. `search` takes a str as
        words all the same. Raises QueryError for anything but text.
        """
        self._check_length(text)
        return self._look_up(text) if isinstance(text, str) else self._look_up.__wrapped__(text)

    def resolve(self, text: str, *, service_url: str | None = None, timeout_seconds: float = 30.0) -> Lookup:
        """Return what a text names, as `lookup`, and where the atlas has no such name, what the service Sesame knows.

        Only a text that is no id, name or position here is sent, and nothing else. Its candidates lie within 10 arcsec
        of where SIMBAD, NED or VizieR have the name, or else bear another of its names; `resolved` is the first of
        these. `service_url` is another address of Sesame. Needs galsearch[catalogs]. Raises RemoteError where the
        service does not answer, QueryError where the atlas was opened for visitors.
        """
        from galsearch.lookup import resolve
        from galsearch.remote.catalogs import sesame

        if self._workers is not None:
            raise QueryError("names are not sent to a service here; give a position, or a name that the atlas has")
        url = sesame.URL if service_url is None else service_url
        ask = functools.partial(sesame.resolve, url=url, timeout_seconds=timeout_seconds)
        return resolve(self._store, text, self.lookup(text), ask)

    def survey_picture(
        self,
        object_id: str,
        *,
        survey: str = "hips",
        size_arcsec: float = 40.0,
        pixels: int = 256,
        timeout_seconds: float = 30.0,
        **options: Any,
    ) -> SurveyPicture:
        """Return a picture of the place of an object from a survey: a square of `size_arcsec` and `pixels` a side.

        `survey` is a cut-out service: "hips" (any HiPS by hips2fits, with `hips` its identifier), "legacy", "sdss" or
        "panstarrs"; `options` are its own, such as `layer`, and `base_url` another address. One request is sent, with
        the position and nothing else, and nothing is kept. Needs galsearch[watch]. Raises QueryError for an object
        without a position and where the atlas was opened for visitors, RemoteError where the service gives no picture.
        """
        from galsearch.remote.cutouts.survey_picture import fetch_picture

        if self._workers is not None:
            raise QueryError("nothing is requested of surveys here")
        galaxy = self[object_id]
        ra, dec = galaxy.columns.get("ra"), galaxy.columns.get("dec")
        if ra is None or dec is None:
            raise QueryError(f"object {object_id!r:.60} has no position, so no survey can be asked for its picture")
        return fetch_picture(
            (ra, dec),
            survey=survey,
            size_arcsec=size_arcsec,
            pixels=pixels,
            options=options,
            timeout_seconds=timeout_seconds,
        )

    def candidates(
        self,
        found: Lookup,
        *,
        where: str | None = None,
        near: tuple[float, float] | None = None,
        radius_arcsec: float | None = None,
        k: int = 12,
    ) -> Hits:
        """Return the first `k` candidates of a look-up that pass the cuts, in its order, as hits without scores."""
        names = ", ".join("'" + one.replace("'", "''") + "'" for one in found.ids)
        among = f"object_id IN ({names})" if names else "false"
        where = among if where is None else f"({where}\n) AND {among}"
        query = Query(where=where, near=near, radius_arcsec=radius_arcsec, k=max(k, len(found.candidates), 1))
        listed = retrieve(self._store, query, self._embed_term)
        rank = {name: index for index, name in enumerate(found.ids)}
        order = sorted(range(len(listed.rows)), key=[rank[name] for name in self._store.ids(listed.rows)].__getitem__)
        return Hits(self, query, replace(listed, rows=listed.rows[order[:k]]))

    def _named(self, text: str) -> Lookup:
        from galsearch.lookup import look_up

        return look_up(self._store, text)

    def hints(self, words: str, *, by: str | None = None) -> tuple[str, ...]:
        """Return what a search in these words cannot heed, a sentence each; mostly nothing.

        They are numbers that no column answers, with the reason, words in another language than English, and kinds of
        galaxies so rare that the best hits may be none; `understand` has the same in parts. A name in a catalog that no
        object bears is said to be one (`resolve` asks where it is). Beside them stand words of
        spectra where another embedding, `by` or the main one, is to be compared, and words that the model was never
        taught (`untaught`).
        """
        from galsearch.lookup import looks_like_name
        from galsearch.zeroshot import hints

        self._check_length(words)
        if looks_like_name(words) and not self._named(words):
            return (f"no object of this atlas is called '{words.strip()}'; --resolve (atlas.resolve) asks where it is",)
        told = hints(self._store, words, by=by)
        with suppress(GalsearchError):  # no words are compared here, which the search itself will say
            told += beyond_training(self.untaught(words, by=by))
        return told

    def untaught(self, words: str, *, by: str | None = None) -> tuple[str, ...]:
        """Return the words of a text that no training text of the model had; where there are any, hits are a guess.

        "polar" in "polar-ring galaxy" is one: what is found answers "ring". Opinions, requests and words of filters do
        not count, nor what the text does not want. `by` is the embedding that is searched, the main one unless given.
        Nothing where the card of the model does not say what it was taught, as those of other makers mostly do not.
        """
        self._check_length(words)
        embedding = self._worded(by)
        taught = self._words_of(embedding).taught
        is_spectrum = self.manifest.modality(embedding).name == SPECTRUM
        return () if taught is None else untaught(words, taught, spectra=is_spectrum)

    def understand(self, words: str) -> Understanding:
        """Return how words are read: what is wanted and what not, cuts in SQL, abbreviations, slips of spelling.

        Cuts are offered only for numeric columns that the atlas has, and nothing is applied: `query` of the reading
        takes what was accepted, and `search` takes that query. Raises QueryError when there are no words.
        """
        from galsearch.zeroshot import read

        self._check_length(words)
        return read(self._store, words)

    def label(
        self,
        labels: str | Path,
        *,
        by: str | None = None,
        where: str | None = None,
        k: int | None = None,
        least: float = 0.5,
    ) -> pa.Table:
        """Return which label of a YAML file fits each galaxy that passes `where`, judged by words alone (zero-shot).

        The file has lines of `label: phrase`, `label: [phrases]` or `label: {phrases: [...], threshold: 0.2}`. The
        columns are object_id, label, best, probability, margin (to the next) and score (the cosine), by object_id, of
        the first `k` objects or of all. `label` is NULL where nothing is convincing: where the best label is not as
        probable as `least` among these labels, or its cosine is below its threshold. Probabilities are a softmax with
        the temperature of the text model; they compare the labels of the file, and no other. Without a vector all are
        NULL. `by` is the embedding to compare in, the main one unless given. Raises SchemaError for a file that is not
        one of labels, QueryError for a bad cut and an embedding that words cannot be compared in.
        """
        from galsearch.zeroshot import label

        embedding = self._worded(by)
        card, embed = self._words_of(embedding).card, functools.partial(self._embed_texts, embedding)
        return label(self._store, labels, embed, embedding=embedding, card=card, where=where, k=k, least=least)

    def contrast(
        self, more: str = "late-type", less: str = "elliptical", *, where: str | None = None, k: int | None = None
    ) -> pa.Table:
        """Return the cosine with the words `more` minus that with `less`, for each galaxy that passes `where`.

        With the words that are there it orders galaxies by Hubble type, higher being later. The columns are object_id
        and contrast (NULL without a vector), by object_id, of the first `k` objects or of all.
        """
        from galsearch.zeroshot import order

        embedding = self._worded(None)
        embed = functools.partial(self._embed_texts, embedding)
        return order(self._store, (more, less), embed, embedding=embedding, where=where, k=k)

    def _embed_texts(self, embedding: str, texts: list[str]) -> np.ndarray:
        return np.stack([self._embed_text(text, embedding) for text in texts])

    def _worded(self, by: str | None) -> str:
        """Return the embedding `by`, or the main one, in which words can be compared."""
        name = by or self.manifest.main_embedding
        if name not in self.manifest.embeddings:
            there = ", ".join(self.manifest.embeddings)
            if by is None:
                raise QueryError(
                    f"{self.path} holds no vectors, so its objects cannot be compared with words; use sql()"
                )
            raise QueryError(f"{self.path} has no embedding {by!r:.40}, it has: {there or 'none'}")
        if not self.manifest.knows_words(name):
            others = [one for one in self.manifest.embeddings if self.manifest.knows_words(one)]
            instead = f"give by={others[0]!r} (--by {others[0]}), or " if others else ""
            raise QueryError(f"words cannot be compared in '{name}' of {self.path}; {instead}ask by an object of it")
        return name

    # ---- knowledge

    def bases(self) -> pa.Table:
        """Return the knowledge bases that the atlas holds, a row for each version: see `galsearch.create_base`.

        `calibrated` says whether it has learned how votes become probabilities; with too few members it has not.
        """
        from galsearch.knowledge.members import bases_table, list_bases

        return bases_table(list_bases(self._store))

    def base(self, name: str, *, version: int | None = None) -> KnowledgeBase:
        """Return a version of a knowledge base, the last unless given, with how many members each class has.

        Where there is no base of that name, it is what a column of `galaxies` gives: all objects that have it. Raises
        QueryError for neither.
        """
        electorate = self._electorate(name, version, None)
        return replace(electorate.base, counts=electorate.members.counts)

    @overload
    def classify(  # type: ignore[overload-overlap]  # a str is one id, not several
        self,
        what: str | Path | Galaxy | np.ndarray | Spectrum,
        base: str,
        **options: Unpack[ClassifyOptions],
    ) -> Votes: ...

    @overload
    def classify(
        self,
        what: Sequence[str | Path | Galaxy | np.ndarray | Spectrum],
        base: str,
        **options: Unpack[ClassifyOptions],
    ) -> Classification: ...

    def classify(
        self,
        what: str | Path | Galaxy | np.ndarray | Spectrum | Sequence[str | Path | Galaxy | np.ndarray | Spectrum],
        base: str,
        *,
        version: int | None = None,
        by: str | None = None,
        k: int = 3,
        weight: str = "exp",
        tau: float = 1.0,
        prevalence: float | Mapping[str, float] | None = None,
        least: float = 0.5,
        max_distance: float | None = None,
        exact: bool = False,
        method: str = "votes",
        columns: Sequence[str] | None = None,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Votes | Classification:
        """Return what the `k` nearest labeled objects vote for: a label with its probability and who voted, or None.

        `what` is an object_id (str), a galaxy or hit, a file (Path), a Spectrum or an embedding (array of one
        dimension), or several of them in a list or `Hits`, which gives a Classification of as many `Votes`. `base` is a
        knowledge base (its last version unless `version` says), or a column of `galaxies`, of all objects that have it:
        text is voted on as classes, numbers are averaged. `by` is the embedding to compare in; a stored base has its
        own. An object never votes on itself.

        `weight` is "uniform", "inverse" (1/d), "exp" (e^(-d/tau)), "gaussian" (e^(-d²/2tau²)) or "rank" (1/rank), where
        d is the Euclidean distance on the unit sphere. Probabilities are calibrated on members that are left out in
        turn; `prevalence` corrects them to a population where the target of the base is so frequent, or each label of a
        mapping. There is no label where none is as probable as `least`, and none where the nearest voter is further
        than `max_distance`: unless given, further than 99 % of the members are from their nearest. `exact` compares all
        members of a large base, not the likeliest cells only. `columns` are those of the catalog to show of voters,
        unless given those of the base and the line ratios of a BPT diagram, where lines were measured.

        With `method` "probe" the probabilities are those of the probe of the base that is in use
        (`galsearch.train_probe`), and the neighbors are what it is like; a probe knows the members that trained it.

        Raises QueryError for a base that there is not, for k beyond its members, for a probe where none is in use, and
        for one object without a vector; among several such an object has no label.
        """
        from galsearch.knowledge.classify import Way, check_way, classify, columns_shown
        from galsearch.knowledge.probes import probed

        way = Way(k, weight, tau, least, max_distance)
        check_way(way)
        electorate = self._electorate(base, version, by)
        shown = columns_shown(electorate) if columns is None else tuple(columns)
        self._check_columns(shown)
        one = isinstance(what, (str, Path, Galaxy, Spectrum)) or (isinstance(what, np.ndarray) and what.ndim == 1)
        several: Sequence[object] = [what] if one or not isinstance(what, Iterable) else list(what)
        parts = [self._classified(each, electorate.base.embedding) for each in several]
        vectors = self._stacked(parts, may_lack=not one)
        result = classify(
            electorate,
            [part.text if part.kind == "object" else None for part in parts],
            vectors,
            way,
            names=_names(several, parts),
            prevalence=prevalence,
            exact=exact,
            columns=shown,
            probe=probed(electorate, vectors, method),
            **({} if progress is None else {"progress": progress}),
        )
        if one:
            result[0].neighbors  # noqa: B018  so few rows that they are read now, and outlive the atlas
        return result[0] if one else result

    def probes(self, base: str) -> list[TrainedProbe]:
        """Return the probes of a knowledge base by number, with what each gave on the members that never train."""
        from galsearch.knowledge.probes import list_probes

        return list_probes(self._store, base)

    def audit(
        self,
        base: str,
        *,
        version: int | None = None,
        by: str | None = None,
        k: int = 10,
        weight: str = "exp",
        tau: float = 1.0,
        exact: bool = False,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> pa.Table:
        """Return the members of a knowledge base whose label disagrees with all of their `k` nearest other members.

        Their labels are the likeliest to be mistakes: those whose neighbors agree most come first, then those that lie
        closest. The columns are object_id, label, neighbors_say (what the others vote for), share (the part of the
        votes that says so) and distance (of the nearest). In a base of numbers it is the members that lie 3 errors of
        the vote from it: object_id, value, neighbors_say, uncertainty, sigmas, distance. The arguments are those of
        `classify`.
        """
        from galsearch.knowledge.classify import audit

        electorate = self._electorate(base, version, by)
        return audit(electorate, k=k, weight=weight, tau=tau, exact=exact, progress=progress or silent)

    def _electorate(self, name: str, version: int | None, by: str | None) -> Electorate:
        """Return the members of a base, or of all objects that have a column; those asked for last are kept."""
        if not isinstance(name, str):
            raise QueryError(f"base is {name!r:.40}, expected the name of a knowledge base or of a column, as text")
        if len(self._store.parts) > 1:
            raise QueryError(
                f"a knowledge base belongs to one atlas, and {name!r:.40} was asked of {len(self._store.parts)} that "
                "are open as one; open one of them alone"
            )
        return self._electorates(name, version, by)

    def _read_electorate(self, name: str, version: int | None, by: str | None) -> Electorate:
        from galsearch.knowledge.heldout import Electorate
        from galsearch.knowledge.members import base_of_column, find_base, read_members

        base = find_base(self._store, name, version=version)
        if base is None and version is not None:
            raise QueryError(f"{self.path} has no knowledge base '{name}', so no version {version!r:.20} of it")
        if base is None:
            return Electorate(self._store, *base_of_column(self._store, name, by=by))
        if by not in (None, base.embedding):
            raise QueryError(
                f"base '{name}' compares '{base.embedding}', and by is {by!r:.40}; create one by that embedding"
            )
        return Electorate(self._store, base, read_members(self._store, base))

    def _classified(self, what: object, embedding: str) -> Term:
        """Return the query term for what is classified; a str is an object_id."""
        if isinstance(what, str):
            return Term("object", what, by=embedding)
        if isinstance(what, (Path, Galaxy, Spectrum, np.ndarray)):
            return self._term(what, by=embedding)
        raise QueryError(
            f"cannot classify what is of the type {type(what).__name__}; give an object_id (str), a galaxy, a file "
            "(Path), an embedding (array of one dimension), or a list of them"
        )

    def _stacked(self, parts: Sequence[Term], *, may_lack: bool) -> np.ndarray:
        """Return the unit vectors of terms in one embedding, `(n, d)`; those of objects are read at once.

        An object without one has NaN where it `may_lack` it.
        """
        ids = list(dict.fromkeys(part.text for part in parts if part.kind == "object"))
        for name in ids:
            self._must_have(name)
        embedding = next((part.by for part in parts if part.kind == "object"), None)
        vectors: dict[str, np.ndarray] = {}
        if embedding is not None:
            there = self._store.has_vector(embedding, self._store.rows_of(ids)) | (not may_lack)
            held = [name for name, has in zip(ids, there.tolist(), strict=True) if has]
            nothing = np.full(self.manifest.embeddings[embedding]["dim"], np.nan, np.float32)
            vectors = dict.fromkeys(ids, nothing)
            vectors |= zip(held, self._store.embeddings(embedding, held), strict=True)
        each = [vectors[part.text] if part.kind == "object" else self._embed_term(part)[1] for part in parts]
        return np.stack(each) if each else np.empty((0, 0), np.float32)

    def _check_columns(self, names: Sequence[str]) -> None:
        known = self._store.describe()["column"].to_pylist() if names else []
        unknown = [name for name in names if name not in known]
        if unknown:
            raise QueryError(f"{self.path} has no column '{unknown[0]}', it has {', '.join(known[:40])}")

    # ---- discovery

    def anomalies(
        self,
        budget: int = 50,
        *,
        where: str | None = None,
        near: tuple[float, float] | None = None,
        radius_arcsec: float | None = None,
        among: str | None = None,
        normals: str | None = None,
        labels: str | None = None,
        by: str | None = None,
        detectors: Sequence[str] | None = None,
        columns: Sequence[str] = (),
        k: int = 10,
        fdr: float | None = None,
        seed: int = 0,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Anomalies:
        """Return up to `budget` of the oddest objects that pass `where` and the cone, with p-values, q-values and why.

        `among` is a SQL condition on those that they are compared with and belong to, all unless given: "odd among
        barred spirals". `normals` is one on objects that are known to be ordinary: only they are compared with, and
        they are not listed. Without it each fifth of the objects is judged by the others, and what is odd but not rare
        hides itself. `labels` is a column of classes, which adds detectors of what fits none of them; `columns` are
        measures that are one more detector; `detectors` names those to use (see docs/discovery.md); `k` is that of the
        kNN distance; `by` is the embedding, the main one unless given.

        A p-value is conformal: the share of normals that are at least as odd. A q-value is the false discovery rate of
        the list down to there, and the tier follows from it: candidate up to `fdr` (0.1), near-miss up to 0.5, else
        normal. With `fdr` given only candidates are listed. Raises QueryError for an embedding or column that there is
        not, bad conditions, a budget below 1, k beyond the reference, a single class, and for too few normals.
        """
        from galsearch.discovery.anomalies import Request, find_anomalies

        request = Request(budget, where, near, radius_arcsec, among, normals, labels, by, k=k, fdr=fdr, seed=seed)
        request = replace(request, detectors=None if detectors is None else tuple(detectors), columns=tuple(columns))
        return find_anomalies(self._store, request, progress or silent)

    def saved_anomalies(self, run: str | None = None, *, fdr: float = 0.1, budget: int | None = None) -> pa.Table:
        """Return a list kept by `galsearch.save_anomalies`, the last unless `run` says, the oddest first.

        All objects that were judged are in it unless `budget` says how many; q-values and tiers are worked out from the
        stored p-values for `fdr`. Raises QueryError where there is no such list.
        """
        from galsearch.discovery.anomalies import saved_anomalies

        return saved_anomalies(self._store, run=run, fdr=fdr, budget=budget)

    def duplicates(
        self,
        by: str | None = None,
        *,
        where: str | None = None,
        radius_arcsec: float | None = None,
        seed: int = 0,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Duplicates:
        """Return groups of objects that are one, of those that pass `where`, each link with its grounds.

        Two are one within `radius_arcsec` on the sky: unless given 3 pixels of the pictures where their scale is known,
        at most 2 arcsec, else that; the result says which. Where one of them has no position, their stored pictures
        decide, turned, mirrored and shifted onto each other, and where one has no picture either, vectors that are
        equal (cosine of 0.9999). Positions further apart keep two objects apart whatever they look like. `by` is
        "position", "picture" or "vector": that alone decides. `seed` draws the cells in which hashes are compared.
        See docs/discovery.md for confidences and what is missed. Raises QueryError for a bad condition or radius, and
        where nothing can be compared.
        """
        from galsearch.discovery.duplicates import DuplicatesRequest, find_duplicates

        return find_duplicates(self._store, DuplicatesRequest(by, where, radius_arcsec, seed), progress or silent)

    def saved_duplicates(self, run: str | None = None) -> pa.Table:
        """Return groups kept by `galsearch.save_duplicates`, those of the last run unless `run` says.

        In the order of the list that was saved, in each group the object that is kept first, then by object_id. Raises
        QueryError where there is no such run.
        """
        from galsearch.discovery.duplicates import saved_duplicates

        return saved_duplicates(self._store, run=run)

    # ---- review

    def rank_by_verdicts(
        self,
        verdicts: Verdicts,
        *,
        kind: str | None = None,
        label: str | None = None,
        query: str | None = None,
        novelty: str | bool | None = None,
        where: str | None = None,
        near: tuple[float, float] | None = None,
        radius_arcsec: float | None = None,
        by: str | None = None,
        k: int = 50,
        include_judged: bool = False,
    ) -> pa.Table:
        """Return the `k` objects that verdicts of one kind predict to be of most interest, best first.

        `kind` is what was judged for, and need not be named where all verdicts are of one; with `label` the objects of
        that label in one's own words are wanted. A probe of the vectors `by` (the main ones unless given) learns from
        what was judged, beside a sample of the atlas, and begins at `query`, a text; unless given, the words of the
        kind where words can be compared, "" for no words. `novelty` is a run of saved anomalies, True for the last:
        the score is then interest times (1 - p-value), as Lochner and Bassett (2021) multiply the two.

        The columns are object_id, score, interest (the probability of a yes), interest_low and interest_high (its
        interval of 95 %), novelty, then those of the catalog. What was judged is left out unless
        `include_judged`. Ties are by object_id. Raises QueryError where neither a yes, a start nor novelty is there,
        where verdicts are of other kinds alone, and where no object passes.
        """
        from galsearch.discovery.learning import rank

        if kind is not None and verdicts.all():
            verdicts.check_kind(kind)
        sample, task = self._learned(verdicts, kind, query, by, label=label, novelty=novelty, where=where, k=k)
        task = replace(task, near=near, radius_arcsec=radius_arcsec)
        return rank(self._store, sample, task, include_judged=include_judged)

    def review_queue(
        self,
        verdicts: Verdicts,
        *,
        kind: str | None = None,
        label: str | None = None,
        query: str | None = None,
        novelty: str | bool | None = None,
        where: str | None = None,
        near: tuple[float, float] | None = None,
        radius_arcsec: float | None = None,
        by: str | None = None,
        k: int = 20,
        reviewer: str | None = None,
        second_opinions: float = 0.0,
    ) -> pa.Table:
        """Return the next `k` objects to judge, the most valuable first, each with the reason in words and numbers.

        Value is predicted interest plus the bits that a verdict is expected to tell, times novelty where saved
        anomalies are given; each that is chosen makes those like it less valuable, and every tenth is one of which
        least is known. The arguments are those of `rank_by_verdicts`. Who was judged by anybody is left out; of the
        queue of a `reviewer` a share of `second_opinions` (0 to 1) is what others judged and this one did not.

        The columns are object_id, reason, value, interest, information (bits), likeness and like (the cosine with the
        most similar object judged or standing before it), novelty, then those of the catalog.
        """
        from galsearch.discovery.learning import queue

        sample, task = self._learned(verdicts, kind, query, by, label=label, novelty=novelty, where=where, k=k)
        task = replace(task, near=near, radius_arcsec=radius_arcsec)
        return queue(self._store, sample, task, reviewer=reviewer, second_opinions=second_opinions)

    def adapt(
        self,
        verdicts: Verdicts,
        *,
        texts: Mapping[str, str] | None = None,
        by: str | None = None,
        seed: int = 0,
        progress: Progress = silent,
    ) -> Adaptation:
        """Return a correction of the vectors of words, learned from verdicts; `galsearch.save_adaptation` keeps it.

        Each kind of the verdicts stands for its own name as a query text, or for what `texts` says. Half of the judged
        objects teach it, the other half, the same for ever, say what it gained. Texts that mean something else stay
        where they are, and so do the vectors of the atlas: `save_adaptation` writes a few kilobytes, and
        `galsearch.use_adaptation` takes them out of use. The atlas itself must be opened again to heed it. `by` is the
        embedding, the main one unless given. Raises QueryError for too few verdicts (some 25 with yes and 25 with no
        of a kind), and where nothing can be gained.
        """
        from galsearch.discovery.adaptation import learn
        from galsearch.zeroshot import phrases

        embedding = self._worded(by)
        words, (_, guards) = self._plain_words(embedding), phrases(self._store, embedding)
        options = {"embedding": embedding, "words_sha256": words.card["sha256"], "texts": texts, "seed": seed}
        return learn(self._store, words.encode, verdicts, guards=guards, progress=progress, **options)

    def adaptations(self) -> list[Adaptation]:
        """Return every correction of words that the atlas holds, by number; the highest `promoted` is in use."""
        from galsearch.discovery.adaptation import adaptations

        return adaptations(self._store)

    def _learned(
        self, verdicts: Verdicts, kind: str | None, query: str | None, by: str | None, **options: Any
    ) -> tuple[Sample, Task]:
        """Return the sample that verdicts are learned beside, and what is to be ranked."""
        from galsearch.discovery.learning import Task

        kind = verdicts.only_kind(kind)
        embedding = self.manifest.embedding_named(by, path=self.path)
        start = self._start(kind if query is None else query, embedding, stated=query is not None)
        return self._samples(embedding), Task(verdicts.current(kind), kind, start=start, **options)

    def _start(self, words: str, embedding: str, *, stated: bool) -> np.ndarray | None:
        """Return the vector of words to start from; None for no words, and where nobody stated them and none can be."""
        if not words.strip() or not (stated or self.manifest.knows_words(embedding)):
            return None
        try:
            return self.embed(words, by=embedding).astype(np.float64)
        except ModelMismatchError:
            if stated:
                raise
            return None  # its vectors came with a table, and no model of words with them

    def _drawn_sample(self, embedding: str) -> Sample:
        from galsearch.discovery.learning import Sample

        return Sample.draw(self._store, embedding)

    def identify(
        self,
        what: str | Galaxy | Hits | Sequence[str | Galaxy] | None = None,
        *,
        where: str | None = None,
        kind: str = "any",
        against: str | Path | pa.Table | Against | Sequence[str | Path | pa.Table | Against] = (),
        services: Sequence[str] = (),
        type_column: str | None = None,
        kinds: Sequence[str] = (),
        radius_arcsec: float | None = None,
        cache: Path | str | None = None,
        max_age_days: float = 30.0,
        timeout_seconds: float = 60.0,
        deadline_seconds: float | None = None,
        service_urls: Mapping[str, str] | None = None,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Identifications:
        """Return which objects are known: of this kind, of another kind, not found, or not checked.

        `what` are object_ids, galaxies, hits or anomalies; without it all objects that pass `where`. `kind` is what
        you take them for, such as "lens"; with "any" each match is of this kind. They are looked up in `against`:
        tables, atlases and HATS catalogs on disk (a path, PATH=KIND, a pyarrow.Table, or `galsearch.Against`), and in
        `services`, "simbad", "ned", "vizier:V/147/sdss12": nothing is sent unless one is named. What a row of a catalog
        is says its KIND, else `type_column`, else it counts as the kind that you ask for. `kinds` are more types that
        count as that kind. A match lies within `radius_arcsec`, ICRS, inclusive; unless said 2 arcseconds and two
        pixels of the object's picture, in quadrature. Proper motion is ignored.

        "not found" is only said where every source answered; one that failed, with its error, stands beside each
        object. Answers of services are kept in the file `cache` for `max_age_days`; `timeout_seconds` is for one
        question, `deadline_seconds` for all of one service, `service_urls` maps services to mirrors. Raises QueryError
        for what cannot be looked up, SchemaError for a catalog that cannot be read, and GalsearchError where the extra
        `catalogs` is not installed; a service that fails raises nothing.
        """
        from galsearch.discovery.identify import identify, request_of
        from galsearch.remote.catalogs.ask import Options
        from galsearch.remote.catalogs.cache import default_path

        path = default_path() if cache is None else Path(cache)
        request = request_of(
            what,
            against,
            **{"where": where, "kind": kind, "type_column": type_column, "radius_arcsec": radius_arcsec},
            **{"services": tuple(services), "kinds": tuple(kinds), "service_urls": dict(service_urls or {})},
            options=Options(path, max_age_days, timeout_seconds, deadline_seconds) if services else None,
        )
        return identify(self._store, request, progress or silent)

    def saved_identifications(self, run: str | None = None, *, state: str | None = None) -> pa.Table:
        """Return what `galsearch.save_identifications` kept, the last run unless `run` says, by object_id.

        `state` leaves only objects of that state. Raises QueryError where there is no such run or state.
        """
        from galsearch.discovery.identify import saved_identifications

        return saved_identifications(self._store, run=run, state=state)

    # ---- embeddings

    def embed(self, what: str | Path | Galaxy | Spectrum | np.ndarray, *, by: str | None = None) -> np.ndarray:
        """Return the unit vector `(d,) float32` of words, a picture or spectrum file, a Spectrum, a galaxy, an array.

        `by` is the embedding that it is for; unless given that of its kind of data, else the main one.
        """
        return self._embed_term(self._term(what, by=by))[1]

    def _term(self, what: str | Path | Galaxy | Spectrum | np.ndarray, *, by: str | None) -> Term:
        """Return the term for `what`: of a file its content says whether it is a spectrum, where there are any."""
        name = self.manifest.embedding_of(SPECTRUM)
        if isinstance(what, Spectrum):
            if name is None:
                raise QueryError(
                    f"{self.path} holds no spectra that {what.name or 'this spectrum'} could be like; give a picture "
                    "or an object of it"
                )
            if by in self.manifest.embeddings and self.manifest.modality(by).name != SPECTRUM:
                raise QueryError(self._other_kind(by, SPECTRUM, what.name))
            return term(self._embed_spectrum(what, by or name), by=by or name)
        if isinstance(what, Path) and self._workers is None and name is not None:
            from galsearch.sources.spectra import is_spectrum  # readers of files are loaded when one is to be read

            if is_spectrum(what):
                return Term(SPECTRUM, str(what), by=by)
        return term(what, by=by)

    def _embed_spectrum(self, spectrum: Spectrum, embedding: str) -> np.ndarray:
        encoder = self._encoder(schema.MODALITIES[SPECTRUM].encoder)
        seen = model_input(spectrum, encoder.grid, frame=self._frame(embedding))
        return encoder.encode([seen])[0]

    def _frame(self, embedding: str) -> Frame:
        """Return the frame in which the spectra of an embedding are compared."""
        return "observed" if self.manifest.embeddings[embedding].get("frame") == "observed" else "rest"

    def _embed_term(self, part: Term) -> tuple[str, np.ndarray]:
        """Return the embedding that a term is compared in, and its unit vector."""
        embedding = self._embedding(part)
        if part.kind == "object":
            self._must_have(part.text)
            return embedding, self._store.embeddings(embedding, [part.text])[0]
        if part.kind == "embedding":
            return embedding, self._embed_array(embedding, np.asarray(part.value, dtype=np.float64))
        if part.kind == "text":
            embedding = self._worded(embedding)
            return embedding, self._embed_text(part.text, embedding).copy()  # the caller may change it, the cache not
        modality = self.manifest.modality(embedding)
        if modality.term_kind != part.kind:
            raise QueryError(self._other_kind(embedding, part.kind, part.text))
        path = Path(part.text)
        if modality.name == SPECTRUM:
            return embedding, self._embed_spectrum(self.read_spectrum(path), embedding)
        return embedding, self._encoder(modality.encoder).encode([self.render(path)])[0]

    def _other_kind(self, embedding: str, kind: str, name: str) -> str:
        """Return the message for a picture or spectrum `name` that is to be compared in an embedding of the other."""
        ours = self.manifest.modality(embedding).name
        fitting = self.manifest.embedding_of(kind)
        other = "" if fitting is None else f", or compare in '{fitting}' with --by {fitting} (by in Python)"
        return (
            f"'{embedding}' of {self.path} is made of {_a(ours)}, and {name!r} is {_a(kind)}; "
            f"give {_a('picture' if ours == schema.MAIN else ours)}{other}"
        )

    def _embedding(self, part: Term) -> str:
        """Return the embedding that a term is compared in: the one it names, that of its kind of data, the main one."""
        kind = next((one.name for one in schema.MODALITIES.values() if one.term_kind == part.kind), None)
        name = part.by or (self.manifest.main_embedding if kind is None else self.manifest.embedding_of(kind))
        if name in self.manifest.embeddings:
            return name
        there = ", ".join(self.manifest.embeddings)
        if part.by or there:
            raise QueryError(f"{self.path} has no embedding {part.by or kind!r}, it has: {there or 'none'}")
        raise QueryError(f"{self.path} holds no vectors, so it cannot be asked by {part.kind}; use sql()")

    def render(self, path: str | Path) -> np.ndarray:
        """Return a picture file as it is shown to the encoder, whole and in its own size, `(h, w, 3) uint8`.

        Where the atlas was opened for `visitors`, a worker process reads it under their limits. Raises SchemaError for
        what is no picture, LimitError for one that is too large.
        """
        path = Path(path)
        if self._workers is None:
            return images.render(images.read_picture(path))
        limits = self._workers.limits
        content = self._bounded(path)
        about = {"name": path.name, "memory_bytes": limits.memory_bytes, "most": limits.result_bytes}
        facts, pixels = self._workers.run(RENDER, content, title="picture", **about)
        return np.frombuffer(pixels, np.uint8).reshape(facts["height"], facts["width"], 3)

    def _bounded(self, path: Path) -> bytes:
        """Return the bytes of a stranger's file, as many as a worker may take and one more, which it refuses."""
        assert self._workers is not None
        with path.open("rb") as file:
            return file.read(self._workers.limits.memory_bytes // 4 + 1)

    def _embed_array(self, embedding: str, vector: np.ndarray) -> np.ndarray:
        """Return an array as a unit vector; one of another length goes through the projector that takes it."""
        direction, space = unit(vector), self.manifest.embeddings[embedding]
        if len(direction) != space["dim"]:
            for name in [one for one in self._store.models() if one.endswith(schema.PROJECTOR)]:
                projector = self._encoder(name)
                if projector.card["input"]["dim"] == len(vector):
                    return projector.encode([vector])[0]  # as it came: its length may count
        return direction

    def _encoded_text(self, text: str, embedding: str) -> np.ndarray:
        self._check_length(text)
        return self._words_of(embedding).encode([text])[0]

    def _words_of(self, embedding: str) -> Words:
        """Return what embeds words into the space of an embedding, as the atlas has learned to."""
        if embedding not in self._words:
            words = self._plain_words(embedding)
            self._words[embedding] = replace(words, correction=self._correction(embedding, words))
        return self._words[embedding]

    def _correction(self, embedding: str, words: Words) -> Correction | None:
        if self._store.table("adaptations") is None:  # as in most: what learns loads far more than a search needs
            return None
        from galsearch.discovery.adaptation import in_use

        adapted = in_use(self._store, embedding, words.card["sha256"])
        return None if adapted is None else adapted.correction

    def _plain_words(self, embedding: str) -> Words:
        """Return what embeds words as the model does that travels in the atlas."""
        if not self.manifest.embeddings[embedding].get(schema.WORDS_MODEL):
            return Words(self._encoder("text"))
        projector = self._encoder(schema.words_model(embedding))
        return Words(self._text_for(projector.card, embedding), projector)

    def _text_for(self, projector: Mapping[str, Any], embedding: str) -> Encoder:
        """Return the text encoder whose vectors a projector takes: one of the atlas's own, else the shipped one."""
        wanted = projector["input"].get("sha256")
        loaded = self._encoders.get("text")
        if loaded is not None and loaded.sha256 == wanted:
            return loaded
        for name in {"text", schema.text_model(embedding)}.intersection(self._store.models()):
            kept = self._store.model(name)
            if kept is not None and kept[0]["sha256"] == wanted:
                return Encoder.from_bytes(*kept, device=self._device, threads=QUERY_THREADS)
        encoder = Encoder.from_folder(shipped("text"), device=self._device, threads=QUERY_THREADS)
        check_takes(projector, encoder.card)
        return encoder

    def _check_length(self, text: str) -> None:
        """Raise LimitError for a visitor's text that is too long to be read in this process."""
        if self._workers is not None and isinstance(text, str) and len(text) > self._workers.limits.text_characters:
            most = self._workers.limits.text_characters
            raise LimitError(f"the text has {len(text)} characters, at most {most} are taken here; write a shorter one")

    def prepare(self, *, by: str | None = None) -> None:
        """Begin to load the encoder of words beside other work, so that the first search in words waits less.

        `by` is the embedding that is to be searched, the main one unless given. What goes wrong is told by that search.
        """

        def load() -> None:
            with suppress(GalsearchError):
                self._words_of(self._worded(by))

        threading.Thread(target=load, name="galsearch-encoder").start()

    def _encoder(self, kind: str) -> Encoder:
        if kind not in self._encoders:
            with self._loading:
                if kind not in self._encoders:
                    self._encoders[kind] = self._load_encoder(kind)
        return self._encoders[kind]

    @functools.cached_property
    def _observer(self) -> Observer:
        from galsearch.rerank.observe import Observer

        return Observer(self._store, lambda: self._encoder("image"))

    def _load_encoder(self, kind: str) -> Encoder:
        """Return the atlas's own encoder, or the shipped one where the atlas has none and the model is the same."""
        name = self.manifest.embedding_of_model(kind)
        if name is None:
            raise QueryError(f"{self.path} holds no vectors that could be asked by {kind}; use sql()")
        if kind == schema.words_model(name):
            return self._load_projector(name)
        space, same = self.manifest.embeddings[name], self._installed(kind)
        kept = None if same else self._store.model(kind)
        if same:
            encoder = Encoder.from_folder(same, device=self._device, threads=QUERY_THREADS)
        elif kept:
            encoder = Encoder.from_bytes(*kept, device=self._device, threads=QUERY_THREADS)
        elif kind == "text" and space.get("words"):
            raise ModelMismatchError(
                f"{self.path}: {space['words']}; without words, ask by one of its objects, by an array or in SQL"
            )
        elif space["sha256"] is None or space.get("words"):
            raise ModelMismatchError(
                f"{self.path}: its vectors came with their table, made by '{space['model']}', and no {kind} encoder of "
                "that model travels with it; ask by one of its objects, by an array of that model or in SQL, or "
                "rebuild the atlas from pictures"
            )
        else:
            encoder = Encoder.from_folder(shipped(kind), device=self._device, threads=QUERY_THREADS)
        check_same_model(space, encoder.card, name=f"{self.path}")
        return encoder

    def _installed(self, kind: str) -> Path | None:
        """Return the installed model that is the very one of an atlas elsewhere: it need not come over the network."""
        card = self._store.card(kind) if self._store.elsewhere else None
        if card is None or card.get("kind") not in ("text", "image"):
            return None
        with suppress(GalsearchError):
            folder = shipped(card["kind"])
            if read_card(folder)["sha256"] == card.get("sha256"):
                return folder
        return None

    def _load_projector(self, embedding: str) -> Encoder:
        """Return the projector of words into an embedding: the atlas's own, or the shipped one where it is the same."""
        space, kept = self.manifest.embeddings[embedding], self._store.model(schema.words_model(embedding))
        if kept:
            encoder = Encoder.from_bytes(*kept, device=self._device, threads=QUERY_THREADS)
        else:
            folder = shipped_words(space["space"])
            if folder is None:
                raise ModelMismatchError(
                    f"{self.path}: no model {space[schema.WORDS_MODEL]} of words for '{embedding}' travels with it or "
                    "is installed; ask by one of its objects, or for the bundle with its models"
                )
            encoder = Encoder.from_folder(folder, device=self._device, threads=QUERY_THREADS)
        self._check_projector(embedding, encoder.card)
        return encoder

    def _check_projector(self, embedding: str, card: Mapping[str, Any]) -> None:
        space = self.manifest.embeddings[embedding]
        stated = (space[schema.WORDS_SHA256], space["space"], space["dim"])
        if stated != (card["sha256"], card["space"], card["dim"]):
            raise ModelMismatchError(
                f"{self.path}: its words for '{embedding}' are made with {space[schema.WORDS_MODEL]} (sha256 "
                f"{space[schema.WORDS_SHA256]!s:.12}), this model is {card['id']} (sha256 {card['sha256']:.12}); "
                "use the model that travels with the atlas, or build it again"
            )

    def _must_have(self, object_id: str) -> None:
        if self._store.has(object_id):
            return
        from galsearch.lookup import similar_ids

        near = " or ".join(repr(one) for one in similar_ids(self._store, object_id))
        remedy = (
            f"did you mean {near}?"
            if near
            else ('ids are exact text, list some with `galsearch sql … "SELECT object_id FROM galaxies"`')
        )
        raise UnknownIdError(f"no object '{object_id}' in {self.path} ({len(self)} objects); {remedy}")

    # ---- checking

    def check(self, *, seed: int = 0) -> Iterator[Finding]:
        """Yield a Finding for each thing verified: blocks, rows, ids, norms, models and their self-tests, recall."""
        yield from verify(self._store, seed=seed)
        for kind in self._store.models():
            yield self._check_model(kind)

    def _check_model(self, kind: str) -> Finding:
        try:
            kept = self._store.model(kind)
            if kept is None:
                raise FormatError(f"{self.path}: model '{kind}' is named and not there")
            encoder = Encoder.from_bytes(*kept, device=self._device)
            encoder.self_test()
            self._check_own_model(kind, encoder.card)
        except GalsearchError as error:
            return Finding(f"model {kind}", False, str(error), "rebuild the atlas with the model it was made with")
        return Finding(f"model {kind}", True, f"{encoder.model_id} gives its self-test vectors on {encoder.provider}")

    def _check_own_model(self, kind: str, card: dict[str, Any]) -> None:
        """Raise ModelMismatchError unless a model that travels with the atlas belongs to the embedding it is for."""
        name = self.manifest.embedding_of_model(kind)
        if name is None:
            return
        space = self.manifest.embeddings[name]
        if kind == schema.words_model(name):
            self._check_projector(name, card)
        elif card["kind"] == "text" and space.get(schema.WORDS_MODEL):
            projector = self._store.model(schema.words_model(name))
            if projector is not None:
                check_takes(projector[0], card)
        else:
            check_same_model(space, card, name=f"{self.path}")
