"""Each filter against real sentences of ten languages, judged by hand: one that must pass, one that must not."""

from __future__ import annotations

import random

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.filters import FILTERS, Duplicate, TextPair, make_filters, text_key
from sdrrl_nemo.data.filters.lengths import width

SOURCE = "Bangkok has 10 million inhabitants (in 2020). Have you read more at https://example.org/city?"
GOOD = {
    "por": "Bangkok tem 10 milhões de habitantes (em 2020). Você leu mais em https://example.org/city?",
    "ces": "Bangkok má 10 milionů obyvatel (v roce 2020). Četli jste více na https://example.org/city?",
    "ukr": "У Бангкоку 10 мільйонів мешканців (у 2020). Ви прочитали більше на https://example.org/city?",
    "fin": "Bangkokissa on 10 miljoonaa asukasta (vuonna 2020). Luitko lisää osoitteesta https://example.org/city?",
    "hun": "Bangkoknak 10 millió lakosa van (2020-ban). Olvasott többet itt: https://example.org/city?",
    "vie": "Bangkok có 10 triệu dân (năm 2020). Bạn đã đọc thêm tại https://example.org/city?",
    "kor": "방콕의 인구는 10백만 명입니다 (2020). 더 자세한 내용을 https://example.org/city 에서 읽어 보셨나요?",
    "jpn": "バンコクの人口は10百万人です（2020年）。詳しくはhttps://example.org/cityをお読みになりましたか。",
    "tha": "กรุงเทพมหานครมีประชากร ๑๐ ล้านคน (ในปี ๒๐๒๐) คุณได้อ่านเพิ่มเติมที่ https://example.org/city หรือยัง",
    "khm": "ទីក្រុងបាងកកមានប្រជាជន ១០ លាននាក់ (ក្នុងឆ្នាំ ២០២០)។ តើអ្នកបានអានបន្ថែមនៅ https://example.org/city ទេ?",
}
OPTIONS: dict[str, dict[str, object]] = {"length": {"maximum": 200, "longest_word": 40}, "numbers": {"max_extra": 0}}
PAIRED = sorted(set(FILTERS) - {"echo"})  # echo looks at questions: test_filters.py


def verdict(name: str, source: str, target: str, code: str) -> str | None:
    return FILTERS.create(name, **OPTIONS.get(name, {})).reject(TextPair(source, target, "eng", code))


def test_every_filter_is_here() -> None:
    assert {name for name, *_ in BAD} == set(PAIRED)


@pytest.mark.parametrize("code", GOOD)
@pytest.mark.parametrize("name", PAIRED)
def test_a_good_translation_passes(name: str, code: str) -> None:
    assert verdict(name, SOURCE, GOOD[code], code) is None


FOX = "The fox jumps over the lazy dog near the river."
MANY = "The museum is open every day from nine in the morning until six in the evening, except on Mondays."
YEAR = "The tower was built in 1889."
QUESTIONS = "Who was it? When was it? Where was it?"
VISIT = "Visit https://example.org/help or write to info@example.org."
RUN = "Run `ls -a`."
CAT = "The cat drinks milk."

