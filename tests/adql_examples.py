"""Queries in the forms that examples of STILTS, GAVO and Gaia have, for an atlas, each beside DuckDB by hand."""

# ruff: noqa: E501  queries are read best in one line

SEP = "separation_arcsec(ra, dec, {0}, {1}) / 3600.0"


def sep(ra: object, dec: object, *, of: str = "") -> str:
    """Return the separation in degrees as our macro gives it."""
    dot = f"{of}." if of else ""
    return f"separation_arcsec({dot}ra, {dot}dec, {ra}, {dec}) / 3600.0"


def _cones() -> list[tuple[str, str]]:
    pairs = []
    for ra, dec, radius in (
        (0, 10, 1),
        (0.5, 10.5, 0.5),
        (359.9, 10, 2),
        (180, -60, 40),
        (10, 89.9, 60),
        (53.1, -27.8, 0.2),
    ):
        where = f"{sep(ra, dec)} <= {radius}"
        by_hand = f"SELECT object_id FROM galaxies WHERE {where}"
        circle = f"CIRCLE('ICRS', {ra}, {dec}, {radius})"
        point = "POINT('ICRS', ra, dec)"
        pairs += [
            (f"SELECT object_id FROM galaxies WHERE 1 = CONTAINS({point}, {circle})", by_hand),
            (
                f"SELECT object_id FROM galsearch.galaxies WHERE CONTAINS(POINT(ra, dec), CIRCLE({ra}, {dec}, {radius})) = 1",
                by_hand,
            ),
            (f"SELECT object_id FROM galaxies WHERE DISTANCE(POINT(ra, dec), POINT({ra}, {dec})) <= {radius}", by_hand),
            (f"SELECT object_id FROM galaxies WHERE DISTANCE(ra, dec, {ra}, {dec}) <= {radius}", by_hand),
            (
                f"SELECT object_id FROM galaxies WHERE INTERSECTS({point}, CIRCLE(POINT({ra}, {dec}), {radius})) = 1",
                by_hand,
            ),
            (
                f"SELECT object_id FROM galaxies WHERE CONTAINS({point}, {circle}) = 0",
                f"SELECT object_id FROM galaxies WHERE NOT ({where})",
            ),
            (
                f"SELECT TOP 5 object_id, DISTANCE(POINT(ra, dec), POINT({ra}, {dec})) AS d FROM galaxies WHERE ra IS NOT NULL ORDER BY d, object_id",
                f"SELECT object_id, {sep(ra, dec)} AS d FROM galaxies WHERE ra IS NOT NULL ORDER BY d, object_id LIMIT 5",
            ),
        ]
    return pairs


