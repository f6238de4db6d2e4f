import subprocess
import sys

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from reprise.envs import MujocoWorld, PushT, SingleEnv, VectorWorld, WorkerWorld, make_vector

POLE = """
<mujoco>
  <option timestep=".01"/>
  <worldbody>
    <camera name="side" pos="0 -3 1" xyaxes="1 0 0 0 0 1"/>
    <geom type="plane" size="0 0 .1"/>
    <body pos="0 0 .5"><joint name="slide" type="slide" axis="1 0 0" range="-1 1" limited="true"/>
      <geom type="box" size=".1 .05 .05"/>
      <body><joint name="hinge" axis="0 1 0" damping=".01"/>
        <geom type="capsule" size=".02" fromto="0 0 0 0 0 .5"/></body>
    </body>
  </worldbody>
  <actuator><motor joint="slide" gear="10" ctrlrange="-1 1" ctrllimited="true"/></actuator>
  <sensor><jointpos joint="hinge"/></sensor>
</mujoco>
"""


class Walk(VectorWorld):
    """A random walk on a line that ends beyond 2; noise, starts and rewards come from each environment's generator."""

    def __init__(self, num_envs=1, max_episode_steps=5, **options):
        box = spaces.Box(-1.0, 1.0, (1,), np.float32)
        space = spaces.Dict({"state": spaces.Box(-9, 9, (1,)), "start": spaces.Box(-9, 9, ())})
        super().__init__(num_envs, space, box, max_episode_steps, **options)
        self.place, self.start = np.zeros(num_envs), np.zeros(num_envs)

    def reset_world(self, indices, options):
        for i in indices:
            self.start[i] = self.place[i] = options.get("start", self.rngs[i].uniform(-1, 1))
        return {"started": self.start[indices].copy()}

    def step_world(self, actions):
        self.place += actions[:, 0] + [0.1 * rng.normal() for rng in self.rngs]
        return self.place.copy(), self.place > 2, {"place": self.place.copy()}

    def observe(self, indices):
        return {"state": self.place[indices, None].astype(np.float32), "start": self.start[indices].astype(np.float32)}

    def draw(self, index):
        return np.full((4, 6, 3), int(10 * self.place[index]) % 256, np.uint8)


class Pole(MujocoWorld):
    def __init__(self, num_envs=1, max_episode_steps=20, **options):
        model = mujoco.MjModel.from_xml_string(POLE)
        super().__init__(
            model, num_envs, spaces.Box(-np.inf, np.inf, (5,)), spaces.Box(-1, 1, (1,)), max_episode_steps,
            frame_skip=2, **options,
        )  # fmt: skip

    def begin(self, index, data, rng, options):
        data.qpos[:] = rng.normal(scale=0.1, size=2)

    def outcome(self, actions):
        return self.qvel[:, 0].copy(), np.abs(self.qpos[:, 1]) > 1.2, {}

    def observe(self, indices):
        return np.concatenate([self.qpos, self.qvel, self.sensors], 1)[indices].astype(np.float32)


def play(env, steps=12, seed=7, scale=1.0):
    """Everything that comes out, for actions that depend on the environment's number alone."""
    observations, infos = env.reset(seed=seed)
    told = [(observations, infos)]
    actions = np.stack(
        [np.random.default_rng(i).uniform(-1, 1, (steps, *env.single_action_space.shape)) for i in range(env.num_envs)],
        1,
    ).astype(np.float32)
    for action in scale * actions:
        told.append(env.step(action))
    env.close()
    return told


def same(a, b):
    if isinstance(a, dict):
        assert set(a) == set(b)
        return all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray) and a.dtype == object:
        return all(same(x, y) for x, y in zip(a, b, strict=True))
    return (a is None and b is None) or np.array_equal(a, b)


def rows(told, part):
    """What a part of the environments was told; strangers' final observations and masked values are left out."""
    if isinstance(told, dict):
        return {key: rows(value, part) for key, value in told.items()}
    if isinstance(told, (tuple, list)):
        return [rows(value, part) for value in told]
    return told[part]


def without_empty(told):
    """Infos of nobody in this part are not told at all."""
    kept = {}
    for key, value in told.items():
        if key.startswith("_") or not told[f"_{key}"].any():
            continue
        kept[key] = without_empty(value) if isinstance(value, dict) else value[told[f"_{key}"]]
    return kept


