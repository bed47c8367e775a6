"""Stands for a login node: torch says it was built with CUDA, nvcc and ninja are there, a GPU is not.

With an argument, does what every entry point does first; without, imports megatron-core bare. Beside it lies a
``transformer_engine`` whose optimisers refuse to be made, as the real one's do without a GPU.
"""

import sys

import torch

torch.version.cuda = "12.8"
compiled, torch.cuda._is_compiled = torch.cuda._is_compiled, lambda: True
torch._C._cuda_getDeviceCount = lambda: 0
import numpy  # noqa: E402

if hasattr(numpy, "product"):
    del numpy.product  # as in NumPy 2
    numpy.__all__.remove("product")

from torch.utils import cpp_extension  # noqa: E402 - looks for nvcc as it is imported

del torch._C._cuda_getDeviceCount
torch.cuda._is_compiled, torch.version.cuda = compiled, None  # a CPU build has no more of it to show

assert cpp_extension.CUDA_HOME and not torch.cuda.is_available() and not torch.cuda.device_count()
if len(sys.argv) == 1:
    try:
        import megatron.core.optimizer  # noqa: F401
    except IndexError as e:
        print("IndexError:", e)
    sys.exit()

if sys.argv[1] == "data":  # preprocessing imports megatron-core through this module alone
    import sdrrl_nemo.data.packing.packed

    print("prepared")
    sys.exit()

from sdrrl_nemo.compat.start import prepare  # noqa: E402

assert prepare()
import megatron.core.optimizer as mcore_optimizer  # noqa: E402
from megatron.core.dist_checkpointing import exchange_utils  # noqa: E402
from megatron.core.dist_checkpointing.mapping import ShardedTensor  # noqa: E402
from megatron.core.optimizer import clip_grads, distrib_optimizer  # noqa: E402

import sdrrl_nemo.model.export  # noqa: E402
import sdrrl_nemo.plan.search  # noqa: E402
import sdrrl_nemo.train.dry_run  # noqa: E402, F401

assert mcore_optimizer.Adam is torch.optim.AdamW, mcore_optimizer.Adam
assert distrib_optimizer.Adam is torch.optim.Adam, distrib_optimizer.Adam
assert clip_grads.multi_tensor_applier.__module__ == "megatron.core.utils"
assert cpp_extension.load_inline.__module__ == "torch.utils.cpp_extension"
assert not hasattr(numpy, "product")
part = ShardedTensor.from_rank_offsets("x", torch.zeros(3, 5))
assert exchange_utils._shard_size(part) == 3 * 5 * 4
print("prepared")
