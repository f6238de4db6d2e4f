"""What all families promise: seeding, state, reward, observations, errors; and the success tests of each."""

from __future__ import annotations

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from reprise.envs.maniskill import FAMILIES, evaluation_episodes, make_task, make_world
from reprise.envs.maniskill.objects import compound_object
from reprise.envs.maniskill.poses import exp_rotation, make_pose, yaw_quaternion
from reprise.envs.maniskill.tasks.turn_faucet import faucet

IDENTITY = np.eye(3)
MAXIMA = {
    "PickCube": 5, "StackCube": 15, "PickSingle": 10, "PegInsertionSide": 25, "TurnFaucet": 10, "PlugCharger": 50,
    "AvoidObstacles": 10, "OpenCabinetDoor": 10, "OpenCabinetDrawer": 10, "AssemblingKits": 10,
}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def world(request):
    return make_world(request.param)


def act(world, n, seed=0):
    rng = np.random.default_rng(seed)
    low, high = world.action_space.low, world.action_space.high
    for _ in range(n):
        world.set_action(rng.uniform(low, high))
        world.step()


# --- what all families promise ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*A Box observation space.*")
@pytest.mark.parametrize("family", FAMILIES)
def test_gymnasium_accepts_it(family):
    check_env(gymnasium.make(f"reprise/{family}-v0").unwrapped, skip_render_check=True)


def test_the_same_seed_gives_the_same_bits(world):
    observations, states = [], []
    for seed in (5, 9, 5):
        world.reset(seed)
        observations.append(world.observe())
        act(world, 3)
        states.append(world.get_state())
    assert np.array_equal(observations[0], observations[2]) and np.array_equal(states[0], states[2])
    if len(observations[0]) == len(observations[1]):
        assert not np.array_equal(observations[0], observations[1])


def test_a_state_can_be_restored(world):
    world.reset(3)
    act(world, 4)
    state, controller = world.get_state(), world.controller.get_state()
    act(world, 3, seed=1)
    first = world.get_state()
    world.set_state(state)
    assert np.array_equal(world.get_state(), state)
    world.controller.set_state(controller)
    act(world, 3, seed=1)
    assert np.array_equal(world.get_state(), first)
    with pytest.raises(ValueError, match=f"finite vector of {len(state)} numbers"):
        world.set_state(state[:-1])


def test_normalised_reward_never_exceeds_one(world):
    assert world.max_reward == MAXIMA[type(world).__name__]
    for seed in range(3):
        world.reset(seed)
        act(world, 3)
        assert world.reward() <= 1
        assert world.reward({**world.evaluate(), "success": True}) == 1


def test_the_robot_starts_at_home(world):
    starts = []
    for seed in range(4):
        world.reset(seed)
        starts.append(world.drives.qpos[-9:].copy())
        assert world.robot_is_static()
    if type(world).__name__ != "AvoidObstacles":
        np.testing.assert_allclose(np.mean(starts, 0), world.home, atol=0.05)
        assert (np.std(starts, 0)[:7] > 1e-3).all() and (np.std(starts, 0)[7:] == 0).all()


def test_nothing_starts_in_contact_with_the_robot(world):
    for seed in range(3):
        world.reset(seed)
        touching = np.isin(world.data.contact.geom, world.robot_geoms).any(1)
        assert not touching.any()


