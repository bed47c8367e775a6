"""docs/languages.md says what the table says."""

from __future__ import annotations

from pathlib import Path

from sdrrl_nemo.data.text.languages import LANGUAGES
from tools.docs.languages import COLUMNS, head, names

PAGE = Path(__file__).resolve().parents[4] / "docs/languages.md"


def test_the_page_has_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "\n".join([*head(COLUMNS), *map(names, LANGUAGES.values())]) in text
