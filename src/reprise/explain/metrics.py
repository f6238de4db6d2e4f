"""How good maps are: do they point at the object, tell two apart, fit its box, agree with another map?

A box is (top, left, bottom, right) in pixels, bottom and right exclusive; (0, 0, 0, 0) is empty. Leading dimensions
are free: maps (..., H, W) go with boxes (..., 4).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "abstaining_pointing_game",
    "box_iou",
    "box_mask",
    "discrimination",
    "localization_error",
    "map_boxes",
    "pointing_game",
    "rank_correlation",
]


def box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie in each box: (..., 4) -> (..., H, W) booleans.

    Example:
        >>> box_mask(torch.tensor([0, 1, 1, 3]), 2, 3).int()
        tensor([[0, 1, 1],
                [0, 0, 0]], dtype=torch.int32)
    """
    top, left, bottom, right = (side[..., None] for side in boxes.unbind(-1))
    row, column = torch.arange(height, device=boxes.device), torch.arange(width, device=boxes.device)
    return ((row >= top) & (row < bottom))[..., :, None] & ((column >= left) & (column < right))[..., None, :]


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) and (..., 4): (...) floats in 0..1; 0 for two empty boxes.

    Example:
        >>> box_iou(torch.tensor([0, 0, 2, 2]), torch.tensor([0, 1, 2, 3]))
        tensor(0.3333)
    """
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    shared = sides.prod(-1).float()
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return shared / (areas - shared).clamp(min=1)


def pointing_game(maps: Tensor, boxes: Tensor, tolerance: float = 0) -> Tensor:
    """Does the largest value of a map lie in a box of its class?

    Where several pixels share the largest value the result is the share of them that hit: what guessing among them
    gives on average. A constant map, such as one of zeros, points nowhere and misses. Average the result per class,
    then over classes. Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", arXiv 1608.00507.

    Args:
        maps: (..., H, W).
        boxes: (..., 4), or (..., B, 4) where a class has several objects, filled up with empty boxes.
        tolerance: how far outside the box the largest value may lie, in pixels (15 in Zhang et al.).

    Returns:
        (...) floats in 0..1.

    Raises:
        ValueError: shapes that do not fit; maps that hold NaN.

    Example:
        >>> pointing_game(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([0, 1, 2, 2]))
        tensor(1.)
    """
    several = boxes.ndim == maps.ndim
    _check(maps, boxes[..., 0, :] if several else boxes)
    boxes = boxes if several else boxes.unsqueeze(-2)
    top, left, bottom, right = (side[..., None, None] for side in boxes.unbind(-1))
    row = torch.arange(maps.shape[-2], device=maps.device)[:, None]
    column = torch.arange(maps.shape[-1], device=maps.device)
    vertical = torch.maximum(top - row, row - (bottom - 1)).clamp(min=0)
    horizontal = torch.maximum(left - column, column - (right - 1)).clamp(min=0)
    near = vertical**2 + horizontal**2 <= tolerance**2
    inside = (near & (bottom > top) & (right > left)).any(-3)
    highest = maps.amax((-2, -1), keepdim=True)
    peak = (maps == highest) & (highest > maps.amin((-2, -1), keepdim=True))
    return (peak & inside).sum((-2, -1)) / peak.sum((-2, -1)).clamp(min=1)


def abstaining_pointing_game(maps: Tensor, boxes: Tensor, present: Tensor, threshold: float) -> Tensor:
    """The pointing game for classes that may be absent: a map whose largest value is below the threshold is rejected.

    Right is a map of a present class that is kept and points at its box, and a map of an absent class that is
    rejected. Source: Grad-CAM, section 4.2 of the journal version; the paper tunes the threshold on other pictures.

    Args:
        maps: (..., H, W), not normalised.
        boxes: (..., 4) or (..., B, 4), as in :func:`pointing_game`; not looked at where the class is absent.
        present: (...) booleans.
        threshold: smallest largest value of a map that is kept.

    Returns:
        (...) floats in 0..1.

    Example:
        >>> maps = torch.tensor([[[0.9, 0.0]], [[0.1, 0.0]]])
        >>> abstaining_pointing_game(maps, torch.tensor([[0, 0, 1, 1]] * 2), torch.tensor([True, False]), 0.5)
        tensor([1., 1.])
    """
    kept = maps.amax((-2, -1)) >= threshold
    return torch.where(present, pointing_game(maps, boxes) * kept, (~kept).float())


def discrimination(maps: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Does the box of the map's class hold more of the map than the box of another class? 1 yes, 0 no, 0.5 a tie.

    Args:
        maps: (..., H, W), non-negative.
        own: (..., 4) box of the class that the map explains.
        other: (..., 4) box of another object.

    Returns:
        (...) floats; chance gives 0.5.

    Raises:
        ValueError: shapes that do not fit; maps that hold NaN.

    Example:
        >>> discrimination(torch.tensor([[3.0, 1.0]]), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2]))
        tensor(1.)
    """
    _check(maps, own)
    _check(maps, other)
    held = [(maps * box_mask(box, *maps.shape[-2:])).sum((-2, -1)) for box in (own, other)]
    return (torch.sign(held[0] - held[1]) + 1) / 2


