"""UWS 1.1: queries that run aside, kept as files, so that they outlive the service or are told to be gone."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from galsearch.atomic import replacing
from galsearch.errors import BusyError, GalsearchError, QueryError, UnknownIdError
from galsearch.service.vo.votable import attribute, xml_text

PENDING, QUEUED, EXECUTING = "PENDING", "QUEUED", "EXECUTING"
COMPLETED, ERROR, ABORTED = "COMPLETED", "ERROR", "ABORTED"
OVER = (COMPLETED, ERROR, ABORTED)
PHASES = (PENDING, QUEUED, EXECUTING, *OVER, "ARCHIVED", "HELD", "SUSPENDED", "UNKNOWN")
KEPT_DAYS, LONGEST_DAYS = 7, 30
MOST_JOBS, MOST_OF_ONE = 500, 100  # that are kept: of all, and of one client
MOST_BYTES = 4 << 30  # of all jobs together
BUSY_TRIES, BUSY_SECONDS = 30, 2.0  # while others are served
AT_ONCE = 2  # jobs that run
MOST_WAITING = 8  # requests that wait for a job to change
LONGEST_WAIT = 60.0
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
Work = Callable[["Job"], tuple[bytes, str]]


@dataclass
class Job:
    """One query that runs aside. `values` are its parameters, `uploads` names of tables that were sent with it."""

    id: str
    values: dict[str, list[str]]
    uploads: dict[str, str] = field(default_factory=dict)
    phase: str = PENDING
    created: str = ""
    started: str | None = None
    ended: str | None = None
    destruction: str = ""
    message: str = ""
    media: str = ""
    session: str = ""
    address: str | None = None


class Jobs:
    """The jobs of a service, in a folder with one folder for each; `work` returns the result of one."""

    def __init__(self, folder: Path, work: Work) -> None:
        self.folder, self._work = folder, work
        self._jobs: dict[str, Job] = {}
        self._change = threading.Condition()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="tap job")
        self._waiting = 0
        self._closed = False
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*/job.json")):
            self._take_up(path)

    def _take_up(self, path: Path) -> None:
        """Take up a job of an earlier start; one that ran then says that it was ended."""
        try:
            job = Job(**json.loads(path.read_text()))
        except (ValueError, TypeError, OSError):
            return  # not one of ours, or half written; it is left alone
        self._jobs[job.id] = job
        if job.phase in (QUEUED, EXECUTING):
            job.message = "the service was stopped while the query ran; run it again"
            self._enter(job, ERROR)

    def close(self) -> None:
        """Stop taking jobs; those that wait or run are told to be ended at the next start."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._change:
            self._change.notify_all()

    # ---- one job

    def create(self, values: dict[str, list[str]], files: dict[str, bytes], session: str, address: str | None) -> Job:
        """Keep a new job."""
        self._sweep()
        self._check_room(session)
        now = datetime.now(UTC)
        job = Job(secrets.token_urlsafe(16), values, created=_told(now), session=session, address=address)
        job.destruction = _told(now + timedelta(days=KEPT_DAYS))
        (self.folder / job.id).mkdir()
        for number, (name, content) in enumerate(files.items()):
            job.uploads[name] = f"upload{number}"
            (self.folder / job.id / f"upload{number}").write_bytes(content)
        with self._change:
            self._jobs[job.id] = job
        self._keep(job)
        return job

    def _check_room(self, session: str) -> None:
        """Raise BusyError where more jobs are kept than may be."""
        with self._change:
            every, mine = len(self._jobs), sum(job.session == session for job in self._jobs.values())
        size = sum(path.stat().st_size for path in self.folder.glob("*/*"))
        for reached, most, what in (
            (every, MOST_JOBS, "jobs are"),
            (mine, MOST_OF_ONE, "jobs of yours are"),
            (size, MOST_BYTES, "bytes of jobs are"),
        ):
            if reached >= most:
                raise BusyError(f"{most:,} {what} kept here, the most there may be; delete those that are done")

    def get(self, name: str) -> Job:
        """Return a job. Raises UnknownIdError for one that there is not."""
        self._sweep()
        job = self._jobs.get(name)
        if job is None:
            raise UnknownIdError(
                f"there is no job '{name[:60]}' here: it was deleted, its time is over, or the service started anew "
                "without a folder of jobs; run the query again"
            )
        return job

    def all(self) -> list[Job]:
        """Return all jobs, the newest first."""
        self._sweep()
        return sorted(self._jobs.values(), key=lambda job: (job.created, job.id), reverse=True)

    def run(self, job: Job) -> None:
        """Put a job into the line; one that was run before stays as it is."""
        with self._change:
            if job.phase != PENDING:
                return
            self._enter(job, QUEUED)
        try:
            self._pool.submit(self._do, job)
        except RuntimeError:
            raise BusyError("the service is being stopped; try again in a moment") from None

    def abort(self, job: Job) -> None:
        """End a job; what it has computed is dropped, and its statement ends within its limit of time."""
        with self._change:
            if job.phase not in OVER:
                job.ended = _told(datetime.now(UTC))
                self._enter(job, ABORTED)

    def delete(self, job: Job) -> None:
        """Forget a job and its files."""
        self.abort(job)
        with self._change:
            self._jobs.pop(job.id, None)
        shutil.rmtree(self.folder / job.id, ignore_errors=True)

    def set_parameters(self, job: Job, values: dict[str, list[str]]) -> None:
        """Change parameters of a job that has not been run. Raises QueryError for one that has."""
        if job.phase != PENDING:
            raise QueryError(f"the job is {job.phase}; parameters can be changed while it is PENDING")
        job.values |= values
        self._keep(job)

    def set_destruction(self, job: Job, text: str) -> None:
        """Set when a job is deleted, at most 30 days from now."""
        try:
            time_of = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        except ValueError:
            raise QueryError(f"DESTRUCTION is {text!r:.60}, expected a time such as 2027-01-31T12:00:00Z") from None
        time_of = time_of if time_of.tzinfo else time_of.replace(tzinfo=UTC)
        job.destruction = _told(min(time_of.astimezone(UTC), datetime.now(UTC) + timedelta(days=LONGEST_DAYS)))
        self._keep(job)

    def wait(self, job: Job, seconds: float, phase: str | None) -> None:
        """Return when the phase of a job has changed, or after a while; at once where many wait already."""
        first, end = phase or job.phase, time.monotonic() + min(seconds, LONGEST_WAIT)
        with self._change:
            if self._waiting >= MOST_WAITING:
                return
            self._waiting += 1
            try:
                while job.phase == first and job.phase not in OVER and not self._closed:
                    left = end - time.monotonic()
                    if left <= 0:
                        return
                    self._change.wait(left)
            finally:
                self._waiting -= 1

    def upload(self, job: Job, name: str) -> bytes:
        """Return a table that was sent with a job."""
        return (self.folder / job.id / job.uploads[name]).read_bytes()

    def result(self, job: Job) -> bytes:
        """Return the result. Raises UnknownIdError where there is none."""
        path = self.folder / job.id / "result"
        if job.phase != COMPLETED or not path.is_file():
            raise UnknownIdError(f"the job is {job.phase} and has no result")
        return path.read_bytes()

    # ---- in the line

    def _do(self, job: Job) -> None:
        with self._change:
            if job.phase != QUEUED:
                return
            job.started = _told(datetime.now(UTC))
            self._enter(job, EXECUTING)
        try:
            content, job.media = self._worked(job)
            with replacing(self.folder / job.id / "result") as partial:
                partial.write_bytes(content)
            phase = COMPLETED
        except GalsearchError as error:
            job.message, phase = str(error), ERROR
        except Exception as error:  # noqa: BLE001  a thread has nobody above it who would say so
            job.message, phase = f"the service failed ({type(error).__name__}); please report it", ERROR
        with self._change:
            if job.phase == EXECUTING:
                job.ended = _told(datetime.now(UTC))
                self._enter(job, phase)

    def _worked(self, job: Job) -> tuple[bytes, str]:
        """Return the result, after waiting longer than who asks at once does."""
        for _ in range(BUSY_TRIES):
            try:
                return self._work(job)
            except BusyError:
                if self._closed or job.phase != EXECUTING:
                    break
                time.sleep(BUSY_SECONDS)
        return self._work(job)

    def _enter(self, job: Job, phase: str) -> None:
        with self._change:
            job.phase = phase
            self._keep(job)
            self._change.notify_all()

    def _keep(self, job: Job) -> None:
        path = self.folder / job.id / "job.json"
        if path.parent.is_dir():
            with replacing(path) as partial:
                partial.write_text(json.dumps(asdict(job)))

    def _sweep(self) -> None:
        now = _told(datetime.now(UTC))
        for job in [job for job in list(self._jobs.values()) if job.destruction <= now]:
            self.delete(job)