SAME = [  # what is the same in both languages
    "SELECT object_id, z FROM galaxies WHERE z < 0.05",
    "SELECT object_id FROM galaxies WHERE z BETWEEN 0.05 AND 0.1 AND mag_r < 17",
    "SELECT object_id FROM galaxies WHERE z < 0.02 OR mag_r < 14.5",
    "SELECT object_id FROM galaxies WHERE NOT (z < 0.02 OR mag_r < 14.5)",
    "SELECT object_id FROM galaxies WHERE survey IN ('north', 'south')",
    "SELECT object_id FROM galaxies WHERE survey NOT IN ('north')",
    "SELECT object_id FROM galaxies WHERE survey IS NULL AND z IS NOT NULL",
    "SELECT object_id FROM galaxies WHERE survey LIKE 'n%'",
    "SELECT object_id FROM galaxies WHERE survey NOT LIKE '%th'",
    "SELECT object_id FROM galaxies WHERE survey ILIKE 'NORTH'",
    "SELECT object_id FROM galaxies WHERE survey = 'd''Or'",
    "SELECT DISTINCT survey FROM galaxies",
    "SELECT survey, COUNT(*) AS n FROM galaxies GROUP BY survey",
    "SELECT survey, AVG(z) AS mean, MIN(z) AS low, MAX(z) AS high FROM galaxies GROUP BY survey HAVING COUNT(*) > 10",
    "SELECT COUNT(DISTINCT survey) AS n, COUNT(z) AS known FROM galaxies",
    "SELECT object_id, mag_r - 5 * z AS x FROM galaxies WHERE mag_r + z > 16",
    "SELECT object_id, ABS(dec) AS a, SQRT(z) AS r, POWER(z, 2) AS p, EXP(z) AS e FROM galaxies WHERE z > 0",
    "SELECT object_id, FLOOR(mag_r) AS f, CEILING(mag_r) AS c, ROUND(mag_r, 1) AS r FROM galaxies",
    "SELECT object_id, SIN(RADIANS(dec)) AS s, COS(RADIANS(dec)) AS c, TAN(RADIANS(dec)) AS t FROM galaxies",
    "SELECT object_id, DEGREES(ATAN2(z, mag_r)) AS a, ASIN(z) AS b, ACOS(z) AS c, ATAN(z) AS d FROM galaxies",
    "SELECT object_id, UPPER(survey) AS u, LOWER(survey) AS l FROM galaxies",
    "SELECT object_id, survey || '-' || object_id AS name FROM galaxies",
    "SELECT object_id, COALESCE(z, -1.0) AS z0 FROM galaxies",
    "SELECT object_id, CASE WHEN z < 0.1 THEN 'near' ELSE 'far' END AS place_of FROM galaxies",
    "SELECT object_id, CAST(mag_r AS INTEGER) AS m FROM galaxies",
    "SELECT g.object_id FROM galaxies AS g WHERE g.z < 0.05",
    "SELECT g.object_id FROM galaxies g WHERE g.z < 0.05",
    "SELECT a.object_id, b.object_id AS other FROM galaxies AS a JOIN galaxies AS b ON a.mag_r = b.mag_r AND a.object_id < b.object_id",
    "SELECT a.object_id, b.z FROM galaxies AS a INNER JOIN galaxies AS b USING (object_id)",
    "SELECT a.object_id, b.z AS low FROM galaxies AS a LEFT OUTER JOIN (SELECT object_id, z FROM galaxies WHERE z < 0.05) AS b ON a.object_id = b.object_id",
    "SELECT b.object_id FROM (SELECT object_id FROM galaxies WHERE z < 0.02) AS a RIGHT OUTER JOIN galaxies AS b ON a.object_id = b.object_id",
    "SELECT a.object_id FROM galaxies AS a, galaxies AS b WHERE a.object_id = b.object_id AND b.z < 0.05",
    "SELECT object_id FROM galaxies WHERE object_id IN (SELECT object_id FROM galaxies WHERE mag_r < 15)",
    "SELECT object_id FROM galaxies AS a WHERE EXISTS (SELECT 1 FROM galaxies AS b WHERE b.mag_r < a.mag_r - 3.5)",
    "SELECT object_id FROM galaxies WHERE z > (SELECT AVG(z) FROM galaxies)",
    "SELECT q.survey, q.n FROM (SELECT survey, COUNT(*) AS n FROM galaxies GROUP BY survey) AS q WHERE q.n > 1",
    "SELECT object_id FROM galaxies WHERE z < 0.02 UNION SELECT object_id FROM galaxies WHERE mag_r < 15",
    "SELECT object_id FROM galaxies WHERE z < 0.1 EXCEPT SELECT object_id FROM galaxies WHERE mag_r < 17",
    "SELECT object_id FROM galaxies WHERE z < 0.1 INTERSECT SELECT object_id FROM galaxies WHERE mag_r < 17",
    "SELECT object_id FROM galaxies WHERE z < 0.02 UNION ALL SELECT object_id FROM galaxies WHERE z < 0.02",
    "WITH near AS (SELECT object_id, z FROM galaxies WHERE z < 0.05) SELECT object_id FROM near WHERE z > 0.01",
    "WITH a AS (SELECT survey, z FROM galaxies), b AS (SELECT survey, AVG(z) AS m FROM a GROUP BY survey) SELECT * FROM b",
    "SELECT ra AS \"right ascension\", \"dec\" FROM galaxies WHERE \"z\" < 0.05",
    "SELECT -z AS minus, +z AS plus, z * -1 AS other FROM galaxies",
    "SELECT object_id FROM galaxies -- of all\nWHERE z < 0.05",
]  # fmt: skip

