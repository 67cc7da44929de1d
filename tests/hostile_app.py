"""What strangers may put before the app: texts in an atlas that would be markup, and links that would break a page."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb

EVIL = "evil.example"
TEXTS = (
    f"[click](https://{EVIL}/a)",
    f"[click](javascript:fetch('https://{EVIL}/b'))",
    f"![x](https://{EVIL}/c.png)",
    f'<img src=https://{EVIL}/d.png onerror="window.owned=1">',
    "<script>window.owned = 1</script>",
    f"<a href='javascript:window.owned=1'>go</a> https://{EVIL}/e www.{EVIL} me@{EVIL}",
    "$\\frac{1}{2}$ and $$x^2$$ cost $5",
    "# heading\n## another\n---\n===",
    "```\nfence\n```",
    "`` ` `code` ``",
    ":smile: :material/delete: :red[red] :blue-badge[b]",
    "a -> b <- c -- d >= e",
    "> quote\n- list\n1. one\n    indented",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "**bold** _it_ ~~gone~~ \\*escaped\\*",
    "&lt;b&gt; &amp; <b>bold</b>",
    "\u202egnp.exe\u2066\u0007\u001b[31mred",
    f"[ref]: https://{EVIL}/f\n[ref]",
    "=cmd|' /C calc'!A0",
    "x" * 5000,
)


def make_hostile(path: Path) -> Path:
    """Replace every text of a tiny bundle by a hostile one, in place; return its path."""
    quoted = [text.replace("'", "''").replace("\0", "") for text in TEXTS]
    listed = "[" + ", ".join(f"'{text}'" for text in quoted) + "]"
    with duckdb.connect(str(path)) as connection:
        tables = connection.execute(
            "SELECT table_name FROM duckdb_columns() WHERE column_name = 'object_id' AND NOT internal"
        ).fetchall()
        for (table,) in tables:
            # the same new name in every table, and the old one kept at its end so that names stay different
            connection.execute(
                f'UPDATE "{table}" SET object_id = {listed}[1 + (right(object_id, 2)::INT % {len(TEXTS)})] || '
                "' ' || right(object_id, 4)"
            )
        connection.execute(f"UPDATE galaxies SET survey = {listed}[1 + length(survey)] WHERE survey IS NOT NULL")
        for old, new in (("mass", TEXTS[0]), ("mag_r", TEXTS[10])):
            name = new.replace('"', '""')
            connection.execute(f'ALTER TABLE galaxies RENAME COLUMN {old} TO "{name}"')
            connection.execute('UPDATE galsearch_columns SET "column" = $1 WHERE "column" = $2', [new, old])
        connection.execute("UPDATE galsearch_columns SET description = $1, unit = $2", [TEXTS[2], TEXTS[3]])
        connection.execute("UPDATE concepts SET phrase = phrase || ' ' || $1", [TEXTS[1]])
        source = {"title": TEXTS[3], "license": TEXTS[4], "acknowledgement": TEXTS[5], "bibtex": TEXTS[8]}
        for key, value in {"title": TEXTS[0], "sources": [source], "software": TEXTS[4], "created": TEXTS[10]}.items():
            connection.execute("UPDATE galsearch_manifest SET value = $1 WHERE key = $2", [json.dumps(value), key])
        connection.execute("UPDATE captions SET caption = $1, model = $2", [TEXTS[12], TEXTS[0]])
        for table in ("knowledge_bases", "knowledge_labels"):
            connection.execute(f"UPDATE {table} SET base = $1", [TEXTS[3]])
        which = "CASE label WHEN 'edge' THEN 1 WHEN 'ring' THEN 4 ELSE 13 END"
        connection.execute(f"UPDATE knowledge_labels SET label = {listed}[{which}]")
        connection.execute(
            "UPDATE knowledge_bases SET target = $1, label_column = $2, sql = $3, created = $4, shown = [$5]",
            [TEXTS[0], TEXTS[10], TEXTS[4], TEXTS[2], TEXTS[10]],
        )
    return path


def _query(**parts: object) -> dict[str, str]:
    return {"query": json.dumps({"terms": [], **parts})}


def _term(value: object, *, kind: str = "text", weight: object = 1) -> dict:
    return {"kind": kind, "value": value, "weight": weight}


LINKS: dict[str, tuple[str, dict[str, str]]] = {  # name -> (page, what its URL says)
    "no JSON": ("", {"query": "{"}),
    "a list": ("", {"query": "[1]"}),
    "deep JSON": ("", {"query": "[" * 30_000}),
    "deep objects": ("", {"query": '{"a":' * 5_000}),
    "huge k": ("", _query(k=10**30)),
    "negative k": ("", _query(k=-5)),
    "k of text": ("", _query(k="all")),
    "not finite": ("", {"query": '{"terms":[],"near":[NaN,Infinity],"radius_arcsec":1e999}'}),
    "far off the sky": ("", _query(near=[1e300, 1e300], radius_arcsec=1)),
    "half a pair": ("", {"query": '{"terms":[{"kind":"text","value":"\\ud800","weight":1}]}'}),
    "NUL": ("", _query(where="survey = 'a\0b'")),
    "huge text": ("", _query(terms=[_term("galaxy " * 5_000)])),
    "thousands of terms": ("", _query(terms=[_term("a", weight=0.1)] * 1_000)),
    "huge weight": ("", _query(terms=[_term("red", weight=1e308), _term("blue", weight=-1e308)])),
    "weight of text": ("", _query(terms=[_term("red", weight="much")])),
    "no such kind": ("", _query(terms=[_term("red", kind="spell")])),
    "image file": ("", _query(terms=[_term("/etc/hostname", kind="image")])),
    "spectrum file": ("", _query(terms=[_term("/etc/hostname", kind="spectrum")])),
    "by an embedding that is none": ("", _query(terms=[_term("nobody", kind="object") | {"by": "<b>x</b>"}])),
    "empty embedding": ("", _query(terms=[_term([], kind="embedding")])),
    "short embedding": ("", _query(terms=[_term([1, 2, 3], kind="embedding")])),
    "embedding of zeros": ("", _query(terms=[_term([0] * 16, kind="embedding")])),
    "no such object": ("", _query(terms=[_term("nobody", kind="object")])),
    "two statements": ("", _query(where="1=1; DROP TABLE galaxies")),
    "reads a file": ("", _query(where="object_id IN (SELECT content FROM read_text('/etc/passwd'))")),
    "comment": ("", _query(where="true -- ) nothing")),
    "open bracket": ("", _query(where="(((((")),
    "unknown field": ("", _query(password="x")),
    "hybrid of nothing": ("", _query(hybrid="sum")),
    "huge page": ("", {"page": "9" * 5_000}),
    "page of other digits": ("", {"page": "٣"}),
    "unknown view": ("", {"view": "../../etc"}),
    "huge object": ("", {"object": "x" * 20_000}),
    "object with markup": ("", {"object": "<script>window.owned=1</script>"}),
    "atlas with markup": ("", {"atlas": "[x](javascript:alert(1))"}),
    "collection with markup": ("", {"collection": f"[x](https://{EVIL})"}),
    "unknown jobs": ("", {"jobs": "../../x"}),
    "many names": ("", {f"p{number}": "1" for number in range(500)}),
    "unknown page": ("no-such-page", {}),
    "first page by name": ("search", {}),
    "nested page": ("a/b/c", {}),
    "object page, no such object": ("object", {"object": "nobody"}),
    "SQL that is none": ("sql", {"sql": "DROP TABLE galaxies"}),
    "SQL that is huge": ("sql", {"sql": "SELECT " + "1 + " * 8_000 + "1"}),
    "SQL that reads": ("sql", {"sql": "SELECT content FROM read_text('/etc/passwd')"}),
    "SQL that is deep": ("sql", {"sql": "SELECT " + "(" * 2_000 + "1" + ")" * 2_000}),
    "map without end": ("map", {"zoom_plane": "-1e308,1e308,-1e308,1e308", "brush": "plane:-1e308,1e308,0,1"}),
    "map of a point": ("map", {"zoom_plane": "1,1.00000000000001,1,1.00000000000001"}),
    "map of markup": ("map", {"x": "<b>", "y": "') FROM galaxies; --", "log": "xyz" * 1000}),
    "map of a bad filter": ("map", _query(where="nope <")),
    "captions by nobody": ("captions", {"model": "x' OR '1'='1", "turn": "9" * 5_000}),
    "evaluation of nothing": ("evaluate", {"run": "x", "beside": "y", "measure": "z", "share": "!", "target": "'"}),
    "re-ranking of nothing": ("rerank", _query(terms=[_term("red", weight=-1)])),
    "classes by nothing": (
        "knowledge",
        {"base": "<b>x</b>", "version": "-1", "k": "9" * 5_000, "weight": "') --", "of": "../..", "prevalence": "nan"},
    ),
    "classes of nothing": ("knowledge", {"of": "ids", "ids": "nobody\n[x](javascript:alert(1)),\ud800\n" * 900}),
    "columns": ("", {"columns": ",".join(f"c{number}" for number in range(3_000))}),
}
