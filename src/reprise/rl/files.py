"""What was learned, on disk: weights as safetensors, settings and counts as JSON beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reprise.files import written_whole
from reprise.training.flat_adam import FlatAdam

__all__ = ["load_state", "read", "write"]

Parts = dict[str, nn.Module | FlatAdam]


def write(path: Path | str, parts: Parts, facts: dict[str, Any]) -> None:
    """Write ``path.safetensors`` (states of the parts by their names) and ``path.json`` (the facts)."""
    path = Path(path)
    state = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    with written_whole(path.with_suffix(".safetensors")) as temporary:
        save_file({key: value.detach().clone().contiguous() for key, value in state.items()}, temporary)
    with written_whole(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read(path: Path | str, algorithm: str) -> dict[str, Any]:
    """The facts.

    Raises:
        ValueError: they are those of another algorithm.
    """
    facts = json.loads(Path(path).with_suffix(".json").read_text(encoding="utf-8"))
    if facts.get("algorithm") != algorithm:
        raise ValueError(f"{Path(path).with_suffix('.json')} holds {facts.get('algorithm')}, not {algorithm}")
    return facts


def load_state(path: Path | str, parts: Parts, device: torch.device) -> None:
    """Give the parts their states.

    Raises:
        ValueError: shapes differ.
    """
    state = load_file(Path(path).with_suffix(".safetensors"), device=str(device))
    for name, part in parts.items():
        mine = {key: value for key, value in part.state_dict().items()}
        found = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        if _shapes(mine) != _shapes(found):
            raise ValueError(f"{path} holds {name} {_shapes(found)}; this environment and network need {_shapes(mine)}")
        part.load_state_dict(found)


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}
