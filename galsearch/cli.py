"""The command line: each verb is its options, one call of the public surface, and printing.

Data goes to stdout; words and progress bars go to stderr. Exit codes: 0 well, 1 a GalsearchError, 2 wrong usage, 130
stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
import typer.core

import galsearch

if TYPE_CHECKING:
    import pyarrow as pa


class _Stopped(Exception):  # noqa: N818  an interruption is no error
    """Ctrl-C, under a name that Typer does not swallow without a word."""


class _Commands(typer.core.TyperGroup):
    def make_context(self, *arguments: object, **options: object) -> typer.Context:
        with _stoppable():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: typer.Context) -> object:
        with _stoppable():
            return super().invoke(ctx)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Give Ctrl-C the name that reaches `main`, also where a compiled library makes an error of its own of it."""
    with _kept_interrupts() as interrupted:
        try:
            yield
        except KeyboardInterrupt:
            raise _Stopped from None
        except Exception:
            if interrupted:
                raise _Stopped from None
            raise


app = typer.Typer(
    cls=_Commands,
    help="Search galaxies in words, by example and in SQL, over a catalog that fits in one file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FORMATS = ("table", "json", "csv", "votable")
SHOWN_COLUMNS = (
    "object_id",
    "score",
    "ra",
    "dec",
    "z",
    "mag_r",
    "radius_px",
    "axis_ratio",
    "color_gr",
    "color_br",
)
PUBLIC_APP = (  # Streamlit's options for a server that anyone may reach
    "--server.headless", "true",
    "--server.fileWatcherType", "none",
    "--server.maxUploadSize", "20",
    "--server.enableXsrfProtection", "false",  # a Space is shown in a frame, where uploads lose its cookie; no login
    "--client.showErrorDetails", "none",
)  # fmt: skip
SPACE_BYTES = 1_000_000_000  # of a repository of a Space on the Hub
TOLD_REJECTIONS = 10  # of a build or an addition
SHOWN_OF_TABLE = 4  # columns of a cross-matched table; all of them are in --format json, csv, votable and in files

AtlasPath = Annotated[
    Path, typer.Argument(help="An atlas: a folder name.atlas or a file name.duckdb.", metavar="ATLAS")
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Write to FILE; the suffix is the format (.vot .fits .csv …)."),
]
QuoteFormulas = Annotated[
    bool,
    typer.Option("--quote-formulas", help="In a .csv of -o, put ' before text that a spreadsheet would compute."),
]
Format = Annotated[str, typer.Option("--format", help="How to print: table, json, csv or votable.")]
Device = Annotated[str, typer.Option("--device", help="Where the encoders run: auto, cpu or cuda.")]
Images = Annotated[
    Path | None, typer.Option("--images", help="Folder, tar or zip of cutouts: JPEG, PNG, WebP, TIFF, FITS, .npy.")
]
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2")
Mosaic = Annotated[
    Path | None,
    typer.Option("--mosaic", help="One large picture to cut at the table's positions, or at its own detections."),
]
Table = Annotated[
    Path | None,
    typer.Option("--table", help="CSV, ECSV, Parquet, FITS or VOTable; all columns are kept, with units."),
]
Vectors = Annotated[str | None, typer.Option("--vectors", help="Column of the table that already holds embeddings.")]
ModelName = Annotated[
    str | None,
    typer.Option("--model", help="Name of the model that made the --vectors; aion-search and aion need no --vectors."),
]
Projector = Annotated[
    Path | None,
    typer.Option("--projector", help="Folder of projectors: of images for the --vectors, of text for asking."),
]
Models = Annotated[Path | None, typer.Option("--models", help="Folder of model folders, instead of those that ship.")]
IdColumn = Annotated[str | None, typer.Option("--id-column", help="Column of the ids, if it is not found by its name.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        help="What a column is: ROLE=COLUMN, such as z=redshift; roles are object_id, ra, dec, z, file, x_px, y_px.",
    ),
]
RaColumn = Annotated[str | None, typer.Option("--ra", help="Column of right ascension, if it is not found.")]
DecColumn = Annotated[str | None, typer.Option("--dec", help="Column of declination, if it is not found.")]
XColumn = Annotated[str | None, typer.Option("--x", help="Column of x in pixels of the mosaic, if it is not found.")]
YColumn = Annotated[str | None, typer.Option("--y", help="Column of y in pixels of the mosaic, if it is not found.")]
TableName = Annotated[
    str | None,
    typer.Option("--table-name", "--hdu", help="Which table of a FITS file or VOTable: its name or its number."),
]
Missing = Annotated[
    str | None, typer.Option("--missing", help="Numbers that stand for no value, separated by commas: 99,-99.")
]

Ext = Annotated[
    str | None, typer.Option("--ext", help="Image of a FITS file to take: NAME, NAME,VERSION or a number from 0.")
]
Bands = Annotated[
    str | None, typer.Option("--bands", help="Images of a FITS file, or planes of a stack, that are bands: g,r,z.")
]
IdFrom = Annotated[str, typer.Option("--id-from", help="Ids of cutouts without a table: the file's name, or its path.")]

Words = Annotated[str | None, typer.Argument(help="What to look for, in words.", metavar="[WORDS]")]
Like = Annotated[list[str] | None, typer.Option("--like", help="Like this object of the atlas; may be repeated.")]
Image = Annotated[list[Path] | None, typer.Option("--image", help="Like this picture; may be repeated.")]
Plus = Annotated[list[str] | None, typer.Option("--plus", help="And like these words, TEXT or WEIGHT:TEXT.")]
Minus = Annotated[list[str] | None, typer.Option("--minus", help="Unlike these words, TEXT or WEIGHT:TEXT.")]
Where = Annotated[str | None, typer.Option("--where", help='SQL condition, such as "z < 0.1 AND mag_r < 17".')]
Near = Annotated[
    tuple[str, str] | None,
    typer.Option("--near", help="Center of a cone, ICRS, degrees or sexagesimal.", metavar="RA DEC"),
]
RadiusArcsec = Annotated[float | None, typer.Option("--radius-arcsec", help="Radius of the cone.")]
HowMany = Annotated[int, typer.Option("-k", help="How many to return.")]
Closest = Annotated[
    bool, typer.Option("--closest", help="Like the closest of several examples or words, not like their mean.")
]
Distinct = Annotated[bool, typer.Option("--distinct", help="Leave out duplicates of the same object.")]
Hybrid = Annotated[bool, typer.Option("--hybrid", help="Let the words match names and captions too.")]
Recall = Annotated[
    float | None, typer.Option("--recall", help="Share of the best to find in a large atlas; 0.98 unless said.")
]
Exact = Annotated[bool, typer.Option("--exact", help="Compare all vectors, not the likeliest cells only.")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Say how the words were read and the answer was found, on stderr.")
]
Sheet = Annotated[Path | None, typer.Option("--sheet", help="Also write a PNG of the pictures found.")]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="OpenAI-compatible endpoint, such as http://localhost:11434/v1.")
]
KeyEnv = Annotated[str, typer.Option("--api-key-env", help="Environment variable that holds the key.")]
PriceIn = Annotated[float | None, typer.Option("--price-in", help="US dollars per million tokens sent.")]
PriceOut = Annotated[float | None, typer.Option("--price-out", help="US dollars per million tokens received.")]
Concurrency = Annotated[int, typer.Option("--concurrency", help="Questions under way at a time.")]


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"galsearch {galsearch.__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("LANCE_LOG", "error")  # its warnings about empty partitions are not for our users
    try:
        app()
    except galsearch.GalsearchError as error:
        _tell(*_one_error(error))
        raise SystemExit(1) from None
    except (KeyboardInterrupt, _Stopped):
        print("galsearch: stopped; nothing is lost, run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, and with it anyone to tell
        raise SystemExit(0) from None
    except OSError as error:
        _tell(*_one_error(error))
        raise SystemExit(1) from None


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the demo atlas.")] = Path("demo"),
    models: Models = None,
    device: Device = "auto",
):
    """Build an atlas of the Hubble eXtreme Deep Field and search it: a first look, with nothing to download."""
    with _progress() as progress:
        report, bundle = galsearch.demo(folder, models=models, device=device, progress=progress)
    _tell_report(report)
    with galsearch.open(bundle, device=device) as atlas:
        words = atlas.search("edge-on galaxy", where="NOT is_star AND NOT is_artifact", k=12)
        likeness = atlas.search(words[0], where="NOT is_star AND NOT is_artifact", k=12)
        answers = {"in words: edge-on galaxy": words, f"by example: more like {words[0].object_id}": likeness}
        for title, hits in answers.items():
            _tell("", title)
            _print_table(hits.table)
        sheet = galsearch.contact_sheet(answers, folder / "contact_sheet.png")
    _tell(
        "",
        f"pictures of both: {sheet}",
        f"next: {_again('search', bundle, 'face-on spiral galaxy')}",
        f"      {_again('app', bundle)}   (needs galsearch[app]; in a checkout: make app)",
    )


