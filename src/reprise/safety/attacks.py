"""Attacks that look into the network: what a black-box search is compared with.

Every attack takes a module that returns logits, images (N, C, H, W) in 0..1 and their labels, and returns an
:class:`AttackResult`. The module's weights, their gradients and its mode are left as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reprise.nn.hooks import evaluating

__all__ = ["AttackResult", "cw_l0", "jsma", "l0_distance"]


@dataclass(frozen=True)
class AttackResult:
    """What an attack found for each image.

    Attributes:
        images: (N, C, H, W), the original where nothing was found.
        found: (N,) whether the image is adversarial.
        distance: (N,) from the original in the attack's own norm; infinite where nothing was found, 0 where the
            original is misclassified.
        queries: (N,) images that the network was given on behalf of this one.
        gradients: (N,) images that were differentiated through it.
    """

    images: Tensor
    found: Tensor
    distance: Tensor
    queries: Tensor
    gradients: Tensor


def l0_distance(images: Tensor, originals: Tensor) -> Tensor:
    """The number of pixels that differ, all channels of a pixel counting once.

    Args:
        images: (N, C, H, W).
        originals: the same shape.

    Returns:
        (N,) floats.

    Example:
        >>> l0_distance(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))
        tensor([4.])
    """
    return (images != originals).any(1).flatten(1).sum(1).float()


def jsma(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    targets: Tensor | None = None,
    outputs: str = "softmax",
    pairs: bool = True,
    direction: str = "increase",
    max_pixels: int | None = None,
) -> AttackResult:
    """The Jacobian-based saliency map attack: change the pixels that raise the target and lower all other classes.

    With alpha the derivative of the target's output by a pixel and beta that of the sum of all others, pixels go to 1
    that have alpha > 0 > beta, in the order of alpha |beta|; pixels go to 0 in the same way with the signs turned. All
    channels of a pixel move together.

    Args:
        model: (N, C, H, W) to (N, K) logits.
        images: floats in 0..1.
        labels: (N,) true classes.
        targets: (N,) classes wanted; None tries all others and keeps the one that takes the fewest pixels.
        outputs: which outputs are differentiated: "softmax" (JSMA-F) or "logits" (JSMA-Z).
        pairs: change the best two pixels at a time, as published, or the best one.
        direction: "increase", as published, "decrease" or "both".
        max_pixels: give up beyond so many; None allows all.

    Returns:
        Distances are L0.

    Raises:
        ValueError: images, labels or targets that do not fit; unknown ``outputs`` or ``direction``.

    Source: Papernot et al., The Limitations of Deep Learning in Adversarial Settings, EuroS&P 2016, algorithms 2, 3.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
        >>> net[1].weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 0.8, 0.6, 0.1]])
        >>> image = torch.tensor([[1.0, 0, 0, 0]]).reshape(1, 1, 2, 2)
        >>> jsma(net, image, torch.tensor([0])).images.flatten().tolist()
        [1.0, 1.0, 1.0, 0.0]
    """
    if outputs not in ("softmax", "logits"):
        raise ValueError(f'outputs is "softmax" or "logits", not {outputs!r}')
    if direction not in ("increase", "decrease", "both"):
        raise ValueError(f'direction is "increase", "decrease" or "both", not {direction!r}')
    with evaluating(model):
        logits = _check(model, images, labels, targets)
        count, classes = logits.shape
        if targets is None:
            every = torch.arange(classes, device=images.device).expand(count, -1)
            wanted = every[every != labels[:, None]].reshape(count, classes - 1)
        else:
            wanted = targets[:, None]
        tries = wanted.shape[1]
        owner = torch.arange(count, device=images.device).repeat_interleave(tries)
        rows, goals = images[owner].clone(), wanted.flatten()
        pixels = rows[0, 0].numel()
        limit = pixels if max_pixels is None else max_pixels
        signs = {"increase": (1,), "decrease": (-1,), "both": (1, -1)}[direction]
        # saturated[s]: pixels that can no longer go up (s = 0) or down; a changed pixel is never changed again.
        saturated = torch.stack([(rows >= 1).all(1) if sign > 0 else (rows <= 0).all(1) for sign in signs], 1).flatten(
            2
        )
        reached = logits[owner].argmax(1) == goals
        gradients = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
        active = torch.nonzero(~reached & (limit > 0) & (logits.argmax(1) == labels)[owner]).flatten()
        while len(active):
            # At most ``limit`` pixels: a saturated one is never taken again, so this ends.
            alpha, beta, named = _jacobian(model, rows[active], goals[active], outputs)
            gradients[active] += 1
            reached[active[named == goals[active]]] = True
            # All tries of an image have changed equally many pixels: the first to arrive is the nearest.
            going = ~reached.reshape(count, tries).any(1)[owner[active]]
            active, alpha, beta = active[going], alpha[going], beta[going]
            if not len(active):
                break
            picked, sign, some = _most_salient(alpha, beta, saturated[active], signs, 2 if pairs else 1)
            spent = (rows[active] != images[owner[active]]).any(1).flatten(1).sum(1) + picked.shape[1] > limit
            some &= ~spent
            active, picked, sign = active[some], picked[some], sign[some]
            flat = rows.view(len(rows), rows.shape[1], -1)
            for column in picked.T:
                flat[active, :, column] = (sign > 0).to(rows.dtype)[:, None]
                saturated[active, :, column] = True
        distance = torch.where(reached, l0_distance(rows, images[owner]), math.inf).reshape(count, tries)
        best = distance.argmin(1)
        found = distance.isfinite().any(1)
        result = rows.reshape(count, tries, *rows.shape[1:])[torch.arange(count), best]
        return _result(
            model, images, labels, targets, torch.where(found[:, None, None, None], result, images), l0_distance,
            1 + gradients.reshape(count, tries).sum(1), gradients.reshape(count, tries).sum(1),
        )  # fmt: skip


def _jacobian(model: nn.Module, rows: Tensor, goals: Tensor, outputs: str) -> tuple[Tensor, Tensor, Tensor]:
    """Alpha and beta, each (R, pixels) in double precision, and the classes that are named."""
    leaf = rows.detach().requires_grad_()
    logits = model(leaf)
    values = logits.softmax(1) if outputs == "softmax" else logits
    own = values.gather(1, goals[:, None]).sum()
    (alpha,) = torch.autograd.grad(own, leaf, retain_graph=outputs == "logits")
    alpha = alpha.sum(1).flatten(1).double()
    if outputs == "softmax":
        return alpha, -alpha, logits.argmax(1)  # the outputs sum to 1, so the others' derivative is the negative
    (total,) = torch.autograd.grad(values.sum(), leaf)
    return alpha, total.sum(1).flatten(1).double() - alpha, logits.argmax(1)


def _most_salient(
    alpha: Tensor, beta: Tensor, saturated: Tensor, signs: tuple[int, ...], together: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best pixels (R, together), the way they go (R,), and whether any qualify (R,)."""
    scores, picks = [], []
    for number, sign in enumerate(signs):
        a = (sign * alpha).masked_fill(saturated[:, number], -math.inf)
        b = (-sign * beta).masked_fill(saturated[:, number], -math.inf)
        places = torch.arange(a.shape[1], device=a.device).expand_as(a)
        if together == 2:
            a, b, places = _undominated(a, b, places)
            a, b = a[:, :, None] + a[:, None], b[:, :, None] + b[:, None]
        score = torch.where((a > 0) & (b > 0), a * b, 0.0)
        if together == 2:
            score.diagonal(dim1=1, dim2=2).fill_(0.0)
        value, place = score.flatten(1).max(1)
        width = score.shape[-1]
        pick = [place // width, place % width] if together == 2 else [place]
        scores.append(value)
        picks.append(places.gather(1, torch.stack(pick, 1)))
    value, way = torch.stack(scores, 1).max(1)
    picked = torch.stack(picks, 1)[torch.arange(len(way)), way]
    return picked, torch.tensor(signs, device=alpha.device)[way], value > 0


def _undominated(a: Tensor, b: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Those among which the best pair must be: a pixel that two others beat in both a and b can be replaced by one."""
    a, order = a.sort(1, descending=True)
    b, places = b.gather(1, order), places.gather(1, order)
    least = torch.full_like(b[:, :1], -math.inf)
    first = torch.cat([least, b.cummax(1).values[:, :-1]], 1)
    second = torch.cat([least, torch.minimum(b, first).cummax(1).values[:, :-1]], 1)
    kept = b > second
    width = max(2, int(kept.sum(1).max()))
    chosen = kept.to(torch.uint8).topk(width, 1).indices
    fits = kept.gather(1, chosen)
    return (
        a.gather(1, chosen).masked_fill(~fits, -math.inf),
        b.gather(1, chosen).masked_fill(~fits, -math.inf),
        places.gather(1, chosen),
    )


def cw_l0(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    targets: Tensor | None = None,
    share: float = 0.25,
    steps: int = 100,
    learning_rate: float = 0.01,
    initial_constant: float = 1e-3,
    largest_constant: float = 1e3,
) -> AttackResult:
    """Carlini and Wagner's L0 attack: change all pixels a little, then forbid those that matter least, again and again.

    Each round minimises |delta|^2 + c max(lead of the true class, 0) over the pixels still allowed, in the variable
    artanh(2 x - 1), from the image and the c of the last round, with c doubled until the image is adversarial. Then the
    pixels with the smallest g_i delta_i, g the gradient of the lead, are put back for good. The last success counts.

    Args:
        model: (N, C, H, W) to (N, K) logits.
        images: floats in 0..1.
        labels: (N,) true classes.
        targets: (N,) classes wanted; None is any other.
        share: of the allowed pixels that a round forbids, at least one; small shares come nearer to the published
            attack, which takes a few pixels at a time, and are slower.
        steps: of Adam for each c; fewer if the image is adversarial before.
        learning_rate: of Adam.
        initial_constant: the first c.
        largest_constant: beyond it a round has failed (published: 2e6, at 1,000 steps each).

    Returns:
        Distances are L0.

    Raises:
        ValueError: images, labels or targets that do not fit; a share outside (0, 1], no steps, a constant not above 0.

    Source: Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, S&P 2017, section VI-B.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
        >>> net[1].weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 4, 1.0, 0.1]])
        >>> image = torch.tensor([[0.9, 0, 0, 0]]).reshape(1, 1, 2, 2)
        >>> cw_l0(net, image, torch.tensor([0])).distance
        tensor([1.])
    """
    if not (0 < share <= 1 and steps >= 1 and 0 < initial_constant <= largest_constant and learning_rate > 0):
        raise ValueError(
            f"share is in (0, 1], steps at least 1, and learning_rate and constants above 0; they are {share}, "
            f"{steps}, {learning_rate}, {initial_constant} and {largest_constant}"
        )
    with evaluating(model):
        logits = _check(model, images, labels, targets)
        count, channels = len(images), images.shape[1]
        allowed = torch.ones(count, images[0, 0].numel(), dtype=torch.bool, device=images.device)
        best, start = images.clone(), images.clone()
        gradients = torch.zeros(count, dtype=torch.long, device=images.device)
        constants = torch.full((count,), initial_constant, device=images.device)
        active = torch.nonzero(_lead(labels, targets)(logits, slice(None)) > 0).flatten()
        while len(active):
            originals, mask = images[active], allowed[active].view(-1, 1, *images.shape[2:])
            tried = constants[active]
            lead_here = _lead(labels[active], None if targets is None else targets[active])
            found, changed, spent = _within_mask(
                model, originals, start[active], mask, lead_here, steps,
                learning_rate, tried, largest_constant,
            )  # fmt: skip
            gradients[active] += spent
            constants[active] = tried
            active, changed = active[found], changed[found]
            if not len(active):
                break
            best[active] = start[active] = changed
            leaf = changed.requires_grad_()
            (slope,) = torch.autograd.grad(lead_here(model(leaf), found).sum(), leaf)
            gradients[active] += 1
            # How much of the lead's fall is due to a pixel; what is forbidden already is not in the order.
            gain = (-slope * (changed.detach() - images[active])).sum(1).flatten(1)
            gain[~allowed[active]] = math.inf
            for row, image in enumerate(active):
                remaining = int(allowed[image].sum())
                untouched = allowed[image] & (changed[row].detach() == images[image]).all(0).flatten()
                dropped = gain[row].argsort()[: max(1, math.ceil(share * remaining))]
                allowed[image, dropped] = False
                allowed[image] &= ~untouched
            keep = allowed[active].view(-1, 1, *images.shape[2:]).expand(-1, channels, -1, -1)
            start[active] = torch.where(keep, start[active], images[active])
            active = active[allowed[active].any(1)]
        return _result(model, images, labels, targets, best, l0_distance, 1 + gradients, gradients)


def _within_mask(
    model: nn.Module,
    originals: Tensor,
    start: Tensor,
    mask: Tensor,
    lead: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    learning_rate: float,
    constants: Tensor,
    largest: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One L2 attack on the allowed pixels of each image: success (N,), images, and gradients spent (N,).

    ``constants`` (N,) are doubled in place where they do not suffice.
    """
    result, found = start.clone(), torch.zeros(len(start), dtype=torch.bool, device=start.device)
    spent = torch.zeros(len(start), dtype=torch.long, device=start.device)
    # Slightly inside of 0..1, where artanh is finite; pixels that are not allowed keep their exact values.
    variable = torch.atanh((2 * start - 1) * 0.999999)
    left = torch.arange(len(start), device=start.device)
    while len(left):
        w = variable[left].clone().requires_grad_()
        optimizer = torch.optim.Adam([w], lr=learning_rate)
        for _ in range(steps):
            changed = torch.where(mask[left], (torch.tanh(w) + 1) / 2, originals[left])
            leads = lead(model(changed), left)
            spent[left[~found[left]]] += 1  # the others only go along
            fresh = (leads < 0) & ~found[left]
            result[left[fresh]], found[left[fresh]] = changed[fresh].detach(), True
            if found[left].all():
                break
            loss = (changed - originals[left]).square().sum() + (constants[left] * leads.clamp_min(0)).sum()
            optimizer.zero_grad()
            loss.backward(inputs=[w])
            optimizer.step()
        variable[left] = w.detach()
        left = left[~found[left]]
        constants[left] *= 2
        left = left[constants[left] <= largest]
    return found, result, spent


