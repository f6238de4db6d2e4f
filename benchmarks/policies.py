"""Policies from demonstrations: planning as with diffusers, training as with a DataLoader, shifted pictures."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.resources import count_flops
from benchmarks.table import Row, absent, compare
from reprise.data import Episodes, random_shift
from reprise.nn import Mish
from reprise.policies import DiffusionPolicy

STATE, ACTION, STEPS = 18, 2, 10
MLP, LAPTOP = {"width": 256}, {"down_dims": (64, 128), "step_embed_dim": 64}
PLANS: list[tuple[str, dict[str, Any], tuple[int, int, int]]] = [  # network, its sizes, environments
    ("mlp", MLP, (1, 64, 256)),
    ("transformer", {"embed_dim": 64, "n_layers": 2}, (1, 16, 64)),
    ("unet", LAPTOP, (1, 16, 64)),
    ("unet", {}, (1, 2, 4)),  # as published
]
TRAININGS = [("mlp", MLP, 20, (64, 256, 1024)), ("unet", LAPTOP, 10, (4, 16, 64))]  # and updates, examples in each


def rows() -> Iterator[Row]:
    """Whole plans, whole updates, whole batches of pictures."""
    for network, sizes, counts in PLANS:
        for environments in counts:
            yield from plans(network, sizes, environments)
    for network, sizes, count, batches in TRAININGS:
        for batch_size in batches:
            yield from updates(network, sizes, batch_size, count)
    for batch in (16, 128, 512):
        yield from shifts(torch.randint(0, 256, (batch, 96, 96, 3), dtype=torch.uint8))


def shifts(pictures: Tensor) -> Iterator[Row]:
    """As floats, since the peer's grid works on floats."""
    yield from compare(
        "pictures 96x96 shifted by up to 4 pixels, as floats",
        lambda: random_shift(pictures, 4).float(),
        {"one grid_sample, as in DrQ's published code": lambda: _grid_shift(pictures)},
        size=f"{len(pictures)} pictures",
        tolerance=None,  # other shifts
    )


def plans(network: str, sizes: dict[str, Any], environments: int) -> Iterator[Row]:
    """From what is seen to chunks of 16 actions: scaling, encoding and DDIM."""
    policy = DiffusionPolicy(network=network, network_options=sizes, inference_steps=STEPS, history=1).fit(
        demonstrations(), steps=1, batch_size=2
    )
    seen, noise = np.random.default_rng(0).normal(size=(environments, STATE)), torch.randn(environments, 16, ACTION)
    named = ", ".join(map(str, sizes.values())) or "as published"
    work, size = f"plan of 16 actions by DDIM-{STEPS}, {network} ({named})", f"{environments} environments"
    try:
        scheduler = importlib.import_module("diffusers").DDIMScheduler(100, beta_schedule="squaredcos_cap_v2")
    except ModuleNotFoundError:
        yield from absent(work, "diffusers", "not installed", size)
        return
    scheduler.set_timesteps(STEPS)
    net, encoder, scales = _plain(policy.module["net"]), policy.module["encoder"], policy.normalizers
    steps = [(t, torch.full((environments,), t)) for t in scheduler.timesteps.tolist()]

    def best(x: Tensor, condition: Tensor) -> Tensor:
        for t, step in steps:
            x = scheduler.step(net(x, step, condition), t, x, return_dict=False)[0]
        return x

    def usual(x: Tensor, condition: Tensor) -> Tensor:
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t.expand(len(x)), condition), t, x).prev_sample
        return x

    def planned(loop: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Tensor]:
        @torch.inference_mode()
        def work() -> Tensor:
            state = scales["state"](torch.from_numpy(seen).float())
            return scales["actions"].inverse(loop(noise, encoder({"observations": {"state": state[:, None]}})))

        return work

    def ours() -> Tensor:
        return policy.plan(seen, noise)

    yield from compare(
        work,
        ours,
        {"diffusers' DDIMScheduler around the same network, steps as integers": planned(best)},
        defaults={"diffusers' DDIMScheduler around the same network": planned(usual)}
        if sizes in (MLP, LAPTOP)
        else None,
        size=size,
        tolerance=5e-3,  # of actions up to 512
        flops=count_flops(ours),
    )


