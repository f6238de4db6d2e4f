from . import maniskill as maniskill, tabletop as tabletop
from .block_push import (
    BLOCK_ENTRIES as BLOCK_ENTRIES,
    BlockPush as BlockPush,
    BlockPushExpert as BlockPushExpert,
    block_push_demonstrations as block_push_demonstrations,
    block_push_goals as block_push_goals,
    block_push_pairs as block_push_pairs,
)
from .chunks import ChunkedEnv as ChunkedEnv
from .fisheries import Fishery as Fishery, FisheryEnv as FisheryEnv, FisheryVectorEnv as FisheryVectorEnv
from .mujoco_world import MujocoWorld as MujocoWorld
from .peg import (
    PegExpert as PegExpert,
    PegInsert as PegInsert,
    PegTask as PegTask,
    peg_demonstrations as peg_demonstrations,
)
from .push_t import PushT as PushT, coverage as coverage, keypoints as keypoints
from .raycast import Camera as Camera, Look as Look, Poses as Poses, RayCaster as RayCaster
from .registration import register as register
from .vector import SingleEnv as SingleEnv, VectorWorld as VectorWorld, make_vector as make_vector
from .video import record as record, write_video as write_video
from .workers import WorkerWorld as WorkerWorld