@pytest.mark.parametrize("family", FAMILIES)
def test_divergence_ends_the_episode_and_says_so(family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log of warnings where it runs
    env = make_task(family)
    before, _ = env.reset(seed=0)
    env.world.worlds[0].data.qvel[0] = 1e12
    observation, reward, terminated, _, info = env.step(np.zeros(env.action_space.shape))
    assert terminated and reward == 0 and info["unstable"] and not info["success"]
    assert np.array_equal(observation, before)
    env.reset(seed=0)
    *_, terminated, _, info = env.step(np.zeros(env.action_space.shape))
    assert not terminated and not info["unstable"]


def test_gravity_does_not_move_the_robot(world):
    world.reset(0)
    before = world.arm_qpos()
    world.controller.reset()
    world.drives.advance(200)
    np.testing.assert_allclose(world.arm_qpos(), before, atol=1e-6)


# --- the families -----------------------------------------------------------------------------------------------------


def test_pick_cube_starts_as_tabled():
    world = make_world("PickCube")
    starts, goals = [], []
    for seed in range(100):
        world.reset(seed)
        starts.append(world.position("cube"))
        goals.append(world.goal.copy())
    starts, goals = np.array(starts), np.array(goals)
    assert np.abs(starts[:, :2]).max() <= 0.1 and (starts[:, 2] == 0.02).all()
    assert np.abs(goals[:, :2]).max() <= 0.1
    lifts = goals[:, 2] - 0.02
    assert lifts.min() >= 0 and 0.4 < lifts.max() <= 0.5
    assert np.linalg.norm(goals - starts, axis=1).min() >= 0.05


def test_pick_cube_succeeds_at_the_goal_and_at_rest():
    world = make_world("PickCube")
    world.reset(0)
    for offset, success in ((0.024, True), (0.026, False)):
        world.set_pose("cube", world.goal + np.array([offset, 0, 0]))
        mujoco.mj_forward(world.model, world.data)
        assert world.success() == success
    world.set_pose("cube", world.goal)
    world.drives.qvel[3] = 0.21
    mujoco.mj_forward(world.model, world.data)
    assert not world.success()
    world.drives.qvel[3] = 0.19
    assert world.success() and world.reward() == 1


def test_stack_cube_succeeds_on_top_at_rest_and_let_go():
    world = make_world("StackCube")
    world.reset(0)
    B = world.position("cubeB")
    limit = 0.02 * np.sqrt(2) + 0.005
    for offset, success in (
        ([0, 0, 0.04], True), ([limit - 1e-4, 0, 0.04], True), ([limit + 1e-4, 0, 0.04], False),
        ([0, 0, 0.0449], True), ([0, 0, 0.0451], False),
    ):  # fmt: skip
        world.set_pose("cubeA", np.add(B, offset))
        mujoco.mj_forward(world.model, world.data)
        assert world.success() == success, offset
    world.set_pose("cubeA", np.add(B, [0, 0, 0.04]))
    world.data.joint(world.model.body("cubeA").jntadr[0]).qvel[2] = 2e-3
    mujoco.mj_forward(world.model, world.data)
    assert not world.success()


def test_stacked_cubes_do_not_start_overlapping():
    world = make_world("StackCube")
    for seed in range(50):
        world.reset(seed)
        assert np.linalg.norm(world.position("cubeA") - world.position("cubeB")) > 2 * 0.02 * np.sqrt(2)


def test_grasping_needs_both_fingers():
    world = make_world("PickCube", control_mode="pd_joint_pos")
    world.reset(0)
    tcp = world.tcp_pose()
    for closed, at, expected in ((True, [0, 0, 0], True), (False, [0, 0, 0], False), (True, [0, 0, 0.2], False)):
        world.reset(0)
        world.data.qpos[9:16] = [*(tcp[:3, 3] + at), *yaw_quaternion(np.arctan2(tcp[1, 1], tcp[0, 1]))]
        world.model.opt.gravity[2] = 0
        for _ in range(8):
            world.set_action(np.append(world.home[:7], -1.0 if closed else 1.0))
            world.step()
        assert world.is_grasping("cube") == expected
    world.model.opt.gravity[2] = -9.81


def test_a_grasp_at_an_angle_is_none_for_a_strict_test():
    world = make_world("PickCube")
    world.reset(0)
    finger, cube = world._finger_bodies[0], world.model.body("cube").id
    outwards = world.data.xmat[finger].reshape(3, 3)[:, 1]
    along = world.data.xmat[finger].reshape(3, 3)[:, 2]
    other = world._finger_bodies[1]
    for angle, limit, expected in ((30, 40, True), (30, 20, False), (84, 85, True), (86, 85, False)):
        force = np.cos(np.radians(angle)) * outwards + np.sin(np.radians(angle)) * along
        world.contact_force = lambda body, _: force if body == finger else -outwards  # noqa: B023
        world.data.ncon = 2
        assert other != cube and world.is_grasping("cube", max_angle=limit) == expected


def test_compound_objects_vary_and_hang_together():
    objects = [compound_object(seed) for seed in range(60)]
    assert compound_object(7) == objects[7]
    assert {len(parts) for parts in objects} == {2, 3, 4, 5}
    assert len({tuple((p.kind, p.parent) for p in parts) for parts in objects}) > 50
    for parts in objects:
        assert parts[0].parent == -1
        assert all(0 <= part.parent < i for i, part in enumerate(parts) if i)
        assert all(0.0075 <= s <= 0.03 for part in parts for s in part.size)


def test_parts_of_an_object_overlap():
    world = make_world("PickSingle")
    for model_id in range(10):
        world.reset(0, model_id=model_id)
        geoms = world.geoms_of("object")
        for i, part in enumerate(compound_object(model_id)):
            if i:
                distance = mujoco.mj_geomDistance(world.model, world.data, geoms[i], geoms[part.parent], 1.0, None)
                assert distance < 0.002


def test_pick_single_starts_at_rest_with_the_object_asked_for():
    world = make_world("PickSingle", object_set="test")
    for seed in range(5):
        world.reset(seed)
        assert world.model_id in range(200, 250)
        before = world.centre()
        world.drives.advance(50)
        world._update()
        assert np.linalg.norm(world.centre() - before) < 2e-3
    world.reset(0, model_id=3)
    assert world.model_id == 3
    drawn = world.get_state()
    world.reset(1)
    world.reset(0, model_id=3)
    assert np.array_equal(world.get_state(), drawn)


def test_a_model_that_is_drawn_or_given_makes_the_same_episode():
    world = make_world("PickSingle")
    world.reset(4)
    drawn = world.get_state()
    world.reset(5)
    world.reset(4, model_id=make_drawn(4))
    assert np.array_equal(world.get_state(), drawn)


def make_drawn(seed):
    world = make_world("PickSingle")
    world.reset(seed)
    return world.model_id


def test_pick_single_asks_for_the_centre_of_mass():
    world = make_world("PickSingle")
    world.reset(1)
    joint = world.data.qpos[9:12]
    joint += world.goal - world.centre()
    mujoco.mj_forward(world.model, world.data)
    np.testing.assert_allclose(world.centre(), world.goal, atol=1e-12)
    assert world.success() and world.reward() == 1


def test_the_state_of_pick_single_shows_the_object_from_above():
    world = make_world("PickSingle", obs_mode="state_dict")
    maps = []
    for model_id in (0, 1):
        world.reset(2, model_id=model_id)
        heights = world.observe()["extra"]["obj_heights"]
        maps.append(heights)
        corners = world._corners()
        assert heights.max() == pytest.approx(corners[:, 2].max(), abs=0.02) and (heights[0, 0], heights.min()) == (
            0,
            0,
        )
        # What is seen lies around the centre of mass, within the boxes around the parts.
        offsets = np.linspace(-0.06, 0.06, 10)
        seen = np.argwhere(heights > 0)
        reach = corners[:, :2] - world.centre()[:2]
        for axis in (0, 1):
            assert reach[:, axis].min() - 1e-6 <= offsets[seen[:, axis]].min()
            assert offsets[seen[:, axis]].max() <= reach[:, axis].max() + 1e-6
    assert not np.array_equal(*maps)
    assert world.clearance() == pytest.approx(0, abs=2e-3)
    world.data.qpos[11] += 0.1
    mujoco.mj_forward(world.model, world.data)
    assert world.clearance() == pytest.approx(0.1, abs=2e-3)


def test_the_peg_fits_its_hole_and_nothing_else_counts_but_its_head():
    world = make_world("PegInsertionSide")
    for seed in range(5):
        world.reset(seed)
        length, radius, y, z = world.asset
        assert 0.075 <= length <= 0.125 and 0.015 <= radius <= 0.025
        assert max(abs(y), abs(z)) <= 0.5 * (length - radius)
        hole = world.hole_pose()

        def put(head, turn=IDENTITY, hole=hole, length=length):
            pose = hole @ make_pose(np.eye(3), np.array(head)) @ make_pose(turn, np.zeros(3))
            pose = pose @ make_pose(np.eye(3), np.array([-length, 0, 0]))
            quaternion = np.empty(4)
            mujoco.mju_mat2Quat(quaternion, pose[:3, :3].ravel())
            world.set_pose("peg", pose[:3, 3], quaternion)
            mujoco.mj_forward(world.model, world.data)

        put([0.0, 0, 0])
        ends = world.data.contact.geom[world.data.contact.dist < -1e-6]
        pegs = [world.model.geom(name).id for name in ("head", "tail")]
        assert world.success() and not np.isin(ends, pegs).any()  # it is in and touches nothing
        r = radius + 0.003
        for head, success in (
            ([-0.0149, 0, 0], True), ([-0.0151, 0, 0], False), ([0, r - 1e-4, 0], True), ([0, r + 1e-4, 0], False),
            ([0, 0, r + 1e-4], False),
        ):  # fmt: skip
            put(head)
            assert world.success() == success
        put([0.0, 0, 0], turn=np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 1]]))
        assert world.success()  # the body stands across, which the success test does not ask


