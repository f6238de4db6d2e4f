from .bc import BC as BC
from .chunking import ChunkedPolicy as ChunkedPolicy
from .demonstrations import Demonstrations as Demonstrations
from .diffusion_policy import DiffusionPolicy as DiffusionPolicy, sampled_contexts as sampled_contexts
from .encoders import ObservationEncoder as ObservationEncoder
from .imitation import ImitationPolicy as ImitationPolicy, masked_mean as masked_mean
from .observations import Shapes as Shapes
