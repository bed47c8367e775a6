"""The model itself answering questions with transformers: y_hat = M(x), Eq. 4's second source of answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.optional import require
from sdrrl_nemo.common.precision import AUTO, resolve
from sdrrl_nemo.common.seeding import derive_seed
from sdrrl_nemo.data.engines.base import GENERATORS
from sdrrl_nemo.data.engines.generate.in_process import LocalGenerator, Prompt, check_repetition_penalty
from sdrrl_nemo.data.engines.loops import check_stop_loops, looks_like_a_loop

DTYPES = ("float32", "bfloat16", "float16", AUTO)
REVISION = 5
"""Changes whenever the code here may give another answer to the same question."""


@GENERATORS.register("hf")
class HfGenerator(LocalGenerator):
    """A Hugging Face folder, greedy by default.

    Batches (`LocalGenerator`) are padded on the left. Padding leaves out no token and adds none, but rounding in a
    batch of another shape can decide a tie between two tokens: call with the same questions (a stage's shard) to get
    the same bytes. With ``device: auto`` the weights go to the CPU, or over all visible GPUs. With ``dtype: auto`` they
    are bfloat16 where that is native, else float32; the answers' identity holds which.

    Greedy answers come from `greedy_decoder`: a row leaves its batch with its end token, so large batches pay.
    ``stop_loops`` (greedy only) gives up an answer that goes round in circles (`check_stop_loops`).

    ``unfinished`` says what becomes of an answer cut at ``max_new_tokens``: ``drop`` it, ``trim`` it to its last
    complete sentence or line, or ``keep`` it as it is. With ``temperature`` above 0 tokens are sampled, seeded by
    ``seed`` and the batch's questions, so that neither the order of the questions nor the resumption of a run changes
    an answer. ``repetition_penalty`` is that of `check_repetition_penalty`.
    """

    where = "generator 'hf'"

    def __init__(
        self,
        model: str,
        max_new_tokens: int = 256,
        batch_size: int = 16,
        dtype: str = "float32",
        device: str = "auto",
        unfinished: str = "drop",
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        repetition_penalty: float = 1.0,
        stop_loops: int = 0,
        licence: str | None = None,
        templates: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model, max_new_tokens, batch_size, unfinished, licence, templates)
        if dtype not in DTYPES:
            raise SdrrlError(f"{self.where}: dtype '{dtype}' is unknown{suggest(dtype, DTYPES)}")
        if temperature < 0 or not 0 < top_p <= 1:
            raise SdrrlError(f"{self.where}: temperature >= 0 and 0 < top_p <= 1 are needed")
        self._device_name, self._dtype = device, resolve(dtype, "bfloat16", "float32")
        self._temperature, self._top_p, self._seed = temperature, top_p, seed
        self._penalty = check_repetition_penalty(self.where, repetition_penalty)
        self._stop_loops = check_stop_loops(self.where, stop_loops)
        if temperature and stop_loops:
            raise SdrrlError(f"{self.where}: stop_loops goes with temperature 0, and it is {temperature}")

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Name and every option that can change an answer, the chat template among them."""
        sampling = (self._temperature, self._top_p, self._seed) if self._temperature else "greedy"
        stops = [f"stop_loops {self._stop_loops}"] if self._stop_loops else []
        return self._identified("hf", REVISION, self._dtype, sampling, *self._penalised, *stops)

    def try_out(self) -> None:
        """Whether the device is there."""
        import torch

        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise SdrrlError(f"device is '{self._device_name}', but torch sees no GPU on this machine")

    @cached_property
    def _device(self) -> Any:
        import torch

        name = self._device_name
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            return torch.device(name)
        except RuntimeError:
            raise SdrrlError(f"{self.where}: device '{name}' is unknown; use auto, cpu or cuda") from None

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig

        from sdrrl_nemo.compat.transformers5 import read_config

        spread = self._device_name == "auto" and self._device.type == "cuda" and torch.cuda.device_count() > 1
        if spread:
            require("accelerate", "accelerate")
        try:
            model = AutoModelForCausalLM.from_pretrained(
                str(self._folder),
                config=read_config(self._folder),
                dtype=getattr(torch, self._dtype),
                local_files_only=True,
                **({"device_map": "auto"} if spread else {}),
            )
        except Exception as e:  # safetensors has an error of its own for a damaged file, which is none of Python's
            raise SdrrlError(f"{self._folder}: not a loadable model ({' '.join(str(e).split())})") from None
        model.generation_config = GenerationConfig()  # what the folder's has beside our settings would steer too
        return (model if spread else model.to(self._device)).eval()

    def _positions(self) -> int | None:
        return getattr(self._model.config, "max_position_embeddings", None)

    def _run(self, batches: Iterable[list[Prompt]]) -> Iterator[list[list[int]]]:
        return map(self._by_transformers if self._temperature else self._greedy, batches)

    @property
    def _ends(self) -> list[int]:
        return sorted(self._chat.end_token_ids)

    def _greedy(self, batch: list[Prompt]) -> list[list[int]]:
        from sdrrl_nemo.data.engines.greedy_decoder import decode

        limit, pad = self.max_new_tokens, self._tokenizer.pad_token_id
        stop = partial(looks_like_a_loop, times=self._stop_loops) if self._stop_loops else None
        ids = [prompt.ids for prompt in batch]
        return [row.tokens for row in decode(self._model, ids, limit, self._ends, pad, self._penalty, stop)]

    def _by_transformers(self, batch: list[Prompt]) -> list[list[int]]:
        """With ``generate``: sampled, and the peer of our greedy decoding where speed is measured."""
        import torch
        from transformers.data.data_collator import pad_without_fast_tokenizer_warning

        cuda = [self._device] if self._device.type == "cuda" else []
        rows = {"input_ids": [prompt.ids for prompt in batch]}
        encoded = pad_without_fast_tokenizer_warning(self._tokenizer, rows, return_tensors="pt").to(self._device)
        ids, attention = encoded["input_ids"], encoded["attention_mask"]
        with torch.inference_mode(), torch.random.fork_rng(devices=cuda):
            torch.manual_seed(derive_seed(self._seed, "generate", *(prompt.text for prompt in batch)))
            output = self._model.generate(
                input_ids=ids,
                attention_mask=attention,
                generation_config=self._generation_config(),
                logits_processor=self._processors(ids.shape[1]),
            )
        made: list[list[int]] = output[:, ids.shape[1] :].tolist()
        return made

    def _processors(self, prompt_length: int) -> Any:
        """The penalty as the greedy decoder has it: GenerationConfig's own would be for the question's tokens too."""
        from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

        penalty = RepetitionPenaltyLogitsProcessor(self._penalty, prompt_ignore_length=prompt_length)
        return LogitsProcessorList([penalty] if self._penalised else [])

    def _generation_config(self) -> Any:
        from transformers import GenerationConfig

        sampling: dict[str, Any] = {"do_sample": False}
        if self._temperature > 0:
            sampling = {"do_sample": True, "temperature": self._temperature, "top_p": self._top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self._ends,
            pad_token_id=self._tokenizer.pad_token_id,
            bos_token_id=self._tokenizer.bos_token_id,
            **sampling,
        )
