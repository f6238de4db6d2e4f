from . import mode as mode
from .bc import BC as BC
from .beso import (
    BESOPolicy as BESOPolicy,
    BESOSampling as BESOSampling,
    CBeTPolicy as CBeTPolicy,
    GCBCPolicy as GCBCPolicy,
    GoalGPT as GoalGPT,
    ScoreGPT as ScoreGPT,
)
from .best_of_n import BestOfN as BestOfN
from .carp import (
    ActionBins as ActionBins,
    ActionTokenizer as ActionTokenizer,
    CARPPolicy as CARPPolicy,
    CoarseToFineTransformer as CoarseToFineTransformer,
    PerStepPolicy as PerStepPolicy,
    PerStepTransformer as PerStepTransformer,
)
from .chunk_ppo import GaussianChunks as GaussianChunks, fit_chunks as fit_chunks
from .chunking import ChunkedPolicy as ChunkedPolicy
from .demonstrations import Demonstrations as Demonstrations
from .diffusion_policy import DiffusionPolicy as DiffusionPolicy, sampled_contexts as sampled_contexts
from .dsrl import DSRL as DSRL, SteeredPolicy as SteeredPolicy
from .encoders import ObservationEncoder as ObservationEncoder, PictureEncoder as PictureEncoder
from .evaluate import Evaluation as Evaluation, evaluate as evaluate
from .imitation import ImitationPolicy as ImitationPolicy, masked_mean as masked_mean
from .mode import MoDEBlock as MoDEBlock, MoDEPolicy as MoDEPolicy, MoDETransformer as MoDETransformer
from .observations import Shapes as Shapes
from .resip import (
    ResidualActorCritic as ResidualActorCritic,
    ResidualEnv as ResidualEnv,
    ResidualPolicy as ResidualPolicy,
    RewardScaling as RewardScaling,
    fit_residual as fit_residual,
)