def map_boxes(maps: Tensor, threshold: float = 0.15) -> Tensor:
    """The box around the largest 8-connected region of a map that reaches a share of the map's largest value.

    Source: section 4.1, with 15 %.

    Args:
        maps: (..., H, W).
        threshold: share of the largest value, above 0 and up to 1.

    Returns:
        (..., 4) int64; the empty box for a map without a positive value.

    Raises:
        ValueError: a threshold outside (0, 1]; maps that hold NaN.

    Example:
        >>> map_boxes(torch.tensor([[0.0, 0.9, 1.0], [0.0, 0.0, 0.1]]))
        tensor([0, 1, 1, 3])
    """
    from scipy import ndimage

    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is a share in (0, 1], not {threshold}")
    _check(maps)
    flat = maps.detach().reshape(-1, *maps.shape[-2:]).cpu().numpy()
    highest = flat.max((1, 2), keepdims=True)
    neighbours = np.zeros((3, 3, 3), bool)
    neighbours[1] = True  # pixels touch within their map, never across maps
    regions, count = ndimage.label((flat >= threshold * highest) & (highest > 0), neighbours)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    sizes[0] = 0
    # Region numbers grow from map to map, so a map's largest region is the pixel with the largest region size.
    size_at = sizes[regions].reshape(len(flat), -1)
    largest = np.take_along_axis(regions.reshape(len(flat), -1), size_at.argmax(1)[:, None], 1)[:, :, None]
    region = (regions == largest) & (largest > 0)
    boxes = np.zeros((len(flat), 4), np.int64)
    for side, axis in ((0, 2), (1, 1)):
        line = region.any(axis)
        boxes[:, side] = line.argmax(1)
        boxes[:, side + 2] = np.where(line.any(1), line.shape[1] - line[:, ::-1].argmax(1), 0)
    return torch.from_numpy(boxes).reshape(*maps.shape[:-2], 4).to(maps.device)


def localization_error(
    maps: Tensor,
    boxes: Tensor,
    labels: Tensor,
    logits: Tensor,
    *,
    threshold: float = 0.15,
    iou: float = 0.5,
    topk: tuple[int, ...] = (1, 5),
) -> dict[int, float]:
    """Weakly supervised localisation error as in ILSVRC.

    A picture is right at k if one of its k classes with the highest logits is the label and the box around that
    class's map (:func:`map_boxes`) overlaps a true box enough.

    Args:
        maps: (N, T, H, W): the maps of the T classes with the highest logits, best first; T at least ``max(topk)``.
        boxes: (N, 4), or (N, B, 4) filled up with empty boxes: the true boxes of the label's objects.
        labels: (N,) classes.
        logits: (N, classes).
        threshold: share of the map's largest value that belongs to the object.
        iou: least intersection over union of a hit.
        topk: numbers of guesses.

    Returns:
        The share of wrong pictures for each k.

    Raises:
        ValueError: shapes that do not fit; more guesses than maps.

    Example:
        >>> maps = torch.zeros(1, 1, 4, 4)
        >>> maps[0, 0, :2, :2] = 1
        >>> box, label, logits = torch.tensor([[0, 0, 2, 2]]), torch.tensor([1]), torch.tensor([[0.0, 2.0]])
        >>> localization_error(maps, box, label, logits, topk=(1,))
        {1: 0.0}
    """
    if maps.ndim != 4 or max(topk) > maps.shape[1] or max(topk) > logits.shape[1]:
        raise ValueError(
            f"top-{max(topk)} needs maps (N, {max(topk)}, H, W) and as many logits, not {tuple(maps.shape)}"
        )
    if not len(maps) == len(boxes) == len(labels) == len(logits):
        raise ValueError(
            f"maps, boxes, labels and logits are of {len(maps)}, {len(boxes)}, {len(labels)} and {len(logits)} pictures"
        )
    boxes = boxes if boxes.ndim == 3 else boxes[:, None]
    guesses = logits.topk(max(topk)).indices
    overlap = box_iou(map_boxes(maps[:, : max(topk)], threshold)[:, :, None], boxes[:, None]).amax(2)
    right = (guesses == labels[:, None]) & (overlap >= iou)
    return {k: 1 - float(right[:, :k].any(1).float().mean()) for k in topk}


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of maps over positions, ties sharing their mean rank.

    Args:
        a: (N, ...) maps.
        b: the same shape.

    Returns:
        (N,) float64 in -1..1; 0 where a map is constant and orders nothing.

    Raises:
        ValueError: shapes that differ; maps that hold NaN.

    Example:
        >>> round(rank_correlation(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.0, 1.0, 9.0]])).item(), 6)
        1.0
    """
    from scipy.stats import rankdata

    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"maps of one shape (N, ...) can be compared, not {tuple(a.shape)} and {tuple(b.shape)}")
    ranks = []
    for maps in (a, b):
        if maps.isnan().any():
            raise ValueError("maps hold NaN")
        rank = torch.from_numpy(rankdata(maps.detach().flatten(1).cpu().numpy(), axis=1))
        rank -= rank.mean(1, keepdim=True)
        ranks.append(rank)
    spread = ranks[0].norm(dim=1) * ranks[1].norm(dim=1)
    return (ranks[0] * ranks[1]).sum(1) / torch.where(spread > 0, spread, torch.ones_like(spread))


def _check(maps: Tensor, boxes: Tensor | None = None) -> None:
    if maps.ndim < 2 or (boxes is not None and boxes.shape != (*maps.shape[:-2], 4)):
        raise ValueError(f"maps (..., H, W) need boxes (..., 4), not {tuple(maps.shape)} and {_shape(boxes)}")
    if maps.isnan().any():
        raise ValueError("maps hold NaN")


def _shape(boxes: Tensor | None) -> str:
    return "none" if boxes is None else str(tuple(boxes.shape))
