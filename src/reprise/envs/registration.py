"""The worlds that ``gymnasium.make("reprise/Name-v0")`` knows. Only names are registered: nothing else is imported."""

from __future__ import annotations

import gymnasium

__all__ = ["WORLDS", "register"]

# Name to module and class; a world is imported when it is made.
WORLDS = {
    "PushT-v0": "reprise.envs.push_t:PushT",
}


def register() -> None:
    """Make Gymnasium know every world; happens when ``reprise.envs`` is imported.

    Example:
        >>> register()
        >>> "reprise/PushT-v0" in gymnasium.registry
        True
    """
    for name, world in WORLDS.items():
        if f"reprise/{name}" not in gymnasium.registry:
            gymnasium.register(
                f"reprise/{name}",
                entry_point="reprise.envs.vector:SingleEnv",
                vector_entry_point="reprise.envs.vector:make_vector",
                kwargs={"world": world},
            )
