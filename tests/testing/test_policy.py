import numpy as np
import pytest
import torch

from reprise.data import Episodes
from reprise.policies import BC, ChunkedPolicy, DiffusionPolicy
from reprise.testing import check_policy

RNG = np.random.default_rng(0)
STATE = RNG.normal(size=(3, 4)).astype(np.float32)


def trained(kind, observations=("state",), **settings):
    images = RNG.integers(0, 255, (30, 16, 16, 3), dtype=np.uint8)
    data = Episodes(
        {"state": RNG.normal(size=(30, 4)), "image": images}, RNG.normal(size=(30, 2)).astype(np.float32),
        np.array([14, 30]), instructions=("go", "stop"),
    )  # fmt: skip
    torch.manual_seed(0)
    sizes = {"width": 16, "blocks": 1} if kind is BC else {"network": "mlp", "inference_steps": 3}
    return kind(history=2, first_action=-1, horizon=6, observations=observations, **sizes, **settings).fit(
        data, steps=3
    )


def test_policies_of_the_library_pass():
    check_policy(trained(BC), STATE)
    check_policy(ChunkedPolicy(trained(BC), 4), {"observation.state": STATE})
    check_policy(trained(DiffusionPolicy), STATE)
    check_policy(ChunkedPolicy(trained(DiffusionPolicy).sampled(inference_steps=None), 4), STATE)
    encoder = {"widths": (16,), "keypoints": 4}
    everything = {
        "observation.state": torch.from_numpy(STATE),
        "observation.image": torch.rand(3, 3, 16, 16),
        "goal": {"state": STATE},
        "task": ["go", "stop", "go"],
    }
    policy = trained(
        DiffusionPolicy,
        ("state", "image"),
        goal="future",
        goal_observations=("state",),
        instructions=8,
        encoder=encoder,
    )
    check_policy(policy, everything, tolerance=1e-4)


class Good:
    """Remembers how often each environment was asked; plans chunks."""

    def __init__(self):
        self.count = None

    def chunk(self, observation):
        if observation.shape[1:] != (4,) or not np.isfinite(observation).all():
            raise ValueError("a finite (B, 4) is needed")
        if self.count is None:
            self.count = np.zeros(len(observation))
        self.count = self.count + 1
        return np.stack([observation[:, :2] + self.count[:, None]] * 3, 1)

    def act(self, observation):
        return self.chunk(observation)[:, 0]

    plan = chunk

    def reset(self, mask=None):
        self.count = None if mask is None else np.where(mask, 0, self.count)


def broken(**methods):
    return type("Broken", (Good,), methods)()


BROKEN = {
    r"act must return \(3, A\), not \(3,\)": {"act": lambda self, x: self.chunk(x)[:, 0, 0]},
    "actions that are not finite": {"act": lambda self, x: self.chunk(x)[:, 0] * np.nan},
    "changes the observation": {"act": lambda self, x: self.chunk(np.divide(x, 2, out=x))[:, 0]},
    r"after reset\(\), the same observation": {"reset": lambda self, mask=None: None},
    "must not depend on the others": {"chunk": lambda self, x: Good.chunk(self, x) - np.nan_to_num(x).mean()},
    r"reset\(mask\) must not disturb": {"reset": lambda self, mask=None: Good.reset(self)},
    r"plan must return \(B, H, A\)": {"plan": lambda self, x: self.chunk(x)[:, 0]},
    "plan returns actions that are not finite": {"plan": lambda self, x: self.chunk(x) * np.inf},
    "the action of the plan that is for now": {"plan": lambda self, x: self.chunk(x) + 1},
    "one number more in the last axis must be refused": {"chunk": lambda self, x: Good.chunk(self, x[:, :4])},
    "NaN must be refused": {"chunk": lambda self, x: Good.chunk(self, np.nan_to_num(x))},
}


def test_a_policy_of_ones_own_passes():
    check_policy(Good(), STATE)


@pytest.mark.parametrize("promise", BROKEN)
def test_broken_promises_are_found(promise):
    methods = BROKEN[promise]
    if "chunk" in methods:
        methods = methods | {"plan": lambda self, x: self.chunk(x)}
    with pytest.raises(AssertionError, match=promise):
        check_policy(broken(**methods), STATE.copy())


def test_files_and_noise_are_checked():
    policy = trained(BC)
    policy.save = lambda folder: trained(BC).save(folder)  # another one
    with pytest.raises(AssertionError, match="saved and loaded"):
        check_policy(policy, STATE)
    policy = trained(DiffusionPolicy)
    plain = policy.predict
    policy.predict = lambda batch, noise, generator=None: plain(batch, noise.flip(0), generator)
    with pytest.raises(AssertionError, match="plan must not depend on the others"):
        check_policy(policy, STATE)
    with pytest.raises(AssertionError, match="at least two"):
        check_policy(policy, STATE[:1])