def test_an_end_is_told_in_the_same_step():
    env = Walk(3, max_episode_steps=4)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    env.reset(seed=0, options={"start": 0.0})
    for _ in range(3):
        step = env.step(np.array([[0.8], [0.2], [0.0]], np.float32))
    observations, rewards, terminated, truncated, infos = step
    assert terminated.tolist() == [True, False, False] and not truncated.any()
    assert infos["_final_obs"].tolist() == [True, False, False] and infos["final_obs"][1] is None
    final = infos["final_obs"][0]
    assert final["state"][0] > 2 and final["start"] == 0 and rewards[0] == pytest.approx(final["state"][0])
    assert infos["final_info"]["place"][0] == rewards[0]
    assert abs(observations["state"][0, 0]) <= 1 and observations["start"][0] == observations["state"][0, 0] != 0
    assert infos["started"][0] == pytest.approx(observations["start"][0])
    assert infos["_started"].tolist() == [True, False, False] and infos["_place"].tolist() == [False, True, True]
    *_, terminated, truncated, infos = env.step(np.array([[0.0], [2.0], [0.0]], np.float32))
    assert terminated.tolist() == [False, True, False] and truncated.tolist() == [False, False, True]
    assert infos["final_obs"][2]["start"] == 0 and infos["final_obs"][0] is None


def test_observations_are_nobody_elses():
    env = Walk(2)
    first, _ = env.reset(seed=0)
    kept = first["state"].copy()
    env.step(np.ones((2, 1), np.float32))
    np.testing.assert_array_equal(first["state"], kept)


@pytest.mark.parametrize("world", [Walk, Pole, PushT])
def test_bits_do_not_depend_on_the_other_environments(world):
    scale = 300.0 if world is PushT else 1.0
    together = play(world(5, max_episode_steps=8), scale=scale)
    for i in (0, 3):
        alone = world(1, max_episode_steps=8)
        observations, _ = alone.reset(seed=7 + i)
        assert same(observations, rows(together[0][0], slice(i, i + 1)))
        steps = np.random.default_rng(i).uniform(-1, 1, (12, *alone.single_action_space.shape)).astype(np.float32)
        for action, (observations, rewards, terminated, truncated, infos) in zip(
            scale * steps, together[1:], strict=True
        ):
            mine = alone.step(action[None])
            part = slice(i, i + 1)
            assert same(mine[:4], rows((observations, rewards, terminated, truncated), part))
            assert same(without_empty(mine[4]), without_empty(rows(infos, part)))


def test_bits_do_not_depend_on_threads():
    assert same(play(Pole(6)), play(Pole(6, threads=2)))


def test_workers_give_the_bits_of_one_process():
    options = {"obs_mode": "image", "image_size": (16, 24), "max_episode_steps": 5}
    one = play(make_vector(PushT, 5, **options), scale=300.0)
    assert same(one, play(make_vector("reprise.envs.push_t:PushT", 5, workers=3, **options), scale=300.0))
    assert any("final_obs" in step[-1] for step in one[1:])


def test_workers_fail_in_a_sentence():
    env = WorkerWorld(PushT, 3, 2, render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"options\['state'\] is finite, of shape"):
        env.reset(options={"state": np.zeros(4)})
    with pytest.raises(ValueError, match="action of environment 2 is not finite"):
        env.step(np.array([[0.0, 0.0], [1.0, 1.0], [np.nan, 0.0]]))
    with pytest.raises(ValueError, match=r"have the shape \(3, 2\), not \(2, 2\)"):
        env.step(np.zeros((2, 2)))
    assert len(env.render()) == 3
    states = np.array([[100.0, 100, 200, 200, 0], [100, 100, 300, 200, 0], [100, 100, 400, 200, 0]])
    x = env.reset(options={"state": states})[0][:, 2]
    assert (np.diff(x) > 99).all()
    env.reset(options={"reset_mask": np.array([False, True, True])})
    env._processes[1].kill()
    with pytest.raises(RuntimeError, match="worker 1 died"):
        env.step(np.zeros((3, 2)))
    with pytest.raises(RuntimeError, match="has been closed"):
        env.step(np.zeros((3, 2)))


