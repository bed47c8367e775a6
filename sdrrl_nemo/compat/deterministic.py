"""``trainer.deterministic``: kernels that give the same bits from the same input, on a GPU too."""

from __future__ import annotations

import os

import torch

from sdrrl_nemo.common.errors import SdrrlError

ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",
    "NCCL_ALGO": "^NVLS",
}
"""Variable -> the value it needs: of cuBLAS; of Transformer Engine, whose attention then takes its deterministic
backward pass; of NCCL, which then does not add up inside the switch, in whatever order messages arrive there."""
ALLOWED = {
    "CUBLAS_WORKSPACE_CONFIG": {":4096:8", ":16:8"},
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": {"0"},
    "NCCL_ALGO": {"Ring", "Tree", "CollnetDirect", "CollnetChain", "^NVLS"},
}
"""What a user may have set instead (NCCL_ALGO: the values that Megatron-LM's --deterministic-mode accepts)."""


def same_bits() -> None:
    """Call before the first kernel. megatron-core's ``deterministic_mode`` and flash-attention's are set beside it
    (train/module.py, model/attention.py). SdrrlError where the environment asks for the contrary.
    """
    for name, value in ENVIRONMENT.items():
        if os.environ.setdefault(name, value) not in ALLOWED[name]:
            allowed = " or ".join(sorted(ALLOWED[name]))
            raise SdrrlError(
                f"trainer.deterministic: the environment has {name}={os.environ[name]}; unset it or set it to {allowed}"
            )
    torch.use_deterministic_algorithms(True)
    # filling every new tensor with NaN would cost time and finds only kernels that read what they never wrote
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
