"""What an attacker sends to a public app: conditions, statements, and links that hold them. Data for several tests.

Each text is meant to end the process, to take all time or memory, or to read what is none of a visitor's business.
"""

from __future__ import annotations

import json
from urllib.parse import urlencode

DEEP = "repeat('[', 500000) || repeat(']', 500000)"
DEEP_OBJECT = """repeat('{"a":', 200000) || '1' || repeat('}', 200000)"""
ENDLESS = "generate_series(1, 1000000000000)"
_NUMBERS = ", ".join(f"galaxies g{number}" for number in range(8))


def doubling(levels: int = 40, *, join: str = "a, {0} b") -> str:
    """Return a statement whose common tables each hold the square of the one before."""
    tables = ["c0 AS (SELECT 1 AS x UNION ALL SELECT 2)"]
    for level in range(1, levels):
        before = f"c{level - 1}"
        tables.append(f"c{level} AS (SELECT a.x FROM {before} {join.format(before)})")
    return f"WITH {', '.join(tables)} SELECT count(*) FROM c{levels - 1}"


def nested(text: str, levels: int, *, before: str = "(", after: str = ")") -> str:
    """Return a text in many brackets."""
    return before * levels + text + after * levels


# scalars that are harmless to read and expensive to compute; each is put into a condition and into a statement
HEAVY_SCALARS = {
    "json depth": f"json_contains({DEEP}, '1')",
    "json depth, allowed function": f"json_valid({DEEP})",
    "json depth, keys": f"json_keys({DEEP_OBJECT}) IS NULL",
    "json depth, extract": f"json_extract({DEEP}, '$[0]') IS NULL",
    "json depth, type": f"json_type({DEEP}) = 'x'",
    "json depth, length": f"json_array_length({DEEP}) = 3",
    "json depth, cast": f"({DEEP})::JSON IS NULL",
    "json depth, variant": "(repeat('[', 300000) || repeat(']', 300000))::JSON::VARIANT IS NULL",
    "json depth, list": f"({DEEP})::JSON::INTEGER[] IS NULL",
    "json depth, struct": f"({DEEP_OBJECT})::JSON::STRUCT(a JSON) IS NULL",
    "text depth, list": f"({DEEP})::VARCHAR[] IS NULL",
    "to_json": f"to_json({DEEP}) IS NULL",
    "lpad": "length(lpad('x', 2000000000, 'y')) = 1",
    "rpad": "length(rpad('x', 2000000000, 'yz')) = 1",
    "lpad of rows": "length(lpad(object_id, 2000000000, 'y')) = 1",
    "repeat": "length(repeat('x', 2000000000)) = 1",
    "repeat twice": "length(repeat(repeat('x', 1000000), 100000)) = 1",
    "concat": "length(concat(" + ", ".join(["repeat('x', 100000000)"] * 20) + ")) = 1",
    "replace": "length(replace(repeat('x', 1000000), 'x', repeat('y', 100000))) = 1",
    "list of numbers": "len(range(100000000000)) = 1",
    "series": "len(generate_series(1, 10000000000)) = 1",
    "list product": "list_sum([x * y FOR x IN range(100000) FOR y IN range(100000)]) = 1",
    "list transform": "len(list_transform(range(2000000000), lambda x: x + 1)) = 1",
    "list reduce": "list_reduce(range(200000000), lambda a, b: a + b) = 1",
    "list resize": "len(list_resize([1], 10000000000)) = 1",
    "list sort": "list_sort(list_transform(range(500000000), lambda x: hash(x)))[1] = 1",
    "split": "len(string_split(repeat('x,', 500000000), ',')) = 1",
    "regexp": "regexp_matches(repeat('a', 100000000), '(a*)*b')",
    "regexp, long": "regexp_matches('a', repeat('(a|', 5000) || repeat(')', 5000))",
    "regexp, counted": "regexp_matches(repeat('a', 1000000), '((a{1,100}){1,100}){1,100}')",
    "regexp, all": "len(regexp_extract_all(repeat('a', 300000000), 'a')) = 1",
    "levenshtein": "levenshtein(repeat('a', 300000), repeat('b', 300000)) = 1",
    "damerau": "damerau_levenshtein(repeat('a', 100000), repeat('b', 100000)) = 1",
    "jaccard": "jaccard(repeat('ab', 300000000), 'b') = 1",
    "like": "repeat('a', 100000) LIKE repeat('%a', 20000) || 'b'",
    "like, long": "repeat('a', 100000000) LIKE '%a%a%a%a%a%a%b'",
    "glob": "repeat('a', 3000) GLOB repeat('*a', 1000) || 'b'",
    "similar": "repeat('a', 100000) SIMILAR TO '(a|aa)+b'",
    "format": "length(format('{:2000000000d}', 1)) = 1",
    "printf": "length(printf('%2000000000d', 1)) = 1",
    "printf of a wild pointer": "printf('%s%s%s%n', 'x') = '1'",
    "bar": "length(bar(1, 0, 1, 1e9)) = 1",
    "to_base": "length(to_base(1, 2, 2000000000)) = 1",
    "base64": "length(base64(repeat('x', 1500000000)::BLOB)) = 1",
    "hash of much": "sha256(repeat('x', 2000000000)) = 'x'",
    "factorial": "factorial(100000000) = 1",
    "translate": "length(translate(repeat('a', 1000000000), 'a', 'b')) = 1",
    "bit": "bit_count(repeat('1', 1000000000)::BIT) = 1",
    "decimal": "length((10::DECIMAL(38, 0) ^ 37)::VARCHAR || repeat('0', 1000000000)) = 1",
    "map": "cardinality(map(range(100000000), range(100000000))) = 1",
    "array cast": "len([1]::INTEGER[100000]) = 1",
    "array of arrays": "len([[[[1]]]]::INTEGER[1000][1000][1000][1000]) = 1",
    "date series": "len(generate_series(DATE '0001-01-01', DATE '9999-01-01', INTERVAL 1 MICROSECOND)) = 1",
    "time zones": "len(list_transform(range(100000000), lambda x: timezone('Asia/Tokyo', now()))) = 1",
    "strptime": "strptime(repeat('1', 100000000), repeat('%Y', 10000)) IS NULL",
    "url": "length(url_encode(repeat('é', 700000000))) = 1",
}
# tables that never end or multiply
HEAVY_TABLES = {
    "series, counted": f"SELECT count(*) FROM {ENDLESS}",
    "series, returned": f"FROM {ENDLESS}",
    "series, sorted": f"SELECT * FROM {ENDLESS} t(x) ORDER BY hash(x)",
    "series, grouped": f"SELECT hash(x), count(*) FROM {ENDLESS} t(x) GROUP BY 1",
    "series, distinct": f"SELECT DISTINCT x FROM {ENDLESS} t(x)",
    "series, listed": f"SELECT list(x) FROM {ENDLESS} t(x)",
    "series, joined text": f"SELECT string_agg(x::VARCHAR, ',') FROM {ENDLESS} t(x)",
    "series, windowed": f"SELECT sum(x) OVER (ORDER BY hash(x) ROWS 1000000 PRECEDING) FROM {ENDLESS} t(x)",
    "range of rows": "SELECT count(*) FROM range(10000000000) WHERE hash(range) % 7 = 3",
    "unnest": "SELECT count(*) FROM (SELECT unnest(range(10000000000)))",
    "cross join": f"SELECT sum(g0.ra * g7.ra) FROM {_NUMBERS}",
    "cross join, returned": f"SELECT * FROM {_NUMBERS}",
    "cross join, sorted": f"SELECT g0.ra FROM {_NUMBERS} ORDER BY g7.dec + g1.ra",
    "inequality join": f"SELECT sum(g0.z * g5.z) FROM {_NUMBERS} WHERE g0.ra < g1.dec",
    "doubling tables": doubling(),
    "doubling tables, few": doubling(9),
    "doubling unions": doubling(60, join="a UNION ALL SELECT x FROM {0}"),
    "doubling lateral": doubling(20, join="a, LATERAL (SELECT a.x FROM {0}) b"),
    "recursion": "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    "recursion that doubles": "WITH RECURSIVE r AS (SELECT 'x' AS n UNION ALL SELECT n || n FROM r) FROM r",
    "recursion that grows": "WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + x FROM r, range(9) t(x)) FROM r",
    "recursion of text": "WITH RECURSIVE r AS (SELECT repeat('x', 1000000) n UNION ALL SELECT n FROM r) FROM r",
    "nearest of all": "SELECT count(*) FROM galaxies a, galaxies b, "
    "nearest_exact(concept('spiral galaxy'), k := 300) c, galaxies d, galaxies e, galaxies f",
    "subquery of each row": "SELECT (SELECT count(*) FROM galaxies a, galaxies b, galaxies c WHERE a.z < g.z) "
    "FROM galaxies g, galaxies h, galaxies i",
    "quantiles": f"SELECT quantile_cont(x, 0.5), median(x), mode(x) FROM {ENDLESS} t(x)",
    "histogram": f"SELECT histogram(x) FROM {ENDLESS} t(x)",
    "wide": "SELECT " + ", ".join(f"repeat('x', 50000000) AS c{n}" for n in range(200)),
    "wide rows": "SELECT " + ", ".join(f"lpad(object_id, 1000000, '{n}')" for n in range(300)) + " FROM galaxies",
    "many columns": "SELECT " + ", ".join(["*"] * 1500) + " FROM galaxies",
    "cube": "SELECT count(*) FROM galaxies GROUP BY CUBE (" + ", ".join(f"z + {n}" for n in range(12)) + ")",
    "grouping sets": "SELECT count(*) FROM galaxies GROUP BY " + ", ".join(["CUBE (ra, dec, z)"] * 5),
    "pivot": f"FROM (SELECT x FROM {ENDLESS} t(x)) PIVOT (count(*) FOR x IN (1, 2))",
    "sample": f"SELECT * FROM {ENDLESS} USING SAMPLE 90%",
    "asof": f"SELECT count(*) FROM {ENDLESS} a(x) ASOF JOIN {ENDLESS} b(y) ON a.x >= b.y",
    "positional": f"SELECT count(*) FROM {ENDLESS} a POSITIONAL JOIN {ENDLESS} b",
    "exists": f"SELECT EXISTS (FROM {ENDLESS} t(x) WHERE x < 0)",
    "summary": f"SUMMARIZE FROM {ENDLESS}",
    "explained": f"EXPLAIN ANALYZE SELECT count(*) FROM {ENDLESS}",
}
# what takes the parser, the binder or the planner down
SHAPES = {
    "brackets": nested("true", 9_000),
    "not": nested("true", 4_900, before="NOT ", after=""),
    "minus": "1 = " + nested("1", 9_000, before="- ", after=""),
    "case": nested("true", 600, before="CASE WHEN true THEN ", after=" END"),
    "function": nested("1", 1_900, before="abs(", after=")") + " = 1",
    "list": nested("1", 9_000, before="[", after="]") + " IS NULL",
    "struct": nested("1", 2_400, before="{'a': ", after="}") + " IS NULL",
    "cast": "1" + "::INT" * 3_900 + " = 1",
    "cast type": "NULL::INT" + "[]" * 9_000 + " IS NULL",
    "and": " AND ".join(["z < 1"] * 2_000),
    "or": " OR ".join(["z < 1"] * 2_000),
    "plus": "+".join(["1"] * 9_000) + " = 1",
    "in": "z IN (" + ", ".join(map(str, range(3_500))) + ")",
    "concat": "||".join(["'a'"] * 3_900) + " = 'a'",
    "subqueries": nested("1", 500, before="(SELECT ", after=")") + " = 1",
    "arrow": "'{}'" + "->'a'" * 3_500 + " IS NULL",
    "dots": "galaxies" + ".z" * 5_000 + " = 1",
    "index": "[1]" + "[1]" * 5_000 + " = 1",
    "between": nested("1", 1_000, before="1 BETWEEN 0 AND (", after=")"),
    "lambda": nested("[1]", 300, before="list_transform(", after=", lambda x: x)") + " IS NULL",
    "collate": "'a' " + "COLLATE NOCASE " * 1_200 + "= 'a'",
    "nul": "z < 1\0 AND true",
    "surrogates": "object_id = '\ud800'",
    "comment": "true /*" + "/*" * 5_000,
    "quote": "object_id = '" + "''" * 9_000,
    "dollar": "$$" * 5_001,
    "long number": "z < " + "9" * 19_000,
    "long exponent": "z < 1e" + "9" * 19_000,
    "long name": '"' + "x" * 19_000 + '" = 1',
    "too long": "object_id = '" + "x" * 100_000 + "'",
    "far too long": "object_id IN ('" + "x" * 3_000_000 + "')",
}
# what tells of the machine, runs text, waits, or reaches out
DISCLOSING = (
    "FROM duckdb_databases()",
    "FROM pragma_database_list",
    "FROM pragma_database_size()",
    "FROM duckdb_settings()",
    "FROM duckdb_settings",
    "FROM pg_catalog.pg_settings",
    "FROM pg_settings",
    "FROM sqlite_master",
    "FROM duckdb_secrets()",
    "FROM duckdb_extensions()",
    "FROM duckdb_temporary_files()",
    "FROM duckdb_external_file_cache()",
    "FROM duckdb_memory()",
    "FROM duckdb_logs()",
    "FROM duckdb_prepared_statements()",
    "FROM duckdb_variables()",
    "FROM duckdb_views() WHERE getenv('HOME') <> ''",
    "FROM glob('/*')",
    "FROM glob('../*')",
    "FROM read_text('/etc/passwd')",
    "FROM read_blob('/proc/self/environ')",
    "FROM read_csv('/etc/passwd')",
    "FROM read_csv_auto(['/etc/passwd'])",
    "FROM read_json('/etc/passwd')",
    "FROM read_parquet('https://example.org/x')",
    "FROM sniff_csv('/etc/passwd')",
    "FROM '/etc/passwd'",
    'FROM "/etc/passwd"',
    "FROM 'data.csv'",
    "FROM parquet_metadata('/etc/passwd')",
    "FROM query('FROM duckdb_settings()')",
    "FROM query_table('pragma_database_list')",
    "FROM json_execute_serialized_sql(json_serialize_sql('FROM duckdb_settings()'))",
    "FROM (SHOW DATABASES)",
    "SELECT current_setting('allowed_paths')",
    "SELECT 'home_directory'.current_setting()",
    "SELECT main.current_setting('home_directory')",
    "SELECT pg_catalog.current_setting('home_directory')",
    "SELECT system.main.current_setting('home_directory')",
    "SELECT [current_setting(x) FOR x IN ['home_directory']]",
    "SELECT list_transform(['home_directory'], lambda x: current_setting(x))",
    "SELECT getenv('HOME')",
    "SELECT getvariable('x')",
    "SELECT current_query()",
    "SELECT version()",
    "SELECT user_agent()",
    "SELECT parse_path('x')",
    "SELECT sleep_ms(100000)",
    "SELECT pg_sleep(100)",
    "SELECT nextval('s')",
    "SELECT write_log('x')",
    "SELECT embed(repeat('a', 100000000))",
    "SELECT embed(object_id) FROM galaxies",
    "SELECT embed(NULL)",
    "SELECT embed(embed('x'))",
    "SELECT " + ", ".join(f"embed('word {number}')" for number in range(200)),
    "WITH pragma_database_list AS (SELECT 1) FROM (WITH x AS (SELECT 1) FROM x), main.pragma_database_list",
    "SELECT * FROM (WITH duckdb_settings AS (SELECT 1) SELECT 1), duckdb_settings",
    "FROM system.main.duckdb_settings",
    "FROM temp.pragma_database_list",
    "EXPLAIN FROM duckdb_settings()",
    "EXPLAIN ANALYZE SELECT current_setting('home_directory')",
    "SUMMARIZE SELECT current_setting('home_directory')",
    "DESCRIBE FROM read_text('/etc/passwd')",
    "SELECT error(current_setting('home_directory'))",
    "SELECT CAST(current_setting('home_directory') AS INTEGER)",
    "FROM checkpoint()",
    "FROM force_checkpoint()",
    "FROM enable_logging()",
    "FROM import_database('/tmp/x')",
    "FROM duckdb_functions() WHERE which_secret('s3://x', 's3') IS NULL",
)
HOSTILE_STATEMENTS = {
    **{f"scalar: {name}": f"SELECT {text}" for name, text in HEAVY_SCALARS.items()},
    **{f"table: {name}": text for name, text in HEAVY_TABLES.items()},
}
HOSTILE_CONDITIONS = {
    **{f"scalar: {name}": f"z < 0.1 OR {text}" for name, text in HEAVY_SCALARS.items()},
    **{f"shape: {name}": text for name, text in SHAPES.items()},
    "doubling tables": f"z < ({doubling()})",
    "endless series": f"z < (SELECT count(*) FROM {ENDLESS})",
    "endless recursion": f"z < ({HEAVY_TABLES['recursion']})",
}


def of_query(where: str) -> str:
    """Return the query string of a link whose question has a condition."""
    return urlencode({"query": json.dumps({"terms": [], "where": where})})


def _links() -> dict[str, tuple[str, str]]:
    """Return links by name: (page, query string)."""
    conditions = ("json depth", "json depth, variant", "lpad", "list product", "regexp, counted", "list of numbers")
    tables = ("series, counted", "doubling tables", "recursion", "cross join", "wide", "series, returned")
    found = {f"where: {name}": ("", of_query(HEAVY_SCALARS[name])) for name in conditions}
    found |= {f"map: {name}": ("map", of_query(HEAVY_SCALARS[name])) for name in conditions[:3]}
    found |= {
        f"shape: {name}": ("", of_query(SHAPES[name])) for name in ("brackets", "case", "subqueries", "list", "or")
    }
    found |= {f"sql: {name}": ("sql", urlencode({"sql": f"SELECT {HEAVY_SCALARS[name]}"})) for name in conditions}
    found |= {f"sql: {name}": ("sql", urlencode({"sql": HEAVY_TABLES[name]})) for name in tables}
    found |= {f"sql: {text}": ("sql", urlencode({"sql": text})) for text in DISCLOSING[:6]}
    return found


LINKS = _links()
