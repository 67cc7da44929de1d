"""What a machine needs to run the app as it runs here: galsearch as a wheel, and the version of everything under it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from galsearch.errors import GalsearchError
from galsearch.schema import SOFTWARE

EXTRAS = ("cpu", "app")
LINUX = {
    "os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64",
}  # fmt: skip
SAME_AS = {"onnxruntime": "onnxruntime-gpu"}  # the same version for another processor
BESIDE = {"_models": "onnx_models", "_app": "streamlit_app"}  # in the package -> beside it in a checkout
FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # that a zip file can name; the same files give the same wheel
LEFT_OUT = ("__pycache__", "node_modules", "web")  # the last two: the source of the page of static sites
NOT_PASSED_ON = ("RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json")
TAG = "py3-none-any"


def write_wheel(folder: Path) -> Path:
    """Write the installed galsearch, models and app included, as a wheel into `folder`; return its path.

    The compiled library travels along as a file: where it does not load, numpy does its work.
    """
    version = metadata.version(SOFTWARE)
    info = f"{SOFTWARE}-{version}.dist-info"
    path = folder / f"{SOFTWARE}-{version}-{TAG}.whl"
    record = []
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in [*_package_files(), *_about_files(info)]:
            _put(wheel, name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}\n")
        _put(wheel, f"{info}/RECORD", "".join([*record, f"{info}/RECORD,,\n"]).encode())
    return path


def _put(wheel: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, FIRST_DAY)
    entry.external_attr = 0o644 << 16
    wheel.writestr(entry, content, zipfile.ZIP_DEFLATED)


def _package_files() -> Iterator[tuple[str, bytes]]:
    """Yield (name in the wheel, content) of the package and of what belongs into it."""
    home = Path(__file__).resolve().parents[1]
    for name, path in sorted({**_below(home, SOFTWARE), **_beside(home)}.items()):
        yield name, path.read_bytes()


def _beside(home: Path) -> dict[str, Path]:
    """Return what a checkout has beside the package and an installation has in it."""
    result: dict[str, Path] = {}
    for inside, beside in BESIDE.items():
        index = home / inside if (home / inside).is_dir() else home.parent / beside
        if not index.is_dir():
            raise GalsearchError(f"{index}: no such folder, so galsearch is not complete; install it again")
        result |= _below(index, f"{SOFTWARE}/{inside}")
    return result


def _below(folder: Path, name: str) -> dict[str, Path]:
    result = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        f"{name}/{inside.as_posix()}": path
        for inside, path in result.items()
        if not set(inside.parts) & set(LEFT_OUT) and path.suffix not in (".pyc", ".partial")
    }


def _about_files(info: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name in the wheel, content) of what is said of the package: metadata, commands, licenses."""
    for file in metadata.files(SOFTWARE) or []:
        if file.parts[0].endswith(".dist-info") and file.name not in NOT_PASSED_ON:
            yield "/".join([info, *file.parts[1:]]), Path(file.locate()).read_bytes()
    yield f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: {SOFTWARE}\nRoot-Is-Purelib: true\nTag: {TAG}\n".encode()


def pins(more: Iterable[str] = ()) -> list[str]:
    """Return a requirement line for everything that galsearch[cpu,app] and `more` need on Linux, by name.

    Each is the version that is installed here. What Linux needs and this system does not is a range, as its user
    asks for it. Raises GalsearchError naming what should be installed here and is not.
    """
    result: dict[str, str] = {}
    requested = [(Requirement(line), True) for line in (f"{SOFTWARE}[{','.join(EXTRAS)}]", *more)]
    seen: set[tuple[str, str]] = set()
    while requested:
        wanted, here = requested.pop()
        name = canonicalize_name(wanted.name)
        result.setdefault(name, _line(wanted, name, here=here))
        for extra in ("", *wanted.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                requested += _needs(name, extra)
    del result[SOFTWARE]
    return sorted(result.values())


def _line(wanted: Requirement, name: str, *, here: bool) -> str:
    """Return the requirement with the version in use; `here` says whether this system needs it too."""
    version = _installed(name)
    if version:
        return f"{name}=={Version(version).public}"
    if here:
        raise GalsearchError(
            f"{name} is not installed here, so there is no version for the Space to use; "
            f"pip install '{SOFTWARE}[{','.join(EXTRAS)}]', then run this again"
        )
    return f"{name}{wanted.specifier}"


def _installed(name: str) -> str | None:
    for known in filter(None, (name, SAME_AS.get(name))):
        try:
            return metadata.version(known)
        except metadata.PackageNotFoundError:
            continue
    return None


def _needs(name: str, extra: str) -> Iterator[tuple[Requirement, bool]]:
    """Yield what a package needs on Linux for one of its extras ("" is none), and whether this system needs it too."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for wanted in map(Requirement, lines):
        if wanted.marker is None and not extra:
            yield wanted, True
        elif wanted.marker is not None and wanted.marker.evaluate({**LINUX, "extra": extra}):
            yield wanted, wanted.marker.evaluate({"extra": extra})
