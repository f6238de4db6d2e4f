"""Linear interpreters: a network at one input is an affine map, which can be applied, transposed and taken apart.

Source: Navarrete Michelini, Liu, Lu and Jiang, "A Tour of Convolutional Networks Guided by Linear Interpreters",
ICCV 2019, arXiv 1908.05168.
"""

from reprise.explain.linear_interpreters.interpreter import LinearInterpreter, SingularTriplets, linear_interpreter
from reprise.explain.linear_interpreters.scope import LinearScope

__all__ = ["LinearInterpreter", "LinearScope", "SingularTriplets", "linear_interpreter"]
