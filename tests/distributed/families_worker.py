"""Run under torchrun: logits of every family in one layout, and a checkpoint of it.

torchrun --nproc-per-node N tests/distributed/families_worker.py FOLDER LAYOUT [LAYOUT ...]

FOLDER/models/<family> are the HF folders, FOLDER/ids.pt the samples. Writes FOLDER/<family>-<layout>.pt and
FOLDER/checkpoints/<family>-<layout>; with ``export`` as a layout, exports those checkpoints to FOLDER/exports.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LAYOUTS = {"tp1": (1, 1, False), "tp2": (2, 1, False), "tp2-sp": (2, 1, True), "pp2": (1, 2, False)}
"""(tensor parallel, pipeline parallel, sequence parallel)"""


def forward(model: Any, ids: Tensor, positions: Tensor, packed: Any) -> Tensor | None:
    """Logits fp32 [b, s, V padded] on the last pipeline stage, None elsewhere."""
    import torch.distributed as dist
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region

    stages = parallel_state.get_pipeline_model_parallel_world_size()
    if stages > 1 and not model.pre_process:
        hidden = torch.empty(ids.shape[1], ids.shape[0], model.config.hidden_size)
        dist.recv(hidden, src=0)
        model.set_input_tensor(hidden)
    out: Tensor = model(ids, positions, None, packed_seq_params=packed)
    if not model.post_process:
        dist.send(out, dst=1)
        return None
    return gather_from_tensor_model_parallel_region(out)


def both_forms(model: Any, samples: list[Tensor]) -> list[list[Tensor]] | None:
    """Logits of each sample [tokens, V padded]: from a right-padded batch, and packed end to end."""
    from megatron.core.packed_seq_params import PackedSeqParams

    model.eval()
    longest = max(len(s) for s in samples)
    batch = torch.stack([torch.nn.functional.pad(s, (0, longest - len(s))) for s in samples])
    places = torch.arange(longest).expand_as(batch)
    cu = torch.tensor([0, *(len(s) for s in samples)]).cumsum(0).int()
    packed = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=cu, cu_seqlens_kv=cu, max_seqlen_q=longest, max_seqlen_kv=longest
    )
    with torch.no_grad():
        padded = forward(model, batch, places, None)
        row = forward(model, torch.cat(samples)[None], torch.cat([places[0, : len(s)] for s in samples])[None], packed)
    if padded is None or row is None:
        return None
    return [[p[: len(s)] for p, s in zip(padded, samples, strict=True)], list(row[0].split([len(s) for s in samples]))]


def one_layout(folder: Path, layout: str) -> None:
    """Every family in ``layout``."""
    import torch.distributed as dist
    from megatron.core import parallel_state

    from sdrrl_nemo.model import standalone
    from sdrrl_nemo.model.hf_bridge import load_hf_weights
    from sdrrl_nemo.model.provider import gpt_config, read_hf_config
    from tests.tiny_families import PADDED

    tp, pp, sp = LAYOUTS[layout]
    samples = torch.load(folder / "ids.pt")
    standalone.init_parallel(tp, pp)
    for path in sorted((folder / "models").iterdir()):
        pad = 2 if tp == 2 and path.name in PADDED else 1
        config = gpt_config(read_hf_config(path), seq_length=256, tp=tp, pp=pp, pad_heads_to=pad)
        config.sequence_parallel = sp
        model = standalone.build(config, tp, pp)
        load_hf_weights(model, path, config, parallel_state.get_tensor_model_parallel_rank(), tp)
        logits = both_forms(model, samples)
        if logits is not None and parallel_state.get_tensor_model_parallel_rank() == 0:
            torch.save(logits, folder / f"{path.name}-{layout}.pt")
        if not sp:
            standalone.save_weights(model, folder / "checkpoints" / f"{path.name}-{layout}")
        dist.barrier()
    parallel_state.destroy_model_parallel()


def export(folder: Path) -> None:
    """Every checkpoint to an HF folder; the tool's own comparison of logits runs in it."""
    from megatron.core import parallel_state

    from sdrrl_nemo.model.export import export_checkpoint

    for checkpoint in sorted((folder / "checkpoints").iterdir()):
        base = folder / "models" / checkpoint.name.rpartition("-")[0]
        result = export_checkpoint(checkpoint, base, folder / "exports" / checkpoint.name)
        print(f"{checkpoint.name}: {result.max_abs_diff:.1e}")
        parallel_state.destroy_model_parallel()


def main() -> None:
    from sdrrl_nemo.compat.start import prepare

    prepare()
    folder = Path(sys.argv[1])
    for layout in sys.argv[2:]:
        if layout == "export":
            export(folder)
        else:
            one_layout(folder, layout)


if __name__ == "__main__":
    main()
