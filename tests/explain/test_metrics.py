"""Metrics of maps, each by an example with a known answer and by a second way to compute it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from reprise.explain import (
    abstaining_pointing_game,
    box_iou,
    box_mask,
    discrimination,
    localization_error,
    map_boxes,
    pointing_game,
    rank_correlation,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def point(row, column, size=6):
    heat = torch.zeros(size, size)
    heat[row, column] = 1.0
    return heat


BOX = torch.tensor([1, 2, 3, 5])  # rows 1-2, columns 2-4


@pytest.mark.parametrize(
    ("at", "tolerance", "hit"),
    [
        ((1, 2), 0, 1), ((2, 4), 0, 1), ((3, 4), 0, 0), ((2, 5), 0, 0), ((0, 2), 0, 0),
        ((3, 4), 1, 1), ((3, 5), 1, 0), ((3, 5), 1.5, 1), ((2, 1), 1, 1),
    ],
)  # fmt: skip
def test_pointing_game_at_the_edges_of_the_box(at, tolerance, hit):
    assert pointing_game(point(*at), BOX, tolerance) == hit


def test_pointing_game_ties_constant_maps_and_several_boxes():
    two_peaks = point(1, 2) + point(5, 5)
    assert pointing_game(two_peaks, BOX) == 0.5
    assert pointing_game(torch.zeros(6, 6), BOX) == 0 and pointing_game(torch.ones(6, 6), BOX) == 0
    boxes = torch.stack([BOX, torch.tensor([5, 5, 6, 6]), torch.zeros(4, dtype=torch.long)])
    assert pointing_game(two_peaks, boxes) == 1
    assert pointing_game(point(0, 0), boxes) == 0  # an empty box holds nothing
    assert pointing_game(point(0, 0), boxes, tolerance=1) == 0
    maps = torch.stack([point(1, 2), point(0, 0)]).expand(3, 2, 6, 6)
    assert torch.equal(pointing_game(maps, BOX.expand(3, 2, 4)), torch.tensor([[1.0, 0.0]] * 3))
    assert torch.equal(pointing_game(maps, boxes.expand(3, 2, 3, 4)), torch.tensor([[1.0, 0.0]] * 3))


def test_abstaining_pointing_game():
    maps = torch.stack([point(1, 2), 0.1 * point(1, 2), point(1, 2), 0.1 * point(1, 2), point(0, 0)])
    present = torch.tensor([True, True, False, False, True])
    right = abstaining_pointing_game(maps, BOX.expand(5, 4), present, threshold=0.5)
    assert right.tolist() == [1, 0, 0, 1, 0]


def test_discrimination():
    other = torch.tensor([3, 0, 6, 2])
    maps = torch.stack([point(1, 2), point(5, 1), torch.zeros(6, 6), point(1, 2) + 2 * point(4, 0)])
    assert discrimination(maps, BOX.expand(4, 4), other.expand(4, 4)).tolist() == [1, 0, 0.5, 0]
    assert discrimination(maps, other.expand(4, 4), BOX.expand(4, 4)).tolist() == [0, 1, 0.5, 1]


def test_box_iou_equals_counting_pixels():
    corner, side = torch.randint(8, (50, 2, 2)), torch.randint(1, 8, (50, 2, 2))
    boxes = torch.cat([corner, corner + side], -1)
    a, b = box_mask(boxes, 16, 16).unbind(1)
    counted = (a & b).sum((1, 2)) / (a | b).sum((1, 2))
    assert torch.allclose(box_iou(boxes[:, 0], boxes[:, 1]), counted)
    assert box_iou(torch.zeros(4), torch.zeros(4)) == 0


def test_map_boxes_equal_one_map_at_a_time():
    maps = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).random((40, 20, 24)), (0, 1.5, 1.5)))
    found = map_boxes(maps.reshape(8, 5, 20, 24), 0.9).reshape(40, 4)
    for heat, box in zip(maps.numpy(), found.tolist(), strict=True):
        regions, _ = ndimage.label(heat >= 0.9 * heat.max(), np.ones((3, 3)))
        largest = 1 + np.bincount(regions.ravel())[1:].argmax()
        rows, columns = np.nonzero(regions == largest)
        assert box == [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


def test_map_boxes_touch_at_corners_but_not_across_maps():
    diagonal = torch.eye(4)
    assert map_boxes(diagonal).tolist() == [0, 0, 4, 4]
    assert map_boxes(torch.stack([torch.zeros(4, 4), diagonal])).tolist() == [[0, 0, 0, 0], [0, 0, 4, 4]]
    assert map_boxes(0.14 * point(0, 0) + point(5, 5)).tolist() == [5, 5, 6, 6]
    assert map_boxes(-torch.rand(3, 3)).tolist() == [0, 0, 0, 0]


def test_localization_error():
    right, wrong = torch.zeros(6, 6), point(5, 0)
    right[1:3, 2:5] = 1
    maps = torch.stack([torch.stack(pair) for pair in ([right, wrong], [wrong, right], [wrong, wrong])])
    logits = torch.tensor([[2.0, 1.0, 0.0]] * 3)
    boxes, labels = BOX.expand(3, 4), torch.tensor([0, 1, 0])
    error = localization_error(maps, boxes, labels, logits, topk=(1, 2))
    assert error == pytest.approx({1: 2 / 3, 2: 1 / 3})
    several = torch.stack([torch.zeros(3, 4, dtype=torch.long), boxes], 1)
    assert localization_error(maps, several, labels, logits, topk=(1, 2)) == error
    assert localization_error(maps, boxes, torch.full((3,), 2), logits, topk=(2,)) == {2: 1.0}


def test_rank_correlation_equals_scipy_with_ties():
    a, b = torch.randint(5, (20, 4, 4)).float(), torch.randn(20, 4, 4)
    found = rank_correlation(a, b)
    expected = [stats.spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    assert np.allclose(found, expected)
    assert rank_correlation(torch.ones(1, 4), torch.randn(1, 4)) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pointing_game(torch.zeros(2, 3, 3), torch.zeros(3, 4)), "maps"),
        (lambda: pointing_game(torch.full((3, 3), torch.nan), BOX), "NaN"),
        (lambda: discrimination(torch.zeros(2, 3, 3), torch.zeros(2, 3), torch.zeros(2, 4)), "maps"),
        (lambda: map_boxes(torch.zeros(3, 3), 0), "threshold"),
        (lambda: map_boxes(torch.full((3, 3), torch.nan)), "NaN"),
        (lambda: rank_correlation(torch.zeros(2, 3), torch.zeros(2, 4)), "one shape"),
        (lambda: rank_correlation(torch.zeros(2, 3) / 0, torch.zeros(2, 3)), "NaN"),
        (
            lambda: localization_error(
                torch.zeros(2, 1, 3, 3), torch.zeros(2, 4), torch.zeros(2).long(), torch.zeros(2, 9)
            ),
            "top-5",
        ),
        (
            lambda: localization_error(
                torch.zeros(2, 1, 3, 3), torch.zeros(3, 4), torch.zeros(2).long(), torch.zeros(2, 9), topk=(1,)
            ),
            "2, 3, 2 and 2 pictures",
        ),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