@app.command()
def build(
    path: Annotated[Path, typer.Argument(help="The atlas to make, by custom name.atlas.", metavar="ATLAS")],
    images: Images = None,
    mosaic: Mosaic = None,
    table: Table = None,
    vectors: Vectors = None,
    model: ModelName = None,
    models: Models = None,
    id_column: IdColumn = None,
    ext: Ext = None,
    bands: Bands = None,
    id_from: IdFrom = "name",
    columns: Columns = None,
    ra: RaColumn = None,
    dec: DecColumn = None,
    x: XColumn = None,
    y: YColumn = None,
    table_name: TableName = None,
    missing: Missing = None,
    projector: Projector = None,
    title: Annotated[str | None, typer.Option("--title", help="What to call it.")] = None,
    credits: Annotated[
        Path | None,
        typer.Option("--credits", help="JSON list of {title, license, acknowledgement, bibtex} of the data."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an atlas that is there.")] = False,
    device: Device = "auto",
):
    """Build an atlas from cutouts, a mosaic, or a table of embeddings. Stopped builds go on when run again."""
    with _progress() as progress:
        report = galsearch.build(
            path,
            source=_one_source(images, mosaic),
            table=table,
            vectors=vectors,
            model=model,
            models=models,
            id_column=id_column,
            ext=ext,
            bands=_band_list(bands),
            id_from=id_from,
            columns=_roles(columns, ra=ra, dec=dec, x_px=x, y_px=y),
            table_name=table_name,
            missing=_numbers(missing),
            projector=projector,
            title=title,
            credits=_credits(credits),
            overwrite=overwrite,
            device=device,
            progress=progress,
        )
    _tell_report(report)
    _tell(f"next: {_again('bundle', path, path.with_suffix('.duckdb'))}")


@app.command()
def add(
    path: AtlasPath,
    images: Images = None,
    mosaic: Mosaic = None,
    table: Table = None,
    vectors: Vectors = None,
    model: ModelName = None,
    models: Models = None,
    id_column: IdColumn = None,
    ext: Ext = None,
    bands: Bands = None,
    id_from: IdFrom = "name",
    columns: Columns = None,
    ra: RaColumn = None,
    dec: DecColumn = None,
    x: XColumn = None,
    y: YColumn = None,
    table_name: TableName = None,
    missing: Missing = None,
    projector: Projector = None,
    device: Device = "auto",
):
    """Append galaxies to an atlas folder; what is there stays as it is."""
    with _progress() as progress:
        report = galsearch.add(
            path,
            source=_one_source(images, mosaic),
            table=table,
            vectors=vectors,
            model=model,
            models=models,
            id_column=id_column,
            ext=ext,
            bands=_band_list(bands),
            id_from=id_from,
            columns=_roles(columns, ra=ra, dec=dec, x_px=x, y_px=y),
            table_name=table_name,
            missing=_numbers(missing),
            projector=projector,
            device=device,
            progress=progress,
        )
    _tell_report(report)


@app.command()
def optimize(path: AtlasPath):
    """Put galaxies that were added to an atlas folder into its index; small atlases need none."""
    report = galsearch.optimize(path)
    _tell(f"{path}: {report.added} of {report.rows} galaxies put into the index, in {report.seconds:.1f} s")


@app.command()
def bundle(
    path: AtlasPath,
    out: Annotated[Path, typer.Argument(help="The file to write, by custom name.duckdb.", metavar="FILE")],
    no_models: Annotated[bool, typer.Option("--no-models", help="Leave the encoders out: a smaller file.")] = False,
    compact: Annotated[
        bool, typer.Option("--compact", help="Store the vectors as 8-bit codes: a quarter of their size.")
    ] = False,
    layout: Annotated[
        str | None, typer.Option("--map", help="Lay the vectors out in a plane: pca, or umap (galsearch[umap]).")
    ] = None,
):
    """Write an atlas as one file, which any DuckDB can read and search."""
    with _progress() as progress:
        galsearch.bundle(path, out, models=not no_models, compact=compact, map=layout, progress=progress)
    _tell(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)", f"next: {_again('search', out, 'spiral galaxy')}")


@app.command()
def info(path: AtlasPath, output_format: Format = "table"):
    """Tell what an atlas holds: title, rows, models, sources, columns with units."""
    with galsearch.open(path) as atlas:
        manifest = atlas.manifest
        if output_format == "json":
            print(json.dumps({**dict(vars(manifest)), "columns": atlas.columns().to_pylist()}, indent=1))
            return
        _check_format(output_format)
        _tell(
            f"{manifest.title}: {manifest.rows} galaxies ({atlas.kind} {path}), "
            f"created {manifest.created} by {manifest.software}"
        )
        for name, space in manifest.embeddings.items():
            numbers = "8-bit codes" if space.get("codes") else "numbers"
            _tell(f"{name} vectors: {space['rows']} of {space['dim']} {numbers} by {space['model']}")
        _tell(f"vectors are compared by: {atlas.compares_with}")
        for source in manifest.sources:
            _tell(f"source: {source.get('title')}; {source.get('license')}; {source.get('acknowledgement')}")
        _print_rows(atlas.columns(), output_format)


@app.command()
def search(
    path: AtlasPath,
    words: Words = None,
    like: Like = None,
    image: Image = None,
    plus: Plus = None,
    minus: Minus = None,
    where: Where = None,
    near: Near = None,
    radius_arcsec: RadiusArcsec = None,
    k: HowMany = 12,
    closest: Closest = False,
    distinct: Distinct = False,
    hybrid: Hybrid = False,
    recall: Recall = None,
    exact: Exact = False,
    explain: Explain = False,
    output_format: Format = "table",
    output: Output = None,
    quote_formulas: QuoteFormulas = False,
    sheet: Sheet = None,
    send_to: Annotated[
        str | None,
        typer.Option("--send-to", help="Also send to this running program by SAMP: topcat, aladin, … or all."),
    ] = None,
    device: Device = "auto",
):
    """Search in words, by example, by SQL and by position, all at once.

    Words that are an object's id or name ("NGC 5194"), or a position, give that object and are not searched for.
    """
    _check_format(output_format)
    query = galsearch.Query(
        _terms(words, like or [], image or [], plus or [], minus or []),
        near=galsearch.parse_position(" ".join(near)) if near else None,
        combine="max" if closest else "mean",
        hybrid="sum" if hybrid else None,
        **{"where": where, "radius_arcsec": radius_arcsec, "k": k},
        **{"exact": exact, "recall": recall, "distinct": distinct},
    )
    with galsearch.open(path, device=device) as atlas:
        if words and not any(map(str.isdigit, words)):  # hardly a name
            atlas.prepare()
        named = atlas.lookup(words) if words and len(query.terms) == 1 else None
        hits = _candidates(atlas, named, query) if named else atlas.search(query)
        if named:
            _tell_named(named, hits, path)
        elif explain:
            _tell_plan(atlas, hits, words)
            _tell_refinements(hits)
        else:
            _tell_hints(atlas, words)
        if sheet:
            _tell(f"wrote {hits.contact_sheet(sheet)}")
        if send_to:
            _tell(f"sent to {', '.join(hits.send(send_to))}")
        if output:
            _tell(f"wrote {hits.save(output, quote_formulas=quote_formulas)} ({len(hits)} rows)")
        elif output_format == "table":
            _print_table(hits.table)
        else:
            _print_data(hits.format(output_format))
        if hits.convincing is not None and hits.convincing < len(hits):
            _tell(_doubt(hits))
        if not len(hits) and not named:
            _tell(_nothing(atlas, in_a_cone=near is not None))


@app.command()
def rerank(
    path: Annotated[Path | None, typer.Argument(help="An atlas: name.atlas or name.duckdb.", metavar="ATLAS")] = None,
    words: Words = None,
    by: Annotated[str, typer.Option("--by", help="local: nothing is sent; vlm: ask a vision model.")] = "local",
    n: Annotated[int, typer.Option("-n", help="How many hits to look at again.")] = 200,
    positive: Annotated[
        list[str] | None,
        typer.Option("--positive", help="Object, or file of a picture, that is what you want; two or more."),
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option("--negative", help="Object, or file of a picture, that is not; two or more.")
    ] = None,
    like: Like = None,
    image: Image = None,
    plus: Plus = None,
    minus: Minus = None,
    where: Where = None,
    near: Near = None,
    radius_arcsec: RadiusArcsec = None,
    k: HowMany = 12,
    closest: Closest = False,
    distinct: Distinct = False,
    hybrid: Hybrid = False,
    recall: Recall = None,
    exact: Exact = False,
    explain: Explain = False,
    model: Annotated[str | None, typer.Option("--model", help="Vision model to ask.")] = None,
    base_url: BaseUrl = None,
    key_env: KeyEnv = "OPENAI_API_KEY",
    question: Annotated[
        str | None, typer.Option("--question", help="What to ask the model for; the words, unless said.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Answers about one picture, at most.")] = 3,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", help="US dollars on this question and model before it stops.")
    ] = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    concurrency: Concurrency = 8,
    answers: Annotated[
        Path | None, typer.Option("--answers", help="Folder for the model's answers; beside the atlas, unless said.")
    ] = None,
    prompt: Annotated[Path | None, typer.Option("--prompt", help="Text file to ask with, instead of ours.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Print what models would cost; send nothing.")] = False,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Print what models are asked, and stop.")] = False,
    output_format: Format = "table",
    output: Output = None,
    quote_formulas: QuoteFormulas = False,
    sheet: Sheet = None,
    device: Device = "auto",
):
    """Search, look at the best hits again, and put them in a better order; or say that there is none."""
    _check_format(output_format)
    if show_prompt:
        print(galsearch.rerank_prompt(prompt))
        return
    if path is None:
        raise typer.BadParameter("name the atlas to search", param_hint="ATLAS")
    query = galsearch.Query(
        _terms(words, like or [], image or [], plus or [], minus or []),
        near=galsearch.parse_position(" ".join(near)) if near else None,
        combine="max" if closest else "mean",
        hybrid="sum" if hybrid else None,
        **{"where": where, "radius_arcsec": radius_arcsec, "k": k},
        **{"exact": exact, "recall": recall, "distinct": distinct},
    )
    asking: dict = {}
    if by == "vlm" or estimate:
        asking = {"model": model, "base_url": base_url, "key_env": key_env, "samples": samples, "max_cost": max_cost}
        asking |= {"price_in": price_in, "price_out": price_out, "concurrency": concurrency}
        asking |= {"question": question, "answers": answers, "prompt": prompt}
    with galsearch.open(path, device=device) as atlas, _progress() as progress:
        hits = atlas.search(query)
        if estimate:
            _print_rows(hits.estimate_rerank(n=n, **asking), output_format)
            _tell("an estimate, within a factor of two, of all answers; fewer are asked for. Nothing was sent")
            return
        marks = {"positives": _examples(positive), "negatives": _examples(negative)}
        found = hits.rerank(by, n=n, progress=progress, **marks, **asking)
        if explain:
            _tell_plan(atlas, hits, words)
        else:
            _tell_hints(atlas, words)
        _tell(str(found.reranked))
        if sheet:
            _tell(f"wrote {galsearch.contact_sheet({'before': hits, 're-ranked': found}, sheet)}")
        if output:
            _tell(f"wrote {found.save(output, quote_formulas=quote_formulas)} ({len(found)} rows)")
        elif output_format == "table":
            _print_table(found.table, columns=_reranked_columns(found.table))
        else:
            _print_data(found.format(output_format))
        if hits.convincing == 0 and len(hits):
            _tell(_doubt(hits))


@app.command()
def classify(
    path: AtlasPath,
    labels: Annotated[
        Path, typer.Argument(help="YAML: a line `label: phrase` or `label: [phrases]` for each.", metavar="LABELS")
    ],
    where: Annotated[str | None, typer.Option("--where", help="SQL condition on the objects to label.")] = None,
    k: Annotated[int | None, typer.Option("-k", help="How many to label, by object_id; all unless said.")] = None,
    least: Annotated[float, typer.Option("--least", help="Probability under which no label is given.")] = 0.5,
    output_format: Format = "table",
    output: Output = None,
    quote_formulas: QuoteFormulas = False,
    device: Device = "auto",
):
    """Label galaxies by words alone: the label whose phrases fit best, or none where nothing is convincing."""
    _check_format(output_format)
    with galsearch.open(path, device=device) as atlas:
        found = atlas.label(labels, where=where, k=k, least=least)
        if output:
            meta = {
                "title": f"labels of {labels.name}",
                "atlas": atlas.manifest.title,
                "sources": atlas.manifest.sources,
            }
            galsearch.write_table(found, output, meta=meta, quote_formulas=quote_formulas)
            _tell(f"wrote {output} ({found.num_rows} rows)")
        else:
            _print_rows(found, output_format)
    counts = Counter(found["label"].to_pylist())
    none = counts.pop(None, 0)
    _tell(", ".join([*(f"{name}: {count}" for name, count in sorted(counts.items())), f"no label: {none}"]))


@app.command()
def evaluate(
    path: AtlasPath,
    targets: Annotated[
        Path | None, typer.Option("--targets", help="TOML file of what to look for; EFIGI and Galaxy Zoo unless said.")
    ] = None,
    where: Annotated[str | None, typer.Option("--where", help="SQL condition on the candidates.")] = None,
    folds: Annotated[int, typer.Option("--folds", help="Folds, by a digest of the object_id.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Seed of folds, draws and candidate sets.")] = 0,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Folder for a PNG of pictures per target.")] = None,
    store: Annotated[bool, typer.Option("--store", help="Also keep the figures in the atlas folder.")] = False,
    output_format: Format = "table",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write: .json all, .md summary, .csv .vot … figures.")
    ] = None,
    device: Device = "auto",
):
    """Measure how well words find what is labeled: nDCG, precision, recall, AUROC, beside baselines and chance."""
    _check_format(output_format)
    found = galsearch.evaluate(
        path, targets=targets, where=where, folds=folds, seed=seed, sheet=sheet, store=store, device=device
    )
    for name, reason in found.left_out.items():
        _tell(f"left out: {name}: {reason}")
    if output:
        _tell(f"wrote {found.save(output)} ({found.table.num_rows} rows)")
    elif output_format == "json":
        _print_data(found.to_json())
    elif output_format == "table":
        _print_rows(found.shown(), output_format)
    else:
        _print_rows(found.table, output_format)
    _tell(f"config {found.config['config_sha256'][:12]}, targets {found.config['targets']['version']}, seed {seed}")
    if sheet:
        _tell(f"wrote pictures of {len(found.best)} targets to {sheet}")
    if store:
        _tell(f"kept in {path}: table evaluations")


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
    base_url: BaseUrl = None,
    key_env: KeyEnv = "OPENAI_API_KEY",
    prompt: Annotated[Path | None, typer.Option("--prompt", help="Text file to ask with, instead of ours.")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the pictures to send, instead of thumbnails.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", help="US dollars on this model and prompt before it stops.")
    ] = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    concurrency: Concurrency = 8,
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
    output_format: Format = "table",
):
    """Write captions into an atlas folder: what each galaxy looks like, in words that --hybrid searches."""
    if show_prompt:
        print(galsearch.caption_prompt(prompt))
        return
    if path is None:
        raise typer.BadParameter("name the atlas to caption", param_hint="ATLAS")
    if estimate:
        prices = {"price_in": price_in, "price_out": price_out}
        found = galsearch.estimate_captions(path, where=where, copies=copies, prompt=prompt, model=model, **prices)
        _print_rows(found, output_format)
        _tell_estimate(found)
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
    with _progress() as progress:
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