# (filter, language, source, bad translation, figure that the reason must name)
BAD = [
    ("length", "por", FOX, "", "0 characters"),
    ("length", "ces", FOX, "   ", "0 characters"),
    ("length", "fin", FOX, "lentokonesuihkuturbiinimoottoriapumekaanikkoaliupseerioppilas", "a word of 61 characters"),
    ("length", "ukr", FOX, "Лисиця стрибає. " * 20, "319 characters"),
    ("length", "kor", FOX, "여우가 뜁니다. " * 40, "characters"),
    ("length", "jpn", FOX, "狐が犬を飛び越えます。" * 20, "220 characters"),
    ("length", "tha", FOX, "สุนัขจิ้งจอกกระโดด" * 12, "216 characters"),
    ("length", "khm", FOX, "កញ្ជ្រោងលោត" * 30, "330 characters"),
    ("length_ratio", "por", MANY, "O museu abre.", "0.13 times"),
    ("length_ratio", "ces", MANY, "Muzeum je otevřeno.", "0.19 times"),
    ("length_ratio", "ukr", MANY, "Музей відчинено щодня.", "0.22 times"),
    ("length_ratio", "vie", CAT, "Con mèo uống sữa và sau đó nó ngủ trên ghế cả buổi chiều dài.", "times"),
    ("length_ratio", "kor", MANY, "박물관은 매일 엽니다.", "width 21 for 98"),
    ("length_ratio", "jpn", MANY, "博物館は毎日開いています。", "width 26 for 98"),
    ("length_ratio", "tha", MANY, "พิพิธภัณฑ์เปิดทุกวัน", "times"),
    ("length_ratio", "khm", MANY, "សារមន្ទីរបើករាល់ថ្ងៃ", "times"),
    ("repetition", "por", FOX, "a raposa pula sobre o cão " * 4, "of 4-grams repeat"),
    ("repetition", "ces", FOX, "liška skáče přes líného psa " * 4, "of 4-grams repeat"),
    ("repetition", "ukr", FOX, "лисиця стрибає через ледачого пса " * 4, "of 4-grams repeat"),
    ("repetition", "hun", FOX, "a róka átugrik a kutya felett " * 4, "of 4-grams repeat"),
    ("repetition", "kor", FOX, "여우가 게으른 개를 뛰어넘습니다 " * 4, "of 4-grams repeat"),
    ("repetition", "jpn", FOX, "狐は犬を飛び越えます" * 4, "of 4-grams repeat"),
    ("repetition", "tha", FOX, "แมวตัวนี้น่ารักมาก" * 4, "of 4-grams repeat"),
    ("repetition", "khm", FOX, "ខ្ញុំចូលចិត្តអានសៀវភៅ" * 4, "of 4-grams repeat"),
    ("repeated_characters", "por", CAT, "O gato bebe leiteeeeeeeeeeeee.", "'e' 13 times"),
    ("repeated_characters", "ces", CAT, "Kočka pije mlékoooooooooooo.", "'o' 12 times"),
    ("repeated_characters", "bul", CAT, "Котката пие млякооооооооооо.", "'о' 11 times"),
    ("repeated_characters", "fin", CAT, "Kissa juo maitoa!!!!!!!!!!!!", "'!' 12 times"),
    ("repeated_characters", "kor", CAT, "고양이가 우유를 마셔요ㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋ", "'ㅋ' 12 times"),
    ("repeated_characters", "jpn", CAT, "猫はミルクを飲むーーーーーーーーーーー", "'ー' 11 times"),
    ("repeated_characters", "tha", CAT, "แมวดื่มนมมากกกกกกกกกกกกก", "'ก' 13 times"),
    ("repeated_characters", "khm", CAT, "ឆ្មាផឹកទឹកដោះគោោោោោោោោោោោោ", "12 times"),
    ("repeated_sentences", "por", CAT, "O gato bebe leite. O gato bebe leite! O gato bebe leite.", "stands 3 times"),
    ("repeated_sentences", "ces", CAT, "Kočka pije mléko. Kočka pije mléko. Kočka  pije mléko.", "stands 3 times"),
    ("repeated_sentences", "ukr", CAT, "Кіт п'є молоко.\nКіт п'є молоко.\nКіт п'є молоко.", "stands 3 times"),
    ("repeated_sentences", "pol", CAT, "Kot pije mleko. " * 4, "stands 4 times"),
    ("repeated_sentences", "kor", CAT, "고양이가 우유를 마셔요. " * 3, "stands 3 times"),
    ("repeated_sentences", "jpn", CAT, "猫は牛乳を飲みます。" * 3, "stands 3 times"),
    ("repeated_sentences", "tha", CAT, "แมวดื่มนม แมวดื่มนม แมวดื่มนม", "stands 3 times"),
    ("repeated_sentences", "khm", CAT, "ឆ្មាផឹកទឹកដោះគោ។ " * 3, "stands 3 times"),
    *[
        ("copy", code, FOX, FOX, "1.00 of the words")
        for code in ("por", "ces", "ukr", "vie", "kor", "jpn", "tha", "khm")
    ],
    ("copy", "dan", FOX, "The fox jumps over den dovne dog near the river.", "0.78 of the words"),
    ("script", "por", FOX, "Лисица прыгает через ленивую собаку.", "0.00 of the letters"),
    ("script", "ukr", FOX, "Lys strybaie cherez ledachoho psa.", "0.00 of the letters"),
    ("script", "bul", FOX, "The fox прескача the dog.", "of the letters"),
    ("script", "kor", FOX, "狐は怠け者の犬を飛び越えます。", "0.00 of the letters"),
    ("script", "jpn", FOX, "여우가 게으른 개를 뛰어넘습니다.", "0.00 of the letters"),
    ("script", "tha", FOX, "កញ្ជ្រោងលោតរំលងឆ្កែ", "0.00 of the letters"),
    ("script", "khm", FOX, "สุนัขจิ้งจอกกระโดดข้ามสุนัข", "0.00 of the letters"),
    ("script", "vie", FOX, "ฉันชอบอ่านหนังสือ", "0.00 of the letters"),
    ("character_ratio", "por", FOX, "A raposa: *** ### --- +++ === (...)", "letters for"),
    ("character_ratio", "slv", FOX, "Lisica !!! ??? ... --- ,,, ;;;", "letters for"),
    ("character_ratio", "ukr", FOX, "Лисиця ... --- ,,, ;;; :::", "letters for"),
    ("character_ratio", "nob", FOX, "Reven 1 2 3 4 5 6 7 8 9 10 11", "letters for"),
    ("character_ratio", "kor", FOX, "여우 ----- ***** 개 .....", "letters for"),
    ("character_ratio", "jpn", FOX, "狐・・・・・・犬。。。。。。", "letters for"),
    ("character_ratio", "tha", FOX, "สุนัข ----- ***** ..... /////", "letters for"),
    ("character_ratio", "khm", FOX, "ឆ្កែ ----- ***** ..... /////", "letters for"),
    ("numbers", "por", YEAR, "A torre foi construída em 1898.", "1 numbers lost ['1889'], 1 added ['1898']"),
    ("numbers", "ces", YEAR, "Věž byla postavena.", "1 numbers lost ['1889']"),
    ("numbers", "ukr", YEAR, "Вежу збудували у 1889 році за 2 роки.", "1 added ['2']"),
    ("numbers", "ind", YEAR, "Menara itu dibangun pada tahun 188.", "lost ['1889']"),
    ("numbers", "kor", YEAR, "탑은 1988년에 지어졌습니다.", "lost ['1889']"),
    ("numbers", "jpn", YEAR, "塔は１８９８年に建てられました。", "lost ['1889'], 1 added ['1898']"),
    ("numbers", "tha", YEAR, "หอคอยถูกสร้างขึ้นในปี ๑๘๙๘", "lost ['1889'], 1 added ['1898']"),
    ("numbers", "khm", YEAR, "ប៉មនេះត្រូវបានសាងសង់ក្នុងឆ្នាំ ១៨៩៨។", "lost ['1889'], 1 added ['1898']"),
    ("punctuation", "por", QUESTIONS, "Quem foi, quando foi e onde foi.", "0 question marks for 3"),
    ("punctuation", "ces", QUESTIONS, "Kdo to byl. Kdy to bylo. Kde to bylo?", "1 question marks for 3"),
    ("punctuation", "ukr", "a (b) [c]", "а б в", "0 opening brackets for 2"),
    ("punctuation", "hun", "One\nTwo\nThree", "Egy kettő három", "0 line breaks for 2"),
    ("punctuation", "kor", QUESTIONS, "누구였고 언제였고 어디였는지.", "0 question marks for 3"),
    ("punctuation", "jpn", CAT, "猫は？ミルクを？飲む？", "3 question marks for 0"),
    ("punctuation", "tha", "One\nTwo\nThree", "หนึ่ง สอง สาม", "0 line breaks for 2"),
    ("punctuation", "khm", CAT, "ឆ្មា? ផឹក? ទឹកដោះគោ?", "3 question marks for 0"),
    ("urls", "por", VISIT, "Visite https://example.org/ajuda ou escreva para info@example.org.", "1 addresses lost"),
    ("urls", "ces", VISIT, "Navštivte https://example.org/help nebo napište.", "1 addresses lost ['info@example.org']"),
    ("urls", "ukr", VISIT, "Відвідайте наш сайт або напишіть нам.", "2 addresses lost"),
    ("urls", "pol", CAT, "Kot pije mleko (www.mleko.pl).", "1 added ['www.mleko.pl']"),
    ("urls", "kor", VISIT, "https://example.org/help 를 방문하세요.", "1 addresses lost"),
    ("urls", "jpn", VISIT, "https://example.org/ヘルプかinfo@example.orgへ。", "lost ['https://example.org/help']"),
    ("urls", "tha", VISIT, "ไปที่ https://example.org/help หรือเขียนถึง infoexample.org", "lost ['info@example.org']"),
    (
        "urls",
        "khm",
        VISIT,
        "ចូលទៅ https://example.com/help ឬសរសេរទៅ info@example.org។",
        "1 added ['https://example.com/help']",
    ),
    ("code", "por", RUN, "Execute `lista -a`.", "1 pieces of code lost or changed ['ls -a']"),
    ("code", "ces", RUN, "Spusťte příkaz.", "1 pieces of code"),
    ("code", "ukr", RUN, "Виконайте `лс -а`.", "1 pieces of code"),
    ("code", "pol", RUN, "Uruchom `ls`.", "1 pieces of code"),
    ("code", "kor", RUN, "`ls -b`를 실행하세요.", "1 pieces of code"),
    ("code", "jpn", RUN, "「ls -a」を実行してください。", "1 pieces of code"),
    ("code", "tha", RUN, "เรียกใช้คำสั่ง", "1 pieces of code"),
    ("code", "khm", RUN, "ដំណើរការ `ls`។", "1 pieces of code"),
    ("markup", "por", CAT, "O <b>gato</b> bebe leite.", "2 tags or entities added"),
    ("markup", "ces", CAT, "Kočka&nbsp;pije mléko.", "1 tags or entities added ['&nbsp;']"),
    ("markup", "ukr", CAT, 'Кіт <a href="x.html">п’є</a> молоко.', "2 tags"),
    ("markup", "slv", CAT, "Mačka pije mleko.<br/>", "['<br/>']"),
    ("markup", "kor", CAT, "고양이가 &quot;우유&quot;를 마셔요.", "2 tags or entities"),
    ("markup", "jpn", CAT, "猫は<span class='x'>牛乳</span>を飲みます。", "2 tags or entities"),
    ("markup", "tha", CAT, "แมวดื่มนม<p>", "['<p>']"),
    ("markup", "khm", CAT, "ឆ្មាផឹក&#8203;ទឹកដោះគោ", "['&#8203;']"),
    ("control", "por", "He says no.", "Ele diz que nÃ£o.", "0 control or broken characters and about 1 wrongly"),
    ("control", "ces", CAT, "Ko\u0007čka pije mléko.", "1 control or broken characters"),
    ("control", "ukr", CAT, "Кіт".encode().decode("cp1252") + " п'є", "wrongly decoded"),
    ("control", "fin", CAT, "Kissa juo \ue000maitoa.", "1 control or broken"),
    ("control", "kor", CAT, "고양\ufffd가 우유를 마셔요.", "1 control or broken"),
    ("control", "jpn", CAT, "猫は".encode().decode("latin-1") + "飲む", "wrongly decoded"),
    ("control", "tha", CAT, "แมวดื่มนม".encode().decode("latin-1"), "wrongly decoded"),
    ("control", "khm", CAT, "ឆ្មា".encode().decode("latin-1"), "wrongly decoded"),
]