def test_peg_and_block_start_as_tabled():
    world = make_world("PegInsertionSide")
    for seed in range(10):
        world.reset(seed)
        length = world.asset[0]
        block, peg = world.pose("block"), world.pose("peg")
        assert abs(block[0, 3]) <= 0.05 and 0.2 <= block[1, 3] <= 0.4 and block[2, 3] == length
        assert abs(np.arctan2(block[1, 0], block[0, 0]) - np.pi / 2) <= np.pi / 8
        assert abs(peg[0, 3]) <= 0.1 and -0.3 <= peg[1, 3] <= 0
        assert abs(np.arctan2(peg[1, 0], peg[0, 0]) - np.pi / 2) <= np.pi / 3


def test_faucets_vary_and_are_open_at_nine_tenths():
    faucets = [faucet(seed) for seed in range(60)]
    assert {f.kind for f in faucets} == {"lever", "knob", "cross"} and {f.axis for f in faucets} == {"up", "side"}
    world = make_world("TurnFaucet")
    for model_id in range(8):
        world.reset(0, model_id=model_id)
        f = world.faucet
        assert world.angle() == f.lower
        full = f.lower + 0.9 * (f.upper - f.lower) if np.isfinite(f.upper) else f.lower + np.pi / 2
        for angle, success in ((full - 1e-3, False), (full + 1e-3, True)):
            world.data.joint("switch0").qpos = angle
            mujoco.mj_forward(world.model, world.data)
            assert world.success() == success


