"""Diffusion Policy: a chunk of actions is denoised, step by step, from noise, told what was seen.

Where demonstrations differ it samples one of the ways rather than their mean. With DDIM and eta = 0 the chunk is a
function of what is seen and of the noise it begins from, which others can then choose (steering by noise).

Source: Chi, Feng, Du, Xu, Cousineau, Burchfiel and Song, Diffusion Policy, RSS 2023.

From a recording in LeRobot's layout to actions for the robot; a recording is made up here:

    >>> import tempfile
    >>> from reprise.data import Episodes, read_lerobot, write_lerobot
    >>> from reprise.policies import ChunkedPolicy
    >>> seen = {"state": np.random.randn(40, 6), "image": np.zeros((40, 48, 48, 3), np.uint8)}
    >>> actions, ends = np.random.randn(40, 4).astype(np.float32), np.array([18, 40])
    >>> folder = tempfile.mkdtemp()
    >>> recording = write_lerobot(Episodes(seen, actions, ends, ("lift", "stack it")), folder + "/recording", fps=10)

    >>> episodes = read_lerobot(recording)  # yours: observation.state, observation.image, action, tasks
    >>> policy = DiffusionPolicy(
    ...     network="mlp", observations=("state", "image"), instructions=64, inference_steps=10, encoder={"shift": 2}
    ... )
    >>> policy.fit(episodes, steps=2, batch_size=8).save(folder + "/policy")  # some thousand steps
    >>> robot = ChunkedPolicy(DiffusionPolicy.load(folder + "/policy"), execute=8)
    >>> camera = torch.rand(1, 3, 48, 48)  # of one robot, as LeRobot has it; bytes (1, 48, 48, 3) do, too
    >>> robot.act({"observation.state": np.zeros((1, 6)), "observation.image": camera, "task": "lift"}).shape
    (1, 4)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.diffusion.ddim import DDIM, ddpm
from reprise.diffusion.forward_process import ForwardProcess, denoising_loss
from reprise.nn.diffusion_mlp import DiffusionMLP
from reprise.nn.diffusion_transformer import DiffusionTransformer
from reprise.nn.unet1d import ConditionalUNet1D
from reprise.policies.demonstrations import Batch
from reprise.policies.encoders import ObservationEncoder
from reprise.policies.imitation import ImitationPolicy, masked_mean
from reprise.policies.observations import History, Shapes, checked_mask, count_of

__all__ = ["DiffusionPolicy", "sampled_contexts"]

ROWS = 4096  # of a condition for several steps of the sampler at once
TRAINING: dict[str, dict[str, Any]] = {  # as published
    "unet": {"learning_rate": 1e-4, "weight_decay": 1e-6, "betas": (0.95, 0.999)},
    "transformer": {"learning_rate": 1e-4, "weight_decay": 1e-3, "betas": (0.9, 0.95)},
    "mlp": {"learning_rate": 1e-4, "weight_decay": 1e-6, "betas": (0.9, 0.999)},
}


class DiffusionPolicy(ImitationPolicy):
    """Denoise chunks of actions.

    Defaults are the published ones for states: 2 observations, chunks of 16 actions from the first of them on, of which
    8 are executed (``ChunkedPolicy(policy, 8)``); DDPM over 100 steps. On a CPU take ``inference_steps=10`` (DDIM),
    which loses little, and a smaller network.

    Args:
        network: "unet" (:class:`~reprise.nn.ConditionalUNet1D`), "transformer"
            (:class:`~reprise.nn.DiffusionTransformer`) or "mlp" (:class:`~reprise.nn.DiffusionMLP`).
        network_options: arguments of the network that do not follow from the data, say ``{"down_dims": (64, 128)}``.
        encoder: arguments of the :class:`~reprise.policies.ObservationEncoder`, for pictures.
        horizon, history, first_action, pad_end: see :class:`~reprise.policies.ImitationPolicy`. first_action None
            begins beside the first observation.
        train_steps, betas, prediction: of the :class:`~reprise.diffusion.ForwardProcess`.
        inference_steps: DDIM with so many steps; None: DDPM, all of them.
        eta: noise that DDIM adds in each step, 0 (deterministic) to 1.
        clip: in every step the chunk is held in -clip..clip.
        recompute_epsilon: after clipping take the noise from the clipped chunk (as DPPO does).
        mask_padding: actions that are repeated beyond the end of an episode do not count in the loss. As published they
            do, and teach the policy to stop.
        warm_start: begin from the last chunk, moved on by so many actions (those executed of it) and noised as at half
            of the chain, rather than from noise; None: from noise. Source: Ankile et al., arXiv 2407.16677, whose code
            does so.
        **options: of :class:`~reprise.policies.ImitationPolicy`.

    Attributes:
        sampler: the :class:`~reprise.diffusion.DDIM` that plans.

    Raises:
        ValueError: an unknown network, settings of the diffusion that do not fit.

    Example:
        >>> from reprise.data import Episodes
        >>> walk = Episodes({"state": np.zeros((20, 3))}, np.ones((20, 2), np.float32), np.array([20]))
        >>> policy = DiffusionPolicy(network="mlp", network_options={"width": 16}, inference_steps=10)
        >>> policy.fit(walk, steps=2).plan(np.zeros((4, 3)), torch.zeros(4, 16, 2)).shape
        torch.Size([4, 16, 2])
        >>> faster = policy.sampled(inference_steps=4)  # the same network
        >>> len(faster.sampler), len(policy.sampler)
        (4, 10)
    """

    module: nn.ModuleDict

    def __init__(
        self,
        *,
        network: str = "unet",
        network_options: Mapping[str, Any] | None = None,
        encoder: Mapping[str, Any] | None = None,
        horizon: int = 16,
        history: int = 2,
        first_action: int | None = None,
        pad_end: int | None = 7,
        train_steps: int = 100,
        betas: str = "squared_cosine",
        prediction: str = "epsilon",
        inference_steps: int | None = None,
        eta: float = 0.0,
        clip: float | None = 1.0,
        recompute_epsilon: bool = False,
        mask_padding: bool = False,
        warm_start: int | None = None,
        **options: Any,
    ) -> None:
        start = max(1 - history, 1 - horizon) if first_action is None else first_action
        super().__init__(horizon=horizon, history=history, first_action=start, pad_end=pad_end, **options)
        if network not in TRAINING:
            raise ValueError(f"unknown network {network!r}; there are {', '.join(map(repr, TRAINING))}")
        if warm_start is not None and not 0 < warm_start <= horizon:
            raise ValueError(f"of a chunk of {horizon} actions 1 to {horizon} are executed, not {warm_start}")
        self.network, self.network_options, self.encoder = network, dict(network_options or {}), dict(encoder or {})
        self.training_defaults = TRAINING[network]
        self.process = ForwardProcess(betas, train_steps, prediction=prediction)
        self.clip, self.recompute_epsilon, self.mask_padding = clip, recompute_epsilon, mask_padding
        self.warm_start, self._previous = warm_start, torch.empty(0)
        self.sampler = self._sampler(inference_steps, eta)

    def sampled(self, *, inference_steps: int | None, eta: float = 0.0) -> Self:
        """This policy with another sampler; the network is the same, what environments showed is not shared."""
        other = copy.copy(self)
        other.settings = self.settings | {"inference_steps": inference_steps, "eta": eta}
        other.sampler = self._sampler(inference_steps, eta)
        other._seen = History(self.history)
        other._previous = torch.empty(0)
        return other

    def build(self, shapes: Shapes) -> nn.ModuleDict:
        """Encoder and network."""
        encoder = ObservationEncoder(shapes, self.history, per_step=self.network == "transformer", **self.encoder)
        net: nn.Module
        if self.network == "unet":
            net = ConditionalUNet1D(shapes.action, encoder.size, **self.network_options)
        elif self.network == "transformer":
            sizes = (shapes.action, self.horizon, encoder.size, self.history)
            net = DiffusionTransformer(*sizes, **self.network_options)
        else:
            net = DiffusionMLP(self.horizon, shapes.action, encoder.size, **self.network_options)
        return nn.ModuleDict({"encoder": encoder, "net": net})

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the predicted noise."""
        condition = self.module["encoder"](batch)
        errors = denoising_loss(
            self.process, lambda x, t: self.module["net"](x, t, condition), batch["actions"], reduction="none"
        )
        return masked_mean(errors, batch["padding"]) if self.mask_padding else errors.mean()

    def predict(self, batch: Batch, noise: Tensor | None, generator: torch.Generator | None = None) -> Tensor:
        """(B, H, A)."""
        assert noise is not None
        net: Any = self.module["net"]
        condition = self.module["encoder"](batch)
        contexts = sampled_contexts(net, self.sampler.timesteps.to(noise.device), condition)
        return self.sampler.sample(lambda x, t: net.denoise(x, next(contexts)), noise, generator=generator)

    def plan(
        self,
        observation: Any,
        noise: Tensor | None = None,
        *,
        environments: Any = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :meth:`ImitationPolicy.plan <reprise.policies.ImitationPolicy.plan>`."""
        if self.warm_start is None:
            return super().plan(observation, noise, environments=environments, generator=generator)
        B = count_of(observation)
        shape = (B, self.horizon, self._built().action)
        if self._previous.shape != shape:
            self._previous = torch.zeros(shape, device=self.device)
        chosen = slice(None) if environments is None else torch.from_numpy(checked_mask(environments, B))
        last = self._previous[chosen]
        if noise is None:
            noise = torch.randn(last.shape, device=self.device, generator=generator)
        kept = float(self.process.alpha_bars[len(self.process) // 2])
        start = kept**0.5 * last + (1 - kept) ** 0.5 * noise
        chunk = super().plan(observation, start, environments=environments, generator=generator)
        moved = self.normalizers["actions"](chunk)[:, self.warm_start :]
        self._previous[chosen] = F.pad(moved, (0, 0, 0, self.warm_start))
        return chunk

    def reset(self, mask: Any = None) -> None:
        """See :meth:`ImitationPolicy.reset <reprise.policies.ImitationPolicy.reset>`."""
        super().reset(mask)
        if mask is None:
            self._previous = torch.empty(0)
        elif len(self._previous):
            self._previous[torch.from_numpy(checked_mask(mask, len(self._previous)))] = 0

    def parameter_groups(self, module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        """As published: in the transformer only matrices decay."""
        if self.network != "transformer":
            return super().parameter_groups(module, weight_decay)
        net: Any = self.module["net"]
        decayed = {id(parameter) for parameter in net.decayed()}
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [
            {"params": [p for p in trained if id(p) in decayed], "weight_decay": weight_decay},
            {"params": [p for p in trained if id(p) not in decayed], "weight_decay": 0.0},
        ]

    def _sampler(self, steps: int | None, eta: float) -> DDIM:
        if steps is None:
            return ddpm(self.process, clip=self.clip)
        return DDIM(self.process, steps, eta=eta, clip=self.clip, recompute_epsilon=self.recompute_epsilon)


def sampled_contexts(net: Any, timesteps: Tensor, condition: Tensor) -> Iterator[list[Tensor]]:
    """What a network is told at each step of a sampler, computed for many steps in one go.

    Args:
        net: has ``contexts(steps (S, 1), condition) -> tensors (S, B, ...)``.
        timesteps: (n,) in the order of the sampler.
        condition: (B, ...).
    """
    for steps in timesteps.split(max(1, ROWS // max(1, len(condition)))):
        yield from map(list, zip(*net.contexts(steps[:, None], condition), strict=True))
