"""Sampling action chunks from a small denoiser: our DDIM loop against that of diffusers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.resources import count_flops
from benchmarks.table import Row, absent, compare
from reprise.diffusion import DDIM, ForwardProcess

TRAIN_STEPS, STEPS, CHUNK, OBSERVATION, EMBEDDING = 100, 10, 32, 20, 32


class Denoiser(nn.Module):
    """84-256-256-256-32 with Mish on chunk, observation and embedded step, as in diffusion policies."""

    def __init__(self) -> None:
        super().__init__()
        width = 256
        layers = [nn.Linear(CHUNK + OBSERVATION + EMBEDDING, width), nn.Mish()]
        layers += [nn.Linear(width, width), nn.Mish(), nn.Linear(width, width), nn.Mish(), nn.Linear(width, CHUNK)]
        self.layers = nn.Sequential(*layers)
        half = EMBEDDING // 2
        angles = torch.arange(TRAIN_STEPS)[:, None] * torch.exp(-torch.arange(half) * (9.21 / (half - 1)))
        self.embedding: Tensor
        self.register_buffer("embedding", torch.cat([angles.sin(), angles.cos()], 1))

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        return self.layers(torch.cat([x, observation, self.embedding[t].expand(len(x), -1)], 1))


def rows() -> Iterator[Row]:
    """Whole chunks at three batch sizes: against the peer, and against the network's calls alone."""
    net = Denoiser().eval()
    for batch in (1, 64, 1024):
        observation, noise = torch.randn(batch, OBSERVATION), torch.randn(batch, CHUNK)
        sampler = DDIM(ForwardProcess("squared_cosine", TRAIN_STEPS), STEPS, clip=1.0)
        ours = _ours(net, sampler, observation, noise)
        work, size = f"DDIM-{STEPS} of {TRAIN_STEPS} steps, clipped, small MLP", f"batch {batch}"
        try:
            library = importlib.import_module("diffusers")
        except ModuleNotFoundError:
            yield from absent(work, "diffusers", "not installed", size)
            continue
        peer = library.DDIMScheduler(TRAIN_STEPS, beta_schedule="squaredcos_cap_v2", clip_sample=True)
        yield from compare(
            work,
            ours,
            {"diffusers, DDIMScheduler": _theirs(net, peer, observation, noise)},
            limits={"the network's calls alone": _calls(net, sampler.timesteps, observation, noise)},
            size=size,
            flops=count_flops(ours),
        )


def _ours(net: Denoiser, sampler: DDIM, observation: Tensor, noise: Tensor) -> Callable[[], Tensor]:
    return lambda: sampler.sample(lambda x, t: net(x, t, observation), noise)


def _theirs(net: Denoiser, scheduler: object, observation: Tensor, noise: Tensor) -> Callable[[], Tensor]:
    def work() -> Tensor:
        with torch.inference_mode():
            x = noise
            for t in scheduler.timesteps:  # type: ignore[attr-defined]
                x = scheduler.step(net(x, t[None], observation), t, x).prev_sample  # type: ignore[attr-defined]
            return x

    scheduler.set_timesteps(STEPS)  # type: ignore[attr-defined]
    return work


def _calls(net: Denoiser, timesteps: Tensor, observation: Tensor, noise: Tensor) -> Callable[[], None]:
    def work() -> None:
        with torch.inference_mode():
            for t in timesteps[:, None].unbind():
                net(noise, t, observation)

    return work
