import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from reprise.envs.fisheries import MODELS, FisheryVectorEnv, grow, initial_population
from reprise.rl import PPO
from reprise.rl.darn_good_control import (
    ConstantEscapement,
    ConstantMortality,
    DynamicProgram,
    GaussianProcessRule,
    Learned,
    evaluate,
    implied_escapement,
    parameter_grid,
    popular_window,
    simulate,
    smooth_rule,
    tune,
)


@settings(max_examples=25, deadline=None)
@given(s=st.lists(st.floats(0, 2), min_size=2, max_size=2), seed=st.integers(0, 99))
def test_constant_escapement_leaves_the_smaller_of_population_and_number(s, seed):
    population = np.random.default_rng(seed).uniform(0.01, 2, (20, 3))
    rule = ConstantEscapement(s)
    left = population[:, :2] * (1 - rule.act(population))
    np.testing.assert_allclose(left, np.minimum(population[:, :2], s), atol=1e-12)
    np.testing.assert_allclose(implied_escapement(rule, population), left)


def test_limits_of_the_simple_rules():
    population = np.array([[0.4, 0.5, 0.6]])
    assert (ConstantEscapement([0.4, 0.7]).act(population) == 0).all()
    assert (ConstantEscapement([0.0, 0.0]).act(population) == 1).all()
    assert simulate(ConstantMortality([0.0]), MODELS[2], 20, 0).reward.max() == 0
    np.testing.assert_allclose(ConstantMortality([0.3, 0.2]).fraction(0.9).act(population), [[0.27, 0.18]])


def test_without_noise_all_replicates_that_start_alike_are_alike(monkeypatch):
    monkeypatch.setattr("reprise.envs.fisheries.INITIAL_NOISE", 0.0)
    for model in (1, 2, 3, 4):
        fishery = dataclasses.replace(MODELS[model], sigma=0.0)
        result = simulate(ConstantMortality([0.1] * fishery.fisheries), fishery, 5, 0)
        assert np.ptp(result.reward) == 0 and result.reward[0] != 0


@pytest.mark.parametrize("model", [1, 2, 3, 4])
def test_simulation_is_the_environment(model):
    """Reward and length of the first episode of each environment, harvest heavy enough to end some of them early."""
    fishery, episodes = MODELS[model], 16
    rule = ConstantMortality([0.3] * fishery.fisheries)
    result = simulate(rule, fishery, episodes, 3)
    rng = np.random.default_rng(3)
    env = FisheryVectorEnv(episodes, model)
    env.reset(seed=0)
    env.population = initial_population(fishery, episodes, rng)
    total, alive, length = np.zeros(episodes), np.ones(episodes, bool), np.zeros(episodes, int)

    class Weather:
        def standard_normal(self, shape):
            if shape == (episodes, fishery.species) and self.fresh:
                self.fresh = False
                return rng.standard_normal(shape[::-1]).T
            return np.zeros(shape)

    env.rng = Weather()
    for t in range(200):
        env.rng.fresh = True
        _, reward, terminated, truncated, _ = env.step(rule.act(env.population, t))
        total += reward * alive
        length += alive
        alive &= ~(terminated | truncated)
    np.testing.assert_allclose(total, result.reward, atol=1e-9)
    assert np.array_equal(length, result.length)


def test_permuting_replicates_changes_nothing():
    rule = ConstantEscapement([0.4, 0.5])
    order = np.random.default_rng(1).permutation(50)
    population, noise = np.random.default_rng(0).uniform(0.1, 1, (2, 50, 3))
    after = grow(MODELS[4], population * 0.9, np.arange(50), noise)
    assert np.array_equal(after[order], grow(MODELS[4], population[order] * 0.9, np.arange(50)[order], noise[order]))
    assert np.array_equal(rule.act(population)[order], rule.act(population[order]))


def test_published_numbers_of_model_2():
    """Tuned constant mortality catches 19.8 +- 0.15 and hardly ever ends early (standard error 0.03)."""
    best, table = tune(ConstantMortality, MODELS[2], parameter_grid(0.5, 101, 1), seed=1)
    assert 0.26 <= best[0] <= 0.36 and table.shape == (101,)
    result = evaluate(ConstantMortality(best), MODELS[2], 4000, 5)
    assert result["reward"] == pytest.approx(19.8, abs=0.15) and result["full"] >= 0.99
    assert result["recorded"] < result["reward"] < result["recorded"] + 0.2


@pytest.mark.parametrize(
    ("model", "rule", "recorded"),
    [
        (1, ConstantMortality([0.01]), 0.84),
        (1, ConstantEscapement([0.51]), 1.90),
        (3, ConstantMortality([0.3, 0.25]), 62.5),
        (4, ConstantMortality([0.13, 0.27]), 43.8),
    ],
)
def test_published_numbers_at_the_published_parameters(model, rule, recorded):
    result = simulate(rule, MODELS[model], 400, 5)
    error = result.recorded.std() / 20
    assert abs(result.recorded.mean() - recorded) < 4 * error


def test_the_winner_of_a_grid_is_the_row_of_the_highest_mean():
    grid = parameter_grid(0.5, 3, 2)
    best, table = tune(ConstantMortality, MODELS[4], grid, replicates=5, seed=2, years=20)
    assert np.array_equal(best, grid[table.argmax()]) and len(table) == 9
    again = tune(ConstantMortality, MODELS[4], grid, replicates=5, seed=2, years=20)[1]
    assert np.array_equal(table, again)
    one = [evaluate(ConstantMortality(point), MODELS[4], 400, 1, years=20)["reward"] for point in grid]
    assert np.corrcoef(table, one)[0, 1] > 0.95


