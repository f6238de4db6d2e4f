"""What every test gets: a home of its own, so that nothing is read from or left in the user's, and an allowance."""

from __future__ import annotations

import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)  # the same examples every time: what passes here passes there
settings.load_profile("repeatable")  # look for new ones with --hypothesis-profile=default
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other on a busy machine burn its cores

TESTS = Path(__file__).parent
TOYS = TESTS / "toys"
ALLOWANCE = 6.0  # seconds of one core for the tests of one part
UNBOUND = ("lab", "site")  # whose tests start processes, servers and browsers
SLACK = 3.0  # beyond it, it fails: a slower machine takes longer, and on a new one the first test compiles the kernels

spent: defaultdict[str, float] = defaultdict(float)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    start = time.process_time()
    try:
        return (yield)
    finally:
        file = item.path.relative_to(TESTS)
        if len(file.parts) > 1 and file.parts[0] not in UNBOUND:
            spent[str(file)] += time.process_time() - start


def pytest_sessionfinish(session: pytest.Session) -> None:
    if any(seconds > SLACK * ALLOWANCE for seconds in spent.values()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for file, seconds in spent.items():
        if seconds > ALLOWANCE:
            terminalreporter.write_line(f"{file} took {seconds:.1f} s of one core; {ALLOWANCE:g} are meant")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``$REPRISE_HOME``."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("REPRISE_HOME", str(folder))
    return folder


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy papers, beside the library's own."""
    monkeypatch.setenv("REPRISE_PAPERS", str(TOYS))
    return TOYS


@pytest.fixture
def mounted() -> Callable[[Path, str], AbstractContextManager[None]]:
    """Mounts a file system of its own at a folder, with options ("size=100k"), where this machine allows it."""

    @contextmanager
    def mount(folder: Path, options: str) -> Iterator[None]:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this user may not mount a file system")
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)

    return mount
