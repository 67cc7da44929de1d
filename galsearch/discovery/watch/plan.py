"""The plan of a watch: a TOML file, checked before anything is done; errors name the key, the rule and the remedy."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galsearch.errors import GalsearchError
from galsearch.remote.catalogs.ask import service_of
from galsearch.remote.cutouts import PER_SECOND, Service, check_address, service
from galsearch.remote.cutouts.wanted import check_size
from galsearch.science.regions import Region

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
KINDS = ("folder", "archive", "cutouts", "sky")
PICTURES_OF_PIXELS = ("pixels", "arcsec_per_pixel")
OWN_COLUMNS = frozenset({"object_id", "ra", "dec", "file", "watch_source", "watch_item", "watch_batch"})
MEASURES = ("full", "basic", "none")


@dataclass(frozen=True)
class SourcePlan:
    """Where pictures come from: a folder, an archive, cut-outs of a table's objects, or of random positions."""

    name: str
    kind: str
    path: Path | None = None
    table: Path | None = None
    where: str | None = None
    columns: tuple[str, ...] = ()
    id_column: str | None = None
    service: Service | None = None
    pixels: int = 128
    arcsec_per_pixel: float = 0.262
    region: Region | None = None
    count: int | None = None


@dataclass(frozen=True)
class Against:
    """What is known: a table, an atlas or a HATS catalog on disk, or a service, looked into within a radius.

    `label` is the column that says what an object is, of a catalog on disk; `base_url` that of a mirror of a service.
    """

    name: str
    radius_arcsec: float
    table: Path | None = None
    service: str | None = None
    base_url: str | None = None
    label: str | None = None
    ra: str | None = None
    dec: str | None = None

    @property
    def urls(self) -> dict[str, str]:
        """The mirror by the name of the service; none for none."""
        return {} if self.service is None or self.base_url is None else {self.service.partition(":")[0]: self.base_url}


@dataclass(frozen=True)
class Plan:
    """Everything that a watch does; see docs/watch.md for each key. Paths are absolute."""

    path: Path
    title: str
    workspace: Path
    atlas: Path
    sources: tuple[SourcePlan, ...]
    against: tuple[Against, ...] = ()
    models: Path | None = None
    seed: int = 0
    batch: int = 512
    cycle: int = 2000
    budget: int = 50
    fdr: float = 0.1
    detectors: tuple[str, ...] | None = None
    normals: str | None = None
    measure: str = "basic"
    attempts: int = 3
    threads: int = 8
    requests_per_second: float = PER_SECOND
    timeout_seconds: float = 60.0
    retries: int = 3
    hosts: Mapping[str, float] | None = None
    disk_gb: float = 50.0
    free_gb: float = 2.0
    same_arcsec: float = 1.0
    keep_pictures: bool = False
    most_per_run: int | None = None
    repeat_hours: float | None = None
    verdicts: Path | None = None
    least_share: float = 0.05
    webhook: str | None = None

    def source(self, name: str) -> SourcePlan | None:
        """Return a source by its name; None for one that the plan has no more."""
        return next((each for each in self.sources if each.name == name), None)


