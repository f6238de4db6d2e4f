"""Attribution by changing the picture and watching the score."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reprise.explain.targets import Targets, batches, join, select_scores
from reprise.nn.hooks import evaluating, unwrap

__all__ = ["occlusion_map"]


def occlusion_map(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    patch: int,
    stride: int,
    value: float | None = None,
    batch_size: int = 32,
) -> Tensor:
    """How far the score drops when a square patch of the picture is covered, for every position of the patch.

    Several targets of a picture share the passes of the network. Source: Zeiler and Fergus, arXiv 1311.2901,
    section 4.2.

    Args:
        model: the network; called in evaluation mode and left as it was found.
        images: (N, C, H, W) floats.
        targets: None (the class with the highest logit of the uncovered picture), a class, (N,) or (N, T) classes, or
            a function that maps the output for any number of pictures to one score each.
        patch: side of the patch in pixels.
        stride: pixels from one position to the next.
        value: colour of the patch; None takes each picture's mean.
        batch_size: covered pictures per pass; about 32 fit into a CPU's cache.

    Returns:
        (N, h, w), or (N, T, h, w) for targets (N, T), with h = (H - patch) // stride + 1 and w likewise.

    Raises:
        ValueError: pictures or targets that do not fit; a patch that is larger than the picture; no stride.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
        >>> occlusion_map(net, torch.rand(3, 1, 4, 4), 0, patch=2, stride=1).shape
        torch.Size([3, 3, 3])
    """
    if patch < 1 or stride < 1:
        raise ValueError(f"patch and stride must be at least 1, not {patch} and {stride}")
    model, drops = unwrap(model), []
    with evaluating(model), torch.no_grad():
        for chunk, target in batches(model, images, targets, batch_size):
            output = model(chunk)
            target = output.argmax(1) if target is None else target  # the covered pictures keep the class
            scores = select_scores(output, target)
            covers = _covers(chunk.shape[2], chunk.shape[3], patch, stride).to(chunk.device)
            height, width = covers.shape[:2]
            covers = covers.flatten(0, 1)[:, None]
            colour = chunk.mean((1, 2, 3)) if value is None else chunk.new_full((len(chunk),), value)
            covered_scores = []
            last = chunk.stride(1) == 1  # channels-last, which would be lost with one channel
            pairs = torch.arange(len(chunk) * len(covers), device=chunk.device)
            for pair in pairs.split(batch_size):
                picture, position = pair // len(covers), pair % len(covers)
                covered = torch.where(covers[position], colour[picture][:, None, None, None], chunk[picture])
                if last:
                    covered = torch.empty_like(covered, memory_format=torch.channels_last).copy_(covered)
                chosen = target[picture] if isinstance(target, Tensor) else target
                covered_scores.append(select_scores(model(covered), chosen))
            after = torch.cat(covered_scores).view(len(chunk), height * width, -1).transpose(1, 2)
            drops.append((scores[:, :, None] - after).unflatten(2, (height, width)))
    return join(drops, targets)


def _covers(height: int, width: int, patch: int, stride: int) -> Tensor:
    """Which pixels each position covers: (h, w, H, W) booleans."""
    if patch > min(height, width):
        raise ValueError(f"a patch of {patch} does not fit pictures of {height}x{width} pixels")

    def along(length: int) -> Tensor:
        start = torch.arange(0, length - patch + 1, stride)[:, None]
        pixel = torch.arange(length)
        return (pixel >= start) & (pixel < start + patch)

    return along(height)[:, None, :, None] & along(width)[None, :, None, :]
