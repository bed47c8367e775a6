"""Texts worked by hand: what a translator gets to see, and what comes back around its words."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import Translator
from sdrrl_nemo.data.engines.segmented_translator import SegmentedTranslator
from sdrrl_nemo.data.text.segmentation import protect, protected_spans, split_sentences


class Each(Translator):
    """A translator that applies a function to each line and remembers what it was given."""

    licence = "CC0-1.0"

    def __init__(self, function: Callable[[str], str] = str.upper) -> None:
        self.function = function
        self.calls: list[list[str]] = []

    @property
    def identity(self) -> str:
        return "each/1"

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        self.calls.append(list(texts))
        return [self.function(text) for text in texts]


def translated(text: str, source: str = "eng", target: str = "por", **options: int) -> str:
    return SegmentedTranslator(Each(), **options).translate([text], source, target)[0]


HARD = {
    "nested list with code": (
        "1. Install it:\n   - run `pip install x_y`\n\n     ```bash\n     pip install x_y\n     ```\n2. Done.\n",
        "1. INSTALL IT:\n   - RUN `pip install x_y`\n\n     ```bash\n     pip install x_y\n     ```\n2. DONE.\n",
    ),
    "table with inline code and address": (
        "| Name | See |\n|:-----|----:|\n| the `a|b` sign | https://x.org/a?b=c here |\n",
        "| NAME | SEE |\n|:-----|----:|\n| THE `a|b` SIGN | https://x.org/a?b=c HERE |\n",
    ),
    "rows without a rule": ("| red | green |\n| 1 | 2 |", "| RED | GREEN |\n| 1 | 2 |"),
    "unclosed fence": (
        "Look:\n```python\nprint('Hello. You.')\n\nx = 1",
        "LOOK:\n```python\nprint('Hello. You.')\n\nx = 1",
    ),
    "tilde fence with backticks inside": ("~~~\n```\nab\n~~~\nend", "~~~\n```\nab\n~~~\nEND"),
    "indented code": (
        "Text.\n\n    x = foo(1)\n    return x\n\nMore.",
        "TEXT.\n\n    x = foo(1)\n    return x\n\nMORE.",
    ),
    "indented verse is no code": (
        "Poem:\n\n    The rain falls,\n    the sun waits.",
        "POEM:\n\n    THE RAIN FALLS,\n    THE SUN WAITS.",
    ),
    "Windows line ends": ("One.\r\n\r\n  Two. \r\nThree\r", "ONE.\r\n\r\n  TWO. \r\nTHREE\r"),
    "blank and trailing whitespace": ("\n\n a b \t\n\n\n", "\n\n A B \t\n\n\n"),
    "heading, quote, task, numbers": (
        "## The title ##\n> > quoted text\n- [x] done it\n2.1) point\n（3）point\n",
        "## THE TITLE ##\n> > QUOTED TEXT\n- [x] DONE IT\n2.1) POINT\n（3）POINT\n",
    ),
    "display formula over lines": (
        "So\n$$\na = b \\text{if}\n+ c\n$$\nholds.",
        "SO\n$$\na = b \\text{if}\n+ c\n$$\nHOLDS.",
    ),
    "environment": ("See\n\\begin{align}\na &= b\n\\end{align}\nend", "SEE\n\\begin{align}\na &= b\n\\end{align}\nEND"),
    "money is no formula": ("It costs $5 and then $10 more.", "IT COSTS $5 AND THEN $10 MORE."),
    "formula": ("If $x_1 < y$ then \\(a+b\\) grows.", "IF $x_1 < y$ THEN \\(a+b\\) GROWS."),
    "tags around words": ("<p>Hello <b>big</b> world</p>", "<p>HELLO <b>big</b> WORLD</p>".replace("big", "BIG")),
    "script": ("<script>\nvar a = 'text';\n</script>\n\nText", "<script>\nvar a = 'text';\n</script>\n\nTEXT"),
    "links": (
        'Read [the docs](https://a.b/c_(d)?x=1 "t") and ![a cat](cat.png).\n\n[ref]: https://a.b "Title"\n',
        'READ [THE DOCS](https://a.b/c_(d)?x=1 "t") AND ![A CAT](cat.png).\n\n[ref]: https://a.b "Title"\n',
    ),
    "placeholders": (
        "Dear {name}, you have %d of {{total}} in ${HOME} <|end|> at 50 % off.",
        "DEAR {name}, YOU HAVE %d OF {{total}} IN ${HOME} <|end|> AT 50 % OFF.",
    ),
    "paths and mail": (
        "Edit /etc/hosts, ~/a.txt, C:\\Temp\\x or main.py and write to me@ex.org and/or call foo().",
        "EDIT /etc/hosts, ~/a.txt, C:\\Temp\\x OR main.py AND WRITE TO me@ex.org AND/OR CALL foo().",
    ),
    "entity": ("fish &amp; chips &#169; here", "FISH &amp; CHIPS &#169; HERE"),
    "family emoji": ("We are 👨‍👩‍👧‍👦 and 🇵🇹 with 👍🏽 today", "WE ARE 👨‍👩‍👧‍👦 AND 🇵🇹 WITH 👍🏽 TODAY"),
    "numbers alone": ("3.14 + 2\n---\n***\n1,000", "3.14 + 2\n---\n***\n1,000"),
    "control characters": ("a\x00b c\x1bd\x0be", "A\x00B C\x1bD\x0bE"),
    "empty": ("", ""),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_case(name: str) -> None:
    text, expected = HARD[name]
    assert translated(text) == expected


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("eng", "Mr. Smith paid $3.50 (approx. 3 EUR). Really? Yes. See U.S. law.", 4),
        ("eng", "Use v1.2.3 of it. Then e.g. this one. J. R. R. Tolkien wrote it.", 3),
        ("fra", "M. Dupont habite à Paris. Il a 3,5 ans. « Vraiment ? » dit-elle. Oui !", 4),
        ("por", "O Sr. Silva mora na Av. Paulista, nº 5. Ele tem 3,5 anos. Sim.", 3),
        ("ces", "Pan Dr. Novák přišel v 5. hodině. Tak. Konec.", 3),
        ("hun", "Dr. Kovács pl. nem jött. Május 5. napján esett. Igen.", 3),
        ("fin", "Hän syntyi 5. toukokuuta 1990. Niin.", 2),
        ("slv", "Dr. Novak je prišel 5. maja. Da.", 2),
        ("pol", "Mieszkam na ul. Długiej 5. To jest np. dobre. Prof. Kowalski przyszedł.", 3),
        ("ukr", "Він народився у м. Києві. Так. Т. Г. Шевченко писав.", 3),
        ("vie", "TS. Nguyễn sống ở TP. Hồ Chí Minh. Vâng.", 2),
        ("kor", "안녕하세요. 오늘은 3.5도입니다! 정말요? 네.", 4),
        ("jpn", "今日は良い天気です。散歩に行きましょう！価格は3.5円です。", 3),
        ("khm", "ខ្ញុំឈ្មោះសុខ។ ខ្ញុំរស់នៅភ្នំពេញ។តើអ្នកសុខសប្បាយទេ? បាទ។", 4),
        ("tha", "สวัสดีครับ ผมชื่อสมชาย วันนี้อากาศดี", 1),
        ("arb", "مرحبا. كيف حالك؟ أنا بخير.", 3),
    ],
)
def test_sentences(code: str, text: str, expected: int) -> None:
    found = split_sentences(text, code)
    assert "".join(found) == text
    assert len(found) == expected, found


def test_quoted_japanese_sentences_keep_their_quotes() -> None:
    assert split_sentences("本当ですか？「はい。そうです。」と言った。", "jpn")[0] == "本当ですか？"


def test_no_border_inside_a_span() -> None:
    text = "Run `a. B? C! D` now. Then stop."
    assert [s.text for s in protect(text).sentences] == ["Run `a. B? C! D` now.", "Then stop."]


def test_border_after_an_address() -> None:
    assert protect("Use https://a.b/c. `x.y` is e.g. `Z.a`. Then stop.").segments == [
        "Use VAR1.",
        "VAR1 is e.g. VAR2.",
        "Then stop.",
    ]


def test_emoji_before_a_border_do_not_shift_it() -> None:
    text = "😀👨‍👩‍👧 Hi there 😀! Fine here."
    assert [s.text for s in protect(text).sentences] == ["Hi there 😀!", "Fine here."]


@pytest.mark.parametrize(
    ("text", "code", "limit"),
    [
        ("one two, three four; " * 240, "eng", 60),  # 5,040 characters in one line
        ("a" * 5000, "eng", 99),
        ("สวัสดีครับผมชื่อสมชายวันนี้อากาศดีไปเที่ยวกันไหม" * 8, "tha", 30),
        ("ខ្ញុំឈ្មោះសុខខ្ញុំរស់នៅភ្នំពេញ" * 8, "khm", 25),
        ("今日は良い天気ですので散歩に行きたいと思います、" * 9, "jpn", 30),
        ("family 👨‍👩‍👧‍👦" * 60, "eng", 20),
        ("مرحبا بالعالم، كيف حالك اليوم؛ " * 20, "arb", 40),
    ],
)
def test_long_lines_are_cut_to_the_limit_and_whole_again(text: str, code: str, limit: int) -> None:
    found = protect(text, code, limit)
    assert len(found.segments) > 1
    assert max(map(len, found.segments)) <= limit
    assert found.restore(found.segments) == text
    marked = Each(lambda line: line)
    assert SegmentedTranslator(marked, limit).translate([text], code, code) == [text]
    outside = "".join(s.text for s in found.sentences)
    assert [c for c in text if c.isalpha()] == [c for c in outside if c.isalpha()]


def test_clauses_come_before_spaces_before_words() -> None:
    text = "The cat sat on the mat, and the dog slept under the very old table"
    assert protect(text, "eng", 40).segments == [
        "The cat sat on the mat,",
        "and the dog slept under the very old",
        "table",
    ]
    thai = protect("สวัสดีครับผมชื่อสมชาย", "tha", 11).segments
    assert thai == ["สวัสดีครับ", "ผมชื่อสมชาย"]


def test_limit_too_small_for_a_character_is_an_error() -> None:
    class Heavy(Each):
        max_units = 3

        def units(self, texts: Sequence[str], source: str) -> list[int]:
            return [10 for _ in texts]

    with pytest.raises(SdrrlError, match="max_units"):
        SegmentedTranslator(Heavy()).translate(["some words"], "eng", "por")


def test_the_engine_limit_is_taken() -> None:
    class Words(Each):
        max_units = 3

        def units(self, texts: Sequence[str], source: str) -> list[int]:
            return [len(text.split()) for text in texts]

    engine = Words()
    assert SegmentedTranslator(engine).translate(["a b c d e f g"], "eng", "por") == ["A B C D E F G"]
    assert engine.calls == [["g", "a b c", "d e f"]]


@pytest.mark.parametrize(
    ("text", "source", "target", "lines", "expected"),
    [
        ("Yes. No way.", "eng", "jpn", {"Yes.": "はい。", "No way.": "まさか。"}, "はい。まさか。"),
        ("Yes. No way.", "eng", "tha", {"Yes.": "ใช่", "No way.": "ไม่มีทาง"}, "ใช่ ไม่มีทาง"),
        ("Yes. No way.", "eng", "khm", {"Yes.": "បាទ។", "No way.": "ទេ។"}, "បាទ។ ទេ។"),
        ("Yes. No way.", "eng", "kor", {"Yes.": "네.", "No way.": "아니요."}, "네. 아니요."),
        ("はい。まさか。", "jpn", "eng", {"はい。": "Yes.", "まさか。": "No way."}, "Yes. No way."),
        ("បាទ។ទេ។", "khm", "eng", {"បាទ។": "Yes.", "ទេ។": "No."}, "Yes. No."),
        ("Use Linux. No way.", "eng", "jpn", {"Use Linux.": "Linux", "No way.": "まさか。"}, "Linux まさか。"),
    ],
)
def test_joining(text: str, source: str, target: str, lines: dict[str, str], expected: str) -> None:
    assert SegmentedTranslator(Each(lambda line: lines[line])).translate([text], source, target) == [expected]


def test_segments_are_unique_sorted_and_need_letters() -> None:
    engine = Each()
    out = SegmentedTranslator(engine).translate(["Same one. 12.", "A longer sentence here.", "Same one."], "eng", "por")
    assert out == ["SAME ONE. 12.", "A LONGER SENTENCE HERE.", "SAME ONE."]
    assert engine.calls == [["Same one.", "A longer sentence here."]]


def test_damaged_stand_ins_are_tried_in_another_form_then_cut() -> None:
    text = "Please open `a.b` and then `c.d` now."
    second = Each(lambda line: line.replace("VAR1", "variable"))
    wrapper = SegmentedTranslator(second)
    assert wrapper.translate([text], "eng", "por") == [text]
    assert second.calls[1:] == [["Please open [1] and then [2] now."]]
    assert wrapper.counts["retried"] == 1 and wrapper.counts["cut"] == 0
    never = Each(lambda line: line.upper().replace("1", ""))
    wrapper = SegmentedTranslator(never)
    assert wrapper.translate([text], "eng", "por") == ["PLEASE OPEN `a.b` AND THEN `c.d` NOW."]
    assert never.calls[2:] == [["now.", "and then", "Please open"]] and wrapper.counts["cut"] == 1


def test_marks_keep_their_order_and_words_may_change_places() -> None:
    swap = Each(lambda line: line.replace("VAR1", "_").replace("VAR2", "VAR1").replace("_", "VAR2"))
    wrapper = SegmentedTranslator(swap, forms=["VAR{}"])
    text = "from `a` to `b` now"
    assert wrapper.translate([text], "eng", "por") == ["from `b` to `a` now"] and wrapper.counts["cut"] == 0
    assert wrapper.translate(["so <b>it</b> is"], "eng", "por") == ["so <b>it</b> is"] and wrapper.counts["cut"] == 1


def test_text_that_holds_a_stand_in_gets_another() -> None:
    assert protect("VAR1 and var22 are `x`").segments == ["VAR1 and var22 are VAL1"]


def test_line_and_cell_structure_withstand_the_engine() -> None:
    breaks = SegmentedTranslator(Each(lambda line: f" {line}\n|x "))
    assert breaks.translate(["a b\n\n| one | two |\n|---|---|\n"], "eng", "por") == [
        "a b |x\n\n| one \\|x | two \\|x |\n|---|---|\n"
    ]


def test_incomplete_segment_makes_the_text_empty() -> None:
    wrapper = SegmentedTranslator(Each(lambda line: "" if "bad" in line else line))
    assert wrapper.translate(["Fine. This is bad.", "Fine."], "eng", "por") == ["", "Fine."]
    assert wrapper.incomplete == 1


def test_wrong_number_of_translations_is_an_error() -> None:
    class Short(Each):
        def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
            return ["x"]

    with pytest.raises(SdrrlError, match="gave 1 translations for 2 texts"):
        SegmentedTranslator(Short()).translate(["One thing. Two things."], "eng", "por")
    with pytest.raises(SdrrlError, match="2 translations were given for 1 segments"):
        protect("one").restore(["a", "b"])


def test_identity_names_options_and_the_engine() -> None:
    wrapper = SegmentedTranslator(Each())
    assert wrapper.identity.endswith("/each/1") and wrapper.licence == "CC0-1.0"
    assert wrapper.identity != SegmentedTranslator(Each(), 100).identity
    assert wrapper.identity != SegmentedTranslator(Each(), forms=["X-{}"]).identity


@pytest.mark.parametrize(("options", "match"), [({"max_units": 0}, "max_units is 0"), ({"forms": ["X"]}, "forms")])
def test_bad_options(options: dict[str, object], match: str) -> None:
    with pytest.raises(SdrrlError, match=match):
        SegmentedTranslator(Each(), **options)  # type: ignore[arg-type]


def test_wrapper_can_be_sent_to_a_worker() -> None:
    wrapper = SegmentedTranslator(Each(), 50)
    assert pickle.loads(pickle.dumps(wrapper)).identity == wrapper.identity


def test_protected_spans_of_a_text() -> None:
    text = "Call `f(x)` at https://a.b/c.\n\n| a | {b} |\n|---|---|\n\n```\ncode\n```\n$$x$$ <i>w</i>"
    assert [text[a:b] for a, b in protected_spans(text)] == [
        "`f(x)`", "https://a.b/c", "|", "|", "{b}", "|", "|", "|", "|", "```\ncode\n```\n$$x$$", "<i>", "</i>",
    ]  # fmt: skip


def test_real_engine_keeps_every_span() -> None:
    from sdrrl_nemo.data.engines.translate.bergamot import BergamotTranslator

    text = (
        "1. Open https://example.org/docs?page=2 and read the section about `numpy.array`.\n"
        "2. Then write to help@example.org, {name}, if $x^2$ is not in /etc/app.conf!\n\n"
        "| Command | What it does |\n|---|---|\n| `ls -l` | shows the files |\n"
    )
    out = SegmentedTranslator(BergamotTranslator(threads=1)).translate([text], "eng", "por")[0]
    assert out.count("\n") == text.count("\n") and out.count("|") == text.count("|")
    for a, b in protected_spans(text):
        assert text[a:b] in out
    assert "mostra os arquivos" in out or "mostra os ficheiros" in out
