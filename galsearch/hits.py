"""What a search returns: galaxies, hits with scores, their tables, pictures, refinements and exports."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import formats, notebook, schema
from galsearch.errors import GalsearchError, QueryError
from galsearch.query import Query, Term
from galsearch.retrieval import Result, retrieve
from galsearch.science import images

if TYPE_CHECKING:
    import pandas as pd
    from astropy.table import Table

    from galsearch.atlas import Atlas
    from galsearch.language.attributes import Refinement
    from galsearch.rerank import AgentOptions, Reranked
    from galsearch.science.spectra import Spectrum

BUNDLE, BIBTEX, MOC = ".duckdb", ".bib", ".moc"
MOC_ORDER = 10  # of a coverage map: cells of 3.4 arcmin
SAVED_OF_SPECTRA = ("log_wavelength_start", "log_wavelength_step", "flux", "ivar", "frame", "is_calibrated")


class Galaxy:
    """One object: `object_id` and every column of `galaxies` as attributes; NULL is None."""

    def __init__(self, columns: dict[str, Any], atlas: Atlas | None = None) -> None:
        self.columns = columns
        self._atlas = atlas

    @property
    def object_id(self) -> str:
        """The object's identifier."""
        return self.columns["object_id"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "columns":
            raise AttributeError(name)
        try:
            return self.columns[name]
        except KeyError:
            raise AttributeError(f"no column '{name}'; there are: {', '.join(self.columns)}") from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.object_id!r})"

    def spectrum(self) -> Spectrum | None:
        """Return its spectrum as it is stored, None where it has none."""
        return None if self._atlas is None else self._atlas.spectra([self.object_id]).get(self.object_id)

    def _repr_html_(self) -> str:
        """Return its picture and its columns as HTML, as notebooks show it."""
        pictures = {} if self._atlas is None else _pictures(self._atlas, [self.object_id])
        return notebook.object_html(self.columns, pictures.get(self.object_id))


class Hit(Galaxy):
    """A galaxy that was found: also has `score`, the cosine similarity to the query, or None when only listed."""

    def __repr__(self) -> str:
        score = "" if self.score is None else f", score={self.score:.3f}"
        return f"Hit({self.object_id!r}{score})"


