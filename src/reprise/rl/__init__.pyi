from . import optimal_stopping as optimal_stopping
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
