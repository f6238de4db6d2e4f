from .ddim import DDIM as DDIM, Trajectory as Trajectory, ddpm as ddpm
from .edm import (
    EDM as EDM,
    EDMCoefficients as EDMCoefficients,
    edm_coefficients as edm_coefficients,
    edm_loss_weight as edm_loss_weight,
    log_logistic_sigmas as log_logistic_sigmas,
    log_normal_sigmas as log_normal_sigmas,
    uniform_sigmas as uniform_sigmas,
)
from .forward_process import ForwardProcess as ForwardProcess, denoising_loss as denoising_loss
from .guidance import (
    classifier_free as classifier_free,
    drop_condition as drop_condition,
    policy_guidance as policy_guidance,
    policy_guidance_weights as policy_guidance_weights,
)
from .samplers import Churn as Churn, sample as sample
from .schedules import (
    alpha_bar_to_sigma as alpha_bar_to_sigma,
    alpha_bars as alpha_bars,
    betas as betas,
    ddim_timesteps as ddim_timesteps,
    sigma_schedule as sigma_schedule,
    sigma_to_alpha_bar as sigma_to_alpha_bar,
)
