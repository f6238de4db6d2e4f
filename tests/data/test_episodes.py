import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings, strategies as st

from reprise.data import DataMissing, Episodes, episodes, read_lerobot, write_lerobot


def recorded(lengths=(4, 1, 3), pictures=True, instructions=True, seed=0):
    generator = np.random.default_rng(seed)
    parts = []
    for i, length in enumerate(lengths):
        observations = {"state": generator.normal(size=(length, 3)).astype(np.float32)}
        observations["grid"] = generator.normal(size=(length, 2, 4)).astype(np.float32)
        if pictures:
            observations["image"] = generator.integers(0, 256, (length, 5, 6, 3)).astype(np.uint8)
        part = {"observations": observations, "actions": generator.normal(size=(length, 2))}
        part["extras"] = {"reward": generator.normal(size=length).astype(np.float32)}
        if instructions:
            part["instruction"] = ("push the T", "lift the cube")[i % 2]
        parts.append(part)
    return Episodes.of(parts)


def assert_equal(a, b):
    assert a.ends.tolist() == b.ends.tolist() and a.instructions == b.instructions
    for first, second in ((a.observations, b.observations), (a.extras, b.extras), ({"a": a.actions}, {"a": b.actions})):
        assert set(first) == set(second)
        for name, array in first.items():
            assert array.dtype == second[name].dtype
            np.testing.assert_array_equal(array, second[name])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.data())
def test_episodes_keep_their_steps(lengths, data):
    whole = recorded(lengths, pictures=False)
    assert whole.lengths.tolist() == lengths and whole.steps == sum(lengths)
    assert_equal(Episodes.of(list(whole)), whole)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    some = whole[chosen]
    assert some.lengths.tolist() == [lengths[i] for i in chosen]
    for place, i in enumerate(chosen):
        assert_equal(some[place], whole[i])
    steps = data.draw(st.integers(0, whole.steps - 1))
    episode = whole.episode_of(steps)
    assert whole.starts[episode] <= steps < whole.ends[episode]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_what_is_written_is_read(tmp_path_factory, lengths, pictures, instructions):
    whole = recorded(lengths, pictures, instructions)
    folder = write_lerobot(whole, tmp_path_factory.mktemp("sets") / "toy", fps=10)
    assert_equal(read_lerobot(folder), whole)
    table = pyarrow.parquet.read_table(folder / "data" / "chunk-000" / "episode_000000.parquet")
    np.testing.assert_allclose(table["timestamp"].to_numpy(), np.arange(lengths[0]) / 10, rtol=1e-6)
    if pictures:
        assert set(read_lerobot(folder, cameras=[]).observations) == {"state", "grid"}


