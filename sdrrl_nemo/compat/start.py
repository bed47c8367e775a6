"""What every process that trains, imports, exports or plans on real layers calls first."""

from __future__ import annotations

from sdrrl_nemo.compat import login_node


def prepare() -> bool:
    """Call before the first import of ``megatron`` or ``nemo``; again it does nothing.

    Without a GPU both are made to run on the CPU (compat/cpu.py, compat/login_node.py): True. With one, only what the
    installed versions need is patched: False. SdrrlError where a patch meets a version that it is not for.
    """
    from sdrrl_nemo.compat import numpy2
    from sdrrl_nemo.compat.cpu import adapt_to_cpu

    login_node.protect()
    on_cpu = adapt_to_cpu()
    numpy2.apply()
    return on_cpu
