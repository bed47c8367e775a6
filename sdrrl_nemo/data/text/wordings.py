"""Table 1's two instructions in the nineteen languages, and how each of them names the languages.

A language that is in languages.py alone has English instructions, as in the paper, and its English name in them. A name
holds ``|`` where the language's endings go (Czech ``angličtin|`` + ``y``); names without it take no ending.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.languages import LANGUAGES, language

# fmt: off
ORDER = ("eng", "fra", "ces", "dan", "ukr", "bul", "fin", "hun", "nob", "ind", "jpn", "kor", "por", "slv", "vie", "pol",
         "tha", "khm", "spa")
# fmt: on
"""Languages in the order of every ``names`` below."""
ENGLISH_NAMES: tuple[str, ...] = ()
"""The ``names`` of a wording that calls every language as languages.py does."""


@dataclass(frozen=True)
class Wording:
    """One instruction language.

    ``translate`` has ``{source}`` and ``{target}``, ``complete`` has ``{target}``. ``endings`` are those of the source
    (from ...), of the target (into ...) and of the language written in (in ...).
    """

    translate: str
    complete: str
    names: tuple[str, ...]
    endings: tuple[str, str, str] = ("", "", "")

    def name(self, code: str, case: int) -> str:
        """The language ``code`` as source (0), as target (1) or as the language written in (2)."""
        known = language(code)
        if self.names == ENGLISH_NAMES:
            return known.name
        if known.code not in ORDER:
            raise SdrrlError(
                f"no wording of Table 1 but the English one has a name for '{code}'; set instruction_language to "
                "english, or add the name to sdrrl_nemo/data/text/wordings.py"
            )
        return self.names[ORDER.index(known.code)].replace("|", self.endings[case])


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    assert len(names) == len(ORDER), text
    return names


WORDINGS = {
    "eng": Wording(
        "Translate the following sentence from {source} to {target}.",
        "Complete the following sentence in {target} according to its context.",
        ENGLISH_NAMES,
    ),
    "fra": Wording(
        "Traduisez la phrase suivante {source} vers {target}.",
        "Complétez la phrase suivante en {target} selon son contexte.",
        _names(
            "anglais, français, tchèque, danois, ukrainien, bulgare, finnois, hongrois, norvégien bokmål, indonésien, "
            "japonais, coréen, portugais, slovène, vietnamien, polonais, thaï, khmer, espagnol"
        ),
    ),
    "ces": Wording(
        "Přeložte následující větu {source} do {target}.",
        "Doplňte následující větu {target} podle jejího kontextu.",
        _names(
            "angličtin|, francouzštin|, češtin|, dánštin|, ukrajinštin|, bulharštin|, finštin|, maďarštin|, "
            "norštin| (bokmål), indonéštin|, japonštin|, korejštin|, portugalštin|, slovinštin|, vietnamštin|, "
            "polštin|, thajštin|, khmérštin|, španělštin|"
        ),
        ("y", "y", "ě"),
    ),
    "dan": Wording(
        "Oversæt følgende sætning fra {source} til {target}.",
        "Fuldfør følgende sætning på {target} ud fra sammenhængen.",
        _names(
            "engelsk, fransk, tjekkisk, dansk, ukrainsk, bulgarsk, finsk, ungarsk, norsk bokmål, indonesisk, japansk, "
            "koreansk, portugisisk, slovensk, vietnamesisk, polsk, thai, khmer, spansk"
        ),
    ),
    "ukr": Wording(
        "Перекладіть наведене речення {source} на {target}.",
        "Доповніть наведене речення {target} відповідно до його контексту.",
        _names(
            "англійськ|, французьк|, чеськ|, данськ|, українськ|, болгарськ|, фінськ|, угорськ|, норвезьк| (букмол), "
            "індонезійськ|, японськ|, корейськ|, португальськ|, словенськ|, в’єтнамськ|, польськ|, тайськ|, кхмерськ|, "
            "іспанськ|"
        ),
        ("ої", "у", "ою"),
    ),
    "bul": Wording(
        "Преведете следното изречение от {source} на {target}.",
        "Довършете следното изречение на {target} според контекста му.",
        _names(
            "английски, френски, чешки, датски, украински, български, фински, унгарски, норвежки (букмол), "
            "индонезийски, японски, корейски, португалски, словенски, виетнамски, полски, тайландски, кхмерски, "
            "испански"
        ),
    ),
    "fin": Wording(
        "Käännä seuraava lause {source} kielestä {target} kielelle.",
        "Täydennä seuraava lause {target} kielellä asiayhteyden mukaisesti.",
        _names(
            "englannin, ranskan, tšekin, tanskan, ukrainan, bulgarian, suomen, unkarin, kirjanorjan, indonesian, "
            "japanin, korean, portugalin, sloveenin, vietnamin, puolan, thain, khmerin, espanjan"
        ),
    ),
    "hun": Wording(
        "Fordítsa le a következő mondatot {source} nyelvről {target} nyelvre.",
        "Egészítse ki a következő mondatot {target} nyelven a szövegkörnyezetnek megfelelően.",
        _names(
            "angol, francia, cseh, dán, ukrán, bolgár, finn, magyar, norvég (bokmål), indonéz, japán, koreai, "
            "portugál, szlovén, vietnámi, lengyel, thai, khmer, spanyol"
        ),
    ),
    "nob": Wording(
        "Oversett følgende setning fra {source} til {target}.",
        "Fullfør følgende setning på {target} ut fra sammenhengen.",
        _names(
            "engelsk, fransk, tsjekkisk, dansk, ukrainsk, bulgarsk, finsk, ungarsk, norsk bokmål, indonesisk, japansk, "
            "koreansk, portugisisk, slovensk, vietnamesisk, polsk, thai, khmer, spansk"
        ),
    ),
    "ind": Wording(
        "Terjemahkan kalimat berikut dari {source} ke {target}.",
        "Lengkapi kalimat berikut dalam {target} sesuai dengan konteksnya.",
        _names(
            "bahasa Inggris, bahasa Prancis, bahasa Ceko, bahasa Denmark, bahasa Ukraina, bahasa Bulgaria, "
            "bahasa Finlandia, bahasa Hungaria, bahasa Norwegia Bokmål, bahasa Indonesia, bahasa Jepang, bahasa Korea, "
            "bahasa Portugis, bahasa Slovenia, bahasa Vietnam, bahasa Polandia, bahasa Thai, bahasa Khmer, "
            "bahasa Spanyol"
        ),
    ),
    "jpn": Wording(
        "次の文を{source}から{target}に翻訳してください。",
        "文脈に従って、次の文を{target}で完成させてください。",
        _names(
            "英語, フランス語, チェコ語, デンマーク語, ウクライナ語, ブルガリア語, フィンランド語, ハンガリー語, "
            "ノルウェー語（ブークモール）, インドネシア語, 日本語, 韓国語, ポルトガル語, スロベニア語, ベトナム語, "
            "ポーランド語, タイ語, クメール語, スペイン語"
        ),
    ),
    "kor": Wording(
        "다음 문장을 {source}에서 {target}로 번역하세요.",
        "문맥에 맞게 다음 문장을 {target}로 완성하세요.",
        _names(
            "영어, 프랑스어, 체코어, 덴마크어, 우크라이나어, 불가리아어, 핀란드어, 헝가리어, 보크몰 노르웨이어, "
            "인도네시아어, 일본어, 한국어, 포르투갈어, 슬로베니아어, 베트남어, 폴란드어, 태국어, 크메르어, 스페인어"
        ),
    ),
    "por": Wording(
        "Traduza a seguinte frase do {source} para o {target}.",
        "Complete a seguinte frase em {target} de acordo com o seu contexto.",
        _names(
            "inglês, francês, tcheco, dinamarquês, ucraniano, búlgaro, finlandês, húngaro, norueguês bokmål, "
            "indonésio, japonês, coreano, português, esloveno, vietnamita, polonês, tailandês, khmer, espanhol"
        ),
    ),
    "slv": Wording(
        "Prevedite naslednji stavek iz {source} v {target}.",
        "Dopolnite naslednji stavek v {target} glede na njegov kontekst.",
        _names(
            "angleščin|, francoščin|, češčin|, danščin|, ukrajinščin|, bolgarščin|, finščin|, madžarščin|, "
            "norveščin| (bokmål), indonezijščin|, japonščin|, korejščin|, portugalščin|, slovenščin|, vietnamščin|, "
            "poljščin|, tajščin|, kmerščin|, španščin|"
        ),
        ("e", "o", "i"),
    ),
    "vie": Wording(
        "Dịch câu sau từ {source} sang {target}.",
        "Hoàn thành câu sau bằng {target} dựa theo ngữ cảnh.",
        _names(
            "tiếng Anh, tiếng Pháp, tiếng Séc, tiếng Đan Mạch, tiếng Ukraina, tiếng Bulgaria, tiếng Phần Lan, "
            "tiếng Hungary, tiếng Na Uy (Bokmål), tiếng Indonesia, tiếng Nhật, tiếng Hàn, tiếng Bồ Đào Nha, "
            "tiếng Slovenia, tiếng Việt, tiếng Ba Lan, tiếng Thái, tiếng Khmer, tiếng Tây Ban Nha"
        ),
    ),
    "pol": Wording(
        "Przetłumacz poniższe zdanie z języka {source} na język {target}.",
        "Uzupełnij poniższe zdanie w języku {target} zgodnie z jego kontekstem.",
        _names(
            "angielsk|, francusk|, czesk|, duńsk|, ukraińsk|, bułgarsk|, fińsk|, węgiersk|, norwesk| (bokmål), "
            "indonezyjsk|, japońsk|, koreańsk|, portugalsk|, słoweńsk|, wietnamsk|, polsk|, tajsk|, khmersk|, "
            "hiszpańsk|"
        ),
        ("iego", "i", "im"),
    ),
    "tha": Wording(
        "แปลประโยคต่อไปนี้จาก{source}เป็น{target}",
        "เติมประโยคต่อไปนี้เป็น{target}ให้สมบูรณ์ตามบริบท",
        _names(
            "ภาษาอังกฤษ, ภาษาฝรั่งเศส, ภาษาเช็ก, ภาษาเดนมาร์ก, ภาษายูเครน, ภาษาบัลแกเรีย, ภาษาฟินแลนด์, ภาษาฮังการี, "
            "ภาษานอร์เวย์บุ๊กมอล, ภาษาอินโดนีเซีย, ภาษาญี่ปุ่น, ภาษาเกาหลี, ภาษาโปรตุเกส, ภาษาสโลวีเนีย, ภาษาเวียดนาม, "
            "ภาษาโปแลนด์, ภาษาไทย, ภาษาเขมร, ภาษาสเปน"
        ),
    ),
    "khm": Wording(
        "បកប្រែប្រយោគខាងក្រោមពី{source}ទៅ{target}។",
        "បំពេញប្រយោគខាងក្រោមជា{target}ឱ្យស្របតាមបរិបទរបស់វា។",
        _names(
            "ភាសាអង់គ្លេស, ភាសាបារាំង, ភាសាឆែក, ភាសាដាណឺម៉ាក, ភាសាអ៊ុយក្រែន, ភាសាប៊ុលហ្គារី, ភាសាហ្វាំងឡង់, ភាសាហុងគ្រី, "
            "ភាសាន័រវែសបុកម៉ុល, ភាសាឥណ្ឌូនេស៊ី, ភាសាជប៉ុន, ភាសាកូរ៉េ, ភាសាព័រទុយហ្គាល់, ភាសាស្លូវេនី, ភាសាវៀតណាម, "
            "ភាសាប៉ូឡូញ, ភាសាថៃ, ភាសាខ្មែរ, ភាសាអេស្ប៉ាញ"
        ),
    ),
    "spa": Wording(
        "Traduzca la siguiente frase del {source} al {target}.",
        "Complete la siguiente frase en {target} según su contexto.",
        _names(
            "inglés, francés, checo, danés, ucraniano, búlgaro, finés, húngaro, noruego bokmål, indonesio, japonés, "
            "coreano, portugués, esloveno, vietnamita, polaco, tailandés, jemer, español"
        ),
    ),
}
"""Instruction language (ISO 639-3) -> its wording."""


def wording(code: str) -> Wording:
    """The wording in the language ``code``; SdrrlError when there is none."""
    if language(code).code not in WORDINGS:
        raise SdrrlError(f"no wording of Table 1 in '{code}'; set instruction_language to english")
    return WORDINGS[code]


def named_in(instruction: str) -> tuple[str, ...]:
    """Codes of the languages that the wording in the language ``instruction`` has a name for."""
    return tuple(LANGUAGES) if wording(instruction).names == ENGLISH_NAMES else ORDER


_VOWELS = ("a", "e", "é", "i", "o", "u")


def _particles(instruction: str, source: str, target: str) -> tuple[str, str]:
    """Source and target with the small words that depend on their first letter (French, Czech, Ukrainian)."""
    if instruction == "fra":
        return (
            f"de l’{source}" if source.startswith(_VOWELS) else f"du {source}",
            f"l’{target}" if target.startswith(_VOWELS) else f"le {target}",
        )
    if instruction == "ces":
        return f"{'ze' if source.startswith(('s', 'š')) else 'z'} {source}", target
    if instruction == "ukr":
        adjective, _, rest = source.partition(" ")
        preposition = "зі" if source.startswith("с") else "з"
        return f"{preposition} {adjective} мови{' ' + rest if rest else ''}", target
    return source, target


def translate_instruction(source: str, target: str, instruction: str = "eng") -> str:
    """Table 1's request for a translation, in the language ``instruction``; all languages as ISO 639-3 codes."""
    found = wording(instruction)
    a, b = _particles(instruction, found.name(source, 0), found.name(target, 1))
    return found.translate.format(source=a, target=b)


def complete_instruction(target: str, instruction: str = "eng") -> str:
    """Table 1's request for a completion, in the language ``instruction``."""
    found = wording(instruction)
    name = found.name(target, 2)
    if instruction == "ces":
        name = f"{'ve' if name[0] in 'fvsš' else 'v'} {name}"
    if instruction == "ukr":
        adjective, _, rest = name.partition(" ")
        name = f"{adjective} мовою{' ' + rest if rest else ''}"
    return found.complete.format(target=name)
