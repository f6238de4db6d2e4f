"""Compound objects: primitives fused by a random tree, from a seed.

They stand for the scanned objects of the published benchmark, whose meshes may not be passed on. They vary in topology
(how many primitives, and which hangs on which) and in geometry (kinds and sizes), so that a policy that picks the ones
it was trained on need not pick others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Primitive", "compound_object", "primitives_mjcf"]

KINDS = ("box", "cylinder", "capsule", "sphere")
# half extents along x, y, z of a primitive of MuJoCo sizes (a, b, c)
EXTENTS = {
    "box": lambda a, b, c: (a, b, c),
    "cylinder": lambda a, b, c: (a, a, b),
    "capsule": lambda a, b, c: (a, a, a + b),
    "sphere": lambda a, b, c: (a, a, a),
}
TURNS = ((1, 0, 0, 0), (0.5**0.5, 0.5**0.5, 0, 0), (0.5**0.5, 0, 0.5**0.5, 0))  # z stays, z to y, z to x
SWAPS = ((0, 1, 2), (0, 2, 1), (2, 1, 0))  # what that does to extents


@dataclass(frozen=True)
class Primitive:
    """A part of a compound object.

    Args:
        kind: "box", "cylinder", "capsule" or "sphere".
        size: as MuJoCo takes it: half extents, or radius and half length, in metres.
        position: in the frame of the object.
        quaternion: (w, x, y, z) in the frame of the object.
        parent: index of the part on which it hangs, -1 for the first.
    """

    kind: str
    size: tuple[float, float, float]
    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    parent: int


def compound_object(seed: int) -> tuple[Primitive, ...]:
    """Two to five primitives, 1.5 to 6 cm across, each but the first let into a side of an earlier one.

    Args:
        seed: the same one gives the same object.

    Example:
        >>> [part.parent for part in compound_object(3)]
        [-1, 0, 0, 1, 3]
    """
    rng = np.random.default_rng(seed)
    parts: list[Primitive] = []
    halves: list[np.ndarray] = []
    for index in range(rng.integers(2, 6)):
        kind = KINDS[rng.integers(len(KINDS))]
        size = rng.uniform(0.015, 0.06, 3) / 2
        turn = rng.integers(len(TURNS))
        half = np.array(EXTENTS[kind](*size))[list(SWAPS[turn])]
        position, parent = np.zeros(3), -1
        if index:
            parent = int(rng.integers(index))
            axis, side = rng.integers(3), rng.choice([-1, 1])
            position = np.array(parts[parent].position) + rng.uniform(-0.5, 0.5, 3) * halves[parent]
            overlap = 0.3 * min(half[axis], halves[parent][axis])
            position[axis] = parts[parent].position[axis] + side * (half[axis] + halves[parent][axis] - overlap)
        x, y, z = position.tolist()
        a, b, c = size.tolist()
        parts.append(Primitive(kind, (a, b, c), (x, y, z), TURNS[turn], parent))
        halves.append(half)
    return tuple(parts)


def primitives_mjcf(parts: tuple[Primitive, ...], rgba: str = ".8 .3 .2 1") -> str:
    """The geoms of a compound object."""
    return "".join(
        f'<geom type="{part.kind}" size="{_numbers(part.size)}" pos="{_numbers(part.position)}" '
        f'quat="{_numbers(part.quaternion)}" rgba="{rgba}"/>'
        for part in parts
    )


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.17g}" for value in values)
