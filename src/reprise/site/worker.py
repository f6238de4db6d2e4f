"""The process that performs one run of the queue: started by a server, and then on its own, whatever the server does.

`python -m reprise.site.worker` takes the next run, or ends at once if another worker is at work.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from reprise.files import written_whole
from reprise.lab import engines, paper as papers, results, runner
from reprise.lab.plan import Plan, make_plan, parse_seeds
from reprise.lab.unit import Failed, Finished
from reprise.site.database import DatabaseError
from reprise.site.queue import Queue, Run, working
from reprise.site.watch import topic, watched

__all__ = ["main", "start"]

TOLD = 0.5  # seconds between tellings of progress
PATIENCE = 3600.0  # seconds to wait for room on the disk


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start a worker that outlives this process; what it says before it has a run goes to ``worker.log``."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "worker.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "reprise.site.worker"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def main() -> None:
    """Perform the next run, if no other worker is at work."""
    queue = Queue()
    with working(queue.folder) as alone:
        run = queue.take() if alone else None
        if run is not None:
            _redirect(queue.log_path(run.id))
            threading.Thread(target=_listen, args=(queue, run.id), daemon=True).start()
            _end(queue, run)


def _end(queue: Queue, run: Run) -> None:
    """Perform a run and say how it ended, whatever happens; on a full disk as soon as there is room to say it."""
    state, message = "finished", ""
    try:
        failures, trials = perform(queue, run)
        if not trials:
            state, message = "failed", "no trial was finished; each failure is listed below"
        elif failures:
            message = f"{failures} parts failed; the others are kept"
    except KeyboardInterrupt:
        state = "stopped"
    except Exception as error:
        with contextlib.suppress(OSError):
            traceback.print_exc()
        state, message = "failed", " ".join(str(error).split()) or type(error).__name__
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return queue.end(run.id, state, message)
        except DatabaseError:
            if time.monotonic() > end:
                raise
            time.sleep(TOLD)


def perform(queue: Queue, run: Run) -> tuple[int, int]:
    """Perform a run; finished trials are kept as they come. Returns the numbers of failures and finished trials.

    Raises:
        PaperError, DataMissing, OSError: it cannot run here; the message says what to do.
        KeyboardInterrupt: it was told to stop.
    """
    paper = papers.find(run.slug)
    engines.warm_up(experiment.file for experiment in paper.experiments.values())
    plan = make_plan(paper, run.scale, seeds=parse_seeds(run.seeds) if run.seeds else None)
    trials = sum(len(part.jobs) for part in plan.parts)
    todo = runner.pending(plan)
    about = {"trials": trials, "kept": trials - todo, "seconds": runner.estimate(plan), "skipped": dict(plan.skipped)}
    queue.tell(run.id, "plan", about)
    _keep(queue, run, plan)
    failures = 0
    if todo:
        seeds = {unit.name: (unit.experiment.name, unit.seed) for unit in plan.units}
        work, told = runner.Work(plan), 0.0
        for event in engines.local(watched(plan, run.id).units):
            work.take(event)
            if isinstance(event, Finished):
                experiment, seed = seeds[event.unit]
                _keep(queue, run, plan)
                what = {"experiment": experiment, "arm": event.arm, "seed": seed, "seconds": event.seconds}
                queue.tell(run.id, "trial", what, topic(experiment, event.arm, seed))
            elif isinstance(event, Failed):
                failures += 1
                queue.tell(run.id, "failed", {"unit": event.unit, "arm": event.arm, "message": event.message})
            if time.monotonic() - told > TOLD or not work.running:
                told = time.monotonic()
                queue.tell(run.id, "progress", _progress(work))
    finished = sum(len(record["trials"]) for record in _keep(queue, run, plan).values())
    queue.tell(run.id, "progress", {"share": 1.0, "done": trials - failures, "trials": trials, "left": "", "now": []})
    return failures, finished


def _progress(work: Any) -> dict[str, Any]:
    now = [{"unit": unit, "arm": each.arm or "prepare", "share": each.share, "what": each.what}
           for unit, each in sorted(work.running.items())]  # fmt: skip
    return {"share": work.share, "done": work.done, "trials": work.trials, "left": work.left, "now": now}


def _keep(queue: Queue, run: Run, plan: Plan) -> dict[str, Any]:
    """Write what was measured so far where the pages find it."""
    records = results.collect(plan)
    with written_whole(queue.record_path(run.id)) as temporary:
        temporary.write_text(json.dumps(records), encoding="utf-8")
    return records


def _redirect(log: Path) -> None:
    """From now on, what this process and its children print goes to the run's own log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _listen(queue: Queue, number: int) -> None:
    """Interrupt this process as Ctrl-C would once somebody stops the run."""
    while True:
        time.sleep(0.3)
        try:
            run = queue.get(number)
        except DatabaseError:  # perhaps it can be read again later
            continue
        if run is None or run.stop:
            os.kill(os.getpid(), signal.SIGINT)
            return


if __name__ == "__main__":
    main()
