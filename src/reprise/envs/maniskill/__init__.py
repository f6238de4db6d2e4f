"""A world of manipulation: families of tasks for a Panda arm, with interchangeable controllers and demonstrations.

Source: Gu et al., ManiSkill2: A Unified Benchmark for Generalizable Manipulation Skills, ICLR 2023.
"""

from reprise.envs.maniskill.controllers import CombinedController, Controller, control_modes, make_controller
from reprise.envs.maniskill.conversion import CONVERTIBLE, convert
from reprise.envs.maniskill.disturbance import disturb
from reprise.envs.maniskill.env import ManiSkillWorld, evaluation_episodes, make_task, make_world
from reprise.envs.maniskill.evaluation import evaluate
from reprise.envs.maniskill.experts import EXPERTS, run_expert
from reprise.envs.maniskill.observations import Camera, MujocoRenderer, RayRenderer, Renderer
from reprise.envs.maniskill.panda import forward_kinematics, inverse_kinematics, panda_mjcf
from reprise.envs.maniskill.tasks import FAMILIES
from reprise.envs.maniskill.trajectories import (
    Demonstrations,
    Trajectory,
    demonstrate,
    load_demonstrations,
    replay,
    save_demonstrations,
)
from reprise.envs.maniskill.world import World

__all__ = [
    "CONVERTIBLE",
    "EXPERTS",
    "FAMILIES",
    "Camera",
    "CombinedController",
    "Controller",
    "Demonstrations",
    "ManiSkillWorld",
    "MujocoRenderer",
    "RayRenderer",
    "Renderer",
    "Trajectory",
    "World",
    "control_modes",
    "convert",
    "demonstrate",
    "disturb",
    "evaluate",
    "evaluation_episodes",
    "forward_kinematics",
    "inverse_kinematics",
    "load_demonstrations",
    "make_controller",
    "make_task",
    "make_world",
    "panda_mjcf",
    "replay",
    "run_expert",
    "save_demonstrations",
]
