"""An atlas to ask: open it, search it, look at what comes back. Nothing here writes to it."""

from __future__ import annotations

import functools
import re
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pyarrow as pa

from galsearch import citations, schema
from galsearch.encode import Encoder, check_same_model, shipped
from galsearch.errors import FormatError, GalsearchError, LimitError, ModelMismatchError, QueryError, UnknownIdError
from galsearch.hits import Galaxy, Hits, term
from galsearch.query import Query, QueryOptions, Term
from galsearch.retrieval import retrieve
from galsearch.schema import Finding
from galsearch.science import images
from galsearch.science.ranking import unit
from galsearch.store import Store, comparing, open_for_visitors, open_stores
from galsearch.store.check import verify
from galsearch.workers import Limits, Pool

if TYPE_CHECKING:
    from galsearch.language import Understanding
    from galsearch.lookup import Lookup
    from galsearch.rerank.observe import Observer

CACHED_TEXTS = 256
ITERATED_ROWS = 1_000  # read at a time while somebody goes through all galaxies
RENDER = "galsearch.encode:render_picture"  # the task of a worker
PROJECTOR = "_projector"  # how the names of models end that take vectors of another model
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


class Atlas:
    """A searchable set of galaxies, read-only; made by `galsearch.open`."""

    def __init__(self, store: Store, *, device: str = "auto", workers: Pool | None = None) -> None:
        self._store = store
        self._workers = workers
        self._device = device
        self._encoders: dict[str, Encoder] = {}
        self._loading = threading.Lock()
        self._embed_text = functools.lru_cache(CACHED_TEXTS)(self._encoded_text)
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

    @functools.cached_property
    def _cards(self) -> dict[str, dict[str, Any]]:  # kept, since reading a card reads the whole model, to check it
        result = {name: self._store.model(name) for name in self._store.models()}
        return {name: model[0] for name, model in result.items() if model is not None}

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

        A str is words, a Path an image file, a Hit or Galaxy its own stored embedding (and is left out of the answer),
        an array an embedding `(d,)` of any length, a Query everything at once, which takes no options beside it.
        Without `what`, lists by object_id. `by` is the embedding to compare in, where an atlas has several.
        `where` is a SQL condition on the columns; `near` is (ra, dec) in degrees ICRS with an inclusive radius. Of a
        large atlas a part of the vectors is compared: so many that `recall` (0.98 unless said) of the k best are found,
        as measured when the atlas was written; `probes` sets the number of cells instead, `exact` compares all.
        `distinct` leaves out duplicates (2 arcsec, or one and the same vector) and counts them in `copies`. `hybrid`
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
        return Hits(self, query, result)

    def query(
        self,
        what: str | Path | Galaxy | np.ndarray | None = None,
        *,
        by: str | None = None,
        **options: Unpack[QueryOptions],
    ) -> Query:
        """Return the Query that `search` with the same arguments would answer."""
        return Query(terms=() if what is None else (term(what, by=by),), **options)

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

        def embed(words: str) -> np.ndarray:
            atlas = alive()
            if atlas is None:
                raise QueryError("the atlas was closed while it was asked; open it again")
            return atlas.embed(words)

        return self._store.sql(text, embed=embed)

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
        listed = retrieve(self._store, query, self._embed_term)
        rank = {name: index for index, name in enumerate(found.ids)}
        order = sorted(range(len(listed.rows)), key=[rank[name] for name in self._store.ids(listed.rows)].__getitem__)
        return Hits(self, query, replace(listed, rows=listed.rows[order[:k]]))

    def _named(self, text: str) -> Lookup:
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

    def embed(self, what: str | Path | Galaxy | np.ndarray, *, by: str | None = None) -> np.ndarray:
        """Return the unit vector `(d,) float32` of words, an image file, a galaxy or an array.

        `by` is the embedding that it is for; unless given that of its kind of data, else the main one.
        """
        return self._embed_term(term(what, by=by))[1]

    def _embed_term(self, part: Term) -> tuple[str, np.ndarray]:
        """Return the embedding that a term is compared in, and its unit vector."""
        embedding = self._embedding(part)
        if part.kind == "object":
            self._must_have(part.text)
            return embedding, self._store.embeddings(embedding, [part.text])[0]
        if part.kind == "embedding":
            return embedding, self._embed_array(embedding, np.asarray(part.value, dtype=np.float64))
        if part.kind == "text":
            if not self.manifest.knows_words(embedding):
                raise QueryError(f"words cannot be compared in '{embedding}' of {self.path}; ask by an object of it")
            return embedding, self._embed_text(part.text).copy()  # the caller may change it, the cache must not
        modality = self.manifest.modality(embedding)
        if modality.term_kind != part.kind:
            raise QueryError(f"'{embedding}' of {self.path} is made of a {modality.name}, and this is {part.label}")
        if modality.reader is None:
            raise QueryError(
                f"galsearch reads no {modality.name} yet, so {part.label} cannot be asked; give its vector"
            )
        return embedding, self._encoder(modality.encoder).encode([self._rendered(Path(part.text))])[0]

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

    def _embed_array(self, embedding: str, vector: np.ndarray) -> np.ndarray:
        """Return an array as a unit vector; one of another length goes through the projector that takes it."""
        direction, space = unit(vector), self.manifest.embeddings[embedding]
        if len(direction) != space["dim"]:
            for name in [one for one in self._store.models() if one.endswith(PROJECTOR)]:
                projector = self._encoder(name)
                if projector.card["input"]["dim"] == len(vector):
                    return projector.encode([vector])[0]  # as it came: its length may count
        return direction

    def _encoded_text(self, text: str) -> np.ndarray:
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
        name = self._embedding_of_model(kind)
        if name is None:
            raise QueryError(f"{self.path} holds no vectors that could be asked by {kind}; use sql()")
        space, kept = self.manifest.embeddings[name], self._store.model(kind)
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

    def _embedding_of_model(self, kind: str) -> str | None:
        """Return the embedding that a model makes vectors for: that of its kind of data, else the main one."""
        return self.manifest.embedding_of(kind) if kind in schema.MODALITIES else self.manifest.main_embedding

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
            name = self._embedding_of_model(kind)
            if name is not None:
                check_same_model(self.manifest.embeddings[name], encoder.card, name=f"{self.path}")
        except GalsearchError as error:
            return Finding(f"model {kind}", False, str(error), "rebuild the atlas with the model it was made with")
        return Finding(f"model {kind}", True, f"{encoder.model_id} gives its self-test vectors on {encoder.provider}")
