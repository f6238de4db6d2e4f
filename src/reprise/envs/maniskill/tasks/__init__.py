"""The families of tasks."""

from reprise.envs.maniskill.tasks.pick_cube import PickCube
from reprise.envs.maniskill.tasks.stack_cube import StackCube
from reprise.envs.maniskill.world import World

__all__ = ["FAMILIES", "PickCube", "StackCube"]

FAMILIES: dict[str, type[World]] = {family.__name__: family for family in (PickCube, StackCube)}
