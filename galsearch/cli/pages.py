"""Commands that open the app, or write a Space or a static site."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

import galsearch
from galsearch.cli import options
from galsearch.cli.output import again, progress_bar, tell
from galsearch.cli.program import app

PUBLIC_APP = (  # Streamlit's options for a server that anyone may reach
    "--server.headless", "true",
    "--server.fileWatcherType", "none",
    "--server.maxUploadSize", "20",
    "--server.enableXsrfProtection", "false",  # a Space is shown in a frame, where uploads lose its cookie; no login
    "--client.showErrorDetails", "none",
)  # fmt: skip
SPACE_BYTES = 1_000_000_000  # of a repository of a Space on the Hub


@app.command()
def space(
    path: options.AtlasPath,
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not hold anything yet.", metavar="OUT")],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Fetch the bundle from this data set (USER/NAME) when the Space starts."),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="What to call the Space; the atlas's title.")] = None,
):
    """Write a folder that is a Hugging Face Space.

    A Docker Space, with the app on an atlas. Nothing is sent anywhere.
    """
    with progress_bar() as progress:
        galsearch.write_space(path, out, dataset=dataset, title=title, progress=progress)
    size = sum(file.stat().st_size for file in out.iterdir())
    tell(f"wrote {out} ({size / 1e6:.1f} MB); look into its README.md, then:")
    if dataset:
        tell(f"  {shlex.join(['hf', 'upload', dataset, str(path), '--repo-type', 'dataset'])}")
    elif size > SPACE_BYTES:
        tell(f"a Space holds {SPACE_BYTES / 1e9:.0f} GB at most: put the bundle into a data set, and use --dataset")
    tell(f"  {shlex.join(['hf', 'upload', 'USER/NAME', str(out), '.', '--repo-type', 'space'])}")


@app.command()
def site(
    path: Annotated[
        Path,
        typer.Argument(
            help="Atlas: a folder 'name.atlas' or a bundle 'name.duckdb'; to --serve alone, a site.", metavar="ATLAS"
        ),
    ],
    out: Annotated[
        Path | None, typer.Argument(help="The folder to write: a new one, an empty one, or a site.", metavar="OUT")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="What to call the site; the atlas's title.")] = None,
    encoders: Annotated[
        bool,
        typer.Option("--encoders/--no-encoders", help="Take the models along, so that visitors can ask in any words."),
    ] = True,
    bundle_url: Annotated[
        str | None, typer.Option("--bundle-url", help="Where the atlas itself can be fetched; the page links to it.")
    ] = None,
    max_file_mb: Annotated[
        float, typer.Option("--max-file-mb", help="Split what is longer than so many MB; hosts take 25 or 100.")
    ] = 24.0,
    cells_from: Annotated[
        int, typer.Option("--cells-from", help="From how many vectors on a visitor fetches a part of them.")
    ] = 20_000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the cells.")] = 0,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the site to the browsers of this machine, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option("--port", help="Port for --serve; 0 takes any that is free.")] = 8000,
):
    """Write a static site that visitors search.

    Any web server shows the folder; the visitor's browser searches. Nothing is sent anywhere.

    `galsearch site OUT --serve` shows a site that is there already.
    """
    if out is None and not serve:
        raise typer.BadParameter("name the folder to write, or --serve a site that is there", param_hint="OUT")
    if out is not None:
        with progress_bar() as progress:
            galsearch.write_site(
                path,
                out,
                title=title,
                encoders=encoders,
                bundle_url=bundle_url,
                max_file_mb=max_file_mb,
                cells_from=cells_from,
                seed=seed,
                progress=progress,
            )
        _tell_site(out)
    if serve:
        galsearch.serve_site(out or path, port=port, ready=lambda address: tell(f"{address} (Ctrl-C ends it)"))


def _tell_site(out: Path) -> None:
    sizes = [file.stat().st_size for file in out.rglob("*") if file.is_file()]
    tell(f"wrote {out} ({len(sizes)} files, {sum(sizes) / 1e6:.1f} MB, the largest {max(sizes) / 1e6:.1f} MB)")
    manifest = json.loads((out / "site.json").read_bytes())
    for model, reason in manifest["encoders_left_out"].items():
        tell(f"without the {model} model: {reason}")
    if dropped := manifest.get("cards_without_picture"):
        tell(f"{dropped} pictures are left out: they are longer than 128 kB, or no WebP, JPEG or PNG")
    tell(f"  {again('site', out, '--serve')}")


@app.command("app")
def open_app(
    path: options.AtlasPath,
    port: Annotated[int, typer.Option("--port", help="Port on this machine.")] = 8501,
    public: Annotated[
        bool, typer.Option("--public", help="For strangers: on every network address, read-only, with limits.")
    ] = False,
):
    """Open an atlas in the app, in the browser.

    It runs on this machine, with Streamlit.
    """
    import subprocess
    from importlib.util import find_spec

    with galsearch.open(path):
        pass  # a damaged atlas is told here, not in the browser
    if find_spec("streamlit") is None:
        raise galsearch.GalsearchError("the app needs Streamlit: pip install 'galsearch[app]'")
    here = Path(__file__).resolve().parents[1]
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
