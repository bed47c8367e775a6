"""Numbers as each language writes them: right translations agree, wrong ones do not."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_nemo.data.filters import FILTERS, TextPair
from sdrrl_nemo.data.filters.number_matching import differences
from sdrrl_nemo.data.filters.number_reading import stated
from sdrrl_nemo.data.filters.number_words import CARDINALS, NOON, ORDINALS, SCALES
from sdrrl_nemo.data.filters.spelled_numbers import in_words, kanji, roman
from sdrrl_nemo.data.text.languages import LANGUAGES
from sdrrl_nemo.data.text.segmentation.sentences import LOCALES

# (languages, source, right translation)
RIGHT = [
    ("eng-por", "the 19th century", "o século XIX"),
    ("eng-fra", "the 19th century", "le XIXe siècle"),
    ("eng-ukr", "In the 19th century", "У ХІХ столітті"),
    ("eng-pol", "the 19th century", "XIX wiek"),
    ("eng-kor", "19th century", "19세기"),
    ("eng-por", "At 3 pm", "Às 15h"),
    ("eng-por", "At 3 pm", "Às 15:00"),
    ("eng-jpn", "At 3 pm", "午後3時に"),
    ("eng-fra", "at 3:30 p.m.", "à 15h30"),
    ("eng-fin", "at 3:30 pm", "klo 15.30"),
    ("eng-kor", "at 3:30 pm", "오후 3시 30분에"),
    ("eng-vie", "at 8 pm", "lúc 20 giờ"),
    ("eng-tha", "at 8 pm", "เวลา 2 ทุ่ม"),
    ("eng-jpn", "20,000 people came.", "2万人が来ました。"),
    ("eng-kor", "20,000 people", "2만 명"),
    ("eng-jpn", "5 million", "500万"),
    ("eng-kor", "350 million", "3억 5000만"),
    ("eng-jpn", "350,000,000 yen", "3億5000万円"),
    ("eng-por", "5 million people", "5 milhões de pessoas"),
    ("eng-pol", "5.5 billion", "5,5 miliarda"),
    ("eng-ind", "Rp 2.5 million", "Rp2,5 juta"),
    ("eng-por", "2 billion", "2 mil milhões"),
    ("eng-por", "1,234.5 km", "1.234,5 km"),
    ("eng-fra", "1,234.5 km", "1 234,5 km"),
    ("eng-ces", "1,234.5", "1 234,5"),
    ("eng-fra", "1,234.5 km", "1 234,5 km"),
    ("eng-por", "50% of 30", "50 por cento de 30"),
    ("eng-jpn", "50%", "5割"),
    ("eng-tha", "50%", "ร้อยละ 50"),
    ("eng-por", "7 days", "sete dias"),
    ("eng-ces", "2 cats", "dvě kočky"),
    ("eng-ukr", "5 cats", "п’ять котів"),
    ("eng-pol", "5 cats", "pięć kotów"),
    ("eng-fin", "2 cats", "kahden kissan"),
    ("eng-hun", "12 cats", "tizenkét macska"),
    ("eng-tha", "12 months", "สิบสองเดือน"),
    ("eng-khm", "7 days", "ប្រាំពីរថ្ងៃ"),
    ("eng-khm", "12 months", "ដប់ពីរខែ"),
    ("eng-vie", "12 months", "mười hai tháng"),
    ("eng-ind", "12 months", "dua belas bulan"),
    ("eng-kor", "3 apples", "사과 세 개"),
    ("eng-kor", "3 people", "세명"),
    ("eng-jpn", "12 months", "十二か月"),
    ("eng-slv", "11 years", "enajst let"),
    ("eng-dan", "8 days", "otte dage"),
    ("eng-nob", "7 days", "sju dager"),
    ("eng-bul", "12 months", "дванадесет месеца"),
    ("eng-fra", "10 ans", "dix ans"),
    ("eng-tha", "It was 1889", "ปี ๑๘๘๙"),
    ("eng-khm", "in 1889", "ក្នុងឆ្នាំ ១៨៨៩"),
    ("eng-jpn", "in 1889", "一八八九年に"),
    ("eng-jpn", "in 1889", "１８８９年に"),
    ("eng-por", "1/2 cup", "meia xícara"),
    ("eng-por", "2/3 of them", "dois terços deles"),
    ("eng-jpn", "2/3", "3分の2"),
    ("eng-kor", "2/3", "3분의 2"),
    ("eng-por", "½ cup", "1/2 xícara"),
    ("eng-por", "1.5 hours", "uma hora e meia"),
    ("eng-fra", "2½ hours", "2,5 heures"),
    ("eng-por", "1 1/2 cups", "1½ xícara"),
    ("eng-jpn", "from 3 June to 14 July", "6月3日から7月14日まで"),
    ("eng-por", "2024-05-17", "17 de maio de 2024"),
    ("eng-vie", "May 17, 2024", "ngày 17 tháng 5 năm 2024"),
    ("eng-jpn", "12/05/2024", "2024年12月5日"),
    ("eng-por", "the 1990s", "os anos 90"),
    ("eng-jpn", "the 1990s", "1990年代"),
    ("eng-ukr", "the 90s", "1990-ті"),
    ("eng-por", "Louis XIV", "Luís 14"),
    ("eng-tha", "in 2024", "ในปี พ.ศ. 2567"),
    ("eng-por", "40 m² and x²", "40 metros quadrados e x²"),
    ("eng-por", "H₂O", "H2O"),
    ("eng-por", "10^6", "10⁶"),
    ("eng-por", "Use v1.2.3 of 3.14", "Use v1.2.3 de 3,14"),
    ("eng-por", "16:9", "16:9"),
    ("eng-por", "$5k", "5 mil dólares"),
    ("por-eng", "às 15h", "at 3 pm"),
    ("jpn-eng", "午後3時", "at 3 p.m."),
    ("jpn-eng", "2万人", "20,000 people"),
    ("fra-eng", "XXIe siècle", "21st century"),
    ("por-eng", "1.234,5", "1,234.5"),
    ("eng-por", "the 1st of May", "primeiro de maio"),
    ("eng-fra", "the 2nd time", "la deuxième fois"),
    ("eng-por", "1,000,000", "1 milhão"),
    ("eng-por", "1 million", "1.000.000"),
    ("eng-tha", "20,000", "2 หมื่น"),
    ("eng-khm", "20,000", "២ ម៉ឺន"),
    ("eng-vie", "20,000", "20 nghìn"),
    ("eng-tha", "1.5 million", "1.5 ล้าน"),
    ("eng-por", "12 a.m.", "0h"),
    ("eng-por", "10:00 to 11:30", "das 10h às 11h30"),
    ("eng-fin", "1,234,567 seats", "1 234 567 paikkaa"),
    ("eng-por", "1,00,000 rupees", "100.000 rúpias"),
    ("eng-por", "5 lakh", "500 mil"),
    ("eng-por", "In 2,000 years", "Em dois mil anos"),
    ("eng-jpn", "In 2,000 years", "二千年"),
    ("eng-por", "100 people", "cem pessoas"),
    ("eng-por", "25 per cent of 40 euros: 40 × 0.25 = 10 euros.", "25 por cento de 40 euros: 40 × 0,25 = 10 euros."),
    ("eng-jpn", "5/8 = 15/24 and 2/3 = 16/24", "5/8＝15/24、2/3＝16/24"),
    ("eng-kor", "It costs 1,234.50 won", "1,234.5원"),
    ("eng-por", "Pages 10-20", "Páginas 10–20"),
    ("eng-por", "on 12 May 1932", "em 12/05/1932"),
    ("eng-dan", "3.14", "3,14"),
    ("eng-por", "-5 °C", "−5 °C"),
    ("eng-por", "In the 5th and 6th centuries", "Nos séculos V e VI"),
    ("eng-ces", "the 3rd place", "třetí místo"),
    ("eng-ukr", "World War II", "Друга світова війна"),
    ("eng-por", "World War II", "Segunda Guerra Mundial"),
    ("eng-jpn", "World War II", "第二次世界大戦"),
    ("eng-kor", "World War 2", "제2차 세계 대전"),
    ("eng-por", "Henry VIII", "Henrique VIII"),
    ("eng-jpn", "Chapter 3", "第三章"),
    ("eng-jpn", "3 cats", "3匹の猫"),
    ("eng-jpn", "10,000 yen", "一万円"),
    ("eng-jpn", "1.5 million", "150万"),
    ("eng-jpn", "7.9 billion people", "79億人"),
    ("eng-kor", "7.9 billion", "79억"),
    ("eng-jpn", "300", "三百"),
    ("eng-kor", "300", "삼백"),
    ("eng-kor", "1,500 won", "천오백 원"),
    ("eng-tha", "350,000", "3.5 แสน"),
    ("eng-tha", "7.9 billion", "7.9 พันล้าน"),
    ("eng-tha", "300 baht", "สามร้อยบาท"),
    ("eng-khm", "2 million", "២ លាន"),
    ("eng-khm", "300", "បីរយ"),
    ("eng-vie", "7.9 billion", "7,9 tỷ"),
    ("eng-vie", "1.5 million", "1,5 triệu"),
    ("eng-vie", "300", "ba trăm"),
    ("eng-ind", "300", "tiga ratus"),
    ("eng-ind", "7.9 billion", "7,9 miliar"),
    ("eng-fin", "5 million", "5 miljoonaa"),
    ("eng-hun", "20,000", "20 ezer"),
    ("eng-hun", "5 million", "5 millió"),
    ("eng-dan", "2 million", "2 millioner"),
    ("eng-nob", "2 billion", "2 milliarder"),
    ("eng-slv", "2 million", "2 milijona"),
    ("eng-bul", "2 million", "2 милиона"),
    ("eng-ukr", "2 million", "2 мільйони"),
    ("eng-ukr", "20,000", "20 тис."),
    ("eng-pol", "20,000", "20 tys."),
    ("eng-ces", "20,000", "20 tisíc"),
    ("eng-fra", "2 billion", "2 milliards"),
    ("eng-fra", "20,000", "20 mille"),
    ("eng-por", "10 am to 5:30 pm", "das 10h às 17h30"),
    ("eng-ces", "at 5 pm", "v 17 hodin"),
    ("eng-pol", "at 5 pm", "o 17:00"),
    ("eng-pol", "at 5 pm", "o godzinie 17"),
    ("eng-ukr", "at 5 pm", "о 17:00"),
    ("eng-hun", "at 5 pm", "17 órakor"),
    ("eng-hun", "at 5 pm", "délután 5-kor"),
    ("eng-hun", "at 5 pm", "délután öt órakor"),
    ("eng-slv", "at 5 pm", "ob 17. uri"),
    ("eng-dan", "at 5 pm", "kl. 17"),
    ("eng-nob", "at 5:15 pm", "kl. 17.15"),
    ("eng-ind", "at 5 pm", "pukul 17.00"),
    ("eng-ind", "at 5 pm", "jam 5 sore"),
    ("eng-vie", "at 5 pm", "lúc 5 giờ chiều"),
    ("eng-khm", "at 5 pm", "ម៉ោង ៥ ល្ងាច"),
    ("eng-tha", "at 5 pm", "เวลา 17.00 น."),
    ("eng-tha", "at 5 pm", "ห้าโมงเย็น"),
    ("eng-jpn", "at 5:30 pm", "17時30分に"),
    ("eng-jpn", "at half past 5", "5時半に"),
    ("eng-kor", "at 5 pm", "오후 다섯 시에"),
    ("eng-bul", "at 5 pm", "в 17 ч."),
    ("eng-fra", "at 5 pm", "à cinq heures de l'après-midi"),
    ("eng-fra", "at 12 noon", "à midi"),
    ("eng-por", "at 12 pm", "ao meio-dia"),
    ("eng-por", "at 12 am", "à meia-noite"),
    ("eng-por", "12 midnight", "meia-noite"),
    ("eng-por", "1/4 of the people", "um quarto das pessoas"),
    ("eng-fra", "3/4", "trois quarts"),
    ("eng-por", "25%", "25 %"),
    ("eng-por", "0.5%", "0,5%"),
    ("eng-ces", "50%", "50 %"),
    ("eng-jpn", "50 percent", "５０％"),
    ("eng-por", "fifty percent (50%)", "cinquenta por cento (50%)"),
    ("eng-por", "June 5, 2021", "5 de junho de 2021"),
    ("eng-fin", "June 5, 2021", "5. kesäkuuta 2021"),
    ("eng-hun", "June 5, 2021", "2021. június 5."),
    ("eng-kor", "June 5, 2021", "2021년 6월 5일"),
    ("eng-jpn", "2021-06-05", "2021年6月5日"),
    ("eng-por", "6/5/2021", "5/6/2021"),
    ("eng-ces", "6/5/2021", "5. 6. 2021"),
    ("eng-pol", "May 3", "3 maja"),
    ("eng-ukr", "May 3", "3 травня"),
    ("eng-por", "a 5-year-old", "uma criança de 5 anos"),
    ("eng-por", "5-10 minutes", "de 5 a 10 minutos"),
    ("eng-por", "5ft 10in", "5 pés e 10 polegadas"),
    ("eng-por", "COVID-19", "COVID-19"),
    ("eng-por", "MP3 files", "arquivos MP3"),
    ("eng-por", "1st, 2nd, 3rd", "1º, 2º, 3º"),
    ("eng-por", "1) Mix. 2) Bake.", "1) Misture. 2) Asse."),
    ("eng-por", "1. Mix\n2. Bake", "1. Misture\n2. Asse"),
    ("eng-por", "2 + 2 = 4", "2 + 2 = 4"),
    ("eng-por", "f(x) = 2x + 3", "f(x) = 2x + 3"),
    ("eng-fra", "$1,000.50", "1 000,50 $"),
    ("eng-por", "R$1,000", "R$ 1.000"),
    ("eng-por", "1 million people", "um milhão de pessoas"),
    ("eng-fra", "1,000 people", "mille personnes"),
    ("eng-tha", "1,000 people", "หนึ่งพันคน"),
    ("eng-kor", "10,000 people", "만 명"),
    ("eng-jpn", "1,000", "千"),
    ("eng-por", "12 eggs", "uma dúzia de ovos"),
    ("eng-por", "24/7 support", "suporte 24 horas por dia, 7 dias por semana"),
    ("eng-por", "10 times", "dez vezes"),
    ("eng-por", "3 times", "três vezes"),
    ("eng-ces", "3 times", "třikrát"),
    ("eng-fin", "3 times", "kolmesti"),
    ("eng-hun", "3 times", "háromszor"),
    ("por-eng", "3 mil", "3,000"),
    ("jpn-eng", "三千人", "3,000 people"),
    ("jpn-eng", "第3章", "Chapter three"),
    ("kor-eng", "3만", "30,000"),
    ("tha-eng", "๓ ล้าน", "3 million"),
    ("eng-por", "since the 1800s", "desde o século XIX"),
    ("eng-fra", "the 1800s", "les années 1800"),
    ("eng-por", "No. 5", "nº 5"),
    ("eng-por", "5° C and 41° F", "5 °C e 41 °F"),
    ("eng-por", "v2.0.1", "v2.0.1"),
    ("eng-por", "3.0", "3"),
    ("eng-por", "$3.50", "US$ 3,50"),
    ("eng-por", "$3.50", "$3.50"),
    ("eng-fra", "1,234,567", "1.234.567"),
    ("eng-dan", "10,000", "10 000"),
    ("eng-por", "10,000", "10 mil"),
    ("eng-por", "20 years ago", "há vinte anos"),
    ("eng-por", "30 minutes", "meia hora"),
    ("eng-por", "90 minutes", "uma hora e meia"),
    ("eng-jpn", "20 years", "二十年"),
    ("eng-kor", "20 years", "이십 년"),
    ("eng-tha", "20 years", "ยี่สิบปี"),
    ("eng-vie", "20 years", "hai mươi năm"),
    ("eng-ind", "20 years", "dua puluh tahun"),
    ("eng-khm", "20 years", "ម្ភៃឆ្នាំ"),
    ("eng-ces", "20 years", "dvacet let"),
    ("eng-fra", "See you tonight at 8", "À ce soir, 20 h"),
    ("eng-ukr", "See you tonight at 8", "Побачимося сьогодні о 20:00"),
    ("eng-por", "It is 3 pm", "De tarde, às 3"),
    ("por-eng", "Às 3 da tarde", "At 3 pm"),
]

# (languages, source, wrong translation)
WRONG = [
    ("eng-por", "12 cats", "21 gatos"),
    ("eng-por", "1.5 litres", "15 litros"),
    ("eng-por", "Built in 1889.", "Construída."),
    ("eng-por", "the 19th century", "o século XVIII"),
    ("eng-por", "at 3 pm", "às 16h"),
    ("eng-jpn", "20,000 people", "20万人"),
    ("eng-por", "5 million", "5 mil"),
    ("eng-por", "1,234.5", "12.345"),
    ("eng-por", "7 days", "oito dias"),
    ("eng-por", "2/3", "3/4"),
    ("eng-jpn", "3 June", "6月4日"),
    ("eng-por", "1990s", "anos 80"),
    ("eng-por", "at 3:30 pm", "às 15h40"),
    ("eng-por", "at 3 am", "às 15h"),
    ("eng-kor", "350 million", "3억 5000"),
    ("eng-por", "1/2 cup", "1/3 de xícara"),
    ("eng-por", "50%", "5%"),
    ("eng-por", "1,500", "1,5"),
    ("eng-pol", "3.5", "35"),
    ("eng-fra", "15", "1 5"),
    ("eng-jpn", "12 months", "十三か月"),
    ("eng-tha", "1889", "๑๘๙๘"),
    ("eng-por", "0.5", "5"),
    ("eng-por", "100", "1000"),
    ("jpn-eng", "3万", "3,000"),
    ("eng-por", "10:00", "11:00"),
    ("eng-por", "$1.2 billion", "1,2 milhão"),
    ("eng-por", "12 million", "12 mil"),
    ("eng-jpn", "50,000", "50万"),
    ("eng-kor", "2,500", "25만"),
    ("eng-por", "in 1999 and 2001", "em 1999"),
    ("eng-fra", "1.5", "1,05"),
    ("eng-ces", "0.25", "0,52"),
    ("eng-por", "3/4", "4/3"),
    ("eng-por", "10:30", "10:20"),
    ("eng-por", "the 21st century", "o século XX"),
    ("eng-tha", "2 million", "2 แสน"),
    ("eng-vie", "2 million", "2 nghìn"),
    ("eng-ind", "2 million", "2 ribu"),
    ("eng-por", "13 cats", "31 gatos"),
    ("eng-por", "100", "1.000"),
    ("eng-por", "June 5, 2021", "5 de junho de 2012"),
    ("eng-jpn", "May 3", "5月4日"),
    ("eng-por", "5 km", "50 km"),
    ("eng-fra", "7.9 billion", "7,9 millions"),
    ("eng-por", "8 cats", "três gatos"),
    ("eng-por", "$3.50", "$350"),
    ("eng-ukr", "The meeting starts at 3 pm and ends at 4:30 pm.", "Зустріч починається о 3:00 і закінчується о 4:30."),
    ("eng-por", "At 3 pm", "Às 3h da manhã"),
]


def verdict(languages: str, source: str, target: str) -> str | None:
    return FILTERS.create("numbers").reject(TextPair(source, target, *languages.split("-")))


@pytest.mark.parametrize(("languages", "source", "target"), RIGHT)
def test_a_right_translation_has_the_same_numbers(languages: str, source: str, target: str) -> None:
    missing, extra = differences(TextPair(source, target, *languages.split("-")))
    assert not missing and not extra


@pytest.mark.parametrize(("languages", "source", "target"), WRONG)
def test_a_wrong_number_is_seen(languages: str, source: str, target: str) -> None:
    assert verdict(languages, source, target) is not None


def test_code_that_both_sides_have_is_not_looked_at() -> None:
    code = "```\nx = [1, 2.5, 1234]\n```\n"
    assert verdict("eng-por", f"{code}It has 3 items.", f"{code}Tem três itens.") is None
    assert verdict("eng-por", f"{code}It has 3 items.", f"{code}Tem 4 itens.") == "1 numbers lost ['3'], 1 added ['4']"


def spelled(n: int, code: str) -> str:
    """CLDR's word for a number, by ICU."""
    from icu4py.messageformat import MessageFormat

    word = MessageFormat("{n, spellout}", LOCALES[code]).format({"n": n})
    return str(word).replace("\u00ad", "").replace("\u200b", "").replace("ʼ", "'").lower()


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_the_words_are_those_of_cldr(code: str) -> None:
    """Zero to a hundred in every language, against ICU's own spelling."""
    for n in range(101):
        word = spelled(n, code)
        values = {value for number in in_words(f" {word} ", code) for value in number.values}
        assert Fraction(n) in values, (n, word)


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_separators_are_those_of_cldr(code: str) -> None:
    from icu4py.messageformat import MessageFormat

    for value in (1234567.5, 12345.25, 0.5, 3.125, 20000):
        written = str(MessageFormat("{n, number}", LOCALES[code]).format({"n": value}))
        assert [n.values for n in stated(written, code)] == [{Fraction(value)}], written


