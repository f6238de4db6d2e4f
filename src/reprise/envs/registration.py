"""The worlds that ``gymnasium.make("reprise/Name-v0")`` knows. Only names are registered: nothing else is imported."""

from __future__ import annotations

from typing import Any

import gymnasium

__all__ = ["WORLDS", "register"]

MANISKILL = "reprise.envs.maniskill.env:ManiSkillWorld"

# Name to the world, as module:class, and what it is made with; it is imported when it is made.
WORLDS: dict[str, dict[str, Any]] = {
    "AssemblingKits-v0": {"world": MANISKILL, "family": "AssemblingKits"},
    "AvoidObstacles-v0": {"world": MANISKILL, "family": "AvoidObstacles"},
    "BlockPush-v0": {"world": "reprise.envs.block_push:BlockPush"},
    "OpenCabinetDoor-v0": {"world": MANISKILL, "family": "OpenCabinetDoor"},
    "OpenCabinetDrawer-v0": {"world": MANISKILL, "family": "OpenCabinetDrawer"},
    "PegInsert-v0": {"world": "reprise.envs.peg:PegInsert"},
    "PegInsertionSide-v0": {"world": MANISKILL, "family": "PegInsertionSide"},
    "PickCube-v0": {"world": MANISKILL, "family": "PickCube"},
    "PickSingle-v0": {"world": MANISKILL, "family": "PickSingle"},
    "PlugCharger-v0": {"world": MANISKILL, "family": "PlugCharger"},
    "PushT-v0": {"world": "reprise.envs.push_t:PushT"},
    "StackCube-v0": {"world": MANISKILL, "family": "StackCube"},
    "Tabletop-v0": {"world": "reprise.envs.tabletop.world:Tabletop"},
    "TurnFaucet-v0": {"world": MANISKILL, "family": "TurnFaucet"},
}


def register() -> None:
    """Make Gymnasium know every world; happens when ``reprise.envs`` is imported.

    Example:
        >>> register()
        >>> "reprise/PushT-v0" in gymnasium.registry
        True
    """
    for name, made_with in WORLDS.items():
        if f"reprise/{name}" not in gymnasium.registry:
            gymnasium.register(
                f"reprise/{name}",
                entry_point="reprise.envs.vector:SingleEnv",
                vector_entry_point="reprise.envs.vector:make_vector",
                kwargs=made_with,
            )
