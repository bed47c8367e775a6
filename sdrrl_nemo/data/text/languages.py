"""Languages of the paper (section 4.1, appendices A to C), Spanish, and the name each outside part has for them.

Codes are ISO 639-3 everywhere inside; every other naming scheme stays in this table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sdrrl_nemo.common.errors import SdrrlError, suggest


@dataclass(frozen=True)
class Language:
    """One language.

    ``scripts`` are ISO 15924 codes of Unicode scripts (Japanese has three); ``freedict`` is the part after ``eng-``
    in the name of FreeDict's English-X dictionary, ``gnome`` the folder of gnome-user-docs, ``muse`` the code in the
    names of MUSE's dictionaries (``en-pt.txt``) and ``opus100`` the one in OPUS-100's folders (``en-pt``), None where
    there is none. ``spaces``: words stand between spaces; without, ICU cuts them (data/text/words.py).
    """

    code: str
    name: str
    scripts: tuple[str, ...]
    flores: str
    cld3: str
    fasttext: str
    spaces: bool = True
    freedict: str | None = None
    gnome: str | None = None
    own_name: str = ""
    muse: str | None = None
    opus100: str | None = None

    @property
    def freedict_package(self) -> str | None:
        """Debian package of the English-X dictionary."""
        return f"dict-freedict-eng-{self.freedict}" if self.freedict else None


_TABLE = (
    Language(
        "eng", "English", ("Latn",), "eng_Latn", "en", "en", gnome="C", own_name="English", muse="en", opus100="en"
    ),
    Language(
        "fra",
        "French",
        ("Latn",),
        "fra_Latn",
        "fr",
        "fr",
        freedict="fra",
        gnome="fr",
        own_name="français",
        muse="fr",
        opus100="fr",
    ),
    Language(
        "ces",
        "Czech",
        ("Latn",),
        "ces_Latn",
        "cs",
        "cs",
        freedict="ces",
        gnome="cs",
        own_name="čeština",
        muse="cs",
        opus100="cs",
    ),
    Language(
        "dan",
        "Danish",
        ("Latn",),
        "dan_Latn",
        "da",
        "da",
        freedict="dan",
        gnome="da",
        own_name="dansk",
        muse="da",
        opus100="da",
    ),
    Language(
        "ukr",
        "Ukrainian",
        ("Cyrl",),
        "ukr_Cyrl",
        "uk",
        "uk",
        gnome="uk",
        own_name="українська",
        muse="uk",
        opus100="uk",
    ),
    Language(
        "bul",
        "Bulgarian",
        ("Cyrl",),
        "bul_Cyrl",
        "bg",
        "bg",
        freedict="bul",
        own_name="български",
        muse="bg",
        opus100="bg",
    ),
    Language(
        "fin",
        "Finnish",
        ("Latn",),
        "fin_Latn",
        "fi",
        "fi",
        freedict="fin",
        gnome="fi",
        own_name="suomi",
        muse="fi",
        opus100="fi",
    ),
    Language(
        "hun",
        "Hungarian",
        ("Latn",),
        "hun_Latn",
        "hu",
        "hu",
        freedict="hun",
        gnome="hu",
        own_name="magyar",
        muse="hu",
        opus100="hu",
    ),
    # CLD3 and fastText know Norwegian only as `no`; the paper's is Bokmål, and so is FreeDict's eng-nor.
    Language(
        "nob",
        "Norwegian Bokmål",
        ("Latn",),
        "nob_Latn",
        "no",
        "no",
        freedict="nor",
        own_name="norsk bokmål",
        muse="no",
        opus100="nb",
    ),
    Language(
        "ind",
        "Indonesian",
        ("Latn",),
        "ind_Latn",
        "id",
        "id",
        freedict="ind",
        gnome="id",
        own_name="Bahasa Indonesia",
        muse="id",
        opus100="id",
    ),
    Language(
        "jpn",
        "Japanese",
        ("Hira", "Kana", "Hani"),
        "jpn_Jpan",
        "ja",
        "ja",
        spaces=False,
        freedict="jpn",
        gnome="ja",
        own_name="日本語",
        muse="ja",
        opus100="ja",
    ),
    Language(
        "kor", "Korean", ("Hang",), "kor_Hang", "ko", "ko", gnome="ko", own_name="한국어", muse="ko", opus100="ko"
    ),
    Language(
        "por",
        "Portuguese",
        ("Latn",),
        "por_Latn",
        "pt",
        "pt",
        freedict="por",
        gnome="pt_BR",
        own_name="português",
        muse="pt",
        opus100="pt",
    ),
    Language(
        "slv",
        "Slovenian",
        ("Latn",),
        "slv_Latn",
        "sl",
        "sl",
        gnome="sl",
        own_name="slovenščina",
        muse="sl",
        opus100="sl",
    ),
    Language(
        "vie",
        "Vietnamese",
        ("Latn",),
        "vie_Latn",
        "vi",
        "vi",
        gnome="vi",
        own_name="Tiếng Việt",
        muse="vi",
        opus100="vi",
    ),
    Language(
        "pol",
        "Polish",
        ("Latn",),
        "pol_Latn",
        "pl",
        "pl",
        freedict="pol",
        gnome="pl",
        own_name="polski",
        muse="pl",
        opus100="pl",
    ),
    Language(
        "tha", "Thai", ("Thai",), "tha_Thai", "th", "th", spaces=False, own_name="ภาษาไทย", muse="th", opus100="th"
    ),
    Language("khm", "Khmer", ("Khmr",), "khm_Khmr", "km", "km", spaces=False, own_name="ភាសាខ្មែរ", opus100="km"),
    # Not of the paper; here because a translator, a dictionary and manuals of it come in packages.
    Language(
        "spa",
        "Spanish",
        ("Latn",),
        "spa_Latn",
        "es",
        "es",
        freedict="spa",
        gnome="es",
        own_name="español",
        muse="es",
        opus100="es",
    ),
)

LANGUAGES: dict[str, Language] = {entry.code: entry for entry in _TABLE}
PAPER_LANGUAGES = tuple(code for code in LANGUAGES if code != "spa")
"""Those of the paper: English, French and its sixteen targets."""
_NAMES: dict[str, str] = {
    name.casefold(): entry.code
    for entry in _TABLE
    for name in (
        *(entry.code, entry.cld3, entry.fasttext, entry.flores, entry.name, entry.own_name),
        *(entry.muse or "", entry.opus100 or "", entry.gnome or ""),
    )
    if name and name != "C"
}
_BY_CLD3: dict[str, Language] = {entry.cld3: entry for entry in _TABLE}
_BY_FASTTEXT: dict[str, Language] = {entry.fasttext: entry for entry in _TABLE}


_OTHER_NAMES = {"cze": "ces", "fre": "fra", "nor": "nob", "in": "ind", "norwegian": "nob", "bokmål": "nob"}
"""Names that no column of the table has: bibliographic codes of ISO 639-2, the macro-language, a withdrawn code."""


def language(code: str) -> Language:
    """The language of an ISO 639-3 code; SdrrlError with the nearest known code, or the code meant, for any other."""
    if code in LANGUAGES:
        return LANGUAGES[code]
    if meant := code_meant(code):
        raise SdrrlError(f"unknown language '{code}'; use the ISO 639-3 code '{meant}'")
    raise SdrrlError(f"unknown language '{code}' (ISO 639-3 expected){suggest(code, LANGUAGES)}")


def code_meant(name: str) -> str | None:
    """The ISO 639-3 code that a user means by another name: two letters (``pt``), a BCP-47 tag or a locale (``pt-BR``,
    ``pt_BR.UTF-8``, ``por_Latn``), the language's name in English or in itself, also with more words around it
    (``Brazilian Portuguese``); None where the table has no such language."""
    folded = name.strip().casefold()
    # The name as it is, then what stands before a region or script, then any of its words.
    for part in (folded, re.split(r"[-_.@]", folded)[0], *re.findall(r"[^\W\d_]{4,}", folded)):
        if meant := _NAMES.get(part) or _OTHER_NAMES.get(part):
            return meant
    return None


def from_cld3(label: str) -> str | None:
    """ISO 639-3 code of a CLD3 label; romanised variants (``ja-Latn``) are other languages here, so None."""
    entry = _BY_CLD3.get(label)
    return entry.code if entry else None


def from_fasttext(label: str) -> str | None:
    """ISO 639-3 code of a fastText lid.176 label, with or without ``__label__``."""
    entry = _BY_FASTTEXT.get(label.removeprefix("__label__"))
    return entry.code if entry else None