def test_turning_the_faucet_is_rewarded_in_the_step_that_turns_it():
    world = make_world("TurnFaucet", reward_mode="dense")
    world.reset(0)
    world.data.joint("switch0").qpos += 0.1
    mujoco.mj_forward(world.model, world.data)
    turned = world.reward()
    world.remember()
    afterwards = world.reward()
    assert turned - afterwards == pytest.approx(5 * np.tanh(0.2))
    assert afterwards < turned


def test_the_charger_plugs_in_either_way_round():
    world = make_world("PlugCharger")
    for seed in range(3):
        world.reset(seed)
        goal = world.goal_pose()

        def put(turn, along=0.0, goal=goal):
            pose = goal @ make_pose(turn, np.array([along, 0, 0]))
            quaternion = np.empty(4)
            mujoco.mju_mat2Quat(quaternion, pose[:3, :3].ravel())
            world.set_pose("charger", pose[:3, 3], quaternion)
            mujoco.mj_forward(world.model, world.data)

        for turn, along, success in (
            (IDENTITY, 0.0, True), (np.diag([1.0, -1, -1]), 0.0, True), (IDENTITY, -0.0049, True),
            (IDENTITY, -0.0051, False), (exp_rotation(np.array([0.19, 0, 0])), 0.0, True),
            (exp_rotation(np.array([0, 0.21, 0])), 0.0, False),
        ):  # fmt: skip
            put(turn, along)
            assert world.success() == success
        put(IDENTITY)
        prongs = [world.model.geom(name).id for name in ("prong1", "prong2")]
        deep = world.data.contact.geom[world.data.contact.dist < -1e-6]
        assert not np.isin(deep, prongs).any()


@pytest.mark.parametrize("family", ["OpenCabinetDoor", "OpenCabinetDrawer"])
def test_a_cabinet_is_open_at_nine_tenths_and_at_rest(family):
    world = make_world(family)
    for model_id in range(6):
        world.reset(0, model_id=model_id)
        distance = np.hypot(*world.drives.qpos[:2])
        assert 1.6 <= distance <= 1.8
        joint = world.data.joint(f"cabinet{world.target_index}")
        assert 0.05 <= world.model.joint(f"cabinet{world.target_index}").frictionloss[0] <= 0.15
        travel = world.cabinet.travel[world.target_index]
        for share, success in ((0.89, False), (0.91, True)):
            joint.qpos = 0
            mujoco.mj_forward(world.model, world.data)
            world.remember()
            joint.qpos = share * travel
            mujoco.mj_forward(world.model, world.data)
            assert not world.success()  # it has jumped there within one step
            world.remember()
            assert world.success() == success
        handle = world.handle_position()
        joint.qpos = 0
        mujoco.mj_forward(world.model, world.data)
        assert handle[0] < world.handle_position()[0]  # it opens towards the robot


def test_obstacles_leave_a_way_round_but_none_straight_through():
    world = make_world("AvoidObstacles")
    assert world.max_episode_steps == 500
    for model_id in range(4):
        world.reset(0, model_id=model_id)
        start, between, goal = world.route()
        assert np.array_equal(world.arm_qpos(), start)
        np.testing.assert_allclose(world.pose("base")[:3, 3], 0)
        steps = np.linspace(0, 1, 40)
        for a, b, free in ((start, between, True), (between, goal, True), (start, goal, False)):
            assert any(world.touching(a + share * (b - a)) for share in steps) != free
        for offset, success in ((0.0, True), (np.radians(14), True), (np.radians(16), False)):
            world.drives.qpos[:7] = goal
            world.drives.qpos[6] += offset
            mujoco.mj_forward(world.model, world.data)
            assert world.success() == success


