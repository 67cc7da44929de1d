"""Words: what counts as one, BM25 against a few lines of numpy, names however they are written, and plain SQL."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from negations import QUERIES

from galsearch.language.negation import affirmed
from galsearch.store.index.fulltext import STOP_WORDS, matches, terms_sql, word_macros, write_word_index
from galsearch.store.sql.sandbox import Sandbox

K1, B = 1.2, 0.75


def bm25(documents: Sequence[Sequence[str]], question: Sequence[str]) -> np.ndarray:
    """Return the scores of the documents, written out term by term."""
    mean = np.mean([len(document) for document in documents])
    scores = np.zeros(len(documents))
    for term in set(question):
        holders = sum(term in document for document in documents)
        idf = np.log(1 + (len(documents) - holders + 0.5) / (holders + 0.5))
        for row, document in enumerate(documents):
            times = Counter(document)[term]
            scores[row] += idf * times * (K1 + 1) / (times + K1 * (1 - B + B * len(document) / mean))
    return scores


def write(path: Path, galaxies: str, *, captions: Sequence[tuple[str, str | None]] = ()) -> Path:
    """Write a DuckDB file with `galaxies` from a SELECT, captions, the word index and its macros; return the path."""
    with duckdb.connect(path) as connection:
        connection.execute(f"CREATE TABLE galaxies AS {galaxies}")
        if captions:
            connection.execute("CREATE TABLE captions (object_id VARCHAR, caption VARCHAR)")
            connection.executemany("INSERT INTO captions VALUES ($1, $2)", list(captions))
        write_word_index(connection, ["galaxies", "captions"] if captions else ["galaxies"])
        for statement in word_macros():
            connection.execute(statement)
    return path


def named(path: Path, names: Sequence[str | None]) -> Path:
    """Write galaxies g0, g1, … that have these names."""
    rows = ", ".join(f"('g{row}', {'NULL' if name is None else quoted(name)})" for row, name in enumerate(names))
    return write(path, f"SELECT * FROM (VALUES {rows}) t(object_id, name)")


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.fixture
def opened():
    """Open files for reading; they are closed at the end."""
    held = []

    def opening(path: Path) -> Sandbox:
        held.append(Sandbox(path))
        return held[-1]

    yield opening
    for sandbox in held:
        sandbox.close()


@pytest.fixture(scope="module")
def terms():
    """Return the terms of a text, in order."""
    with duckdb.connect() as connection:
        yield lambda text: sorted(connection.execute(f"SELECT {terms_sql('$1')}", [text]).fetchall()[0][0])


def macro(path: Path, call: str) -> list[tuple]:
    with duckdb.connect(path, read_only=True) as connection:
        return connection.execute(f"FROM {call}").fetchall()


# ---- what counts as a word

GALAXY = ["1300", "ngc", "ngc1300"]
MESSIER = ["51", "m", "m51"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((name, GALAXY) for name in ("NGC 1300", "NGC1300", "ngc-1300", "NGC 01300", "NGC  1300", "ngc_1300")),
        *((name, GALAXY) for name in ("NGC–1300", "NGC−1300", "(NGC 1300)", "the NGC 1300")),
        *((name, MESSIER) for name in ("M51", "M 51", "m 051")),
        ("NGC 1300A", ["1300", "ngc", "ngc1300a"]),
        ("NGC1300abc", ["1300", "abc", "ngc", "ngc1300"]),
        ("PGC0000212", ["212", "pgc", "pgc212"]),
        ("ESO 137-001", ["1", "137", "eso", "eso137"]),
        ("3C 273", ["273", "3", "c", "c273"]),
        ("3C273", ["273", "3", "c", "c273"]),
        ("SDSS J1325+4145", ["1325", "4145", "j", "j1325", "sdss"]),
        ("0000", ["0"]),
        ("1237650000000000012", ["1237650000000000012"]),
    ],
)
def test_a_name_is_its_letters_its_number_and_both(terms, text, expected):
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("several", "one"),
    [
        ("spirals", "spiral"),
        ("galaxies", "galaxy"),
        ("lenses", "lens"),
        ("classes", "class"),
        ("boxes", "box"),
        ("dust lanes", "dust lane"),
        ("Bode's", "Bode"),
        ("Hoag’s objects", "Hoag object"),
        ("phases", "phase"),
    ],
)
def test_the_plural_and_the_possessive_are_the_word(terms, several, one):
    assert terms(several) == terms(one)


@pytest.mark.parametrize("word", ["gas", "axis", "virgo", "status", "class"])
def test_a_word_that_only_looks_like_a_plural_stays(terms, word):
    assert terms(word) == [word]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spiral without a bar", ["spiral"]),
        ("a spiral galaxy with no spiral arms or bars, edge-on", ["edge", "galaxy", "spiral"]),
        ("no bar, ring", ["ring"]),
        ("no visible evidence of arms, a disk, or a bar. Smooth", ["smooth"]),
        ("not barred with ring", ["ring"]),
        ("non-barred spiral", ["spiral"]),
        ("not a spiral but ringed", ["ringed"]),
        ("without star-forming regions, blue", ["blue"]),
        ("without\na bar", []),
        ("No. 5", ["5"]),
        ("no", []),
        ("north of a notable node", ["node", "north", "notable"]),
    ],
)
def test_what_is_negated_does_not_count(terms, text, expected):
    assert terms(text) == expected


@pytest.mark.parametrize(("text", "wanted", "_"), QUERIES)
def test_words_that_a_query_denies_do_not_count_in_sql_nor_in_a_search(terms, text, wanted, _):
    own = [word for word in ("unbarred", "nonbarred", "barless") if text == f"{word} spiral"]  # words by themselves
    assert terms(text) == terms(affirmed(text)) == sorted([*terms(wanted), *own])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t ", []),
        ("?!—…", []),
        (" ".join(STOP_WORDS), []),
        ("ÉTOILE étoile e\u0301toile", ["etoile"] * 3),
        ("«Ørsted» “ring”", ["ring", "ørsted"]),
        ("ΑΒΓ", ["αβγ"]),
        ("银河 M31", ["31", "m", "m31", "银河"]),
        ("'; DROP TABLE galaxies; --", ["drop", "galaxy", "table"]),
    ],
)
def test_any_text_has_terms(terms, text, expected):
    assert terms(text) == expected


def test_no_text_has_no_terms():
    assert duckdb.sql(f"SELECT {terms_sql('NULL::VARCHAR')}").fetchall() == [([],)]


@given(text=st.text())
def test_terms_are_letters_and_digits_in_lower_case(terms, text):
    found = terms(text)
    assert not set(found) & set(STOP_WORDS)
    assert all(term and not set(term) & set(" \n\t.,;'\"-_()") and term == term.lower() for term in found)


@settings(max_examples=10)
@given(words=st.lists(st.sampled_from(["Spiral", "NGC 1300", "rings", "M51", "dusty", "7"]), max_size=6))
def test_case_does_not_matter(terms, words):
    text = " . ".join(words)
    assert terms(text) == terms(text.upper()) == terms(text.lower())


# ---- what a word is worth

CAPTIONS = [
    ("a", "A barred spiral galaxy, and a bar"),
    ("a", "spiral"),
    ("b", "An elliptical galaxy without a bar"),
    ("c", None),
    ("nobody", "bar bar bar"),
]
DOCUMENTS = [
    ["a", "blue", *["barred", "spiral", "galaxy", "bar", "spiral"]],
    ["b", "red", "red", "red", "elliptical", "galaxy"],
    ["c"],
    ["d", "blue"],
]
DOCUMENTS[0].remove("a")  # an id that is a stop word


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> Path:
    """Four galaxies with a color, and captions; never change it."""
    rows = "('a', 'blue', 1.5), ('b', 'red red red', 2.5), ('c', NULL, 3.5), ('d', 'blue', NULL)"
    home = tmp_path_factory.mktemp("four")
    return write(home / "four.duckdb", f"SELECT * FROM (VALUES {rows}) t(object_id, color, z)", captions=CAPTIONS)


@pytest.mark.parametrize("question", ["blue", "red", "spiral bar", "galaxy d", "barred galaxies red", "bar bar bar"])
def test_scores_are_bm25_of_id_columns_and_captions(four, opened, question):
    expected = bm25(DOCUMENTS, question.replace("galaxies", "galaxy").split())
    found = matches(opened(four), question)
    order = [row for row in np.lexsort((np.arange(4), -expected.astype(np.float32))) if expected[row] > 0]
    assert found.rows.tolist() == order
    np.testing.assert_allclose(found.scores, expected[order], rtol=1e-6)
    assert (found.rows.dtype, found.scores.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("galaxies excluding blue ones", "galaxy"),
        ("red galaxy, bar absent", "red galaxy"),
        ("blue without a bar and d", "blue"),
    ],
)
def test_a_search_and_the_macro_leave_out_what_is_denied(four, opened, question, wanted):
    expected = matches(opened(four), wanted)
    found = matches(opened(four), question)
    assert (found.rows.tolist(), found.scores.tolist()) == (expected.rows.tolist(), expected.scores.tolist())
    assert macro(four, f"matching_words('{question}')") == macro(four, f"matching_words('{wanted}')")


def test_postings_are_ordered_by_term_and_row_and_add_up_in_plain_sql(four):
    found = macro(four, "(SELECT term, row, weight FROM word_postings)")
    assert [posting[:2] for posting in found] == sorted(posting[:2] for posting in found)
    total = sum(weight for term, row, weight in found if term in ("blue", "d") and row == 3)
    assert total == pytest.approx(bm25(DOCUMENTS, ["blue", "d"])[3], rel=1e-6)


def test_writing_again_replaces(four, tmp_path):
    path = Path(shutil.copyfile(four, tmp_path / "four.duckdb"))
    before = macro(path, "word_postings")
    with duckdb.connect(path) as connection:
        assert write_word_index(connection, ["galaxies", "captions"]) == len(before)
        assert write_word_index(connection, ["galaxies"]) < len(before)
    assert "spiral" not in {term for term, _, _ in macro(path, "word_postings")}


def test_ties_are_in_the_order_of_rows(tmp_path, opened):
    path = named(tmp_path / "x.duckdb", ["ring", "arm", "ring", "ring"])
    assert matches(opened(path), "ring").rows.tolist() == [0, 2, 3]


def test_one_among_many_and_all_of_many_are_found(tmp_path, opened):
    path = write(tmp_path / "x.duckdb", "SELECT 'PGC' || i AS object_id FROM range(500) t(i)")
    sandbox = opened(path)
    assert matches(sandbox, "321").rows.tolist() == [321]
    every = matches(sandbox, "PGC 321")
    assert every.rows.tolist() == [321, *(row for row in range(500) if row != 321)]
    assert (np.diff(every.scores) <= 0).all()


def test_long_questions_score_like_short_ones(tmp_path, opened):
    documents = [[f"w{'x' * place}y" for place in range(row, row + 6)] for row in range(40)]
    sandbox = opened(named(tmp_path / "x.duckdb", [" ".join(document) for document in documents]))
    for words in (3, 15, 16, 17, 40):
        question = [f"w{'x' * place}y" for place in range(words)]
        found = matches(sandbox, " ".join(question))
        expected = bm25([["g", str(row), f"g{row}", *document] for row, document in enumerate(documents)], question)
        np.testing.assert_allclose(found.scores, expected[found.rows], rtol=1e-6)
        assert set(found.rows.tolist()) == set(np.flatnonzero(expected).tolist())


def test_only_the_wanted_rows_come_back_and_score_as_before(four, opened):
    sandbox = opened(four)
    every, some = matches(sandbox, "galaxy blue"), matches(sandbox, "galaxy blue", np.array([3, 1, 2]))
    kept = np.isin(every.rows, [1, 2, 3])
    assert some.rows.tolist() == every.rows[kept].tolist()
    assert some.scores.tolist() == every.scores[kept].tolist()
    assert some.attainable == every.attainable
    assert matches(sandbox, "galaxy", np.empty(0, np.int64)).rows.tolist() == []


def test_attainable_is_the_best_of_each_word_and_that_of_one_holder_where_there_is_none(four, opened):
    best = [bm25(DOCUMENTS, [term]).max() for term in ("galaxy", "blue")]
    sandbox = opened(four)
    assert matches(sandbox, "galaxies, blue, blue").attainable == pytest.approx(sum(best), rel=1e-6)
    assert matches(sandbox, "blue comet").attainable == pytest.approx(best[1] + np.log(1 + 4.5 / 0.5), rel=1e-6)
    assert matches(sandbox, "without a bar").attainable == 0


def test_nothing_scores_more_than_is_attainable(four, opened):
    found = matches(opened(four), "blue spiral galaxy d")
    assert found.scores.max() <= found.attainable


def test_an_atlas_without_an_index_says_so(tmp_path, opened):
    path = tmp_path / "old.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE galaxies AS SELECT 'a' AS object_id")
    assert matches(opened(path), "a b") is None


# ---- names

NAMES = ["NGC1300", "NGC1300A", "NGC 1301", "IC 1300", "M51, Whirlpool Galaxy", "M 510", "UGC05470", None]


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> Path:
    return named(tmp_path_factory.mktemp("names") / "x.duckdb", NAMES)


@pytest.mark.parametrize(
    ("question", "row"),
    [
        *((name, 0) for name in ("NGC 1300", "NGC1300", "ngc-1300", "NGC 01300", "ngc 1300")),
        ("NGC 1300a", 1),
        ("IC1300", 3),
        ("M51", 4),
        ("m 51", 4),
        ("whirlpools", 4),
        ("UGC 5470", 6),
    ],
)
def test_a_name_finds_its_object_first(names, opened, question, row):
    found = matches(opened(names), question)
    assert found.rows[0] == row
    assert len(found.rows) == 1 or found.scores[0] > found.scores[1]


def test_an_object_is_found_by_its_id(tmp_path, opened):
    path = write(tmp_path / "x.duckdb", "SELECT 'PGC' || lpad(i::VARCHAR, 7, '0') AS object_id FROM range(300) t(i)")
    sandbox = opened(path)
    for question in ("PGC0000212", "PGC 212", "pgc-00212", "212"):
        assert matches(sandbox, question).rows[0] == 212


def test_a_name_does_not_reach_from_one_column_into_the_next(tmp_path, opened):
    path = write(tmp_path / "x.duckdb", "SELECT 'x' AS object_id, 'class Sb without' AS kind, '12 bar' AS name")
    terms = {term for term, _, _ in macro(path, "word_postings")}
    assert "bar" in terms
    assert "sb12" not in terms and "without12" not in terms


# ---- what is no words


def test_files_numbers_addresses_and_long_codes_are_no_words(tmp_path):
    columns = {
        "object_id": "0.75",
        "file": "spiral.png",
        "z_text": "0.329",
        "flux": "-1.5e-17",
        "url": "https://host/ring",
        "hash": "ab" * 40,
        "number": "000212",
        'odd "name"': "flocculent",
    }
    select = ", ".join(f'{quoted(value)} AS "{name.replace(chr(34), chr(34) * 2)}"' for name, value in columns.items())
    path = write(tmp_path / "x.duckdb", f"SELECT {select}, 7 AS k, 'S0'::ENUM('E', 'S0') AS kind")
    assert {term for term, _, _ in macro(path, "word_postings")} == {"0", "75", "212", "flocculent", "s", "s0"}


@pytest.mark.parametrize("rows", [0, 1])
def test_the_smallest_atlases_have_an_index(tmp_path, opened, rows):
    path = write(tmp_path / "x.duckdb", f"SELECT 'M51' AS object_id, NULL::VARCHAR AS name FROM range({rows})")
    found = matches(opened(path), "M 51")
    assert found.rows.tolist() == [0] * rows
    assert macro(path, "matching_words('M 51')") == [("M51", pytest.approx(3 * np.log(4 / 3)))] * rows


def test_objects_without_any_word_are_never_found(tmp_path, opened):
    path = write(tmp_path / "x.duckdb", "SELECT '-' AS object_id, NULL::VARCHAR AS name FROM range(3)")
    assert macro(path, "word_postings") == []
    assert matches(opened(path), "ring").rows.tolist() == []


def test_text_stays_text(tmp_path, opened):
    sandbox = opened(named(tmp_path / "x.duckdb", ["ring", "it's $1 %_"]))
    for text in ("", "the", "'", "\"'\\", "%_", "$1", "x" * 10_000, "a'); DROP TABLE galaxies; --"):
        assert isinstance(matches(sandbox, text).rows.tolist(), list)
        assert sandbox.rows("SELECT count(*) FROM galaxies") == [(2,)]


# ---- plain SQL


def test_the_macro_agrees_with_python_and_orders_ties_by_id(tmp_path, opened):
    rows = "('z', 'ring'), ('b', 'ring arm'), ('y', 'ring'), ('c', NULL)"
    path = write(tmp_path / "x.duckdb", f"SELECT * FROM (VALUES {rows}) t(object_id, name)")
    found = matches(opened(path), "rings and arms")
    asked = macro(path, "matching_words('rings and arms')")
    assert dict(asked) == {"zbyc"[row]: score for row, score in zip(found.rows, found.scores.tolist(), strict=True)}
    assert [object_id for object_id, _ in asked] == ["b", "y", "z"]
    assert asked[1][1] == asked[2][1]


def test_the_macro_takes_a_count_and_a_cut_that_names_any_column(tmp_path):
    columns = (
        "i AS k, i % 2 = 0 AS cut, 'bar' AS words, i AS row, 'x' AS term, 1.0 AS weight, i AS score, i AS kept_row"
    )
    path = write(tmp_path / "x.duckdb", f"SELECT 'g' || i AS object_id, {columns}, 'y' AS caption FROM range(9) t(i)")
    assert [row[0] for row in macro(path, "matching_words('bars', k := 2)")] == ["g0", "g1"]
    assert [row[0] for row in macro(path, "matching_words('bars', cut := score > 6)")] == ["g7", "g8"]
    assert macro(path, "matching_words('bars', cut := false)") == []
    assert macro(path, "matching_words(NULL)") == []


def test_the_terms_of_a_text_can_be_seen(four):
    assert macro(four, "(SELECT list_sort(terms_of('NGC 1300 without a bar')))") == [(GALAXY,)]
