"""What every process that trains, imports, exports or plans on real layers calls first."""

from __future__ import annotations

import os

from sdrrl_nemo.compat import login_node


def prepare(gpus: bool = True) -> bool:
    """Call before the first import of ``megatron`` or ``nemo``; again it does nothing.

    ``gpus=False`` hides GPUs that are there, for tools that only move or compare weights: an fp32 product on a GPU is
    TF32 in Transformer Engine's layers, and several processes would share the first device.

    Without a GPU both are made to run on the CPU (compat/cpu.py, compat/login_node.py): True. With one, only what the
    installed versions need and what makes a step faster is patched: False. SdrrlError where a patch meets a version
    that it is not for.
    """
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # read when CUDA is first used
    from sdrrl_nemo.compat import numpy2
    from sdrrl_nemo.compat.cpu import adapt_to_cpu
    from sdrrl_nemo.compat.steps import packed_rotary

    login_node.protect()
    on_cpu = adapt_to_cpu()
    numpy2.apply()
    packed_rotary.apply()
    return on_cpu