@app.command()
def show(
    path: AtlasPath,
    object_id: Annotated[str, typer.Argument(help="Which object.")],
    output_format: Format = "table",
):
    """Show every column of one object, with units."""
    with galsearch.open(path) as atlas:
        atlas[object_id]  # says so when there is none
        table = atlas.rows([object_id])
        if output_format != "table":
            _print_rows(table, output_format)
            return
        for field in table.schema:
            unit = (field.metadata or {}).get(b"unit", b"").decode()
            print(f"{_text(field.name):20} {_cell(table[field.name][0].as_py())} {_text(unit)}".rstrip())


@app.command()
def sql(
    path: AtlasPath,
    statement: Annotated[str, typer.Argument(help="One SELECT; embed('words') gives a query vector.")],
    output_format: Format = "table",
    output: Output = None,
    quote_formulas: QuoteFormulas = False,
    device: Device = "auto",
):
    """Run one SELECT over the atlas, with its macros: nearest, cone, concept, like_object and embed('words')."""
    _check_format(output_format)
    with galsearch.open(path, device=device) as atlas:
        table = atlas.sql(statement)
        if output:
            meta = {"query": statement, "atlas": atlas.manifest.title, "sources": atlas.manifest.sources}
            galsearch.write_table(table, output, meta=meta, quote_formulas=quote_formulas)
            _tell(f"wrote {output} ({table.num_rows} rows)")
        else:
            _print_rows(table, output_format)


