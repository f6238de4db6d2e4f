import numpy as np
import torch

from reprise.data import Episodes
from reprise.nn import ResidualMLP, parameters
from reprise.policies import BC


def test_published_size():
    with torch.device("meta"):
        assert parameters(ResidualMLP(58, 8 * 10)) == 10_638_416  # Ankile et al.: one_leg, 8 actions of 10 numbers


def test_repeated_actions_do_not_count():
    walk = Episodes({"state": np.zeros((5, 1))}, np.arange(5, dtype=np.float32)[:, None], np.array([5]))
    policy = BC(horizon=3, width=4, blocks=1).fit(walk, steps=1)
    batch = policy.prepare(walk)[0].some(5, 0)
    errors = (policy.predict(batch) - batch["actions"])[~batch["padding"]]
    assert len(errors) == 3 * 5 - 3 and torch.allclose(policy.loss(batch), errors.square().mean())


def test_it_learns_the_mean_where_demonstrations_differ_and_the_goal_tells_them_apart():
    """Two walks from the same place, to the left and to the right."""
    steps = np.linspace(0, 1, 12, dtype=np.float32)[:, None]
    walks = [{"observations": {"state": side * steps}, "actions": np.full((12, 1), side)} for side in (-1.0, 1.0)]
    data = Episodes.of(walks)
    torch.manual_seed(0)
    training = {"steps": 300, "batch_size": 24, "learning_rate": 3e-3}
    blind = BC(horizon=2, width=32, blocks=1, dropout=0.0).fit(data, **training)
    told = BC(horizon=2, width=32, blocks=1, dropout=0.0, goal="final").fit(data, **training)
    start = np.zeros((2, 1))
    assert np.abs(blind.act(start)).max() < 0.2
    assert np.abs(told.act({"state": start, "goal": [[-1.0], [1.0]]}) - [[-1.0], [1.0]]).max() < 0.2
