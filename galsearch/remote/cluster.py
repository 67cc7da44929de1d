"""Work on several machines by Ray: pieces of one task, each done again where a worker or its machine dies.

Ray starts, places and restarts the workers. A task is a public function of galsearch that takes a specification (bytes)
once in each worker process and returns what does one piece; doing a piece twice must do no harm, since who dies may
have finished it. Workers see the same files under the same paths, and have the same galsearch.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from galsearch.errors import GalsearchError

RAY = "ray"
RETRIES = 20  # of a piece whose worker dies; what ends every worker would be tried for ever otherwise
POLL_SECONDS = 0.5
CONNECT_SECONDS = 10.0
STORE_BYTES = 128 << 20  # of Ray's object store here: only specifications go through it
Task = Callable[[bytes], Callable[[Any], None]]
_prepared: dict[str, Callable[[Any], None]] = {}  # in a worker process, by task and specification


def check_cluster(on: str | None, address: str | None) -> None:
    """Raise GalsearchError unless there is such a cluster."""
    if on is not None and on != RAY:
        raise GalsearchError(f"on is {on!r:.40}, expected {RAY}, or nothing for this machine alone")
    if address is not None and on is None:
        raise GalsearchError("address is that of a Ray cluster; give on='ray' (--on ray) as well")


def each_done(
    task: Task, specification: bytes, pieces: Sequence[Any], *, address: str | None, gpus: bool, software: str
) -> Iterator[int]:
    """Do every piece, a CPU core each at a time; yield how many are done, whenever one is and twice a second.

    `address` is that of a running cluster ("auto" for the one of this machine); None starts one here for the while.
    With `gpus` the cores share what GPUs the cluster has. Raises GalsearchError without Ray, where no cluster answers,
    for a piece whose workers keep dying, and for workers with another galsearch than `software`; what a piece raises
    comes through.
    """
    with _cluster(address) as ray:
        resources = ray.cluster_resources()
        share = resources.get("GPU", 0) / max(resources.get("CPU", 1), 1) if gpus else 0
        remote = ray.remote(num_cpus=1, num_gpus=share, max_retries=RETRIES)(_do)
        held = ray.put(specification)
        waiting = [remote.remote(task, held, piece, software) for piece in pieces]
        try:
            while waiting:
                done, waiting = ray.wait(waiting, timeout=POLL_SECONDS)
                for one in done:
                    _result(ray, one)
                yield len(pieces) - len(waiting)
        finally:
            for one in waiting:
                ray.cancel(one, force=True)


def _do(task: Task, specification: bytes, piece: Any, software: str) -> None:
    """Do one piece, in a worker."""
    from galsearch import schema

    if schema.software() != software:
        raise GalsearchError(
            f"a worker has {schema.software()}, and {software} was started; install the same everywhere"
        )
    key = f"{task.__module__}:{task.__qualname__} {hashlib.sha256(specification).hexdigest()}"
    if key not in _prepared:
        _prepared.clear()
        _prepared[key] = task(specification)
    _prepared[key](piece)


def _result(ray: Any, reference: Any) -> None:
    """Wait for a piece, and raise what it raised, as ours."""
    from ray import exceptions

    try:
        ray.get(reference)
    except exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, GalsearchError) else None
        raise cause or GalsearchError(f"a worker failed: {error.cause!r:.300}; please report it") from None
    except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError, exceptions.NodeDiedError) as error:
        raise GalsearchError(
            f"the workers of one piece died {RETRIES + 1} times ({str(error).splitlines()[0]:.200}); what is done is "
            "kept: look into their logs with `ray logs`, and run this again"
        ) from None


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Give Ray, connected; what was started for the while is stopped again."""
    try:
        import ray
    except ImportError:
        raise GalsearchError("Ray is not installed; pip install 'galsearch[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray will have it, without a warning
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="lance is not fork-safe"
            )  # what Ray forks becomes another program
            if address is None:
                ray.init(include_dashboard=False, object_store_memory=STORE_BYTES, **quiet)
            else:
                _check_answers(address)
                ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        where = "on this machine" if address is None else f"at {address}"
        raise GalsearchError(
            f"no Ray cluster {where}: {str(error).splitlines()[0]:.200}; start one with `ray start --head`"
        ) from None
    with redirect_stdout(
        sys.stderr
    ):  # for what Ray says of workers that died, some of it at the end: stdout is for data
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise OSError where nothing answers at host:port: Ray itself would wait for minutes, and end this process."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
