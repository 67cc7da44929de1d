"""An atlas to ask: open it, search it, look at what comes back. Nothing here writes to it."""

from __future__ import annotations

import functools
import re
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from galsearch import citations, formats, schema
from galsearch.encode import Encoder, check_same_model, shipped
from galsearch.errors import GalsearchError, LimitError, ModelMismatchError, QueryError
from galsearch.query import Query, Term, unit
from galsearch.retrieval import Answer, answer
from galsearch.schema import Finding
from galsearch.science import images
from galsearch.store import Store, comparing, open_for_visitors, open_stores
from galsearch.store.check import verify
from galsearch.workers import Limits, Pool

if TYPE_CHECKING:
    from astropy.table import Table

    from galsearch.language import Refinement, Understanding
    from galsearch.lookup import Lookup
    from galsearch.rerank import Reranked
    from galsearch.rerank.observe import Observer

CACHED_TEXTS = 256
RENDER = "galsearch.encode:render_picture"  # the task of a worker
PROJECTOR = "_projector"  # how the names of models end that take vectors of another model
BUNDLE, BIBTEX = ".duckdb", ".bib"
QUERY_THREADS = 1  # one sentence or picture at a time gains nothing from more, and many users share the machine
_CALLS_EMBED = re.compile(r"\bembed\s*\(", re.IGNORECASE)


def open(path: str | Path | Sequence[str | Path], *, device: str = "auto", visitors: Limits | None = None) -> Atlas:
    """Open an atlas, a folder or a bundle, for reading; several in a list are asked as one.

    `device` is where its encoders run: "auto", "cpu" or "cuda". Where strangers ask, through a page or a service, give
    `visitors`: every condition, statement and picture file then goes to a worker process under these limits, with a
    list of allowed functions, and messages tell no folders; what overruns or ends its process is a LimitError. Raises
    FormatError when it is no atlas or damaged, VersionTooNewError or VersionTooOldError for another major version of
    the format, ModelMismatchError for several of different models.
    """
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    if visitors is None:
        return Atlas(open_stores([Path(one) for one in paths]), device=device)
    store, workers = open_for_visitors([Path(one) for one in paths], visitors)
    return Atlas(store, device=device, workers=workers)


class Galaxy:
    """One object: `object_id` and every column of `galaxies` as attributes; NULL is None."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = columns

    @property
    def object_id(self) -> str:
        """The object's identifier."""
        return self.columns["object_id"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "columns":
            raise AttributeError(name)
        try:
            return self.columns[name]
        except KeyError:
            raise AttributeError(f"no column '{name}'; there are: {', '.join(self.columns)}") from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.object_id!r})"


class Hit(Galaxy):
    """A galaxy that was found: also has `score`, the cosine similarity to the query, or None when only listed."""

    def __repr__(self) -> str:
        score = "" if self.score is None else f", score={self.score:.3f}"
        return f"Hit({self.object_id!r}{score})"


