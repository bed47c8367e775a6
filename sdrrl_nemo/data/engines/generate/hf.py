"""The model itself answering questions with transformers: y_hat = M(x), Eq. 4's second source of answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import canonical_json, content_key
from sdrrl_nemo.common.optional import require
from sdrrl_nemo.common.precision import AUTO, resolve
from sdrrl_nemo.common.seeding import derive_seed
from sdrrl_nemo.data.engines.base import GENERATORS, Generator
from sdrrl_nemo.data.engines.contents import matching
from sdrrl_nemo.data.engines.generate.answers import UNFINISHED, Answer, settle
from sdrrl_nemo.data.rows import Message
from sdrrl_nemo.data.text.chat_template import TemplateConfig
from sdrrl_nemo.data.text.conversation import Chat, Unmaskable, user
from sdrrl_nemo.data.text.tokenizer import load_chat

DTYPES = ("float32", "bfloat16", "float16", AUTO)
WEIGHT_FILES = ("*.safetensors", "*.bin")
CARRIED_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""What transformers reads of a model's folder: weights, and configuration, tokenizer and chat template."""
REVISION = 3
"""Changes whenever the code here may give another answer to the same question."""


@GENERATORS.register("hf")
class HfGenerator(Generator):
    """A Hugging Face folder, greedy by default.

    The questions of one call are sorted by length and answered in batches of ``batch_size``, padded on the left, so
    which questions share a batch follows from the call's questions alone. Padding leaves out no token and adds none,
    but rounding in a batch of another shape can decide a tie between two tokens: call with the same questions (a
    stage's shard) to get the same bytes. Only the options here steer generation; the folder's own
    generation_config.json is not used. With ``device: auto`` the weights go to the CPU, or over all visible GPUs. With
    ``dtype: auto`` they are bfloat16 where that is native, else float32; the answers' identity holds which.

    ``unfinished`` says what becomes of an answer cut at ``max_new_tokens``: ``keep`` it (a later stage may judge it),
    ``trim`` it to its last complete sentence or line, or ``drop`` it (the answer is ''). With ``temperature`` above 0
    tokens are sampled, seeded by ``seed`` and the batch's questions, so that neither the order of the questions nor the
    resumption of a run changes an answer.
    """

    def __init__(
        self,
        model: str,
        max_new_tokens: int = 256,
        batch_size: int = 16,
        dtype: str = "float32",
        device: str = "auto",
        unfinished: str = "keep",
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        licence: str | None = None,
        templates: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder = Path(model)
        if not (self._folder / "config.json").is_file():
            raise SdrrlError(
                f"generator 'hf': {model} holds no model (no config.json); make it with tools/import_gguf.py "
                "or correct 'model'"
            )
        for name, value, known in (("dtype", dtype, DTYPES), ("unfinished", unfinished, UNFINISHED)):
            if value not in known:
                raise SdrrlError(f"generator 'hf': {name} '{value}' is unknown{suggest(value, known)}")
        if max_new_tokens < 1 or batch_size < 1 or temperature < 0 or not 0 < top_p <= 1:
            raise SdrrlError(
                "generator 'hf': max_new_tokens >= 1, batch_size >= 1, temperature >= 0 and 0 < top_p <= 1 are needed"
            )
        self._batch_size = batch_size
        self.max_new_tokens, self._device_name = max_new_tokens, device
        self._dtype = resolve(dtype, "bfloat16", "float32")
        self._unfinished, self._temperature, self._top_p, self._seed = unfinished, temperature, top_p, seed
        self._templates = TemplateConfig(**(templates or {}))
        self.licence = licence or self._stated_licence()

    def _stated_licence(self) -> str:
        from sdrrl_nemo.common.fileio import read_json
        from sdrrl_nemo.model.gguf import MARK

        mark = self._folder / MARK
        return str(read_json(mark).get("licence", "unstated")) if mark.is_file() else "unstated by the model folder"

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Name and every option that can change an answer, the chat template among them."""
        sampling = (self._temperature, self._top_p, self._seed) if self._temperature else "greedy"
        rendered = self._chat.tokenizer.chat_template
        options = (REVISION, self.max_new_tokens, self._batch_size, self._dtype, self._unfinished, sampling, rendered)
        return f"hf/{self._folder.name}/{content_key(options)}"

    def files(self, *languages: str) -> Iterable[Path]:
        return matching(self._folder, (*WEIGHT_FILES, *CARRIED_FILES))

    def check(self, *languages: str) -> None:
        """Whether there are weights, and a chat template that can be used."""
        super().check(*languages)
        if not matching(self._folder, WEIGHT_FILES):
            raise SdrrlError(f"{self._folder}: no weights in this folder ({' or '.join(WEIGHT_FILES)})")
        _ = self._chat

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
            raise SdrrlError(f"generator 'hf': device '{name}' is unknown; use auto, cpu or cuda") from None

    @cached_property
    def _chat(self) -> Chat:
        chat = load_chat(self._folder, self._templates, padding_side="left")
        if chat.tokenizer.pad_token_id is None:
            chat.tokenizer.pad_token = chat.tokenizer.convert_ids_to_tokens(min(chat.end_token_ids))
        return chat

    @property
    def _tokenizer(self) -> Any:
        return self._chat.tokenizer

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

    def answer(self, questions: Sequence[str]) -> list[Answer]:
        """:meth:`answers_to` single questions."""
        return self.answers_to([[user(question)] for question in questions])

    def answers_to(self, conversations: Sequence[Sequence[Message]]) -> list[Answer]:
        """Answers as generated, untrimmed. One that the template refuses, or that leaves no room for an answer among
        the model's positions, gets an empty answer, which is not finished."""
        if not conversations:
            return []
        answers = dict.fromkeys(range(len(conversations)), Answer("", False, 0))
        prompts = self._chat.prompts(conversations)
        limit = getattr(self._model.config, "max_position_embeddings", None)
        room = limit - self.max_new_tokens if limit else None
        rendered = {i: p for i, p in enumerate(prompts) if not isinstance(p, Unmaskable)}
        ids = {i: p for i, p in rendered.items() if room is None or len(p) <= room}
        if rendered and not ids:  # not one row's fault but the configuration's
            raise SdrrlError(
                f"a question of {min(map(len, rendered.values()))} tokens plus {self.max_new_tokens} new ones exceeds "
                f"the model's {limit}, and the others are longer; lower generation.engine.options.max_new_tokens"
            )
        texts = [c[0]["content"] if len(c) == 1 else canonical_json(c) for c in conversations]
        # Longest first: if memory does not do, that shows at once. Equal lengths by text, so order does not matter.
        order = sorted(ids, key=lambda i: (-len(ids[i]), texts[i]))
        for begin in range(0, len(order), self._batch_size):
            batch = order[begin : begin + self._batch_size]
            answers |= zip(batch, self._answer_batch([texts[i] for i in batch], [ids[i] for i in batch]), strict=True)
        return [answers[i] for i in range(len(conversations))]

    def _answer_batch(self, questions: list[str], rows: list[list[int]]) -> list[Answer]:
        import torch
        from transformers.data.data_collator import pad_without_fast_tokenizer_warning

        encoded = pad_without_fast_tokenizer_warning(self._tokenizer, {"input_ids": rows}, return_tensors="pt")
        encoded = encoded.to(self._device)
        ids, attention = encoded["input_ids"], encoded["attention_mask"]
        cuda = [self._device] if self._device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=cuda):
            torch.manual_seed(derive_seed(self._seed, "generate", *questions))
            output = self._model.generate(
                input_ids=ids,
                attention_mask=attention,
                generation_config=self._generation_config(),
            )
        return [self._read(row) for row in output[:, ids.shape[1] :].tolist()]

    def _generation_config(self) -> Any:
        from transformers import GenerationConfig

        sampling: dict[str, Any] = {"do_sample": False}
        if self._temperature > 0:
            sampling = {"do_sample": True, "temperature": self._temperature, "top_p": self._top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            eos_token_id=sorted(self._chat.end_token_ids),
            pad_token_id=self._tokenizer.pad_token_id,
            bos_token_id=self._tokenizer.bos_token_id,
            **sampling,
        )

    def _read(self, tokens: list[int]) -> Answer:
        """Answer of one row: up to the first token that ends an answer; without one it was cut."""
        ends = self._chat.end_token_ids
        kept = list(itertools.takewhile(lambda token: token not in ends, tokens))
        finished = len(kept) < len(tokens)
        return Answer(self._tokenizer.decode(kept, skip_special_tokens=True).strip(), finished, len(kept))

    def generate(self, questions: Sequence[str]) -> list[str]:
        return self.converse([[user(question)] for question in questions])

    def converse(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        return [settle(answer, self._unfinished) for answer in self.answers_to(conversations)]
