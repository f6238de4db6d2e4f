"""Encoders: what a policy sees, its goal and its instruction, as one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reprise.data.crops import center_crop, random_crop, random_shift
from reprise.nn.film import FiLM
from reprise.nn.resnet import NormPlace, resnet
from reprise.nn.spatial_softmax import SpatialSoftmax
from reprise.policies.observations import Shape, Shapes, is_picture

__all__ = ["ObservationEncoder", "PictureEncoder"]

BACKBONES = {"cnn": (32, 64, 128), "resnet18": (64, 128, 256, 512)}  # and their widths


class PictureEncoder(nn.Module):
    """Pictures to vectors that say where things are: convolutions, spatial softmax, one linear layer.

    Args:
        size: (H, W) of the pictures.
        backbone: "cnn", 3x3 convolutions that halve the map, or "resnet18", as in Diffusion Policy; both with group
            normalisation, 16 channels a group, which does not depend on the batch.
        widths: of the stages; None: those of the backbone.
        keypoints: of the :class:`~reprise.nn.SpatialSoftmax`.
        features: numbers in a vector.
        condition_dim: of a vector (instruction, goal) that scales and shifts the maps after each stage, see
            :class:`~reprise.nn.FiLM`; 0 without.
        crop: (h, w) of the piece that is seen, cut at random in training and from the middle afterwards.
        shift: pixels by which pictures are moved at random in training.

    Raises:
        ValueError: an unknown backbone, widths that no group divides, pieces larger than the pictures.

    Source: Chi et al., Diffusion Policy, RSS 2023, section III B (resnet18, crop).

    Example:
        >>> encoder = PictureEncoder((96, 96), widths=(16, 32), crop=(84, 84))
        >>> encoder(torch.zeros(4, 96, 96, 3, dtype=torch.uint8)).shape
        torch.Size([4, 64])
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        backbone: str = "cnn",
        widths: Sequence[int] | None = None,
        keypoints: int = 32,
        features: int = 64,
        condition_dim: int = 0,
        crop: Sequence[int] | None = None,
        shift: int = 0,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"unknown backbone {backbone!r}; there are {', '.join(map(repr, BACKBONES))}")
        widths = tuple(widths or BACKBONES[backbone])
        if odd := [width for width in widths if width % 16]:
            raise ValueError(f"groups of 16 channels do not divide {odd[0]}")
        self.crop = None if crop is None else (int(crop[0]), int(crop[1]))
        self.shift = shift
        if self.crop is not None:
            center_crop(torch.empty(1, *size, 1), self.crop)
        if backbone == "cnn":
            self.stem: nn.Module = nn.Identity()
            self.stages = nn.ModuleList(
                nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(b // 16, b), nn.ReLU(inplace=True))
                for a, b in zip((3, *widths), widths, strict=False)
            )
        else:
            net = resnet(18, widths=widths, num_classes=0, norm=_group_norm)
            self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
            self.stages = nn.ModuleList(net.get_submodule(f"layer{i + 1}") for i in range(net.num_stages))
        self.films = nn.ModuleList(FiLM(condition_dim, width) for width in widths if condition_dim)
        self.pool = SpatialSoftmax(widths[-1], keypoints)
        self.head = nn.Linear(2 * keypoints, features)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pictures: Tensor, condition: Tensor | None = None) -> Tensor:
        """Bytes (B, ..., H, W, 3), and (B, condition_dim), to (B, ..., features); augmented in training."""
        if self.training and self.shift:
            pictures = random_shift(pictures, self.shift)
        if self.crop is not None:
            pictures = random_crop(pictures, self.crop) if self.training else center_crop(pictures, self.crop)
        between = pictures.shape[:-3]
        x = torch.sub(pictures.flatten(0, -4), 127.5).mul_(1 / 127.5).permute(0, 3, 1, 2)  # channels last
        if len(self.films):
            if condition is None:
                raise ValueError("this encoder is told something by a vector, and got none")
            condition = condition.repeat_interleave(len(x) // len(condition), 0)
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if len(self.films):
                x = self.films[i](x, condition)
        return self.head(self.pool(x)).unflatten(0, between)


class ObservationEncoder(nn.Module):
    """A batch of what was seen to one vector for each example, or for each step of the history.

    States are taken as they are and pictures through a :class:`PictureEncoder` for each camera, all of the history one
    after the other; goal and instruction follow. A picture in the goal goes through the encoder of its camera.

    Args:
        shapes: of what is seen.
        history: observations in a batch.
        per_step: each step of the history gets a vector of its own, with goal and instruction in every one.
        film: the encoders of pictures are told instruction and goal (but for its pictures) from within.
        **pictures: of the :class:`PictureEncoder`.

    Attributes:
        size: numbers in a vector.

    Raises:
        ValueError: film without anything to tell.

    Example:
        >>> encoder = ObservationEncoder(Shapes({"state": (5,)}, action=2, goal={"state": (5,)}), history=2)
        >>> encoder({"observations": {"state": torch.zeros(3, 2, 5)}, "goal": {"state": torch.zeros(3, 5)}}).shape
        torch.Size([3, 15])
    """

    def __init__(
        self, shapes: Shapes, history: int = 1, *, per_step: bool = False, film: bool = False, **pictures: Any
    ) -> None:
        super().__init__()
        self.shapes, self.per_step, self.film = shapes, per_step, film
        told = shapes.instruction + sum(torch.Size(s).numel() for s in shapes.goal.values() if not is_picture(s))
        if film and not told:
            raise ValueError("film tells the encoders of pictures an instruction or a goal, and this policy has none")
        seen = {**shapes.goal, **shapes.observations}
        self.names = [name for name, shape in seen.items() if is_picture(shape)]
        self.cameras = nn.ModuleList(  # a name may have dots, which a ModuleDict forbids
            PictureEncoder(seen[name][:2], condition_dim=told if film else 0, **pictures)  # type: ignore[arg-type]
            for name in self.names
        )
        features = pictures.get("features", 64)

        def numbers(parts: Sequence[Shape]) -> int:
            return sum(features if is_picture(shape) else torch.Size(shape).numel() for shape in parts)

        steps = 1 if per_step else history
        goal = numbers([*shapes.goal.values()])
        self.size = steps * numbers([*shapes.observations.values()]) + goal + shapes.instruction

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """``observations`` (name to (B, history, ...)), ``goal`` (name to (B, ...)), ``instruction`` (B, D).

        Returns:
            (B, size), or (B, history, size) for each step.
        """
        goal = {name: batch["goal"][name] for name in self.shapes.goal}
        instruction = [batch["instruction"]] if self.shapes.instruction else []
        vectors = [value.flatten(1) for name, value in goal.items() if name not in self.names]
        condition = torch.cat([*vectors, *instruction], 1) if self.film else None
        first = 2 if self.per_step else 1
        parts = [
            self._encoded(name, batch["observations"][name], condition).flatten(first)
            for name in self.shapes.observations
        ]
        told = [self._encoded(name, value, condition).flatten(1) for name, value in goal.items()] + instruction
        if self.per_step:
            told = [part[:, None].expand(-1, parts[0].shape[1], -1) for part in told]
        return torch.cat(parts + told, -1)

    def _encoded(self, name: str, value: Tensor, condition: Tensor | None) -> Tensor:
        return self.cameras[self.names.index(name)](value, condition) if name in self.names else value


def _group_norm(place: NormPlace) -> nn.Module | None:
    return None if place.where == "after_sum" else nn.GroupNorm(place.channels // 16, place.channels)
