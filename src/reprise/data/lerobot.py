"""Episodes on disk in LeRobot's layout: version 2.1 is written; 2.0, 2.1 and 3.0 are read.

A data set is a folder: ``meta`` (info.json; tasks and episodes as JSON lines or, in 3.0, parquet), ``data`` (steps,
parquet) and ``videos`` (2.x: an MP4 for each camera and episode). Pictures may be in the parquet files as well.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reprise.data.episodes import Episodes
from reprise.data.store import read_table
from reprise.files import written_whole

__all__ = ["read_flat", "read_lerobot", "write_lerobot"]

CHUNK = 1000  # episodes in a folder
COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
PREFIX = "observation."


def read_flat(path: str | Path, cameras: Sequence[str] | None = None) -> Episodes:
    """Read steps that lie in one parquet file, with LeRobot's columns and no more.

    Args:
        path: has ``episode_index``, ``action`` and ``observation.*``; pictures as bytes of a PNG or JPEG.
        cameras: names of the pictures to read, say "image"; None reads all.

    Raises:
        ValueError: the file is damaged, or lacks a column.
    """
    schema = _schema(Path(path))
    pictures = [name for name, kind in schema.items() if kind.startswith("struct")]
    return _assemble([Path(path)], _unwanted(pictures, cameras, path), {})


def read_lerobot(folder: str | Path, cameras: Sequence[str] | None = None) -> Episodes:
    """Read a data set whole.

    ``observation.state`` becomes the observation ``state``, and so on; ``next.reward`` becomes the extra ``reward``;
    task sentences become instructions.

    Args:
        folder: that holds ``meta``, ``data`` and perhaps ``videos``.
        cameras: names of the pictures to read, say "image"; None reads all.

    Raises:
        FileNotFoundError: the folder is no such data set.
        ValueError: another version, a damaged file, or data that do not fit their description.
        ModuleNotFoundError: there are videos, and PyAV is not installed.
    """
    folder = Path(folder)
    info = json.loads(_text(folder / "meta" / "info.json"))
    version = str(info.get("codebase_version", "")).lstrip("v")
    if version.split(".")[0] not in ("2", "3"):
        raise ValueError(f"{folder} is of LeRobot's version {version or 'unknown'}; 2.0, 2.1 and 3.0 are read")
    features = info["features"]
    pictures = [name for name, feature in features.items() if feature["dtype"] in ("image", "video")]
    skipped = _unwanted(pictures, cameras, folder)
    videos = [name for name in pictures if name not in skipped and features[name]["dtype"] == "video"]
    if videos and version.startswith("3"):
        raise ValueError(f"{folder} has videos in the layout of version 3.0, of which only the other data are read")
    paths = sorted((folder / "data").glob("*/*.parquet"))
    if not paths:
        raise FileNotFoundError(f"{folder} has no data/*/*.parquet")
    episodes = _assemble(paths, skipped, _tasks(folder))
    if len(episodes) != info["total_episodes"] or episodes.steps != info["total_frames"]:
        raise ValueError(
            f"{folder} describes {info['total_episodes']} episodes of {info['total_frames']} steps but holds "
            f"{len(episodes)} of {episodes.steps}; it was copied or downloaded in part"
        )
    observations = dict(episodes.observations)
    for name in videos:
        files = [
            folder / info["video_path"].format(episode_chunk=i // info["chunks_size"], video_key=name, episode_index=i)
            for i in range(len(episodes))
        ]
        decoded = [_decode_video(file, int(length)) for file, length in zip(files, episodes.lengths, strict=True)]
        observations[name.removeprefix(PREFIX)] = np.concatenate(decoded)
    return Episodes(observations, episodes.actions, episodes.ends, episodes.instructions, episodes.extras)


def write_lerobot(episodes: Episodes, folder: str | Path, fps: float, robot_type: str | None = None) -> Path:
    """Write a data set of version 2.1, pictures as PNG inside the parquet files; whole or not at all.

    Args:
        episodes: what is written; bytes of shape (T, H, W, 3) are pictures.
        folder: must not exist.
        fps: steps a second.
        robot_type: noted in the description.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder exists.
    """
    import pyarrow
    import pyarrow.parquet

    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; choose another folder")
    columns = {PREFIX + name: array for name, array in episodes.observations.items()}
    columns |= {"action": episodes.actions} | {f"next.{name}": array for name, array in episodes.extras.items()}
    sentences = list(dict.fromkeys(episodes.instructions)) or [""]
    features = {name: _feature(array) for name, array in columns.items()}
    features |= {
        name: {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None} for name in COUNTERS
    }
    with written_whole(folder) as temporary:
        told, stats = [], []
        for i, (start, end) in enumerate(zip(episodes.starts, episodes.ends, strict=True)):
            length = int(end - start)
            sentence = episodes.instructions[i] if episodes.instructions else ""
            table = {name: _column(array[start:end]) for name, array in columns.items()}
            frame = np.arange(length)
            table["timestamp"] = pyarrow.array((frame / fps).astype(np.float32))
            table["frame_index"] = pyarrow.array(frame)
            table["episode_index"] = pyarrow.array(np.full(length, i))
            table["index"] = pyarrow.array(frame + int(start))
            table["task_index"] = pyarrow.array(np.full(length, sentences.index(sentence)))
            path = temporary / "data" / f"chunk-{i // CHUNK:03d}" / f"episode_{i:06d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(pyarrow.table(table), path)
            told.append({"episode_index": i, "tasks": [sentence], "length": length})
            stats.append({"episode_index": i, "stats": {n: _stats(array[start:end]) for n, array in columns.items()}})
        info = {
            "codebase_version": "v2.1",
            "robot_type": robot_type,
            "total_episodes": len(episodes),
            "total_frames": episodes.steps,
            "total_tasks": len(sentences),
            "total_videos": 0,
            "total_chunks": -(-len(episodes) // CHUNK),
            "chunks_size": CHUNK,
            "fps": fps,
            "splits": {"train": f"0:{len(episodes)}"},
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": None,
            "features": features,
        }
        meta = temporary / "meta"
        meta.mkdir()
        (meta / "info.json").write_text(json.dumps(info, indent=4), encoding="utf-8")
        _write_lines(meta / "tasks.jsonl", ({"task_index": i, "task": task} for i, task in enumerate(sentences)))
        _write_lines(meta / "episodes.jsonl", told)
        _write_lines(meta / "episodes_stats.jsonl", stats)
    return folder


def _assemble(paths: list[Path], skipped: list[str], tasks: dict[int, str]) -> Episodes:
    import pyarrow

    schema = _schema(paths[0])
    columns = [name for name in schema if name not in skipped]
    needed = {"episode_index", "action"} - set(columns)
    if needed or not any(name.startswith(PREFIX) for name in columns):
        raise ValueError(
            f"{paths[0]} must have the columns episode_index, action and observation.*; it has {', '.join(schema)}"
        )
    table = pyarrow.concat_tables([read_table(path, columns) for path in paths])
    order = np.lexsort(
        [table[name].to_numpy() for name in ("frame_index", "episode_index") if name in table.column_names]
    )
    episode = table["episode_index"].to_numpy()[order]
    if not len(episode):
        raise ValueError(f"{paths[0]} holds no step")
    ends = np.append(np.flatnonzero(np.diff(episode)) + 1, len(episode))
    observations: dict[str, np.ndarray] = {}
    extras: dict[str, np.ndarray] = {}
    actions: np.ndarray = np.empty(0)
    for name in columns:
        if name in COUNTERS:
            continue
        array = _array(table[name], name, paths[0])[order]
        if name == "action":
            actions = array.astype(np.float32).reshape(len(array), -1)
        elif name.startswith(PREFIX):
            observations[name.removeprefix(PREFIX)] = array
        else:
            extras[name.removeprefix("next.")] = array
    instructions: tuple[str, ...] = ()
    if tasks and "task_index" in columns:
        instructions = tuple(tasks[int(i)] for i in table["task_index"].to_numpy()[order][ends - 1])
    return Episodes(observations, actions, ends, instructions if any(instructions) else (), extras)


def _unwanted(pictures: list[str], cameras: Sequence[str] | None, source: str | Path) -> list[str]:
    wanted = pictures if cameras is None else [PREFIX + name for name in cameras]
    if unknown := sorted(set(wanted) - set(pictures)):
        raise ValueError(f"{source} has no pictures {unknown[0].removeprefix(PREFIX)!r}; it has {pictures}")
    return [name for name in pictures if name not in wanted]


def _schema(path: Path) -> dict[str, str]:
    """Column to type of a parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        return {item.name: str(item.type) for item in pyarrow.parquet.read_schema(path)}
    except FileNotFoundError:
        raise
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and get it again") from error