def read_plan(path: str | Path) -> Plan:
    """Read a plan. Raises GalsearchError for what is wrong in it, naming the key, the rule and the remedy."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GalsearchError(
            f"{path}: {error.strerror or error}; give the plan of a watch, see docs/watch.md"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GalsearchError(f"{path}: no TOML: {error}; see docs/watch.md for an example") from None
    return _Reader(path.absolute()).plan(values)


Check = Callable[[Any], str | None]  # what is expected, where a value is not that


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "a text"


def _texts(value: Any) -> str | None:
    good = isinstance(value, list) and value and all(isinstance(one, str) and one.strip() for one in value)
    return None if good else "a list of texts"


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if good else f"a whole number from {low} to {high}"

    return check


def _number(low: float, high: float) -> Check:
    def check(value: Any) -> str | None:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        return None if good else f"a number from {low:g} to {high:g}"

    return check


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _one_of(*names: str) -> Check:
    return lambda value: None if value in names else f"one of {', '.join(names)}"


def _name(value: Any) -> str | None:
    good = isinstance(value, str) and NAME.fullmatch(value)
    return None if good else "a name of letters, digits, _, . and -, 60 at most"


def _numbers(count: int) -> Check:
    def check(value: Any) -> str | None:
        good = isinstance(value, list) and len(value) == count and all(_number(-360, 360)(one) is None for one in value)
        return None if good else f"a list of {count} numbers"

    return check


TOP: dict[str, Check] = {
    "title": _text,
    "workspace": _text,
    "atlas": _text,
    "models": _text,
    "seed": _whole(0, 2**31 - 1),
    "batch": _whole(1, 100_000),
    "cycle": _whole(1, 10_000_000),
    "budget": _whole(1, 100_000),
    "fdr": _number(1e-6, 1),
    "detectors": _texts,
    "normals": _text,
    "measure": _one_of(*MEASURES),
    "attempts": _whole(1, 100),
    "threads": _whole(1, 64),
    "requests_per_second": _number(0.001, PER_SECOND),
    "timeout_seconds": _number(0.1, 3600),
    "retries": _whole(0, 10),
    "disk_gb": _number(0.01, 1e6),
    "free_gb": _number(0, 1e6),
    "same_arcsec": _number(0, 5),
    "keep_pictures": _flag,
    "most_per_run": _whole(1, 2**31 - 1),
    "repeat_hours": _number(0.001, 24 * 366),
    "verdicts": _text,
    "least_share": _number(0, 1),
}
TABLES = ("source", "identify", "hosts", "webhook")
ANY_SOURCE: dict[str, Check] = {"name": _name, "kind": _one_of(*KINDS)}
CUT: dict[str, Check] = {"service": _text, "pixels": _whole(16, 1024), "arcsec_per_pixel": _number(0.01, 60)}
OF_KIND: dict[str, dict[str, Check]] = {
    "folder": {"path": _text},
    "archive": {"path": _text},
    "cutouts": {"table": _text, "where": _text, "columns": _texts, "id_column": _text, **CUT},
    "sky": {"cone": _numbers(3), "box": _numbers(4), "count": _whole(1, 100_000_000), **CUT},
}
NEEDED = {"folder": ("path",), "archive": ("path",), "cutouts": ("table", "service"), "sky": ("count", "service")}
AGAINST: dict[str, Check] = {
    "name": _name,
    "table": _text,
    "service": _text,
    "base_url": _text,
    "radius_arcsec": _number(0.001, 3600),
    "label": _text,
    "ra": _text,
    "dec": _text,
}
LABELS = frozenset({"label", "labels", "class", "columns", "kind_of_object"})


class _Reader:
    """Reads the values of one plan; paths in it are relative to its folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.home = path, path.parent

    def plan(self, values: dict[str, Any]) -> Plan:
        """Return the plan."""
        rest = {name: value for name, value in values.items() if name not in TABLES}
        self.checked(rest, TOP, "")
        workspace = self.home / rest.pop("workspace", f"{self.path.stem}.watch")
        atlas = workspace / rest.pop("atlas", "sky.atlas")
        for name in ("models", "verdicts"):
            if name in rest:
                rest[name] = self.home / rest[name]
        if "detectors" in rest:
            rest["detectors"] = tuple(rest["detectors"])
        sources = tuple(self.source(one, at) for at, one in enumerate(self.tables(values, "source"), 1))
        if not sources:
            self.fail("source", "there is none", "add a table [[source]] with name and kind")
        against = tuple(self.against(one, at) for at, one in enumerate(self.tables(values, "identify"), 1))
        for what, names in (("source", [one.name for one in sources]), ("identify", [one.name for one in against])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                self.fail(f"{what}.name", f"two are called '{twice[0]}'", "give each a name of its own")
        for at, one in enumerate(sources, 1):
            self.apart(one, f"source[{at}].path", workspace=workspace, atlas=atlas)
        title = rest.pop("title", self.path.stem)
        rest |= {"hosts": self.hosts(values), "webhook": self.webhook(values)}
        return Plan(self.path, title, workspace, atlas, sources, against, **rest)

    def source(self, values: dict[str, Any], at: int) -> SourcePlan:
        """Return a source."""
        where = f"source[{at}]."
        self.needs(values, ("name", "kind"), where)
        for name, check in ANY_SOURCE.items():
            self.one(values[name], check, where + name)
        kind, options = values["kind"], {}
        if kind == "sky" and (labels := sorted(LABELS.intersection(values))):
            self.fail(where + labels[0], "random positions have no label", "take it out; label what people have judged")
        if kind in ("cutouts", "sky"):
            known = {*ANY_SOURCE, *OF_KIND[kind]}
            options = {name: value for name, value in values.items() if name not in known}
            values = {name: value for name, value in values.items() if name in known}
        self.checked(values, ANY_SOURCE | OF_KIND[kind], where)
        self.needs(values, NEEDED[kind], where)
        given: dict[str, Any] = {"name": values["name"], "kind": kind}
        given |= {key: self.home / values[key] for key in ("path", "table") if key in values}
        given |= {key: values[key] for key in ("where", "id_column", "count", *PICTURES_OF_PIXELS) if key in values}
        given["columns"] = self.columns(values, where)
        try:
            if "service" in values:
                given["service"] = service(values["service"], options)
                check_size(values.get("pixels", 128), values.get("arcsec_per_pixel", 0.262))
            if kind == "sky":
                cone, box = values.get("cone"), values.get("box")
                given["region"] = Region(cone and tuple(cone), box and tuple(box)).check()
        except GalsearchError as error:
            raise GalsearchError(f"{self.path.name}: {where[:-1]} '{values['name']}': {error}") from None
        return SourcePlan(**given)

    def apart(self, one: SourcePlan, key: str, **ours: Path) -> None:
        """Raise where a source holds what the watch writes, or lies in it: it would take in its own pictures."""
        theirs = None if one.path is None else Path(os.path.realpath(one.path))  # a loop of links is no error here
        for name, path in ours.items():
            written = Path(os.path.realpath(path))
            if theirs is not None and (written.is_relative_to(theirs) or theirs.is_relative_to(written)):
                what = f"'{one.path}' and the {name} '{path}' lie in each other"
                self.fail(key, what, f"name another {name}, or a folder of pictures alone")

    def columns(self, values: dict[str, Any], where: str) -> tuple[str, ...]:
        """Return the columns of its table that a source keeps."""
        names = tuple(values.get("columns", ()))
        taken = sorted(OWN_COLUMNS.intersection(name.casefold() for name in names))
        if taken:
            self.fail(f"{where}columns", f"'{taken[0]}' is written by the watch itself", "leave it out")
        return names

    def against(self, values: dict[str, Any], at: int) -> Against:
        """Return a table of what is known."""
        where = f"identify[{at}]."
        self.checked(values, AGAINST, where)
        self.needs(values, ("name", "radius_arcsec"), where)
        if ("table" in values) == ("service" in values):
            self.fail(f"{where}table", "one of table and service says where to look", "give one of them")
        if "service" in values:
            taken = [name for name in ("label", "ra", "dec") if name in values]
            if taken:
                self.fail(f"{where}{taken[0]}", "it is said of a table, and this is a service", "leave it out")
            one = Against(**values)
            try:
                service_of(values["service"], urls=one.urls)
            except GalsearchError as error:
                raise GalsearchError(f"{self.path.name}: {where}service: {error}") from None
            return one
        return Against(**{**values, "table": self.home / values["table"]})

    def hosts(self, values: dict[str, Any]) -> dict[str, float]:
        """Return the hosts that may get more requests a second."""
        hosts = values.get("hosts", {})
        if not isinstance(hosts, dict):
            self.fail("hosts", f"it is {hosts!r:.40}", 'write a table [hosts] of "host" = requests a second')
        for name, rate in hosts.items():
            self.one(rate, _number(0.001, 1000), f"hosts.{name}")
        return {name: float(rate) for name, rate in hosts.items()}

    def webhook(self, values: dict[str, Any]) -> str | None:
        """Return the address that reports are sent to."""
        if "webhook" not in values:
            return None
        hook = values["webhook"]
        if not isinstance(hook, dict):
            self.fail("webhook", f"it is {hook!r:.40}", "write a table [webhook] with url")
        self.checked(hook, {"url": _text}, "webhook.")
        self.needs(hook, ("url",), "webhook.")
        try:
            check_address(hook["url"])
        except GalsearchError as error:
            raise GalsearchError(f"{self.path.name}: webhook.url: {error}") from None
        return hook["url"]

    # ---- checks

    def tables(self, values: dict[str, Any], name: str) -> list[dict[str, Any]]:
        """Return an array of tables."""
        result = values.get(name, [])
        if not isinstance(result, list) or not all(isinstance(one, dict) for one in result):
            self.fail(name, f"it is {result!r:.40}", f"write it as [[{name}]], in double brackets")
        return result

    def checked(self, values: dict[str, Any], known: Mapping[str, Check], where: str) -> None:
        """Raise unless every key is known and every value is what it should be."""
        for name, value in values.items():
            if name not in known:
                keys = known if where else (*known, *TABLES)
                self.fail(where + name, "there is no such key", f"the keys are {', '.join(keys)}")
            self.one(value, known[name], where + name)

    def one(self, value: Any, check: Check, where: str) -> None:
        """Raise unless a value is what it should be."""
        expected = check(value)
        if expected is not None:
            self.fail(where, f"it is {value!r:.60}", f"write {expected}")

    def needs(self, values: dict[str, Any], names: tuple[str, ...], where: str) -> None:
        """Raise unless all the keys are there."""
        for name in names:
            if name not in values:
                self.fail(where + name, "it is missing", "add it, see docs/watch.md")

    def fail(self, key: str, what: str, remedy: str) -> None:
        """Raise the error for a key."""
        raise GalsearchError(f"{self.path.name}: {key}: {what}; {remedy}")
