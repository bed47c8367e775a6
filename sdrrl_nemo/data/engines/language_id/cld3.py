"""Compact Language Detector v3, the paper's identifier for off-target translations (section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import distribution_version, require
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS, Identified, LanguageIdentifier
from sdrrl_nemo.data.text.languages import LANGUAGES, from_cld3

PACKAGE = "cld3-py"

# CLD3's other labels, so that a report can name what an off-target text is in. Romanised variants stay None.
_OTHER = """
af afr am amh ar ara az aze be bel bn ben bs bos ca cat ceb ceb co cos cy cym de deu el ell eo epo et est eu eus
fa fas fil fil fy fry ga gle gd gla gl glg gu guj ha hau haw haw hi hin hmn hmn hr hrv ht hat hy hye ig ibo is isl
it ita iw heb jv jav ka kat kk kaz kn kan ku kur ky kir la lat lb ltz lo lao lt lit lv lav mg mlg mi mri mk mkd ml mal
mn mon mr mar ms msa mt mlt my mya ne nep nl nld ny nya pa pan ps pus ro ron ru rus sd snd si sin sk slk sm smo sn sna
so som sq sqi sr srp st sot su sun sv swe sw swa ta tam te tel tg tgk tr tur ur urd uz uzb xh xho yi yid yo yor zh zho
zu zul
""".split()  # noqa: SIM905
OTHER_LABELS = dict(zip(_OTHER[::2], _OTHER[1::2], strict=True))


@LANGUAGE_IDENTIFIERS.register("cld3")
class Cld3Identifier(LanguageIdentifier):
    """``max_bytes``: longer texts are judged by samples of that many bytes, as CLD3 takes them."""

    licence = "Apache-2.0"
    languages = frozenset({entry.code for entry in LANGUAGES.values() if entry.cld3} | set(OTHER_LABELS.values()))

    def __init__(self, max_bytes: int = 1000) -> None:
        if max_bytes < 1:
            raise SdrrlError(f"language identifier 'cld3': max_bytes is {max_bytes}; give 1 or more")
        self._max_bytes = max_bytes
        self._version = distribution_version(PACKAGE)

    @property
    def identity(self) -> str:
        return f"cld3/{PACKAGE}-{self._version}/{self._max_bytes}"

    @cached_property
    def _detector(self) -> Any:
        return require("gcld3", PACKAGE).NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=self._max_bytes)

    def identify(self, texts: Sequence[str]) -> list[Identified]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Identified:
        # Lone surrogates cannot become UTF-8; the NUL byte would end the text early.
        clean = text.encode("utf-8", "ignore").decode("utf-8").replace("\0", " ").strip()
        if not clean:
            return Identified(None, 0.0)
        found = self._detector.FindLanguage(clean)
        code = from_cld3(found.language) or OTHER_LABELS.get(found.language)
        return Identified(code, min(1.0, max(0.0, float(found.probability))) if code else 0.0)
