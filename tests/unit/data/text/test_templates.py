"""Table 1, word for word, and the random split."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from scipy.stats import chisquare

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.filters import script_share
from sdrrl_nemo.data.text.languages import LANGUAGES
from sdrrl_nemo.data.text.templates import (
    answer_language_request,
    completion_question,
    instruction_code,
    random_prefix,
    template_spans,
    translation_question,
)
from sdrrl_nemo.data.text.words import graphemes


def test_table_1() -> None:
    assert translation_question("The quick brown fox.", "eng", "ind") == (
        "Translate the following sentence from English to Indonesian.\nThe quick brown fox."
    )
    assert completion_question("Sang rubah cokelat cepat", "ind") == (
        "Complete the following sentence in Indonesian according to its context.\nSang rubah cokelat cepat"
    )


def test_split_is_uniform_over_word_positions() -> None:
    rng = random.Random(0)
    n = 8000
    prefixes = Counter(random_prefix("um  dois três, quatro cinco.", "por", rng) for _ in range(n))
    assert set(prefixes) == {"um", "um  dois", "um  dois três,", "um  dois três, quatro"}
    assert all(abs(c - n / 4) < 5 * (n * 3 / 16) ** 0.5 for c in prefixes.values())


@pytest.mark.parametrize(("code", "text"), [("jpn", "猫が好きです"), ("tha", "สวัสดีครับ"), ("khm", "សួស្តីអ្នក")])
def test_languages_without_spaces_split_between_characters(code: str, text: str) -> None:
    seen = {random_prefix(text, code, random.Random(i)) for i in range(300)}
    assert None not in seen
    for prefix in seen:
        assert prefix is not None
        assert text.startswith(prefix)
        assert 0 < len(prefix) < len(text)
        assert not is_mark(text[len(prefix)]), "a mark was torn from its letter"
    assert len(seen) > 2


def is_mark(character: str) -> bool:
    import unicodedata

    return unicodedata.category(character) in {"Mn", "Mc", "Me"}


def test_nothing_to_split() -> None:
    assert random_prefix("Sim.", "por", random.Random(0)) is None
    assert random_prefix("猫", "jpn", random.Random(0)) is None


FAMILY = [
    ("jpn", "か\u3099くせい👨\u200d👩\u200d👧です"),
    ("tha", "น้ำดื่มนี้กี่บาท"),
    ("khm", "ខ្ញុំស្រឡាញ់ប្រទេសកម្ពុជា"),
    ("kor", "각국의 언어"),
    ("vie", "tie\u0302\u0301ng Vie\u0323\u0302t"),
]


@pytest.mark.parametrize(("code", "text"), FAMILY)
def test_characters_are_never_torn(code: str, text: str) -> None:
    borders = {b for _, b in graphemes(text)}
    seen = {random_prefix(text, code, random.Random(i), "characters") for i in range(400)}
    assert all(p is not None and len(p) in borders and len(p) < len(text) for p in seen)
    assert len(seen) == sum(not text[a:b].isspace() for a, b in graphemes(text)) - 1


@pytest.mark.parametrize(
    ("code", "text", "prefixes"),
    [
        (
            "jpn",
            "彼は「猫が好き」と、言う。",
            ["彼", "彼は", "彼は「猫", "彼は「猫が", "彼は「猫が好き」", "彼は「猫が好き」と、"],
        ),
        ("tha", "แมวตัวนี้ น่ารัก", ["แมว", "แมวตัว", "แมวตัวนี้", "แมวตัวนี้ น่า"]),
        ("khm", "ឆ្មានេះស្អាតណាស់។", ["ឆ្មា", "ឆ្មានេះ", "ឆ្មានេះស្អាត"]),
        ("kor", "책을 읽었다.", ["책을"]),
        ("ces", "Kočka (malá), pije.", ["Kočka", "Kočka (malá),"]),
    ],
)
def test_split_by_words(code: str, text: str, prefixes: list[str]) -> None:
    seen = {random_prefix(text, code, random.Random(i), "words") for i in range(300)}
    assert sorted(map(str, seen), key=len) == prefixes


def test_split_by_words_is_uniform_in_thai() -> None:
    rng, n = random.Random(0), 8000
    prefixes = Counter(random_prefix("แมวตัวนี้น่ารัก", "tha", rng, "words") for _ in range(n))
    assert len(prefixes) == 4
    assert chisquare(list(prefixes.values())).pvalue > 0.001


def test_only_the_lines_of_a_template_are_template_lines() -> None:
    text = "Hello there.\n Answer in Thai. \nWhat is Thai?\n\nTranslate the following sentence from English to Thai."
    spans = [text[a:b] for a, b in template_spans(text)]
    assert spans == [" Answer in Thai. ", "Translate the following sentence from English to Thai."]


def test_request_for_the_answers_language() -> None:
    assert answer_language_request("What is it?", "tha") == "What is it?\nAnswer in Thai."


def test_one_part_cannot_be_split_and_two_can() -> None:
    for seed in range(5):
        assert random_prefix("Sim não", "por", random.Random(seed)) == "Sim"
        assert random_prefix("ab", "por", random.Random(seed), "characters") == "a"
        assert random_prefix("น้ำ", "tha", random.Random(seed), "words") is None


def test_unknown_options() -> None:
    with pytest.raises(SdrrlError, match="did you mean 'words'"):
        random_prefix("a b", "por", random.Random(0), "word")
    with pytest.raises(SdrrlError, match="instruction_language: unknown value 'englisch'; did you mean 'english'"):
        instruction_code("englisch", "por")


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_table_1_in_every_language(code: str) -> None:
    """Each instruction is in its own language's script and names both languages; no two pairs read alike."""
    asked = {translation_question("", a, b, code) for a in LANGUAGES for b in LANGUAGES if a != b}
    assert len(asked) == len(LANGUAGES) * (len(LANGUAGES) - 1)
    assert len({completion_question("", b, code) for b in LANGUAGES}) == len(LANGUAGES)
    for text in asked | {completion_question("", b, code) for b in LANGUAGES}:
        assert not set("{}|") & set(text)
        assert text.count("\n") == 1
        assert (script_share(text, code) or 0) > 0.95
        assert template_spans(text) == [(0, len(text) - 1)]


