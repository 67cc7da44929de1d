"""Commands that review objects: whom to judge next, verdicts in and out, agreement, what they teach, alerts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

import galsearch
from galsearch.cli import options
from galsearch.cli.options import check_format
from galsearch.cli.output import again, meta_of, print_rows, progress_bar, put_out, tell
from galsearch.cli.pages import open_app
from galsearch.cli.program import add_group, app

review = add_group(
    "review",
    "Verdicts of people, and what they teach.",
)

QUEUED = ("object_id", "interest", "information", "novelty", "reason")
LISTED = ("object_id", "kind", "verdict", "label", "note", "by", "time", "blind")
RANKED = ("object_id", "score", "interest", "interest_low", "interest_high", "novelty")
EXIT_NEW = 3  # exit code of `alerts --exit-code` where something is new

VerdictsFile = Annotated[
    Path | None, typer.Option("--verdicts", help="File of verdicts; beside the atlas, name.verdicts, unless said.")
]
Kind = Annotated[
    str | None, typer.Option("--kind", help="What is judged for, such as 'merger'; one file may have many.")
]
Reviewer = Annotated[
    str | None, typer.Option("--by", help="Who judges; GALSEARCH_REVIEWER or the login name unless said.")
]
Label = Annotated[str | None, typer.Option("--label", help="In words of one's own: a label that is wanted or given.")]
Query = Annotated[
    str | None, typer.Option("--query", help="Text to start from; the words of the kind unless said, '' for none.")
]
Novelty = Annotated[
    str | None, typer.Option("--novelty", help="Multiply by the novelty of this run of saved anomalies, or 'last'.")
]
Embedding = Annotated[str | None, typer.Option("--embedding", help="Embedding to learn in; the main one unless said.")]
SearchesFile = Annotated[
    Path | None, typer.Option("--searches", help="File of saved searches; beside the atlas unless said.")
]


def _file(atlas: Path, file: Path | None) -> Path:
    """Return where the verdicts on an atlas are kept."""
    return atlas.with_suffix(".verdicts") if file is None else file


def _opened(atlas: galsearch.Atlas, path: Path, file: Path | None) -> galsearch.Verdicts:
    verdicts = galsearch.Verdicts(_file(path, file), atlas=atlas)
    tell(*verdicts.notes)
    return verdicts


def _read(path: Path, file: Path | None) -> galsearch.Verdicts:
    """Return verdicts without their atlas, which may be elsewhere."""
    where = _file(path, file)
    if not where.exists():
        raise galsearch.GalsearchError(f"{where} is not there; name the file with --verdicts, or judge something first")
    verdicts = galsearch.Verdicts(where)
    tell(*verdicts.notes)
    return verdicts


@review.command("start")
def review_start(
    path: options.AtlasPath,
    verdicts: VerdictsFile = None,
    by: Reviewer = None,
    port: Annotated[int, typer.Option("--port", help="Port on this machine.")] = 8501,
):
    """Open the app on the page Review."""
    galsearch.Verdicts(_file(path, verdicts))  # a file that is none is told here, not in the browser
    os.environ["GALSEARCH_VERDICTS"] = str(_file(path, verdicts))
    os.environ["GALSEARCH_PAGE"] = "review"
    if by is not None:
        os.environ["GALSEARCH_REVIEWER"] = by
    open_app(path, port=port, public=False)


@review.command("queue")
def review_queue(
    path: options.AtlasPath,
    verdicts: VerdictsFile = None,
    kind: Kind = None,
    label: Label = None,
    query: Query = None,
    novelty: Novelty = None,
    where: options.Where = None,
    near: options.Near = None,
    radius_arcsec: options.RadiusArcsec = None,
    embedding: Embedding = None,
    k: options.HowMany = 20,
    by: Reviewer = None,
    second_opinions: Annotated[
        float, typer.Option("--second-opinions", help="Share that others judged and --by did not, 0 to 1.")
    ] = 0.0,
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
):
    """List the next objects to judge, and why.

    The most valuable first.
    """
    check_format(output_format)
    with galsearch.open(path) as atlas:
        opened = _opened(atlas, path, verdicts)
        _tell_kind(opened, kind)
        table = atlas.review_queue(
            opened,
            **_stated(kind, label, query, novelty, where, near, radius_arcsec, embedding, k),
            reviewer=by,
            second_opinions=second_opinions,
        )
        meta = meta_of(atlas, "objects to judge")
        put_out(table, output_format, output, shown=QUEUED, meta=meta, quote_formulas=quote_formulas)
    if not table.num_rows:
        tell("nothing is left to judge: everybody that passes was judged; loosen --where or --near")


@review.command("rank")
def review_rank(
    path: options.AtlasPath,
    verdicts: VerdictsFile = None,
    kind: Kind = None,
    label: Label = None,
    query: Query = None,
    novelty: Novelty = None,
    where: options.Where = None,
    near: options.Near = None,
    radius_arcsec: options.RadiusArcsec = None,
    embedding: Embedding = None,
    k: options.HowMany = 50,
    include_judged: Annotated[
        bool, typer.Option("--include-judged", help="List what was judged too; it is left out unless said.")
    ] = False,
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
):
    """List the objects of most predicted interest.

    Times novelty, where that is given.
    """
    check_format(output_format)
    with galsearch.open(path) as atlas:
        table = atlas.rank_by_verdicts(
            _opened(atlas, path, verdicts),
            **_stated(kind, label, query, novelty, where, near, radius_arcsec, embedding, k),
            include_judged=include_judged,
        )
        meta = meta_of(atlas, "objects by predicted interest")
        put_out(table, output_format, output, shown=RANKED, meta=meta, quote_formulas=quote_formulas)
    if not table.num_rows:
        tell("all that pass were judged: list them with --include-judged, or loosen --where or --near")


def _stated(
    kind: str | None,
    label: str | None,
    query: str | None,
    novelty: str | None,
    where: str | None,
    near: tuple[str, str] | None,
    radius_arcsec: float | None,
    embedding: str | None,
    k: int,
) -> dict[str, Any]:
    """Return what the commands that learn have in common, as the Python arguments."""
    center = options.position(near)
    odd: str | bool | None = True if novelty == "last" else novelty
    learned = {"kind": kind, "label": label, "query": query, "novelty": odd, "by": embedding}
    return learned | {"where": where, "near": center, "radius_arcsec": radius_arcsec, "k": k}


def _tell_kind(verdicts: galsearch.Verdicts, kind: str | None) -> None:
    """Say where there is no verdict of the kind that is judged for, but of others: it may be a typing error."""
    kinds = verdicts.kinds()
    if kind is not None and kinds and " ".join(kind.split()) not in kinds:
        there = ", ".join(repr(one) for one in [*kinds][:10])
        tell(f"no verdict is of kind {kind!r} yet, they are of {there}: the queue begins with its words")


@review.command("add")
def review_add(
    path: options.AtlasPath,
    object_id: Annotated[str, typer.Argument(help="Object that is judged.", metavar="OBJECT")],
    verdict: Annotated[str, typer.Argument(help="yes, no, unsure, or label with --label.", metavar="VERDICT")],
    kind: Annotated[str, typer.Option("--kind", help="What is judged for, such as 'merger'.")],
    verdicts: VerdictsFile = None,
    label: Label = None,
    note: Annotated[str | None, typer.Option("--note", help="A remark that is kept with it.")] = None,
    by: Reviewer = None,
    blind: Annotated[bool, typer.Option("--blind", help="Names, scores and verdicts of others were hidden.")] = False,
):
    """Keep a verdict.

    Judging an object again corrects what the same person said.
    """
    with galsearch.open(path) as atlas:
        opened = _opened(atlas, path, verdicts)
        one = opened.add(object_id, verdict, kind=kind, label=label, note=note, by=by, blind=blind)
    tell(f"{one.by}: {one.object_id} is {one.verdict} for {one.kind}{' (corrected)' if one.replaces else ''}")


@review.command("undo")
def review_undo(path: options.AtlasPath, verdicts: VerdictsFile = None, kind: Kind = None, by: Reviewer = None):
    """Take back the last verdict of a person.

    Again goes further back.
    """
    one = _read(path, verdicts).undo(by=by, kind=kind)
    tell("nothing to take back" if one is None else f"took back: {one.object_id} is {one.verdict} for {one.kind}")


@review.command("list")
def review_list(
    path: options.AtlasPath,
    verdicts: VerdictsFile = None,
    kind: Kind = None,
    history: Annotated[bool, typer.Option("--history", help="Also what was corrected and taken back.")] = False,
    output_format: options.Format = "table",
):
    """List the verdicts that stand."""
    check_format(output_format)
    put_out(_read(path, verdicts).table(kind, history=history), output_format, shown=LISTED)


@review.command("export")
def review_export(
    path: options.AtlasPath,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write: .csv .ecsv .vot .fits .parquet .json.")
    ],
    verdicts: VerdictsFile = None,
    kind: Kind = None,
    history: Annotated[bool, typer.Option("--history", help="Also what was corrected and taken back.")] = False,
    consensus: Annotated[
        bool, typer.Option("--consensus", help="A row for each object with what most people say, of one --kind.")
    ] = False,
    quote_formulas: options.QuoteFormulas = False,
):
    """Write the verdicts as a table, such as CSV or VOTable."""
    opened = _read(path, verdicts)
    if not consensus:
        opened.save(output, kind=kind, history=history, quote_formulas=quote_formulas)
        tell(f"wrote {output} ({len(opened.table(kind, history=history))} rows)")
        return
    if history:
        raise typer.BadParameter("a consensus has no history; give one of --consensus and --history")
    table = opened.consensus(kind)
    put_out(table, "table", output, meta={"title": "consensus"}, quote_formulas=quote_formulas)
    if open_ones := table["label"].null_count:
        tell(f"{open_ones} of {len(table)} objects have no label: as many say one thing as another, or are unsure")


@review.command("import")
def review_import(
    path: options.AtlasPath,
    files: Annotated[list[Path], typer.Argument(help="Files of verdicts, or tables of them.", metavar="FILE...")],
    verdicts: VerdictsFile = None,
    foreign: Annotated[
        bool,
        typer.Option("--foreign", help="Also take verdicts given on another atlas, or on objects not in this one."),
    ] = False,
):
    """Merge verdicts of other people.

    From their files or from tables; nothing is lost or counted twice.
    """
    with galsearch.open(path) as atlas:
        opened = galsearch.Verdicts(_file(path, verdicts), atlas=atlas)
        for file in files:
            merged = opened.merge(file, foreign=foreign)
            unknown = f", {merged.unknown} of them on objects that are not in the atlas" if merged.unknown else ""
            tell(f"{file}: {merged.new} new{unknown}, {merged.known} known already")
        tell(*opened.notes)


@review.command("agreement")
def review_agreement(
    path: options.AtlasPath,
    verdicts: VerdictsFile = None,
    kind: Kind = None,
    blind: Annotated[bool, typer.Option("--blind", help="By blind verdicts alone.")] = False,
    output_format: options.Format = "table",
):
    """Say how far people agree.

    On what two or more of them judged: kappa, alpha, and every two of them.
    """
    check_format(output_format)
    result = _read(path, verdicts).agreement(kind, blind=blind)
    print_rows(result.pairs, output_format)
    tell(result)


@app.command()
def adapt(
    path: options.AtlasPath,
    verdicts: VerdictsFile = None,
    query: Annotated[
        list[str] | None,
        typer.Option("--query", help="KIND=TEXT: what is searched for a kind, if not its own name; may be repeated."),
    ] = None,
    embedding: Embedding = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the parts left out while it is fitted.")] = 0,
    use: Annotated[
        int | None, typer.Option("--use", help="Learn nothing, and bring this earlier adaptation into use.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Learn nothing, and search by the words as they were.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Learn nothing, and list what the atlas holds.")] = False,
):
    """Fit the words of the model to an atlas, by verdicts.

    Learned on half of the judged objects, judged on the others; in use where it is surely better. Vectors stay as they
    are.
    """
    if undo or use is not None:
        galsearch.use_adaptation(path, None if undo else use)
        tell("in use: the words as the model has them" if undo else f"in use: adaptation {use}")
        return
    with galsearch.open(path) as atlas:
        if listed:
            _tell_adaptations(atlas)
            return
        texts = dict(_kind_and_text(one) for one in query or [])
        with progress_bar() as progress:
            made = atlas.adapt(_opened(atlas, path, verdicts), texts=texts, by=embedding, seed=seed, progress=progress)
    galsearch.save_adaptation(path, made)
    tell(made)
    if made.is_better:
        tell(f"it is in use; `{again('adapt', path, '--undo')}` takes it out of use")
        tell(f"next: {again('search', path, made.texts[0])}")
    else:
        tell(
            f"it is not in use, since it is not surely better; --use {made.adaptation} brings it into use all the same"
        )


def _kind_and_text(stated: str) -> tuple[str, str]:
    kind, equals, text = stated.partition("=")
    if not (equals and kind.strip() and text.strip()):
        raise typer.BadParameter(
            f"{stated!r:.60} is no KIND=TEXT, such as merger='merging galaxies'", param_hint="--query"
        )
    return kind, text


def _tell_adaptations(atlas: galsearch.Atlas) -> None:
    every = atlas.adaptations()
    last = max((one.promoted or 0 for one in every), default=0)
    tell(*(f"{one}{' (in use)' if last and one.promoted == last else ''}" for one in every))
    if not every:
        tell("no adaptation is kept; judge objects with `galsearch review`, then `galsearch adapt`")


@app.command()
def alerts(
    path: options.AtlasPath,
    searches: SearchesFile = None,
    name: Annotated[str | None, typer.Option("--name", help="Only this saved search.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Forget the search --name.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Mark nothing as seen: the same is told next time.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help=f"Exit with {EXIT_NEW} where something is new.")
    ] = False,
    output_format: options.Format = "table",
):
    """List what saved searches newly return.

    New since the last look; nothing is printed where nothing is.
    """
    check_format(output_format)
    saved = galsearch.Searches(searches_file(path, searches))
    if drop:
        if name is None:
            raise typer.BadParameter("says which search to forget", param_hint="--name")
        saved.drop(name)
        tell(f"forgot the search {name}")
        return
    if not saved.all():
        tell(f"no search is saved in {saved.path}; save one with `galsearch search … --save-as NAME`")
    with galsearch.open(path) as atlas:
        new = saved.new(atlas, name=name)
    if new.num_rows:
        print_rows(new, output_format)
        tell(f"{new.num_rows} new")
    if not keep:
        saved.mark(new)  # after it was printed: who is killed before is told again
    if new.num_rows and exit_code:
        raise typer.Exit(EXIT_NEW)


def searches_file(atlas: Path, file: Path | None) -> Path:
    """Return where the saved searches of an atlas are kept."""
    return atlas.with_suffix(".searches") if file is None else file
