from .actor_critic import ActorCritic as ActorCritic
from .distributions import Categorical as Categorical, Distribution as Distribution, Gaussian as Gaussian
from .gae import gae as gae
from .ppo import PPO as PPO
