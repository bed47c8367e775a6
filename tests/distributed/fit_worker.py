"""Run under torchrun: train one configuration after another in the same processes (start-up costs more than a run).

torchrun --nproc-per-node N tests/distributed/fit_worker.py CONFIG.yaml 'key=value key=value' 'key=value ...'
"""

from __future__ import annotations

import sys

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.train.config import RunConfig


def forget_run() -> None:
    """Undo what Megatron keeps of a run for the whole process, so that another may follow."""
    from megatron.core import parallel_state
    from megatron.core.num_microbatches_calculator import destroy_num_microbatches_calculator
    from torch import distributed as dist

    destroy_num_microbatches_calculator()
    parallel_state.destroy_model_parallel()
    # gloo keeps threads for every group: after thirty runs they would take the machine from the run itself
    world = dist.group.WORLD
    for group in [g for g in dist.distributed_c10d._world.pg_map if g is not world]:
        dist.destroy_process_group(group)


def main() -> None:
    from sdrrl_nemo.compat.start import prepare

    prepare()
    from recipes.sdrrl_pretrain import train

    for overrides in sys.argv[2:]:
        train(load_config(RunConfig, sys.argv[1], overrides.split()))
        forget_run()


if __name__ == "__main__":
    main()
