"""The table: a floating gripper, a red cube, a blue cylinder, a green bar, a drawer, a button, two marked zones.

The gripper hangs on four servo joints (x, y, z and yaw), with the hand and fingers of the Panda in
:mod:`reprise.envs.maniskill`, but no arm: short tasks at thousands of steps a second on one core. The table is the
plane z = 0; x points away from who watches, y to the left, z up. Metres, radians, seconds.
"""

from __future__ import annotations

import mujoco
import numpy as np

__all__ = [
    "BUTTON_DEPTH",
    "DRAWER_TRAVEL",
    "FINGER_TRAVEL",
    "OBJECTS",
    "REACH",
    "START",
    "ZONES",
    "ZONE_HALF",
    "build_model",
]

OBJECTS = {"red cube": "red", "blue cylinder": "blue", "green bar": "green"}  # what is moved, and the names of bodies
HEIGHTS = {"red": 0.02, "blue": 0.02, "green": 0.015}  # of their centres when they stand on the table
ZONES = {"left": (-0.04, 0.21), "right": (-0.04, -0.21)}  # centres of the marked squares
ZONE_HALF = 0.055
START = np.array([-0.06, 0.0, 0.17, 0.0])  # of the tips of the fingers: x, y, z, yaw
REACH = np.array([(-0.26, 0.3), (-0.3, 0.3), (0.008, 0.3), (-np.pi, np.pi)])  # where the tips may be told to go
FINGER_TRAVEL = 0.04  # of each finger
DRAWER_TRAVEL = 0.1
BUTTON_DEPTH = 0.012
DRAWER = (0.27, 0.15)  # x of the closed front, y of the middle
BUTTON = (0.2, -0.17)
TIMESTEP = 0.005

