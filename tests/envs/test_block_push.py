import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from reprise.envs import BlockPush, BlockPushExpert, block_push_demonstrations, block_push_goals, block_push_pairs
from reprise.envs.block_push import CATCH, RADIUS, SPEED, TARGET, TIP


def placed(transport, effector, blocks, targets=((0.3, 0.8), (0.7, 0.8))):
    env = BlockPush(1, transport)
    env.reset(seed=0)
    env.effector[0], env.blocks[0], env.targets[0] = effector, blocks, targets
    return env


def drive(env, way):
    """The rewards along a way of points, reached at full speed."""
    rewards = []
    for point in way:
        while (gap := np.array(point) - env.effector[0]).any() and len(rewards) < 200:
            _, reward, terminated, _, _ = env.step(np.clip(gap, -SPEED, SPEED)[None])
            rewards.append(float(reward[0]))
            if terminated[0]:
                return rewards, True
            if np.abs(gap).max() < 1e-6:
                break
    return rewards, False


def test_a_block_is_caught_carried_and_let_go():
    env = placed("carry", (0.3, 0.1), ((0.3, 0.3), (0.7, 0.3)))
    rewards, done = drive(env, [(0.3, 0.3 - CATCH - 1e-3)])
    assert env.carried[0] == -1 and not done
    drive(env, [(0.3, 0.3 - CATCH + 1e-3)])
    assert env.carried[0] == 0
    rewards, done = drive(env, [(0.3, 0.6)])
    np.testing.assert_allclose(env.blocks[0, 0], env.effector[0])
    assert sum(rewards) == 0
    rewards, done = drive(env, [(0.3, 0.8)])
    assert sum(rewards) == pytest.approx(0.49) and env.carried[0] == -1
    assert np.linalg.norm(env.blocks[0, 0] - env.targets[0, 0]) < TARGET
    drive(env, [(0.3, 0.83), (0.45, 0.7)])
    assert env.carried[0] == -1  # what lies in a target is not caught again
    rewards, done = drive(env, [(0.7, 0.3), (0.7, 0.9)])
    assert done and rewards[-1] == pytest.approx(0.51) and sum(rewards) == pytest.approx(0.51)


def test_a_full_target_takes_no_second_block():
    env = placed("carry", (0.3, 0.62), ((0.3, 0.65), (0.45, 0.5)))
    drive(env, [(0.3, 0.8)])
    assert env.pairs[0, 0, 0]
    rewards, done = drive(env, [(0.45, 0.5), (0.3, 0.8)])
    assert sum(rewards) == 0 and env.carried[0] == 1 and not env.pairs[0, 1].any()
    rewards, done = drive(env, [(0.7, 0.8)])
    assert done and rewards[-1] == pytest.approx(0.51)


def test_a_disc_gives_way_along_the_line_of_contact_and_moves_the_other():
    env = placed("push", (0.3, 0.2), ((0.3, 0.4), (0.3, 0.55)))
    drive(env, [(0.3, 0.45)])
    np.testing.assert_allclose(env.blocks[0], [(0.3, 0.45 + RADIUS + TIP), (0.3, 0.45 + 3 * RADIUS + TIP)], atol=1e-6)
    env = placed("push", (0.26, 0.2), ((0.3, 0.4), (0.7, 0.4)))
    drive(env, [(0.26, 0.4)])
    assert env.blocks[0, 0, 0] > 0.3  # hit off its middle it slides off


@pytest.mark.parametrize("transport", ["carry", "push"])
def test_the_expert_finishes_in_all_four_modes(transport):
    demonstrations = block_push_demonstrations(40, seed=3, transport=transport)
    ends = demonstrations.ends - 1
    pairs = demonstrations.extras["pairs"].reshape(-1, 2, 2)
    assert (pairs[ends].sum((1, 2)) >= 2).all()
    finished = block_push_pairs(demonstrations.observations["state"][ends])
    assert {tuple(row) for row in finished.tolist()} == {(0, 1), (1, 0)}
    firsts = [episode.extras["pairs"].reshape(-1, 2, 2).any(2).sum(0).argmax() for episode in demonstrations]
    assert {0, 1} == set(firsts)
    assert np.linalg.norm(demonstrations.actions, axis=1).max() <= SPEED * (1 + 1e-6)


def test_what_is_recorded_is_undisturbed():
    """The recorded action is the expert's; the board moves by it and noise of the stated size."""
    demonstrations = block_push_demonstrations(30, seed=0, disturbance=0.33)
    state = demonstrations.observations["state"]
    inside = np.ones(len(state), bool)
    inside[demonstrations.ends - 1] = False
    resting = np.abs(demonstrations.actions).sum(1) == 0
    slip = (np.roll(state[:, :2], -1, 0) - state[:, :2] - demonstrations.actions)[inside & ~resting]
    expected = 0.33 * SPEED
    assert 0.7 * expected < slip.std() < 1.05 * expected  # steps are clipped to the speed of the effector
    calm = block_push_demonstrations(5, seed=0, disturbance=0.0)
    state = calm.observations["state"]
    inside = np.ones(len(state), bool)
    inside[calm.ends - 1] = False
    np.testing.assert_allclose((np.roll(state[:, :2], -1, 0) - state[:, :2])[inside], calm.actions[inside], atol=1e-6)


def test_environments_do_not_depend_on_how_many_there_are():
    many, one = BlockPush(5), BlockPush(1)
    rng = np.random.default_rng(0)
    assert np.array_equal(many.reset(seed=7)[0][2], one.reset(seed=9)[0][0])
    for _ in range(60):
        actions = rng.uniform(-SPEED, SPEED, (5, 2))
        seen = many.step(actions)[0]
        assert np.array_equal(seen[2], one.step(actions[2:3])[0][0])


def test_goals_follow_the_targets():
    demonstrations = block_push_demonstrations(20, seed=1)
    final = demonstrations.observations["state"][demonstrations.ends - 1]
    start, _ = BlockPush(20).reset(seed=5)
    goals = block_push_goals(final, start)
    np.testing.assert_allclose(goals[:, :2], final[:, :2])
    asked = np.concatenate([goals[:, :6], start[:, 6:]], 1)
    assert np.array_equal(block_push_pairs(asked), block_push_pairs(final))
    assert (goals[:, 2:6] != final[:, 2:6]).any()


def test_registered_and_checked():
    env = gymnasium.make("reprise/BlockPush-v0", render_mode="rgb_array")
    check_env(env.unwrapped, skip_render_check=True)
    assert env.reset(seed=0)[0].shape == (10,) and env.unwrapped.render().shape == (256, 256, 3)
    assert gymnasium.make_vec("reprise/BlockPush-v0", 3).reset(seed=0)[0].shape == (3, 10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BlockPush(1, "throw"), "unknown transport"),
        (lambda: block_push_demonstrations(0, seed=0), "at least 1"),
        (lambda: block_push_demonstrations(1, seed=0, disturbance=-1), "at least 0"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_expert_begins_anew_where_it_is_told():
    env = BlockPush(50)
    env.reset(seed=0)
    expert = BlockPushExpert(env, 0)
    before = expert.pace.copy()
    mask = np.arange(50) < 10
    expert.reset(mask)
    assert (expert.pace[mask] != before[mask]).all() and (expert.pace[~mask] == before[~mask]).all()