def test_every_language_has_its_tables() -> None:
    assert CARDINALS.keys() | {"jpn"} == SCALES.keys() == NOON.keys() == LANGUAGES.keys()
    assert CARDINALS.keys() == ORDINALS.keys()
    assert all(len(words.split(", ")) == 13 for words in CARDINALS.values())
    assert all(len(words.split(", ")) == 12 for words in ORDINALS.values())


_ROMAN = {
    1000: "M", 900: "CM", 500: "D", 400: "CD", 100: "C", 90: "XC", 50: "L", 40: "XL", 10: "X", 9: "IX", 5: "V", 4: "IV",
    1: "I",
}  # fmt: skip


def test_a_language_without_tables_has_cldrs_numbers() -> None:
    """German is no language of languages.py: separators and words are CLDR's."""
    source = "It was 1,234.5 km in 1999, 7 days and 20 nights."
    right = "Es waren 1.234,5 km im Jahr 1999, sieben Tage und zwanzig Nächte."
    assert verdict("eng-deu", source, right) is None
    assert verdict("eng-deu", source, right.replace("1999", "1989")) is not None


@given(st.integers(1, 3999))
def test_roman_numerals(n: int) -> None:
    written, rest = "", n
    for value, letters in _ROMAN.items():
        written += letters * (rest // value)
        rest %= value
    assert roman(written) == n
    assert roman(written + "IIII") == 0


@given(st.integers(0, 10**12 - 1))
def test_kanji_numerals(n: int) -> None:
    assert kanji(spelled(n, "jpn")) == n


@given(st.integers(10, 10**9), st.sampled_from(sorted(LANGUAGES)))
def test_digits_out_of_place_are_seen(n: int, code: str) -> None:
    """The number with two digits swapped, or one lost, is another number in every language."""
    digits = str(n)
    swapped = f"{digits[1]}{digits[0]}{digits[2:]}"
    for wrong in {swapped, digits[:-1]} - {digits}:
        missing, _ = differences(TextPair(f"a {digits} b", f"x {wrong} y", "eng", code))
        assert [number.text for number in missing] == [digits]


BITS = st.sampled_from(
    [
        "1,000", "1.5", "12:30", "1/0", "0/5", "½", "3 ½", "1 1/2", "²", "٣", "๑๒", "１２", "二千", "〇", "万", "삼백", "십만",
        "XIV", "ІХ", "pm", "p.m.", "午後", "s", "k", "M", "million", "mil", "tys.", "割", "ทุ่ม", "พันล้าน", "分の", "분의",
        " ", "\u00a0", "\u202f", "'", "-", "\n", "half", "meia", "\ud800", "\u200b", "9999999999", ":", "/", ".", ",", "(",
        ")", "`x 1`", "https://a.b/1", '{"a": 1}',
    ]
)  # fmt: skip
TEXTS = st.lists(BITS, max_size=12).map("".join)


@settings(deadline=None, max_examples=200)
@given(TEXTS, TEXTS, st.sampled_from(sorted(LANGUAGES)))
def test_any_text_can_be_read_and_agrees_with_itself(source: str, target: str, code: str) -> None:
    differences(TextPair(source, target, "eng", code))
    assert differences(TextPair(source, source, code, code)) == ([], [])


def test_endless_digits_are_no_number() -> None:
    for endless in ("7" * 5000, "一" * 5000, "²" * 5000, "1," * 3000):
        assert verdict("eng-jpn", endless, endless) is None
        verdict("eng-jpn", endless, "x")
