from . import darn_good_control as darn_good_control
from .actor_critic import ActorCritic as ActorCritic
from .buffers import ReplayBuffer as ReplayBuffer
from .distributions import Categorical as Categorical, Distribution as Distribution, Gaussian as Gaussian
from .episodes import EpisodeLog as EpisodeLog
from .gae import gae as gae
from .ppo import PPO as PPO
from .sac import SAC as SAC, QNetworks as QNetworks, TanhGaussianActor as TanhGaussianActor
from .vector import check_vector_env as check_vector_env