class Hits(Sequence):
    """What a search found, best first; equal scores are ordered by object_id.

    `plan` says how it was found, `query` what was asked. `ids` are the object_ids, `scores` the cosines,
    `(n,) float32` (None when only listed). `table` has object_id, score and all columns, with units; on a large
    atlas it is read when first asked for, so ask before the atlas is closed. `reranked` says what `rerank` did; None
    for the order of a search.
    """

    def __init__(self, atlas: Atlas, query: Query, found: Answer, *, reranked: Reranked | None = None) -> None:
        self.query = query
        self.reranked = reranked
        self.plan = found.plan
        self.scores = found.scores
        self.ids: list[str] = atlas._store.ids(found.rows)
        self._found = found
        self._atlas = atlas
        if atlas._store.in_memory:  # costs nothing, and outlives the atlas
            self.table  # noqa: B018

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int | slice) -> Hit | Hits:
        if isinstance(index, slice):
            return Hits(self._atlas, self.query, self._found[index], reranked=self.reranked)
        if not -len(self) <= index < len(self):
            raise IndexError(f"hit {index} of {len(self)}")
        return Hit(self.table.slice(index % len(self), 1).to_pylist()[0])

    def __repr__(self) -> str:
        return f"<{len(self)} hits of {self.query.formula() or 'a list'}>"

    @functools.cached_property
    def table(self) -> pa.Table:
        """The rows as an Arrow table."""
        table = self._atlas._store.hits(self._found.rows, self.scores)
        if self._found.parts:  # the score is no cosine, but what its parts add up to
            table = table.set_column(1, schema.hit_field("score"), table["score"])
        for place, (name, values) in enumerate(self._found.extra().items(), start=2):
            kind = schema.hit_field(name)
            table = table.add_column(place, kind, pa.array(values.tolist(), kind.type, from_pandas=True))
        return table

    @functools.cached_property
    def percentiles(self) -> np.ndarray | None:
        """How unusual each score is: the percentage of a sample of the atlas that scores lower; None when listed."""
        if self._found.scorer is None:
            return None
        background = self._atlas._store.background(schema.IMAGE, self._found.scorer)
        return 100 * np.searchsorted(background, self._similarity(), side="left") / len(background)

    @functools.cached_property
    def convincing(self) -> int | None:
        """How many of the hits, from the first on, are above the line under which nothing is convincing.

        The line was measured when the atlas was written: for an example, the score that the nearest other object has
        for 19 of 20 objects; for words, the one that the best object has for 19 of 20 phrases that the atlas knows.
        None where there is no line: sums of terms, arrays, and atlases written before there were lines; nor has the
        order of `rerank` one, nor a text that names an object or a position (see `Atlas.lookup`), nor one that asks for
        what is so rare that high scores are mostly of something else (`Understanding.rarity`).
        """
        if "score_before" in self._found.parts or self._names_objects() or self._asks_for_the_rare():
            return None
        line = self._atlas._store.line(schema.IMAGE, self._found.asked)
        return None if line is None or self.scores is None else int(np.count_nonzero(self._similarity() >= line))

    def refinements(self, *, n: int = 3) -> list[Refinement]:
        """Return ways to refine the question: up to `n` phrases to have more of, then up to `n` to have less of.

        "more" divide these hits most, "less" are what they have most beyond ordinary galaxies of the atlas; both are
        phrases that the atlas knows, strongest first, and `refinement.term()` is what to add to the query. What would
        take back words of the query is left out: less of what it asks for, more of what it does not want. None where
        the hits are fewer than two or only listed, the text names an object, or the atlas knows no phrases.
        """
        if self._found.scorer is None or self._names_objects():
            return []
        from galsearch.zeroshot import refine

        return refine(self._atlas._store, self._found.rows, self._found.scorer.vector, n=n, terms=self.query.terms)

    def rerank(
        self,
        by: str = "local",
        *,
        n: int = 200,
        positives: Sequence[str | Path | Galaxy | np.ndarray] = (),
        negatives: Sequence[str | Path | Galaxy | np.ndarray] = (),
        progress: Callable[[int, int, str], None] | None = None,
        **asking: Any,
    ) -> Hits:
        """Return as many hits as these, in a better order of the first `n`, or in this one where none is better.

        "local" looks at the pictures again, whole and in parts, and at what was measured of what the words ask for,
        with weights that were chosen beforehand on validation objects. `positives` and `negatives`, two or more of
        each, are examples of what is wanted and what is not: object_ids, galaxies, paths of pictures or embeddings. A
        probe learns from them, and the new order must put more pairs of them right than the old one, or the old one
        stays. "vlm" has a vision model answer from 1 to 10 how well each picture fits; `asking` is then that of
        `galsearch.Judge`, and needs `model`. Only "vlm" sends anything anywhere.

        `reranked` of the result says what was done and how much each part counts; the parts are columns and add up to
        `score`, in standard deviations of ordinary objects. Raises QueryError for rows that are only listed and for an
        atlas without pictures, GalsearchError for a model that cannot be asked, RemoteError when it stops answering.
        """
        from galsearch.rerank import rerank

        atlas = self._atlas
        marks = [tuple(_example(one) for one in some) for some in (positives, negatives)]
        wider = answer(atlas._store, replace(self.query, k=max(n, len(self), 1)), atlas._embed_term)
        options = {"by": by, "k": len(self), "marks": marks, "progress": progress, **asking}
        found, done = rerank(atlas._store, atlas._observer, self.query, wider, **options)
        return Hits(atlas, self.query, found, reranked=done)

    def estimate_rerank(self, *, n: int = 200, **asking: Any) -> pa.Table:
        """Return what `rerank("vlm", ...)` would cost at most, before anything is sent: a row a model, cheapest first.

        The columns are model, answers, tokens_in, tokens_out and usd, NULL where the price is not known. `asking` is
        that of `galsearch.Judge`; without `model`, all models whose price is known. Tokens are estimates, within a
        factor of two; fewer answers are needed where the order of these hits is settled earlier.
        """
        from galsearch.rerank import estimate

        return estimate(self.query, hits=max(n, len(self)), **asking)

    def _names_objects(self) -> bool:
        """Say whether the only term is a text that names an object or a position: how alike it looks says nothing."""
        terms = self.query.terms
        return len(terms) == 1 and terms[0].kind == "text" and bool(self._atlas.lookup(terms[0].value))

    def _asks_for_the_rare(self) -> bool:
        from galsearch.language import rarity

        return any(term.kind == "text" and term.weight > 0 and rarity(term.value) for term in self.query.terms)

    def _similarity(self) -> np.ndarray:
        return self._found.parts.get("score_vector", self.scores)

    def to_arrow(self) -> pa.Table:
        """Return the rows; units, UCDs and descriptions are in the fields' metadata."""
        return self.table

    def to_astropy(self) -> Table:
        """Return the rows as an astropy Table with units; needs astropy."""
        return formats.to_astropy(self.table, meta=self._meta())

    def save(self, path: str | Path, *, quote_formulas: bool = False) -> Path:
        """Write the rows in the format of the suffix; return the path.

        Tables are .csv .ecsv .fits .vot .parquet .json, regions .reg (DS9) and .ajs (Aladin), what to cite .bib, and
        .duckdb a bundle (see `bundle`). `quote_formulas` puts an apostrophe before text that a spreadsheet would
        compute; only .csv has it. Raises SchemaError for another suffix, GalsearchError where it cannot be written;
        then a file that was there stays as it was.
        """
        path = Path(path)
        if path.suffix.lower() == BUNDLE:
            return self.bundle(path)
        if path.suffix.lower() == BIBTEX:
            formats.write_text(self.bibtex(), path)
        else:
            formats.write_table(self.table, path, meta=self._meta(), quote_formulas=quote_formulas)
        return path

    def to_bytes(self, suffix: str) -> bytes:
        """Return what `save` would write to a file of that suffix, such as ".vot"."""
        if suffix.lower() not in (BUNDLE, BIBTEX):
            return formats.table_bytes(self.table, suffix, meta=self._meta())
        with tempfile.TemporaryDirectory(prefix="galsearch-") as folder:
            return self.save(Path(folder) / f"hits{suffix.lower()}").read_bytes()

    def bundle(self, path: str | Path, *, title: str | None = None, models: bool = True) -> Path:
        """Write these galaxies as an atlas of their own, one file that opens and searches like any bundle.

        It has their rows, vectors, pictures, captions and labels, the phrases, the models (unless not `models`) and
        the sources, and says in its provenance which search they come from. Raises QueryError when there are no hits
        or several atlases are open as one, GalsearchError when `path` cannot be written or is no bundle.
        """
        from galsearch.store.read.row_view import write_subset

        asked = {"query": self.query.to_json(), "from": self._atlas.manifest.title, "models": models}
        title = title or f"{self._atlas.manifest.title}: {self.query.formula() or 'a list'}"
        record = schema.provenance("select", parameters=asked)
        write_subset(self._atlas._store, self._found.rows, Path(path), title=title, record=record, with_models=models)
        return Path(path)

    def send(self, to: str = "all") -> list[str]:
        """Send the rows to TOPCAT, Aladin or other programs of this desktop by SAMP; return who has loaded them.

        `to` is a part of a program's name, or "all". Raises RemoteError when no SAMP hub runs, no such program takes
        tables, or one of them could not load it.
        """
        from galsearch.remote.samp import send_votable

        name = f"galsearch: {self.query.formula() or 'list'}"
        return send_votable(self.to_bytes(".vot"), name=name, software=schema.software(), to=to)

    def bibtex(self) -> str:
        """Return the BibTeX entries to cite: of the atlas's sources, and of galsearch."""
        return self._atlas.bibtex()

    def acknowledgements(self) -> str:
        """Return what the sources, and the models that were asked, want to be said of them in a paper."""
        return self._atlas.acknowledgements()

    def format(self, kind: str) -> str:
        """Return the rows as text: "json", "csv" or "votable"."""
        return formats.format_table(self.table, kind, meta=self._meta())

    def thumbnails(self) -> dict[str, bytes]:
        """Return the hits' small pictures as WebP bytes; those without one are absent."""
        return self._atlas.thumbnails(self.ids)

    def contact_sheet(self, path: str | Path, *, title: str | None = None) -> Path:
        """Write a PNG of the hits' pictures with their ids and scores; return the path."""
        return contact_sheet({title or self.query.formula(): self}, path)

    def _meta(self) -> dict:
        manifest = self._atlas.manifest
        return {
            "title": f"galsearch: {self.query.formula() or 'list'}",
            "query": self.query.to_json(),
            "atlas": manifest.title,
            "software": schema.software(),
            "matches": self.plan.matches,
            # a ranking ends where it was asked to; a list that ends before its end is cut short
            "status": "OVERFLOW" if self.scores is None and self.plan.matches > len(self) else "OK",
            "sources": manifest.sources,
        }


