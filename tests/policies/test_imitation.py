import json

import numpy as np
import pytest
import torch
from torch import nn

from reprise.data import Episodes, Windows
from reprise.policies import BC, ImitationPolicy, ObservationEncoder, Shapes, masked_mean
from reprise.policies.demonstrations import Demonstrations
from reprise.training import Diverged


class Tape(ImitationPolicy):
    """Plans the noise it is given, plus how many observations of the history were not repeated; keeps its batches."""

    def build(self, shapes):
        self.batches = []
        return nn.Linear(1, 1)

    def loss(self, batch):
        self.batches.append(batch)
        return self.module(torch.zeros(1, 1)).square().sum()

    def predict(self, batch, noise, generator=None):
        self.batches.append(batch)
        return noise + (~batch["history_padding"]).sum(1)[:, None, None]


def episodes(lengths=(6, 9), seed=0, **more):
    rng = np.random.default_rng(seed)
    T = sum(lengths)
    observations = {"state": rng.normal(3, 2, (T, 3)), "image": rng.integers(0, 255, (T, 4, 5, 3), dtype=np.uint8)}
    actions = rng.uniform(-2, 8, (T, 2)).astype(np.float32)
    return Episodes(observations, actions, np.cumsum(lengths), **more)


def fitted(policy, data=None, **options):
    torch.manual_seed(0)
    return policy.fit(data or episodes(), **{"steps": 2, "batch_size": 4} | options)


# --- what a subclass sees ---------------------------------------------------------------------------------------------


def test_batches_are_scaled_and_plans_scaled_back():
    policy = fitted(Tape(horizon=3, history=2, observations=("state", "image"), goal="final"))
    batch, data = policy.batches[0], episodes()
    assert batch["observations"]["state"].shape == (4, 2, 3) and batch["goal"]["state"].shape == (4, 3)
    assert batch["observations"]["image"].dtype == torch.uint8
    assert batch["observations"]["image"].shape == (4, 2, 4, 5, 3)
    everything = policy.prepare(data)[0].some(1000, 0)
    for values in (everything["observations"]["state"], everything["actions"]):
        assert values.amin((0, 1)).allclose(torch.tensor(-1.0)) and values.amax((0, 1)).allclose(torch.tensor(1.0))
    noise = torch.full((4, 3, 2), -2.0)  # one new observation for each: -2 + 1 is the smallest action
    observation = {"state": np.ones((4, 3)), "image": np.zeros((4, 4, 5, 3), np.uint8)}
    chunk = policy.plan(observation | {"goal": observation}, noise)
    assert chunk.allclose(torch.from_numpy(data.actions.min(0)).expand(4, 3, 2), atol=1e-5)


@pytest.mark.parametrize(("scaling", "mean", "deviation"), [("standard", 0, 1), ("none", None, None)])
def test_other_scalings(scaling, mean, deviation):
    data = episodes()
    policy = fitted(Tape(observation_scaling=scaling, action_scaling=scaling), data)
    state = policy.prepare(data)[0].some(1000, 0)["observations"]["state"][:, 0]
    if mean is None:
        mean, deviation = (torch.from_numpy(f(data.observations["state"], axis=0)).float() for f in (np.mean, np.std))
    assert torch.allclose(state.mean(0), torch.as_tensor(mean).float().expand(3), atol=1e-4)
    assert torch.allclose(state.std(0, correction=0), torch.as_tensor(deviation).float().expand(3), atol=1e-4)


def test_constant_dimensions_neither_blow_up_nor_get_lost():
    data = episodes()
    data.observations["state"][:, 1], data.actions[:, 0] = 7.0, 3.0
    policy = fitted(Tape(), data)
    batch = policy.prepare(data)[0].some(1000, 0)
    assert (batch["observations"]["state"][..., 1] == 0).all() and (batch["actions"][..., 0] == 0).all()
    assert policy.plan(np.full((1, 3), 7.0), torch.full((1, 1, 2), -1.0))[0, 0, 0] == 3.0


def test_padding_is_limited_where_asked():
    data = episodes((6, 9))
    steps = lambda **limits: len(fitted(Tape(horizon=4, history=2, **limits)).prepare(data)[0])  # noqa: E731
    assert steps() == 15
    assert steps(pad_start=0) == 13
    assert steps(pad_start=0, pad_end=0) == (6 - 4) + (9 - 4)
    assert steps(pad_end=1) == 15 - 2 * 2
    assert steps(first_action=-1, pad_start=0, pad_end=0) == (6 - 3) + (9 - 3)