def updates(network: str, sizes: dict[str, Any], batch_size: int, count: int) -> Iterator[Row]:
    """Windows, noise, gradient, AdamW and average."""
    data = demonstrations(200)
    policy = DiffusionPolicy(network=network, network_options=sizes).fit(data, steps=1)
    windows, _ = policy.prepare(data)

    def ours() -> Any:
        return policy.train(windows, steps=count, batch_size=batch_size)

    yield from compare(
        f"training for {count} updates with an average of weights, {network} ({', '.join(map(str, sizes.values()))})",
        ours,
        {"all windows in memory, AdamW fused, _foreach_lerp_": _looped(policy, windows, batch_size, count, best=True)},
        defaults={"DataLoader, AdamW, average weight by weight": _looped(policy, windows, batch_size, count)},
        size=f"batch {batch_size}",
        tolerance=None,  # other draws
        flops=count_flops(ours),
    )


class _Samples(Dataset):
    """One window at a time, cut out of its episode in Python."""

    def __init__(self, windows: Any) -> None:
        self.windows, self.steps = windows.windows, windows.steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        window = self.windows[int(self.steps[index])]
        return {"state": window["observations"]["state"], "actions": window["actions"]}


def _looped(
    policy: DiffusionPolicy, windows: Any, batch_size: int, count: int, best: bool = False
) -> Callable[[], None]:
    """Training as it is usually written, and with what is known to help."""
    net = _plain(copy.deepcopy(policy.module["net"]))
    alpha_bars = policy.process.alpha_bars.float()
    whole = windows.gather(windows.steps)
    states, actions = whole["observations"]["state"], whole["actions"]

    def batches() -> Iterator[dict[str, Tensor]]:
        while True:
            if not best:
                yield from DataLoader(_Samples(windows), batch_size, shuffle=True, drop_last=True)
                continue
            for index in torch.randperm(len(states)).split(batch_size)[:-1]:
                yield {"state": states[index], "actions": actions[index]}

    def work() -> None:
        average, optimizer = copy.deepcopy(net), torch.optim.AdamW(net.parameters(), lr=1e-4, fused=best or None)
        mine, its = list(average.parameters()), list(net.parameters())
        net.train()
        for batch in islice(batches(), count):
            x, t = batch["actions"], torch.randint(100, (len(batch["actions"]),))
            noise, kept = torch.randn_like(x), alpha_bars[t][:, None, None]
            noisy = kept.sqrt() * x + (1 - kept).sqrt() * noise
            loss = F.mse_loss(net(noisy, t, batch["state"].flatten(1)), noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            with torch.no_grad():
                if best:
                    torch._foreach_lerp_(mine, its, 0.001)
                    continue
                for a, b in zip(mine, its, strict=True):
                    a.mul_(0.999).add_(b, alpha=0.001)

    return work


def demonstrations(episodes: int = 4, length: int = 50) -> Episodes:
    rng = np.random.default_rng(0)
    T = episodes * length
    actions = rng.uniform(0, 512, (T, ACTION)).astype(np.float32)
    return Episodes({"state": rng.normal(size=(T, STATE))}, actions, np.arange(length, T + 1, length))


def _plain(net: nn.Module) -> nn.Module:
    """The network with PyTorch's own activations."""
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Mish):
                setattr(module, name, nn.Mish())
    return net


def _grid_shift(pictures: Tensor, pad: int = 4) -> Tensor:
    """Shifts by a grid, over pictures of floats."""
    x = F.pad(pictures.movedim(-1, 1).float(), (pad,) * 4, mode="replicate")
    N, size = len(x), x.shape[-1]
    places = torch.linspace(-1 + 1 / size, 1 - 1 / size, size)[: size - 2 * pad]
    base = torch.stack(torch.meshgrid(places, places, indexing="xy"), -1)
    shift = torch.randint(0, 2 * pad + 1, (N, 1, 1, 2)).float() * (2 / size)
    return F.grid_sample(x, base + shift, padding_mode="zeros", align_corners=False)
