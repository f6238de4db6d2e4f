import lazy_loader

from reprise.envs.registration import register as _register

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_register()