def test_instructions_and_goals_reach_the_network():
    data = episodes(instructions=("open it", "close it"))
    policy = fitted(Tape(goal="future", goal_observations=("image",), instructions=16), data)
    everything = policy.prepare(data)[0].some(1000, 0)
    assert set(everything["goal"]) == {"image"}
    codes = policy.text(["open it", "close it"])
    assert torch.equal(everything["instruction"], codes[everything["episode"]])
    goal = np.zeros((2, 4, 5, 3), np.uint8)
    for observation in (
        {"state": np.ones((2, 3)), "goal": goal, "instruction": "open it"},
        {"observation.state": torch.ones(2, 3), "goal": {"image": goal}, "task": ["open it", "open it"]},
    ):
        policy.plan(observation)
        batch = policy.batches[-1]
        assert torch.equal(batch["instruction"], codes[[0, 0]]) and batch["goal"]["image"].shape == (2, 4, 5, 3)


def test_lerobot_pictures_are_the_same_as_ours():
    policy = fitted(Tape(observations=("image",)))
    picture = np.random.default_rng(0).integers(0, 255, (2, 4, 5, 3), dtype=np.uint8)
    for same in (picture, picture / 255, torch.from_numpy(picture).movedim(-1, 1) / 255):
        policy.plan({"observation.image": same})
        assert np.array_equal(policy.batches[-1]["observations"]["image"][:, 0], picture)


# --- acting -----------------------------------------------------------------------------------------------------------


def test_history_is_kept_for_each_environment():
    policy = fitted(Tape(history=3))
    zero = torch.zeros(2, 1, 2)
    at = lambda x: np.full((2, 3), float(x))  # noqa: E731
    seen = lambda: policy.normalizers["state"].inverse(policy.batches[-1]["observations"]["state"])[..., 0]  # noqa: E731
    policy.plan(at(0), zero)
    policy.observe(at(1))
    policy.reset(np.array([False, True]))
    policy.plan(at(2), zero)
    assert seen().round().tolist() == [[0, 1, 2], [2, 2, 2]]
    assert policy.batches[-1]["history_padding"].tolist() == [[False] * 3, [True, True, False]]
    policy.plan(at(3), zero[:1], environments=[False, True])
    assert seen().round().tolist() == [[2, 2, 3]]
    policy.plan(at(4), zero)
    assert seen().round().tolist() == [[2, 3, 4], [2, 3, 4]]
    policy.reset()
    policy.plan(np.zeros((5, 3)))
    assert policy.batches[-1]["history_padding"].tolist() == [[True, True, False]] * 5


def test_act_is_what_the_plan_says_for_now():
    policy = fitted(Tape(horizon=4, history=2, first_action=-1))
    noise = torch.randn(3, 4, 2)
    observation = np.zeros((3, 3))
    plan = policy.plan(observation, noise)
    policy.reset()
    action = policy.act(observation, noise)
    assert isinstance(action, np.ndarray) and np.array_equal(action, plan[:, 1])


# --- learning ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_policy_and_averages_act():
    options = {"width": 8, "blocks": 1, "goal": "future"}
    first, again = (fitted(BC(horizon=2, **options), steps=12, learning_rate=0.01) for _ in range(2))
    last = fitted(BC(horizon=2, **options), steps=12, learning_rate=0.01, ema=None)
    observation = {"state": np.ones((1, 3)), "goal": np.ones((1, 3))}
    assert torch.equal(first.plan(observation), again.plan(observation))
    assert not torch.equal(first.plan(observation), last.plan(observation))
    assert first.trained.steps == 12 and not first.module.training


def test_validation_episodes_are_held_out_and_told():
    told = []
    data = episodes((6, 9, 7))
    policy = BC(horizon=2, width=8, blocks=1)
    fitted(policy, data, steps=4, validation=0.3, on_step=lambda step, total, values: told.append((step, values)))
    assert [step for step, _ in told] == [1, 2, 3, 4] and all(values["validation_loss"] > 0 for _, values in told)
    train, held_out = policy.prepare(data, 0.3)
    assert len(train) + len(held_out) == 22 and len(held_out) in (6, 9, 7)
    assert policy.validate(held_out) == policy.validate(held_out)
    tell = lambda step, total, values: told.append((step, values))  # noqa: E731
    policy.train(train, held_out, steps=3, learning_rate=0.1, on_step=tell)
    assert told[-1][1]["validation_loss"] == policy.validate(held_out), "the averages are validated, since they act"