@app.command()
def crossmatch(
    path: AtlasPath,
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
    ra: RaColumn = None,
    dec: DecColumn = None,
    table_name: TableName = None,
    missing: Missing = None,
    keep_unmatched: Annotated[
        bool, typer.Option("--keep-unmatched", help="Keep rows without a match, or without a position.")
    ] = False,
    output_format: Format = "table",
    output: Output = None,
    quote_formulas: QuoteFormulas = False,
):
    """Put the objects of an atlas beside the rows of a table that lie at the same place on the sky."""
    _check_format(output_format)
    with galsearch.open(path) as atlas:
        found = atlas.crossmatch(
            table,
            radius_arcsec=radius_arcsec,
            mode=mode,
            where=where,
            ra=ra,
            dec=dec,
            table_name=table_name,
            missing=_numbers(missing),
            keep_unmatched=keep_unmatched,
        )
        if output:
            title = f"{table.name} matched within {radius_arcsec:g} arcsec"
            meta = {"title": title, "atlas": atlas.manifest.title, "sources": atlas.manifest.sources}
            galsearch.write_table(found, output, meta=meta, quote_formulas=quote_formulas)
            _tell(f"wrote {output} ({found.num_rows} rows)")
        elif output_format == "table":
            _print_table(found, columns=_matched_columns(found))
        else:
            _print_rows(found, output_format)
    for note in galsearch.notes_of(found):
        _tell(note)
    matches = found.num_rows - found["object_id"].null_count
    _tell(f"{matches} matches within {radius_arcsec:g} arcsec" + ("" if matches else "; check the columns and units"))


