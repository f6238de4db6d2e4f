import errno
import multiprocessing
import sys
import time
import types

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from reprise.data import DataMissing, store


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "numbers.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1, 2, 3], "b": [4.0, 5.0, 6.0]}), path)
    return path


def doubled():
    return {"x": np.arange(6).reshape(2, 3), "y": np.ones(2)}


def forbidden():
    raise AssertionError("made anew, though it is in the cache")


def test_found_in_the_named_folder_first(tmp_path, home, monkeypatch):
    for folder in (tmp_path / "data", home / "data"):
        (folder / "mnist").mkdir(parents=True)
        (folder / "mnist" / "train.parquet").touch()
    assert store.find("mnist", "train") == home / "data" / "mnist" / "train.parquet"
    monkeypatch.setenv("REPRISE_DATA", str(tmp_path / "data"))
    assert store.find("mnist", "train") == tmp_path / "data" / "mnist" / "train.parquet"


def test_missing_names_the_remedy_and_where_it_looked(home, monkeypatch):
    monkeypatch.setenv("REPRISE_DATA", "/nowhere")
    with pytest.raises(DataMissing) as failure:
        store.find("mnist", "train")
    message = str(failure.value)
    for part in ("`reprise data get mnist`", "18 MB", "mnist/train.parquet", "/nowhere", str(home)):
        assert part in message
    with pytest.raises(DataMissing) as failure:
        store.find("secret", "train")
    assert "data get" not in str(failure.value)


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.delenv("REPRISE_DATA", raising=False)


def test_tables(source):
    assert store.read_table(source).column_names == ["a", "b"]
    assert store.read_table(source, ["b"]).to_pydict() == {"b": [4.0, 5.0, 6.0]}
    with pytest.raises(ValueError, match=r"numbers.parquet has no column c; it has a, b"):
        store.read_table(source, ["a", "c"])
    with pytest.raises(FileNotFoundError):
        store.read_table(source.with_name("none.parquet"))


@pytest.mark.parametrize("kept", [0, 40, -20])
def test_truncated_table(source, kept):
    source.write_bytes(source.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"numbers.parquet is damaged .*; delete it and get it again"):
        store.read_table(source)


def test_cached_once_per_content(source):
    made = store.cached(source, "test", doubled)
    read = store.cached(source, "test", forbidden)
    for arrays in (made, read):
        assert {name: array.tolist() for name, array in arrays.items()} == {"x": [[0, 1, 2], [3, 4, 5]], "y": [1, 1]}
    read["y"][:] = 7  # copy on write
    assert store.cached(source, "test", forbidden)["y"].tolist() == [1, 1]
    source.write_bytes(source.read_bytes() + b" ")
    assert store.cached(source, "test", lambda: {"x": np.zeros(1)})["x"].tolist() == [0]


@pytest.mark.parametrize("damage", ["truncate", "empty"])
def test_damaged_cache_is_made_anew(source, home, damage):
    store.cached(source, "test", doubled)
    for file in (home / "cache").glob("*/*.npy"):
        file.write_bytes(file.read_bytes()[:100]) if damage == "truncate" else file.unlink()
    assert store.cached(source, "test", doubled)["y"].tolist() == [1, 1]
    assert store.cached(source, "test", forbidden)["y"].tolist() == [1, 1]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_no_space_or_read_only(source, home, monkeypatch, code):
    def fail(*_):
        raise OSError(code, "cannot write")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", fail)
        assert store.cached(source, "test", doubled)["y"].tolist() == [1, 1]
        assert list((home / "cache").iterdir()) == []  # nothing half-written stays
    store.cached(source, "test", doubled)
    assert store.cached(source, "test", forbidden)["y"].tolist() == [1, 1]


def test_home_that_is_no_folder(source, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("REPRISE_HOME", str(tmp_path / "file"))
    assert store.cached(source, "test", doubled)["y"].tolist() == [1, 1]


def _cache(source, barrier, results):
    def make():
        barrier.wait()  # both find the cache empty
        time.sleep(0.01)
        return doubled()

    results.put(store.cached(source, "race", make)["x"].tolist())


def test_two_processes_at_once(source, home):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_cache, args=(source, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=30) for _ in workers] == [[[0, 1, 2], [3, 4, 5]]] * 2
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert store.cached(source, "race", forbidden)["y"].tolist() == [1, 1]
    assert len(list((home / "cache").iterdir())) == 1


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for huggingface_hub: what it was asked for, and what it answers."""
    module = types.ModuleType("huggingface_hub")
    module.asked, module.failing = [], []

    def hf_hub_download(repository, filename, repo_type):
        module.asked.append((repository, filename, repo_type))
        if filename in module.failing:
            raise TimeoutError("the line is dead")
        path = tmp_path / filename.replace("/", "-")
        path.write_text(filename)
        return str(path)

    module.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_download(hub, home):
    paths = store.get("mnist")
    assert paths == [home / "data" / "mnist" / f"{split}.parquet" for split in ("train", "test")]
    assert hub.asked[0] == ("ylecun/mnist", "mnist/train-00000-of-00001.parquet", "dataset")
    assert paths[1].read_text() == "mnist/test-00000-of-00001.parquet"
    assert store.find("mnist", "test") == paths[1]
    store.get("mnist")
    assert len(hub.asked) == 2  # what is there is kept


def test_download_goes_on_where_it_broke_off(hub, home):
    hub.failing = ["mnist/test-00000-of-00001.parquet"]
    with pytest.raises(ConnectionError, match=r"ylecun/mnist could not be downloaded \(the line is dead\)"):
        store.get("mnist")
    hub.failing = []
    assert len(store.get("mnist")) == 2
    assert [filename.split("/")[1][:5] for _, filename, _ in hub.asked] == ["train", "test-", "test-"]


def test_download_without_space_leaves_nothing_half_written(hub, home, monkeypatch):
    def fail(source, target):
        target.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.shutil, "copyfile", fail)
    with pytest.raises(OSError, match="No space left"):
        store.get("mnist")
    assert [path for path in (home / "data").rglob("*") if path.is_file()] == []


def test_download_of_the_unknown_and_without_the_client(monkeypatch):
    with pytest.raises(ValueError, match="unknown data set 'svhn'; there are mnist"):
        store.get("svhn")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        store.get("mnist")
