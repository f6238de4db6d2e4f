"""The page's database: brought up to date, shared by processes, whole or unchanged, and plain about what is wrong."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reprise.site import database as module, schema
from reprise.site.database import Database, DatabaseError


def put(database: Database, name: str, value: object) -> None:
    with database.write() as connection:
        connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def test_it_lies_in_the_home_and_keeps_what_was_written(home: Path) -> None:
    put(Database(), "colour", "green")
    assert (home / "site.db").is_file()
    assert Database().value("SELECT value FROM facts WHERE name = 'colour'") == "green"


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "site.db")
    before = database.changes
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute("INSERT INTO facts VALUES ('half', 1)")
        _ = 1 / 0
    assert database.value("SELECT value FROM facts WHERE name = 'half'") is None
    assert database.changes == before
    with database.write(), database.write() as inner:  # a part of the outer one
        inner.execute("INSERT INTO facts VALUES ('both', 1)")
    assert database.changes == before + 1


def test_an_earlier_version_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "site.db"
    put(Database(path), "colour", "green")
    monkeypatch.setattr(module, "STEPS", (*schema.STEPS, ("CREATE TABLE later (a)", "INSERT INTO later VALUES (1)")))
    assert Database(path).value("SELECT a FROM later") == 1
    assert Database(path).value("SELECT value FROM facts WHERE name = 'colour'") == "green"


def test_a_step_that_fails_leaves_the_earlier_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "site.db"
    put(Database(path), "colour", "green")
    monkeypatch.setattr(module, "STEPS", (*schema.STEPS, ("CREATE TABLE later (a)", "CREATE TABLE later (a)")))
    with pytest.raises(DatabaseError, match="already exists"):
        Database(path)
    monkeypatch.undo()
    assert Database(path).value("SELECT count(*) FROM sqlite_master WHERE name = 'later'") == 0


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.db"
    Database(path)
    sqlite3.connect(path).execute("PRAGMA user_version = 99")
    with pytest.raises(DatabaseError, match=r"newer reprise.*update reprise"):
        Database(path)


def test_a_damaged_file_is_named_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "site.db"
    path.write_bytes(b"these are not the pages of a database" * 400)
    with pytest.raises(DatabaseError, match=r"site.db is damaged.*move it away"):
        Database(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatabaseError, match="file"):
        Database(tmp_path / "file" / "site.db")


def test_a_full_disk_loses_nothing_that_was_there(tmp_path: Path) -> None:
    database = Database(tmp_path / "site.db")
    put(database, "kept", 1)
    pages = database.value("PRAGMA page_count")
    database.rows(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(DatabaseError, match=r"no room to write .*site.db.*free some space"):
        put(database, "large", "x" * 100_000)
    assert database.value("SELECT value FROM facts WHERE name = 'kept'") == 1
    assert database.value("SELECT value FROM facts WHERE name = 'large'") is None
    database.rows("PRAGMA max_page_count = 1000000")
    put(database, "large", "x" * 100_000)


WRITER = """
import sys
from pathlib import Path
from reprise.site.database import Database
database = Database(Path(sys.argv[1]))
for i in range(40):
    with database.write() as connection:
        connection.execute("INSERT INTO facts VALUES (?, ?)", (f"{sys.argv[2]} {i}", i))
"""


def test_two_processes_make_and_write_one_database(tmp_path: Path) -> None:
    path = str(tmp_path / "site.db")
    running = [subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in ("a", "b")]
    assert [process.wait(60) for process in running] == [0, 0]
    database = Database(path)
    assert database.value("SELECT count(*) FROM facts WHERE name LIKE 'a %' OR name LIKE 'b %'") == 80
    assert database.changes == 80


def test_who_waits_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    database = Database(tmp_path / "site.db")
    told: list[str] = []

    def other() -> None:
        try:
            put(database, "other", 1)
        except DatabaseError as error:
            told.append(str(error))

    with database.write():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert told and "another process" in told[0]
    put(database, "other", 1)


def test_a_killed_writer_leaves_no_half(tmp_path: Path) -> None:
    path = tmp_path / "site.db"
    Database(path)
    code = WRITER.replace("for i in", "import os\nfor i in") + "        i == 20 and os.kill(os.getpid(), 9)\n"
    assert subprocess.run([sys.executable, "-c", code, str(path), "a"]).returncode == -9
    database = Database(path)
    assert database.value("SELECT count(*) FROM facts WHERE name LIKE 'a %'") == 20
    put(database, "after", 1)
