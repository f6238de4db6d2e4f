"""Kits: boards with holes for letter-like solids, from a seed.

A solid is drawn on a grid of 3x3 cells and as high as the board is thick; so both are made of boxes. They stand for the
published meshes, which may not be passed on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SHAPES", "THICKNESS", "Box", "Kit", "Slot", "kit", "piece_boxes", "slot_walls", "symmetry"]

Box = tuple[float, float, float, float]  # x from, x to, y from, y to, in metres

SHAPES = {
    "square": "### ### ###", "plus": ".#. ### .#.", "I": ".#. .#. .#.", "V": "#.. #.. ###", "L": "#.. #.. ##.",
    "J": ".#. .#. ##.", "T": "### .#. .#.", "t": "### .#. ...", "U": "#.# #.# ###", "u": "#.# ### ...",
    "H": "#.# ### #.#", "Z": "##. .#. .##", "S": ".## .#. ##.", "z": "##. .## ...", "s": ".## ##. ...",
    "P": "##. ##. #..", "q": "##. ##. .#.", "F": ".## ##. .#.", "f": "##. .## .#.", "W": "#.. ##. .##",
}  # fmt: skip
CELL = 0.016
CLEARANCE = 0.001  # between a solid and each wall of its hole
THICKNESS = 0.02
TILE = 0.07  # each hole has a square of the board to itself
ROWS, COLUMNS = 2, 3


@dataclass(frozen=True)
class Slot:
    """A hole of a kit.

    Attributes:
        shape: what fits in, a name out of ``SHAPES``.
        position: (x, y) of its middle.
        quarters: by how many quarter turns the shape is turned in it.
    """

    shape: str
    position: tuple[float, float]
    quarters: int


@dataclass(frozen=True)
class Kit:
    """A board of 14 by 21 cm around the origin.

    Attributes:
        slots: 4 to 6 holes for different shapes; None where the board has none.
    """

    slots: tuple[Slot | None, ...]

    @property
    def holes(self) -> tuple[Slot, ...]:
        """The slots there are."""
        return tuple(slot for slot in self.slots if slot is not None)


def kit(seed: int) -> Kit:
    """A kit from a seed.

    Example:
        >>> kit(0) == kit(0), 4 <= len(kit(0).holes) <= 6
        (True, True)
    """
    rng = np.random.default_rng((seed, 8))
    count = int(rng.integers(4, 7))
    shapes = rng.permutation(list(SHAPES))[:count].tolist()
    places = np.sort(rng.permutation(ROWS * COLUMNS)[:count]).tolist()
    slots: list[Slot | None] = [None] * (ROWS * COLUMNS)
    for shape, place in zip(shapes, places, strict=True):
        x, y = (tile_centre(place) + rng.uniform(-0.005, 0.005, 2)).tolist()
        slots[place] = Slot(shape, (x, y), int(rng.integers(4)))
    return Kit(tuple(slots))


def tile_centre(place: int) -> np.ndarray:
    """(2,) where the middle of a slot is, give or take 5 mm."""
    row, column = divmod(place, COLUMNS)
    return TILE * np.array([row - (ROWS - 1) / 2, column - (COLUMNS - 1) / 2])


def cells(shape: str) -> np.ndarray:
    """(rows, columns) booleans, cut to what is filled; rows run along x and columns along y."""
    filled = np.array([[mark == "#" for mark in row] for row in SHAPES[shape].split()])
    return filled[np.ix_(filled.any(1), filled.any(0))]


def symmetry(shape: str) -> float:
    """The least turn, in radians, that takes a shape to itself.

    Example:
        >>> [round(symmetry(shape) / np.pi, 1) for shape in ("plus", "Z", "F")]
        [0.5, 1.0, 2.0]
    """
    filled = cells(shape)
    quarters = next(n for n in (1, 2, 4) if np.array_equal(np.rot90(filled, n), filled))
    return quarters * np.pi / 2


def piece_boxes(shape: str) -> list[Box]:
    """A solid as rectangles around its middle."""
    filled = cells(shape)
    edges = [CELL * (np.arange(n + 1) - n / 2) for n in filled.shape]
    return _rectangles(filled, *edges)


def slot_walls(slot: Slot | None, place: int) -> list[Box]:
    """A tile of the board as rectangles that leave its hole free."""
    centre = tile_centre(place)
    low, high = centre - TILE / 2, centre + TILE / 2
    if slot is None:
        return [(low[0], high[0], low[1], high[1])]
    filled = np.rot90(cells(slot.shape), slot.quarters)
    # Every cell of the hole is a little wider than the solid's: lines at both ends of the clearance.
    lines = []
    for axis, n in enumerate(filled.shape):
        at = slot.position[axis] + CELL * (np.arange(n + 1) - n / 2)
        lines.append(np.concatenate([[low[axis]], np.sort([*(at - CLEARANCE), *(at + CLEARANCE)]), [high[axis]]]))
    middle = [(line[1:] + line[:-1]) / 2 for line in lines]
    solid = np.ones([len(m) for m in middle], bool)
    for i, j in np.argwhere(filled):
        near = []
        for axis, k in enumerate((i, j)):
            at = slot.position[axis] + CELL * (k + 0.5 - filled.shape[axis] / 2)
            near.append(abs(middle[axis] - at) < CELL / 2 + CLEARANCE)
        solid[np.ix_(*near)] = False
    return _rectangles(solid, *lines)


def _rectangles(filled: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> list[Box]:
    """Cover the filled cells of a grid by few rectangles, each grown along y, then along x."""
    left, found = filled.copy(), []
    while left.any():
        i, j = np.argwhere(left)[0]
        last = j
        while last + 1 < left.shape[1] and left[i, last + 1]:
            last += 1
        bottom = i
        while bottom + 1 < left.shape[0] and left[bottom + 1, j : last + 1].all():
            bottom += 1
        left[i : bottom + 1, j : last + 1] = False
        found.append((float(xs[i]), float(xs[bottom + 1]), float(ys[j]), float(ys[last + 1])))
    return found
