"""The README tells the truth: its code runs, its table is what `reprise list --markdown` prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0][:60])
def test_code_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_there_is_a_block_for_every_room() -> None:
    rooms = {path.parent.name for path in (ROOT / "src" / "reprise").glob("*/__init__.pyi")}
    shown = set(re.findall(r"from reprise\.(\w+) import|from reprise import (\w+)", "\n".join(BLOCKS)))
    assert rooms <= {name for pair in shown for name in pair}


def test_the_table_of_papers_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRISE_PAPERS", raising=False)
    command = [sys.executable, "-m", "reprise", "list", "--markdown"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert table in README, "write the output of `reprise list --markdown` into the README"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", README):
        assert (ROOT / target).exists(), target