def _told(moment: datetime) -> str:
    return moment.strftime(TIME)


_NAMES = (
    'xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def job_xml(job: Job, url: str, seconds: float) -> bytes:
    """Return a job as UWS has it; `url` is its own address, `seconds` how long it may run."""
    times = (("quote", None), ("creationTime", job.created), ("startTime", job.started), ("endTime", job.ended))
    parts = [f"<uws:jobId>{xml_text(job.id)}</uws:jobId>"]
    if job.values.get("runid"):
        parts.append(f"<uws:runId>{xml_text(job.values['runid'][-1])}</uws:runId>")
    parts += [_element("ownerId", None), f"<uws:phase>{job.phase}</uws:phase>"]
    parts += [_element(name, value) for name, value in times]
    parts.append(f"<uws:executionDuration>{seconds:.0f}</uws:executionDuration>")
    parts += [
        _element("destruction", job.destruction),
        parameters_xml(job, whole=False),
        results_xml(job, url, whole=False),
    ]
    if job.phase == ERROR:
        message = f"<uws:message>{xml_text(job.message)}</uws:message>"
        parts.append(f'<uws:errorSummary type="fatal" hasDetail="true">{message}</uws:errorSummary>')
    return f'{_HEAD}<uws:job version="1.1" {_NAMES}>{"".join(parts)}</uws:job>\n'.encode()


def _element(name: str, value: str | None) -> str:
    return f'<uws:{name} xsi:nil="true"/>' if value is None else f"<uws:{name}>{xml_text(value)}</uws:{name}>"


def parameters_xml(job: Job, *, whole: bool = True) -> str:
    """Return the parameters of a job."""
    inside = "".join(
        f"<uws:parameter id={attribute(name)}>{xml_text(value)}</uws:parameter>"
        for name, values in job.values.items()
        for value in values
    )
    return _wrapped("parameters", inside, whole=whole)


def results_xml(job: Job, url: str, *, whole: bool = True) -> str:
    """Return where the result of a job is, which is called `result`."""
    inside = ""
    if job.phase == COMPLETED:
        where = attribute(f"{url}/results/result")
        inside = f'<uws:result id="result" mime-type={attribute(job.media)} xlink:href={where}/>'
    return _wrapped("results", inside, whole=whole)


def _wrapped(name: str, inside: str, *, whole: bool) -> str:
    return f"{_HEAD}<uws:{name} {_NAMES}>{inside}</uws:{name}>\n" if whole else f"<uws:{name}>{inside}</uws:{name}>"


def list_xml(jobs: list[Job], url: str) -> bytes:
    """Return a list of jobs."""
    inside = "".join(
        f"<uws:jobref id={attribute(job.id)} xlink:href={attribute(f'{url}/{job.id}')}>"
        f"<uws:phase>{job.phase}</uws:phase>{_element('ownerId', None)}"
        f"<uws:creationTime>{job.created}</uws:creationTime></uws:jobref>"
        for job in jobs
    )
    return f'{_HEAD}<uws:jobs version="1.1" {_NAMES}>{inside}</uws:jobs>\n'.encode()