class Atlas:
    """A searchable set of galaxies, read-only; made by `galsearch.open`."""

    def __init__(self, store: Store, *, device: str = "auto", workers: Pool | None = None) -> None:
        self._store = store
        self._workers = workers
        self._device = device
        self._encoders: dict[str, Encoder] = {}
        self._loading = threading.Lock()
        self._embed_text = functools.lru_cache(CACHED_TEXTS)(self._embed_text)
        self._look_up = functools.lru_cache(CACHED_TEXTS)(self._look_up)

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

    def models(self) -> dict[str, dict]:
        """Return the cards of the models that travel with the atlas, by kind."""
        return dict(self._cards)

    @functools.cached_property
    def _cards(self) -> dict[str, dict]:  # kept, since reading a card reads the whole model, to check it
        return {name: self._store.model(name)[0] for name in self._store.models()}

    def bibtex(self) -> str:
        """Return the BibTeX entries to cite for what is in the atlas, and for galsearch."""
        return citations.bibtex(self.manifest.sources)

    def acknowledgements(self) -> str:
        """Return what the sources of the atlas, and the models that travel with it, want to be said of them."""
        return citations.acknowledgements(self.manifest.sources, self.models().values())

    # ---- asking

    def search(
        self,
        what: str | Path | Galaxy | np.ndarray | Query | None = None,
        *,
        where: str | None = None,
        near: tuple[float, float] | None = None,
        radius_arcsec: float | None = None,
        k: int = 12,
        exact: bool = False,
        probes: int | None = None,
        recall: float | None = None,
        distinct: bool = False,
        hybrid: str | None = None,
    ) -> Hits:
        """Return the k galaxies most like `what` among those that pass the cuts: min(k, matches) of them, always.

        A str is words, a Path an image file, a Hit or Galaxy its own stored embedding (and is left out of the answer),
        an array an embedding `(d,)` of any length, a Query everything at once. Without `what`, lists by object_id.
        `where` is a SQL condition on the columns; `near` is (ra, dec) in degrees ICRS with an inclusive radius. Of a
        large atlas a part of the vectors is compared: so many that `recall` (0.98 unless said) of the k best are found,
        as measured when the atlas was written; `probes` sets the number of cells instead, `exact` compares all.
        `distinct` leaves out duplicates (2 arcsec, or one and the same vector) and counts them in `copies`. `hybrid`
        lets words match captions and names too: "rank" fuses the two rankings, "sum" adds calibrated scores.

        Raises QueryError for a bad cut, an unknown id or empty text; ModelMismatchError when the atlas has no encoder
        for what was asked.
        """
        query = (
            what
            if isinstance(what, Query)
            else self.query(
                what,
                where=where,
                near=near,
                radius_arcsec=radius_arcsec,
                k=k,
                exact=exact,
                probes=probes,
                recall=recall,
                distinct=distinct,
                hybrid=hybrid,
            )
        )
        found = answer(self._store, query, self._embed_term)
        found.plan.provider = next((e.provider for e in list(self._encoders.values())), None)
        return Hits(self, query, found)

    def query(self, what: str | Path | Galaxy | np.ndarray | None = None, **options: Any) -> Query:
        """Return the Query that `search` with the same arguments would answer."""
        return Query(terms=() if what is None else (term(what),), **options)

    def __getitem__(self, object_id: str) -> Galaxy:
        """Return one galaxy; QueryError when there is none by that id."""
        self._must_have(object_id)
        return Galaxy(self._store.rows([object_id]).to_pylist()[0])

    def __contains__(self, object_id: str) -> bool:
        return self._store.has(object_id)

    def rows(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of `ids` in that order; QueryError for one that is not there."""
        found = self._store.rows(ids)
        if found.num_rows != len(ids):
            self._must_have(next(i for i in ids if i not in set(found["object_id"].to_pylist())))
        return found

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return small pictures as WebP bytes by id; objects without one are absent."""
        return self._store.thumbnails(ids)

    def count(self, where: str | None = None) -> int:
        """Return how many objects pass a SQL condition."""
        return self._store.count(self._store.condition(where, None, None))

    def sql(self, text: str) -> pa.Table:
        """Run one SELECT over the atlas's tables and macros, read-only, and return its rows.

        `embed('any words')` gives a query vector, so that
        `FROM nearest(embed('ring galaxy'), cut := z < 0.1) JOIN galaxies USING (object_id)` works.
        Raises QueryError for anything but one SELECT, and for what DuckDB refuses.
        """
        if self._workers is None and _CALLS_EMBED.search(text):
            self._encoder("text")  # loaded beforehand: inside a running query its connection reads nothing else
        alive = weakref.ref(self)  # DuckDB keeps the function: by itself it would keep an atlas that nobody closed
        return self._store.sql(text, embed=lambda words: alive().embed(words))

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
        table of it, `missing` numbers that stand for no value). Its positions, ICRS, are the columns that `ra` and
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
        listed = answer(self._store, query, self._embed_term)
        rank = {name: place for place, name in enumerate(found.ids)}
        order = sorted(range(len(listed.rows)), key=[rank[name] for name in self._store.ids(listed.rows)].__getitem__)
        return Hits(self, query, replace(listed, rows=listed.rows[order]))[:k]

    def _look_up(self, text: str) -> Lookup:
        from galsearch.lookup import look_up

        return look_up(self._store, text)

    def hints(self, words: str) -> tuple[str, ...]:
        """Return what a search in these words cannot heed, a sentence each; mostly nothing.

        They are numbers that no column answers, with the reason, words in another language than English, and kinds of
        galaxies so rare that the best hits may be none. `understand` has the same in parts.
        """
        from galsearch.zeroshot import hints

        self._check_length(words)
        return hints(self._store, words)

    def understand(self, words: str) -> Understanding:
        """Return how words are read: what is wanted and what not, cuts in SQL, abbreviations, slips of spelling.

        Cuts are offered only for numeric columns that the atlas has, and nothing is applied: `query` of the reading
        takes what was accepted, and `search` takes that query. Raises QueryError when there are no words.
        """
        from galsearch.zeroshot import read

        self._check_length(words)
        return read(self._store, words)

    def label(
        self, labels: str | Path, *, where: str | None = None, k: int | None = None, least: float = 0.5
    ) -> pa.Table:
        """Return which label of a YAML file fits each galaxy that passes `where`, judged by words alone (zero-shot).

        The file has lines of `label: phrase`, `label: [phrases]` or `label: {phrases: [...], threshold: 0.2}`. The
        columns are object_id, label, best, probability, margin (to the next) and score (the cosine), by object_id, of
        the first `k` objects or of all. `label` is NULL where nothing is convincing: where the best label is not as
        probable as `least` among these labels, or its cosine is below its threshold. Probabilities are a softmax with
        the temperature of the text model; they compare the labels of the file, and no other. Without a vector all are
        NULL. Raises SchemaError for a file that is not one of labels, QueryError for a bad cut.
        """
        from galsearch.zeroshot import label

        card = self._encoder("text").card
        return label(self._store, labels, self._embed_texts, card=card, where=where, k=k, least=least)

    def contrast(
        self, more: str = "late-type", less: str = "elliptical", *, where: str | None = None, k: int | None = None
    ) -> pa.Table:
        """Return the cosine with the words `more` minus that with `less`, for each galaxy that passes `where`.

        With the words that are there it orders galaxies by Hubble type, higher being later. The columns are object_id
        and contrast (NULL without a vector), by object_id, of the first `k` objects or of all.
        """
        from galsearch.zeroshot import order

        return order(self._store, (more, less), self._embed_texts, where=where, k=k)

    def _embed_texts(self, texts: list[str]) -> np.ndarray:
        return np.stack([self._embed_text(text) for text in texts])

    # ---- embeddings

    def embed(self, what: str | Path | Galaxy | np.ndarray) -> np.ndarray:
        """Return the unit vector `(d,) float32` of words, an image file, a galaxy or an array."""
        return self._embed_term(term(what))

    def _embed_term(self, part: Term) -> np.ndarray:
        if part.kind == "text":
            return self._embed_text(part.value).copy()  # the caller may change it, the cache must not
        if part.kind == "object":
            self._must_have(part.value)
            return self._store.embeddings(schema.IMAGE, [part.value])[0]
        if part.kind == "image":
            return self._encoder("image").encode([self._rendered(Path(part.value))])[0]
        return self._embed_array(np.asarray(part.value, dtype=np.float64))

    def _rendered(self, path: Path) -> np.ndarray:
        """Return a picture file as it is shown to the encoder, `(h, w, 3) uint8`."""
        if self._workers is None:
            return images.render(images.read_picture(path))
        limits = self._workers.limits
        with path.open("rb") as file:
            content = file.read(limits.memory_bytes // 4 + 1)  # the task says what is too much
        about = {"name": path.name, "memory_bytes": limits.memory_bytes, "most": limits.result_bytes}
        facts, pixels = self._workers.run(RENDER, content, title="picture", **about)
        return np.frombuffer(pixels, np.uint8).reshape(facts["height"], facts["width"], 3)

    def _embed_array(self, vector: np.ndarray) -> np.ndarray:
        """Return an array as a unit vector; one of another length goes through the projector that takes it."""
        direction, space = unit(vector), self._store.manifest.embeddings.get(schema.IMAGE)
        if space and len(direction) != space["dim"]:
            for name in filter(lambda name: name.endswith(PROJECTOR), self._store.models()):
                projector = self._encoder(name)
                if projector.card["input"]["dim"] == len(vector):
                    return projector.encode([vector])[0]  # as it came: its length may count
        return direction

    def _embed_text(self, text: str) -> np.ndarray:
        self._check_length(text)
        return self._encoder("text").encode([text])[0]

    def _check_length(self, text: str) -> None:
        """Raise LimitError for a visitor's text that is too long to be read in this process."""
        if self._workers is not None and isinstance(text, str) and len(text) > self._workers.limits.text_characters:
            most = self._workers.limits.text_characters
            raise LimitError(f"the text has {len(text)} characters, at most {most} are taken here; write a shorter one")

    def prepare(self) -> None:
        """Begin to load the encoder of words beside other work, so that the first search in words waits less.

        What goes wrong is told by that search.
        """

        def load() -> None:
            with suppress(GalsearchError):
                self._encoder("text")

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
        space = self._store.manifest.embeddings.get(schema.IMAGE)
        if space is None:
            raise QueryError(f"{self.path} holds no image vectors, so it cannot be asked by {kind}; use sql()")
        kept = self._store.model(kind)
        if kept:
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
        raise QueryError(f"no object '{object_id}' in {self.path} ({len(self)} objects); {remedy}")

    # ---- checking

    def check(self, *, seed: int = 0) -> Iterator[Finding]:
        """Yield a Finding for each thing verified: blocks, rows, ids, norms, models and their self-tests, recall."""
        yield from verify(self._store, seed=seed)
        for kind in self._store.models():
            yield self._check_model(kind)

    def _check_model(self, kind: str) -> Finding:
        try:
            encoder = Encoder.from_bytes(*self._store.model(kind), device=self._device)
            encoder.self_test()
            space = self.manifest.embeddings.get(encoder.embedding)
            if space:
                check_same_model(space, encoder.card, name=f"{self.path}")
        except GalsearchError as error:
            return Finding(f"model {kind}", False, str(error), "rebuild the atlas with the model it was made with")
        return Finding(f"model {kind}", True, f"{encoder.model_id} gives its self-test vectors on {encoder.provider}")


def term(what: str | Path | Galaxy | np.ndarray, *, weight: float = 1.0) -> Term:
    """Return the query term that `what` stands for; the type decides, never its content."""
    if isinstance(what, Galaxy):
        return Term("object", what.object_id, weight)
    if isinstance(what, Path):
        return Term("image", str(what), weight)
    if isinstance(what, str):
        return Term("text", what, weight)
    if isinstance(what, np.ndarray) and what.ndim == 1 and what.dtype.kind in "iuf":
        return Term("embedding", tuple(what.astype(float).tolist()), weight)
    raise QueryError(
        f"cannot search for a {type(what).__name__}; give words (str), an image (Path), a galaxy, "
        "an embedding (array of one dimension) or a Query"
    )


def _example(what: str | Path | Galaxy | np.ndarray) -> Term:
    """Return the term of a marked example; a str is an object_id."""
    return Term("object", what) if isinstance(what, str) else term(what)


def contact_sheet(answers: dict[str, Hits], path: str | Path) -> Path:
    """Write one PNG with a titled row of pictures for each answer; return the path."""
    sections = []
    for title, hits in answers.items():
        pictures = hits.thumbnails()
        tiles = [
            (images.decode_thumbnail(pictures[hit.object_id]), _label(hit)) for hit in hits if hit.object_id in pictures
        ]
        sections.append((title, tiles))
    Path(path).write_bytes(images.contact_sheet(sections))
    return Path(path)


def _label(hit: Hit) -> str:
    return hit.object_id if hit.score is None else f"{hit.object_id}  {hit.score:.2f}"