def test_episodes_that_end_are_not_recorded_further():
    result = simulate(ConstantMortality([0.45, 0.45]), MODELS[4], 30, 0, record=True)
    assert 0 < result.length.min() < 200
    lived = np.isfinite(result.populations).all(-1).sum(0)
    assert np.array_equal(lived, result.length) and result.mortalities.shape == (200, 30, 2)


# --- the Gaussian process ---------------------------------------------------------------------------------------------


def test_smoothing_a_constant_gives_the_constant():
    visited = np.random.default_rng(0).uniform(0.2, 0.9, (300, 3))
    smooth = smooth_rule(ConstantMortality([0.2, 0.4]), visited, n_main=11, n_side=3)
    np.testing.assert_allclose(smooth.act(visited), np.tile([0.2, 0.4], (300, 1)), atol=1e-3)
    one = smooth_rule(ConstantMortality([0.3]), visited[:, :1])
    np.testing.assert_allclose(one.act(np.linspace(0.1, 0.9, 5)[:, None]), 0.3, atol=1e-3)


def test_equals_the_process_of_scikit_learn():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel

    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (80, 3))
    actions = 0.5 + 0.3 * np.sin(4 * points[:, :2]) + 0.02 * rng.standard_normal((80, 2))
    ours = GaussianProcessRule(points, actions, fit_points=80)
    peer = GaussianProcessRegressor(1.0 * RBF(10.0) + WhiteKernel(0.1), random_state=0)
    peer.fit(points[(order := np.random.default_rng(0).permutation(80))], actions[order])
    x = rng.uniform(0, 1, (40, 3))
    np.testing.assert_allclose(ours.act(x), peer.predict(x).clip(0, 1), atol=1e-6)


def test_smoothing_takes_noise_away():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (300, 1))
    rule = GaussianProcessRule(points, 0.4 + 0.3 * points + 0.1 * rng.standard_normal((300, 1)))
    x = np.linspace(0.05, 0.95, 20)[:, None]
    assert np.abs(rule.act(x) - 0.4 - 0.3 * x).max() < 0.04


def test_popular_window():
    rng = np.random.default_rng(0)
    low, high = popular_window(np.r_[rng.uniform(0.4, 0.5, 800), rng.uniform(0, 1, 200)])
    assert 0.35 < low < 0.41 and 0.47 < high < 0.55
    assert popular_window(np.linspace(0, 1, 1000))[1] - popular_window(np.linspace(0, 1, 1000))[0] == pytest.approx(0.8)


# --- the dynamic programme and PPO ------------------------------------------------------------------------------------


def test_dynamic_programme_of_two_years_without_noise_by_hand():
    """In the last year all is caught but what survives it; in the year before, what grows most is left."""
    fishery = dataclasses.replace(MODELS[1], sigma=0.0)
    best = DynamicProgram(fishery, points=151, years=2)
    grown = grow(fishery, best.axis[:, None])[:, 0]
    assert 0.9 * (1 - best.act(np.array([[0.9]]), 1)[0, 0]) == pytest.approx(best.axis[grown > 0.05].min())
    left = 0.9 * (1 - best.act(np.array([[0.9]]), 0)[0, 0])
    assert left == pytest.approx(best.axis[(grown - best.axis)[best.axis < 0.9].argmax()], abs=0.03)


@pytest.mark.parametrize("model", [1, 2])
def test_dynamic_programme_is_not_below_the_simple_rules(model):
    best = DynamicProgram(MODELS[model], points=101 if model == 1 else 9)
    rules = {1: ConstantEscapement([0.51]), 2: ConstantMortality([0.29])}
    reached = evaluate(best, MODELS[model], 200, 3)["reward"]
    assert reached > evaluate(rules[model], MODELS[model], 200, 3)["reward"] - (0 if model == 1 else 1.5)


def test_worth_of_candidates_is_interpolated_where_one_is():
    best = DynamicProgram(MODELS[4], points=5, years=2)
    population = np.random.default_rng(0).uniform(0.1, 1, (6, 3))
    worth = best._worth_of_candidates(population, 0)
    assert worth.shape == (6, 6, 6)
    np.testing.assert_allclose(worth[:, -1, -1], best._interpolate(best.worth[0], best._place(population)))


def test_a_learned_policy_as_a_rule():
    ppo = PPO(FisheryVectorEnv(4, 4), n_steps=8, batch_size=32, normalize_actions=True, seed=0)
    population = np.random.default_rng(0).uniform(0.1, 1, (6, 3))
    assert np.array_equal(Learned(ppo).act(population), ppo.act((population / 4).astype(np.float32)))
    np.testing.assert_allclose(
        Learned(ppo).act(population), 0.5, atol=0.05
    )  # untrained: the middle, deviation one half
    samples = np.concatenate([Learned(ppo, False).act(population) for _ in range(300)])
    assert 0.1 < (samples == 0).mean() < 0.22  # a sixth of a normal distribution is clipped on either side


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parameter_grid(1, 0, 2), "at least one point, not 0"),
        (lambda: tune(ConstantMortality, MODELS[2], np.empty((0, 1))), "the grid is empty"),
        (lambda: simulate(ConstantMortality([0.1]), MODELS[3], 4, 0), r"gives \(4, 2\) mortalities, not \(4, 1\)"),
        (lambda: simulate(ConstantMortality([np.nan]), MODELS[2], 4, 0), "with NaN"),
        (lambda: DynamicProgram(MODELS[1], points=1), "at least two points"),
        (lambda: GaussianProcessRule(np.ones((4, 3)), np.ones((3, 1))), "do not go with"),
        (lambda: GaussianProcessRule(np.full((4, 3), np.nan), np.ones((4, 1))), "not finite"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