def test_a_mask_resets_some():
    env = Walk(3, autoreset=False, max_episode_steps=1)
    env.reset(seed=0)
    before = env.place.copy()
    observations, infos = env.reset(options={"reset_mask": np.array([False, True, False]), "start": 0.5})
    assert observations["state"][1] == 0.5 and (env.place != before).tolist() == [False, True, False]
    assert infos["_started"].tolist() == [False, True, False]
    env.step(np.zeros((3, 1), np.float32))
    with pytest.raises(RuntimeError, match="environment 0 has no running episode"):
        env.step(np.zeros((3, 1), np.float32))
    env.reset(options={"reset_mask": np.ones(3, bool)})
    env.step(np.zeros((3, 1), np.float32))


def test_what_is_refused():
    env = Walk(2)
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step(np.zeros((2, 1)))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"have the shape \(2, 1\), not \(2,\)"):
        env.step(np.zeros(2))
    with pytest.raises(ValueError, match="action of environment 1 is not finite"):
        env.step(np.array([[0.0], [np.nan]]))
    with pytest.raises(ValueError, match="2 environments take as many seeds, not 3"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="reset_mask is an array of 2 booleans"):
        env.reset(options={"reset_mask": np.zeros(2, bool)})
    with pytest.raises(ValueError, match="unknown render mode 'human'"):
        Walk(2, render_mode="human")
    with pytest.raises(ValueError, match="cannot be split among 3 workers"):
        WorkerWorld(Walk, 2, 3)


def test_a_single_environment_is_environment_zero():
    single, vector = SingleEnv(Walk, max_episode_steps=8), Walk(1, max_episode_steps=8)
    observation, info = single.reset(seed=7)
    observations, _ = vector.reset(seed=7)
    assert same(observation, rows(observations, 0)) and single.observation_space.contains(observation)
    assert info["started"] == pytest.approx(float(observation["start"]))
    for _ in range(8):
        observation, reward, terminated, truncated, info = single.step(np.array([0.2], np.float32))
        observations, rewards, *_, infos = vector.step(np.array([[0.2]], np.float32))
        last = infos["final_obs"][0] if "final_obs" in infos else rows(observations, 0)
        assert same(observation, last) and reward == rewards[0] and set(info) == {"place"}
        if terminated or truncated:
            break
    assert truncated


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("mode", ["state", "keypoints", "image"])
def test_gymnasium_makes_and_checks_it(mode):
    from gymnasium.utils.env_checker import check_env

    import reprise.envs  # noqa: F401

    env = gymnasium.make("reprise/PushT-v0", obs_mode=mode, render_mode="rgb_array")
    check_env(env.unwrapped)
    again = gymnasium.make(env.spec)
    assert same(env.reset(seed=3)[0], again.reset(seed=3)[0])
    vector = gymnasium.make_vec("reprise/PushT-v0", num_envs=3, obs_mode=mode)
    assert isinstance(vector, PushT) and same(rows(vector.reset(seed=2)[0], 1), env.reset(seed=3)[0])


def test_a_mujoco_world_steps_as_mujoco_does():
    env = Pole(3, render_mode="rgb_array")
    env.reset(seed=0)
    start, actions = env.state.copy(), np.array([[0.3], [-2.0], [0.9]], np.float32)
    env.step(actions)
    for i in range(3):
        data = mujoco.MjData(env.model)
        mujoco.mj_setState(env.model, data, start[i], mujoco.mjtState.mjSTATE_FULLPHYSICS)
        data.ctrl[:] = np.clip(actions[i], -1, 1)
        for _ in range(2):
            mujoco.mj_step(env.model, data)
        np.testing.assert_array_equal(env.qpos[i], data.qpos)
        np.testing.assert_array_equal(env.qvel[i], data.qvel)
        np.testing.assert_array_equal(env.sensors[i], data.sensordata)
        poses = env.poses(np.array([i]))
        mujoco.mj_forward(env.model, data)
        np.testing.assert_allclose(poses.geom_xpos[0], data.geom_xpos, atol=1e-12)
        np.testing.assert_allclose(poses.cam_xmat[0], data.cam_xmat, atol=1e-12)


def test_importing_the_room_is_light():
    code = "import sys, reprise.envs; print([m for m in ('torch', 'mujoco', 'numba', 'pymunk') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
