"""Losses for any network. So far: the support vector machine as a network's last layer, with its prediction rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["L2SVMLoss", "calibrate", "svm_predict", "svm_targets"]


class L2SVMLoss(nn.Module):
    """Squared hinge loss, one class versus the rest: a support vector machine in the place of softmax.

    Takes the place of ``CrossEntropyLoss`` on any network with linear scores f (N, K); y is +1 at the class of an
    example and -1 elsewhere:

    ============= ================================================= ===========================
    reduction     data term                                         penalty on the read-out
    ============= ================================================= ===========================
    "mean"        C * mean over i, k of max(0, 1 - y_ik f_ik)^2     mean of W^2
    "sum_classes" C * mean over i of the sum over k                 half the sum of W^2
    "sum"         C * sum over i, k                                 half the sum of W^2
    ============= ================================================= ===========================

    "mean" made the published numbers. "sum" is what scikit-learn's ``LinearSVC`` minimises, except that this penalises
    its bias, too. PyTorch's ``MultiMarginLoss(p=2)`` is another loss: it compares scores with each other, not with 1.

    Source: the L2-SVM of Tang, arXiv 1306.0239; Agarap, arXiv 1712.03541, and the code published with it.

    Args:
        C: weight of the data term, above 0.
        reduction: a row of the table.
        penalty: norm of the read-out's weights: "l2" squares them, "l1" takes their magnitudes (no half in front).
        regularize: the linear layer that makes the scores; its weights are penalised, its bias is not. None leaves the
            penalty out.

    Raises:
        ValueError: a setting or an input that does not fit.

    Example:
        >>> head = nn.Linear(16, 3)
        >>> loss = L2SVMLoss(regularize=head)
        >>> loss(head(torch.randn(8, 16)), torch.randint(3, (8,))).backward()
        >>> float(L2SVMLoss()(torch.zeros(8, 3), torch.zeros(8, dtype=torch.long)))
        1.0
    """

    def __init__(
        self, C: float = 1.0, reduction: str = "mean", penalty: str = "l2", regularize: nn.Module | None = None
    ) -> None:
        super().__init__()
        if not C > 0:
            raise ValueError(f"C must be above 0, not {C}")
        if reduction not in ("mean", "sum_classes", "sum"):
            raise ValueError(f'reduction is "mean", "sum_classes" or "sum", not {reduction!r}')
        if penalty not in ("l2", "l1"):
            raise ValueError(f'penalty is "l2" or "l1", not {penalty!r}')
        if regularize is not None and not isinstance(getattr(regularize, "weight", None), Tensor):
            raise ValueError(
                f"regularize takes the layer that makes the scores, say nn.Linear; {type(regularize).__name__} has no "
                "weight"
            )
        self.C, self.reduction, self.penalty = C, reduction, penalty
        self._regularized = [regularize]  # in a list, so that the layer does not become a part of the loss

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            scores: (N, K) floats. K = 1 is the binary machine.
            targets: (N,) classes 0..K-1 (K = 1: 0 and 1), or (N, K) of -1 and +1.

        Returns:
            Scalar.
        """
        _check_scores(scores)
        weight = self.C / {"mean": scores.numel(), "sum_classes": len(scores), "sum": 1}[self.reduction]
        value: Tensor = _SquaredHinge.apply(scores, _signs(targets, scores).to(scores.dtype), weight)
        (layer,) = self._regularized
        return value if layer is None else value + self._penalty(layer.weight)  # type: ignore[arg-type]

    def _penalty(self, weight: Tensor) -> Tensor:
        size = weight.square() if self.penalty == "l2" else weight.abs()
        if self.reduction == "mean":
            return size.mean()
        return size.sum() / 2 if self.penalty == "l2" else size.sum()

    def extra_repr(self) -> str:
        return f"C={self.C}, reduction={self.reduction!r}, penalty={self.penalty!r}"


