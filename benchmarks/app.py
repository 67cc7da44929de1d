"""How long the app takes to show something, and what it does under many visitors: `python -m benchmarks.app ATLAS`.

What one person waits for is measured in a real browser, from the key to the pictures. Many visitors are sessions of
Streamlit's own protocol without a browser each, since twenty browsers would measure the machine's drawing, not the app:
each opens a link with another question, waits until the answer is whole, reads for a while, and asks the next.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import time
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from urllib.parse import urlencode

import galsearch

ROOT = Path(__file__).resolve().parent.parent
SUBJECTS = (
    "spiral galaxy",
    "elliptical galaxy",
    "edge-on galaxy",
    "ring galaxy",
    "merging galaxies",
    "irregular galaxy",
)
DETAILS = ("", "blue ", "red ", "small ", "bright ", "faint ", "compact ", "disturbed ")
READING_SECONDS = (1.0, 5.0)  # between an answer and the next question of one session
VISIBLE = """(before) => {
    const hosts = [...document.querySelectorAll('*')].filter((one) => one.shadowRoot);
    const tiles = hosts.flatMap((one) => [...one.shadowRoot.querySelectorAll('.tile')]);
    const images = tiles.slice(0, 8).map((one) => one.querySelector('img')).filter((one) => one);
    const drawn = images.every((one) => one.complete && one.naturalWidth > 0);
    const said = tiles.map((one) => one.dataset.id + (one.querySelector('.score')?.textContent ?? '')).join();
    return tiles.length > 0 && drawn && said !== before && said;
}"""


def main() -> None:
    """Measure what the arguments ask for and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("--visits", type=int, default=10, help="first pages, each in a browser session of its own")
    parser.add_argument("--questions", type=int, default=20, help="new questions in one session")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the sessions ask; 0 for none of that")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    screenshot = _screenshot()
    with galsearch.open(args.atlas) as atlas:
        rows, questions = len(atlas), make_questions(atlas, seed=args.seed)
        words = "text" in atlas.models()
    report = {"atlas": args.atlas.name, "rows": rows, "asked": "words" if words else "objects"}
    report |= {"machine": machine()}
    with screenshot.running_app(args.atlas) as address:
        with screenshot.browser() as browser:
            report["first_page_s"] = spread(first_pages(browser, address, args.visits))
            report["question_s"] = spread(new_questions(browser, address, questions[: args.questions]))
        if args.seconds:
            crowd = asyncio.run(visit_all(address, questions, args.sessions, args.seconds, seed=args.seed))
            report["crowd"] = {"sessions": args.sessions, "seconds": args.seconds, **crowd}
        report["server_mib"] = memory_of_server(address)
    print(json.dumps(report, indent=1))


def _screenshot():
    """Return docs/screenshot.py, which starts the app and the browser."""
    spec = util.spec_from_file_location("screenshot", ROOT / "docs" / "screenshot.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine() -> str:
    """Return what the figures depend on."""
    versions = " ".join(f"{name} {metadata.version(name)}" for name in ("streamlit", "duckdb", "playwright"))
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()} {platform.system()}, {cores} cores for app, visitors and browser, {versions}"


def make_questions(atlas: galsearch.Atlas, *, seed: int) -> list[dict[str, str]]:
    """Return what the URLs of many different questions say: in words, or by objects where the atlas has no words."""
    if "text" in atlas.models():
        terms = [("text", f"{detail}{subject}") for detail in DETAILS for subject in SUBJECTS]
    else:
        stride = max(len(atlas) // 200, 1)
        ids = atlas.sql(f"SELECT object_id FROM galaxies WHERE rowid % {stride} = 0 LIMIT 200")["object_id"].to_pylist()
        terms = [("object", name) for name in ids]
    random.Random(seed).shuffle(terms)
    return [{"query": json.dumps({"terms": [{"kind": k, "value": v, "weight": 1.0}]})} for k, v in terms]


def spread(seconds: list[float]) -> dict[str, float]:
    """Return median, 95th percentile and maximum."""
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered) + 0.5) - 1)]
    said = {"median": statistics.median(ordered), "p95": p95, "max": ordered[-1]}
    return {"n": len(ordered), **{name: round(value, 3) for name, value in said.items()}}


# ---- one person with a browser


