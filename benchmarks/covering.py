"""A pytest plugin that notes which test runs which line of galsearch: `python -m pytest -p benchmarks.covering`.

The folder that the environment variable COVERING names gets one coverage data file and one JSON file per process. A
context is the id of a test, or `fixture <where>::<name>` while a fixture that several tests share is made: those lines
belong to every test that uses the fixture, and not only to the one that happened to come first.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import coverage
import pytest

FIXTURE = "fixture "


class Covering:
    """What was run by whom, how long each test took, and which shared fixtures it uses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._coverage = coverage.Coverage(
            data_file=str(folder / ".coverage"), data_suffix=True, source_pkgs=["galsearch"], config_file=False
        )
        self._coverage.start()
        self._contexts, self._shared = [""], 0.0
        self.tests: dict[str, dict] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        """Give a test its context."""
        fixtures = [key for found in _fixtures(item).values() if (key := _shared_key(found[-1]))]
        self.tests[item.nodeid] = {"fixtures": fixtures, "passed": True}
        started, self._shared = time.perf_counter(), 0.0
        self._enter(item.nodeid)
        try:
            return (yield)
        finally:
            self._leave()
            self.tests[item.nodeid]["seconds"] = time.perf_counter() - started - self._shared

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item):
        """Note a test that does not pass even so: it cannot tell a mistake."""
        report = yield
        self.tests[item.nodeid]["passed"] &= report.passed
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        """Give a fixture that several tests share a context of its own."""
        key = _shared_key(fixturedef)
        if key is None:
            return (yield)
        started = time.perf_counter()
        self._enter(key)
        try:
            return (yield)
        finally:
            self._leave()
            self._shared += time.perf_counter() - started

    def pytest_sessionfinish(self) -> None:
        """Write what was noted."""
        self._coverage.stop()
        if self.tests:
            self._coverage.save()
            (self._folder / f"tests-{os.getpid()}.json").write_text(json.dumps(self.tests))

    def _enter(self, context: str) -> None:
        self._contexts.append(context)
        self._coverage.switch_context(context)

    def _leave(self) -> None:
        self._contexts.pop()
        self._coverage.switch_context(self._contexts[-1])


def _fixtures(item: pytest.Item) -> dict:
    return getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})


def _shared_key(fixturedef) -> str | None:
    return None if fixturedef.scope == "function" else f"{FIXTURE}{fixturedef.baseid}::{fixturedef.argname}"


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start before anything imports galsearch, the conftest included."""
    early_config.pluginmanager.register(Covering(Path(os.environ["COVERING"])), "covering")
