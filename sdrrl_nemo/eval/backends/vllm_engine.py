"""vLLM in this process (GPU). vLLM is no dependency of this project: ``pip install vllm`` beside it.

Tested here against a stand-in of vLLM's interface only; no GPU has run it yet.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.eval.backends.interface import BACKENDS, Advance, Backend
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.model_folder import ModelFolder

REVISION = 2


@BACKENDS.register("vllm")
class VllmBackend(Backend):
    """``engine``: further arguments of vllm.LLM (tensor_parallel_size, gpu_memory_utilization, max_model_len, ...).

    The whole list of prompts goes to the engine at once; it batches by itself, so close calls may turn between runs
    with other lists, and the requests' batch is none of ours.
    """

    def __init__(self, folder: ModelFolder, config: BenchmarkConfig, engine: dict[str, Any] | None = None) -> None:
        super().__init__(folder, config)
        self._engine = dict(engine or {})
        try:
            self._vllm: Any = importlib.import_module("vllm")
        except ImportError as e:
            raise SdrrlError(
                f"backend 'vllm': vLLM cannot be imported ({' '.join(str(e).split())[:120]}); install it with 'pip "
                "install vllm' on a machine with a GPU, or use backend.name=transformers"
            ) from None

    def identity(self) -> dict[str, Any]:
        return {
            "backend": "vllm",
            "revision": REVISION,
            "vllm": str(getattr(self._vllm, "__version__", "unknown")),
            "dtype": self.config.dtype,
            "engine": self._engine,
        }

    @cached_property
    def _llm(self) -> Any:
        options = {"dtype": self.config.dtype, "seed": 0, **self._engine}
        return self._vllm.LLM(model=str(self.folder.path), **options)

    def prepare(self) -> None:
        assert self._llm is not None

    def _ask(self, prompts: Sequence[Sequence[int]], sampling: list[Any]) -> list[Any]:
        inputs = [{"prompt_token_ids": list(p)} for p in prompts]
        return list(self._llm.generate(inputs, sampling, use_tqdm=False))

    def generate(self, prompts: Sequence[Sequence[int]], limits: Sequence[int], advance: Advance) -> list[Any]:
        sampling = [
            self._vllm.SamplingParams(temperature=0.0, max_tokens=n, stop_token_ids=self.folder.end_token_ids)
            for n in limits
        ]
        out = []
        for reply in self._ask(prompts, sampling):
            made = reply.outputs[0]
            finished = made.finish_reason == "stop"
            tokens = len(made.token_ids) - int(finished)  # the end token is not counted, as in the local backend
            out.append({"text": str(made.text).strip(), "tokens": max(tokens, 0), "finished": finished})
        advance(len(prompts))
        return out

    def choose(
        self, contexts: Sequence[Sequence[int]], choices: Sequence[Sequence[Sequence[int]]], advance: Advance
    ) -> list[list[float]]:
        whole = [[*c, *k] for c, ks in zip(contexts, choices, strict=True) for k in ks]
        starts = [len(c) for c, ks in zip(contexts, choices, strict=True) for _ in ks]
        sampling = [self._vllm.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0) for _ in whole]
        flat = []
        for ids, start, reply in zip(whole, starts, self._ask(whole, sampling), strict=True):
            table = reply.prompt_logprobs  # per prompt token: {token id: Logprob}; None for the first
            flat.append(float(sum(table[j][ids[j]].logprob for j in range(start, len(ids)))))
        advance(len(contexts))
        found = iter(flat)
        return [[next(found) for _ in ks] for ks in choices]
