import pytest
import torch

from reprise.nn import parameters
from reprise.papers.moat.nets import build
from reprise.papers.moat.recipe import _augment
from reprise.training import fit

COUNTS = {"moat": 168_552, "transformer": 167_592, "attention_first": 176_808, "stacked": 164_966}


@pytest.mark.parametrize("arrangement", COUNTS)
def test_arms_are_of_one_size_and_share_stem_and_head(arrangement):
    nets = []
    for arm, window in ((arrangement, None), (arrangement, 4), ("moat", None)):
        torch.manual_seed(0)
        nets.append(build(arm, window))
    assert parameters(nets[0]) == parameters(nets[1]) == COUNTS[arrangement]
    for name in ("stem", "stages.0", "head"):
        mine, other = (net.get_submodule(name).state_dict() for net in (nets[0], nets[2]))
        assert all(torch.equal(mine[key], other[key]) for key in other)


def test_an_unknown_arrangement_is_refused():
    with pytest.raises(ValueError, match="not 'other'"):
        build("other")


def test_training_pictures_are_mirrored_and_shifted_views():
    pixels = torch.randint(1, 256, (1, 3, 6, 6), dtype=torch.uint8).expand(200, -1, -1, -1)
    padded = torch.nn.functional.pad(pixels[0], (1,) * 4)
    views = [
        torch.where(torch.tensor(mirror), view.flip(-1), view)
        for mirror in (False, True)
        for row in range(3)
        for column in range(3)
        for view in (padded[:, row : row + 6, column : column + 6],)
    ]
    seen = [[torch.equal(picture, view) for view in views].index(True) for picture in _augment(pixels, 1)]
    assert set(seen) == set(range(18))


def test_thirty_steps_lower_the_loss():
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    pictures = torch.randn(64, 3, 16, 16) + labels[:, None, None, None]
    losses = fit(build("moat"), pictures, labels, steps=30, batch_size=16, learning_rate=2e-3).losses
    assert losses[-1][1] < 0.5 * losses[0][1]
