"""What a Docker Space on the Hugging Face Hub has to look like: front matter, Dockerfile, large files, limits."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from string import Template

from galsearch import citations, schema
from galsearch.errors import GalsearchError
from galsearch.ingest import bundle
from galsearch.space.wheels import EXTRAS, pins, write_wheel
from galsearch.store import open_store

PORT = 8501
TEMPLATES = ("Dockerfile", "README.md", "gitattributes", "dockerignore")
HIDDEN = {"gitattributes": ".gitattributes", "dockerignore": ".dockerignore"}
START = "start.py"  # only where the bundle comes from a data set
DATASET = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
LICENSES = {  # how a license may be written -> what the Hub calls it
    "mit": "mit", "apache-2.0": "apache-2.0", "cc0": "cc0-1.0", "cc0-1.0": "cc0-1.0", "cc-by-4.0": "cc-by-4.0",
    "cc by 4.0": "cc-by-4.0", "cc-by-sa-4.0": "cc-by-sa-4.0", "cc by-sa 4.0": "cc-by-sa-4.0",
}  # fmt: skip
NO_FILE = re.compile(r"[^\w.-]+", re.ASCII)  # what the name of a bundle has no use for in a command line


def write_space(
    path: str | Path,
    out: str | Path,
    *,
    dataset: str | None = None,
    title: str | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Path:
    """Write a folder that is a Docker Space with the app on the atlas `path`; return it.

    `out` gets README.md, Dockerfile, requirements.txt with the versions in use here, galsearch as a wheel, and the
    bundle (of an atlas folder one is made). With `dataset`, "user/name" of a data set on the Hub that holds the bundle
    under its name, it is fetched from there when the Space starts, and not copied. Nothing is sent anywhere. Raises
    GalsearchError when `out` holds anything, or something that the app needs is not installed here.
    """
    path, out = Path(path), Path(out)
    _check_target(out)
    _check_dataset(dataset, path)
    lines = pins(["huggingface_hub"] if dataset else [])
    store = open_store(path)
    try:
        manifest, grows = store.manifest, store.grows
    finally:
        store.close()
    aside = out.with_name(out.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        name = path.name if dataset else f"{NO_FILE.sub('-', path.stem).lstrip('-.') or 'atlas'}.duckdb"
        if dataset is None and grows:
            bundle(path, aside / name, progress=progress)
        elif dataset is None:
            shutil.copyfile(path, aside / name)
        wheel = write_wheel(aside)
        requirements = [f"./{wheel.name}[{','.join(EXTRAS)}]", *lines]
        (aside / "requirements.txt").write_text("\n".join(requirements) + "\n")
        _fill(aside, _words(manifest, " ".join((title or manifest.title).split()), name, dataset))
        if out.exists():
            out.rmdir()  # is empty
        aside.rename(out)
    except OSError as error:
        raise GalsearchError(
            f"{out}: could not be written ({error.strerror or error}); name a place with free space that you may "
            "write to. Nothing that was there has changed"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def _check_target(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        what = "holds files already" if out.is_dir() else "is a file"
        raise GalsearchError(f"{out} {what}, and a Space is written into a folder of its own; choose another name")
    if not out.absolute().parent.is_dir():
        raise GalsearchError(f"{out.parent}: no such folder; make it first, or choose another place for the Space")


def _check_dataset(dataset: str | None, path: Path) -> None:
    if dataset is None:
        return
    if not DATASET.fullmatch(dataset):
        raise GalsearchError(f"--dataset is {dataset!r:.120}; expected the id of a data set on the Hub, user/name")
    if NO_FILE.search(path.name) or path.name.startswith(("-", ".")):
        raise GalsearchError(
            f"{path.name!r:.120} is a name that cannot stand in a Dockerfile; letters, digits, '.', '-' and '_' can: "
            "rename the file, here and in the data set"
        )
    if path.is_dir():
        raise GalsearchError(
            f"{path} is an atlas folder, and a data set holds bundles; make one with `galsearch bundle`, upload it, "
            "and name that file here"
        )


def _fill(folder: Path, words: dict[str, str]) -> None:
    """Write the templates, their blanks filled."""
    home = resources.files("galsearch.space") / "templates"
    for name in TEMPLATES:
        text = Template((home / name).read_text(encoding="utf-8")).substitute(words)
        (folder / HIDDEN.get(name, name)).write_text(text, encoding="utf-8")
    if words["dataset"]:
        (folder / START).write_text((home / START).read_text(encoding="utf-8"), encoding="utf-8")


def _words(manifest: schema.Manifest, title: str, name: str, dataset: str | None) -> dict[str, str]:
    """Return what stands in the blanks of the templates."""
    command = ["python", START, dataset, name] if dataset else ["galsearch", "app", name]
    return {
        "title": json.dumps(title, ensure_ascii=False),  # which is also YAML
        "heading": title,
        "rows": f"{manifest.rows:,}",
        "license": _license(manifest.sources),
        "datasets": f"datasets:\n- {dataset}\n" if dataset else "",
        "dataset": dataset or "",
        "where": f"the data set `{dataset}`, fetched when the Space starts" if dataset else "this repository",
        "name": name,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "port": str(PORT),
        "command": json.dumps([*command, "--public", "--port", str(PORT)]),
        "credits": citations.acknowledgements(manifest.sources).strip(),
        "bibtex": citations.bibtex(manifest.sources).strip(),
        "software": schema.software(),
    }


def _license(sources: list[dict]) -> str:
    """Return the license of the data as the Hub calls it; "other" where there are several, or none that it knows."""
    stated = {str(source.get("license") or "").strip().lower() for source in sources}
    known = LICENSES.get(stated.pop()) if len(stated) == 1 else None
    return known or "other"
