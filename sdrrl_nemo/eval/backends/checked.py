"""Greedy answers by CTranslate2, each read once by transformers; everything else by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.converted import CACHE
from sdrrl_nemo.data.engines.ctranslate2_decoder import CTranslate2Decoder
from sdrrl_nemo.eval.backends.decoding import CLOSE, generate_batches, greedy
from sdrrl_nemo.eval.backends.interface import BACKENDS, Advance, check_lengths
from sdrrl_nemo.eval.backends.local import TransformersBackend
from sdrrl_nemo.eval.config import BenchmarkConfig, EvalConfig
from sdrrl_nemo.eval.model_folder import ModelFolder


@BACKENDS.register("ctranslate2")
class CTranslate2Backend(TransformersBackend):
    """The answers of backend ``transformers`` in fp32, written by CTranslate2 on the CPU.

    Reading an answer takes transformers one pass, writing it one pass a token. So each answer is read: where every
    token of it, its end included, is transformers' likeliest by at least ``CLOSE``, it is what transformers would have
    written in any batch; any other is written again by transformers, alone. Losses, likelihoods and hidden states are
    those of backend ``transformers``.
    """

    def __init__(
        self,
        folder: ModelFolder,
        config: EvalConfig | BenchmarkConfig,
        cache: str = CACHE,
        inter_threads: int = 1,
        intra_threads: int = 0,
    ) -> None:
        super().__init__(folder, config)
        threads = intra_threads or config.threads
        self._decoder = CTranslate2Decoder(
            "backend 'ctranslate2'",
            folder.path,
            cache,
            device="cpu",
            inter_threads=inter_threads,
            intra_threads=threads,
        )
        self.rewritten = 0
        """Answers that transformers had to write again."""

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "generation": f"ctranslate2 {self._decoder.version}, checked"}

    @cached_property
    def _ends(self) -> frozenset[int]:
        return frozenset(self.folder.end_token_ids)

    def generate(self, prompts: Sequence[Sequence[int]], limits: Sequence[int], advance: Advance) -> list[Any]:
        if self.dtype != "float32":
            raise SdrrlError(
                f"backend 'ctranslate2' answers in float32 alone and {self.dtype} is asked for; set dtype "
                "(generation.dtype of the held-out evaluation) to float32, or use backend.name=transformers"
            )
        lengths = [len(p) for p in prompts]
        whole = [n + limit for n, limit in zip(lengths, limits, strict=True)]
        check_lengths(whole, self._decoder.positions, "prompts and their answers")
        out: list[Any] = [None] * len(prompts)
        for limit in sorted(set(limits), reverse=True):
            numbers = [i for i, n in enumerate(limits) if n == limit]
            cut = generate_batches(
                [lengths[i] for i in numbers], [limit] * len(numbers), self.config.batch_tokens, self.batch_size
            )
            batches = [[numbers[k] for k in batch] for batch in cut]
            rows = [[prompts[i] for i in batch] for batch in batches]
            for batch, found in zip(batches, self._decoder.generate(rows, limit, sorted(self._ends)), strict=True):
                for i, new in zip(batch, found, strict=True):
                    out[i] = self._checked_answer(prompts[i], new, limit)
                advance(len(batch))
        return out

    def _checked_answer(self, prompt: Sequence[int], new: list[int], limit: int) -> dict[str, Any]:
        """The answer as it is where transformers agrees, else transformers' own."""
        if not self._agrees(prompt, new, limit):
            self.rewritten += 1
            return greedy(self.model, self.folder.tokenizer, [prompt], [limit], 1, lambda n: None)[0]
        tokens = new[:-1] if new[-1] in self._ends else new
        text = self.folder.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return {"text": text, "tokens": len(tokens), "finished": len(tokens) < limit}

    @torch.inference_mode()
    def _agrees(self, prompt: Sequence[int], new: list[int], limit: int) -> bool:
        """Whether ``new`` is what transformers says, and no token of it a close call."""
        if not new or (new[-1] not in self._ends and len(new) < limit):
            return False
        ids = torch.tensor([[*prompt, *new[:-1]]], device=self.model.device)
        logits = self.model(input_ids=ids, logits_to_keep=len(new)).logits[0].float()  # [steps, V]
        best = logits.topk(2, dim=-1)
        sure = best.values[:, 0] - best.values[:, 1] >= CLOSE
        return bool(sure.all()) and best.indices[:, 0].tolist() == new