@pytest.mark.parametrize(
    ("languages", "expected"),
    [
        (("ces", "slv", "ces"), "Přeložte následující větu z češtiny do slovinštiny."),
        (("slv", "ces", "ces"), "Přeložte následující větu ze slovinštiny do češtiny."),
        (("fra", "ces"), "Doplňte následující větu ve francouzštině podle jejího kontextu."),
        (("eng", "fra", "fra"), "Traduisez la phrase suivante de l’anglais vers le français."),
        (("fra", "eng", "fra"), "Traduisez la phrase suivante du français vers l’anglais."),
        (("eng", "pol", "pol"), "Przetłumacz poniższe zdanie z języka angielskiego na język polski."),
        (("eng", "slv", "slv"), "Prevedite naslednji stavek iz angleščine v slovenščino."),
        (("eng", "ukr", "ukr"), "Перекладіть наведене речення з англійської мови на українську."),
        (("ukr", "ukr"), "Доповніть наведене речення українською мовою відповідно до його контексту."),
        (("fin", "fin"), "Täydennä seuraava lause suomen kielellä asiayhteyden mukaisesti."),
        (("eng", "jpn", "jpn"), "次の文を英語から日本語に翻訳してください。"),
        (("eng", "tha", "tha"), "แปลประโยคต่อไปนี้จากภาษาอังกฤษเป็นภาษาไทย"),
        (("eng", "khm", "khm"), "បកប្រែប្រយោគខាងក្រោមពីភាសាអង់គ្លេសទៅភាសាខ្មែរ។"),
        (("eng", "kor", "kor"), "다음 문장을 영어에서 한국어로 번역하세요."),
    ],
)
def test_inflected_names(languages: tuple[str, ...], expected: str) -> None:
    """Source, target and instruction language of a translation; target and instruction language of a completion."""
    if len(languages) == 3:
        source, target, instruction = languages
        assert translation_question("x y", source, target, instruction) == f"{expected}\nx y"
    else:
        target, instruction = languages
        assert completion_question("x y", target, instruction) == f"{expected}\nx y"


def test_instruction_language_option() -> None:
    assert instruction_code("english", "tha") == "eng"
    assert instruction_code("target", "tha") == "tha"
