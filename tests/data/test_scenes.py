"""Two objects on a cluttered canvas."""

from __future__ import annotations

import pytest
import torch

from reprise.data import Images, images, two_object_scenes
from reprise.explain import box_mask


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def squares(*sides):
    """White squares in the corner of 8x8 pictures, one class each."""
    pixels = torch.zeros(len(sides), 1, 8, 8, dtype=torch.uint8)
    for k, side in enumerate(sides):
        pixels[k, 0, :side, :side] = 255
    return Images(pixels, torch.arange(len(sides)), tuple(map(str, sides)))


def test_boxes_hold_exactly_the_object():
    scenes = two_object_scenes(squares(3, 5), 50, generator=seeded(), canvas=20, clutter=0, noise=0)
    white = scenes.pixels[:, 0] == 255
    masks = box_mask(scenes.boxes, 20, 20)
    assert torch.equal(white, masks.any(1)) and not masks.all(1).any()
    sides = scenes.boxes[..., 2:] - scenes.boxes[..., :2]
    assert torch.equal(sides, torch.tensor([3, 5])[scenes.pair][..., None].expand(-1, -1, 2))


def test_objects_are_of_two_classes_and_apart():
    digits = images.load("digits").train
    scenes = two_object_scenes(digits, 300, generator=seeded(), enlarge=3)
    assert scenes.pixels.shape == (300, 1, 64, 64) and scenes.pixels.dtype == torch.uint8
    assert bool((scenes.pair[:, 0] != scenes.pair[:, 1]).all()) and bool((scenes.labels.sum(1) == 2).all())
    assert bool(scenes.labels.gather(1, scenes.pair).all())
    masks = box_mask(scenes.boxes, 64, 64)
    assert not masks.all(1).any() and bool(masks.any((2, 3)).all())
    assert scenes.boxes.min() >= 0 and scenes.boxes.max() <= 64
    assert len(scenes.pair.unique()) == 10


def test_ground_and_clutter():
    ground = two_object_scenes(squares(3, 5), 40, generator=seeded(), canvas=40, clutter=0)
    outside = ground.floats()[:, 0][~box_mask(ground.boxes, 40, 40).any(1)]
    assert abs(float(outside.mean()) - 0.1 * (2 / torch.pi) ** 0.5) < 0.002  # mean of |N(0, 0.1)|
    cluttered = two_object_scenes(squares(8, 7), 40, generator=seeded(), canvas=40, clutter=6, clutter_size=4)
    assert cluttered.floats().mean() > ground.floats().mean()


def test_the_generator_decides_everything():
    digits = images.load("digits").train
    one, same, other = (two_object_scenes(digits, 4, generator=seeded(k)) for k in (1, 1, 2))
    assert torch.equal(one.pixels, same.pixels) and torch.equal(one.boxes, same.boxes)
    assert not torch.equal(one.pixels, other.pixels)
    assert torch.equal(one[1:3].boxes, one.boxes[1:3]) and len(one[1:3]) == 2


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (squares(3), {}, "of one"),
        (squares(3, 5), {"canvas": 15}, "at least 16"),
        (squares(3, 5), {"clutter_size": 9}, "at most 8"),
        (squares(3, 5), {"enlarge": 0}, "at least 1"),
        (Images(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.arange(2), ("a", "b")), {}, "one channel"),
    ],
)
def test_what_does_not_fit_is_refused(given, options, message):
    with pytest.raises(ValueError, match=message):
        two_object_scenes(given, 2, generator=seeded(), **options)