def test_the_speed_of_a_door_is_a_finite_difference():
    world = make_world("OpenCabinetDrawer")
    world.reset(0)
    world.data.joint(f"cabinet{world.target_index}").qpos += 0.004
    mujoco.mj_forward(world.model, world.data)
    assert world.link_speed() == pytest.approx((0.08, 0.0), abs=1e-6)


def test_the_mobile_base_drives_in_its_own_frame():
    world = make_world("OpenCabinetDoor", control_mode="base_pd_joint_vel_arm_pd_joint_vel")
    world.reset(0)
    world.drives.qpos[2] = yaw = 2.0
    base = world.controller.parts["base"]
    assert base.high.tolist() == [0.5, 0.5, 3.14, 0.5] and world.controller.parts["arm"].high.tolist() == [3.14] * 7
    base.set_action(np.array([1.0, 0, 0.5, -0.2]))
    forward = [0.5 * np.cos(yaw), 0.5 * np.sin(yaw), 1.57, -0.1]
    np.testing.assert_allclose(world.drives._push[:4] / 1000, forward)
    assert (world.drives._gains[:4] == [0, 1000, 500]).all()
    action = np.zeros(world.controller.size)
    action[0] = 1.0
    for _ in range(15):
        world.set_action(action)
        world.step()
    np.testing.assert_allclose(world.drives.qvel[:4], [0.5 * np.cos(yaw), 0.5 * np.sin(yaw), 0, 0], atol=0.01)


# --- seeds and errors -------------------------------------------------------------------------------------------------


def test_the_evaluation_list_is_fixed_and_apart_from_training():
    for family, world in FAMILIES.items():
        episodes = evaluation_episodes(family)
        assert episodes == evaluation_episodes(family)
        assert len({episode["seed"] for episode in episodes}) == len(episodes)
        if world.objects:
            train = {episode["model_id"] for episode in episodes}
            test = {episode["model_id"] for episode in evaluation_episodes(family, "test")}
            assert train == set(world.objects["train"]) and test == set(world.objects["test"]) and not train & test
        else:
            assert len(episodes) == 100
    env = make_task("PickCube")
    env.reset(seed=0)
    drawn = [env.reset()[1]["episode_seed"] for _ in range(50)]
    assert max(drawn) < min(episode["seed"] for episode in evaluation_episodes("PickCube"))


def test_the_episode_is_cut_off():
    env = make_task("PickCube", max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(np.zeros(7))[3] for _ in range(3)] == [False, False, True]
    assert make_task("PickCube").world.max_episode_steps == 200


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_task("PickBall"), "unknown family 'PickBall'; there are PickCube, StackCube, "),
        (
            lambda: make_task("PickCube", obs_mode="pixels"),
            "unknown observation mode 'pixels'; there are none, state, ",
        ),
        (lambda: make_task("PickCube", control_mode="pd"), "unknown control mode 'pd'; there are pd_joint_pos, "),
        (lambda: make_task("PickCube", reward_mode="big"), "unknown reward mode 'big'; there are sparse, dense, "),
        (lambda: make_task("PickCube", control_freq=30), "500 Hz is no multiple of 30 Hz"),
        (lambda: make_task("PickCube", object_set="all"), "object_set is"),
        (lambda: make_task("PickCube", render_mode="human"), "unknown render mode 'human'"),
        (lambda: make_task("PickCube").reset(options={"goal": 1}), "unknown reset option 'goal'"),
        (lambda: make_task("PickCube").reset(options={"model_id": 1}), "PickCube has no objects to choose from"),
        (lambda: make_task("PickSingle").reset(options={"model_id": 999}), "model id 999; PickSingle has 0 to 249"),
        (lambda: make_task("PickSingle").reset(options={"model_id": [1, 2]}), r"one number or an array \(1, 1\)"),
        (lambda: make_world("PickCube").set_action(np.zeros(8)), r"\(7,\) here \(arm 6, gripper 1\), not \(8,\)"),
        (lambda: make_world("PickCube").set_action(np.full(7, np.nan)), "must be finite"),
        (lambda: evaluation_episodes("PickBall"), "unknown family"),
        (lambda: evaluation_episodes("PickCube", "all"), "object_set is"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
