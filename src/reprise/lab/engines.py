"""Where units run: on this machine, or on a Ray cluster. Ray schedules its own; we have no scheduler."""

from __future__ import annotations

import faulthandler
import io
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tarfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from reprise.lab import modules, store
from reprise.lab.provenance import cores
from reprise.lab.unit import Event, Failed, Progress, Unit, run_unit

__all__ = ["local", "ray", "warm_up"]

# Large activations otherwise come from fresh pages of the kernel each time: up to three times slower for small CNNs.
MALLOC = "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296"
# What every child imports, and what takes long of that which our modules import only once they need it.
PRELOAD = ["reprise.lab.forked", "torch", "numpy.random", "PIL.PngImagePlugin", "reprise.cli", "reprise.lab.plan",
           "reprise.lab.seeding", "reprise.lab.trial", "reprise.lab.unit"]  # fmt: skip
LATE = {"sklearn": "sklearn.datasets", "pyarrow": "pyarrow.parquet", "reprise.training.fit": "torch._dynamo"}
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # torch gets its threads from the unit


def environment() -> dict[str, str]:
    """What a process elsewhere must know of this one's environment."""
    return {name: os.environ[name] for name in ("REPRISE_HOME", "REPRISE_DATA", "REPRISE_PAPERS") if name in os.environ}


def log_of(unit: Unit) -> Path:
    """Where a unit writes what it prints and how it fails."""
    return store.runs(unit.paper.slug) / "logs" / f"{unit.label}.log"


# This machine --------------------------------------------------------------------------------------------------------


def warm_up(recipes: Iterable[Path] = ()) -> Any:
    """Start the server that children are forked from; while this process goes on, it loads what the recipes need.

    One server serves a process for as long as that lives: who edits the library meanwhile starts a new process.
    """
    for name in ONE_THREAD:
        os.environ[name] = "1"
    os.environ.setdefault("GLIBC_TUNABLES", MALLOC)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD, *dict.fromkeys(name for file in recipes for name in _imports(file))])
    forkserver.ensure_running()
    return context


def _imports(recipe: Path) -> list[str]:
    """What the trials of a recipe import; nothing if it cannot be read, which is told later."""
    try:
        ours = [name for name in modules.closure(recipe) if not name.startswith("reprise.papers.")]
        late = [LATE[name] for name in [*ours, *modules.third_party(recipe)] if name in LATE]
        drawn = any("\nfrom matplotlib" in file.read_text(encoding="utf-8") for file in recipe.parent.glob("*.py"))
    except (OSError, ValueError, SyntaxError):
        return []
    return [*late, *ours, *["matplotlib.figure"] * drawn]


def local(units: Sequence[Unit]) -> Iterator[Event]:
    """Run units in child processes, as many at a time as there are cores; those that need quiet run last, one by one.

    A child is forked from a server that has PyTorch loaded, so it starts in hundredths of a second. If it dies, that is
    told as the failure of its unit, and the rest goes on. If this process dies, its children end themselves.
    """
    context = warm_up(unit.experiment.file for unit in units)
    waiting = sorted(units, key=lambda unit: unit.experiment.alone)
    running: dict[Connection, tuple[Unit, Any]] = {}
    finished: set[str] = set()
    try:
        while waiting or running:
            while waiting and _fits(waiting[0], [unit for unit, _ in running.values()]):
                unit = waiting.pop(0)
                ours, theirs = context.Pipe()
                process = context.Process(target=_child, args=(unit, theirs, environment()), daemon=True)
                process.start()
                theirs.close()
                running[ours] = unit, process
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                unit, process = running[connection]
                try:
                    event = connection.recv()
                    if event is None:
                        finished.add(unit.name)
                    else:
                        yield event
                except (EOFError, ConnectionResetError):
                    process.join()
                    del running[connection]
                    connection.close()
                    if unit.name not in finished:
                        yield Failed(unit.name, None, _cause(process.exitcode), str(log_of(unit)))
    finally:
        for connection, (_, process) in running.items():
            process.kill()
            connection.close()
        for _, process in running.values():
            process.join()


