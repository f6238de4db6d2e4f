from .ema import EMA as EMA
from .fit import Diverged as Diverged, History as History, fit as fit, predict as predict
from .flat_adam import FlatAdam as FlatAdam
from .flat_adamw import FlatAdamW as FlatAdamW
from .grouped_adam import GroupedAdam as GroupedAdam
from .losses import (
    L2SVMLoss as L2SVMLoss,
    calibrate as calibrate,
    svm_predict as svm_predict,
    svm_targets as svm_targets,
)
from .metrics import accuracy as accuracy
from .ranking import auc as auc
from .weight_average import WeightAverage as WeightAverage
