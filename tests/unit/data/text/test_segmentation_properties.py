"""Whatever the text and whatever the engine: nothing outside the translated words changes or is lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
import regex
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sdrrl_nemo.data.engines.base import Translator
from sdrrl_nemo.data.engines.segmented_translator import SegmentedTranslator
from sdrrl_nemo.data.text.languages import LANGUAGES
from sdrrl_nemo.data.text.segmentation import protect, protected_spans, split_sentences

CODES = st.sampled_from(sorted(LANGUAGES))
# Bits of markup, so that arbitrary joins of them make the odd cases; and any text at all, lone surrogates included.
BITS = st.sampled_from(
    [
        "\n", "\r\n", "\r", " ", "    ", "\t", "```", "~~~", "`", "``", "|", "\\|", "|---|---|\n",
        "$", "$$", "\\[", "\\]",
        "- ", "1. ", "# ", "> ", "[", "](", ")", "![", "https://a.b/c?d=e", "me@ex.org", "{name}", "{{x}}", "%s", "<b>",
        "</b>", "<", "<!--", "-->", "<pre>", "<script>", "&amp;", "/etc/x/y", "C:\\a",
        "VAR1", "[1]", "Val2", "Hello there. ",
        "Mr. X went. ", "word", "今日は。明日！", "สวัสดี ครับ", "ខ្ញុំ។", "안녕. ", "مرحبا؟ ",
        "👨‍👩‍👧", "🇵🇹", "\x00", "\x0b", "\x85",
        "\u2028", "\ufeff", "\ud800", "\u200b", "\u200d", "\u00ad", "\u202e", "(One. two.) ",
        '{"a": [1]}', "f(x);\n",
        "a line of prose that is long enough to have been wrapped by a program, it\n",
        "é", "\\begin{a}", "\\end{a}", "1,000.5", "***", "<|end|>", "[x]: http://a.b\n",
    ]
)  # fmt: skip
MIXED = st.lists(BITS, max_size=25).map("".join)
ANY = st.text(st.characters(codec=None), max_size=120)
TEXTS = st.one_of(MIXED, ANY, st.tuples(MIXED, ANY, MIXED).map("".join))
QUICK = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Adversary(Translator):
    """Gives a function of each line for its translation."""

    identity = "adversary/1"

    def __init__(self, function: Callable[[str], str]) -> None:
        self.function = function

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        return [self.function(text) for text in texts]


ADVERSARIES: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "reverse": lambda line: line[::-1],
    "delete": lambda line: re.sub(r"[A-Z]+\d+|\[\d+\]", "", line) or "x",
    "duplicate": lambda line: re.sub(r"([A-Z]+\d+|\[\d+\])", r"\1 \1", line),
    "renumber": lambda line: line.replace("1", "2"),
    "swap": lambda line: line.replace("1", "#").replace("2", "1").replace("#", "2"),
    "glue": lambda line: line.replace(" ", ""),
    "double": lambda line: f"{line}\n\n```\n{line}|",
    "constant": lambda line: "VAR1 [1] VAR2",
    "escape": lambda line: "\\1\\g<0>" + line,
}


@QUICK
@given(TEXTS, CODES)
@example("```\nx", "eng")
@example("> ~~~\n> a\nb", "eng")
@example("\ud800. A b! C d", "jpn")
def test_identity_gives_the_text_back(text: str, code: str) -> None:
    found = protect(text, code)
    assert found.restore(found.segments) == text
    assert SegmentedTranslator(Adversary(lambda line: line)).translate([text], code, code) == [text]
    assert "".join(split_sentences(text, code)) == text


@QUICK
@given(TEXTS, CODES, st.integers(12, 60))
def test_identity_with_a_limit(text: str, code: str, limit: int) -> None:
    found = protect(text, code, limit)
    assert found.restore(found.segments) == text
    assert all(len(segment) <= limit for segment in found.segments)


@QUICK
@given(TEXTS)
@example("\U00013460")
def test_segments_are_single_lines_with_letters_and_hold_no_span(text: str) -> None:
    found = protect(text)
    for sentence in found.sentences:
        line = sentence.masked().text
        # letters of the same Unicode version as the code's: Python's own isalpha() is years behind `regex`
        assert not re.search(r"[\r\n]", line) and line == line.strip() and regex.search(r"\p{L}", line)
        assert all(not 0x0 <= ord(c) < 0x20 or c == "\t" for c in line)
    at = 0
    for start, end in protected_spans(text):
        assert at <= start < end <= len(text)
        at = end


@pytest.mark.parametrize("name", ADVERSARIES)
@settings(QUICK, max_examples=60)
@given(text=TEXTS)
@example("See `a` and [b `c`](https://d.e) or <b>f {g}</b>. Then | x_y | `z` |")
@example("| one `a` | VAR1 %s |\n|---|---|\n| x | <i>y</i> |")
@example("\\[\n\\]https://a.b/c?d=e %s/etc/x/y")  # a formula of two lines touches a URL
def test_spans_survive_any_engine(name: str, text: str) -> None:
    spans = [text[a:b] for a, b in protected_spans(text)]
    out = SegmentedTranslator(Adversary(ADVERSARIES[name])).translate([text], "eng", "por")[0]
    for span in set(spans):
        assert out.count(span) >= spans.count(span), (span, out)
    # a sentence over several lines whose translation has fewer words than it has lines ends with fewer
    wrapped = any(sentence.breaks for sentence in protect(text).sentences)
    ends, ends_before = (len(re.findall(r"\r\n|\r|\n", t)) for t in (out, text))
    assert ends <= ends_before if wrapped else ends == ends_before
    lead = text[: len(text) - len(text.lstrip())]
    assert out.startswith(lead)


@settings(QUICK, max_examples=40)
@given(st.lists(TEXTS, max_size=6), st.randoms(use_true_random=False))
def test_a_text_does_not_depend_on_its_neighbours(texts: list[str], rng: object) -> None:
    wrapper = SegmentedTranslator(Adversary(str.upper))
    alone = [wrapper.translate([text], "eng", "jpn")[0] for text in texts]
    assert wrapper.translate(texts, "eng", "jpn") == alone
    assert wrapper.translate(texts[::-1], "eng", "jpn") == alone[::-1]


@pytest.mark.parametrize(
    "unit", ["`", "$", "[", "<", "{", "\\", "|", "a.", "](", "$$\n", "\\[", "> ", "_a", "/a", "**", "😀", "- "]
)
def test_time_is_bounded(unit: str) -> None:
    """8,000 characters of one bit of markup: quadratic patterns would take minutes (the test's own limit is 600 s)."""
    import time

    start = time.perf_counter()
    text = unit * (8_000 // len(unit))
    found = protect(text, "eng", 200)
    assert found.restore(found.segments) == text
    assert time.perf_counter() - start < 10
