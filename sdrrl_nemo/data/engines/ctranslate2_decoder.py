"""A decoder-only model (Llama's family) in CTranslate2: token ids to token ids, several times as fast on a CPU.

CTranslate2's converter takes what it knows of a configuration and says nothing of the rest: other rotary scalings, head
sizes, windows. So what it made is tried before it is used: on `PROBE_TOKENS` random tokens its log-probabilities must
be those of transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key, read_json_object
from sdrrl_nemo.common.optional import distribution_version, require
from sdrrl_nemo.common.seeding import named_generator
from sdrrl_nemo.data.engines.contents import contents, matching
from sdrrl_nemo.data.engines.converted import (
    CACHE,
    EXTRA,
    PACKAGE,
    SOURCE_FILES,
    check_machine,
    converted_once,
    load,
)
from sdrrl_nemo.data.engines.loops import looks_like_a_loop

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""``model_type`` of the folders that are converted here and tested."""
NUMBERS = {"float16": "float16", "bfloat16": "bfloat16"}
"""Number type of a folder's weights -> how they are stored, so that nothing is lost; all others as float32."""
PROBE_TOKENS = 256
TOLERANCE = 2e-3
"""Largest difference of a log-probability of fp32 models; a wrong conversion is off by far more."""
FORMAT = 1
"""Changes whenever the code here converts otherwise."""


def check_family(where: str, folder: Path) -> None:
    """SdrrlError unless the folder's model is of a family that is served."""
    kind = read_json_object(folder / "config.json").get("model_type")
    if kind not in FAMILIES:
        raise SdrrlError(
            f"{where}: {folder} is a '{kind}' model, and {', '.join(FAMILIES)} are served; use transformers for it "
            "(generator 'hf')"
        )


class CTranslate2Decoder:
    """The model of a Hugging Face folder, converted once into ``cache`` under a key of the folder's content.

    Weights are stored without loss and computed with in ``compute_type`` (float32: as transformers does).
    ``inter_threads`` batches run at a time, each on ``intra_threads`` CPU threads (0: CTranslate2's choice).
    """

    def __init__(
        self,
        where: str,
        folder: Path,
        cache: str = CACHE,
        compute_type: str = "float32",
        device: str = "auto",
        devices: Sequence[int] = (0,),
        inter_threads: int = 1,
        intra_threads: int = 0,
    ) -> None:
        check_family(where, folder)
        check_machine(where, compute_type, device, devices, inter_threads, intra_threads)
        self.version = distribution_version(PACKAGE, EXTRA)
        self._source, self._cache, self._compute_type = folder, Path(cache), compute_type
        self._machine = (device, list(devices), (inter_threads, intra_threads))

    def __getstate__(self) -> dict[str, Any]:
        """Without the loaded model: the worker that receives this loads its own."""
        return {name: value for name, value in self.__dict__.items() if name != "model"}

    @cached_property
    def _folder(self) -> Path:
        key = content_key(contents(matching(self._source, SOURCE_FILES)), self.version, FORMAT)
        return converted_once(self._cache / f"{self._source.name}-{key}", lambda empty: _convert(self._source, empty))

    @cached_property
    def positions(self) -> int | None:
        """Tokens that fit into one text; None: no limit is stated. Beyond a model's attention window CTranslate2 does
        not do what transformers does."""
        from sdrrl_nemo.compat.transformers5 import read_config

        config = read_config(self._source)
        limits = (getattr(config, "max_position_embeddings", None), getattr(config, "sliding_window", None))
        return min((int(n) for n in limits if n), default=None)

    @cached_property
    def model(self) -> Any:
        """CTranslate2's Generator; its tokens are the ids written as numbers."""
        return load("Generator", self._folder, self._compute_type, *self._machine)

    def generate(
        self,
        batches: Iterable[Sequence[Sequence[int]]],
        max_new_tokens: int,
        ends: Sequence[int],
        beams: int = 1,
        repeats: int = 0,
        repetition_penalty: float = 1.0,
    ) -> Iterator[list[list[int]]]:
        """For each batch of prompts (token ids) the new ids of its rows, with the one of ``ends`` that ended a row.

        ``beams`` 1 is greedy. With ``repeats`` a row stops once its last passage stands there so many times in a row.
        ``repetition_penalty`` is CTRL's, for the new ids; rows of one batch need one length then, since what the longer
        ones have beyond the shortest counts as new.
        """
        model, waiting = self.model, []
        try:
            for rows in batches:  # all are handed in at once, so that inter_threads of them run at a time
                watch = {"callback": _Loops(len(rows), repeats)} if repeats else {}
                waiting.append(
                    model.generate_batch(
                        [[str(i) for i in row] for row in rows],
                        asynchronous=True,
                        beam_size=beams,
                        max_length=max_new_tokens,
                        include_prompt_in_result=False,
                        end_token=list(ends),
                        return_end_token=True,
                        repetition_penalty=repetition_penalty,
                        **watch,
                    )
                )
            for replies in waiting:
                yield [list(reply.result().sequences_ids[0]) for reply in replies]
        except (ValueError, RuntimeError) as e:
            raise SdrrlError(f"{self._source}: CTranslate2 failed ({' '.join(str(e).split())})") from None


