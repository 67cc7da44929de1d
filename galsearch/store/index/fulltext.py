r"""How words find objects: what of a text counts as a word, and what a word is worth (BM25).

All of it is SQL, so that DuckDB alone asks the same way. `word_postings(term, row, weight)` lies in the atlas, ordered
by term and row, with weights that only need to be added up: `row` is the rowid of `galaxies`, and `weight` is what the
term adds to the score of that object,

    ln(1 + (N - n + 0.5) / (n + 0.5)) · t (k1 + 1) / (t + k1 (1 - b + b · length / mean length)),

Robertson & Zaragoza 2009 (Foundations and Trends in Information Retrieval 3, 333), for a term that n of N objects have
and this one t times. An object's text is its id, every text column of `galaxies` but `file`, and its captions.

What counts as a word, for objects and questions alike (`terms_sql`):
- case and accents go, as do `'s` and the plural: "Bode's spirals" is bode spiral. STOP_WORDS count for nothing;
- letters and digits are terms of their own, without leading zeros, and so is a number with the word before it:
  "NGC 1300", "ngc-01300", "NGC1300" are ngc, 1300 and ngc1300; "NGC1300A" is another galaxy, ngc1300a, not ngc1300;
- what is denied does not count: "spiral without a bar or ring" is spiral. `language.negation` says how far a "no"
  reaches; in SQL its patterns do.
A value that is a number with a decimal point, a web address, or longer than 64 characters without a space is no words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from galsearch.errors import FormatError
from galsearch.language.negation import affirmed, removals
from galsearch.store.interface import Matches
from galsearch.store.sql.sandbox import NAME, Sandbox

POSTINGS = "word_postings"
K1, B = 1.2, 0.75
MOST_WEIGHT = 1e3  # of a posting: far above the logarithm of any number of objects
STOP_WORDS = (
    *("a", "an", "and", "any", "are", "as", "at", "be", "but", "by", "for", "from", "has", "have", "in", "into"),
    *("is", "it", "its", "no", "non", "nor", "not", "of", "on", "or", "than", "that", "the", "there", "this", "to"),
    *("was", "with", "without"),
)
_LETTERS = r"[a-z\x{80}-\x{10FFFF}]+"  # \p{L} takes 2 ms to compile, at every question
_NAME = rf"{_LETTERS}[\s_-]*[0-9]+(?:[a-z]\b)?"
_PLAIN = (  # pattern, what takes its place
    ("[‐‑‒–—―−]", "-"),
    ("[‘’ʼ]", "'"),
    (r"'s([^a-z]|$)", r"\1"),
    (r"[\x{A0}-\x{BF}×÷\x{2000}-\x{206F}\x{3000}-\x{303F}]", " "),  # no letters: quotes, dots, blanks, fractions
)
_ZEROS = ((r"(^|[^0-9])0+([0-9])", r"\1\2"),)
_SINGULAR = (  # after Harman 1991 (JASIS 42, 7); one after the other, so that lens and lenses end up the same
    (r"([a-z]{2})ies([^a-z]|$)", r"\1y\2"),
    (r"(lens|ss|x|ch|sh)es([^a-z]|$)", r"\1\2"),
    (r"([a-z]{2}[a-hj-rtv-z])s([^a-z]|$)", r"\1\2"),
)
_NO_WORDS = r"[+-]?[0-9]*\.[0-9]*(e[+-]?[0-9]+)?|\w+://\S*|\S{65,}"


def terms_sql(text: str) -> str:
    """Return the SQL expression of the terms, VARCHAR[], of the text that the expression `text` gives.

    A term stands there as often as in the text, and not where the text denies it. It is one expression without a
    lambda, whose spelling differs between versions of DuckDB.
    """
    plain = _replaced(f"lower(strip_accents({text}))", _PLAIN)
    return _counted(_replaced(plain, (*removals(), *_ZEROS)))


def _affirmed_terms_sql(text: str) -> str:
    """Return the same of a text from which `affirmed` took what it denies; its patterns take 15 ms to compile."""
    return _counted(_replaced(f"lower(strip_accents({text}))", (*_PLAIN, *_ZEROS)))


def _counted(clean: str) -> str:
    """Return the SQL expression of the terms of a text in lower case, with plain signs and without leading zeros."""
    words = f"regexp_extract_all({_replaced(clean, _SINGULAR)}, {_quoted(_LETTERS + '|[0-9]+')})"
    stop = ", ".join(map(_quoted, STOP_WORDS))
    joined = _replaced("name", [(r"[\s_-]", "")])
    names = f"[{joined} FOR name IN regexp_extract_all({clean}, {_quoted(_NAME)})]"
    return f"list_concat([word FOR word IN {words} IF word NOT IN ({stop})], {names})"


def word_macros(*, temp: str = "") -> list[str]:
    """Return the statements that store `terms_of` and `matching_words`; run them once `word_postings` is there.

    `matching_words(words, k := 10, cut := true)` gives object_id and score, FLOAT, of the objects that have a word and
    pass the condition `cut`, by falling score, then object_id. A repeated word counts once.
    """
    terms_of = f"CREATE {temp} MACRO terms_of(words) AS {terms_sql('CAST(words AS VARCHAR)')}"
    matching = f"""