def _lead(labels: Tensor, targets: Tensor | None) -> Callable[[Tensor, Tensor | slice], Tensor]:
    """What an attack brings below 0: the true class's lead over all others, or the others' over the target."""

    def lead(logits: Tensor, rows: Tensor | slice) -> Tensor:
        goal = (labels if targets is None else targets)[rows][:, None]
        own = logits.gather(1, goal).squeeze(1)
        other = logits.scatter(1, goal, -math.inf).amax(1)
        return own - other if targets is None else other - own

    return lead


def _check(model: nn.Module, images: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """The logits of the images, or an error that says what does not fit."""
    if images.ndim != 4 or not images.is_floating_point() or not len(images):
        raise ValueError(f"images are floats (N, C, H, W), N > 0, not {images.dtype} of shape {tuple(images.shape)}")
    if not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"images are in 0..1; these go from {images.min():g} to {images.max():g}")
    with torch.no_grad():
        logits: Tensor = model(images)
    if logits.ndim != 2 or len(logits) != len(images) or logits.shape[1] < 2 or not logits.isfinite().all():
        raise ValueError(f"the model must return finite logits (N, K), K >= 2, not {tuple(logits.shape)}")
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is None:
            continue
        if classes.shape != (len(images),) or classes.dtype != torch.int64:
            raise ValueError(f"{name} are int64 (N,), not {classes.dtype} of shape {tuple(classes.shape)}")
        if classes.min() < 0 or classes.max() >= logits.shape[1]:
            raise ValueError(f"{name} are classes 0 to {logits.shape[1] - 1}, not {int(classes.min())} to "
                             f"{int(classes.max())}")  # fmt: skip
    if targets is not None and (targets == labels).any():
        raise ValueError("a target is the true class of its image; give another")
    return logits


@torch.no_grad()
def _result(
    model: nn.Module,
    originals: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    images: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    queries: Tensor,
    gradients: Tensor,
) -> AttackResult:
    """What counts is what the network says about the images that are handed out."""
    named = model(images).argmax(1)
    found = named != labels if targets is None else named == targets
    apart = torch.where(found, distance(images, originals), math.inf)
    return AttackResult(
        torch.where(found[:, None, None, None], images, originals), found, apart, queries + 1, gradients
    )
