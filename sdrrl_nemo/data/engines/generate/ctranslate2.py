"""The model itself answering questions in CTranslate2: the text of transformers, several times as fast on a CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import GENERATORS
from sdrrl_nemo.data.engines.converted import CACHE
from sdrrl_nemo.data.engines.ctranslate2_decoder import CTranslate2Decoder
from sdrrl_nemo.data.engines.generate.in_process import LocalGenerator, Prompt, check_repetition_penalty
from sdrrl_nemo.data.engines.loops import check_stop_loops

REVISION = 1
"""Changes whenever the code here may give another answer to the same question."""


@GENERATORS.register("ctranslate2")
class CTranslate2Generator(LocalGenerator):
    """A Hugging Face folder of Llama's family (Llama, Mistral, Qwen2, Qwen3), greedy, in fp32 unless told otherwise.

    It is converted once into ``cache``, under a key of the folder's content, and compared with transformers there; a
    model of which CTranslate2 makes another one is refused. ``compute_type``, ``device``, ``devices``,
    ``inter_threads`` (batches at a time) and ``intra_threads`` (CPU threads of each; 0: CTranslate2's choice) are
    those of `CTranslate2Decoder`. ``beams`` above 1 searches for the likeliest answer. Sampling is not offered:
    CTranslate2's threads have random numbers of their own that no seed of a batch reaches.

    With ``stop_loops: N`` an answer that goes round in circles is given up (`check_stop_loops`); filter ``repetition``
    would reject nearly all of them anyway. ``repetition_penalty`` above 1 keeps a small model from doing so at all
    (`check_repetition_penalty`); batches are of one length then, so few rows share one, and generator ``hf`` is sooner
    done.
    """

    where = "generator 'ctranslate2'"

    def __init__(
        self,
        model: str,
        max_new_tokens: int = 256,
        batch_size: int = 16,
        compute_type: str = "float32",
        device: str = "auto",
        devices: Sequence[int] = (0,),
        inter_threads: int = 1,
        intra_threads: int = 0,
        beams: int = 1,
        stop_loops: int = 0,
        repetition_penalty: float = 1.0,
        unfinished: str = "drop",
        cache: str = CACHE,
        licence: str | None = None,
        templates: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model, max_new_tokens, batch_size, unfinished, licence, templates)
        self._stop_loops = check_stop_loops(self.where, stop_loops)
        if beams < 1 or (beams > 1 and stop_loops):
            raise SdrrlError(f"{self.where}: beams >= 1 is needed, and beams > 1 goes with stop_loops 0")
        self._penalty = check_repetition_penalty(self.where, repetition_penalty)
        threads = {"inter_threads": inter_threads, "intra_threads": intra_threads}
        self._decoder = CTranslate2Decoder(self.where, self._folder, cache, compute_type, device, devices, **threads)
        self._compute_type, self._beams = compute_type, beams

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Weights, tokenizer, CTranslate2's version and every option that can change an answer."""
        options = (REVISION, self._decoder.version, self._compute_type, self._beams, self._stop_loops)
        return self._identified("ctranslate2", *options, *self._penalised)

    def _positions(self) -> int | None:
        return self._decoder.positions

    def _run(self, batches: Iterable[list[Prompt]]) -> Iterator[list[list[int]]]:
        rows = [[prompt.ids for prompt in batch] for batch in batches]
        ends = sorted(self._chat.end_token_ids)
        cut = [*self._of_one_length(rows)] if self._penalised else rows
        made = self._decoder.generate(cut, self.max_new_tokens, ends, self._beams, self._stop_loops, self._penalty)
        answers = itertools.chain.from_iterable(made)
        return (list(itertools.islice(answers, len(batch))) for batch in rows)

    def _of_one_length(self, batches: list[list[list[int]]]) -> Iterator[list[list[int]]]:
        """The same rows in the same order, each batch of one length: in a batch of several CTranslate2 counts what its
        longer questions have beyond the shortest as said already, and penalises that too."""
        for _, rows in itertools.groupby(itertools.chain.from_iterable(batches), key=len):
            while batch := list(itertools.islice(rows, self._batch_size)):
                yield batch