def _fits(unit: Unit, beside: Sequence[Unit]) -> bool:
    if not beside:
        return True
    if unit.experiment.alone or unit.device != "cpu":
        return False
    return sum(other.experiment.threads for other in beside) + unit.experiment.threads <= cores()


def _cause(exitcode: int) -> str:
    if exitcode == -signal.SIGKILL:
        return "the process was killed (signal 9): the machine ran out of memory, or somebody killed it"
    if exitcode < 0:
        return f"the process crashed with {signal.Signals(-exitcode).name}"
    return f"the process ended early with status {exitcode}"


def _child(unit: Unit, connection: Connection, variables: dict[str, str]) -> None:
    os.environ.update(variables)  # the server has those of the time when it started
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    log = log_of(unit)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            faulthandler.enable(file)
            run_unit(unit, connection.send, log)
            sys.stdout.flush()
    except Exception as error:  # no place to write, say; errors of the recipe are told by run_unit
        connection.send(Failed(unit.name, None, str(error), str(log)))
    connection.send(None)


def _end_with_parent(connection: Connection) -> None:
    try:
        connection.recv()  # the parent never sends: this returns when it is gone
    except (EOFError, OSError):
        os._exit(1)


# A Ray cluster -------------------------------------------------------------------------------------------------------


def ray(units: Sequence[Unit], address: str | None = None) -> Iterator[Event]:
    """Run units as tasks of a Ray cluster: the one at ``address``, or one started here for as long as it takes.

    Ray runs the units of a lost node again elsewhere. A worker keeps finished trials in its own store, as a local run
    does, and sends them here. reprise and its data must be installed on every node.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """
    try:
        import ray as cluster
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the ray engine needs Ray: pip install 'reprise[ray]'") from error
    started = not cluster.is_initialized()
    if started:
        _check_address(address)
        here = {"num_cpus": cores(), "include_dashboard": False}
        settings: dict[str, Any] = {"address": address} if address else here
        settings["runtime_env"] = {"env_vars": environment()}
        cluster.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
    try:
        task = cluster.remote(_ray_task)
        pending = {}
        for unit in units:
            alone = unit.experiment.alone
            options = {"num_cpus": unit.experiment.threads, "num_gpus": float(unit.device == "cuda"), "max_retries": 5}
            if alone:  # a quiet machine: take every core of a node
                options["num_cpus"] = max(node["Resources"].get("CPU", 1) for node in cluster.nodes() if node["Alive"])
            pending[task.options(**options).remote(unit)] = unit
            yield Progress(unit.name, None, 0.0, "waits")
        while pending:
            done, _ = cluster.wait(list(pending), timeout=1.0)
            for reference in done:
                unit = pending.pop(reference)
                try:
                    events, folders = cluster.get(reference)
                except cluster.exceptions.RayError as error:
                    yield Failed(unit.name, None, " ".join(str(error).split())[:300], str(log_of(unit)))
                    continue
                for identity, packed in folders:
                    _unpack(store.trial_folder(unit.paper.slug, identity), packed)
                yield from events
    finally:
        if started:
            cluster.shutdown()


def _check_address(address: str | None) -> None:
    """Refuse an address where nobody listens; Ray itself would try for minutes and then end the process."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            hint = "`ray start --head` starts one"
            raise ConnectionError(f"there is no Ray cluster at {address} ({error.strerror}); {hint}") from error


def _ray_task(unit: Unit) -> tuple[list[Event], list[tuple[dict[str, Any], bytes]]]:
    events: list[Event] = []
    run_unit(unit, lambda event: None if isinstance(event, Progress) else events.append(event), log_of(unit))
    folders = []
    for job in unit.jobs:
        folder = store.trial_folder(unit.paper.slug, job.identity)
        if folder.is_dir():
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as archive:
                archive.add(folder, arcname=".")
            folders.append((job.identity, packed.getvalue()))
    return events, folders


def _unpack(folder: Path, packed: bytes) -> None:
    if not folder.is_dir():
        with store.written_whole(folder) as temporary, tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(temporary, filter="data")
