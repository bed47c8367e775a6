"""NLLB-200 in CTranslate2: beam search of four in int8 or fp16, on several GPUs at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key, read_json
from sdrrl_nemo.common.optional import distribution_version, require
from sdrrl_nemo.data.engines.base import TRANSLATORS
from sdrrl_nemo.data.engines.contents import contents, matching
from sdrrl_nemo.data.engines.converted import (
    CACHE,
    EXTRA,
    FACTS,
    PACKAGE,
    SOURCE_FILES,
    STORED,
    check_machine,
    converted_once,
    load,
)
from sdrrl_nemo.data.engines.translate.nllb import (
    LICENCE,
    MAX_TOKENS,
    TOKENIZER_FILES,
    Hypothesis,
    NllbTranslator,
    check_folder,
    load_tokenizer,
)

REVISION = 1
"""Changes whenever the code here may give another translation of the same text."""


@TRANSLATORS.register("nllb_ctranslate2")
class NllbCTranslate2Translator(NllbTranslator):
    """``model`` is a converted folder (model.bin, with the tokenizer's files or ``tokenizer`` naming their folder) or a
    Hugging Face folder, which is converted once into ``cache``.

    ``devices`` are GPU numbers, each with a copy of the model; ``inter_threads`` batches run at a time on each,
    ``intra_threads`` threads a batch on the CPU (0: CTranslate2's choice). ``compute_type: auto`` takes the fastest
    type that the device knows, so name one where runs on different machines are to agree.
    """

    name = "nllb_ctranslate2"

    def __init__(
        self,
        model: str,
        tokenizer: str = "",
        cache: str = CACHE,
        beams: int = 4,
        compute_type: str = "auto",
        device: str = "auto",
        devices: Sequence[int] = (0,),
        inter_threads: int = 1,
        intra_threads: int = 0,
        batch_tokens: int = 4096,
        max_input_tokens: int = 0,
        max_output_tokens: int = 512,
        licence: str | None = None,
    ) -> None:
        super().__init__(beams, batch_tokens, max_input_tokens, max_output_tokens)
        where, self._source = "translator 'nllb_ctranslate2'", Path(model)
        self._converted = (self._source / "model.bin").is_file()
        if not self._converted:
            check_folder(f"{where} (or a converted folder with model.bin)", self._source)
        check_machine(where, compute_type, device, devices, inter_threads, intra_threads)
        self._version = distribution_version(PACKAGE, EXTRA)
        self._tokenizer_option, self._cache = Path(tokenizer) if tokenizer else None, Path(cache)
        self._compute_type, self._device = compute_type, device
        self._device_index, self._threads = list(devices), (inter_threads, intra_threads)
        self.licence = licence or LICENCE
        self.noncommercial = self.licence == LICENCE  # a licence that is given speaks for itself

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Name, CTranslate2's version and every option that can change a translation."""
        options = (REVISION, self._version, self._beams, self._compute_type, self._batch_tokens, self._max_output)
        return f"nllb_ctranslate2/{self._source.name}/{content_key(options)}"

    def files(self, *languages: str) -> Iterable[Path]:
        # A conversion is made from these, and made anew where it is no longer what was made.
        tokenizer = matching(self._tokenizer_option, TOKENIZER_FILES) if self._tokenizer_option else []
        return [*matching(self._source, SOURCE_FILES), *tokenizer]

    @cached_property
    def _folder(self) -> Path:
        """Converted folder, made now where it is not yet there."""
        if self._converted:
            return self._source
        stored, key = STORED[self._compute_type], contents(matching(self._source, SOURCE_FILES))
        folder = self._cache / f"{self._source.name}-{stored}-{content_key(key, self._version)}"
        return converted_once(folder, lambda empty: convert(self._source, empty, stored))

    def try_out(self) -> None:
        """Whether the device is there."""
        if self._device == "cuda" and not require(PACKAGE, PACKAGE, EXTRA).get_cuda_device_count():
            raise SdrrlError("device is 'cuda', but CTranslate2 sees no GPU on this machine")

    def _tokenizer_folder(self) -> Path:
        return self._tokenizer_option or (self._source if not self._converted else self._folder)

    def _positions(self) -> int:
        for folder in (self._tokenizer_folder(), self._source):
            path = folder / (FACTS if (folder / FACTS).is_file() else "config.json")
            if path.is_file() and "max_position_embeddings" in (facts := read_json(path)):
                return int(facts["max_position_embeddings"])
        return MAX_TOKENS

    @cached_property
    def _model(self) -> Any:
        return load("Translator", self._folder, self._compute_type, self._device, self._device_index, self._threads)

    def _decode(self, rows: list[list[int]], target: str, count: int) -> list[list[Hypothesis]]:
        tokenizer = self._tokenizer
        try:
            found = self._model.translate_batch(
                [tokenizer.convert_ids_to_tokens(row) for row in rows],
                target_prefix=[[target]] * len(rows),
                beam_size=self._beams,
                num_hypotheses=count,
                max_batch_size=max(self._batch_tokens, self.max_units),
                batch_type="tokens",
                max_input_length=0,  # its default cuts at 1024 without a word; the limit is checked before
                max_decoding_length=1 + self._output_bound,
                return_end_token=True,
            )
        except (ValueError, RuntimeError) as e:
            raise SdrrlError(f"{self._folder}: CTranslate2 failed ({' '.join(str(e).split())})") from None
        return [
            [self._hypothesis(tokens[1:]) for tokens in result.hypotheses] for result in found
        ]  # after the language

    def _hypothesis(self, tokens: list[str]) -> Hypothesis:
        finished = bool(tokens) and tokens[-1] == self._tokenizer.eos_token
        kept = tokens[:-1] if finished else tokens
        return Hypothesis([self._tokenizer.convert_tokens_to_ids(token) for token in kept], finished)


def convert(source: Path, folder: Path, stored: str) -> dict[str, Any]:
    """Convert a Hugging Face folder, tokenizer files included, into ``folder``; returns what is to be known of it."""
    require(PACKAGE, PACKAGE, EXTRA)
    converters = require("ctranslate2.converters", PACKAGE, EXTRA)
    carried = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    positions = int(read_json(source / "config.json").get("max_position_embeddings", MAX_TOKENS))

    class Converter(converters.TransformersConverter):  # type: ignore[misc, name-defined]
        """Loads the tokenizer as the engine does."""

        def load_tokenizer(self, tokenizer_class: Any, model_name_or_path: str, **kwargs: Any) -> Any:
            return load_tokenizer(source)

    try:
        Converter(str(source), copy_files=carried).convert(str(folder), quantization=stored)
    except (ValueError, RuntimeError, OSError, NotImplementedError) as e:
        raise SdrrlError(f"{source}: CTranslate2 cannot convert it ({' '.join(str(e).split())})") from None
    return {"quantization": stored, "max_position_embeddings": positions}
