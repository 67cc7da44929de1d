"""A static site as its page reads it: files by their entries, vectors by cells, cards by range. Only numpy and JSON."""

from __future__ import annotations

import gzip
import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

RESCORED = 4  # times k of the best by codes are scored again


class Site:
    """The site in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, bytes] = {}
        self.manifest: dict[str, Any] = json.loads((folder / "site.json").read_text(encoding="utf-8"))

    def read(self, entry: dict[str, Any], start: int = 0, stop: int | None = None) -> bytes:
        """Return a range of a file over its parts."""
        name = " ".join(part["path"] for part in entry["parts"])
        if name not in self._held:
            self._held[name] = b"".join((self.folder / part["path"]).read_bytes() for part in entry["parts"])
            assert len(self._held[name]) == entry["bytes"] == sum(part["bytes"] for part in entry["parts"])
        return self._held[name][start:stop]

    def inflated(self, entry: dict[str, Any]) -> bytes:
        assert entry["encoding"] == "gzip"
        return gzip.decompress(self.read(entry))

    def array(self, entry: dict[str, Any], dtype: str, *shape: int) -> np.ndarray:
        return np.frombuffer(self.read(entry), dtype).reshape(*(shape or (-1,)))

    def space(self, name: str = "image") -> dict[str, Any]:
        return next(space for space in self.manifest["spaces"] if space["name"] == name)

    def codes(self, name: str = "image") -> tuple[np.ndarray, np.ndarray]:
        space = self.space(name)
        return self.array(space["codes"], "<i1", -1, space["dim"]), self.array(space["scales"], "<f4")

    def vectors(self, name: str = "image") -> np.ndarray:
        """Return the vectors that codes and residuals stand for, in the order of the space."""
        space, (codes, scales) = self.space(name), self.codes(name)
        rest = self.array(space["residuals"], "<i1", -1, space["dim"])
        return scales[:, None] * codes + self.array(space["residual_scales"], "<f4")[:, None] * rest

    def rows_of(self, name: str = "image") -> np.ndarray:
        """Return the row of each vector."""
        space = self.space(name)
        return np.arange(space["rows"]) if space["site_rows"] is None else self.array(space["site_rows"], "<u4")

    def probes(self, cells: dict[str, Any], kind: str, depth: float) -> int:
        """Return how many cells reach a recall of .98 at a depth, as the curves of the site say, and a quarter more."""
        needed = []
        for one in (kind, "far") if depth > 10 else (kind,):
            depths = sorted({row[1] for row in cells["recall"] if row[0] == one})
            crossing = []
            for at in depths:
                rows = [(row[2], row[3]) for row in cells["recall"] if row[:2] == [one, at]]
                crossing.append(next((probes for probes, recall in rows if recall >= 0.98), rows[-1][0]))
            if depths:
                needed.append(np.exp(np.interp(np.log(depth), np.log(depths), np.log(crossing))))
        return min(cells["count"], int(np.ceil(1.25 * max(needed))))

    def search(
        self, query: np.ndarray, k: int, *, allowed: np.ndarray | None = None, kind: str = "like", name: str = "image"
    ) -> list[int]:
        """Return the rows of the k best vectors, as the page finds them; `allowed (n,) bool` says which rows pass."""
        space, (codes, scales), rows = self.space(name), self.codes(name), self.rows_of(name)
        passing = np.ones(len(rows), bool) if allowed is None else allowed[rows]
        candidates = np.flatnonzero(passing)
        if (cells := space["cells"]) is not None:
            centroids = self.array(cells["centroids"], "<f4", -1, space["dim"])
            visited = self._visited(cells, centroids @ query, k, passing=passing, kind=kind)
            candidates = candidates[np.isin(candidates, visited)]
        scores = scales[candidates] * (codes[candidates].astype(np.float32) @ query)
        best = candidates[np.argsort(-scores, kind="stable")[: RESCORED * k]]
        again = self.vectors(name)[best] @ query
        return rows[best[np.lexsort((best, -again))[:k]]].tolist()

    def _visited(
        self, cells: dict[str, Any], near: np.ndarray, k: int, *, passing: np.ndarray, kind: str
    ) -> np.ndarray:
        """Return the numbers of the vectors looked at: those of the closest cells in which something passes."""
        starts = self.array(cells["starts"], "<u4").astype(int)
        share = passing.mean()
        probes = cells["probes" if kind == "like" else "probes_words"]
        if share < 1:
            probes = max(probes, self.probes(cells, kind, k / max(share, 1e-9)))
        visited: list[np.ndarray] = []
        held = seen = 0
        for cell in np.argsort(-near, kind="stable"):
            inside = np.arange(starts[cell], starts[cell + 1])
            if not passing[inside].any():
                continue
            if seen >= probes and held >= k:
                break
            visited.append(inside)
            held, seen = held + int(passing[inside].sum()), seen + 1
        return np.concatenate(visited)

    def facts(self, select: str) -> list[tuple]:
        """Return the rows of a SELECT on the files of facts, each table united from the files that have it."""
        with duckdb.connect() as connection:
            files = self.manifest["facts"]["files"]
            for number, one in enumerate(files):
                path = self.folder / one["file"]["parts"][0]["path"]
                connection.execute(f"ATTACH '{path}' AS f{number} (READ_ONLY)")
            for table in self.manifest["facts"]["tables"]:
                having = [number for number, one in enumerate(files) if table in one["tables"]]
                union = " UNION ALL BY NAME ".join(f'FROM f{number}."{table}"' for number in having)
                connection.execute(f'CREATE VIEW "{table}" AS {union}')
            return connection.execute(select).fetchall()

    def card(self, row: int) -> tuple[dict[str, Any], bytes]:
        """Return the JSON and the picture of a card, read by range."""
        kind = {"uint32": "<u4", "float64": "<f8"}[self.manifest["card_starts_type"]]
        starts = self.array(self.manifest["card_starts"], kind).astype(int)
        content = self.read(self.manifest["cards"], starts[row], starts[row + 1])
        size = int.from_bytes(content[:4], "little")
        return json.loads(content[4 : 4 + size]), content[4 + size :]

    def row_of(self, object_id: str) -> int | None:
        """Return the row of an id by one block of the lookup."""
        index = json.loads(self.read(self.manifest["ids"]["index"]))
        key = object_id.encode("utf-16-be")
        before = [one for one in index if one[0].encode("utf-16-be") <= key]
        if not before:
            return None
        _, start, size = before[-1]
        return dict(json.loads(self.read(self.manifest["ids"]["blocks"], start, start + size))).get(object_id)

    def spectrum(self, row: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray] | None:
        about = self.manifest["spectra"]
        starts = self.array(about["starts"], {"uint32": "<u4", "float64": "<f8"}[about["starts_type"]]).astype(int)
        content = self.read(about["blob"], starts[row], starts[row + 1])
        if not content:
            return None
        size = int.from_bytes(content[:4], "little")
        numbers = np.frombuffer(content[4 + size :], "<f4").reshape(2, -1)
        return json.loads(content[4 : 4 + size]), *numbers


def entries(value: Any) -> list[dict[str, Any]]:
    """Return every file entry in a manifest."""
    if isinstance(value, dict):
        own = [value] if "parts" in value else []
        return own + [one for each in value.values() for one in entries(each)]
    return [one for each in value for one in entries(each)] if isinstance(value, list) else []


def faults(folder: Path, most: int) -> list[str]:
    """Return what is wrong with the files of a site: missing, of another digest, too large, or listed nowhere."""
    site, found = Site(folder), []
    listed = {part["path"]: part for entry in entries(site.manifest) for part in entry["parts"]}
    for path, part in listed.items():
        content = (folder / path).read_bytes() if (folder / path).is_file() else b""
        if hashlib.sha256(content).hexdigest() != part["sha256"] or len(content) != part["bytes"]:
            found.append(f"{path} is not what site.json says")
    for file in (folder / "data").iterdir():
        name = f"data/{file.name}"
        found += [] if name in listed else [f"{name} is listed nowhere"]
        found += [f"{name} has {file.stat().st_size} bytes"] if file.stat().st_size > most else []
    return found


# ---- WordPiece, after the rules of a site


def tokens(text: str, rules: dict[str, Any], pieces: list[str | None], most: int) -> list[int]:
    """Return the tokens of a text by the rules in site.json, without any tokenizer package."""
    numbers = {piece: number for number, piece in enumerate(pieces) if piece is not None}
    result = [number for word in _words(text, rules) for number in _pieces(word, rules, numbers)]
    room = most - len(rules["first"]) - len(rules["last"])
    return [*rules["first"], *result[:room], *rules["last"]]


def _words(text: str, rules: dict[str, Any]) -> list[str]:
    signs = []
    for sign in text:
        kind = unicodedata.category(sign)
        if sign in "\t\n\r" or sign.isspace():
            signs.append(" ")
        elif sign in "\0\ufffd" or kind in ("Cc", "Cf", "Cn", "Co"):
            continue
        elif rules["handle_chinese_chars"] and _is_ideograph(ord(sign)):
            signs.append(f" {sign} ")
        else:
            signs.append(sign)
    text = "".join(signs)
    if rules["strip_accents"]:
        text = "".join(sign for sign in unicodedata.normalize("NFD", text) if unicodedata.category(sign) != "Mn")
    text = "".join(map(str.lower, text)) if rules["lowercase"] else text  # no rule for a last sigma
    spaced = "".join(f" {sign} " if _is_punctuation(sign) else sign for sign in text)
    return spaced.split()


def _is_ideograph(point: int) -> bool:
    spans = (
        (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
        (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
    )  # fmt: skip
    return any(low <= point <= high for low, high in spans)


def _is_punctuation(sign: str) -> bool:
    return (sign.isascii() and not sign.isalnum() and not sign.isspace()) or unicodedata.category(sign).startswith("P")


def _pieces(word: str, rules: dict[str, Any], numbers: dict[str, int]) -> list[int]:
    unknown = [numbers[rules["unknown"]]]
    if len(word) > rules["max_characters_per_word"]:
        return unknown
    result, start = [], 0
    while start < len(word):
        prefix = rules["prefix"] if start else ""
        stop = next((at for at in range(len(word), start, -1) if prefix + word[start:at] in numbers), None)
        if stop is None:
            return unknown
        result.append(numbers[prefix + word[start:stop]])
        start = stop
    return result
