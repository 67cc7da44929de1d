"""Commands that classify by votes of known neighbors: knowledge bases, what they say, which labels look wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import galsearch
from galsearch.cli import options
from galsearch.cli.options import check_format
from galsearch.cli.output import cell, meta_of, print_data, print_rows, progress_bar, put_out, short, tell
from galsearch.cli.program import add_group, app

if TYPE_CHECKING:
    import pyarrow as pa

kb = add_group("kb", "Knowledge bases: labeled objects vote on others.")

BaseName = Annotated[str, typer.Argument(help="Name of the base.", metavar="BASE")]
Version = Annotated[int | None, typer.Option("--version", help="Version of the base; the last unless said.")]
By = Annotated[str | None, typer.Option("--by", help="Embedding to compare in; the main one unless said.")]
Weight = Annotated[str, typer.Option("--weight", help="Of a vote: uniform, inverse, exp, gaussian or rank.")]
Tau = Annotated[float, typer.Option("--tau", help="Length of exp (e^(-d/tau)) and gaussian, in distances from 0 to 2.")]
Columns = Annotated[
    list[str] | None, typer.Option("--columns", help="Column of the catalog to show of voters; may be repeated.")
]


SHOWN = (  # of a probe
    *("probe", "version", "trained", "tested", "accuracy", "accuracy_low", "accuracy_high", "log_loss"),
    *("against", "gain", "gain_low", "gain_high", "created"),
)


@kb.command("create")
def kb_create(
    path: options.AtlasPath,
    name: BaseName,
    select: Annotated[
        str | None,
        typer.Option("--from", help="SELECT of object_id and label; it is kept, and its rows become the members."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option("--template", help="Labels by lines or the catalog, instead: activity, liner, gas, whan, type."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Table of labels, instead: by object_id, or --radius-arcsec.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="Column of the table that holds the labels.")] = None,
    radius_arcsec: Annotated[
        float | None, typer.Option("--radius-arcsec", help="Match the table by position, within this radius.")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", help="Class that is looked for.")] = None,
    share: Annotated[
        float | None, typer.Option("--share", help="Part of the members that the target is drawn to, such as 0.3.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="class or number; by the type of the labels unless said.")
    ] = None,
    by: By = None,
    columns: Columns = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw and of the objects held out.")] = 0,
):
    """Create a version of a knowledge base.

    From a SELECT, a template or a table of labels, in an atlas folder.
    """
    with progress_bar() as progress:
        base = galsearch.create_base(
            path,
            name,
            select,
            template=template,
            table=table,
            label=label,
            radius_arcsec=radius_arcsec,
            target=target,
            share=share,
            kind=kind,
            by=by,
            columns=columns or [],
            seed=seed,
            progress=progress,
        )
    classes = ", ".join(f"{short(label)}: {count}" for label, count in base.counts.items())
    tell(
        f"base {base.name}, version {base.version}: {base.rows} members by {base.embedding}"
        + (f"; {classes}" * bool(classes))
    )
    if base.left_out:
        tell(f"{base.left_out} labeled objects have no vector in {base.embedding} and were left out")
    if base.calibration is None:
        tell("too few members to learn how votes become probabilities: they are shares of the votes")


@kb.command("list")
def kb_list(path: options.AtlasPath, output_format: options.Format = "table"):
    """List the knowledge bases of an atlas.

    A row for each version.
    """
    check_format(output_format)
    with galsearch.open(path) as atlas:
        table = atlas.bases()
        shown = ["base", "version", "embedding", "kind", "target", "share", "rows", "calibrated", "created"]
        put_out(table, output_format, shown=shown)
    if not table.num_rows:
        tell("there is no base yet; make one with `galsearch kb create`")


@kb.command("show")
def kb_show(path: options.AtlasPath, name: BaseName, version: Version = None, output_format: options.Format = "table"):
    """Show what a knowledge base is made of.

    Its SELECT, its members by class, how it was drawn.
    """
    check_format(output_format)
    with galsearch.open(path) as atlas:
        base, table = atlas.base(name, version=version), atlas.bases()
    stored = [row for row in table.to_pylist() if (row["base"], row["version"]) == (base.name, base.version)]
    if not stored:
        tell(f"'{name}' is a column, and no base; as a base of all objects that have it, it would be:")
    if output_format != "table":
        print_rows(table.filter([(row in stored) for row in table.to_pylist()]), output_format)
        return
    facts = stored[0] if stored else {"base": name, "embedding": base.embedding, "kind": base.kind, "rows": base.rows}
    for key, value in facts.items():
        print(f"{key:14} {cell(value)}".rstrip())
    for label, count in base.counts.items():
        print(f"{'label':14} {short(label)}: {count}")


@kb.command("drop")
def kb_drop(
    path: options.AtlasPath,
    name: BaseName,
    version: Annotated[int | None, typer.Option("--version", help="Version to drop; all unless said.")] = None,
):
    """Drop a knowledge base, or one version of it.

    From an atlas folder.
    """
    count = galsearch.drop_base(path, name, version=version)
    tell(f"dropped {count} version{'s' * (count != 1)} of base {name}")


@kb.command("train")
def kb_train(
    path: options.AtlasPath,
    name: BaseName,
    version: Version = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the parts left out while it is fitted.")] = 0,
):
    """Train a probe on the members of a base.

    It comes into use if it is right more often than what did before.
    """
    with progress_bar() as progress:
        probe = galsearch.train_probe(path, name, version=version, seed=seed, progress=progress)
    tell(
        f"probe {probe.probe} of {name}, version {probe.version}, trained on {probe.trained} members; of "
        f"{probe.tested} others {probe.accuracy:.3f} [{probe.accuracy_low:.3f}, {probe.accuracy_high:.3f}] are right",
        f"against {probe.against}: {probe.gain:+.3f} [{probe.gain_low:+.3f}, {probe.gain_high:+.3f}]",
    )
    print_rows(_confusion(probe), "table")
    if probe.promoted is None:
        tell("it is not in use, since it is not surely better; `galsearch kb promote` brings it into use all the same")
    else:
        tell(f"it is in use: `galsearch classify {path} {name} ID --method probe`")


@kb.command("probes")
def kb_probes(path: options.AtlasPath, name: BaseName, output_format: options.Format = "table"):
    """List the probes of a base.

    How often each is right, what it gained, which one is in use.
    """
    check_format(output_format)
    with galsearch.open(path) as atlas:
        probes = atlas.probes(name)
    last = max((probe.promoted or 0 for probe in probes), default=0)
    rows = [
        {**{key: getattr(probe, key) for key in SHOWN}, "in_use": bool(last) and probe.promoted == last}
        for probe in probes
    ]
    print_rows(_of_dicts(rows, (*SHOWN, "in_use")), output_format)
    if not probes:
        tell(f"base {name} has no probe; train one with `galsearch kb train`")


@kb.command("promote")
def kb_promote(
    path: options.AtlasPath,
    name: BaseName,
    probe: Annotated[int | None, typer.Option("--probe", help="Number of the probe; votes again unless said.")] = None,
):
    """Bring a probe of a base into use.

    Such as an earlier one, or votes again.
    """
    galsearch.promote_probe(path, name, probe)
    tell(f"in use for {name}: {'votes' if probe is None else f'probe {probe}'}")


def _confusion(probe: galsearch.TrainedProbe) -> pa.Table:
    """Return the confusion matrix as a table: a row for each true class."""
    rows = [
        {"true": short(truth), **{f"given {short(name)}": n for name, n in zip(probe.classes, line, strict=True)}}
        for truth, line in zip(probe.classes, probe.confusion, strict=True)
    ]
    return _of_dicts(rows, tuple(rows[0]))


def _of_dicts(rows: list[dict], names: tuple[str, ...]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: [row[name] for row in rows] for name in names})


@kb.command("audit")
def kb_audit(
    path: options.AtlasPath,
    name: BaseName,
    version: Version = None,
    by: By = None,
    k: Annotated[int, typer.Option("-k", help="How many nearest others vote.")] = 10,
    weight: Weight = "exp",
    tau: Tau = 1.0,
    exact: options.Exact = False,
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
):
    """List members whose label may be wrong.

    None of their nearest others has it (numbers: 3 sigma off); likeliest mistakes first.
    """
    check_format(output_format)
    with galsearch.open(path) as atlas:
        with progress_bar() as progress:
            options_ = {"version": version, "by": by, "k": k, "weight": weight, "tau": tau, "exact": exact}
            table = atlas.audit(name, progress=progress, **options_)
        _put_out(atlas, table, f"audit of {name}", output_format, output, quote_formulas=quote_formulas)
    if "sigmas" in table.column_names:
        tell(f"{table.num_rows} members differ by more than three sigma from the vote of their {k} nearest others")
    else:
        tell(f"{table.num_rows} members disagree with all of their {k} nearest others")


@kb.command("evaluate")
def kb_evaluate(
    path: options.AtlasPath,
    name: BaseName,
    version: Version = None,
    by: By = None,
    target: Annotated[str | None, typer.Option("--target", help="Class to find; the base's own unless said.")] = None,
    shares: Annotated[
        str, typer.Option("--shares", help="Of the target among those who vote.")
    ] = "0.01,0.05,0.1,0.2,0.3,0.5",
    ks: Annotated[str, typer.Option("--ks", help="Numbers of neighbors.")] = "1,3,5,10,20,50",
    weights: Annotated[
        str, typer.Option("--weights", help="How votes are weighted.")
    ] = "uniform,inverse,exp,gaussian,rank",
    tau: Tau = 1.0,
    prevalence: Annotated[
        float, typer.Option("--prevalence", help="Of the target where the base is to be used.")
    ] = 0.01,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the halves, the draws and the intervals.")] = 0,
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
):
    """Judge how well votes find a target.

    On held-out members, by share, number of neighbors and weight.
    """
    check_format(output_format)
    with galsearch.open(path) as atlas:
        with progress_bar() as progress:
            table = galsearch.evaluate_base(
                atlas,
                name,
                **{"version": version, "by": by, "target": target, "tau": tau, "prevalence": prevalence, "seed": seed},
                shares=_numbers(shares, "--shares"),
                ks=_whole_numbers(ks, "--ks"),
                weights=weights.split(","),
                progress=progress,
            )
        _put_out(atlas, table, f"evaluation of {name}", output_format, output, quote_formulas=quote_formulas)


@kb.command("report")
def kb_report(
    path: options.AtlasPath,
    name: BaseName,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="YAML of labels, called as the classes: judges words alone beside them."),
    ] = None,
    version: Version = None,
    k: Annotated[int, typer.Option("-k", help="Neighbors that vote.")] = 3,
    weight: Weight = "exp",
    tau: Tau = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the probe's parts and of the intervals.")] = 0,
    output_format: options.Format = "table",
    device: options.Device = "auto",
):
    """Judge votes, a probe and words side by side.

    On the members that never train: figures, classes, confusion matrices.
    """
    check_format(output_format)
    with galsearch.open(path, device=device) as atlas, progress_bar() as progress:
        report = galsearch.classification_report(
            atlas, name, labels=labels, version=version, k=k, weight=weight, tau=tau, seed=seed, progress=progress
        )
    if output_format == "json":
        print_data(report.to_json())
        return
    print_rows(report.table(), output_format)
    if output_format != "table":
        return
    tell("")
    print_rows(report.by_class(), output_format)
    for one in report.systems:
        tell("", f"confusion of {one.system}")
        print_rows(report.confusion(one.system), output_format)
    tell(f"{report.trained} members voted and trained; the others judged, and no classifier has seen them")


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r:.80} is not numbers separated by commas", param_hint=option) from None


def _whole_numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r:.80} is not whole numbers separated by commas", param_hint=option) from None


@app.command()
def classify(
    path: options.AtlasPath,
    base: Annotated[str, typer.Argument(help="A knowledge base, or a column of known labels.", metavar="BASE")],
    what: Annotated[list[str] | None, typer.Argument(help="Objects of the atlas.", metavar="[ID]...")] = None,
    image: Annotated[list[Path] | None, typer.Option("--image", help="Picture to classify; may be repeated.")] = None,
    spectrum: Annotated[
        list[Path] | None, typer.Option("--spectrum", help="Spectrum to classify; may be repeated.")
    ] = None,
    z: options.Redshift = None,
    where: Annotated[str | None, typer.Option("--where", help="SQL condition on the objects to classify.")] = None,
    version: Version = None,
    by: By = None,
    k: Annotated[int, typer.Option("-k", help="How many nearest members vote.")] = 3,
    weight: Weight = "exp",
    tau: Tau = 1.0,
    prevalence: Annotated[
        list[str] | None,
        typer.Option("--prevalence", help="Of the target where it is asked, or LABEL=SHARE; may be repeated."),
    ] = None,
    least: Annotated[float, typer.Option("--least", help="Probability under which no label is given.")] = 0.5,
    max_distance: Annotated[
        float | None,
        typer.Option("--max-distance", help="Of the nearest voter; 99 % of the members are closer unless said."),
    ] = None,
    exact: options.Exact = False,
    method: Annotated[
        str, typer.Option("--method", help="votes, or probe: that of `kb train` that is in use.")
    ] = "votes",
    columns: Columns = None,
    voters: Annotated[bool, typer.Option("--voters", help="Print who voted: a row for each vote.")] = False,
    output_format: options.Format = "table",
    output: options.Output = None,
    quote_formulas: options.QuoteFormulas = False,
    device: options.Device = "auto",
):
    """Classify by votes of the nearest known objects.

    A label with its probability and voters, or none.
    """
    check_format(output_format)
    if Path(base).suffix in (".yaml", ".yml"):
        raise typer.BadParameter(
            "a file of labels is for `galsearch label`; name a base or a column", param_hint="BASE"
        )
    with galsearch.open(path, device=device) as atlas:
        spectra = _spectra(spectrum or [], z)
        objects = [*(what or []), *(image or []), *spectra, *([] if where is None else _passing(atlas, where))]
        if not objects and where is None:
            raise typer.BadParameter("name objects, or give --image, --spectrum or --where", param_hint="ID")
        with progress_bar() as progress:
            result = atlas.classify(
                objects,
                base,
                **{"version": version, "by": by, "k": k, "weight": weight, "tau": tau, "least": least, "exact": exact},
                method=method,
                prevalence=_prevalence(prevalence),
                max_distance=max_distance,
                columns=columns,
                progress=progress,
            )
        table = result.voters() if voters else result.to_arrow()
        if not voters and output is None and output_format == "table":
            table = table.drop_columns(["object_id", "neighbors"])  # `of` says it, and --voters has a row for each
        _put_out(atlas, table, f"votes of {base}", output_format, output, quote_formulas=quote_formulas)
    _tell_result(result)


def _spectra(paths: list[Path], z: float | None) -> list[galsearch.Spectrum]:
    """Return the spectra of files, at a redshift where one is given; a file of something else is refused as such."""
    if z is not None and not paths:
        raise typer.BadParameter("it is the redshift of a spectrum: give --spectrum", param_hint="--z")
    names = [path.name for path in paths]
    read = [galsearch.read_spectrum(path, **({} if z is None else {"z": z})) for path in paths]
    called = [path.name if names.count(path.name) == 1 else str(path) for path in paths]
    return [replace(one, name=name) for one, name in zip(read, called, strict=True)]


def _passing(atlas: galsearch.Atlas, where: str) -> list[str]:
    """Return the ids of the objects that pass a condition."""
    count = atlas.count(where)
    return atlas.search(where=where, k=count).ids if count else []


def _prevalence(stated: list[str] | None) -> float | dict[str, float] | None:
    """Return what --prevalence says: one number, or one a label."""
    if not stated:
        return None
    try:
        if len(stated) == 1 and "=" not in stated[0]:
            return float(stated[0])
        pairs = [part.rpartition("=") for part in stated]
        return {label: float(share) for label, _, share in pairs}
    except ValueError:
        raise typer.BadParameter("expected a number, or LABEL=NUMBER", param_hint="--prevalence") from None


def _put_out(
    atlas: galsearch.Atlas,
    table: pa.Table,
    title: str,
    output_format: str,
    output: Path | None,
    *,
    quote_formulas: bool,
) -> None:
    """Put out a table whose texts may be long: on a screen they are cut."""
    table = _shortened(table) if output is None and output_format == "table" else table
    put_out(table, output_format, output, meta=meta_of(atlas, title), quote_formulas=quote_formulas)


def _shortened(table: pa.Table) -> pa.Table:
    """Return a table for a screen: its texts are cut."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and field.name not in ("of", "object_id"):
            texts = [None if text is None else short(text) for text in table[field.name].to_pylist()]
            table = table.set_column(index, field, pa.array(texts, pa.string()))
    return table


def _tell_result(result: galsearch.Classification) -> None:
    """Say how many were given each label, and why others were not."""
    table = result.to_arrow()
    reasons = Counter(table["reason"].drop_null().to_pylist())
    answers = Counter(table["label"].drop_null().to_pylist()) if "label" in table.column_names else {}
    parts = [f"{short(label)}: {count}" for label, count in sorted(answers.items())]
    parts += [f"none ({why}): {count}" for why, count in sorted(reasons.items())]
    if parts:
        tell(", ".join(parts))
    if not result.calibrated:
        tell("too few members to learn how votes become probabilities: they are shares of the votes")
