"""An analytic ray caster for MuJoCo scenes."""

from reprise.envs.raycast.caster import CHANNELS, Camera, Poses, RayCaster
from reprise.envs.raycast.look import PATTERNS, Look

__all__ = ["CHANNELS", "PATTERNS", "Camera", "Look", "Poses", "RayCaster"]