DIFFERENT = [
    ("SELECT TOP 10 object_id FROM galaxies ORDER BY object_id", "SELECT object_id FROM galaxies ORDER BY object_id LIMIT 10"),
    ("SELECT TOP 5 * FROM galaxies ORDER BY mag_r DESC, object_id", "SELECT * FROM galaxies ORDER BY mag_r DESC, object_id LIMIT 5"),
    ("SELECT DISTINCT TOP 2 survey FROM galaxies ORDER BY survey", "SELECT DISTINCT survey FROM galaxies ORDER BY survey LIMIT 2"),
    ("SELECT object_id FROM galaxies ORDER BY object_id OFFSET 290", "SELECT object_id FROM galaxies ORDER BY object_id OFFSET 290"),
    ("SELECT TOP 3 object_id FROM galaxies ORDER BY 1 OFFSET 2", "SELECT object_id FROM galaxies ORDER BY 1 LIMIT 3 OFFSET 2"),
    ("SELECT object_id, LOG(z) AS l FROM galaxies WHERE z > 0", "SELECT object_id, ln(z) AS l FROM galaxies WHERE z > 0"),
    ("SELECT object_id, LOG10(z) AS l FROM galaxies WHERE z > 0", "SELECT object_id, log10(z) AS l FROM galaxies WHERE z > 0"),
    ("SELECT object_id, SQUARE(z) AS q FROM galaxies", "SELECT object_id, pow(z, 2) AS q FROM galaxies"),
    ("SELECT object_id, TRUNCATE(mag_r) AS t FROM galaxies", "SELECT object_id, trunc(mag_r) AS t FROM galaxies"),
    ("SELECT object_id, MOD(companions, 2) AS m FROM galaxies", "SELECT object_id, companions % 2 AS m FROM galaxies"),
    ("SELECT PI() AS p FROM galaxies", "SELECT pi() AS p FROM galaxies"),
    ("SELECT object_id, COORD1(POINT('ICRS', ra, dec)) AS r FROM galaxies", "SELECT object_id, ra AS r FROM galaxies"),
    ("SELECT object_id, COORD2(POINT(ra, dec)) AS d FROM galaxies", "SELECT object_id, dec AS d FROM galaxies"),
    ("SELECT COORD2(CENTROID(CIRCLE(10, 20, 3))) AS d FROM galaxies", "SELECT 20 AS d FROM galaxies"),
    ("SELECT COUNT(*) AS n FROM TAP_SCHEMA.schemas", "SELECT 2 AS n"),
    ("SELECT table_name FROM TAP_SCHEMA.tables WHERE schema_name = 'tap_schema' ORDER BY table_name",
     "SELECT 'tap_schema.' || unnest(['columns', 'key_columns', 'keys', 'schemas', 'tables']) AS table_name"),
    ("SELECT c.unit FROM TAP_SCHEMA.columns AS c JOIN TAP_SCHEMA.tables AS t ON c.table_name = t.table_name WHERE c.column_name = 'ra'",
     "SELECT 'deg' AS unit"),
    ("SELECT tap_schema.tables.table_name FROM tap_schema.tables WHERE table_index = 0", "SELECT 'galsearch.galaxies' AS table_name"),
    ("SELECT m.name FROM TAP_UPLOAD.mine AS m", "SELECT unnest(['a', 'b', 'c']) AS name"),
    (
        "SELECT m.name, g.object_id FROM galaxies AS g JOIN TAP_UPLOAD.mine AS m ON 1 = CONTAINS(POINT('ICRS', g.ra, g.dec), CIRCLE('ICRS', m.ra, m.dec, 1.0))",
        "SELECT m.name, g.object_id FROM galaxies g, (SELECT unnest(['a', 'b', 'c']) AS name, unnest([0.0, 1.0, 200.0]) AS ra, "
        "unnest([10.0, 10.5, -45.0]) AS dec) m WHERE separation_arcsec(g.ra, g.dec, m.ra, m.dec) <= 3600",
    ),
    (
        "SELECT g.object_id, DISTANCE(POINT(g.ra, g.dec), POINT(m.ra, m.dec)) AS d FROM TAP_UPLOAD.mine AS m CROSS JOIN galaxies AS g WHERE m.name = 'a' AND g.z < 0.1",
        "SELECT object_id, separation_arcsec(ra, dec, 0, 10) / 3600 AS d FROM galaxies WHERE z < 0.1",
    ),
    ("SELECT object_id FROM galaxies WHERE CONTAINS(POINT(ra, dec), CIRCLE(ra, dec, 0)) = 1", "SELECT object_id FROM galaxies WHERE ra IS NOT NULL AND dec IS NOT NULL"),
    ("SELECT CONTAINS(POINT(ra, dec), CIRCLE(0, 10, 1)) AS inside, COUNT(*) AS n FROM galaxies GROUP BY inside",
     "SELECT CAST(separation_arcsec(ra, dec, 0, 10) <= 3600 AS INTEGER) AS inside, count(*) AS n FROM galaxies GROUP BY inside"),
]  # fmt: skip

EXAMPLES = [*((text, text) for text in SAME), *DIFFERENT, *_cones()]
