"""The scripts of tools/ and recipes/ as modules, in a checkout and installed."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.provenance import script_path


def load(script: str) -> ModuleType:
    """The module of ``tools/x.py`` or ``recipes/x.py``, under the name that the wheel gives it.

    It is read from the file beside this code: in a checkout it is the checkout's, whatever is installed elsewhere.
    """
    name = "sdrrl_nemo." + script.removesuffix(".py").replace("/", ".")
    spec = importlib.util.spec_from_file_location(name, script_path(script))
    if spec is None or spec.loader is None:
        raise SdrrlError(f"{script}: no such script; this copy of the project is not whole, install it again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
