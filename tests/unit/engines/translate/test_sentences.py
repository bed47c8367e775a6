from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdrrl_nemo.data.engines.translate.markup import around, mask, pieces, protected_spans
from sdrrl_nemo.data.text.sentence_ends import split_sentences, trim_unfinished


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("One. Two! Three? Four", 4),
        ("Dr. Smith met J. K. Rowling in the U.S. in 2004. Then he left.", 2),
        ('He said "Stop!" and left. “Why?” she asked.', 2),
        ("Version 3.14 of example.com is out.", 1),
        ("1. Eat well. 2. Sleep.", 2),
        ("Wait… what? Yes.", 2),
    ],
)
def test_sentence_borders(line: str, count: int) -> None:
    found = split_sentences(line)
    assert len(found) == count, found
    assert "".join(found) == line


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ("All is well. But the last", "All is well."),
        ("Steps:\n1. Mix it.\n2. Bake it for 20", "Steps:\n1. Mix it."),
        ("Here are three:\n\n1. Stay", ""),
        ("2024, 2024, 2024", ""),
        ("Text first.\n```python\nprint(1)\nprint", "Text first."),
        ("He said “go.” Then", "He said “go.”"),
        ("A list:\n- one\n- two\n- thr", "A list:\n- one\n- two"),
    ],
)
def test_unfinished_answers_are_trimmed(cut: str, kept: str) -> None:
    assert trim_unfinished(cut) == kept


TEXT = st.text(alphabet=st.sampled_from(list("aB1.`#*-|~ \n$\"'(){}^@é“日\t")), max_size=60)


@given(TEXT)
def test_pieces_concatenate_to_the_text(text: str) -> None:
    assert "".join(p.text for p in pieces(text)) == text


@given(TEXT)
def test_masking_and_cutting_are_undone(text: str) -> None:
    line = text.replace("\n", " ")
    spans = protected_spans(line, str.isascii)
    masked = mask(line, spans)
    assert masked.restore(masked.text) == line
    assert "".join(p.text for p in around(line, spans)) == line


def test_markup_is_not_for_translation() -> None:
    text = "# Title\n\n  1. Use `a. B` now.\n```sh\nls here\n```\n| x | two words |\n12 + 3\n"
    assert [p.text for p in pieces(text) if p.translate] == ["Title", "Use `a. B` now.", "x", "two words"]


def test_a_lost_placeholder_is_noticed() -> None:
    line = "Run `ls` and X1X."
    masked = mask(line, protected_spans(line, str.isascii))
    assert "X1X" not in masked.placeholders
    assert masked.restore("nada") is None
    assert masked.restore(f"{masked.placeholders[0]} {masked.placeholders[0]}") is None