@app.command()
def check(path: AtlasPath, device: Device = "auto"):
    """Verify an atlas: blocks, counts, norms, models and their self-tests, recall. Exit 1 if a part fails."""
    with galsearch.open(path, device=device) as atlas:
        failed = 0
        for finding in atlas.check():
            failed += not finding.ok
            remedy = "" if finding.ok else f"; {finding.remedy}"
            print(_text(f"{'ok  ' if finding.ok else 'BAD '} {finding.name}: {finding.message}{remedy}"))
    if failed:
        raise typer.Exit(1)


@app.command()
def cite(
    path: AtlasPath,
    bibtex: Annotated[bool, typer.Option("--bibtex", help="As BibTeX entries instead of sentences.")] = False,
):
    """Print what to cite and to acknowledge for the data, the models and the program."""
    with galsearch.open(path) as atlas:
        _print_data(atlas.bibtex() if bibtex else atlas.acknowledgements())


@app.command()
def space(
    path: AtlasPath,
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not hold anything yet.", metavar="OUT")],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Fetch the bundle from this data set (USER/NAME) when the Space starts."),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="What to call the Space; the atlas's title.")] = None,
):
    """Write a folder that is a Hugging Face Docker Space with the app on an atlas. Nothing is sent anywhere."""
    with _progress() as progress:
        galsearch.write_space(path, out, dataset=dataset, title=title, progress=progress)
    size = sum(file.stat().st_size for file in out.iterdir())
    _tell(f"wrote {out} ({size / 1e6:.1f} MB); look into its README.md, then:")
    if dataset:
        _tell(f"  {shlex.join(['hf', 'upload', dataset, str(path), '--repo-type', 'dataset'])}")
    elif size > SPACE_BYTES:
        _tell(f"a Space holds {SPACE_BYTES / 1e9:.0f} GB at most: put the bundle into a data set, and use --dataset")
    _tell(f"  {shlex.join(['hf', 'upload', 'USER/NAME', str(out), '.', '--repo-type', 'space'])}")


