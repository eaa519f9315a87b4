"""Have aiohttp find the proxy as other HTTP clients do: jwtproxy-run puts this folder first on PYTHONPATH.

aiohttp asks the environment only where it is told to (trust_env). Nothing is imported here before the program does it,
and the sitecustomize that would be there without this one is loaded, too. For any Python from 3.6 on; an older one,
which has another way to import, is left alone.
"""

import os
import sys


class _Finder:
    """Finds aiohttp.client as it would be found, and has it changed as soon as it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != "aiohttp.client":
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        load = getattr(spec and spec.loader, "exec_module", None)
        if load:

            def exec_module(module):
                load(module)
                _trust_environment(module)

            spec.loader.exec_module = exec_module
        return spec


def _trust_environment(module):
    from functools import wraps

    init = module.ClientSession.__init__

    @wraps(init)
    def __init__(self, *args, **kwargs):
        kwargs.setdefault("trust_env", True)
        init(self, *args, **kwargs)

    module.ClientSession.__init__ = __init__


def _load_next():
    """Load the next sitecustomize there is, under its name."""
    ours = sys.modules.pop("sitecustomize", None)
    folder = os.path.dirname(os.path.abspath(__file__))
    own = [other for other in sys.path if os.path.abspath(other) == folder]
    sys.path[:] = [other for other in sys.path if other not in own]
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:
        if getattr(error, "name", None) != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = ours
    finally:
        sys.path[:0] = own


if sys.version_info >= (3, 6):  # noqa: UP036  # it is the command's Python, whichever that is
    sys.meta_path.insert(0, _Finder())
_load_next()