@pytest.mark.parametrize(("name", "code", "source", "target", "figure"), BAD)
def test_a_bad_translation_is_rejected_by_name_and_figure(
    name: str, code: str, source: str, target: str, figure: str
) -> None:
    reason = verdict(name, source, target, code)
    assert reason is not None
    assert figure in reason


def test_each_filter_has_bad_cases_in_eight_languages() -> None:
    for name in PAIRED:
        codes = {case[1] for case in BAD if case[0] == name}
        assert len(codes) >= 8 and {"jpn", "tha", "khm"} <= codes, name


@pytest.mark.parametrize(
    ("name", "code", "source", "target"),
    [
        ("control", "fra", "A coffee shop", "Un « CAFÉ”… voilà…» LÀ\u00a0!"),
        ("control", "por", "NO!", "«NÃO» — IRMÃ\u00a0É"),
        ("control", "vie", "It is", "ÂM NHẠC “Â” Đây là tiếng Việt"),
        ("control", "khm", "I read books", "ខ្ញុំ\u200bអាន\u200bសៀវភៅ"),
        ("markup", "jpn", "What does <b> do in HTML?", "HTMLの<b>は何をしますか。"),
        ("markup", "ces", "If a < b and c > d & e", "Pokud a < b a c > d & e"),
        ("repeated_characters", "por", "Name: ____________", "Nome: ____________"),
        ("repeated_sentences", "tha", "Ring the bell. Ring the bell. Ring the bell.", "สั่นกระดิ่ง สั่นกระดิ่ง สั่นกระดิ่ง"),
        ("urls", "jpn", "See www.example.org.", "www.example.orgをご覧ください。"),
        ("numbers", "jpn", "In 1,234 days", "１，２３４日後"),
        ("numbers", "khm", "It cost 3.50 dollars", "វាមានតម្លៃ ៣,៥០ ដុល្លារ"),
        ("numbers", "pol", "It has 1,234,567 seats", "Ma 1 234 567 miejsc"),
        ("punctuation", "tha", QUESTIONS, "ใครเป็นคนทำ เมื่อไร ที่ไหน"),
        ("length_ratio", "jpn", MANY, "博物館は月曜日を除いて、毎日午前九時から午後六時まで開いています。"),
        ("length_ratio", "kor", MANY, "박물관은 월요일을 제외하고 매일 아침 아홉 시부터 저녁 여섯 시까지 문을 엽니다."),
        ("script", "kor", "Install gnome-shell for GNOME.", "그놈을 쓰려면 gnome-shell 패키지를 설치하세요."),
        ("copy", "jpn", "iPhone and Android", "iPhoneとAndroid"),
        ("repetition", "khm", MANY, "សារមន្ទីរបើករាល់ថ្ងៃចាប់ពីម៉ោងប្រាំបួនព្រឹកដល់ម៉ោងប្រាំមួយល្ងាច លើកលែងតែថ្ងៃចន្ទ។"),
    ],
)  # fmt: skip
def test_hard_cases_pass(name: str, code: str, source: str, target: str) -> None:
    assert verdict(name, source, target, code) is None


