"""Sampling action chunks from a small denoiser: our loops against those of diffusers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.resources import count_flops
from benchmarks.table import Row, absent, compare
from reprise.diffusion import DDIM, EDM, ForwardProcess, ddpm, sample, sigma_schedule

TRAIN_STEPS, STEPS, CHUNK, OBSERVATION, EMBEDDING = 100, 10, 32, 20, 32
DDIM_WORK = f"DDIM-{STEPS} of {TRAIN_STEPS} steps, clipped, small MLP"
DDPM_WORK = f"DDPM, {TRAIN_STEPS} steps, clipped, small MLP"
EDM_WORK = f"DPM-Solver++(2M), {STEPS} steps from 80 to 0.002, small MLP"


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
        step = t[:, None] * self.embedding[1] if t.is_floating_point() else self.embedding[t]  # a level, or a step
        return self.layers(torch.cat([x, observation, step.expand(len(x), -1)], 1))


def rows() -> Iterator[Row]:
    """Whole chunks at three batch sizes: against the peer, and against the network's calls alone."""
    try:
        library: Any = importlib.import_module("diffusers")
    except ModuleNotFoundError:
        for work in (DDIM_WORK, DDPM_WORK, EDM_WORK):
            yield from absent(work, "diffusers", "not installed")
        return
    torch.manual_seed(0)
    net, process = Denoiser().eval(), ForwardProcess("squared_cosine", TRAIN_STEPS)
    chain = {"num_train_timesteps": TRAIN_STEPS, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True}
    for batch in (1, 64, 1024):
        yield from _ddim(net, DDIM(process, STEPS, clip=1.0), library.DDIMScheduler(**chain), *_inputs(batch))
    for batch in (1, 16, 256):
        yield from _ddpm(net, ddpm(process, clip=1.0), library.DDPMScheduler(**chain), *_inputs(batch))
    for batch in (1, 64, 1024):
        yield from _dpm_solver(net, library.EDMDPMSolverMultistepScheduler(), *_inputs(batch))


def _ddim(net: Denoiser, sampler: DDIM, peer: Any, observation: Tensor, noise: Tensor) -> Iterator[Row]:
    def ours() -> Tensor:
        return sampler.sample(lambda x, t: net(x, t, observation), noise)

    def usual() -> Tensor:
        with torch.inference_mode():
            x = noise
            for t in peer.timesteps:
                x = peer.step(net(x, t[None], observation), t, x).prev_sample
            return x

    def calls() -> None:
        with torch.inference_mode():
            for t in sampler.timesteps[:, None].unbind():
                net(noise, t, observation)

    peer.set_timesteps(STEPS)
    yield from compare(
        DDIM_WORK,
        ours,
        {"diffusers, DDIMScheduler, steps as integers and tuples returned": _quick(net, peer, observation, noise)},
        defaults={"diffusers, DDIMScheduler": usual},
        limits={"the network's calls alone": calls},
        size=f"batch {len(noise)}",
        flops=count_flops(ours),
    )


def _ddpm(net: Denoiser, sampler: DDIM, peer: Any, observation: Tensor, noise: Tensor) -> Iterator[Row]:
    def ours() -> Tensor:
        return sampler.sample(lambda x, t: net(x, t, observation), noise, generator=torch.Generator().manual_seed(0))

    def theirs() -> Tensor:
        return quick(generator=torch.Generator().manual_seed(0))

    peer.set_timesteps(TRAIN_STEPS)
    quick = _quick(net, peer, observation, noise)
    peers = {"diffusers, DDPMScheduler, steps as integers and tuples returned": theirs}
    size = f"batch {len(noise)}"
    yield from compare(DDPM_WORK, ours, peers, size=size, tolerance=1e-4, flops=count_flops(ours))


def _dpm_solver(net: Denoiser, peer: Any, observation: Tensor, noise: Tensor) -> Iterator[Row]:
    denoiser, sigmas, start = EDM(net), sigma_schedule("karras", STEPS, 0.002, 80.0), 80 * noise

    def ours() -> Tensor:
        return sample(lambda x, sigma: denoiser(x, sigma, observation), start, sigmas, "dpmpp_2m")

    def theirs() -> Tensor:
        with torch.inference_mode():
            peer.set_timesteps(STEPS)  # forgets what it did before
            x = start
            for t in peer.timesteps:
                x = peer.step(net(peer.scale_model_input(x, t), t[None], observation), t, x, return_dict=False)[0]
            return x

    peers = {"diffusers, EDMDPMSolverMultistepScheduler, tuples returned": theirs}
    size = f"batch {len(noise)}"
    yield from compare(EDM_WORK, ours, peers, size=size, tolerance=1e-4, flops=count_flops(ours))


def _quick(net: Denoiser, scheduler: Any, observation: Tensor, noise: Tensor) -> Callable[..., Tensor]:
    """The usual loop, with what its user can spare: indexing by tensors, one tensor a step, a class for each result."""
    steps = list(zip(scheduler.timesteps.tolist(), scheduler.timesteps[:, None].unbind(), strict=True))

    def work(**options: Any) -> Tensor:
        with torch.inference_mode():
            x = noise
            for t, step in steps:
                x = scheduler.step(net(x, step, observation), t, x, return_dict=False, **options)[0]
            return x

    return work


def _inputs(batch: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, OBSERVATION), torch.randn(batch, CHUNK)
