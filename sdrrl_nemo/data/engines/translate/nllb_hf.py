"""NLLB-200 in transformers with beam search of four: the paper's translator (section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import content_key, read_json
from sdrrl_nemo.data.engines.base import TRANSLATORS
from sdrrl_nemo.data.engines.contents import matching
from sdrrl_nemo.data.engines.translate.nllb import (
    LICENCE,
    MAX_TOKENS,
    MODEL_FILES,
    Hypothesis,
    NllbTranslator,
    check_folder,
)

DTYPES = ("float32", "bfloat16", "float16")
REVISION = 1
"""Changes whenever the code here may give another translation of the same text."""


@TRANSLATORS.register("nllb_hf")
class NllbHfTranslator(NllbTranslator):
    """A Hugging Face folder of NLLB-200. Only the options here steer the search, not the folder's generation_config.

    ``max_output_tokens`` bounds a line's translation; one that has not ended by then is ''.
    """

    name = "nllb_hf"

    def __init__(
        self,
        model: str,
        beams: int = 4,
        dtype: str = "float32",
        device: str = "auto",
        batch_tokens: int = 4096,
        max_input_tokens: int = 0,
        max_output_tokens: int = 512,
        licence: str | None = None,
    ) -> None:
        super().__init__(beams, batch_tokens, max_input_tokens, max_output_tokens)
        self._folder = Path(model)
        check_folder("translator 'nllb_hf'", self._folder)
        if dtype not in DTYPES:
            raise SdrrlError(f"translator 'nllb_hf': dtype '{dtype}' is unknown{suggest(dtype, DTYPES)}")
        self._dtype, self._device_name = dtype, device
        self.licence = licence or LICENCE
        self.noncommercial = self.licence == LICENCE  # a licence that is given speaks for itself

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Name and every option that can change a translation."""
        options = (REVISION, self._beams, self._dtype, self._batch_tokens, self._max_output)
        return f"nllb_hf/{self._folder.name}/{content_key(options)}"

    def files(self, *languages: str) -> Iterable[Path]:
        return matching(self._folder, MODEL_FILES)

    def try_out(self) -> None:
        """Whether the device is there."""
        import torch

        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise SdrrlError(f"device is '{self._device_name}', but torch sees no GPU on this machine")

    def _tokenizer_folder(self) -> Path:
        return self._folder

    def _positions(self) -> int:
        return int(read_json(self._folder / "config.json").get("max_position_embeddings", MAX_TOKENS))

    @cached_property
    def _device(self) -> Any:
        import torch

        name = self._device_name
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            return torch.device(name)
        except RuntimeError:
            raise SdrrlError(f"translator 'nllb_hf': device '{name}' is unknown; use auto, cpu or cuda") from None

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForSeq2SeqLM, GenerationConfig

        try:
            model = AutoModelForSeq2SeqLM.from_pretrained(
                str(self._folder), dtype=getattr(torch, self._dtype), local_files_only=True
            )
        except Exception as e:  # safetensors has an error of its own for a damaged file, which is none of Python's
            raise SdrrlError(f"{self._folder}: not a loadable model ({' '.join(str(e).split())})") from None
        model.generation_config = GenerationConfig()  # the folder's would fill in what ours leaves open
        return model.to(self._device).eval()

    def _generation_config(self, target: str, count: int) -> Any:
        """The whole search. No forced end token: M2M-100's default would make a cut translation look finished."""
        from transformers import GenerationConfig

        tokenizer = self._tokenizer
        return GenerationConfig(
            num_beams=self._beams,
            num_return_sequences=count,
            do_sample=False,
            max_new_tokens=1 + self._output_bound,
            forced_bos_token_id=self._language_id(target),
            forced_eos_token_id=None,
            decoder_start_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )

    def _decode(self, rows: list[list[int]], target: str, count: int) -> list[list[Hypothesis]]:
        import torch
        from transformers.data.data_collator import pad_without_fast_tokenizer_warning

        config, end = self._generation_config(target, count), self._tokenizer.eos_token_id
        out: dict[int, list[Hypothesis]] = {}
        for batch in self._batches(rows):
            ids = {"input_ids": [rows[i] for i in batch]}
            encoded = pad_without_fast_tokenizer_warning(self._tokenizer, ids, return_tensors="pt")
            with torch.inference_mode():
                found = self._model.generate(**encoded.to(self._device), generation_config=config)
            made = [_hypothesis(ids, end) for ids in found[:, 2:].tolist()]  # after start and language token
            for n, i in enumerate(batch):
                out[i] = made[n * count : (n + 1) * count]
        return [out[i] for i in range(len(rows))]


def _hypothesis(ids: list[int], end: int) -> Hypothesis:
    return Hypothesis(ids[: ids.index(end)], True) if end in ids else Hypothesis(ids, False)
