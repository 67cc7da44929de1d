"""Commands that make an atlas or tell what is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import galsearch
from galsearch.cli import options
from galsearch.cli.options import check_format, numbers
from galsearch.cli.output import again, cell, print_data, print_rows, print_table, progress_bar, tell, text_of
from galsearch.cli.program import app

TOLD_REJECTIONS = 10  # of a build or an addition


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the demo atlas.")] = Path("demo"),
    models: options.Models = None,
    device: options.Device = "auto",
):
    """Build and search a first atlas, with nothing to download.

    Its galaxies are those of the Hubble eXtreme Deep Field.
    """
    with progress_bar() as progress:
        report, bundle = galsearch.demo(folder, models=models, device=device, progress=progress)
    _tell_report(report)
    with galsearch.open(bundle, device=device) as atlas:
        words = atlas.search("edge-on galaxy", where="NOT is_star AND NOT is_artifact", k=12)
        likeness = atlas.search(words[0], where="NOT is_star AND NOT is_artifact", k=12)
        answers = {"in words: edge-on galaxy": words, f"by example: more like {words[0].object_id}": likeness}
        for title, hits in answers.items():
            tell("", title)
            print_table(hits.table)
        sheet = galsearch.contact_sheet(answers, folder / "contact_sheet.png")
    tell(
        "",
        f"pictures of both: {sheet}",
        f"next: {again('search', bundle, 'face-on spiral galaxy')}",
        f"      {again('app', bundle)}   (needs galsearch[app]; in a checkout: make app)",
    )


@app.command()
def build(
    path: Annotated[Path, typer.Argument(help="The atlas to make, by custom name.atlas.", metavar="ATLAS")],
    images: options.Images = None,
    mosaic: options.Mosaic = None,
    table: options.Table = None,
    vectors: options.Vectors = None,
    model: options.ModelName = None,
    models: options.Models = None,
    id_column: options.IdColumn = None,
    ext: options.Ext = None,
    bands: options.Bands = None,
    id_from: options.IdFrom = "name",
    measure: options.Measure = None,
    columns: options.Columns = None,
    ra: options.RaColumn = None,
    dec: options.DecColumn = None,
    x: options.XColumn = None,
    y: options.YColumn = None,
    table_name: options.TableName = None,
    missing: options.Missing = None,
    projector: options.Projector = None,
    title: Annotated[str | None, typer.Option("--title", help="What to call it.")] = None,
    credits: Annotated[
        Path | None,
        typer.Option("--credits", help="JSON list of {title, license, acknowledgement, bibtex} of the data."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an atlas that is there.")] = False,
    device: options.Device = "auto",
    processes: options.Processes = None,
    on: options.On = None,
    address: options.Address = None,
    spectra: options.Spectra = None,
    observed_frame: options.ObservedFrame = False,
    wavelength: options.Wavelength = None,
    flux: options.Flux = None,
    error: options.ErrorColumn = None,
    ivar: options.Ivar = None,
    wavelength_unit: options.WavelengthUnit = None,
    flux_unit: options.FluxUnit = None,
    medium: options.Medium = None,
    redshifts: options.Redshifts = None,
):
    """Build an atlas from pictures, spectra or vectors.

    The pictures are cutouts, or cut from a mosaic; vectors are a table of embeddings. A stopped build goes on when it
    is run again.
    """
    _one_source(images, mosaic)
    with progress_bar() as progress:
        report = galsearch.build(
            path,
            images=images,
            mosaic=mosaic,
            table=table,
            vectors=vectors,
            model=model,
            models=models,
            id_column=id_column,
            ext=ext,
            bands=_band_list(bands),
            id_from=id_from,
            measure=measure or "full",
            columns=_roles(columns, ra=ra, dec=dec, x_px=x, y_px=y),
            table_name=table_name,
            missing=numbers(missing),
            projector=projector,
            title=title,
            credits=_credits(credits),
            overwrite=overwrite,
            device=device,
            processes=processes,
            on=on,
            address=address,
            spectra=spectra,
            observed_frame=observed_frame,
            wavelength=wavelength,
            flux=flux,
            error=error,
            ivar=ivar,
            wavelength_unit=wavelength_unit,
            flux_unit=flux_unit,
            medium=medium,
            redshifts=redshifts,
            progress=progress,
        )
    _tell_report(report)
    if measure in ("none", "basic"):
        tell(f"next: {again('measure', path)}   (what was not measured yet)")
    tell(f"next: {again('bundle', path, path.with_suffix('.duckdb'))}")


@app.command()
def add(
    path: options.AtlasPath,
    images: options.Images = None,
    mosaic: options.Mosaic = None,
    table: options.Table = None,
    vectors: options.Vectors = None,
    model: options.ModelName = None,
    models: options.Models = None,
    id_column: options.IdColumn = None,
    ext: options.Ext = None,
    bands: options.Bands = None,
    id_from: options.IdFrom = "name",
    measure: options.Measure = None,
    columns: options.Columns = None,
    ra: options.RaColumn = None,
    dec: options.DecColumn = None,
    x: options.XColumn = None,
    y: options.YColumn = None,
    table_name: options.TableName = None,
    missing: options.Missing = None,
    projector: options.Projector = None,
    device: options.Device = "auto",
    processes: options.Processes = None,
    spectra: options.Spectra = None,
    observed_frame: options.ObservedFrame = False,
    wavelength: options.Wavelength = None,
    flux: options.Flux = None,
    error: options.ErrorColumn = None,
    ivar: options.Ivar = None,
    wavelength_unit: options.WavelengthUnit = None,
    flux_unit: options.FluxUnit = None,
    medium: options.Medium = None,
    redshifts: options.Redshifts = None,
):
    """Append galaxies, or spectra, to an atlas folder.

    What is there stays as it is.
    """
    _one_source(images, mosaic)
    with progress_bar() as progress:
        report = galsearch.add(
            path,
            images=images,
            mosaic=mosaic,
            table=table,
            vectors=vectors,
            model=model,
            models=models,
            id_column=id_column,
            ext=ext,
            bands=_band_list(bands),
            id_from=id_from,
            measure=measure,
            columns=_roles(columns, ra=ra, dec=dec, x_px=x, y_px=y),
            table_name=table_name,
            missing=numbers(missing),
            projector=projector,
            device=device,
            processes=processes,
            spectra=spectra,
            observed_frame=observed_frame or None,
            wavelength=wavelength,
            flux=flux,
            error=error,
            ivar=ivar,
            wavelength_unit=wavelength_unit,
            flux_unit=flux_unit,
            medium=medium,
            redshifts=redshifts,
            progress=progress,
        )
    _tell_report(report)


@app.command()
def measure(
    path: options.AtlasPath,
    images: options.Images = None,
    mosaic: options.Mosaic = None,
    table: options.Table = None,
    level: options.Measure = None,
    processes: options.Processes = None,
):
    """Measure galaxies that were taken in unmeasured.

    They were built with --measure basic or none; their pictures are read again.
    """
    _one_source(images, mosaic)
    with progress_bar() as progress:
        report = galsearch.measure(
            path,
            images=images,
            mosaic=mosaic,
            table=table,
            measure=level or "full",
            processes=processes,
            progress=progress,
        )
    tell(f"{path}: {report.added} of {report.rows} galaxies measured, in {report.seconds:.1f} s")
    _tell_rejected(report)


@app.command()
def optimize(path: options.AtlasPath):
    """Put added galaxies into the index.

    Deleted ones are removed for good; small atlases need no index.
    """
    report = galsearch.optimize(path)
    tell(f"{path}: {report.added} of {report.rows} galaxies put into the index, in {report.seconds:.1f} s")
    if report.removed:
        tell(f"{report.removed} deleted galaxies were removed for good")


@app.command()
def delete(
    path: options.AtlasPath,
    where: options.Where = None,
    ids: Annotated[
        Path | None, typer.Option("--ids", help="Delete the objects of a table with object_id, or a .txt of ids.")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Bring back what was deleted last, until it is removed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be deleted, and delete nothing.")
    ] = False,
):
    """Delete galaxies of an atlas folder.

    All that is kept of them goes with them; --undo brings them back, until optimize.
    """
    if undo:
        if where is not None or ids is not None or dry_run:
            raise typer.BadParameter("it takes back a whole deletion: leave the other options out", param_hint="--undo")
        tell(f"{path}: {galsearch.undelete(path)} galaxies came back")
        return
    names = galsearch.delete(path, where=where, ids=ids, dry_run=dry_run)
    if dry_run:
        print_data("".join(f"{text_of(name)}\n" for name in names))
        tell(f"{path}: {len(names)} galaxies would be deleted")
        return
    tell(f"{path}: {len(names)} galaxies deleted")
    if names:
        tell(f"to bring them back: {again('delete', path, '--undo')}", f"for good: {again('optimize', path)}")


@app.command()
def bundle(
    path: options.AtlasPath,
    out: Annotated[Path, typer.Argument(help="The file to write, by custom name.duckdb.", metavar="FILE")],
    no_models: Annotated[bool, typer.Option("--no-models", help="Leave the encoders out: a smaller file.")] = False,
    compact: Annotated[
        bool, typer.Option("--compact", help="Store the vectors as 8-bit codes: a quarter of their size.")
    ] = False,
    layout: Annotated[
        str | None, typer.Option("--map", help="Lay the vectors out in a plane: pca, or umap (galsearch[umap]).")
    ] = None,
    block_bytes: Annotated[
        int, typer.Option("--block-bytes", help="Of a block of the file: 16384 for a bundle to be read over a network.")
    ] = 262_144,
):
    """Write an atlas as one file, to send around.

    Any DuckDB can read and search it.
    """
    with progress_bar() as progress:
        options = {"compact": compact, "map": layout, "block_bytes": block_bytes}
        galsearch.bundle(path, out, models=not no_models, progress=progress, **options)
    with galsearch.open(out, device="cpu") as atlas:
        phrases = atlas.sql("SELECT phrase FROM concepts LIMIT 2")["phrase"].to_pylist()
    first = phrases[1:] or ["--where", "true"]  # the first of all is "galaxy"
    tell(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)", f"next: {again('search', out, *first)}")


@app.command()
def export(
    path: options.AtlasPath,
    hats: Annotated[
        Path, typer.Option("--hats", help="The folder to write, a HATS catalog for LSDB.", metavar="FOLDER")
    ],
    where: options.Where = None,
    name: Annotated[str | None, typer.Option("--name", help="What the catalog is called; the folder's name.")] = None,
    partition_rows: Annotated[
        int, typer.Option("--partition-rows", help="Rows of a partition at most, down to order 12.")
    ] = 200_000,
):
    """Write the galaxies as a HATS catalog.

    LSDB opens it; tables have -o of `search` and `sql`.
    """
    with galsearch.open(path, device="cpu") as atlas:
        rows = atlas.save_hats(hats, where=where, name=name, partition_rows=partition_rows)
        left_out = len(atlas) - rows
        alone = f"; {left_out} do not pass or have no position" if left_out else ""
        tell(f"wrote {hats} ({rows} galaxies{alone})")


@app.command()
def info(path: options.AtlasPath, output_format: options.Format = "table"):
    """Tell what an atlas holds.

    Title, rows, models, sources, columns with units.
    """
    with galsearch.open(path) as atlas:
        manifest = atlas.manifest
        if output_format == "json":
            print(json.dumps({**dict(vars(manifest)), "columns": atlas.columns().to_pylist()}, indent=1))
            return
        check_format(output_format)
        tell(
            f"{manifest.title}: {manifest.rows} galaxies ({atlas.kind} {atlas.path}), "
            f"created {manifest.created} by {manifest.software}"
        )
        for name, space in manifest.embeddings.items():
            numbers = "8-bit codes" if space.get("codes") else "numbers"
            stated = [f"the {space['frame']} frame"] if space.get("frame") else []
            stated += [f"words by {space['words_model']}"] if space.get("words_model") else []
            also = "".join(f", {one}" for one in stated)
            tell(f"{name} vectors: {space['rows']} of {space['dim']} {numbers} by {space['model']}{also}")
            familiar = atlas.familiarity(by=name)
            if familiar is not None:
                tell(f"{name} vectors {familiar}", *familiar.hints)
        adapted = max(atlas.adaptations(), key=lambda one: one.promoted or 0, default=None)
        if adapted is not None and adapted.promoted is not None:
            tell(f"words are fitted to these objects by {adapted}")
        tell(f"vectors are compared by: {atlas.compares_with}")
        for source in manifest.sources:
            tell(f"source: {source.get('title')}; {source.get('license')}; {source.get('acknowledgement')}")
        print_rows(atlas.columns(), output_format)


@app.command()
def show(
    path: options.AtlasPath,
    object_id: Annotated[str, typer.Argument(help="Which object.")],
    output_format: options.Format = "table",
    survey: Annotated[
        str | None,
        typer.Option("--survey", help="Request its picture of hips, legacy, sdss or panstarrs; the position is sent."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write that picture to FILE.")] = None,
    size_arcsec: Annotated[float, typer.Option("--size-arcsec", help="Side of that picture.")] = 40.0,
    service_url: Annotated[str | None, typer.Option("--service-url", help="Another address of that service.")] = None,
):
    """Show every column of one object, with units."""
    if (survey is None) != (output is None):
        raise typer.BadParameter("give both: which survey, and the file to write", param_hint="--survey, -o")
    with galsearch.open(path) as atlas:
        atlas[object_id]  # says so when there is none
        if survey is not None and output is not None:
            address = {} if service_url is None else {"base_url": service_url}
            picture = atlas.survey_picture(object_id, survey=survey, size_arcsec=size_arcsec, **address)
            tell(f"wrote {picture.save(output)}, from {picture.host}")
            return
        table = atlas.rows([object_id])
        if output_format != "table":
            print_rows(table, output_format)
            return
        for field in table.schema:
            unit = (field.metadata or {}).get(b"unit", b"").decode()
            print(f"{text_of(field.name):20} {cell(table[field.name][0].as_py())} {text_of(unit)}".rstrip())


@app.command()
def check(path: options.AtlasPath, device: options.Device = "auto"):
    """Verify an atlas.

    It is read in a process of its own: blocks, counts, norms, models, recall. Exit 1 if a part fails.
    """
    findings = galsearch.check(path, device=device)
    for finding in findings:
        remedy = "" if finding.ok else f"; {finding.remedy}"
        print(text_of(f"{'ok  ' if finding.ok else 'BAD '} {finding.name}: {finding.message}{remedy}"))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def cite(
    path: options.AtlasPath,
    bibtex: Annotated[bool, typer.Option("--bibtex", help="As BibTeX entries instead of sentences.")] = False,
):
    """Print what to cite and to acknowledge.

    For the data, the models and the program.
    """
    with galsearch.open(path) as atlas:
        print_data(atlas.bibtex() if bibtex else atlas.acknowledgements())


def _one_source(images: Path | None, mosaic: Path | None) -> None:
    if images and mosaic:
        raise typer.BadParameter("give --images or --mosaic, not both")


def _band_list(bands: str | None) -> list[str] | None:
    return None if bands is None else [name.strip() for name in bands.split(",") if name.strip()]


def _credits(path: Path | None) -> list[dict] | None:
    if path is None:
        return None
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise galsearch.SchemaError(f"{path}: cannot be read as JSON ({error}); give a list of objects") from None
    if not (isinstance(result, list) and all(isinstance(item, dict) for item in result)):
        raise galsearch.SchemaError(f"{path}: expected a JSON list of {{title, license, acknowledgement, bibtex}}")
    return result


def _roles(columns: list[str] | None, **named: str | None) -> dict[str, str]:
    """Return which column has which role, as --columns and the options for single roles say."""
    return galsearch.parse_roles(columns or []) | {role: column for role, column in named.items() if column}


def _tell_report(report: galsearch.Report) -> None:
    on = f" (encoder on {report.provider})" if report.provider else ""
    tell(f"{report.path}: {report.added} galaxies added, {report.rows} in all, in {report.seconds:.1f} s{on}")
    for line in report.lines():
        tell(f"  {line}")
    _tell_rejected(report)


def _tell_rejected(report: galsearch.Report) -> None:
    if report.rejected:
        tell(f"{len(report.rejected)} left out (all of them: table 'rejected' of the atlas):")
    for item in report.rarest_first()[:TOLD_REJECTIONS]:
        tell(f"  {item['file'] or item['object_id']}: {item['reason']}")
