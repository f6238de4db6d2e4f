from .raycast import Camera as Camera, Look as Look, Poses as Poses, RayCaster as RayCaster
