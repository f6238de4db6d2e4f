from . import darn_good_control as darn_good_control, optimal_stopping as optimal_stopping
from .actor_critic import ActorCritic as ActorCritic
from .buffers import ReplayBuffer as ReplayBuffer
from .distributions import Categorical as Categorical, Distribution as Distribution, Gaussian as Gaussian
from .episodes import EpisodeLog as EpisodeLog
from .gae import gae as gae
from .optimal_stopping import (
    LSMC as LSMC,
    DOSNetworks as DOSNetworks,
    HistoryNetwork as HistoryNetwork,
    HoldToMaturity as HoldToMaturity,
    NeuralStopper as NeuralStopper,
    Option as Option,
    binomial as binomial,
    black_scholes as black_scholes,
    clairvoyant as clairvoyant,
    history_cnn as history_cnn,
    history_mlp as history_mlp,
    upper_bound as upper_bound,
)
from .ppo import PPO as PPO
from .sac import SAC as SAC, QNetworks as QNetworks, TanhGaussianActor as TanhGaussianActor
from .target_kl import TargetKLPPO as TargetKLPPO
from .vector import check_vector_env as check_vector_env
