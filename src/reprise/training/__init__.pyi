from .fit import Diverged as Diverged, History as History, fit as fit, predict as predict
