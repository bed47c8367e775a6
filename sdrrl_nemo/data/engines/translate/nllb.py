"""What both NLLB-200 engines share: language tokens, lines, length limits and batches of about equal cost."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import RowError, SdrrlError
from sdrrl_nemo.common.fileio import read_json_object
from sdrrl_nemo.compat import transformers5
from sdrrl_nemo.data.engines.base import Translator
from sdrrl_nemo.data.text.languages import language

LICENCE = "CC-BY-NC-4.0 (NLLB-200: not for commercial use)"
TOKENIZER_FILES = ("tokenizer.json", "sentencepiece.bpe.model", "tokenizer_config.json", "special_tokens_map.json")
MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.model")
"""What is read of a Hugging Face folder."""
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
"""Those of every NLLB-200; transformers' own class has them as defaults, so a folder need not state them."""
MAX_TOKENS = 1024
"""Positions of every published NLLB-200 checkpoint; where a folder states its own, that counts."""


@dataclass(frozen=True)
class Hypothesis:
    """One translation of a line as token ids without specials; ``finished`` is False when it was cut."""

    ids: list[int]
    finished: bool


def check_folder(where: str, folder: Path) -> None:
    """SdrrlError unless ``folder`` is a Hugging Face folder of an M2M-100 or NLLB model."""
    if not (folder / "config.json").is_file():
        raise SdrrlError(f"{where}: {folder} holds no model (no config.json); correct 'model'")
    kind = read_json_object(folder / "config.json").get("model_type")
    if kind != "m2m_100":
        raise SdrrlError(f"{where}: {folder} is a '{kind}' model; an NLLB-200 folder (model_type 'm2m_100') is needed")


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer.json as it is; where it has none, NllbTokenizer from the SentencePiece model.

    transformers 5 builds its NllbTokenizer anew from vocabulary and merges, without the file's own treatment of spaces.
    """
    from transformers import AutoTokenizer

    fast, slow = ((folder / name).is_file() for name in TOKENIZER_FILES[:2])
    if not (fast or slow):
        raise SdrrlError(f"{folder}: holds no NLLB tokenizer (neither {TOKENIZER_FILES[0]} nor {TOKENIZER_FILES[1]})")
    if not fast and transformers5.is_version_5():
        raise SdrrlError(
            f"{folder}: transformers 5 reads NLLB's {TOKENIZER_FILES[1]} otherwise than 4.57 does; "
            f"add the published model's {TOKENIZER_FILES[0]} or install transformers 4.57"
        )
    settings = folder / "tokenizer_config.json"
    kind = str(read_json_object(settings).get("tokenizer_class")) if settings.is_file() else "none (no such file)"
    if not kind.startswith("Nllb"):
        raise SdrrlError(f"{settings}: the tokenizer_class is {kind}, not NLLB's; correct the folder")
    try:
        if fast:
            return transformers5.load_tokenizer(folder, **SPECIAL_TOKENS)
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, use_fast=False)
    except Exception as e:  # the Rust library raises nothing narrower for a damaged file
        raise SdrrlError(f"{folder}: not a loadable tokenizer ({' '.join(str(e).split())})") from None


class NllbTranslator(Translator):
    """A text is translated line by line; a line that is too long is an error, an incomplete one makes the text ''.

    Lines of one call are translated once each, sorted by length, in batches of at most ``batch_tokens`` tokens with
    padding. Rounding in a batch of another shape can decide a tie, so the same bytes need the same call.
    """

    licence = LICENCE
    noncommercial = True
    name = "nllb"

    def __init__(self, beams: int, batch_tokens: int, max_input_tokens: int, max_output_tokens: int) -> None:
        if min(beams, batch_tokens, max_output_tokens) < 1 or max_input_tokens < 0:
            raise SdrrlError(
                f"translator '{self.name}': beams, batch_tokens and max_output_tokens >= 1 and max_input_tokens >= 0 "
                "(0: the model's limit) are needed"
            )
        self._beams, self._batch_tokens = beams, batch_tokens
        self._max_input, self._max_output = max_input_tokens, max_output_tokens

    @abstractmethod
    def _tokenizer_folder(self) -> Path:
        """Folder with the tokenizer's files."""

    @abstractmethod
    def _positions(self) -> int:
        """Tokens of a source or target line that the model has positions for."""

    @abstractmethod
    def _decode(self, rows: list[list[int]], target: str, count: int) -> list[list[Hypothesis]]:
        """Beam search over rows of source ids: the ``count`` best of each, the best first; ``target`` is a FLORES code
        known to the vocabulary."""

    def check(self, *languages: str) -> None:
        """Whether the tokenizer can be read and has both languages' tokens."""
        super().check(*languages)
        for code in languages:
            self._language_id(language(code).flores)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._tokenizer_folder())

    def _language_id(self, code: str) -> int:
        """Id of a FLORES code's token. A folder that lost them maps every language to <unk> and translates anywhere."""
        token = self._tokenizer.convert_tokens_to_ids(code)
        if token is None or token == self._tokenizer.unk_token_id:
            raise SdrrlError(
                f"{self._tokenizer_folder()}: the tokenizer does not know the language token '{code}'; "
                "take the folder's tokenizer files from the published model"
            )
        return int(token)

    @property
    def max_units(self) -> int:  # type: ignore[override]
        """Source tokens of a line, its language token and end token included."""
        return min(self._max_input or self._positions(), self._positions())

    @property
    def _output_bound(self) -> int:
        """Tokens of a translation, end token included; start and language token take two positions."""
        return min(self._max_output, self._positions() - 2)

    def units(self, texts: Sequence[str], source: str) -> list[int]:
        """Source tokens of each text taken as one line, language and end token included."""
        return [len(row) for row in self._encode(texts, language(source).flores)]

    def _encode(self, lines: Sequence[str], code: str) -> list[list[int]]:
        """Ids of each line: language token, text, end token; text, end, language where the folder says so."""
        first, end = self._language_id(code), self._tokenizer.eos_token_id
        rows = self._tokenizer(list(lines), add_special_tokens=False)["input_ids"] if lines else []
        if self._tokenizer.init_kwargs.get("legacy_behaviour"):
            return [[*row, end, first] for row in rows]
        return [[first, *row, end] for row in rows]

    @property
    def most_candidates(self) -> int:
        """A beam gives as many hypotheses as it is wide."""
        return self._beams

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        out = [best for (best,) in self.candidates(texts, source, target, 1)]
        self.incomplete += sum(bool(text) and not best for text, best in zip(texts, out, strict=True))
        return out

    def candidates(self, texts: Sequence[str], source: str, target: str, count: int) -> list[list[str]]:
        """The n-th candidate of a text of several lines is made of the n-th ones of its lines."""
        if count > self.most_candidates:
            raise SdrrlError(f"translator '{self.name}': {count} candidates need as many beams, not {self._beams}")
        codes = (language(source).flores, language(target).flores)
        cut = [text.split("\n") for text in texts]
        lines = sorted({core for parts in cut for line in parts if (core := line.strip())})
        done = self._translate_lines(lines, *codes, count) if lines else {}
        return [[_joined(parts, done, n) for n in range(count)] for parts in cut]

    def _translate_lines(self, lines: list[str], source: str, target: str, count: int) -> dict[str, list[str]]:
        """Line -> its translations, '' where one is incomplete."""
        self._language_id(target)
        rows = self._encode(lines, source)
        for line, row in zip(lines, rows, strict=True):
            if len(row) > self.max_units:
                raise RowError(
                    f"translator '{self.name}': a line of {len(row)} tokens exceeds the limit of {self.max_units}: "
                    f"'{line[:60]}...'; cut texts into sentences first (translation.segment: true)",
                    "line too long for the translator",
                )
        found = self._decode(rows, target, count)
        return {
            line: [self._tokenizer.decode(h.ids, skip_special_tokens=True).strip() if h.finished else "" for h in own]
            for line, own in zip(lines, found, strict=True)
        }

    def _batches(self, rows: list[list[int]]) -> Iterator[list[int]]:
        """Indices of rows by falling length; number of rows times the longest is at most ``batch_tokens``."""
        batch: list[int] = []
        for i in sorted(range(len(rows)), key=lambda i: (-len(rows[i]), rows[i])):
            if batch and (len(batch) + 1) * len(rows[batch[0]]) > self._batch_tokens:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch


def _joined(lines: list[str], done: dict[str, list[str]], n: int) -> str:
    """A text of the n-th translations of its lines; '' where one of them is incomplete."""
    whole = all(done[line.strip()][n] for line in lines if line.strip())
    parts = [_in_place(line, done[line.strip()][n]) if line.strip() else line for line in lines]
    return "\n".join(parts) if whole else ""


def _in_place(line: str, translation: str) -> str:
    """The translation between the spaces that stood around its source."""
    lead = len(line) - len(line.lstrip())
    return line[:lead] + translation + line[len(line.rstrip()) :]