@app.command("app")
def open_app(
    path: AtlasPath,
    port: Annotated[int, typer.Option("--port", help="Port on this machine.")] = 8501,
    public: Annotated[
        bool, typer.Option("--public", help="For strangers: on every network address, read-only, with limits.")
    ] = False,
):
    """Open an atlas in the Streamlit app, in the browser of this machine."""
    import subprocess
    from importlib.util import find_spec

    with galsearch.open(path):
        pass  # a damaged atlas is told here, not in the browser
    if find_spec("streamlit") is None:
        raise galsearch.GalsearchError("the app needs Streamlit: pip install 'galsearch[app]'")
    here = Path(__file__).resolve().parent
    scripts = (here.parent / "streamlit_app" / "app.py", here / "_app" / "app.py")
    script = next((item for item in scripts if item.is_file()), None)
    if script is None:
        raise galsearch.GalsearchError(f"the app is not installed in {scripts[1].parent}; reinstall galsearch")
    # by itself not for the rest of the network, and never a word to Streamlit's makers
    own = ["--server.address", "0.0.0.0" if public else "localhost", "--server.port", str(port)]
    own += ["--browser.gatherUsageStats", "false", *(PUBLIC_APP if public else ())]
    command = [sys.executable, "-m", "streamlit", "run", str(script), *own, "--", str(path)]
    if public:
        os.environ["GALSEARCH_PUBLIC"] = "1"  # which the app asks for
        os.execv(command[0], command)  # what stops this process stops the server
    raise SystemExit(subprocess.call(command))


