"""Short tasks on a table, asked for in words: a world for policies that learn from demonstrations."""

from reprise.envs.tabletop.demonstrations import demonstrate, with_pictures
from reprise.envs.tabletop.experts import STAGES, STRATEGIES, Expert
from reprise.envs.tabletop.styles import STYLES, Paint, Style
from reprise.envs.tabletop.tasks import ALL_TASKS, PHRASINGS, TASKS, Scene, Task, phrases
from reprise.envs.tabletop.world import OBJECT_STATE, PROPRIOCEPTION, STEP, Tabletop, draw_tables, states

__all__ = [
    "ALL_TASKS",
    "OBJECT_STATE",
    "PHRASINGS",
    "PROPRIOCEPTION",
    "STAGES",
    "STEP",
    "STRATEGIES",
    "STYLES",
    "TASKS",
    "Expert",
    "Paint",
    "Scene",
    "Style",
    "Tabletop",
    "Task",
    "demonstrate",
    "draw_tables",
    "phrases",
    "states",
    "with_pictures",
]