def _array(column: Any, name: str, path: Path) -> np.ndarray:
    import pyarrow

    column = column.combine_chunks()
    if pyarrow.types.is_struct(column.type):
        return np.stack(
            [_decode_picture(item["bytes"], name, row, path) for row, item in enumerate(column.to_pylist())]
        )
    if pyarrow.types.is_list(column.type) or pyarrow.types.is_fixed_size_list(column.type):
        shape: list[int] = [len(column)]
        while pyarrow.types.is_list(column.type) or pyarrow.types.is_fixed_size_list(column.type):
            column = column.flatten()
            width, rest = divmod(len(column), int(np.prod(shape)))
            if rest:
                raise ValueError(f"{name} of {path} has rows of different lengths")
            shape.append(width)
        return column.to_numpy(zero_copy_only=False).reshape(shape)
    return column.to_numpy(zero_copy_only=False)


def _decode_picture(data: bytes | None, name: str, row: int, path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data or b"")) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise ValueError(f"picture {row} of {name} in {path} cannot be decoded: {error}") from error


def _decode_video(path: Path, frames: int) -> np.ndarray:
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path.name} is a video, which PyAV decodes: pip install av") from error
    try:
        with av.open(str(path)) as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except av.FFmpegError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and get it again") from error
    if len(pictures) != frames:
        raise ValueError(f"{path} holds {len(pictures)} pictures of an episode of {frames} steps")
    return np.stack(pictures)


