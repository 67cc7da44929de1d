"""Commands that label, caption and evaluate."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import galsearch
from galsearch.cli import options
from galsearch.cli.options import check_format
from galsearch.cli.output import meta_of, print_data, print_rows, progress_bar, put_out, tell
from galsearch.cli.program import app

if TYPE_CHECKING:
    import pyarrow as pa


@app.command()
def label(
    path: options.AtlasPath,
    labels: Annotated[
        Path, typer.Argument(help="YAML: a line `label: phrase` or `label: [phrases]` for each.", metavar="LABELS")
    ],
    by: options.By = None,
    where: Annotated[str | None, typer.Option("--where", help="SQL condition on the objects to label.")] = None,
    k: Annotated[int | None, typer.Option("-k", help="How many to label, by object_id; all unless said.")] = None,
    least: Annotated[float, typer.Option("--least", help="Probability under which no label is given.")] = 0.5,
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
    device: options.Device = "auto",
):
    """Label galaxies by words alone.

    Each gets the label whose phrases fit best, or none where nothing is convincing.
    """
    check_format(output_format)
    with galsearch.open(path, device=device) as atlas:
        result = atlas.label(labels, by=by, where=where, k=k, least=least)
        if output:
            meta = meta_of(atlas, f"labels of {labels.name}")
            put_out(result, output_format, output, meta=meta, quote_formulas=quote_formulas)
        else:
            print_rows(result, output_format)
    counts = Counter(result["label"].to_pylist())
    none = counts.pop(None, 0)
    tell(", ".join([*(f"{name}: {count}" for name, count in sorted(counts.items())), f"no label: {none}"]))


@app.command()
def evaluate(
    path: options.AtlasPath,
    targets: Annotated[
        Path | None, typer.Option("--targets", help="TOML file of what to look for; EFIGI and Galaxy Zoo unless said.")
    ] = None,
    where: Annotated[str | None, typer.Option("--where", help="SQL condition on the candidates.")] = None,
    folds: Annotated[int, typer.Option("--folds", help="Folds, by a digest of the object_id.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Seed of folds, draws and candidate sets.")] = 0,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Folder for a PNG of pictures per target.")] = None,
    store: Annotated[bool, typer.Option("--store", help="Also keep the figures in the atlas folder.")] = False,
    rankings: Annotated[
        Path | None, typer.Option("--rankings", help="File for the rank and score of every object: .parquet .csv …")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option("--compare", help="Print paired differences from the --rankings of another run.")
    ] = None,
    compare_systems: Annotated[
        bool, typer.Option("--compare-systems", help="Print paired differences of the baselines from the words.")
    ] = False,
    output_format: options.Format = "table",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write: .json all, .md summary, .csv .vot … figures.")
    ] = None,
    device: options.Device = "auto",
):
    """Measure how well words find what is labeled.

    nDCG, precision, recall and AUROC, beside baselines and chance.
    """
    check_format(output_format)
    if compare is not None and compare_systems:
        raise typer.BadParameter("one comparison at a time: give --compare or --compare-systems")
    result = galsearch.evaluate(
        path, targets=targets, where=where, folds=folds, seed=seed, sheet=sheet, store=store, device=device
    )
    for name, reason in result.left_out.items():
        tell(f"left out: {name}: {reason}")
    if rankings:
        rows = galsearch.write_table(result.rankings(), rankings, meta={"title": "galsearch evaluation, rankings"})
        tell(f"wrote {rankings} ({rows} rows)")
    compared = None
    if compare or compare_systems:
        compared = galsearch.compare_rankings(result.rankings(), compare, seed=seed)
    _print_evaluation(result, compared, output, output_format)
    tell(f"config {result.config['config_sha256'][:12]}, targets {result.config['targets']['version']}, seed {seed}")
    if sheet:
        tell(f"wrote pictures of {len(result.best)} targets to {sheet}")
    if store:
        tell(f"kept in {path}: table evaluations")


def _print_evaluation(
    result: galsearch.Evaluation, compared: pa.Table | None, output: Path | None, output_format: str
) -> None:
    """Print the figures, or the comparison that was asked for."""
    if output:
        tell(f"wrote {result.save(output)} ({result.table.num_rows} rows)")
    if compared is not None:
        print_rows(compared, output_format)
    elif output:
        return
    elif output_format == "json":
        print_data(result.to_json())
    elif output_format == "table":
        print_rows(result.shown(), output_format)
    else:
        print_rows(result.table, output_format)


@app.command("caption")
def write_captions(
    path: Annotated[Path | None, typer.Argument(help="An atlas folder, name.atlas.", metavar="ATLAS")] = None,
    by: Annotated[
        str, typer.Option("--by", help="Who writes: measurements, labels, table, or vlm (a vision model).")
    ] = "measurements",
    where: Annotated[str | None, typer.Option("--where", help="SQL condition on the objects to caption.")] = None,
    copies: Annotated[int, typer.Option("--copies", help="Captions an object, in different words.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the wording.")] = 0,
    append: Annotated[
        bool, typer.Option("--append", help="Keep captions of the same object and model with other seeds.")
    ] = False,
    mapping: Annotated[
        Path | None, typer.Option("--mapping", help="TOML rules for labels, instead of those of EFIGI and Galaxy Zoo.")
    ] = None,
    table: Annotated[Path | None, typer.Option("--table", help="Table of captions, joined by id.")] = None,
    id_column: Annotated[str, typer.Option("--id-column", help="Its column of ids.")] = "object_id",
    caption_column: Annotated[str, typer.Option("--caption-column", help="Its column of captions.")] = "caption",
    model: Annotated[
        str | None, typer.Option("--model", help="Vision model to ask; for a table, who wrote it.")
    ] = None,
    base_url: options.BaseUrl = None,
    key_env: options.KeyEnv = "OPENAI_API_KEY",
    prompt: Annotated[Path | None, typer.Option("--prompt", help="Text file to ask with, instead of ours.")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the pictures to send, instead of thumbnails.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", help="US dollars on this model and prompt before it stops.")
    ] = None,
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    concurrency: options.Concurrency = 8,
    batch: Annotated[
        str, typer.Option("--batch", help="Batch API, within a day for half the price: auto, on or off.")
    ] = "auto",
    timeout_seconds: Annotated[
        float, typer.Option("--timeout-seconds", help="How long to wait for an answer.")
    ] = 120.0,
    retries: Annotated[int, typer.Option("--retries", help="How often to ask again after an error.")] = 5,
    again: Annotated[bool, typer.Option("--again", help="Ask again what the atlas has from this model.")] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print what vision models would cost; send nothing.")
    ] = False,
    show_prompt: Annotated[
        bool, typer.Option("--show-prompt", help="Print what vision models are asked, and stop.")
    ] = False,
    output_format: options.Format = "table",
):
    """Write captions into an atlas folder.

    They say what each galaxy looks like, in words that --hybrid searches.
    """
    if show_prompt:
        print(galsearch.caption_prompt(prompt))
        return
    if path is None:
        raise typer.BadParameter("name the atlas to caption", param_hint="ATLAS")
    if estimate:
        prices = {"price_in": price_in, "price_out": price_out}
        result = galsearch.estimate_captions(path, where=where, copies=copies, prompt=prompt, model=model, **prices)
        print_rows(result, output_format)
        _tell_estimate(result)
        return
    vlm = None
    if by == "vlm":
        if not model:
            raise typer.BadParameter("name the model to ask", param_hint="--model")
        vlm = galsearch.VLM(
            model=model,
            base_url=base_url,
            key_env=key_env,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            retries=retries,
            price_in=price_in,
            price_out=price_out,
            prompt=prompt,
            images=images,
            max_cost=max_cost,
            batch=batch,
            again=again,
        )
    with progress_bar() as progress:
        done = galsearch.caption(
            path,
            by=by,
            where=where,
            copies=copies,
            seed=seed,
            append=append,
            mapping=mapping,
            table=table,
            id_column=id_column,
            caption_column=caption_column,
            model=model,
            vlm=vlm,
            progress=progress,
        )
    _tell_captioned(done)


def _tell_estimate(result: pa.Table) -> None:
    """Say what an estimate is worth, and which price is missing."""
    unknown = [row["model"] for row in result.to_pylist() if row["usd"] is None]
    if unknown:
        tell(f"the price of {unknown[0]} is not known; give it with --price-in and --price-out")
    tell("an estimate, within a factor of two; usd_batch is for answers within a day. Nothing was sent")


def _tell_captioned(done: galsearch.Captioned) -> None:
    tell(f"{done.path}: {done.captions} captions by {done.model} in {done.seconds:.1f} s")
    if done.silent:
        tell(f"nothing could be said of {done.silent} objects: no values, or no picture")
    if done.counts:
        tell(", ".join(f"{name}: {count}" for name, count in done.counts.items()))
    if done.cost_usd is None:
        tell("cost: not known, this model's price is not; see --price-in and --price-out")
    elif done.cost_usd:
        tell(f"cost: {done.cost_usd:.4f} US dollars (table 'caption_costs' of the atlas)")
    if done.note:
        tell(done.note)
