"""The families of tasks."""

from reprise.envs.maniskill.tasks.assembling_kits import AssemblingKits
from reprise.envs.maniskill.tasks.avoid_obstacles import AvoidObstacles
from reprise.envs.maniskill.tasks.open_cabinet import OpenCabinetDoor, OpenCabinetDrawer
from reprise.envs.maniskill.tasks.peg_insertion_side import PegInsertionSide
from reprise.envs.maniskill.tasks.pick_cube import PickCube
from reprise.envs.maniskill.tasks.pick_single import PickSingle
from reprise.envs.maniskill.tasks.plug_charger import PlugCharger
from reprise.envs.maniskill.tasks.stack_cube import StackCube
from reprise.envs.maniskill.tasks.turn_faucet import TurnFaucet
from reprise.envs.maniskill.world import World

__all__ = [
    "FAMILIES",
    "AssemblingKits",
    "AvoidObstacles",
    "OpenCabinetDoor",
    "OpenCabinetDrawer",
    "PegInsertionSide",
    "PickCube",
    "PickSingle",
    "PlugCharger",
    "StackCube",
    "TurnFaucet",
]

FAMILIES: dict[str, type[World]] = {
    family.__name__: family
    for family in (
        PickCube,
        StackCube,
        PickSingle,
        PegInsertionSide,
        TurnFaucet,
        PlugCharger,
        AssemblingKits,
        AvoidObstacles,
        OpenCabinetDoor,
        OpenCabinetDrawer,
    )
}