def _tasks(folder: Path) -> dict[int, str]:
    """Task sentences by number."""
    lines, table = folder / "meta" / "tasks.jsonl", folder / "meta" / "tasks.parquet"
    if lines.is_file():
        return {int(row["task_index"]): row["task"] for row in map(json.loads, _text(lines).splitlines()) if row}
    if table.is_file():
        rows = read_table(table).to_pylist()
        return {int(row["task_index"]): str(next(v for k, v in row.items() if k != "task_index")) for row in rows}
    return {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} is missing: {path.parent.parent} is no data set in LeRobot's layout"
        ) from error


def _is_picture(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim == 4 and array.shape[-1] == 3


def _feature(array: np.ndarray) -> dict[str, Any]:
    if _is_picture(array):
        return {"dtype": "image", "shape": list(array.shape[1:]), "names": ["height", "width", "channels"]}
    return {"dtype": array.dtype.name, "shape": list(array.shape[1:]) or [1], "names": None}


def _column(array: np.ndarray) -> Any:
    import pyarrow
    from PIL import Image

    if _is_picture(array):
        rows = []
        for picture in array:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG")
            rows.append({"bytes": buffer.getvalue(), "path": None})
        return pyarrow.array(rows, pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}))
    column = pyarrow.array(array.reshape(-1))
    for width in array.shape[:0:-1]:
        column = pyarrow.FixedSizeListArray.from_arrays(column, width)
    return column


def _stats(array: np.ndarray) -> dict[str, list[Any]]:
    """As LeRobot computes them: of pictures over all pixels, in 0..1, with the channels first."""
    count = [len(array)]
    if _is_picture(array):
        values = array.reshape(-1, 3) / 255.0
        found = {name: getattr(values, name)(0).reshape(3, 1, 1) for name in ("min", "max", "mean", "std")}
    else:
        values = array.reshape(len(array), -1).astype(np.float64)
        found = {name: getattr(values, name)(0) for name in ("min", "max", "mean", "std")}
    return {name: value.tolist() for name, value in found.items()} | {"count": count}


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