# ---- helpers


def _command() -> str:
    """Return what to type to run this command again: its path, where its name alone would not find it."""
    return "galsearch" if shutil.which("galsearch") else sys.argv[0]


def _again(*arguments: str | Path) -> str:
    """Return what to type to run galsearch with these arguments, quoted as a shell needs it."""
    return shlex.join([_command(), *map(str, arguments)])


def _one_source(images: Path | None, mosaic: Path | None) -> Path | None:
    if images and mosaic:
        raise typer.BadParameter("give --images or --mosaic, not both")
    if images and not (images.is_dir() or (images.is_file() and images.name.lower().endswith(ARCHIVES))):
        raise galsearch.SchemaError(f"{images}: no such folder; --images takes a folder or an archive of cutouts")
    if mosaic and not mosaic.is_file():
        raise galsearch.SchemaError(f"{mosaic}: no such file; --mosaic takes one picture, --images a folder")
    return images or mosaic


def _band_list(bands: str | None) -> list[str] | None:
    return None if bands is None else [name.strip() for name in bands.split(",") if name.strip()]


def _credits(path: Path | None) -> list[dict] | None:
    if path is None:
        return None
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise galsearch.SchemaError(f"{path}: cannot be read as JSON ({error}); give a list of objects") from None
    if not (isinstance(found, list) and all(isinstance(item, dict) for item in found)):
        raise galsearch.SchemaError(f"{path}: expected a JSON list of {{title, license, acknowledgement, bibtex}}")
    return found


def _terms(words: str | None, like: list[str], image: list[Path], plus: list[str], minus: list[str]) -> tuple:
    terms = [] if words is None else [galsearch.Term("text", words)]
    terms += [galsearch.Term("object", value) for value in like]
    terms += [galsearch.Term("image", str(value)) for value in image]
    for sign, texts in ((1, plus), (-1, minus)):
        terms += [galsearch.Term("text", text, sign * weight) for weight, text in map(_weighted, texts)]
    return tuple(terms)


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


def _check_format(name: str) -> None:
    if name not in FORMATS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(FORMATS)}", param_hint="--format")


def _print_rows(table: pa.Table, output_format: str) -> None:
    _check_format(output_format)
    if output_format == "table":
        _print_table(table, columns=table.column_names)
    else:
        _print_data(galsearch.format_table(table, output_format))


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


def _print_table(table: pa.Table, columns: list[str] | None = None) -> None:
    """Print rows for a person: the well-known columns of hits, or the given ones; units stand in the head."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn

    names = columns or [
        name for name in SHOWN_COLUMNS if name in table.column_names and table[name].null_count < len(table)
    ]
    drawn = Drawn(box=box.SIMPLE_HEAD)
    for name in names:
        unit = (table.field(name).metadata or {}).get(b"unit", b"").decode()
        drawn.add_column(f"{_text(name)}\n[{_text(unit)}]" if unit else _text(name), overflow="fold")
    for row in table.select(names).to_pylist():
        drawn.add_row(*(_cell(row[name]) for name in names))
    wide = 0 if sys.stdout.isatty() else 200  # a pipe has no width: do not fold what grep will read
    Console(width=wide or None, markup=False, highlight=False).print(drawn)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e5 else f"{value:.6f}"
    if isinstance(value, list) and len(value) > 4:
        return f"[{len(value)} numbers]"
    return _text(value)


def _text(value: object) -> str:
    """Return a stranger's text, such as a title or the name of a column, as one line that no terminal obeys."""
    return galsearch.printable(value)


