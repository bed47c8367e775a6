"""Run under torchrun: fit_worker with a stand-in for apex's product that adds its result to the gradient.

torchrun --nproc-per-node N tests/distributed/options_worker.py CONFIG.yaml 'key=value key=value' 'key=value ...'

The product itself runs on a GPU only; what Megatron's layers, the loss and the reduction make of gradients that are
there already is the same here.
"""

from __future__ import annotations

from types import SimpleNamespace

from torch import Tensor

from tests.distributed import fit_worker


def add_product(inputs: Tensor, gradients: Tensor, total: Tensor) -> None:
    total.add_(gradients.t().matmul(inputs))


def main() -> None:
    from sdrrl_nemo.compat.start import prepare

    prepare()
    from megatron.core.tensor_parallel import layers

    from sdrrl_nemo.train import preparation

    layers.fused_weight_gradient_mlp_cuda = SimpleNamespace(wgrad_gemm_accum_fp32=add_product)
    layers._grad_accum_fusion_available = True
    preparation.check_option_machine = lambda *_: None
    fit_worker.main()


if __name__ == "__main__":
    main()