class Hits(Sequence[Hit]):
    """What a search found, best first; equal scores are ordered by object_id.

    `plan` says how it was found, `query` what was asked. `ids` are the object_ids, `scores` the cosines,
    `(n,) float32` (None when only listed). `table` has object_id, score and all columns, with units; on a large
    atlas it is read when first asked for, so ask before the atlas is closed. `reranked` says what `rerank` did; None
    for the order of a search.
    """

    def __init__(self, atlas: Atlas, query: Query, result: Result, *, reranked: Reranked | None = None) -> None:
        self.query = query
        self.reranked = reranked
        self.plan = result.plan
        self.scores = result.scores
        self.ids: list[str] = atlas._store.ids(result.rows)
        self._result = result
        self._atlas = atlas
        if atlas._store.in_memory:  # costs nothing, and outlives the atlas
            self.table  # noqa: B018

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Hit: ...

    @overload
    def __getitem__(self, index: slice) -> Hits: ...

    def __getitem__(self, index: int | slice) -> Hit | Hits:
        if isinstance(index, slice):
            return Hits(self._atlas, self.query, self._result[index], reranked=self.reranked)
        if not -len(self) <= index < len(self):
            raise IndexError(f"hit {index} of {len(self)}")
        return Hit(self.table.slice(index % len(self), 1).to_pylist()[0], self._atlas)

    def __repr__(self) -> str:
        return f"<{len(self)} hits of {self.query.formula() or 'a list'}>"

    def _repr_html_(self) -> str:
        """Return the pictures of the first hits with ids and scores as HTML, as notebooks show them."""
        shown = self[: notebook.MOST_SHOWN]
        scores = [None] * len(shown) if shown.scores is None else shown.scores.tolist()
        return notebook.gallery_html(repr(self), shown.ids, scores, _pictures(self._atlas, shown.ids))

    @functools.cached_property
    def table(self) -> pa.Table:
        """The rows as an Arrow table."""
        table = self._atlas._store.hits(self._result.rows, self.scores)
        if self._result.parts:  # the score is no cosine, but what its parts add up to
            table = table.set_column(1, schema.hit_field("score"), table["score"])
        for index, (name, values) in enumerate(self._result.extra().items(), start=2):
            kind = schema.hit_field(name)
            table = table.add_column(index, kind, pa.array(values.tolist(), kind.type, from_pandas=True))
        return table

    @functools.cached_property
    def percentiles(self) -> np.ndarray | None:
        """How unusual each score is: the percentage of a sample of the atlas that scores lower; None when listed."""
        if self._result.scorer is None or self._result.embedding is None:
            return None
        reference = self._atlas._store.reference_scores(self._result.embedding, self._result.scorer)
        return 100 * np.searchsorted(reference, self._similarity(), side="left") / len(reference)

    @functools.cached_property
    def convincing(self) -> int | None:
        """How many of the hits, from the first on, are above the line under which nothing is convincing.

        The line was measured when the atlas was written: for an example, the score that the nearest other object has
        for 19 of 20 objects; for words, the one that the best object has for 19 of 20 phrases that the atlas knows.
        None where there is no line: sums of terms, arrays, and atlases written before there were lines; nor has the
        order of `rerank` one, nor a text that names an object or a position (see `Atlas.lookup`), nor one that asks for
        what is so rare that high scores are mostly of something else (`Understanding.rarity`). None of the hits is
        convincing, 0, where the text has words that the model was never taught (`untaught`).
        """
        if "score_before" in self._result.parts or self._names_objects():
            return None
        if self._result.embedding is None or self.scores is None:
            return None
        if self.untaught:
            return 0
        if self._asks_for_the_rare():
            return None
        line = self._atlas._store.threshold(self._result.embedding, self._result.query_kind)
        return None if line is None else int(np.count_nonzero(self._similarity() >= line))

    @functools.cached_property
    def untaught(self) -> tuple[str, ...]:
        """The words of the query that no training text of the model had (`Atlas.untaught`); where any are, hits guess.

        Those of texts that are wanted and compared in one embedding; nothing for other queries.
        """
        if self._result.embedding is None:
            return ()
        texts = [term.text for term in self.query.terms if term.kind == "text" and term.weight > 0]
        by = self._result.embedding
        return tuple(dict.fromkeys(word for text in texts for word in self._atlas.untaught(text, by=by)))

    def refinements(self, *, n: int = 3) -> list[Refinement]:
        """Return ways to refine the question: up to `n` phrases to have more of, then up to `n` to have less of.

        "more" divide these hits most, "less" are what they have most beyond ordinary galaxies of the atlas; both are
        phrases that the atlas knows, strongest first, and `refinement.term()` is what to add to the query. What would
        take back words of the query is left out: less of what it asks for, more of what it does not want. None where
        the hits are fewer than two or only listed, the text names an object, or the atlas knows no phrases.
        """
        result = self._result
        if result.scorer is None or result.embedding is None or self._names_objects():
            return []
        from galsearch.zeroshot import refine

        store, requested = self._atlas._store, result.scorer.vector
        return refine(store, result.rows, result.embedding, requested, n=n, terms=self.query.terms)

    def reasons(self, *, n: int = 2) -> list[tuple[str, ...]]:
        """Return for each hit up to `n` phrases that say what it has in common with the query, strongest first.

        They are phrases that the atlas knows, related to the query, of which the hit has more than most of the atlas.
        None for a hit where nothing stands out, and for all where there are no scores or the text names an object.
        """
        result = self._result
        if result.scorer is None or result.embedding is None or self._names_objects():
            return [()] * len(self)
        from galsearch.zeroshot import shared

        return shared(self._atlas._store, result.rows, result.embedding, result.scorer.vector, n=n)

    def rerank(
        self,
        by: str = "local",
        *,
        n: int = 200,
        positives: Sequence[str | Path | Galaxy | np.ndarray] = (),
        negatives: Sequence[str | Path | Galaxy | np.ndarray] = (),
        progress: Callable[[int, int, str], None] | None = None,
        **options: Unpack[AgentOptions],
    ) -> Hits:
        """Return as many hits as these, in a better order of the first `n`, or in this one where none is better.

        "local" looks at the pictures again, whole and in parts, and at what was measured of what the words ask for,
        with weights that were chosen beforehand on validation objects. `positives` and `negatives`, two or more of
        each, are examples of what is wanted and what is not: object_ids, galaxies, paths of pictures or embeddings. A
        probe learns from them, and the new order must put more pairs of them right than the old one, or the old one
        stays. "vlm" has a vision model answer from 1 to 10 how well each picture fits; `options` is then that of
        `galsearch.Judge`, and needs `model`. Only "vlm" sends anything anywhere.

        `reranked` of the result says what was done and how much each part counts; the parts are columns and add up to
        `score`, in standard deviations of ordinary objects. Raises QueryError for rows that are only listed and for an
        atlas without pictures, GalsearchError for a model that cannot be asked, RemoteError when it stops answering.
        """
        from galsearch.rerank import rerank

        atlas = self._atlas
        marks = tuple(map(_example, positives)), tuple(map(_example, negatives))
        wider = retrieve(atlas._store, replace(self.query, k=max(n, len(self), 1)), atlas._embed_term)
        result, done = rerank(
            atlas._store,
            atlas._observer,
            self.query,
            wider,
            by=by,
            k=len(self),
            marks=marks,
            progress=progress,
            **options,
        )
        return Hits(atlas, self.query, result, reranked=done)

    def estimate_rerank(self, *, by: str = "vlm", n: int = 200, **options: Unpack[AgentOptions]) -> pa.Table:
        """Return what `rerank` by a model would cost, before anything is sent: a row a model, cheapest first.

        `by` is "vlm" or "agent". The columns are model, answers, tokens_in, tokens_out and usd, NULL where the price is
        not known. `options` is that of `galsearch.Judge` or `galsearch.AgentJudge`; without `model`, all models whose
        price is known. Tokens are estimates, within a factor of two, of all answers; fewer are needed where the order
        of these hits is settled earlier, and an agent that looks closer gives more.
        """
        from galsearch.rerank import estimate

        return estimate(self.query, by=by, hits=max(n, len(self)), **options)

    def _names_objects(self) -> bool:
        """Say whether the only term is a text that names an object or a position: how alike it looks says nothing."""
        terms = self.query.terms
        return len(terms) == 1 and terms[0].kind == "text" and bool(self._atlas.lookup(terms[0].text))

    def _asks_for_the_rare(self) -> bool:
        from galsearch.language.parser import rarity

        return any(term.kind == "text" and term.weight > 0 and rarity(term.text) for term in self.query.terms)

    def _similarity(self) -> np.ndarray:
        return self._result.parts.get("score_vector", np.empty(0) if self.scores is None else self.scores)

    def to_arrow(self) -> pa.Table:
        """Return the rows; units, UCDs and descriptions are in the fields' metadata."""
        return self.table

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame, units by column in `attrs["units"]`; needs pandas."""
        return formats.to_pandas(self.table)

    def to_astropy(self) -> Table:
        """Return the rows as an astropy Table with units; needs astropy."""
        return formats.to_astropy(self.table, meta=self._meta())

    def with_spectra(self) -> pa.Table:
        """Return the rows with their spectra: flux and ivar as arrays of one length, 0 beyond the end of a spectrum.

        Pixel i lies at 10^(spectrum_log_wavelength_start + i * spectrum_log_wavelength_step) angstrom, in vacuum.
        The columns are NULL where an object has no spectrum; QueryError where none has.
        """
        rows = self._atlas._store.spectra(self.ids)
        if not rows.num_rows:
            raise QueryError(f"none of the {len(self)} hits has a spectrum; save them without spectra")
        index = pc.index_in(pa.array(self.ids, pa.string()), value_set=rows["object_id"].combine_chunks())
        ours = {f"spectrum_{name}" for name in SAVED_OF_SPECTRA}
        names = [name + schema.IN_TABLE if name in ours else name for name in self.table.column_names]
        table = self.table.rename_columns(names)
        for column in schema.TABLES["spectra"][1:]:
            if column.name in SAVED_OF_SPECTRA:
                values = rows[column.name].combine_chunks()
                values = _padded(values) if pa.types.is_list(values.type) else values
                item = schema.described(column).with_name(f"spectrum_{column.name}").with_type(values.type)
                table = table.append_column(item, values.take(index))
        return table

    def save(self, path: str | Path, *, spectra: bool = False, quote_formulas: bool = False) -> Path:
        """Write the rows in the format of the suffix; return the path.

        Tables are .csv .ecsv .fits .vot .parquet .json, regions .reg (DS9) and .ajs (Aladin), what to cite .bib, .moc a
        coverage map (see `coverage`) and .duckdb a bundle (see `bundle`). `quote_formulas` puts an apostrophe before
        text that a spreadsheet would compute; only .csv has it. `spectra` adds those of the hits (see `with_spectra`);
        .fits, .vot and .parquet hold them as arrays. Raises SchemaError for another suffix, GalsearchError where it
        cannot be written; then a file that was there stays as it was.
        """
        path = Path(path)
        if path.suffix.lower() == BUNDLE:
            return self.bundle(path)
        if path.suffix.lower() == BIBTEX:
            formats.write_text(self.bibtex(), path)
        elif path.suffix.lower() == MOC:
            formats.write_text(self.coverage(), path)
        else:
            table = self.with_spectra() if spectra else self.table
            formats.write_table(table, path, meta=self._meta(), quote_formulas=quote_formulas)
        return path

    def to_bytes(self, suffix: str) -> bytes:
        """Return what `save` would write to a file of that suffix, such as ".vot"."""
        if suffix.lower() not in (BUNDLE, BIBTEX, MOC):
            return formats.table_bytes(self.table, suffix, meta=self._meta())
        with tempfile.TemporaryDirectory(prefix="galsearch-") as folder:
            return self.save(Path(folder) / f"hits{suffix.lower()}").read_bytes()

    def coverage(self, *, order: int = MOC_ORDER) -> str:
        """Return the HEALPix cells of an order that hold a hit with a position, as a coverage map (IVOA MOC, JSON).

        Cells of order 10, unless said, are 3.4 arcmin wide; each order more halves that. Raises QueryError where no hit
        has a position.
        """
        from galsearch.science.healpix import coverage, pixels_of

        positions = self._atlas._store.positions(self._result.rows)
        positions = positions[np.isfinite(positions).all(axis=1)]
        if not len(positions):
            raise QueryError(f"none of the {len(self)} hits has a position, so they cover no part of the sky")
        return coverage(order, pixels_of(order, *positions.T))

    def bundle(self, path: str | Path, *, title: str | None = None, models: bool = True) -> Path:
        """Write these galaxies as an atlas of their own, one file that opens and searches like any bundle.

        It has their rows, vectors, pictures, captions and labels, the phrases, the models (unless not `models`) and
        the sources, and says in its provenance which search they come from. Raises QueryError when there are no hits
        or several atlases are open as one, GalsearchError when `path` cannot be written or is no bundle.
        """
        from galsearch.store.write.bundle import write_subset

        requested = {"query": self.query.to_json(), "from": self._atlas.manifest.title, "models": models}
        title = title or f"{self._atlas.manifest.title}: {self.query.formula() or 'a list'}"
        record = schema.provenance("select", parameters=requested)
        write_subset(self._atlas._store, self._result.rows, Path(path), title=title, record=record, with_models=models)
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

    def _meta(self) -> dict[str, Any]:
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


def _pictures(atlas: Atlas, ids: list[str]) -> dict[str, bytes]:
    """Return pictures for a notebook; none of an atlas that was closed meanwhile, whose hits are shown all the same."""
    try:
        return atlas.thumbnails(ids)
    except GalsearchError:
        return {}


def _padded(lists: pa.ListArray) -> pa.FixedSizeListArray:
    """Return lists of numbers as arrays of the length of the longest, 0 at their ends."""
    lengths = pc.list_value_length(lists).to_numpy()
    result = np.zeros((len(lists), lengths.max()), np.float32)
    result[np.arange(lengths.max()) < lengths[:, None]] = pc.list_flatten(lists).to_numpy()
    return pa.FixedSizeListArray.from_arrays(pa.array(result.ravel()), result.shape[1])


def term(what: str | Path | Galaxy | np.ndarray, *, weight: float = 1.0, by: str | None = None) -> Term:
    """Return the query term that `what` stands for; the type decides, never its content.

    `by` is the embedding that it is compared in; unless given that of its kind of data, else the atlas's main one.
    """
    if isinstance(what, Galaxy):
        return Term("object", what.object_id, weight, by)
    if isinstance(what, Path):
        return Term("image", str(what), weight, by)
    if isinstance(what, str):
        return Term("text", what, weight, by)
    if isinstance(what, np.ndarray) and what.ndim == 1 and what.dtype.kind in "iuf":
        return Term("embedding", tuple(what.astype(float).tolist()), weight, by)
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