def _one_error(error: Exception) -> list[str]:
    """Return the lines of an error; all but the first are set in, so that none looks like one of ours."""
    return ("galsearch: " + str(error).replace("\n", "\n  ")).split("\n")


def _print_data(text: str) -> None:
    """Print data on stdout as it is; on a terminal, which would obey what is in it, with its escapes shown."""
    text = text.rstrip("\n")
    print(galsearch.printable(text, lines=True) if sys.stdout.isatty() else text)


def _tell(*lines: object) -> None:
    """Print lines of words on stderr; each stays one line, whatever text of an atlas is in it."""
    for line in lines:
        print(_text(line), file=sys.stderr)


def _tell_plan(atlas: galsearch.Atlas, hits: galsearch.Hits, words: str | None) -> None:
    """Say how a question was read and answered."""
    provider = [f"encoder on {hits.plan.provider}"] if hits.plan.provider else []
    _tell(hits.query.formula() or "list", hits.plan, *provider)
    if words:
        _tell("read as", *str(atlas.understand(words)).split("\n"))


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
    _tell(str(named))
    if len(hits) < len(named.candidates):
        _tell(f"{len(hits)} of them pass the cuts; loosen --where or the cone, or raise -k, for the others")
    if len(hits):
        _tell(f"for objects like it: {_again('search', path, f'--like={hits.ids[0]}')}")
    if named.kind == "object":
        _tell(f"to search for these words all the same: {_again('search', path, f'--plus={named.text}')}")


def _tell_hints(atlas: galsearch.Atlas, words: str | None) -> None:
    """Say what of the words the search cannot heed: numbers without a column, another language, what is too rare."""
    if words:
        _tell(*atlas.hints(words))


def _tell_refinements(hits: galsearch.Hits) -> None:
    """Say how the question could be refined, as options to add."""
    signs = {"more": "--plus", "less": "--minus"}
    found = [shlex.join([signs[one.sign], f"0.5:{one.phrase}"]) for one in hits.refinements()]
    if found:
        _tell(f"refine with: {'  '.join(found)}")


def _doubt(hits: galsearch.Hits) -> str:
    """Return what to say where not all hits are convincing."""
    if not hits.convincing:
        return "no match is convincing: none scores as well as what most questions find here"
    return f"only the first {hits.convincing} are convincing: the others score less than what most questions find here"


def _tell_estimate(found: pa.Table) -> None:
    """Say what an estimate is worth, and which price is missing."""
    unknown = [row["model"] for row in found.to_pylist() if row["usd"] is None]
    if unknown:
        _tell(f"the price of {unknown[0]} is not known; give it with --price-in and --price-out")
    _tell("an estimate, within a factor of two; usd_batch is for answers within a day. Nothing was sent")


def _tell_captioned(done: galsearch.Captioned) -> None:
    _tell(f"{done.path}: {done.captions} captions by {done.model} in {done.seconds:.1f} s")
    if done.silent:
        _tell(f"nothing could be said of {done.silent} objects: no values, or no picture")
    if done.counts:
        _tell(", ".join(f"{name}: {count}" for name, count in done.counts.items()))
    if done.cost_usd is None:
        _tell("cost: not known, this model's price is not; see --price-in and --price-out")
    elif done.cost_usd:
        _tell(f"cost: {done.cost_usd:.4f} US dollars (table 'caption_costs' of the atlas)")
    if done.note:
        _tell(done.note)


def _roles(columns: list[str] | None, **named: str | None) -> dict[str, str]:
    """Return which column has which role, as --columns and the options for single roles say."""
    return galsearch.parse_roles(columns or []) | {role: column for role, column in named.items() if column}


def _numbers(text: str | None) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not numbers separated by commas, such as 99,-99", param_hint="--missing"
        ) from None


def _tell_report(report: galsearch.Report) -> None:
    on = f" (encoder on {report.provider})" if report.provider else ""
    _tell(f"{report.path}: {report.added} galaxies added, {report.rows} in all, in {report.seconds:.1f} s{on}")
    for line in report.lines():
        _tell(f"  {line}")
    if report.rejected:
        _tell(f"{len(report.rejected)} left out (all of them: table 'rejected' of the atlas):")
    for item in report.rarest_first()[:TOLD_REJECTIONS]:
        _tell(f"  {item['file'] or item['object_id']}: {item['reason']}")


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar on stderr while a long call runs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with _kept_interrupts() as interrupted, Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[int, int] = {}

        def report(done: int, total: int, what: str) -> None:
            what = _text(what)
            if interrupted:
                raise KeyboardInterrupt
            if total not in tasks:  # steps of one job have one total, whatever they are called
                tasks[total] = bar.add_task(what, total=total)
            bar.update(tasks[total], completed=done, description=what)

        yield report


@contextmanager
def _kept_interrupts() -> Iterator[list[int]]:
    """Note every Ctrl-C in a list: Python drops what is raised while an object is being deleted, Ctrl-C too."""
    came: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield came  # it is ignored, as under nohup, or comes to another thread
        return

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
