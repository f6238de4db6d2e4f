import pytest
import torch

from reprise.training.grouped_adam import GroupedAdam


def test_it_is_adamw_with_groups_and_one_norm():
    """Against PyTorch's, with two rates, weight decay and clipping over both groups."""
    nets = [[torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)] for _ in range(2)]
    for mine, theirs in zip(*nets, strict=True):
        theirs.load_state_dict(mine.state_dict())
    mine = GroupedAdam([net.parameters() for net in nets[0]], [0.01, 0.1], weight_decay=0.1, eps=1e-5)
    theirs = torch.optim.AdamW(
        [{"params": net.parameters(), "lr": rate} for net, rate in zip(nets[1], (0.01, 0.1), strict=True)],
        weight_decay=0.1, eps=1e-5,
    )  # fmt: skip
    for step in range(5):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        mine.zero_grad(), theirs.zero_grad()
        for pair in nets:
            (pair[0](x).square() + 3 * pair[1](x)).sum().backward()
        torch.nn.utils.clip_grad_norm_([p for net in nets[1] for p in net.parameters()], 1.0)
        mine.step(max_norm=1.0), theirs.step()
        mine.rates = [0.005, 0.1]
        theirs.param_groups[0]["lr"] = 0.005
    for net, other in zip(*nets, strict=True):
        for a, b in zip(net.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_groups_need_parameters_and_rates():
    net = torch.nn.Linear(1, 1)
    for groups, rates in (([net.parameters()], [0.1, 0.2]), ([net.parameters(), []], [0.1, 0.2])):
        with pytest.raises(ValueError, match="every group needs parameters and a rate"):
            GroupedAdam(groups, rates)
