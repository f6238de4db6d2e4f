import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings, strategies as st

from reprise.envs import FisheryEnv, FisheryVectorEnv
from reprise.envs.fisheries import MODELS, grow, initial_population, penalty


@pytest.mark.parametrize("model", [2, 3])
@pytest.mark.parametrize(
    ("before", "after"),
    [((0.5, 0.5, 0.7), (0.570588, 0.555147, 0.7035)), ((0.8, 0.3, 1.2), (0.620384, 0.288, 1.2156))],
)
def test_one_year_without_noise_or_harvest(model, before, after):
    np.testing.assert_allclose(grow(MODELS[model], np.array([before]))[0], after, atol=1e-6)


def test_growth_declines_in_model_4():
    population = np.tile([0.5, 0.5, 0.7], (2, 1))
    after = grow(MODELS[4], population, np.array([0, 50]))
    np.testing.assert_allclose(after[0], [0.570588, 0.555147, 0.7035], atol=1e-6)
    np.testing.assert_allclose(after[1], [0.508088, 0.555147, 0.7035], atol=1e-6)
    assert MODELS[4].growth_rate(100) == MODELS[4].growth_rate(150) == 0.5
    assert MODELS[3].growth_rate(100) == 1


def test_fixed_points_of_model_1():
    for x, stable in ((0.04634, True), (0.36932, False), (0.58434, True)):
        assert grow(MODELS[1], np.array([[x]]))[0, 0] == pytest.approx(x, abs=1e-5)
        population = np.array([[x + 1e-3]])
        for _ in range(20):
            population = grow(MODELS[1], population)
        assert (abs(population[0, 0] - x) < 1e-3) == stable


def test_noise_multiplies_what_is_left_after_the_harvest():
    population, noise = np.array([[0.5, 0.4, 0.7]]), np.array([[1.0, -2.0, 0.5]])
    difference = grow(MODELS[3], population, 0, noise) - grow(MODELS[3], population)
    np.testing.assert_allclose(difference, 0.1 * population * noise)
    assert (grow(MODELS[1], np.array([[0.1]]), 0, np.array([[-1e3]])) == 0).all()


@settings(max_examples=20, deadline=None)
@given(model=st.sampled_from([1, 2, 3, 4]), action=st.floats(0, 1), seed=st.integers(0, 99))
def test_single_and_vector_environment_agree(model, action, seed):
    one, many = FisheryEnv(model), FisheryVectorEnv(1, model)
    first, _ = one.reset(seed=seed)
    assert np.array_equal(first, many.reset(seed=seed)[0][0])
    actions = np.full(MODELS[model].fisheries, action)
    for _ in range(5):
        observation, reward, terminated, _, _ = one.step(actions)
        observations, rewards, ends, cuts, infos = many.step(actions[None])
        expected = infos["final_obs"][0] if ends[0] or cuts[0] else observations[0]
        assert np.array_equal(observation, expected) and reward == rewards[0] and terminated == ends[0]
        if terminated:
            break


def test_a_year_by_hand():
    env = FisheryVectorEnv(1, 3, sigma=0)
    env.reset(seed=0)
    env.population = np.array([[0.8, 0.6, 0.7]])
    observation, reward, *_ = env.step([[0.25, 1.5]])  # more than all of it is all of it
    assert reward[0] == pytest.approx(0.2 + 0.6 + penalty(0))
    env.population, env.t[:] = np.array([[0.8, 0.6, 0.7]]), 0
    observation, reward, *_ = env.step([[0.25, 0.5]])
    np.testing.assert_allclose(observation, grow(MODELS[3], np.array([[0.6, 0.3, 0.7]])) / 4, rtol=1e-6)
    assert reward[0] == pytest.approx(0.2 + 0.3)


def test_ends():
    assert penalty(0) == -100 and penalty(199) == -0.5
    env = FisheryVectorEnv(3, 3, sigma=0)
    env.reset(seed=0)
    # The predator counts, too, and counts after its growth by half a per cent.
    env.population, env.t[:] = np.array([[0.5, 0.5, 0.0495], [0.5, 0.5, 0.0499], [0.5, 0.5, 0.7]]), [199, 199, 9]
    observation, reward, terminated, truncated, infos = env.step([[0, 0], [0, 0], [0.95, 0]])
    assert terminated.tolist() == [True, False, True] and truncated.tolist() == [False, True, False]
    np.testing.assert_allclose(reward, [-0.5, 0, 0.475 - 10])
    env.population[:], env.t[:] = np.array([0.5, 0.5, 0.7]), [199, 198, 0]
    observation, reward, terminated, truncated, infos = env.step(np.zeros((3, 2)))
    assert truncated.tolist() == [True, False, False] and not terminated.any() and (reward == 0).all()
    np.testing.assert_allclose(infos["final_obs"][0], [0.570588 / 4, 0.555147 / 4, 0.7035 / 4], atol=1e-6)
    assert abs(4 * observation[0] - MODELS[3].initial).max() < 0.1 and env.t.tolist() == [0, 199, 1]


def test_without_a_limit_nothing_is_cut():
    env = FisheryVectorEnv(4, 4, time_limit=None)
    env.reset(seed=0)
    cuts = [env.step(np.zeros((4, 2)))[3].any() for _ in range(260)]
    assert not any(cuts) and env.t.max() > 200


def test_starts_near_the_published_population():
    population = initial_population(MODELS[4], 10_000, np.random.default_rng(0))
    np.testing.assert_allclose(population.mean(0), [0.5, 0.5, 0.7], atol=2e-3)
    np.testing.assert_allclose(population.std(0), 0.02, rtol=0.05)


def test_seeds():
    def run(seed):
        env = FisheryVectorEnv(5, 4)
        env.reset(seed=seed)
        return [env.step(np.full((5, 2), 0.2))[0] for _ in range(3)][-1]

    assert np.array_equal(run(1), run(1)) and not np.array_equal(run(1), run(2))


def test_perturbed_numbers():
    rng = np.random.default_rng(0)
    draws = [MODELS[4].perturbed(0.1, rng) for _ in range(400)]
    for name in ("r_x", "d_z", "c"):
        values = np.array([getattr(draw, name) for draw in draws]) / getattr(MODELS[4], name)
        assert values.mean() == pytest.approx(1, abs=0.02) and values.std() == pytest.approx(0.1, abs=0.015)
    assert {(draw.sigma, draw.initial, draw.drift) for draw in draws} == {(0.1, (0.5, 0.5, 0.7), True)}
    assert MODELS[4].perturbed(0, rng) == MODELS[4]


@pytest.mark.parametrize("model", [1, 2, 3, 4])
def test_keeps_gymnasiums_contract(model):
    check_env(gymnasium.make("reprise/Fishery-v0", model=model).unwrapped, skip_render_check=True)
    many = gymnasium.make_vec("reprise/Fishery-v0", 3, "vector_entry_point", model=model)
    assert many.reset(seed=0)[0] in many.observation_space
    assert many.step(many.action_space.sample())[0] in many.observation_space


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda env: FisheryVectorEnv(2, 5), "there are models 1 to 4, not 5"),
        (lambda env: env.step(np.zeros((2, 3))), r"actions are mortalities \(2, 2\), not \(2, 3\)"),
        (lambda env: env.step([[0, 0], [0, np.nan]]), "the action of environment 1 is NaN"),
    ],
)
def test_wrong_input(call, message):
    env = FisheryVectorEnv(2, 4)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        call(env)