class _Loops:
    """CTranslate2's callback: True for a row whose end repeats itself."""

    def __init__(self, rows: int, repeats: int) -> None:
        self._rows: list[list[int]] = [[] for _ in range(rows)]
        self._repeats = repeats

    def __call__(self, step: Any) -> bool:
        row = self._rows[step.batch_id]
        row.append(step.token_id)
        return looks_like_a_loop(row, self._repeats)


class _Numbers:
    """Stands in for the tokenizer: every token is its id, so rows that are no token have a name of their own."""

    bos_token = eos_token = unk_token = pad_token = "0"

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def get_vocab(self) -> dict[str, int]:
        return {str(i): i for i in range(self._rows)}


def _convert(source: Path, folder: Path) -> dict[str, Any]:
    """Convert a folder and try the result; returns what is kept beside it."""
    require(PACKAGE, PACKAGE, EXTRA)
    converters = require("ctranslate2.converters", PACKAGE, EXTRA)
    stored = NUMBERS.get(_number_type(source), "float32")
    model = _read(source)
    probe = _probe(model.config)
    expected = _log_probabilities(model, probe)

    class Converter(converters.TransformersConverter):  # type: ignore[misc, name-defined]
        """Takes the model as it was read here, whichever version of transformers wrote its config.json."""

        def load_model(self, model_class: Any, model_name_or_path: str, **kwargs: Any) -> Any:
            return model

        def load_tokenizer(self, tokenizer_class: Any, model_name_or_path: str, **kwargs: Any) -> Any:
            return _Numbers(model.config.vocab_size)

    try:
        Converter(str(source)).convert(str(folder), quantization=stored)
    except (ValueError, RuntimeError, OSError, NotImplementedError, AttributeError, KeyError) as e:
        raise SdrrlError(
            f"{source}: CTranslate2 cannot convert it ({' '.join(str(e).split())}); use transformers (generator 'hf')"
        ) from None
    _compare(source, folder, probe, expected)
    return {"quantization": stored, "probe_tokens": len(probe)}


def _number_type(source: Path) -> str:
    document = read_json_object(source / "config.json")
    return str(document.get("dtype") or document.get("torch_dtype") or "float32")


def _read(source: Path) -> Any:
    """The model in fp32, its rotary base where CTranslate2 looks for it: beside the scaling, where there is one."""
    import torch
    from transformers import AutoModelForCausalLM

    from sdrrl_nemo.compat.transformers5 import read_config, rope_scaling, rope_theta

    try:
        config = read_config(source)
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(source), config=config, dtype=torch.float32, local_files_only=True
        )
    except SdrrlError:
        raise
    except Exception as e:  # safetensors has an error of its own for a damaged file, which is none of Python's
        raise SdrrlError(f"{source}: not a loadable model ({' '.join(str(e).split())})") from None
    scaling, theta = rope_scaling(model.config), rope_theta(model.config)
    model.config.rope_scaling = {**scaling, "rope_theta": theta} if scaling else None
    model.config.rope_theta = theta
    return model.eval()


def _probe(config: Any) -> list[int]:
    limits = (getattr(config, "max_position_embeddings", None), getattr(config, "sliding_window", None))
    length = min(PROBE_TOKENS, *(int(n) for n in limits if n))
    return [int(i) for i in named_generator(0, "ctranslate2 probe").integers(0, config.vocab_size, length)]


def _log_probabilities(model: Any, ids: list[int]) -> np.ndarray[Any, Any]:
    import torch

    with torch.inference_mode():
        found: np.ndarray[Any, Any] = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1).numpy()
    return found


def _compare(source: Path, folder: Path, probe: list[int], expected: np.ndarray[Any, Any]) -> None:
    """SdrrlError where the converted model is another one than its source."""
    model = load("Generator", folder, "float32", "cpu", [0], (1, 0))
    try:
        found = np.array(model.forward_batch([[str(i) for i in probe]], return_log_probs=True))[0]
        off = float(np.abs(found - expected).max())
        why = f"log-probabilities differ by up to {off:.2g}"
    except (ValueError, RuntimeError) as e:
        off, why = float("inf"), " ".join(str(e).split())
    if not off <= TOLERANCE:
        raise SdrrlError(
            f"{source}: CTranslate2 makes another model of it ({why}), for it does not know all of config.json; use "
            "transformers (generator 'hf')"
        )