def test_training_goes_on_with_the_scales_there_are():
    policy = fitted(BC(horizon=2, width=8, blocks=1))
    before = policy.normalizers["actions"].scale.clone()
    data = episodes(seed=1)
    data.actions[:] *= 10
    fitted(policy, data)
    assert torch.equal(policy.normalizers["actions"].scale, before)


def test_parts_are_trained_alone():
    policy = fitted(BC(horizon=2, width=8, blocks=1))
    before = {name: value.clone() for name, value in policy.module.state_dict().items()}
    part, modes = policy.module[1].leave, []
    policy.module.train()

    def loss(batch):
        modes.append((part.training, policy.module[1].enter.training))
        return policy.loss(batch)

    policy.train(policy.prepare(episodes())[0], module=part, loss=loss, steps=2, learning_rate=0.1)
    assert modes == [(True, False)] * 2
    changed = {name for name, value in policy.module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.leave.weight", "1.leave.bias"}


def test_masked_mean_leaves_padding_out_of_value_and_gradient():
    errors = torch.randn(3, 4, 2, requires_grad=True)
    padding = torch.tensor([[False] * 4, [False, False, True, True], [False, True, True, True]])
    loss = masked_mean(errors, padding)
    loss.backward()
    assert loss.item() == pytest.approx(errors[~padding].mean().item(), abs=1e-6)
    assert (errors.grad[padding] == 0).all() and errors.grad[~padding].allclose(torch.tensor(1 / 14))


# --- files ------------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_it_plans_the_same(tmp_path):
    data = episodes(instructions=("a", "b"))
    policy = fitted(BC(horizon=2, history=2, width=8, blocks=1, goal="final", instructions=4, first_action=-1), data)
    policy.save(tmp_path / "bc")
    again = BC.load(tmp_path / "bc")
    assert json.dumps(again.settings) == json.dumps(policy.settings) and again.shapes == policy.shapes
    observation = {"state": np.ones((2, 3)), "goal": np.ones((2, 3)), "instruction": "b"}
    assert torch.equal(policy.plan(observation), again.plan(observation))


def test_objects_that_cannot_be_stored_are_asked_for(tmp_path):
    encode = lambda sentences: torch.ones(len(sentences), 3)  # noqa: E731
    data = episodes(instructions=("a", "b"))
    fitted(BC(width=8, blocks=1, instructions=encode), data).save(tmp_path / "bc")
    with pytest.raises(ValueError, match=r"instructions is no plain value.*give load\(\.\.\., instructions=\.\.\.\)"):
        BC.load(tmp_path / "bc")
    assert BC.load(tmp_path / "bc", instructions=encode).text is encode
    with pytest.raises(ValueError, match="holds BC, not Tape"):
        Tape.load(tmp_path / "bc")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "at least 1"),
        ({"horizon": 2, "first_action": -2}, r"first_action lies in -1\.\.0"),
        ({"first_action": 1}, r"first_action lies in 0\.\.0"),
        ({"observations": "state"}, "observations are names"),
        ({"action_scaling": "log"}, "unknown scaling 'log'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Tape(**settings)


def test_episodes_are_checked():
    with pytest.raises(ValueError, match="no observation 'joints'; they have state, image"):
        fitted(Tape(observations=("joints",)))
    policy = Tape(horizon=10, pad_start=0, pad_end=0)
    with pytest.raises(ValueError, match=r"a window takes 10 steps .* longest episode has 9"):
        fitted(policy)
    with pytest.raises(RuntimeError, match="has learned nothing yet"):
        policy.plan(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="follows instructions, and these episodes have none"):
        fitted(Tape(instructions=8))
    with pytest.raises(ValueError, match="unknown goal"):
        fitted(Tape(goal="past"))
    with pytest.raises(ValueError, match=r"in \[0, 1\), not 1"):
        fitted(Tape(), validation=1.0)
    policy = fitted(Tape())
    wider = episodes()
    wider = Episodes(wider.observations, np.repeat(wider.actions, 2, 1), wider.ends)
    with pytest.raises(ValueError, match=r"built for .*action=2.*; these episodes have .*action=4"):
        fitted(policy, wider)
    data = episodes()
    data.actions[3] = np.nan  # after they were checked as episodes
    with pytest.raises(ValueError, match="row 3 of the data is not finite"):
        fitted(Tape(), data)
    with pytest.raises(ValueError, match="actions is not finite at step 3"):
        fitted(policy, data)


def test_observations_are_checked():
    with pytest.raises(RuntimeError, match="Tape has learned nothing yet"):
        Tape().act(np.zeros((1, 3)))
    data = episodes(instructions=("a", "b"))
    policy = fitted(Tape(goal="final", instructions=4), data)
    good = {"state": np.zeros((2, 3)), "goal": np.zeros((2, 3)), "instruction": "a"}
    policy.plan(good)
    for key, message in (("state", "'state' is missing"), ("goal", "needs a goal"), ("instruction", "an instruction")):
        with pytest.raises(ValueError, match=message):
            policy.plan({k: v for k, v in good.items() if k != key})
    for change, message in (
        ({"state": np.zeros((2, 4))}, r"state must be a batch \(B, 3\), not \(2, 4\)"),
        ({"state": np.zeros(3)}, r"observation\[None\]"),
        ({"state": np.array([[0, 0, 0], [0, np.nan, 0]])}, "state of environment 1 is not finite"),
        ({"goal": np.zeros((3, 3))}, "of the same environments"),
        ({"instruction": ["a"]}, "of the same environments"),
    ):
        with pytest.raises(ValueError, match=message):
            policy.plan(good | change)
    with pytest.raises(ValueError, match=r"noise is \(n, horizon, A\), here \(2, 1, 2\), not \(2, 2\)"):
        policy.plan(good, torch.zeros(2, 2))
    with pytest.raises(FloatingPointError, match="not finite"):
        policy.plan(good, torch.full((2, 1, 2), torch.nan))
    with pytest.raises(ValueError, match="plans without noise"):
        fitted(BC(width=8, blocks=1)).plan(np.zeros((2, 3)), torch.zeros(2, 8, 2))
    remembering = fitted(Tape(history=2))
    remembering.plan(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="2 environments are remembered and 3 came"):
        remembering.plan(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="a mask of 2"):
        remembering.reset(np.array([True]))
    with pytest.raises(ValueError, match="dictionary with state, image"):
        fitted(Tape(observations=("state", "image"))).plan(np.zeros((2, 3)))


def test_divergence_is_caught_where_it_happens():
    class Broken(Tape):
        def loss(self, batch):
            super().loss(batch)
            return self.module(torch.zeros(1, 1)).sum() / (0.0 if len(self.batches) == 3 else 1.0)

    with pytest.raises(Diverged, match="at step 3 of 10"):
        fitted(Broken(), steps=10)


def test_encoder_puts_everything_side_by_side():
    shapes = Shapes({"a": (2,), "b": (3,)}, action=1, goal={"b": (3,)}, instruction=4)
    encoder = ObservationEncoder(shapes, history=2)
    batch = {
        "observations": {"a": torch.full((5, 2, 2), 1.0), "b": torch.full((5, 2, 3), 2.0)},
        "goal": {"b": torch.full((5, 3), 3.0)},
        "instruction": torch.full((5, 4), 4.0),
    }
    assert encoder(batch)[0].tolist() == [1.0] * 4 + [2.0] * 6 + [3.0] * 3 + [4.0] * 4 and encoder.size == 17


@pytest.mark.parametrize("goal", [None, "final", "future"])
def test_held_windows_are_those_that_are_cut(monkeypatch, goal):
    episodes = Episodes({"state": np.random.randn(9, 2)}, np.random.randn(9, 1).astype(np.float32), np.array([4, 9]))
    windows, steps = Windows(episodes, history=2, future=3, goal=goal), np.array([8, 0, 3])
    held = Demonstrations(windows, np.arange(9), text=torch.randn(2, 4))
    assert (held._all is None) == (goal == "future")
    cut = Demonstrations(windows, np.arange(9), held.text)
    monkeypatch.setattr("reprise.policies.demonstrations.HELD", 0)
    assert cut._all is None
    batches = [each.gather(steps, np.random.default_rng(0)) for each in (held, cut)]
    torch.testing.assert_close(*batches, rtol=0, atol=0)