def test_width_compares_scripts_and_ignores_composition() -> None:
    assert width("日本") == 4
    assert width("é") == width("e\u0301") == 1
    assert width("ก็") == 1


def test_thresholds_are_checked() -> None:
    for name, options, message in [
        ("length", {"minimum": 5, "maximum": 1}, "filters: length: minimum 5 and maximum 1"),
        ("repetition", {"maximum": 1.5}, "filters: repetition: maximum 1.5 is not between 0 and 1"),
        ("length_ratio", {"unit": "word"}, "unknown unit 'word'; did you mean 'words'"),
    ]:
        with pytest.raises(SdrrlError, match=message):
            make_filters([(name, options)])


ROWS = [
    ("k3", TextPair("The museum is open every day.", "O museu abre todos os dias.", "eng", "por")),
    ("k1", TextPair("the museum  is open every day", "O museu está aberto diariamente.", "eng", "por")),
    ("k2", TextPair("The gallery opens daily at nine.", "O MUSEU ABRE TODOS OS DIAS!", "eng", "por")),
    ("k4", TextPair("Yes.", "Sim.", "eng", "por")),
    ("k5", TextPair("Yes.", "Sim.", "eng", "por")),
    ("k6", TextPair("The museum is open every day.", "博物館は毎日開いています。", "eng", "jpn")),
]


