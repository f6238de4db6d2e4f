"""Does a bent coin show heads more often? The toy that the lab is tested with."""

import os
import signal
import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Settings:
    bias: float = 0.5
    throws: int = 100
    pause: float = 0.0  # seconds that a throw takes
    fault: str = ""  # what seed 1 does: "raise", "crash", "nan" or nothing


def prepare(trial):
    trial.curve("warm", 0, 1.0)
    trial.curve("warm", 1, 0.5)
    return torch.rand(trial.settings.throws)


def measure(trial):
    settings = trial.settings
    if settings.fault == "raise" and trial.seed == 1:
        raise ValueError("the coin is gone")
    if settings.fault == "crash" and trial.seed == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    heads = (trial.shared + 0.1 * torch.rand(settings.throws) - 0.05 < settings.bias).float()
    for i in range(1, 11):
        time.sleep(settings.pause)
        trial.progress(i, 10)
        trial.curve("heads so far", i * settings.throws / 10, heads[: i * settings.throws // 10].mean())
    trial.count(throws=settings.throws)
    trial.picture("throws", heads.reshape(10, -1), "White is heads")
    first, last = heads.chunk(2)
    share = float("nan") if settings.fault == "nan" and trial.seed == 1 else float(heads.mean())
    return {"heads": share, "part[first]": float(first.mean()), "part[last]": float(last.mean())}


def figure(results):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    for i, arm in enumerate(results.arms):
        values = list(results.values(arm, "heads").values())
        axes.plot([i] * len(values), values, "o")
    axes.set(title="The bent coin shows heads more often", ylabel="share of heads", xticks=range(len(results.arms)))
    axes.set_xticklabels(results.arms)
    return figure
