"""Before anything imports triton: without a GPU its kernels run in the interpreter, on CPU tensors.

Property tests draw the same examples every time, so that a checkout that passed once passes again;
``HYPOTHESIS_PROFILE=search`` draws new ones.
"""

from __future__ import annotations

import os

import torch
from hypothesis import settings

from sdrrl_nemo.compat.login_node import protect

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    if torch.version.cuda:  # a CUDA build without a GPU: tests that import megatron-core bare could not
        protect()

settings.register_profile("same", derandomize=True, database=None, deadline=None)  # a busy machine is no failure
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
