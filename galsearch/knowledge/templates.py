"""Templates of knowledge bases: the labels that measured lines and catalogs give, by name.

galsearch kb create mine.atlas liner --template liner
"""

from __future__ import annotations

from dataclasses import dataclass

from galsearch.errors import QueryError
from galsearch.language.cuts import quoted
from galsearch.store import Store

CLASSES_OF_SURVEYS = ("class", "cls", "spectype")  # columns in which SDSS and DESI say galaxy, quasar or star
AGN = "('Seyfert', 'LINER', 'AGN')"


@dataclass(frozen=True)
class Template:
    """Labels by an expression over measures, {name} being the column of a measure; NULL for objects without one.

    `target` is the class that is looked for, None where all are.
    """

    meaning: str
    measures: tuple[str, ...]
    label: str
    target: str | None = None


TEMPLATES = {
    "activity": Template("star-forming, composite, Seyfert or LINER by the BPT diagram", ("bpt_class",), "{bpt_class}"),
    "liner": Template(
        "LINER against the other classes of the BPT diagram",
        ("bpt_class",),
        "CASE WHEN {bpt_class} = 'LINER' THEN 'LINER' WHEN {bpt_class} IS NOT NULL THEN 'other' END",
        target="LINER",
    ),
    "gas": Template(
        "star-forming, composite, AGN or passive by the BPT and WHAN diagrams",
        ("bpt_class", "whan_class"),
        f"CASE WHEN {{bpt_class}} IN {AGN} THEN 'AGN' WHEN {{bpt_class}} IS NOT NULL THEN {{bpt_class}} "
        "WHEN {whan_class} IN ('passive', 'retired') THEN 'passive' END",
    ),
    "whan": Template("star-forming, strong AGN, weak AGN, retired or passive by WHAN", ("whan_class",), "{whan_class}"),
    "type": Template("galaxy, quasar or star, as the survey's catalog says", (), ""),
}


def select_of(store: Store, name: str) -> tuple[str, str | None]:
    """Return the SELECT of a template over the columns of an atlas, and its target.

    Raises QueryError for an unknown template, and for an atlas without the columns that it needs.
    """
    template = TEMPLATES.get(name)
    if template is None:
        raise QueryError(f"there is no template {name!r:.40}, there are {', '.join(TEMPLATES)}")
    known = {column.casefold(): column for column in store.describe()["column"].to_pylist()}
    if not template.measures:
        column = next((known[one] for one in CLASSES_OF_SURVEYS if one in known), None)
        if column is None:
            raise QueryError(
                f"template '{name}' needs a column {' or '.join(CLASSES_OF_SURVEYS)} of a survey, and {store.path} has "
                "none; give the table of the survey when building, or a SELECT of the column that says it"
            )
        return _select(quoted(column)), template.target
    columns = {one: store.manifest.measure_column(one) for one in template.measures}
    absent = [one for one, column in columns.items() if column is None or column.casefold() not in known]
    if absent:
        raise QueryError(
            f"template '{name}' needs the measure {absent[0]}, and {store.path} has none; `galsearch measure` takes it "
            "from the lines of spectra"
        )
    return _select(template.label.format(**{one: quoted(str(column)) for one, column in columns.items()})), (
        template.target
    )


def _select(label: str) -> str:
    return f"SELECT object_id, label FROM (SELECT object_id, {label} AS label FROM galaxies) WHERE label IS NOT NULL"
