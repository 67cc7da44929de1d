"""The sweep of test data counts what is read and refused, and a raw exception is a failure."""

import json

import numpy as np
import pytest
from astropy.io import fits

from benchmarks import sweep


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a table, a picture, three files that are refused and one that is passed over."""
    inside = tmp_path / "mine"
    (inside / "deep").mkdir(parents=True)
    (inside / "a.csv").write_text("id,ra\na,1\n")
    fits.PrimaryHDU(np.arange(64.0, dtype=np.float32).reshape(8, 8)).writeto(inside / "deep" / "p.fits")
    (inside / "page.xml").write_text("<html></html>")
    (inside / "one.csv").write_text("1,2\n3,4\n")
    (inside / "two.csv").write_text("1,2\n3,5\n")
    (inside / "readme.md").write_text("no")
    return inside


def test_counts_reasons_and_the_exit_status(folder, tmp_path, capsys):
    out = tmp_path / "sweep.json"
    assert sweep.main(["--folder", str(folder), "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    counts = {"files": 5, "table": 1, "picture": 1, "refused": 3, "failed": 0}
    assert report["packages"] == [{"package": "mine", "version": "", **counts}]
    assert [row["files"] for row in report["reasons"]] == [2, 1]
    assert "numbers and not the names" in report["reasons"][0]["reason"]
    assert "web page" in report["reasons"][1]["reason"]
    assert "numbers and not the names" in capsys.readouterr().out


def test_a_raw_exception_is_told_with_its_place_and_fails(folder, monkeypatch, capsys):
    def broken(path):
        raise ZeroDivisionError("by hand")

    monkeypatch.setattr(sweep, "read_table", broken)
    assert sweep.main(["--folder", str(folder)]) == 1
    assert "FAILED a.csv: ZeroDivisionError: by hand (test_sweep.py:" in capsys.readouterr().out


def test_what_takes_too_long_fails(folder, monkeypatch):
    monkeypatch.setattr(sweep, "SECONDS", 1)
    monkeypatch.setattr(sweep, "read_table", lambda path: __import__("time").sleep(5))
    outcome = sweep.tried(folder / "a.csv")
    assert (outcome.kind, outcome.reason[:29]) == ("failed", "TimeoutError: more than 1 s (")
