"""Commands of discovery: odd objects, with how many are expected to be nothing; which objects are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import galsearch
from galsearch.cli import options
from galsearch.cli.options import check_format
from galsearch.cli.output import progress_bar, put_out, tell
from galsearch.cli.program import app

SHOWN = ("object_id", "score", "p_value", "q_value", "tier", "detector", "odd_columns")


@app.command()
def anomalies(
    path: options.AtlasPath,
    budget: Annotated[int, typer.Option("--budget", help="How many to list at most.")] = 50,
    where: options.Where = None,
    near: options.Near = None,
    radius_arcsec: options.RadiusArcsec = None,
    among: Annotated[
        str | None, typer.Option("--among", help="SQL condition on those that they belong to and are compared with.")
    ] = None,
    normals: Annotated[
        str | None, typer.Option("--normals", help="SQL condition on objects known to be ordinary, to compare with.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Column of classes: adds detectors of what fits none of them.")
    ] = None,
    by: options.By = None,
    detectors: Annotated[
        list[str] | None, typer.Option("--detectors", help="Detector to use; may be repeated. All unless said.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--columns", help="Measure that is one more detector; may be repeated.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Of the kNN distance.")] = 10,
    fdr: Annotated[
        float | None, typer.Option("--fdr", help="List only candidates at this false discovery rate, such as 0.1.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the folds, the samples and the forest.")] = 0,
    why: Annotated[bool, typer.Option("--why", help="Say of each what makes it odd, on stderr.")] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Keep all p-values in the table anomalies of the folder.")
    ] = False,
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
):
    """List odd objects, with a false discovery rate.

    Each has a p-value and the reason why it is odd.
    """
    check_format(output_format)
    with galsearch.open(path) as atlas:
        with progress_bar() as progress:
            result = atlas.anomalies(
                budget,
                **{
                    "where": where,
                    "near": options.position(near),
                    "radius_arcsec": radius_arcsec,
                    "among": among,
                },
                **{"normals": normals, "labels": labels, "by": by, "k": k, "fdr": fdr, "seed": seed},
                detectors=detectors,
                columns=columns or [],
                progress=progress,
            )
        run = galsearch.save_anomalies(result) if save else None
        put_out(result.table, output_format, output, shown=SHOWN, meta=result.meta(), quote_formulas=quote_formulas)
    if why:
        tell(*map(_reason, result))
    _tell_result(result, run)


def _reason(one: galsearch.Anomaly) -> str:
    """Return a line on why an object is odd."""
    nats = ", ".join(f"{name} {value:.1f}" for name, value in one.surprise.items())
    left = "" if one.residual is None else f"; residual {one.residual:.2f}"
    columns = f"; {', '.join(one.columns)}" if one.columns else ""
    return f"{one.object_id}: {nats} nats{left}{columns}; the most similar normals are {', '.join(one.nearest)}"


def _tell_result(result: galsearch.Anomalies, run: str | None) -> None:
    """Say how many were judged, how many of them are candidates, and what the list as it stands is worth."""
    tell(
        f"{result.tested} objects judged beside {result.normals} normals by {', '.join(result.detectors)}: "
        f"{result.candidates} candidates at a false discovery rate of {result.fdr:g}, {result.near_misses} near-misses"
    )
    rate = result.false_discovery_rate
    if rate is not None:
        tell(f"false discovery rate of these {len(result)}: {rate:.2g}")
    if not result.candidates and result.least_q > result.fdr:
        tell(
            f"with so many judged and so few normals no list of {result.request.budget} can have a rate below "
            f"{result.least_q:.2g}: judge fewer (--where), name known normals (--normals) or list more (--budget)"
        )
    if run is not None:
        tell(f"kept as run {run} in the table anomalies")


OF_DUPLICATES = (
    *("group_id", "object_id", "is_kept", "linked_to", "grounds"),
    *("confidence", "separation_arcsec", "hash_distance", "cosine", "correlation"),
)


@app.command()
def duplicates(
    path: options.AtlasPath,
    by: Annotated[
        str | None, typer.Option("--by", help="Compare nothing but this: position, picture or vector.")
    ] = None,
    where: options.Where = None,
    radius_arcsec: Annotated[
        float | None,
        typer.Option("--radius-arcsec", help="How far apart one object may lie; from the image scale unless given."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the cells in which hashes are compared.")] = 0,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the groups in the folder: --distinct then collapses them.")
    ] = False,
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
):
    """List objects that are there more than once.

    They are linked into groups by position, picture or vector; each link has its reason.
    """
    check_format(output_format)
    with galsearch.open(path) as atlas:
        with progress_bar() as progress:
            result = atlas.duplicates(by, where=where, radius_arcsec=radius_arcsec, seed=seed, progress=progress)
        run = galsearch.save_duplicates(result) if save else None
        put_out(
            result.table, output_format, output, shown=OF_DUPLICATES, meta=result.meta(), quote_formulas=quote_formulas
        )
    _tell_groups(result, run)


def _tell_groups(result: galsearch.Duplicates, run: str | None) -> None:
    """Say how many groups there are, what was compared, and what could not be."""
    if len(result):
        groups = (
            f"{len(result)} group{'s' * (len(result) != 1)}, {len(result.table)} of {result.objects} objects in all"
        )
        tell(f"{groups}: {result.redundant} left out when each group is collapsed")
    else:
        tell(f"no two of {result.objects} objects are one by {', '.join(result.grounds)}")
    if "position" in result.grounds:
        tell(f"positions within {result.radius_arcsec:.3g} arcsec are one ({result.radius_from}; --radius-arcsec)")
    for ground, count in result.not_compared.items():
        if count:
            tell(f"{count} of {result.objects} objects have no {ground}, and were not compared by it")
    if result.unreadable:
        tell(f"the stored pictures of {result.unreadable} are damaged, and were not compared; see `galsearch check`")
    if run is not None:
        tell(f"kept as run {run} in the table duplicates: a search with --distinct collapses them")


SHOWN_OF_KNOWN = ("object_id", "state", "catalog", "name", "type", "separation_arcsec", "false_probability", "matches")


@app.command()
def identify(
    path: options.AtlasPath,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Table, atlas or HATS catalog on disk, FILE or FILE=KIND; may be repeated."),
    ] = None,
    kind: Annotated[
        str, typer.Option("--kind", help="What you take the objects for: lens, merger, …, or any.")
    ] = "any",
    service: Annotated[
        list[str] | None,
        typer.Option("--service", help="Also ask simbad, ned or vizier:V/147/sdss12; may be repeated."),
    ] = None,
    where: options.Where = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Only this object; may be repeated.")] = None,
    radius_arcsec: Annotated[
        float | None, typer.Option("--radius-arcsec", help="How far a match may lie; by the picture unless said.")
    ] = None,
    type_column: Annotated[
        str | None, typer.Option("--type-column", help="Column of the catalogs that says what a source is.")
    ] = None,
    kinds: Annotated[
        str | None, typer.Option("--kinds", help="More types that count as --kind, separated by commas.")
    ] = None,
    state: Annotated[str | None, typer.Option("--state", help="List only these, such as 'not found'.")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="File that keeps the answers of services.")] = None,
    max_age_days: Annotated[
        float, typer.Option("--max-age-days", help="How old a kept answer may be; 0 asks again.")
    ] = 30.0,
    timeout_seconds: Annotated[float, typer.Option("--timeout-seconds", help="Of one question to a service.")] = 60.0,
    deadline_seconds: Annotated[
        float | None, typer.Option("--deadline-seconds", help="Of all questions to a service.")
    ] = None,
    service_url: Annotated[
        list[str] | None, typer.Option("--service-url", help="Mirror of a service, such as simbad=https://…")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the states in the table identifications of the folder.")
    ] = False,
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
):
    """Say which objects are known.

    Of this kind, of another kind, not found, or not checked.
    """
    check_format(output_format)
    with galsearch.open(path) as atlas:
        with progress_bar() as progress:
            result = atlas.identify(
                ids or None,
                **{"where": where, "kind": kind, "against": against or [], "services": service or []},
                **{"radius_arcsec": radius_arcsec, "type_column": type_column, "cache": cache},
                kinds=[] if kinds is None else [part.strip() for part in kinds.split(",") if part.strip()],
                max_age_days=max_age_days,
                timeout_seconds=timeout_seconds,
                deadline_seconds=deadline_seconds,
                service_urls=_urls(service_url or []),
                progress=progress,
            )
        rows = result.table if state is None else result.of_state(state)
        run = galsearch.save_identifications(result) if save else None
        put_out(rows, output_format, output, shown=SHOWN_OF_KNOWN, meta=result.meta(), quote_formulas=quote_formulas)
    _tell_known(result, run)


def _urls(texts: list[str]) -> dict[str, str]:
    """Return {service: address} of texts such as simbad=https://…"""
    pairs = [text.partition("=") for text in texts]
    for name, sign, url in pairs:
        if not (name and sign and url):
            raise typer.BadParameter(
                f"{name!r} is not SERVICE=URL, such as simbad=https://…", param_hint="--service-url"
            )
    return {name: url for name, _, url in pairs}


def _tell_known(result: galsearch.Identifications, run: str | None) -> None:
    """Say how many are in each state, how many would match by chance, and which sources failed."""
    counts = ", ".join(f"{count} {state}" for state, count in result.counts.items())
    tell(f"{len(result)} objects taken for {result.kind}: {counts}")
    matched = len(result) - sum(result.counts[state] for state in ("not found", "not checked"))
    tell(f"{matched} have a match; {result.expected_by_chance:.2g} would have one by chance; proper motion is ignored")
    for note in result.notes:
        tell(note)
    for row in result.sources.to_pylist():
        kept = (
            f"; {row['kept_answers']} kept answers, the oldest of {row['oldest_answer']}" if row["kept_answers"] else ""
        )
        if row["unchecked"]:
            tell(f"{row['source']} did not answer for {row['unchecked']} objects: {row['error']}{kept}")
        elif kept:
            tell(f"{row['source']}{kept}")
    if run is not None:
        tell(f"kept as run {run} in the table identifications")
