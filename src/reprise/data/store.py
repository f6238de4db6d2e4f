"""Where data sets are found and kept: ``$REPRISE_DATA``, then the cache, both in the layout of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from reprise.files import home, written_whole

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

__all__ = ["SOURCES", "DataMissing", "cached", "digest", "files", "find", "get", "read_table", "where"]

# Official names on the hub, the folder of the parquet files there, and what a download weighs in megabytes.
SOURCES = {
    "mnist": ("ylecun/mnist", "mnist", 18),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", "fashion_mnist", 36),
    "cifar10": ("uoft-cs/cifar10", "plain_text", 144),
}


class DataMissing(FileNotFoundError):
    """A data set is not on this machine."""


def find(name: str, split: str) -> Path:
    """The parquet file of one split.

    Raises:
        DataMissing: it is neither under ``$REPRISE_DATA`` nor in the cache; the message says how to get it.
    """
    folders = [Path(os.environ["REPRISE_DATA"])] if os.environ.get("REPRISE_DATA") else []
    folders.append(home() / "data")
    for folder in folders:
        path = folder / name / f"{split}.parquet"
        if path.is_file():
            return path
    remedy = f"`reprise data get {name}` downloads it ({SOURCES[name][2]} MB), or " if name in SOURCES else ""
    raise DataMissing(
        f"the data set {name!r} is not on this machine: {remedy}set REPRISE_DATA to a folder that holds "
        f"{name}/{split}.parquet (looked in {' and '.join(map(str, folders))})"
    )


def files(name: str) -> list[Path]:
    """Every split of a data set.

    Raises:
        DataMissing: as :func:`find`.
    """
    return sorted(find(name, "train").parent.glob("*.parquet"))


def where(name: str) -> str:
    """In words, where a data set is."""
    if name == "digits":
        return "comes with scikit-learn"
    try:
        return str(find(name, "train").parent)
    except DataMissing:
        return f"not here; `reprise data get {name}` downloads it"


def read_table(path: Path, columns: list[str] | None = None) -> pyarrow.Table:
    """Read a parquet file.

    Raises:
        ValueError: the file is damaged, or a column is not in it.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        missing = sorted(set(columns or []) - set(file.schema_arrow.names))
        if missing:
            raise ValueError(f"{path} has no column {', '.join(missing)}; it has {', '.join(file.schema_arrow.names)}")
        return file.read(columns)
    except (FileNotFoundError, PermissionError):
        raise
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and get it again") from error


def digest(path: Path) -> str:
    """A fingerprint of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def cached(source: Path, kind: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays derived from a file, made once per content of the file and memory-mapped from the cache afterwards.

    Where the cache cannot be written (read-only, full), the arrays are made anew at each call. A damaged cache is made
    anew, too.
    """
    import numpy as np

    folder = home() / "cache" / f"{source.stem}-{kind}-{digest(source)}"
    try:
        # Copy-on-write: readers may not change the file, and PyTorch wants writable memory.
        arrays = {path.stem: np.load(path, mmap_mode="c") for path in folder.glob("*.npy")}
    except (OSError, ValueError):
        arrays = {}
    if arrays:
        return arrays
    shutil.rmtree(folder, ignore_errors=True)
    arrays = make()
    with suppress(OSError), written_whole(folder) as temporary:
        temporary.mkdir()
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
    return arrays


def get(name: str) -> list[Path]:
    """Download a data set from the Hugging Face hub into the cache; splits that are there already are kept.

    Returns:
        The parquet files, one per split.

    Raises:
        ValueError: the data set is unknown.
        ModuleNotFoundError: huggingface_hub is not installed.
        ConnectionError: the hub cannot be reached, or broke off; what has arrived is kept for the next call.
    """
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(SOURCES)}")
    repository, folder, _ = SOURCES[name]
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("downloads need huggingface_hub: pip install 'reprise[paper]'") from error
    paths = []
    for split in ("train", "test"):
        target = home() / "data" / name / f"{split}.parquet"
        if not target.is_file():
            remote = f"{folder}/{split}-00000-of-00001.parquet"
            try:  # the hub's client takes up broken downloads and checks size and checksum
                fetched = hf_hub_download(repository, remote, repo_type="dataset")
            except Exception as error:  # its kinds of exceptions change with its version
                raise ConnectionError(
                    f"{repository} could not be downloaded ({error}); the same command goes on where it stopped"
                ) from error
            with written_whole(target) as temporary:
                shutil.copyfile(fetched, temporary)
        paths.append(target)
    return paths