CREATE {temp} MACRO matching_words(words, k := 10, cut := true) AS TABLE
WITH kept AS (SELECT rowid AS kept_row, object_id AS kept_id FROM galaxies WHERE cut),
found AS (
    SELECT row AS found_row, CAST(sum(weight) AS FLOAT) AS found_score FROM {POSTINGS}
    WHERE term IN (SELECT unnest(terms_of(words))) GROUP BY row)
SELECT kept_id AS object_id, found_score AS score
FROM found JOIN kept ON kept_row = found_row
ORDER BY found_score DESC, kept_id
LIMIT k"""
    return [terms_of, matching]


def write_word_index(connection, tables: Iterable[str]) -> int:
    """Write `word_postings` anew for the `galaxies` of the current database; return how many postings there are.

    `tables` names the tables that are there; `captions(object_id, caption)` is read when it is among them. The weights
    depend on all objects, so that rows added later ask for the whole table again, and so does another order of rows.
    """
    connection.execute(f"CREATE OR REPLACE TEMP TABLE galsearch_counts AS {_counts(connection, tables)}")
    connection.execute(f"CREATE OR REPLACE TABLE {POSTINGS} AS {_WEIGHTS}")
    connection.execute("DROP TABLE temp.galsearch_counts")
    return connection.execute(f"SELECT count(*) FROM {POSTINGS}").fetchall()[0][0]


def _counts(connection, tables: Iterable[str]) -> str:
    """Return the SELECT of (row, term, times): how often each object has each of its terms."""
    columns = connection.execute("SELECT column_name, column_type FROM (DESCRIBE galaxies)").fetchall()
    texts = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name, kind in columns if _is_text(name, kind)]
    words = [f"CASE WHEN NOT regexp_full_match({text}, {_quoted(_NO_WORDS)}) THEN {text} END" for text in texts]
    # a full stop between values: no name and no negation reaches across it
    sources = [f"SELECT rowid AS row, concat_ws(' . ', {', '.join(['object_id', *words])}) AS text FROM galaxies"]
    if "captions" in set(tables):
        sources.append("SELECT galaxies.rowid, captions.caption FROM captions JOIN galaxies USING (object_id)")
    terms = f"SELECT row, unnest({terms_sql('text')}) AS term FROM ({' UNION ALL '.join(sources)})"
    return f"SELECT row, term, count(*) AS times FROM ({terms}) GROUP BY row, term"


_WEIGHTS = f"""
WITH lengths AS (SELECT row, CAST(sum(times) AS DOUBLE) AS length FROM temp.galsearch_counts GROUP BY row),
spread AS (SELECT term, count(*) AS objects FROM temp.galsearch_counts GROUP BY term),
whole AS (
    SELECT count(*) AS every, (SELECT sum(length) FROM lengths) / count(*) AS mean FROM galaxies)
SELECT term, row, CAST(ln(1 + (every - objects + 0.5::DOUBLE) / (objects + 0.5::DOUBLE)) * times * {K1 + 1}::DOUBLE
    / (times + {K1}::DOUBLE * ({1 - B}::DOUBLE + {B}::DOUBLE * length / mean)) AS FLOAT) AS weight
