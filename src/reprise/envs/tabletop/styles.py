"""How the table looks: two styles of the same state, and any other that you make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import mujoco
import numpy as np

from reprise.envs.raycast import PATTERNS, Camera, Look

__all__ = ["STYLES", "Paint", "Style", "style_of"]

Colour = tuple[float, float, float]
FRONT = Camera((-0.62, 0.0, 0.6), (0.06, 0.0, 0.06), fovy=41)


@dataclass(frozen=True)
class Paint:
    """Of one geom.

    Attributes:
        colour, second: of the surface and of its pattern, 0..1.
        pattern: one of ``reprise.envs.raycast.PATTERNS``.
        cell: of the pattern, metres.
    """

    colour: Colour
    second: Colour | None = None
    pattern: str = "plain"
    cell: float = 0.05


@dataclass(frozen=True)
class Style:
    """Camera, palette, textures and light.

    Attributes:
        camera: who looks.
        palette: geoms that are painted, by name or by the part of it before "_"; the others are as in the model.
        light: direction towards the light.
        ambient, diffuse: brightness everywhere, and added where a surface faces the light.
        sky: colours at the horizon and above.

    Example:
        >>> from dataclasses import replace
        >>> dusk = replace(STYLES["studio"], ambient=0.3)
        >>> dusk.camera == STYLES["studio"].camera
        True
    """

    camera: Camera = FRONT
    palette: Mapping[str, Paint] = field(default_factory=dict)
    light: tuple[float, float, float] = (-0.3, 0.3, 1.0)
    ambient: float = 0.55
    diffuse: float = 0.5
    sky: tuple[Colour, Colour] = ((0.9, 0.92, 0.95), (0.65, 0.75, 0.88))

    def look(self, model: mujoco.MjModel) -> Look:
        """For the ray caster.

        Raises:
            ValueError: an unknown pattern, or a palette that names no geom.
        """
        plain = Look.of(model)
        colours, pattern, cell = plain.colors.copy(), plain.pattern.copy(), plain.cell.copy()
        names = [model.geom(g).name for g in range(model.ngeom)]
        known = {*names, *(name.split("_")[0] for name in names)}
        for name, paint in self.palette.items():
            if name not in known:
                raise ValueError(f"the palette paints {name!r}; there are {', '.join(sorted(known))}")
            if paint.pattern not in PATTERNS:
                raise ValueError(f"unknown pattern {paint.pattern!r}; there are {', '.join(PATTERNS)}")
        for g, name in enumerate(names):
            chosen = self.palette.get(name, self.palette.get(name.split("_")[0]))
            if chosen is not None:
                colours[0, g] = chosen.colour, chosen.second or chosen.colour
                pattern[0, g], cell[0, g] = PATTERNS.index(chosen.pattern), chosen.cell
        return Look(
            colours, pattern, cell, plain.seed, np.array([self.light]), np.array([self.ambient]),
            np.array([self.diffuse]), np.array([self.sky]),
        )  # fmt: skip


WORKSHOP = {
    "table": Paint((0.45, 0.33, 0.22), (0.36, 0.25, 0.16), "stripes", 0.06),
    "zone_left": Paint((0.55, 0.6, 0.35), (0.45, 0.5, 0.3), "checker", 0.02),
    "zone_right": Paint((0.35, 0.5, 0.55), (0.28, 0.42, 0.48), "checker", 0.02),
    "red": Paint((0.62, 0.08, 0.14), (0.8, 0.2, 0.2), "noise", 0.012),
    "blue": Paint((0.1, 0.2, 0.5), (0.2, 0.4, 0.75), "stripes", 0.01),
    "green": Paint((0.1, 0.4, 0.2), (0.25, 0.55, 0.2), "noise", 0.015),
    "cabinet": Paint((0.3, 0.33, 0.38)),
    "drawer": Paint((0.5, 0.52, 0.55), (0.42, 0.44, 0.48), "noise", 0.03),
    "handle": Paint((0.85, 0.75, 0.4)),
    "button_base": Paint((0.75, 0.75, 0.72)),
    "button": Paint((0.9, 0.55, 0.1)),
    "palm": Paint((0.25, 0.25, 0.28)),
    "wrist": Paint((0.15, 0.15, 0.17)),
    "finger1": Paint((0.7, 0.7, 0.72)),
    "finger2": Paint((0.7, 0.7, 0.72)),
}
STYLES = {
    "studio": Style(),
    "workshop": Style(
        Camera((-0.42, 0.26, 0.58), (0.05, 0.0, 0.04), fovy=50), WORKSHOP, (0.5, -0.6, 1.0), 0.5, 0.6,
        ((0.35, 0.32, 0.3), (0.2, 0.2, 0.24)),
    ),
}  # fmt: skip


def style_of(style: str | Style) -> Style:
    """A style by its name.

    Raises:
        ValueError: unknown name.
    """
    if isinstance(style, Style):
        return style
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; there are {', '.join(STYLES)}, or make a Style of your own")
    return STYLES[style]