def first_pages(browser, address: str, visits: int) -> list[float]:
    """Return how long it took from going to the address until the pictures were drawn; the first visit is cold."""
    took = []
    for _ in range(visits):
        context = browser.new_context(viewport={"width": 1280, "height": 860})
        page = context.new_page()
        page.set_default_timeout(60_000)
        started = time.perf_counter()
        page.goto(address)
        page.wait_for_function(VISIBLE, arg="")
        took.append(time.perf_counter() - started)
        context.close()
    return took


def new_questions(browser, address: str, questions: list[dict[str, str]]) -> list[float]:
    """Return how long each question took in one session, from the key or the click until its pictures were drawn."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(address)
    before = page.wait_for_function(VISIBLE, arg="").json_value()
    took = []
    for place, question in enumerate(questions):
        term = json.loads(question["query"])["terms"][0]
        page.wait_for_timeout(1000)  # a person reads
        if term["kind"] == "text":
            page.get_by_label("Describe a galaxy").fill(term["value"])
        started = time.perf_counter()
        if term["kind"] == "text":
            page.keyboard.press("Enter")
        else:
            page.locator(".like").nth(1 + place % 5).dispatch_event("click")
        before = page.wait_for_function(VISIBLE, arg=before).json_value()
        took.append(time.perf_counter() - started)
    context.close()
    return took


# ---- many visitors


@dataclass
class Crowd:
    """What all sessions together saw."""

    took: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def visit_all(address: str, questions: list[dict[str, str]], sessions: int, seconds: float, *, seed: int) -> dict:
    """Let many sessions ask for some time; return how long the answers took, and every error."""
    crowd = Crowd()
    end = time.monotonic() + seconds
    rng = random.Random(seed)
    visits = [visit(address, rng.sample(questions, len(questions)), end, crowd, rng.random()) for _ in range(sessions)]
    await asyncio.gather(*visits)
    return {
        "answers": len(crowd.took),
        "per_second": round(len(crowd.took) / seconds, 2),
        "answer_s": spread(crowd.took),
        "errors": len(crowd.errors),
        "first_errors": crowd.errors[:3],
    }


async def visit(address: str, questions: list[dict[str, str]], end: float, crowd: Crowd, seed: float) -> None:
    """Be one session: open the app, then ask one question after the other until the time is over."""
    from websockets.asyncio.client import connect

    rng = random.Random(seed)
    place = address.replace("http://", "ws://") + "/_stcore/stream"
    await asyncio.sleep(rng.uniform(0, READING_SECONDS[1]))  # visitors do not come all at once
    try:
        async with connect(place, subprotocols=["streamlit"], max_size=None, proxy=None) as socket:
            await ask(socket, {}, crowd)
            turn = 0
            while time.monotonic() < end:
                started = time.perf_counter()
                if await ask(socket, questions[turn % len(questions)], crowd):
                    crowd.took.append(time.perf_counter() - started)
                turn += 1
                await asyncio.sleep(rng.uniform(*READING_SECONDS))
    except OSError as error:
        crowd.errors.append(f"connection: {error}")


async def ask(socket, said: dict[str, str], crowd: Crowd) -> bool:
    """Go to a URL and take everything that the app draws; False, with the error noted, when it draws an error."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

    message = BackMsg()
    message.rerun_script.query_string = urlencode(said)
    await socket.send(message.SerializeToString())
    wrong = []
    while True:
        got = ForwardMsg.FromString(await asyncio.wait_for(socket.recv(), 60))
        wrong += problems(got)
        if got.WhichOneof("type") == "script_finished" and got.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
            crowd.errors += wrong
            return not wrong


def problems(message) -> list[str]:
    """Return what a message from the app says went wrong."""
    if message.WhichOneof("type") != "delta" or message.delta.WhichOneof("type") != "new_element":
        return []
    element = message.delta.new_element
    if element.WhichOneof("type") == "exception":
        return [element.exception.message[:200]]
    if element.WhichOneof("type") == "alert" and element.alert.format == element.alert.ERROR:
        return [element.alert.body[:200]]
    return []


def memory_of_server(address: str) -> dict[str, float]:
    """Return the memory of the app's process: now, the most so far, and the most without pages of the mapped file."""
    flag = f"--server.port={address.rsplit(':', 1)[1]}".encode()
    server = next(path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if flag in path.read_bytes())
    said = dict(line.split(":", 1) for line in (server / "status").read_text().splitlines())
    names = {"now": "VmRSS", "most": "VmHWM", "anonymous": "RssAnon"}
    return {name: round(int(said[key].split()[0]) / 1024) for name, key in names.items()}


if __name__ == "__main__":
    main()
