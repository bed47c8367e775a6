from __future__ import annotations

import re

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.languages import LANGUAGES, PAPER_LANGUAGES, from_cld3, from_fasttext, language

PAPER = tuple("eng fra ces dan ukr bul fin hun nob ind jpn kor por slv vie pol tha khm".split())  # noqa: SIM905


def test_every_language_of_the_paper_is_there_once() -> None:
    assert PAPER_LANGUAGES == PAPER
    assert tuple(LANGUAGES) == (*PAPER, "spa")
    for column in ("flores", "cld3", "fasttext", "name"):
        assert len({getattr(entry, column) for entry in LANGUAGES.values()}) == len(LANGUAGES)
    for entry in LANGUAGES.values():
        assert entry.flores.startswith(entry.code + "_")


def test_labels_map_back() -> None:
    assert from_cld3("no") == "nob"
    assert from_cld3("ja-Latn") is None
    assert from_fasttext("__label__pt") == "por"
    assert all(from_cld3(entry.cld3) == code for code, entry in LANGUAGES.items())
    assert not any(language(code).spaces for code in ("jpn", "tha", "khm"))


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("prt", "did you mean 'por'"),
        ("pt", "code 'por'"),
        ("Portuguese", "code 'por'"),
        ("POR", "code 'por'"),
        ("pt-BR", "use the ISO 639-3 code 'por'"),
        ("pt_BR.UTF-8", "use the ISO 639-3 code 'por'"),
        ("por-Latn-BR", "use the ISO 639-3 code 'por'"),
        ("Brazilian Portuguese", "use the ISO 639-3 code 'por'"),
        ("português", "use the ISO 639-3 code 'por'"),
        ("nb-NO", "use the ISO 639-3 code 'nob'"),
        ("no", "use the ISO 639-3 code 'nob'"),
        ("cze", "use the ISO 639-3 code 'ces'"),
        ("ja-JP", "use the ISO 639-3 code 'jpn'"),
        ("km", "use the ISO 639-3 code 'khm'"),
        ("zh-Hant", "ISO 639-3 expected"),
        ("C", "ISO 639-3 expected"),
        ("", ""),
    ],
)
def test_unknown_code_names_the_nearest(code: str, hint: str) -> None:
    with pytest.raises(SdrrlError, match=f"unknown language '{re.escape(code)}'.*{hint}"):
        language(code)
