"""What can be read from the affine map F x + r that a network is at one input, without building F."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from reprise.explain.linear_interpreters.lanes import KINDS
from reprise.explain.linear_interpreters.scope import LinearScope

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

__all__ = ["LinearInterpreter", "SingularTriplets", "linear_interpreter"]

Indices = Sequence[int] | Sequence[Sequence[int]] | Tensor


class SingularTriplets(NamedTuple):
    """Leading part of F = sum over i of S_i U_i V_i^T.

    Attributes:
        U: (k, *output shape) eigen-outputs, orthonormal.
        S: (k,) singular values, the largest first.
        V: (k, *input shape) eigen-inputs, orthonormal.
        error: largest ``|F^T F v - s^2 v| / s_1^2`` among them: 0 is exact.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    error: float


class LinearInterpreter:
    """The affine map that a network is once its decisions are frozen at one input; made by :func:`linear_interpreter`.

    Inputs and outputs have no batch dimension here, or one with any number of them.

    Args:
        scope: the network, which may not change meanwhile.
        x0: (1, ...) the input that decides.
        batch_size: inputs and outputs per pass; memory grows with it, and not with the depth of the network, but that
            what all layers made of x0 is kept.

    Attributes:
        output: f(x0), as the network gives it.

    Raises:
        ValueError: x0 is no batch of one, or the network does not take it; and as :class:`LinearScope` says.
    """

    def __init__(self, scope: LinearScope, x0: Tensor, batch_size: int = 32) -> None:
        if not isinstance(x0, Tensor) or x0.ndim < 2 or len(x0) != 1:
            told = tuple(x0.shape) if isinstance(x0, Tensor) else type(x0).__name__
            raise ValueError(
                f"x0 must be one input with its batch dimension, (1, ...), not {told}; use x[None] or x[:1]"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.scope, self.batch_size, self._trace = scope, batch_size, scope.trace(x0)
        self.x0, y = self._trace.x.detach(), self._trace.y.detach()
        if y.ndim == 0 or len(y) != 1:
            raise ValueError(f"the network returns {tuple(y.shape)} for one input; the batch must stay in front")
        self.output = y[0]

    @property
    def input_shape(self) -> torch.Size:
        """Of one input."""
        return self.x0.shape[1:]

    @property
    def output_shape(self) -> torch.Size:
        """Of one output."""
        return self.output.shape

    @cached_property
    def residual(self) -> Tensor:
        """r = f(x0) - F x0, all that constants contribute; of the output's shape."""
        return self._lane_1(torch.zeros_like(self.x0))[0]

    # Products --------------------------------------------------------------------------------------------------------

    def apply(self, x1: Tensor) -> Tensor:
        """F x1: inputs (*input shape) or (B, *input shape) to outputs."""
        return _batched(x1, self.input_shape, "an input", self._forward, self.batch_size)

    def affine(self, x1: Tensor) -> Tensor:
        """F x1 + r: what the frozen network makes of other inputs; of x0, the network's own output."""
        return self.apply(x1) + self.residual

    def adjoint(self, z: Tensor) -> Tensor:
        """F^T z: outputs (*output shape) or (B, *output shape) to inputs."""
        return _batched(z, self.output_shape, "an output", self._backward, self.batch_size)

    def _forward(self, x1: Tensor) -> Tensor:
        return self._lane_1(x1.to(self.x0), constants=False)

    def _lane_1(self, x1: Tensor, constants: bool | tuple[str, ...] = True) -> Tensor:
        return self.scope(self.x0, x1, constants=constants, trace=self._trace)[1]

    def _backward(self, z: Tensor) -> Tensor:
        z = z.to(self.x0)[:, None]
        with torch.inference_mode(False):
            # Of several, vmap makes one product with each layer's weights.
            rows = torch.vmap(self._transposed)(z) if len(z) > 1 else self._transposed(z[0])
        return rows.reshape(len(z), *self.input_shape)

    def _transposed(self, z: Tensor) -> Tensor:
        return torch.autograd.grad(self._trace.y, self._trace.x, z, retain_graph=True)[0]

    # Parts of F ------------------------------------------------------------------------------------------------------

    def columns(self, indices: Indices) -> Tensor:
        """What single input elements contribute to the output (projective filters).

        Args:
            indices: flat indices into an input, or one tuple such as (channel, row, column) for each.

        Returns:
            (len(indices), *output shape).
        """
        outputs = self.output_shape.numel()
        index = _flat(indices, self.input_shape)
        if outputs < len(index):  # all rows are cheaper
            rows = self.rows(range(outputs)).flatten(1)
            return rows[:, index.to(self.x0.device)].T.reshape(-1, *self.output_shape)
        return self._units(index, self.input_shape, self._forward)

    def rows(self, indices: Indices) -> Tensor:
        """What single output elements gather from the input (receptive filters): (len(indices), *input shape).

        ``indices`` are as for :meth:`columns`, into an output: for a classifier, classes.
        """
        return self._units(_flat(indices, self.output_shape), self.output_shape, self._backward)

    def _units(self, flat: Tensor, shape: torch.Size, product: Callable[[Tensor], Tensor]) -> Tensor:
        parts = []
        for start in range(0, len(flat), self.batch_size):
            chunk = flat[start : start + self.batch_size, None].to(self.x0.device)
            units = self.x0.new_zeros(len(chunk), shape.numel())
            parts.append(product(units.scatter_(1, chunk, 1).view(-1, *shape)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def matrix(self, limit: int = 2**30) -> Tensor:
        """F, (output elements, input elements), for small networks.

        Raises:
            ValueError: it would take more than ``limit`` bytes.
        """
        inputs, outputs = self.input_shape.numel(), self.output_shape.numel()
        needed = inputs * outputs * self.x0.element_size()
        if needed > limit:
            raise ValueError(
                f"the {outputs} x {inputs} matrix needs {needed:,} bytes, more than the limit of {limit:,}; use "
                f"products, columns, rows or svd, or raise limit"
            )
        if inputs <= outputs:
            return self.columns(range(inputs)).flatten(1).T
        return self.rows(range(outputs)).flatten(1)

    def svd(self, k: int, *, iterations: int = 20, tolerance: float = 1e-4, seed: int = 0) -> SingularTriplets:
        """The k largest singular values with their eigen-inputs and eigen-outputs, from products alone.

        Block Lanczos on F^T F, re-orthogonalised in full: each iteration multiplies a block of k + 4 vectors by F and
        F^T, and the best triplets in the span of all blocks are taken (Rayleigh-Ritz).

        Args:
            k: how many.
            iterations: at most so many blocks; the span holds (k + 4) iterations inputs and outputs.
            tolerance: stop once ``error`` is below.
            seed: of the first block.

        Raises:
            ValueError: F has fewer than k singular values.
        """
        n, largest = self.input_shape.numel(), min(self.input_shape.numel(), self.output_shape.numel())
        if not 1 <= k <= largest:
            raise ValueError(f"F has {largest} singular values; k must be between 1 and that, not {k}")
        start = torch.randn(n, min(k + 4, n), generator=torch.Generator().manual_seed(seed), dtype=self.x0.dtype)
        block = torch.linalg.qr(start.to(self.x0.device))[0]
        V = GV = block[:, :0]  # the basis, and F^T F times it
        FV = block.new_empty(self.output_shape.numel(), 0)
        for _ in range(iterations):
            image = self.apply(block.T.reshape(-1, *self.input_shape))
            back = self.adjoint(image).flatten(1).T
            V, GV = torch.cat([V, block], 1), torch.cat([GV, back], 1)
            FV = torch.cat([FV, image.flatten(1).T], 1)
            U, S, Wt = torch.linalg.svd(FV, full_matrices=False)
            U, S, W = U[:, :k], S[:k], Wt[:k].T
            error = float((GV @ W - V @ W * S.square()).norm(dim=0).max() / S[0].square().clamp_min(1e-30))
            block = _beyond(V, back)
            if error <= tolerance or not block.shape[1]:
                break
        return SingularTriplets(U.T.reshape(-1, *self.output_shape), S, (V @ W).T.reshape(-1, *self.input_shape), error)

    def as_linear_operator(self) -> LinearOperator:
        """F as SciPy sees it, on flat arrays: for ``scipy.sparse.linalg.svds``, ``eigs`` (for square F), ``lsqr``."""
        from scipy.sparse.linalg import LinearOperator

        def wrap(product: Callable[[Tensor], Tensor], shape: torch.Size) -> Callable[[np.ndarray], np.ndarray]:
            def multiply(columns: np.ndarray) -> np.ndarray:
                batch = torch.from_numpy(np.ascontiguousarray(columns.reshape(len(columns), -1).T)).to(self.x0)
                return product(batch.view(-1, *shape)).flatten(1).T.cpu().numpy()

            return multiply

        forward, backward = wrap(self.apply, self.input_shape), wrap(self.adjoint, self.output_shape)
        return LinearOperator(
            (self.output_shape.numel(), self.input_shape.numel()),
            matvec=forward, matmat=forward, rmatvec=backward, rmatmat=backward,
            dtype=np.dtype(str(self.x0.dtype).removeprefix("torch.")),
        )  # fmt: skip

    # Classifiers -----------------------------------------------------------------------------------------------------

    def contributions(self, classes: int | Sequence[int] | None = None) -> Tensor:
        """Votes of the pixels: (row c of F) times x0, summed over channels. With the residual they add up to the logit.

        Args:
            classes: one class, several, or None for all.

        Returns:
            (H, W), or (K, H, W) for several; their arg-max over classes is each pixel's own opinion.
        """
        chosen = self._classes(classes)
        votes = self.rows(chosen) * self.x0
        votes = votes.sum(1) if votes.ndim == 4 else votes
        return votes[0] if isinstance(classes, int) else votes

    def bias_share(self, target: int | None = None) -> Tensor:
        """|r| / (|r| + |F x0|) of each output, or of one: 0 where constants do nothing, 1 where they do everything."""
        residual, rest = self.residual.abs(), self._own.abs()
        share = residual / (residual + rest).clamp_min(torch.finfo(residual.dtype).tiny)
        return share if target is None else share[self._classes(target)[0]]

    def residual_by_source(self) -> dict[str, Tensor]:
        """The residual split by where its constants come from; the parts add up to it.

        Keys: "bias" of convolutions and linear layers, "normalization" (its shifts), "unit" (what point-wise units add)
        and "other" (tensors and numbers that the network adds).
        """
        zeros = torch.zeros_like(self.x0)
        return {kind: self._lane_1(zeros, (kind,))[0] for kind in KINDS}

    @cached_property
    def _own(self) -> Tensor:
        return self.apply(self.x0[0])

    def _classes(self, classes: int | Sequence[int] | None) -> list[int]:
        if len(self.output_shape) != 1:
            raise ValueError(f"the network is no classifier: it returns {tuple(self.output_shape)}; use rows")
        count = self.output_shape[0]
        chosen = list(range(count)) if classes is None else [classes] if isinstance(classes, int) else list(classes)
        for c in chosen:
            if not 0 <= c < count:
                raise ValueError(f"class {c} is out of range: the network has classes 0 to {count - 1}")
        return chosen


def linear_interpreter(
    model: nn.Module | LinearScope, x0: Tensor, *, batch_size: int = 32, **options: Any
) -> LinearInterpreter:
    """Read a network at one input as the affine map F x + r. Source: Navarrete Michelini et al., arXiv 1908.05168.

    Args:
        model: a network in evaluation mode, or a :class:`LinearScope` of it.
        x0: (1, ...) the input, with its batch dimension.
        batch_size: inputs and outputs per pass.
        options: of :class:`LinearScope`.

    Raises:
        ValueError: an input that does not fit, a network in training mode.
        NotImplementedError: an operation that cannot be frozen, with its place in the network.

    Example:
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 10)
        ... ).eval()
        >>> interpreter = linear_interpreter(net, torch.rand(1, 1, 5, 5))
        >>> votes = interpreter.contributions(3)
        >>> votes.shape, torch.allclose(votes.sum() + interpreter.residual[3], interpreter.output[3], atol=1e-5)
        (torch.Size([5, 5]), True)
        >>> interpreter.svd(2).V.shape  # eigen-inputs
        torch.Size([2, 1, 5, 5])
    """
    scope = model if isinstance(model, LinearScope) else LinearScope(model, **options)
    return LinearInterpreter(scope, x0, batch_size)


def _batched(
    values: Tensor, shape: torch.Size, what: str, product: Callable[[Tensor], Tensor], batch_size: int
) -> Tensor:
    """Apply a product of batches, in chunks; a single value comes back single."""
    single = isinstance(values, Tensor) and values.shape == shape
    if not single and (not isinstance(values, Tensor) or values.shape[1:] != shape or len(values) == 0):
        told = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"{what} has the shape {tuple(shape)}, alone or in a batch (B, ...); this is {told}")
    batch = values[None] if single else values
    result = torch.cat([product(chunk) for chunk in batch.split(batch_size)])
    return result[0] if single else result


def _flat(indices: Indices, shape: torch.Size) -> Tensor:
    index = np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices)
    if index.dtype.kind not in "iu" or not index.size or index.shape[1:] not in ((), (len(shape),)) or not index.ndim:
        raise ValueError(f"indices are whole numbers, or one tuple of {len(shape)} for each element, not {indices}")
    sizes = shape if index.ndim == 2 else (shape.numel(),)
    if index.min() < 0 or (index.reshape(-1, len(sizes)).max(0) >= sizes).any():
        raise ValueError(f"index {indices} is out of range for {tuple(shape)}")
    return torch.from_numpy(index if index.ndim == 1 else np.ravel_multi_index(tuple(index.T), sizes)).long()


def _beyond(basis: Tensor, block: Tensor) -> Tensor:
    """Orthonormal columns for what of a block lies outside a basis."""
    q, r = torch.linalg.qr(block - basis @ (basis.T @ block))
    new = r.diagonal().abs() > 10 * torch.finfo(block.dtype).eps * block.norm(dim=0).max()
    q = q[:, new][:, : basis.shape[0] - basis.shape[1]]
    return torch.linalg.qr(q - basis @ (basis.T @ q))[0]  # twice is enough (Kahan and Parlett)
