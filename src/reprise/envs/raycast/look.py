"""How a scene looks: colours, procedural patterns and light, the same for all environments or drawn for each."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from reprise.envs.raycast import kernels

__all__ = ["PATTERNS", "Look"]

PATTERNS = ("plain", "checker", "noise", "stripes")


@dataclass(frozen=True)
class Look:
    """Colours, patterns, light and sky of n environments; n = 1 where all look alike.

    Attributes:
        colors: (n, G, 2, 3) floats in 0..1, the colour of each geom and that of its pattern.
        pattern: (n, G) which of :data:`PATTERNS`, by number.
        cell: (n, G) size of the pattern's cells in metres.
        seed: (n, G) integers, of the noise.
        light: (n, 3) direction towards the light, of any length.
        ambient: (n,) brightness that reaches every surface.
        diffuse: (n,) brightness that the light adds where a surface faces it.
        sky: (n, 2, 3) floats in 0..1, the colours at the horizon and straight above.

    Raises:
        ValueError: shapes that do not fit each other, or values outside their ranges.
    """

    colors: np.ndarray
    pattern: np.ndarray
    cell: np.ndarray
    seed: np.ndarray
    light: np.ndarray
    ambient: np.ndarray
    diffuse: np.ndarray
    sky: np.ndarray

    def __post_init__(self) -> None:
        n, geoms = np.shape(self.pattern)
        shapes = {
            "colors": (n, geoms, 2, 3),
            "cell": (n, geoms),
            "seed": (n, geoms),
            "light": (n, 3),
            "ambient": (n,),
            "diffuse": (n,),
            "sky": (n, 2, 3),
        }
        for name, shape in shapes.items():
            if np.shape(getattr(self, name)) != shape:
                raise ValueError(
                    f"{name} must be {shape} beside a pattern of {(n, geoms)}, not {np.shape(getattr(self, name))}"
                )
        lengths = np.linalg.norm(self.light, axis=1)
        if not (np.all(lengths > 0) and np.all(np.asarray(self.cell) > 0) and np.isfinite(lengths).all()):
            raise ValueError("a light needs a direction and a pattern cells above 0 m")
        if np.min(self.pattern, initial=0) < 0 or np.max(self.pattern, initial=0) >= len(PATTERNS):
            raise ValueError(f"patterns are numbered 0 to {len(PATTERNS) - 1}: {', '.join(PATTERNS)}")
        for name in ("colors", "sky"):
            if not ((np.asarray(getattr(self, name)) >= 0) & (np.asarray(getattr(self, name)) <= 1)).all():
                raise ValueError(f"{name} are in 0..1")

    @classmethod
    def of(cls, model: mujoco.MjModel) -> Look:
        """What the model says: colours of geoms and materials, the first directional light.

        A material with a texture becomes a checker of the two commonest colours of its texture, with the cells that
        MuJoCo's checker would have.
        """
        geoms = model.ngeom
        rgba = model.geom_rgba[:, :3].astype(np.float64).copy()
        colors, pattern, cell = np.repeat(rgba[:, None], 2, 1), np.zeros(geoms, np.int64), np.full(geoms, 0.1)
        for g in np.flatnonzero(model.geom_matid >= 0):
            material = model.geom_matid[g]
            colors[g] = model.mat_rgba[material, :3]
            textures = np.atleast_1d(model.mat_texid[material])
            if (textures >= 0).any():
                colors[g] *= _commonest(model, int(textures[textures >= 0][0]))
                pattern[g] = PATTERNS.index("checker")
                repeat = max(float(model.mat_texrepeat[material, 0]), 1e-6)
                # MuJoCo's checker has 2x2 squares; uniform repeats count per metre, others per geom.
                width = 1.0 if model.mat_texuniform[material] else 2 * float(model.geom_size[g, 0] or 0.5)
                cell[g] = width / (2 * repeat)
        light = np.array([0.35, -0.45, 0.82])
        for i in range(model.nlight):
            if model.light_type[i] == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL and model.light_dir[i, 2] < -0.2:
                tilt = np.array([0.25, -0.3, 0.0]) if abs(model.light_dir[i, 2]) > 0.999 else 0.0
                light = tilt - model.light_dir[i]  # straight from above all upright faces would look alike
                break
        return cls(
            np.clip(colors, 0, 1)[None], pattern[None], cell[None], np.zeros((1, geoms), np.int64), light[None],
            np.array([0.55]), np.array([0.55]), np.array([[[0.93, 0.94, 0.96], [0.62, 0.74, 0.88]]]),
        )  # fmt: skip

    def randomised(self, environments: int, seed: int, strength: float = 1.0) -> Look:
        """Draw another look for each environment: colours, patterns, light and sky.

        Environment i depends on ``seed`` and i alone, not on how many others there are.

        Args:
            environments: how many.
            seed: a non-negative integer.
            strength: 0 leaves colours as they are, 1 replaces them.

        Raises:
            ValueError: this look is one of several already, or the strength is outside 0..1.

        Source: domain randomisation as in Tobin et al., Domain Randomization for Transferring Deep Neural Networks from
        Simulation to the Real World, IROS 2017.
        """
        if len(self.pattern) != 1 or not 0 <= strength <= 1:
            raise ValueError(f"a single look and a strength in 0..1 are needed, not {len(self.pattern)} and {strength}")
        return Look.stack([self._drawn(np.random.default_rng((seed, i)), strength) for i in range(environments)])

    def _drawn(self, generator: np.random.Generator, strength: float) -> Look:
        geoms = self.pattern.shape[1]
        colors = self.colors + strength * (generator.random((1, geoms, 2, 3)) - self.colors)
        change = generator.random((1, geoms)) < strength
        tilt, turn = generator.uniform(0.0, 0.9), generator.uniform(0, 2 * np.pi)
        light = np.array([[np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)]])
        return Look(
            colors,
            np.where(change, generator.integers(len(PATTERNS), size=(1, geoms)), self.pattern),
            np.where(change, np.exp(generator.uniform(np.log(0.02), np.log(0.2), (1, geoms))), self.cell),
            generator.integers(2**31, size=(1, geoms)),
            self.light + strength * (light - self.light),
            self.ambient * (1 + strength * generator.uniform(-0.3, 0.2, 1)),
            self.diffuse * (1 + strength * generator.uniform(-0.4, 0.4, 1)),
            self.sky + strength * (generator.random((1, 2, 3)) - self.sky),
        )

    @staticmethod
    def stack(looks: list[Look]) -> Look:
        """One look for each environment out of several.

        Raises:
            ValueError: there are none, or they are of different models.
        """
        fields = Look.__dataclass_fields__
        if len({look.pattern.shape[1] for look in looks}) != 1:
            raise ValueError("looks of the same model are needed, at least one")
        return Look(*(np.concatenate([getattr(look, name) for look in looks]) for name in fields))

    def __getitem__(self, index: slice | np.ndarray) -> Look:
        """The looks of some environments."""
        return Look(*(getattr(self, name)[index] for name in Look.__dataclass_fields__))

    def _arrays(self, geoms: int, environments: int) -> tuple[kernels.Paint, kernels.Light]:
        if self.pattern.shape[1] != geoms or len(self.pattern) not in (1, environments):
            raise ValueError(
                f"a look of {self.pattern.shape} (environments, geoms) does not fit {environments} environments of a "
                f"model with {geoms} geoms"
            )
        direction = np.asarray(self.light, np.float64)
        paint = kernels.Paint(
            np.ascontiguousarray(255 * np.asarray(self.colors), np.float32),
            np.ascontiguousarray(self.pattern, np.int64),
            np.ascontiguousarray(self.cell, np.float64),
            np.ascontiguousarray(self.seed, np.int64),
        )
        light = kernels.Light(
            np.ascontiguousarray(direction / np.linalg.norm(direction, axis=1, keepdims=True)),
            np.ascontiguousarray(self.ambient, np.float64),
            np.ascontiguousarray(self.diffuse, np.float64),
            np.ascontiguousarray(255 * np.asarray(self.sky), np.float32),
        )
        return paint, light


def _commonest(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """(2, 3) the two commonest colours of a texture, 0..1."""
    channels = int(model.tex_nchannel[texture])
    start = int(model.tex_adr[texture])
    texels = model.tex_data[start : start + int(model.tex_width[texture] * model.tex_height[texture]) * channels]
    colors, counts = np.unique(texels.reshape(-1, channels)[:, :3], axis=0, return_counts=True)
    if colors.shape[1] == 1:
        colors = np.repeat(colors, 3, 1)
    first = colors[np.argsort(-counts, kind="stable")[:2]] / 255
    return first if len(first) == 2 else np.repeat(first, 2, 0)
