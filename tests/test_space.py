"""A Space: its files say what the Hub wants, its script fetches a data set, and its Dockerfile runs, without Docker."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import galsearch
from galsearch import GalsearchError
from galsearch.space import wheels

pytest.importorskip("streamlit", reason="a Space runs the versions that are installed, streamlit among them")
pytest.importorskip("onnxruntime", reason="a Space runs the versions that are installed, onnxruntime among them")

pytestmark = pytest.mark.slow
PIN = re.compile(r"([a-z0-9-]+)==(\S+)")
MAKE_USER = "useradd --create-home --home-dir /app --uid 1000 user"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def space(tiny_bundle, tmp_path_factory) -> Path:
    """A Space of the tiny bundle; never change it."""
    return galsearch.write_space(tiny_bundle, tmp_path_factory.mktemp("space") / "out", title='Rings: "the" {best}')


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile: (name, the rest), lines that go on joined."""
    lines = re.sub(r"\\\n\s*", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return [tuple(line.split(None, 1)) for line in lines.splitlines() if line.strip()]


def front_matter(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


# ---- the files


def test_the_front_matter_is_what_the_hub_reads(space):
    found = front_matter(space)
    assert (found["sdk"], found["app_port"], found["title"]) == ("docker", 8501, 'Rings: "the" {best}')
    assert found["license"] == "mit"  # that of the one source
    assert len(found["short_description"]) <= 60
    assert "datasets" not in found
    text = (space / "README.md").read_text()
    assert "drawn by tests/tiny.py" in text
    assert "@misc{tiny," in text
    assert "$" not in text.replace("\\$", "")


def test_the_bundle_is_there_and_kept_as_a_large_file(space, tiny_bundle):
    assert (space / "tiny.duckdb").read_bytes() == tiny_bundle.read_bytes()
    large = (space / ".gitattributes").read_text().splitlines()
    assert "*.duckdb filter=lfs diff=lfs merge=lfs -text" in large
    assert "*.whl filter=lfs diff=lfs merge=lfs -text" in large


def test_the_dockerfile_runs_as_user_1000_with_a_health_check_and_no_telemetry(space):
    found = instructions((space / "Dockerfile").read_text())
    names = [name for name, _ in found]
    said = {name: rest for name, rest in found if names.count(name) == 1}
    assert said["FROM"] == f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    assert found[1] == ("RUN", MAKE_USER)
    assert found[2] == ("USER", "user")
    assert said["EXPOSE"] == "8501"
    assert "http://localhost:8501/_stcore/health" in said["HEALTHCHECK"]
    assert json.loads(said["CMD"]) == ["galsearch", "app", "tiny.duckdb", "--public", "--port", "8501"]
    for setting in ("STREAMLIT_BROWSER_GATHER_USAGE_STATS=false", "HF_HUB_DISABLE_TELEMETRY=1", "GALSEARCH_PUBLIC=1"):
        assert setting in said["ENV"]
    assert not re.search(r"token|secret|_key", (space / "Dockerfile").read_text(), re.IGNORECASE)


def test_requirements_are_the_versions_in_use(space):
    first, *lines = (space / "requirements.txt").read_text().splitlines()
    assert (space / first.partition("[")[0]).is_file()
    assert first.endswith("[cpu,app]")
    found = dict(PIN.fullmatch(line).groups() for line in lines)
    assert found == {name: metadata.version(name) for name in found}
    assert {"duckdb", "streamlit", "onnxruntime", "tokenizers", "astropy", "pyerfa", "click"} <= set(found)
    assert not {"torch", "galsearch", "pytest", "openai"} & set(found)


def test_what_linux_needs_and_this_system_has_not_is_a_range(monkeypatch):
    told = {
        "galsearch": ['app>=1; extra == "app"', 'other>=2; extra == "gpu"'],
        "app": ['watcher<7,>=2; platform_system == "There"', "sub"],
        "sub": ['never; platform_system != "There"'],
    }
    monkeypatch.setattr(wheels.metadata, "requires", lambda name: told[name] if name in told else absent(name))
    monkeypatch.setattr(wheels, "_installed", {"galsearch": "1", "app": "1.5", "sub": "3.0+cpu"}.get)
    monkeypatch.setattr(wheels, "LINUX", {"platform_system": "There"})
    assert wheels.pins() == ["app==1.5", "sub==3.0", "watcher<7,>=2"]


def absent(name):
    raise metadata.PackageNotFoundError(name)


def test_what_is_not_installed_here_is_named(monkeypatch, tiny_bundle, tmp_path):
    real = metadata.version
    monkeypatch.setattr(wheels.metadata, "version", lambda name: absent(name) if name == "streamlit" else real(name))
    with pytest.raises(GalsearchError, match=r"streamlit is not installed here.*galsearch\[cpu,app\]"):
        galsearch.write_space(tiny_bundle, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_installs_and_holds_the_app_and_the_models(space, tmp_path):
    path = next(space.glob("galsearch-*.whl"))
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        lines = [line.split(",") for line in wheel.read(record).decode().splitlines()]
        assert sorted(names) == sorted(name for name, _, _ in lines)
        for name, digest, size in lines[:-1]:
            content = wheel.read(name)
            said = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=")
            assert (len(content), hashlib.sha256(content).digest()) == (int(size), said), name
    assert not any("__pycache__" in name or name.startswith(("tests/", "export/")) for name in names)
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target, path]
    subprocess.run(install, check=True, capture_output=True)
    assert (target / "galsearch/_app/app.py").is_file()
    assert (target / "galsearch/_app/.streamlit/config.toml").is_file()
    assert len(list((target / "galsearch/_models").glob("*/model.onnx"))) >= 2
    code = "import sys; sys.path.insert(0, sys.argv[1]); import galsearch; print(galsearch.__file__)"
    done = subprocess.run([sys.executable, "-I", "-c", code, target], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(target / "galsearch/__init__.py")


def test_the_same_files_give_the_same_wheel(tmp_path):
    first = wheels.write_wheel(tmp_path).read_bytes()
    assert wheels.write_wheel(tmp_path).read_bytes() == first


def test_an_atlas_folder_is_bundled(tiny_folder, tmp_path):
    out = galsearch.write_space(tiny_folder, tmp_path / "out")
    with galsearch.open(out / "tiny.duckdb") as atlas:
        assert (atlas.kind, len(atlas)) == ("bundle", 300)


@pytest.mark.parametrize(
    ("licenses", "said"),
    [(["MIT"], "mit"), (["cc0", "CC0"], "cc0-1.0"), (["MIT", "CC0"], "other"), (["mine"], "other"), ([], "other")],
)
def test_a_license_is_named_only_where_it_is_one_that_is_known(licenses, said):
    from galsearch.space.spaces import _license

    assert _license([{"license": name} for name in licenses]) == said


# ---- where it may not be written


def test_what_is_there_is_never_overwritten(tiny_bundle, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    (tmp_path / "file").write_text("y")
    for name, reason in {"full": "holds files already", "file": "is a file", "no/out": "no such folder"}.items():
        with pytest.raises(GalsearchError, match=reason):
            galsearch.write_space(tiny_bundle, tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]
    (tmp_path / "empty").mkdir()
    assert galsearch.write_space(tiny_bundle, tmp_path / "empty").joinpath("Dockerfile").is_file()


def test_a_disk_that_is_full_leaves_nothing(tiny_bundle, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("galsearch.space.spaces.write_wheel", full)
    with pytest.raises(GalsearchError, match="No space left on device"):
        galsearch.write_space(tiny_bundle, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_is_named_by_user_and_name_and_holds_bundles(tiny_bundle, tiny_folder, tmp_path):
    for name in ("tiny", "a/b/c", "../x", "user/na me", "user/$(x)"):
        with pytest.raises(GalsearchError, match="expected the id of a data set"):
            galsearch.write_space(tiny_bundle, tmp_path / "out", dataset=name)
    with pytest.raises(GalsearchError, match="a data set holds bundles"):
        galsearch.write_space(tiny_folder, tmp_path / "out", dataset="user/name")


def test_the_command_says_what_to_do_next(run, tiny_bundle, tmp_path):
    code, out, error = run("space", tiny_bundle, tmp_path / "out", "--dataset", "user/rings")
    assert (code, out) == (0, "")
    assert "hf upload user/rings" in error
    assert "--repo-type space" in error
    code, _, error = run("space", tiny_bundle, tmp_path / "out")
    assert code == 1
    assert error.splitlines()[-1].startswith(f"galsearch: {tmp_path / 'out'} holds files already")


def test_public_means_every_address_no_telemetry_and_limits(run, tiny_bundle, monkeypatch):
    started = []

    def become(program, command):
        started.extend(command)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", become)
    monkeypatch.setenv("GALSEARCH_PUBLIC", "0")
    assert run("app", tiny_bundle, "--public")[0] == 0
    options = dict(zip(started[5::2], started[6::2], strict=False))
    assert options["--server.address"] == "0.0.0.0"
    assert options["--browser.gatherUsageStats"] == "false"
    assert options["--server.maxUploadSize"] == "20"
    assert os.environ["GALSEARCH_PUBLIC"] == "1"


# ---- the data set, from a hub on this machine


@contextlib.contextmanager
def hub(files: dict[str, bytes]):
    """Serve files of data sets as the Hub does: {"user/name/file": content}; yield the address and what was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET(body=False)

        def do_GET(self, *, body=True):
            asked.append((self.command, self.path))
            found = re.fullmatch(r"/datasets/(\S+?/\S+?)/resolve/main/(\S+)", self.path)
            content = files.get("/".join(found.groups())) if found else None
            self.send_response(404 if content is None else 200)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if body and content:
                self.wfile.write(content)

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def start(folder: Path, tmp_path: Path, endpoint: str) -> subprocess.CompletedProcess:
    """Run the Space's script with a `galsearch` that only tells its arguments."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    told = tmp_path / "bin/galsearch"
    told.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    told.chmod(0o755)
    command = json.loads(dict(instructions((folder / "Dockerfile").read_text()))["CMD"])
    environment = {
        "PATH": f"{told.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    command = [sys.executable, *command[1:]]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_bundle_is_fetched_from_its_data_set_when_the_space_starts(tiny_bundle, tmp_path):
    folder = galsearch.write_space(tiny_bundle, tmp_path / "out", dataset="user/rings")
    assert not (folder / "tiny.duckdb").exists()
    assert front_matter(folder)["datasets"] == ["user/rings"]
    assert "huggingface-hub==" in (folder / "requirements.txt").read_text()
    with hub({"user/rings/tiny.duckdb": tiny_bundle.read_bytes()}) as (endpoint, asked):
        done = start(folder, tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    verb, path, *options = done.stdout.splitlines()
    assert (verb, options) == ("app", ["--public", "--port", "8501"])
    assert Path(path).read_bytes() == tiny_bundle.read_bytes()
    assert {address for _, address in asked} == {"/datasets/user/rings/resolve/main/tiny.duckdb"}


def test_a_data_set_without_the_bundle_is_one_line(tiny_bundle, tmp_path):
    folder = galsearch.write_space(tiny_bundle, tmp_path / "out", dataset="user/rings")
    with hub({}) as (endpoint, _):
        done = start(folder, tmp_path, endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("tiny.duckdb cannot be fetched from the data set user/rings (")
    assert "Traceback" not in done.stderr


# ---- the Dockerfile, run as Docker would, in a clean environment


class Machine:
    """What a Dockerfile makes, without Docker: a new virtual environment and a home folder of user 1000."""

    def __init__(self, root: Path, context: Path, port: int) -> None:
        self.root, self.context, self.port = root, context, port
        self.home = root / "app"
        self.home.mkdir()
        self.here = root
        of_pip = ("PIP_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        inherited = {key: value for key, value in os.environ.items() if key.startswith(of_pip)}
        self.environment = {**inherited, "PATH": f"{root}/venv/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        self.command: list[str] = []
        self.health = ""
        subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True)
        self.who = self._user()
        self._give(root)

    def build(self) -> None:
        """Do what every instruction says; those before USER need root and make that user, who is here already."""
        found = instructions((self.context / "Dockerfile").read_text())
        assert found[:3] == [
            ("FROM", f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"),
            ("RUN", MAKE_USER),
            ("USER", "user"),
        ]
        for name, rest in found[3:]:
            getattr(self, f"do_{name.lower()}")(rest.replace("/app", str(self.home)))

    def do_env(self, rest: str) -> None:
        for pair in shlex.split(rest):
            key, _, value = pair.partition("=")
            self.environment[key] = value.replace("$PATH", self.environment["PATH"])

    def do_workdir(self, rest: str) -> None:
        self.here = Path(rest)
        self.here.mkdir()  # of root, whoever USER is

    def do_copy(self, rest: str) -> None:
        owner, *sources, target = rest.split()
        assert (owner, target) == ("--chown=user", "./")
        for source in sources:
            found = list(self.context.iterdir() if source == "." else self.context.glob(source))
            assert found, source
            for path in found:
                self._give(Path(shutil.copy2(path, self.here / path.name)))

    def do_run(self, rest: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", rest],
            cwd=self.here,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            **self.who,
        )
        assert done.returncode == 0, f"{rest}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def do_expose(self, rest: str) -> None:
        assert rest == "8501"

    def do_healthcheck(self, rest: str) -> None:
        self.health = rest.partition("CMD ")[2].replace("8501", str(self.port))

    def do_cmd(self, rest: str) -> None:
        self.command = [str(self.port) if word == "8501" else word for word in json.loads(rest)]

    def _user(self) -> dict[str, int]:
        """Return who runs everything: user 1000, where we may say so and that user may run this Python, else we."""
        if os.geteuid():
            return {}
        who = {"user": 1000, "group": 1000}
        try:
            done = subprocess.run([self.root / "venv/bin/python", "-c", ""], check=False, **who)
        except PermissionError:
            return {}
        return {} if done.returncode else who

    def _give(self, folder: Path) -> None:
        if self.who:
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, 1000, 1000, follow_symlinks=False)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextlib.contextmanager
def running(machine: Machine):
    """Run the CMD, wait until the health check passes, and stop it in the end; yield (process, its log)."""
    log = machine.root / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            machine.command, cwd=machine.here, env=machine.environment, stdout=out, stderr=out, **machine.who
        )
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(AssertionError):
                machine.do_run(machine.health)
                break
            time.sleep(0.5)
        else:
            pytest.fail(f"never healthy: {log.read_text()}")
        yield process, log
    finally:
        process.terminate()
        process.wait(timeout=30)


def upgraded(port: int, host: str) -> int:
    """Return the status of opening the app's WebSocket from a page of `host`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {
        "Host": host, "Origin": f"https://{host}", "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode(),
    }  # fmt: skip
    connection.request("GET", "/_stcore/stream", headers=headers)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture(scope="module")
def machine(space):
    """A machine on which the Dockerfile of the tiny Space was run, from a package index."""
    index = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", os.devnull, "click"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "No matching distribution" in index.stderr or "Temporary failure" in index.stderr:
        pytest.skip(f"no package index can be reached: {index.stderr.strip().splitlines()[-1][:100]}")
    root = Path(tempfile.mkdtemp(prefix="galsearch-space-"))
    root.chmod(0o755)
    try:
        made = Machine(root, space, free_port())
        made.build()
        yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.slow
def test_the_dockerfile_installs_exactly_what_is_pinned(machine, space):
    pinned = dict(line.split("==") for line in (space / "requirements.txt").read_text().splitlines()[1:])
    found = {one["name"]: one["version"] for one in json.loads(machine.do_run("pip list --format json"))}
    found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()}
    assert found.pop("galsearch") == galsearch.__version__
    assert {name: version for name, version in found.items() if name not in ("pip", "setuptools")} == pinned
    assert "No broken requirements" in machine.do_run("pip check")


@pytest.mark.slow
def test_words_find_galaxies_there(machine):
    rows = json.loads(machine.do_run("galsearch search tiny.duckdb red -k 3 --format json"))["rows"]
    assert len(rows) == 3


def packed(path: Path) -> dict[str, bytes]:
    """Return the files of galsearch itself in a wheel."""
    with zipfile.ZipFile(path) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist() if name.startswith("galsearch/")}


@pytest.mark.slow
def test_an_installed_galsearch_writes_the_same_space(machine, space):
    machine.do_run("galsearch space tiny.duckdb $HOME/again")
    again = machine.home / "again"
    assert sorted(path.name for path in again.iterdir()) == sorted(path.name for path in space.iterdir())
    assert (again / "requirements.txt").read_bytes() == (space / "requirements.txt").read_bytes()
    assert packed(next(again.glob("*.whl"))) == packed(next(space.glob("*.whl")))


@pytest.mark.slow
def test_the_space_starts_answers_and_stops(machine):
    with running(machine) as (process, log):
        with urllib.request.urlopen(f"http://127.0.0.1:{machine.port}/_stcore/health", timeout=20) as answer:
            assert (answer.status, answer.read()) == (200, b"ok")
        with urllib.request.urlopen(f"http://127.0.0.1:{machine.port}/", timeout=20) as answer:
            assert b"<title>" in answer.read()
        assert upgraded(machine.port, "user-rings.hf.space") == 101
        environment = Path(f"/proc/{process.pid}/environ")
        if environment.exists():
            assert b"GALSEARCH_PUBLIC=1" in environment.read_bytes().split(b"\0")
    assert process.returncode is not None
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("name", ["-h.duckdb", "a\nRUN rm -rf x.duckdb", "a b;c$(id).duckdb", "...duckdb", "µ.duckdb"])
def test_the_name_of_a_file_writes_nothing_into_the_dockerfile(tiny_bundle, tmp_path, name):
    path = Path(shutil.copyfile(tiny_bundle, tmp_path / name))
    text = (galsearch.write_space(path, tmp_path / "out") / "Dockerfile").read_text()
    first = {line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith((" ", "\t"))}
    assert first <= {"#", "FROM", "RUN", "USER", "ENV", "WORKDIR", "COPY", "EXPOSE", "HEALTHCHECK", "CMD"}
    assert sum(line.startswith("RUN") for line in text.splitlines()) == 2
    command = json.loads(text.splitlines()[-1].removeprefix("CMD "))
    assert re.fullmatch(r"[A-Za-z0-9_][\w.-]*\.duckdb", command[2], re.ASCII)
    with pytest.raises(GalsearchError, match="cannot stand in a Dockerfile"):
        galsearch.write_space(path, tmp_path / "second", dataset="user/name")