# Who meets whom: objects (1) meet each other, the hand (2), furniture (4) and the table (8); the hand meets all but
# itself, furniture never meets furniture.
CABINET = DRAWER[0] + 0.09
SCENE = f"""<mujoco model="tabletop">
<compiler angle="radian" autolimits="true"/>
<option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10" iterations="20" tolerance="1e-6"/>
<default>
<geom friction="1 .005 .0001" density="1500" solref=".01 1"/>
<default class="object"><geom contype="1" conaffinity="15"/></default>
<default class="hand"><geom contype="2" conaffinity="13" mass="0"/></default>
<default class="furniture"><geom contype="4" conaffinity="3" rgba=".75 .6 .45 1"/></default>
<default class="mark"><geom contype="0" conaffinity="0"/></default>
</default>
<worldbody>
<geom name="table" type="plane" size="2 2 .1" contype="8" conaffinity="3" rgba=".82 .8 .77 1"/>
{{zones}}
<body name="red" pos="0 -.08 .02"><freejoint/>
<geom name="red" class="object" type="box" size=".02 .02 .02" rgba=".85 .15 .12 1"/></body>
<body name="blue" pos="0 .08 .02"><freejoint/>
<geom name="blue" class="object" type="cylinder" size=".022 .02" rgba=".15 .3 .85 1"/></body>
<body name="green" pos="0 0 .015"><freejoint/>
<geom name="green" class="object" type="box" size=".015 .055 .015" rgba=".2 .65 .25 1"/></body>
<geom name="cabinet_left" class="furniture" type="box" size=".08 .01 .036" pos="{CABINET} {DRAWER[1] + 0.09} .036"/>
<geom name="cabinet_right" class="furniture" type="box" size=".08 .01 .036" pos="{CABINET} {DRAWER[1] - 0.09} .036"/>
<geom name="cabinet_top" class="furniture" type="box" size=".08 .1 .006" pos="{CABINET} {DRAWER[1]} .078"/>
<body name="drawer" pos="{DRAWER[0]} {DRAWER[1]} .036">
<joint name="drawer" type="slide" axis="-1 0 0" range="0 {DRAWER_TRAVEL}" damping="8" frictionloss=".6"/>
<geom name="drawer_front" class="furniture" type="box" size=".008 .078 .033" rgba=".85 .72 .55 1"/>
<geom name="drawer_body" class="furniture" type="box" size=".065 .07 .015" pos=".07 0 -.015" rgba=".7 .56 .4 1"/>
<geom name="handle" class="furniture" type="box" size=".006 .04 .006" pos="-.045 0 .006" rgba=".25 .25 .28 1"/>
<geom name="handle_left" class="furniture" type="box" size=".017 .005 .005" pos="-.025 .035 .006" rgba=".25 .25 .28 1"/>
<geom name="handle_right" class="furniture" type="box" size=".017 .005 .005" pos="-.025 -.035 .006"
 rgba=".25 .25 .28 1"/>
</body>
<geom name="button_base" class="furniture" type="box" size=".035 .035 .012" pos="{BUTTON[0]} {BUTTON[1]} .012"
 rgba=".3 .3 .33 1"/>
<body name="button" pos="{BUTTON[0]} {BUTTON[1]} .034">
<joint name="button" type="slide" axis="0 0 -1" range="0 {BUTTON_DEPTH}" stiffness="150" damping="3" armature=".02"/>
<geom name="button" class="furniture" type="cylinder" size=".02 .012" rgba=".95 .8 .15 1"/></body>
<body name="hand" gravcomp="1"><inertial pos="0 0 .1" mass="1" diaginertia=".004 .004 .004"/>
<joint name="x" type="slide" axis="1 0 0"/><joint name="y" type="slide" axis="0 1 0"/>
<joint name="z" type="slide" axis="0 0 1"/><joint name="yaw" type="hinge" axis="0 0 1" armature=".01"/>
<geom name="palm" class="hand" type="box" size=".03 .07 .03" pos="0 0 .085" rgba=".93 .93 .92 1"/>
<geom name="wrist" class="hand" type="cylinder" size=".03 .03" pos="0 0 .145" rgba=".38 .45 .54 1"/>
{{fingers}}</body>
</worldbody>
<actuator>
<position joint="x" kp="2000" kv="90" forcerange="-40 40"/><position joint="y" kp="2000" kv="90" forcerange="-40 40"/>
<position joint="z" kp="2000" kv="90" forcerange="-40 40"/><position joint="yaw" kp="30" kv="1.3" forcerange="-4 4"/>
<position joint="finger1" kp="250" kv="10" forcerange="-6 6"/>
<position joint="finger2" kp="250" kv="10" forcerange="-6 6"/>
</actuator>
</mujoco>"""


def build_model() -> mujoco.MjModel:
    """The scene; ``qpos`` has the three objects (7 each), drawer, button, x, y, z, yaw and the two fingers.

    Example:
        >>> model = build_model()
        >>> model.nq, model.nu
        (29, 6)
    """
    zones = "".join(
        f'<geom name="zone_{side}" class="mark" type="box" size="{ZONE_HALF} {ZONE_HALF} .0005" pos="{x} {y} 0" '
        f'rgba="{colour} 1"/>'
        for (side, (x, y)), colour in zip(ZONES.items(), (".98 .75 .45", ".7 .6 .9"), strict=True)
    )
    fingers = "".join(
        f'<body name="finger{i}" gravcomp="1"><inertial pos="0 0 .03" mass=".05" diaginertia="1e-5 1e-5 1e-5"/>'
        f'<joint name="finger{i}" type="slide" axis="0 {side} 0" range="0 {FINGER_TRAVEL}" armature=".1"/>'
        f'<geom name="finger{i}" class="hand" type="box" pos="0 {side * 0.005} .0285" size=".0105 .005 .0285" '
        f'friction="2 .05 .0001" condim="4" rgba=".2 .22 .26 1"/></body>'
        for i, side in ((1, 1), (2, -1))
    )
    return mujoco.MjModel.from_xml_string(SCENE.format(zones=zones, fingers=fingers))