FROM temp.galsearch_counts JOIN lengths USING (row) JOIN spread USING (term), whole
ORDER BY term, row"""


def _is_text(name: str, kind: str) -> bool:
    return name not in ("object_id", "file") and (kind == "VARCHAR" or kind.startswith("ENUM"))


def matches(sandbox: Sandbox, text: str, rows: np.ndarray | None = None) -> Matches | None:
    """Return all objects that have at least one word of `text`; of these `rows` only, when they are given.

    A repeated word counts once; a text without words matches nothing. None when the atlas has no word index, which is
    not the same as no match: bundle it again to have one.
    """
    index = f"SELECT count(*) FROM duckdb_tables() WHERE database_name = '{NAME}' AND table_name = '{POSTINGS}'"
    requested = f"SELECT {_affirmed_terms_sql('$1::VARCHAR')}, (SELECT count(*) FROM galaxies), ({index})"
    terms, objects, indexed = sandbox.rows(requested, [affirmed(text)])[0]
    if not indexed:
        return None
    terms = sorted(set(terms))
    result = sandbox.arrow(*_select_postings(terms))
    part, indices, weights = (_values(result, name, kind) for name, kind in _POSTING)
    good = (indices >= 0) & (indices < objects) & (weights >= 0) & (weights < MOST_WEIGHT)  # and no NaN
    if not good.all():
        raise FormatError(
            f"{sandbox.path}: the index of words names objects or weights that there are not; bundle or build the "
            "atlas again"
        )
    most = _largest(part, weights, len(terms))
    attainable = float(np.where(most > 0, most, math.log(2 * objects + 2)).sum())
    if rows is not None:
        kept = np.isin(indices, rows)
        indices, weights = indices[kept], weights[kept]
    indices, scores = _summed(indices, weights)
    order = _falling(scores)
    return Matches(indices[order], scores[order], attainable)


def holders_of(sandbox: Sandbox, text: str, *, most: int) -> list[int]:
    """Return up to `most` rows of objects that hold every term of `text`; none where it has no terms.

    A term of letters and digits, as in "NGC 1300", says the most: where there is one, such terms alone are looked up.
    """
    terms = set(sandbox.rows(f"SELECT {_affirmed_terms_sql('$1::VARCHAR')}", [affirmed(text)])[0][0])
    joined = {term for term in terms if not (term.isalpha() or term.isdigit())}
    requested = sorted(joined or terms)[:_FEW_TERMS]
    if not requested:
        return []
    each = (f"SELECT row FROM {POSTINGS} WHERE term = ${index}" for index in range(1, len(requested) + 1))
    return [row for (row,) in sandbox.rows(f"{' INTERSECT '.join(each)} LIMIT {int(most)}", requested)]


def likely_holders(sandbox: Sandbox, text: str, columns: Iterable[str], *, most: int) -> list[int]:
    """Return up to `most` rows with the letters and digits of `text` in one of the text columns, read from end to end.

    For an atlas without `word_postings`. Blanks, hyphens, points and zeros do not count.
    """
    requested = f"translate(lower(strip_accents($1)), '{_UNCOUNTED}', '')"
    tests = [
        f"""contains(translate(lower(strip_accents("{name.replace('"', '""')}")), '{_UNCOUNTED}', ''), {requested})"""
        for name in columns
    ]
    if not tests:
        return []
    statement = f"SELECT rowid FROM galaxies WHERE {requested} <> '' AND ({' OR '.join(tests)}) LIMIT {int(most)}"
    return [row for (row,) in sandbox.rows(statement, [text])]


_UNCOUNTED = " -_.0"
_POSTING = (("part", np.int64), ("row", np.int64), ("weight", np.float32))
_FEW_TERMS = 16  # so many are looked up one by one, which skips row groups; a list is compared with every posting


def _select_postings(terms: list[str]) -> tuple[str, list]:
    """Return the statement, and its parameters, that gives (place of the term in `terms`, row, weight)."""
    if len(terms) <= _FEW_TERMS:
        nothing = f"SELECT 0::BIGINT AS part, row, weight FROM {POSTINGS} WHERE false"
        each = [f"SELECT {index}, row, weight FROM {POSTINGS} WHERE term = ${index + 1}" for index in range(len(terms))]
        return " UNION ALL ".join([nothing, *each]), terms
    requested = "SELECT unnest($1::VARCHAR[]) AS term, unnest(range(len($1::VARCHAR[]))) AS part"
    return f"SELECT part, row, weight FROM {POSTINGS} JOIN ({requested}) USING (term)", [terms]


def _largest(part: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Return the largest weight of each of `count` parts, 0 where there is none; equal parts mostly lie together."""
    most = np.zeros(count)
    starts = np.flatnonzero(np.diff(part, prepend=-1))
    np.maximum.at(most, part[starts], np.maximum.reduceat(weights, starts))
    return most


def _falling(scores: np.ndarray) -> np.ndarray:
    """Return the order by falling score, equal ones as they stand; scores are float32 and not negative.

    The bits of such numbers are in their order, so that one sort of score and place together does it, five times
    quicker than a stable one of a million.
    """
    key = (~scores.view(np.uint32)).astype(np.uint64) << np.uint64(32) | np.arange(len(scores), dtype=np.uint64)
    return (np.sort(key) & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _summed(indices: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each of `places` once, ascending, and the sum of its weights, float32.

    Weights have 24 bits and lie between 2^-24 and 2^6, so that their sums in double precision are exact in any order.
    """
    if len(indices) and indices.min() >= 0 and indices.max() < 32 * len(indices):  # many: no sorting
        sums = np.bincount(indices, weights)
        result = np.flatnonzero(sums)
        return result, sums[result].astype(np.float32)
    result, index = np.unique(indices, return_inverse=True)
    return result, np.bincount(index, weights, len(result)).astype(np.float32)


def _values(table: pa.Table, column: str, dtype: type) -> np.ndarray:
    """Return a column, read through its buffers, because Array.to_numpy imports pandas. FormatError for a NULL."""
    if table[column].null_count:
        raise FormatError(f"{POSTINGS}: column '{column}' has a NULL; bundle or build the atlas again")
    size = np.dtype(dtype).itemsize
    chunks = [chunk for chunk in table[column].chunks if len(chunk)]
    parts: list[np.ndarray] = [
        np.frombuffer(chunk.buffers()[1], dtype, len(chunk), size * chunk.offset) for chunk in chunks
    ]
    return np.concatenate([np.empty(0, dtype), *parts])


def _replaced(text: str, rules: Iterable[tuple[str, str]]) -> str:
    """Return the SQL expression `text` with each pattern replaced everywhere, one after the other."""
    for pattern, replacement in rules:
        text = f"regexp_replace({text}, {_quoted(pattern)}, {_quoted(replacement)}, 'g')"
    return text


def _quoted(text: str) -> str:
    """Return text as a SQL string."""
    return "'" + text.replace("'", "''") + "'"