class _SquaredHinge(torch.autograd.Function):
    """Weighted sum of max(0, 1 - y f)^2. Autograd alone would fill more arrays of the size of the scores."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, signs: Tensor, weight: float) -> Tensor:
        violation = _violation(scores, signs)
        flat = violation.flatten()
        value = weight * flat.dot(flat)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(scores, signs)
            ctx.weight, ctx.slope = weight, violation.mul_(signs)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        scores, signs = ctx.saved_tensors
        # A second derivative needs to see what the slope is made of.
        slope = _violation(scores, signs) * signs if torch.is_grad_enabled() else ctx.slope
        return (-2 * ctx.weight * gradient) * slope, None, None


def _violation(scores: Tensor, signs: Tensor) -> Tensor:
    """max(0, 1 - y f), in a single array."""
    return torch.addcmul(scores.new_ones(()), scores, signs, value=-1).relu_()


def svm_targets(targets: Tensor, num_classes: int) -> Tensor:
    """Classes as the signs that a support vector machine is trained on.

    Args:
        targets: (N,) integers in 0..K-1; with ``num_classes=1`` they are 0 and 1.
        num_classes: K.

    Returns:
        (N, K) float32: +1 at the class, -1 elsewhere. ``targets`` itself is left as it is.

    Raises:
        ValueError: a class outside the range, a wrong shape or type.

    Example:
        >>> svm_targets(torch.tensor([0, 2]), 3)
        tensor([[ 1., -1., -1.],
                [-1., -1.,  1.]])
        >>> svm_targets(torch.tensor([0, 1]), 1)
        tensor([[-1.],
                [ 1.]])
    """
    if targets.ndim != 1 or targets.is_floating_point() or targets.is_complex():
        raise ValueError(f"targets must be (N,) integers, not {targets.dtype} of shape {tuple(targets.shape)}")
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, not {num_classes}")
    targets = targets.long()
    if num_classes == 1:
        _check_classes(targets, 1)
        return (2 * targets - 1).float()[:, None]
    if not targets.is_cpu:  # where a class outside the range would end the process
        _check_classes(targets, num_classes - 1)
    signs = torch.full((len(targets), num_classes), -1.0, device=targets.device)
    try:
        return signs.scatter_(1, targets[:, None], 1.0)
    except RuntimeError:
        _check_classes(targets, num_classes - 1)
        raise


def svm_predict(scores: Tensor, rule: str = "score") -> Tensor:
    """Classes from the scores (the decision function) of a support vector machine.

    Args:
        scores: (N, K); K = 1 is the binary machine, whose class is 1 where the score is above 0.
        rule: "score": the class of the largest score. "sign": the class of the largest sign, as the code published
            with arXiv 1712.03541 does: where none or several scores are positive, the lowest such class.

    Returns:
        (N,) int64.

    Example:
        >>> scores = torch.tensor([[0.2, 0.9, -1.0], [-0.8, -0.1, -0.3]])
        >>> svm_predict(scores), svm_predict(scores, rule="sign")
        (tensor([1, 1]), tensor([0, 0]))
    """
    if rule not in ("score", "sign"):
        raise ValueError(f'rule is "score" or "sign", not {rule!r}')
    _check_scores(scores)
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0).long()
    return (scores.sign() if rule == "sign" else scores).argmax(1)


def calibrate(scores: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Platt scaling: probabilities from the scores of a support vector machine.

    One sigmoid per class, class versus rest, on Platt's smoothed targets; the K values of an example are then divided
    by their sum. Fit it on examples that the network was not trained on.

    Source: Platt (1999), "Probabilistic outputs for support vector machines".

    Args:
        scores: (N, K) finite floats on held-out examples.
        labels: (N,) their classes, 0..K-1 (K = 1: 0 and 1).

    Returns:
        A function from scores (M, K) to probabilities (M, K); with K = 1 that of class 1.

    Example:
        >>> scores = torch.randn(200, 3)
        >>> probabilities = calibrate(scores, scores.argmax(1))
        >>> probabilities(scores).sum(1).allclose(torch.ones(200))
        True
    """
    from sklearn.linear_model import LogisticRegression

    def sigmoid(score: np.ndarray, positive: np.ndarray) -> LogisticRegression:
        ones, zeros = positive.sum(), (~positive).sum()
        target = np.where(positive, (ones + 1) / (ones + 2), 1 / (zeros + 2))
        twice = np.concatenate([score, score])[:, None]  # a soft target is both classes, weighted
        outcome = np.repeat([1, 0], len(score))
        return LogisticRegression(C=np.inf).fit(twice, outcome, np.concatenate([target, 1 - target]))

    _check_scores(scores)
    positive = (_signs(labels, scores) > 0).cpu().numpy()
    columns = scores.detach().cpu().double().numpy().T
    models = [sigmoid(score, one) for score, one in zip(columns, positive.T, strict=True)]

    def probabilities(scores: Tensor) -> Tensor:
        columns = scores.detach().cpu().double().numpy().T[:, :, None]
        values = [model.predict_proba(column)[:, 1] for model, column in zip(models, columns, strict=True)]
        result = torch.from_numpy(np.stack(values, 1)).to(scores)
        return result if len(models) == 1 else result / result.sum(1, keepdim=True)

    return probabilities


def _check_scores(scores: Tensor) -> None:
    if scores.ndim != 2 or scores.numel() == 0 or not scores.is_floating_point():
        raise ValueError(f"scores must be floats of shape (N, K), not {scores.dtype} of shape {tuple(scores.shape)}")


def _check_classes(targets: Tensor, last: int) -> None:
    if len(targets):
        lowest, highest = (int(value) for value in targets.aminmax())
        if lowest < 0 or highest > last:
            raise ValueError(f"targets must lie in 0..{last}; they go from {lowest} to {highest}")


def _signs(targets: Tensor, scores: Tensor) -> Tensor:
    count, classes = scores.shape
    if targets.shape == (count,):
        return svm_targets(targets, classes)
    if targets.shape != scores.shape:
        raise ValueError(
            f"scores of shape {tuple(scores.shape)} need targets of shape ({count},) or {tuple(scores.shape)}, not "
            f"{tuple(targets.shape)}"
        )
    if not bool((targets.abs() == 1).all()):
        raise ValueError("targets of shape (N, K) hold -1 and +1; for 0 and 1 (one-hot) give 2 * targets - 1")
    return targets
