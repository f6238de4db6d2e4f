"""Occlusion maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reprise.explain import occlusion_map


def net(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Dropout(), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5 * 7, classes))


def test_equals_covering_one_patch_at_a_time():
    model, x, targets = net(), torch.rand(3, 2, 7, 9), torch.tensor([[0, 1], [2, 2], [1, 0]])
    found = occlusion_map(model, x, targets, patch=3, stride=2, batch_size=4)
    assert found.shape == (3, 2, 3, 4) and model.training
    model.eval()
    with torch.no_grad():
        for i in range(3):
            for row in range(3):
                for column in range(4):
                    covered = x[i : i + 1].clone()
                    covered[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3] = x[i].mean()
                    drop = (model(x[i : i + 1]) - model(covered))[0, targets[i]]
                    assert torch.allclose(found[i, :, row, column], drop, atol=1e-6)


def test_targets_and_colour():
    model, x = net().eval(), torch.rand(3, 2, 7, 9)
    best = model(x).argmax(1)
    options = {"patch": 3, "stride": 2, "value": 0.5}
    expected = occlusion_map(model, x, best, **options)
    assert torch.allclose(occlusion_map(model, x, **options), expected)
    assert torch.allclose(
        occlusion_map(model, x, lambda out: out[:, 1], **options), occlusion_map(model, x, 1, **options)
    )
    assert torch.equal(occlusion_map(model, torch.full_like(x, 0.5), 1, **options), torch.zeros(3, 3, 4))
    assert not torch.allclose(occlusion_map(model, x, best, patch=3, stride=2), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"patch": 8, "stride": 1}, "a patch of 8 does not fit"), ({"patch": 3, "stride": 0}, "stride")],
)
def test_wrong_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        occlusion_map(net(), torch.rand(1, 2, 7, 9), 0, **options)
    with pytest.raises(ValueError, match="give floats"):
        occlusion_map(net(), torch.ones(1, 2, 7, 9).int(), 0, patch=3, stride=1)