def test_duplicates_by_hand() -> None:
    """k1 has k3's source, k2 has k3's target; the smaller key stays; short texts and other pairs do not count."""
    assert Duplicate().select(ROWS) == {"k3": "same source as row k1 (copy 2)"}
    assert Duplicate(sides="target").select(ROWS) == {"k3": "same target as row k2 (copy 2)"}
    assert Duplicate(min_characters=0).select(ROWS)["k5"] == "same source as row k4 (copy 2)"


@pytest.mark.parametrize(
    ("code", "first", "second"),
    [
        ("jpn", "博物館は毎日開いています。", "博物館は毎日開いています"),
        ("tha", "พิพิธภัณฑ์เปิดทุกวัน ๙ โมง", "พิพิธภัณฑ์เปิดทุกวัน  ๙ โมง!"),
        ("khm", "សារមន្ទីរបើករាល់ថ្ងៃ។", "សារមន្ទីរបើករាល់ថ្ងៃ"),
        ("kor", "박물관은 매일 엽니다.", "박물관은 매일 엽니다"),
        ("vie", "Bảo tàng mở cửa hằng ngày", "Ba\u0309o ta\u0300ng mở cửa hằng ngày."),
        ("ukr", "Музей відчинено щодня", "МУЗЕЙ ВІДЧИНЕНО ЩОДНЯ!"),
        ("ces", "Muzeum je otevřeno denně", "muzeum je otevřeno denně."),
        ("fin", "Museo on avoinna päivittäin", "Museo on avoinna  päivittäin"),
    ],
)
def test_duplicates_in_other_languages(code: str, first: str, second: str) -> None:
    assert text_key(first) == text_key(second)
    rows = [("b", TextPair("First text.", second, "eng", code)), ("a", TextPair("Second text.", first, "eng", code))]
    assert Duplicate(min_characters=8).select(rows) == {"b": "same target as row a (copy 2)"}
    changed = [rows[0], ("a", TextPair("Second text.", first[1:], "eng", code))]
    assert Duplicate(min_characters=8).select(changed) == {}


def test_duplicates_do_not_depend_on_order_or_shards() -> None:
    rng = random.Random(5)
    rows = [
        (f"{rng.getrandbits(64):016x}", TextPair(f"question number {rng.randrange(60)}", f"x {i}", "eng", "por"))
        for i in range(300)
    ]
    duplicate = Duplicate(min_characters=0)
    whole = duplicate.select(rows)
    assert len(rows) - len(whole) == len({p.source for _, p in rows})
    for seed in range(5):
        shuffled = random.Random(seed).sample(rows, len(rows))
        shards = [shuffled[i::4] for i in range(4)]
        marks = sorted(m for shard in shards for key, pair in shard for m in duplicate.marks(key, pair))
        assert dict(duplicate.repeats(marks)) == whole == duplicate.select(shuffled)
    with pytest.raises(SdrrlError, match="not sorted"):
        list(duplicate.repeats(sorted(duplicate.marks(*rows[0]) + duplicate.marks(*rows[1]), reverse=True)))