def test_the_description_is_lerobots(tmp_path):
    import json

    folder = write_lerobot(recorded(), tmp_path / "toy", fps=10, robot_type="finger")
    info = json.loads((folder / "meta" / "info.json").read_text())
    assert info["codebase_version"] == "v2.1" and info["splits"] == {"train": "0:3"} and info["total_tasks"] == 2
    assert info["features"]["observation.image"]["dtype"] == "image"
    assert info["features"]["observation.grid"] == {"dtype": "float32", "shape": [2, 4], "names": None}
    assert info["features"]["next.reward"]["shape"] == [1]
    assert {"timestamp", "frame_index", "episode_index", "index", "task_index"} < set(info["features"])
    lines = [json.loads(line) for line in (folder / "meta" / "episodes.jsonl").read_text().splitlines()]
    assert lines[2] == {"episode_index": 2, "tasks": ["push the T"], "length": 3}
    stats = [json.loads(line) for line in (folder / "meta" / "episodes_stats.jsonl").read_text().splitlines()]
    assert np.shape(stats[0]["stats"]["observation.image"]["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(stats[0]["stats"]["action"]["max"], recorded()[0].actions.max(0), rtol=1e-6)
    table = pyarrow.parquet.read_table(folder / "data" / "chunk-000" / "episode_000002.parquet")
    assert table["index"].to_pylist() == [5, 6, 7] and table["task_index"].to_pylist() == [0, 0, 0]


def test_version_three_without_videos_is_read(tmp_path):
    """All episodes in one file, tasks in parquet, as from 3.0 on."""
    import json

    whole = recorded(pictures=False)
    old = write_lerobot(whole, tmp_path / "old", fps=10)
    new = tmp_path / "new"
    (new / "data" / "chunk-000").mkdir(parents=True)
    (new / "meta").mkdir()
    tables = [pyarrow.parquet.read_table(path) for path in sorted(old.glob("data/*/*.parquet"))]
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables[::-1]), new / "data" / "chunk-000" / "file-000.parquet")
    tasks = pyarrow.table({"task_index": [0, 1], "__index_level_0__": ["push the T", "lift the cube"]})
    pyarrow.parquet.write_table(tasks, new / "meta" / "tasks.parquet")
    info = json.loads((old / "meta" / "info.json").read_text()) | {"codebase_version": "v3.0"}
    (new / "meta" / "info.json").write_text(json.dumps(info))
    assert_equal(read_lerobot(new), whole)
    (new / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": "v1.6"}))
    with pytest.raises(ValueError, match=r"version 1\.6; 2\.0, 2\.1 and 3\.0 are read"):
        read_lerobot(new)


def test_videos_are_read_where_they_can_be_decoded(tmp_path):
    import json

    whole = recorded(pictures=False)
    folder = write_lerobot(whole, tmp_path / "toy", fps=10)
    info = json.loads((folder / "meta" / "info.json").read_text())
    info["features"]["observation.image"] = {"dtype": "video", "shape": [32, 48, 3], "names": None}
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    assert set(read_lerobot(folder, cameras=()).observations) == {"state", "grid"}
    try:
        import av
    except ModuleNotFoundError:
        with pytest.raises(ModuleNotFoundError, match="which PyAV decodes: pip install av"):
            read_lerobot(folder)
        return
    for i, length in enumerate(whole.lengths):
        path = folder / info["video_path"].format(episode_chunk=0, video_key="observation.image", episode_index=i)
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as film:
            stream = film.add_stream("mpeg4", rate=10)
            stream.width, stream.height = 48, 32
            for k in range(length):
                picture = np.full((32, 48, 3), 40 * (k + i), np.uint8)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            film.mux(stream.encode())
    pictures = read_lerobot(folder).observations["image"]
    shown = np.concatenate([40 * (np.arange(length) + i) for i, length in enumerate(whole.lengths)])
    np.testing.assert_allclose(pictures.mean((1, 2, 3)), shown, atol=3)
    path.write_bytes(b"no film")
    with pytest.raises(ValueError, match="is damaged"):
        read_lerobot(folder)


def test_one_file_of_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRISE_DATA", str(tmp_path))
    with pytest.raises(DataMissing, match="'toy' is not on this machine"):
        episodes.load("toy")
    (tmp_path / "toy").mkdir()
    columns = {
        "episode_index": [1, 0, 1], "frame_index": [1, 0, 0], "action": [[3.0], [1.0], [2.0]],
        "observation.state": [[30.0, 3.0], [10.0, 1.0], [20.0, 2.0]], "n_contacts": [2.0, 0.0, 1.0],
    }  # fmt: skip
    path = tmp_path / "toy" / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    toy = episodes.load("toy")
    assert toy.actions[:, 0].tolist() == [1, 2, 3] and toy.ends.tolist() == [1, 3]
    assert toy.observations["state"][:, 0].tolist() == [10, 20, 30] and toy.extras["n_contacts"].tolist() == [0, 1, 2]
    pyarrow.parquet.write_table(pyarrow.table({"action": [[1.0]]}), path)
    with pytest.raises(ValueError, match="must have the columns episode_index, action and observation"):
        episodes.load("toy")
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        episodes.load("toy")


def test_damaged_sets(tmp_path):
    folder = write_lerobot(recorded(), tmp_path / "toy", fps=10)
    with pytest.raises(FileExistsError, match="exists; choose another"):
        write_lerobot(recorded(), folder, fps=10)
    with pytest.raises(ValueError, match="has no pictures 'wrist'"):
        read_lerobot(folder, cameras=["wrist"])
    path = folder / "data" / "chunk-000" / "episode_000001.parquet"
    path.rename(tmp_path / "kept")
    with pytest.raises(ValueError, match="describes 3 episodes of 8 steps but holds 2 of 7"):
        read_lerobot(folder)
    path.write_bytes((tmp_path / "kept").read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"episode_000001.parquet is damaged"):
        read_lerobot(folder)
    with pytest.raises(FileNotFoundError, match="no data set in LeRobot's layout"):
        read_lerobot(tmp_path / "nowhere")


def test_what_is_refused():
    state, actions = np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32)
    for ends in ([2, 3], [2, 2, 4], [0, 4], []):
        with pytest.raises(ValueError, match="ends must rise"):
            Episodes({"state": state}, actions, np.array(ends, np.int64))
    with pytest.raises(ValueError, match="state has 3 steps, the actions have 4"):
        Episodes({"state": state[:3]}, actions, np.array([4]))
    with pytest.raises(ValueError, match="2 episodes take as many instructions, not 1"):
        Episodes({"state": state}, actions, np.array([1, 4]), ("go",))
    state = state.copy()
    state[2] = np.nan
    with pytest.raises(ValueError, match=r"state is not finite at step 2 \(episode 1\)"):
        Episodes({"state": state}, actions, np.array([1, 4]))
    whole = recorded(pictures=False)
    with pytest.raises(ValueError, match="must record the same things"):
        Episodes.of([whole, recorded(pictures=True)])
    with pytest.raises(ValueError, match="of 3 episodes between 1 and 2 can be held out"):
        whole.split(3, seed=0)
    train, test = whole.split(1, seed=0)
    assert len(train) == 2 and len(test) == 1 and train.steps + test.steps == whole.steps
