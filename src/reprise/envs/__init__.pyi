from . import maniskill as maniskill
