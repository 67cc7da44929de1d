"""Commands that search: words, examples, SQL, a table of positions; re-ranking."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace as with_changes
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import galsearch
from galsearch.cli import options
from galsearch.cli.options import check_format, numbers
from galsearch.cli.output import (
    SHOWN_COLUMNS,
    again,
    meta_of,
    print_data,
    print_rows,
    print_table,
    progress_bar,
    put_out,
    short,
    tell,
)
from galsearch.cli.program import Searching, app

if TYPE_CHECKING:
    import pyarrow as pa

MOST_EXPLAINED = 12  # hits of which --explain says why
SHOWN_OF_TABLE = 4  # columns of a cross-matched table; all of them are in --format json, csv, votable and in files


@app.command(cls=Searching)
def search(
    path: options.AtlasPath,
    words: options.Words = None,
    like: options.Like = None,
    image: options.Image = None,
    spectrum: options.SpectrumFile = None,
    z: options.Redshift = None,
    wavelength: options.Wavelength = None,
    flux: options.Flux = None,
    error: options.ErrorColumn = None,
    wavelength_unit: options.WavelengthUnit = None,
    flux_unit: options.FluxUnit = None,
    medium: options.Medium = None,
    plus: options.Plus = None,
    minus: options.Minus = None,
    where: options.Where = None,
    near: options.Near = None,
    radius_arcsec: options.RadiusArcsec = None,
    k: options.HowMany = 12,
    closest: options.Closest = False,
    distinct: options.Distinct = False,
    hybrid: options.Hybrid = None,
    recall: options.Recall = None,
    probes: options.Probes = None,
    exact: options.Exact = False,
    explain: options.Explain = False,
    output_format: options.Format = "table",
    output: options.Output = None,
    spectra: options.WithSpectra = False,
    quote_formulas: options.QuoteFormulas = False,
    sheet: options.Sheet = None,
    by: options.By = None,
    words_by: options.WordsBy = None,
    send_to: Annotated[
        str | None,
        typer.Option("--send-to", help="Also send to this running program by SAMP: topcat, aladin, … or all."),
    ] = None,
    save_as: Annotated[
        str | None, typer.Option("--save-as", help="Keep the search under this name, for `galsearch alerts`.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="With --save-as: take the place of a search of that name.")
    ] = False,
    least_score: Annotated[
        float | None, typer.Option("--least-score", help="With --save-as: the score from which on a hit is an alert.")
    ] = None,
    searches: Annotated[
        Path | None,
        typer.Option("--searches", help="With --save-as: file to keep it in; beside the atlas unless said."),
    ] = None,
    resolve: Annotated[
        bool, typer.Option("--resolve", help="The words are a name: ask Sesame where it is, if the atlas has it not.")
    ] = False,
    service_url: Annotated[
        str | None, typer.Option("--service-url", help="With --resolve: another address of Sesame.")
    ] = None,
    saved: Annotated[
        str | None, typer.Option("--saved", help="Search again what was kept by --save-as under this name.")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", help="Also keep the query in this file; GALSEARCH_QUERY_LOG does so for all."),
    ] = None,
    device: options.Device = "auto",
):
    """Search in words, by example, by SQL and by position.

    All at once, where more than one is given. Words that are an object's id or name ("NGC 5194"), or a position, give
    that object and are not searched for.
    """
    check_format(output_format)
    if spectra and output is None:
        raise typer.BadParameter("spectra are written to a file: give -o", param_hint="--spectra")
    stated = {"z": z, "wavelength": wavelength, "flux": flux, "error": error, "medium": medium}
    stated |= {"wavelength_unit": wavelength_unit, "flux_unit": flux_unit}
    query = galsearch.Query(
        _terms(
            words, like or [], image or [], plus or [], minus or [], spectrum=spectrum or [], by=by, words_by=words_by
        ),
        near=options.position(near),
        combine="max" if closest else "mean",
        **{"where": where, "radius_arcsec": radius_arcsec, "k": k, "hybrid": hybrid},
        **{"exact": exact, "recall": recall, "probes": probes, "distinct": distinct},
    )
    kept_in = path.with_suffix(".searches") if searches is None else searches
    with galsearch.open(path, device=device, log=log) as atlas:
        query = with_changes(query, terms=_as_stated(atlas, query.terms, stated))
        query = query if saved is None else _kept_query(saved, query, atlas, kept_in)
        if words and not any(map(str.isdigit, words)):  # hardly a name
            atlas.prepare(by=words_by or by)
        named = _what_is_named(atlas, words, query, service_url, resolve=resolve)
        hits = _candidates(atlas, named, query) if named else atlas.search(query)
        if named:
            _tell_named(named, hits, path)
        elif explain:
            _tell_plan(atlas, hits, words)
            _tell_reasons(hits)
            _tell_refinements(hits)
        else:
            _tell_hints(atlas, words, words_by or by)
        if sheet:
            tell(f"wrote {hits.contact_sheet(sheet)}")
        if send_to:
            tell(f"sent to {', '.join(hits.send(send_to))}")
        _keep(save_as, query, atlas, kept_in, least_score=least_score, replace=replace)
        if output:
            written = hits.save(output, spectra=spectra, quote_formulas=quote_formulas)
            tell(f"wrote {written} ({len(hits)} rows)")
        elif output_format == "table":
            print_table(hits.table)
        else:
            print_data(hits.format(output_format))
        if hits.convincing is not None and hits.convincing < len(hits):
            tell(_doubt(hits))
        if not len(hits) and not named:
            tell(_nothing(atlas, in_a_cone=near is not None))


def _what_is_named(
    atlas: galsearch.Atlas, words: str | None, query: galsearch.Query, service_url: str | None, *, resolve: bool
) -> galsearch.Lookup | None:
    """Return what the words name, where they are all that was asked or --resolve says that they are a name."""
    if resolve:
        return _resolved(atlas, words, service_url)
    return atlas.lookup(words) if words and len(query.terms) == 1 else None


def _resolved(atlas: galsearch.Atlas, words: str | None, service_url: str | None) -> galsearch.Lookup:
    """Return what a name stands for, here or by the name service; where it is nothing, that is said and the end."""
    if not words:
        raise typer.BadParameter("give the name as the words", param_hint="--resolve")
    named = atlas.resolve(words, service_url=service_url)
    if not named:
        tell(f"{named}, and Sesame knows no such name; without --resolve it is searched for as words")
        raise typer.Exit(1)
    return named


def _kept_query(name: str, typed: galsearch.Query, atlas: galsearch.Atlas, file: Path) -> galsearch.Query:
    """Return the query that was kept under a name, and say where the atlas is another one by now."""
    if typed != galsearch.Query(k=typed.k):
        raise typer.BadParameter(
            "it is a whole search: leave words, examples, cuts and options out", param_hint="--saved"
        )
    if not file.exists():
        raise galsearch.QueryError(f"{file} is not there; keep a search first, with --save-as {name}")
    kept = galsearch.Searches(file).named(name)
    if kept.atlas is not None and kept.atlas != atlas.fingerprint:
        tell(f"kept on {kept.time} on an atlas {kept.atlas}, this is {atlas.fingerprint}: what is found may differ")
    tell(f"{name}: {kept.query.formula() or 'list'}")
    return kept.query


def _keep(
    name: str | None,
    query: galsearch.Query,
    atlas: galsearch.Atlas,
    file: Path,
    *,
    least_score: float | None,
    replace: bool,
) -> None:
    """Keep a search under a name, where one was given."""
    if name is not None:
        kept = galsearch.Searches(file)
        kept.save(name, query, atlas, least_score=least_score, replace=replace)
        tell(f"kept as {name!r} in {kept.path}; `galsearch alerts` lists what is new from now on")


@app.command(cls=Searching)
def rerank(
    path: Annotated[Path | None, typer.Argument(help="An atlas: name.atlas or name.duckdb.", metavar="ATLAS")] = None,
    words: options.Words = None,
    by: Annotated[
        str,
        typer.Option("--by", help="local: nothing is sent; vlm: ask a vision model; agent: one with tools, by sheets."),
    ] = "local",
    n: Annotated[int, typer.Option("-n", help="How many hits to look at again.")] = 200,
    positive: Annotated[
        list[str] | None,
        typer.Option("--positive", help="Object, or file of a picture, that is what you want; two or more."),
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option("--negative", help="Object, or file of a picture, that is not; two or more.")
    ] = None,
    like: options.Like = None,
    image: options.Image = None,
    plus: options.Plus = None,
    minus: options.Minus = None,
    where: options.Where = None,
    near: options.Near = None,
    radius_arcsec: options.RadiusArcsec = None,
    k: options.HowMany = 12,
    closest: options.Closest = False,
    distinct: options.Distinct = False,
    hybrid: options.Hybrid = None,
    recall: options.Recall = None,
    probes: options.Probes = None,
    exact: options.Exact = False,
    explain: options.Explain = False,
    model: Annotated[str | None, typer.Option("--model", help="Vision model to ask.")] = None,
    base_url: options.BaseUrl = None,
    key_env: options.KeyEnv = "OPENAI_API_KEY",
    question: Annotated[
        str | None, typer.Option("--question", help="What to ask the model for; the words, unless said.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Answers about one picture, at most.")] = 3,
    pictures: Annotated[
        int | None, typer.Option("--pictures", help="With --by agent: pictures on one sheet, 1 to 36; 12 unless said.")
    ] = None,
    looks: Annotated[
        int | None, typer.Option("--looks", help="With --by agent: zooms and looks at measures a sheet; 3 unless said.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", help="US dollars on this question and model before it stops.")
    ] = None,
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    concurrency: options.Concurrency = 8,
    answers: Annotated[
        Path | None, typer.Option("--answers", help="Folder for the model's answers; beside the atlas, unless said.")
    ] = None,
    prompt: Annotated[Path | None, typer.Option("--prompt", help="Text file to ask with, instead of ours.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Print what models would cost; send nothing.")] = False,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Print what models are asked, and stop.")] = False,
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
    sheet: options.Sheet = None,
    device: options.Device = "auto",
):
    """Search, and put the best hits in a better order.

    They are looked at again; where no order is better, that is said.
    """
    check_format(output_format)
    if show_prompt:
        print(galsearch.rerank_prompt(prompt, by="agent" if by == "agent" else "vlm"))
        return
    if path is None:
        raise typer.BadParameter("name the atlas to search", param_hint="ATLAS")
    query = galsearch.Query(
        _terms(words, like or [], image or [], plus or [], minus or []),
        near=options.position(near),
        combine="max" if closest else "mean",
        **{"where": where, "radius_arcsec": radius_arcsec, "k": k, "hybrid": hybrid},
        **{"exact": exact, "recall": recall, "probes": probes, "distinct": distinct},
    )
    service: dict = {}
    if by != "agent" and (pictures is not None or looks is not None):
        raise typer.BadParameter("it is said of sheets: give --by agent", param_hint="--pictures, --looks")
    if by in ("vlm", "agent") or estimate:
        service = {"model": model, "base_url": base_url, "key_env": key_env, "samples": samples, "max_cost": max_cost}
        service |= {"price_in": price_in, "price_out": price_out, "concurrency": concurrency}
        service |= {"question": question, "answers": answers, "prompt": prompt}
        sheets = {"pictures": pictures, "looks": looks}
        service |= {name: value for name, value in sheets.items() if value is not None}
    with galsearch.open(path, device=device) as atlas, progress_bar() as progress:
        hits = atlas.search(query)
        if estimate:
            print_rows(hits.estimate_rerank(by="agent" if by == "agent" else "vlm", n=n, **service), output_format)
            tell("an estimate, within a factor of two, of all answers; fewer are asked for. Nothing was sent")
            return
        marks = {"positives": _examples(positive), "negatives": _examples(negative)}
        result = hits.rerank(by, n=n, progress=progress, **marks, **service)
        if explain:
            _tell_plan(atlas, hits, words)
        else:
            _tell_hints(atlas, words)
        tell(*str(result.reranked).split("\n"))
        if sheet:
            tell(f"wrote {galsearch.contact_sheet({'before': hits, 're-ranked': result}, sheet)}")
        if output:
            tell(f"wrote {result.save(output, quote_formulas=quote_formulas)} ({len(result)} rows)")
        elif output_format == "table":
            print_table(result.table, columns=_reranked_columns(result.table))
        else:
            print_data(result.format(output_format))
        if hits.convincing == 0 and len(hits):
            tell(_doubt(hits))


@app.command()
def sql(
    path: options.AtlasPath,
    statement: Annotated[str, typer.Argument(help="One SELECT; embed('words') gives a query vector.")],
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
    device: options.Device = "auto",
):
    """Run one SELECT over the atlas.

    Its macros are nearest, cone, concept, like_object and embed('words').
    """
    check_format(output_format)
    with galsearch.open(path, device=device) as atlas:
        table = atlas.sql(statement)
        if output:
            meta = {"query": statement, "atlas": atlas.manifest.title, "sources": atlas.manifest.sources}
            put_out(table, output_format, output, meta=meta, quote_formulas=quote_formulas)
        else:
            print_rows(table, output_format)


@app.command()
def crossmatch(
    path: options.AtlasPath,
    table: Annotated[
        Path,
        typer.Argument(help="CSV, ECSV, FITS, VOTable or Parquet with positions, degrees ICRS.", metavar="TABLE"),
    ],
    radius_arcsec: Annotated[float, typer.Option("--radius-arcsec", help="How far a match may lie, inclusive.")],
    mode: Annotated[
        str, typer.Option("--mode", help="best: the closest object of each row; all: every object.")
    ] = "best",
    where: Annotated[
        str | None, typer.Option("--where", help='SQL condition on the objects, such as "z < 0.1 AND mag_r < 17".')
    ] = None,
    ra: options.RaColumn = None,
    dec: options.DecColumn = None,
    table_name: options.TableName = None,
    missing: options.Missing = None,
    keep_unmatched: Annotated[
        bool, typer.Option("--keep-unmatched", help="Keep rows without a match, or without a position.")
    ] = False,
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
):
    """Match the objects with a table, by position.

    Each row of the table stands beside the object at its place on the sky.
    """
    check_format(output_format)
    with galsearch.open(path) as atlas:
        result = atlas.crossmatch(
            table,
            radius_arcsec=radius_arcsec,
            mode=mode,
            where=where,
            ra=ra,
            dec=dec,
            table_name=table_name,
            missing=numbers(missing),
            keep_unmatched=keep_unmatched,
        )
        if output:
            meta = meta_of(atlas, f"{table.name} matched within {radius_arcsec:g} arcsec")
            put_out(result, output_format, output, meta=meta, quote_formulas=quote_formulas)
        elif output_format == "table":
            print_table(result, columns=_matched_columns(result))
        else:
            print_rows(result, output_format)
    for note in galsearch.notes_of(result):
        tell(note)
    matches = result.num_rows - result["object_id"].null_count
    tell(f"{matches} matches within {radius_arcsec:g} arcsec" + ("" if matches else "; check the columns and units"))


def _terms(
    words: str | None,
    like: list[str],
    image: list[Path],
    plus: list[str],
    minus: list[str],
    *,
    spectrum: Sequence[Path] = (),
    by: str | None = None,
    words_by: str | None = None,
) -> tuple[galsearch.Term, ...]:
    terms = [] if words is None else [galsearch.Term("text", words, by=words_by or by)]
    terms += [galsearch.Term("object", value, by=by) for value in like]
    terms += [galsearch.Term("image", str(value), by=by) for value in image]
    terms += [galsearch.Term("spectrum", str(value), by=by) for value in spectrum]
    for sign, texts in ((1, plus), (-1, minus)):
        terms += [galsearch.Term("text", text, sign * weight, words_by or by) for weight, text in map(_weighted, texts)]
    return tuple(terms)


def _as_stated(
    atlas: galsearch.Atlas, terms: tuple[galsearch.Term, ...], stated: dict[str, Any]
) -> tuple[galsearch.Term, ...]:
    """Return the terms, those of spectrum files as their vectors where something is stated that files do not say."""
    given = {name: value for name, value in stated.items() if value is not None}
    if not given:
        return terms
    if not any(term.kind == "spectrum" for term in terms):
        flag = f"--{next(iter(given)).replace('_', '-')}"
        raise typer.BadParameter("it is said of a spectrum: give --spectrum", param_hint=flag)

    def known(term: galsearch.Term) -> galsearch.Term:
        vector = atlas.embed(galsearch.read_spectrum(Path(term.text), **given), by=term.by)
        return galsearch.Term("embedding", tuple(vector.tolist()), term.weight, term.by or "spectrum")

    return tuple(known(term) if term.kind == "spectrum" else term for term in terms)


def _examples(marked: list[str] | None) -> list[str | Path]:
    """Return marked examples: paths where there is such a file, else ids."""
    return [Path(one) if Path(one).is_file() else one for one in marked or []]


def _weighted(text: str) -> tuple[float, str]:
    """Split `0.5:bar` into a weight and words; words without a number weigh 1."""
    number, colon, rest = text.partition(":")
    try:
        return (float(number), rest) if colon else (1.0, text)
    except ValueError:
        return 1.0, text


def _reranked_columns(table: pa.Table) -> list[str]:
    """Return what to show of re-ranked hits: the parts of their scores, the ranks before, and what else fits."""
    first = ["object_id", "score", "rank_before", *(name for name in table.column_names if name.startswith("score_"))]
    beside = [name for name in (*SHOWN_COLUMNS[2:], "judged", "explanation") if name in table.column_names]
    return [name for name in [*first, *beside] if name in table.column_names and table[name].null_count < len(table)]


def _matched_columns(table: pa.Table) -> list[str]:
    """Return what to show of matched rows: the first columns of the table, the object, and what else fits."""
    first = table.column_names.index("object_id")
    beside = [name for name in SHOWN_COLUMNS[1:] if name in table.column_names[first:]]
    return [*table.column_names[: min(first, SHOWN_OF_TABLE)], "object_id", "separation_arcsec", *beside]


def _tell_plan(atlas: galsearch.Atlas, hits: galsearch.Hits, words: str | None) -> None:
    """Say how a question was read and answered."""
    provider = [f"encoder on {hits.plan.provider}"] if hits.plan.provider else []
    tell(hits.query.formula() or "list", hits.plan, *provider)
    if words:
        tell("read as", *str(atlas.understand(words)).split("\n"))


def _candidates(atlas: galsearch.Atlas, named: galsearch.Lookup, query: galsearch.Query) -> galsearch.Hits:
    cone = {"near": query.near, "radius_arcsec": query.radius_arcsec}
    return atlas.candidates(named, where=query.where, **cone, k=query.k)


def _nothing(atlas: galsearch.Atlas, *, in_a_cone: bool) -> str:
    """Return why nothing was found."""
    if in_a_cone and not len(atlas.search(where="ra IS NOT NULL AND dec IS NOT NULL", k=1)):
        return "no object of this atlas has a position, so no cone can hold one; build it with --ra and --dec"
    return "nothing passes the cuts; loosen --where or the cone"


def _tell_named(named: galsearch.Lookup, hits: galsearch.Hits, path: Path) -> None:
    """Say what the words name, and how to go on."""
    tell(str(named))
    if len(hits) < len(named.candidates):
        tell(f"{len(hits)} of them pass the cuts; loosen --where or the cone, or raise -k, for the others")
    if len(hits):
        tell(f"for objects like it: {again('search', path, f'--like={hits.ids[0]}')}")
    if named.kind == "object":
        tell(f"to search for these words all the same: {again('search', path, f'--plus={named.text}')}")


def _tell_hints(atlas: galsearch.Atlas, words: str | None, by: str | None = None) -> None:
    """Say what of the words the search cannot heed, and where the objects are unlike those that the model knows."""
    if words:
        tell(*atlas.hints(words, by=by))
        familiar = atlas.familiarity(by=by)
        tell(*(familiar.hints if familiar else ()))


def _tell_reasons(hits: galsearch.Hits) -> None:
    """Say of the first hits what they have in common with the query."""
    for hit, phrases in zip(hits[:MOST_EXPLAINED], hits.reasons(), strict=False):
        if phrases:
            tell(f"{short(hit.object_id)}: {', '.join(phrases)}")


def _tell_refinements(hits: galsearch.Hits) -> None:
    """Say how the question could be refined, as options to add."""
    signs = {"more": "--plus", "less": "--minus"}
    result = [shlex.join([signs[one.sign], f"0.5:{one.phrase}"]) for one in hits.refinements()]
    if result:
        tell(f"refine with: {'  '.join(result)}")


def _doubt(hits: galsearch.Hits) -> str:
    """Return what to say where not all hits are convincing."""
    if hits.untaught:
        return "no match is convincing: what the model was never taught, it cannot tell from what it was"
    if not hits.convincing:
        return "no match is convincing: none scores as well as what most questions find here"
    return f"only the first {hits.convincing} are convincing: the others score less than what most questions find here"
