"""Last layer's hidden state of each prompt's last token: what alignment is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from sdrrl_nemo.eval.backends.answer_loss import batches_by_length
from sdrrl_nemo.eval.backends.prefix import SharedPrefix


@torch.inference_mode()
def last_states(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], batch_tokens: int, advance: Callable[[int], object]
) -> npt.NDArray[np.float32]:
    """Last layer's hidden state (after the final norm) of each prompt's last token, float32 [n, H]."""
    out: list[npt.NDArray[np.float32] | None] = [None] * len(prompts)
    shared = SharedPrefix(model, prompts)
    texts = [p[shared.length :] for p in prompts]
    for batch in batches_by_length([len(t) for t in texts], batch_tokens):
        longest = len(texts[batch[0]])
        ids = torch.zeros(len(batch), longest, dtype=torch.long)  # [B, L], padded on the right: see sample_losses
        for r, i in enumerate(batch):
            ids[r, : len(texts[i])] = torch.tensor(texts[i])
        states = shared(ids.to(model.device), output_hidden_states=True, logits_to_keep=1).hidden_states[-1]
        for r, i in enumerate(batch):
            out[i] = states[r, len(texts[i]) - 1].float().cpu().numpy()
        advance(sum(len(prompts[i]) for i in batch))
    return np.stack([x for x in out if x is not None])
