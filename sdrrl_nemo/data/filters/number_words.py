"""How numbers are written in the languages of ``languages.py``: the tables of the filter ``numbers``.

ICU, which is needed anyway, spells the numbers from 13 to 100 (CLDR), but each in its first form alone ("um", not
"uma"). babel and num2words, which know more, are no dependencies. A test compares the first forms here with ICU's.

A form that ends in ``*`` is a stem: up to four letters may follow it. Forms are separated by ``|``; apostrophes are
straight and letters small. A word counts only where a digit on the other side needs it, so that a form which also means
something else (Vietnamese năm: five, year) does no harm.
"""

from __future__ import annotations

CARDINALS: dict[str, str] = {
    "eng": "zero|nil, one|once, two|twice, three, four, five, six, seven, eight, nine, ten, eleven, twelve|dozen*",
    "fra": "zéro, un|une, deux, trois, quatre, cinq, six, sept, huit, neuf, dix, onze, douze|douzaine*",
    "ces": "nula|nul*, jeden|jedna|jedno|jedn*, dva|dvě|dvou|dvěma|dvakrát, tři|tří|třem*|třech|třikrát, čtyř*, pět*, "
    "šest*, sedm*, osm*, devět*|devíti, deset*|desíti, jedenáct*, dvanáct*|tucet*",
    "dan": "nul, et|en|én|ét, to, tre, fire, fem, seks, syv, otte, ni, ti, elleve, tolv|dusin*",
    "ukr": "нуль|нул*, один|одна|одне|одн*, два|дві|дво*, три|трьо*|троє, чотири|чотирьо*, п'ять|п'ят*, шість|шест*, "
    "сім|сем*|сімо*, вісім|восьм*, дев'ять|дев'ят*, десять|десят*, одинадцять|одинадцят*, дванадцять|дванадцят*|дюжин*",
    "bul": "нула, едно|един|една|едн*, две|два|двам*|двата|двете, три|трим*|трите, четири*, пет|петте|петим*, шест*, "
    "седем*, осем*, девет*, десет*, единайсет*|единадесет*, дванайсет*|дванадесет*|дузин*",
    "fin": "nolla*, yksi|yhd*|yht*, kaksi|kahd*|kaht*, kolme*|kolmi*, neljä*, viisi|viid*|viit*, kuusi|kuud*|kuut*, "
    "seitsem*, kahdeksa*, yhdeksä*, kymmen*, yksitoista|yhdentoista|yhtätoista, kaksitoista|kahdentoista|kahtatoista|"
    "tusin*",
    "hun": "nulla*, egy|egyik*, kettő*|két|kett*, három*|hárm*, négy*, öt|ötöt|öten|ötször, hat|hatot|hatan|hatszor, "
    "hét|hetet|heten|hétszer, nyolc*, kilenc*, tíz|tizet|tízen|tízszer, tizenegy*, tizenkettő*|tizenkét*|tucat*",
    "nob": "null, én|en|ei|et|ett, to, tre, fire, fem, seks, sju|syv, åtte, ni, ti, elleve, tolv|dusin*",
    "ind": "nol|kosong, satu|sebuah|seorang|seekor, dua, tiga, empat, lima, enam, tujuh, delapan, sembilan, sepuluh, "
    "sebelas, dua belas|selusin|lusin",
    "kor": "공|영|제로, 일|하나|한, 이|둘|두, 삼|셋|세|석, 사|넷|네|넉, 오|다섯, 육|여섯, 칠|일곱, 팔|여덟, 구|아홉, "
    "십|열, 십일|열하나|열한, 십이|열둘|열두",
    "por": "zero, um|uma, dois|duas, três|tres, quatro, cinco, seis, sete, oito, nove, dez, onze, doze|dúzia*",
    "slv": "nič|nul*, ena|en|eden|eno|enega|enem|eni, dva|dve|dveh|dvema|dvakrat, tri|treh|trem|tremi|trikrat, štir*, "
    "pet|petih|petim*, šest*, sedem|sedm*, osem|osm*, devet*, deset*, enajst*, dvanajst*|ducat*",
    "vie": "không, một|mốt, hai|đôi, ba, bốn|tư, năm|lăm, sáu, bảy|bẩy, tám, chín, mười, mười một, mười hai|tá",
    "pol": "zero|zera, jeden|jedna|jedno|jedn*, dwa|dwie|dwó*|dwu|dwoma|dwom|dwoje, trzy|trzech|trzem*|troje, czter*, "
    "pięć|pięci*, sześć|sześci*, siedem|siedmi*, osiem|ośmi*, dziewięć|dziewięci*, dziesięć|dziesięci*, "
    "jedenaście|jedenast*, dwanaście|dwunast*|tuzin*",
    "tha": "ศูนย์, หนึ่ง|เดียว, สอง, สาม, สี่, ห้า, หก, เจ็ด, แปด, เก้า, สิบ, สิบเอ็ด, สิบสอง|โหล",
    "khm": "សូន្យ, មួយ, ពីរ, បី, បួន, ប្រាំ, ប្រាំមួយ, ប្រាំពីរ, ប្រាំបី, ប្រាំបួន, ដប់, ដប់មួយ, ដប់ពីរ",
    "spa": "cero, uno|un|una, dos, tres, cuatro, cinco, seis, siete, ocho, nueve, diez, once, doce|docena*",
}
"""Zero to twelve. Japanese is not here: its kanji numerals are read by rule."""

ORDINALS: dict[str, str] = {
    "eng": "first*, second*, third*, fourth*|quarter*, fifth*, sixth*, seventh*, eighth*, ninth*, tenth*, eleventh*, "
    "twelfth*",
    "fra": "premier*|première*, deuxième*|second*, troisième*|tiers, quatrième*|quart*, cinquième*, sixième*, "
    "septième*, huitième*, neuvième*, dixième*, onzième*, douzième*",
    "ces": "prvn*|první*, druh*, třet*, čtvrt*, pát*, šest*, sedm*, osm*, devát*, desát*, jedenáct*, dvanáct*",
    "dan": "første, anden|andet|andre, tredje*, fjerde*, femte*, sjette*, syvende*, ottende*, niende*, tiende*, "
    "ellevte, tolvte",
    "ukr": "перш*, друг*, трет*, четверт*|чверт*, п'ят*, шост*, сьом*, восьм*, дев'ят*, десят*, одинадцят*, дванадцят*",
    "bul": "първ*, втор*, трет*, четвърт*, пет*, шест*, седм*, осм*, девет*, десет*, единайсет*|единадесет*, "
    "дванайсет*|дванадесет*",
    "fin": "ensimmäi*, toinen|tois*, kolma*, neljä*|neljän*, viide*, kuude*, seitsemä*, kahdeksa*, yhdeksä*, kymmene*, "
    "yhdestoista|yhdennentoista, kahdestoista|kahdennentoista",
    "hun": "első*, másod*, harmad*, negyed*, ötöd*, hatod*, heted*, nyolcad*, kilenced*, tized*, tizenegyed*, "
    "tizenketted*",
    "nob": "første*, andre|annen|annet, tredje*, fjerde*, femte*, sjette*, sjuende*|syvende*, åttende*, niende*, "
    "tiende*, ellevte, tolvte",
    "ind": "pertama|kesatu, kedua, ketiga|sepertiga, keempat|seperempat, kelima, keenam, ketujuh, kedelapan, "
    "kesembilan, kesepuluh, kesebelas, kedua belas",
    "kor": "첫|첫째|첫번째, 둘째|두번째, 셋째|세번째, 넷째|네번째, 다섯째|다섯번째, 여섯째|여섯번째, 일곱째|일곱번째, "
    "여덟째|여덟번째, 아홉째|아홉번째, 열째|열번째, 열한번째, 열두번째",
    "por": "primeir*, segund*, terceir*|terço*|terça*, quarto*|quarta*, quint*, sext*, sétim*, oitav*, nono*|nona*, "
    "décim*, décimo primeiro|décima primeira|undécim*, décimo segundo|décima segunda|duodécim*",
    "slv": "prv*, drug*, tretj*, četrt*, peti|peta|peto|pete*, šest*, sedm*, osm*, devet*, deset*, enajst*, dvanajst*",
    "vie": "thứ nhất|đầu tiên|nhất, thứ nhì, thứ ba, thứ tư, thứ năm, thứ sáu, thứ bảy, thứ tám, thứ chín, thứ mười, "
    "thứ mười một, thứ mười hai",
    "pol": "pierwsz*, drug*, trzec*, czwart*|ćwier*, piąt*, szóst*, siódm*, ósm*, dziewiąt*, dziesiąt*, jedenast*, "
    "dwunast*",
    "tha": "แรก|ที่หนึ่ง, ที่สอง, ที่สาม, ที่สี่, ที่ห้า, ที่หก, ที่เจ็ด, ที่แปด, ที่เก้า, ที่สิบ, ที่สิบเอ็ด, ที่สิบสอง",
    "khm": "ទីមួយ|ដំបូង, ទីពីរ, ទីបី, ទីបួន, ទីប្រាំ, ទីប្រាំមួយ, ទីប្រាំពីរ, ទីប្រាំបី, ទីប្រាំបួន, ទីដប់, ទីដប់មួយ, ទីដប់ពីរ",
    "spa": "primer*, segund*, tercer*|tercio*, cuart*, quint*, sext*, séptim*|septim*, octav*, noven*, décim*|decim*, "
    "undécim*|undecim*|decimoprimer*, duodécim*|duodecim*|decimosegund*",
}
"""First to twelfth, and what names a part in the same word (quarter, terço)."""

HALVES: dict[str, str] = {
    "eng": "half|halves", "fra": "demi*|moitié*", "ces": "půl*|polovin*", "dan": "halv*", "ukr": "пів|півтор*|половин*",
    "bul": "половин*", "fin": "puoli*|puole*|puolta", "hun": "fél|fele*|felet", "nob": "halv*",
    "ind": "setengah*|separuh*", "jpn": "半|半分", "kor": "반|절반", "por": "meio|meia|metade*", "slv": "pol|polovic*",
    "vie": "nửa|rưỡi", "pol": "pół|połow*|półtor*", "tha": "ครึ่ง", "khm": "កន្លះ|ពាក់កណ្តាល|ពាក់កណ្ដាល",
    "spa": "medio*|media*|mitad*",
}  # fmt: skip

NOON: dict[str, str] = {
    "eng": "noon|midday, midnight", "fra": "midi, minuit", "por": "meio-dia, meia-noite",
    "ces": "poledne|poledn*, půlnoc*", "dan": "middag, midnat", "ukr": "полудень|полудн*|опівдні, опівночі|північ*",
    "bul": "обяд|пладне, полунощ", "fin": "keskipäiv*|puolipäiv*, keskiyö*|puoliyö*", "hun": "dél|délben|délig, éjfél*",
    "nob": "middag, midnatt", "ind": "tengah hari, tengah malam", "jpn": "正午, 真夜中", "kor": "정오, 자정",
    "slv": "poldne|poldan*, polnoč*", "vie": "giữa trưa|trưa, nửa đêm", "pol": "południe|południ*, północ*",
    "tha": "เที่ยง|เที่ยงวัน, เที่ยงคืน", "khm": "ថ្ងៃត្រង់, អធ្រាត្រ",
    "spa": "mediodía*, medianoche*",
}  # fmt: skip
"""Words for 12 o'clock at day and at night."""

SCALES: dict[str, dict[str, int]] = {
    "eng": {"hundred*": 10**2, "thousand*": 10**3, "lakh*": 10**5, "million*": 10**6, "mn": 10**6, "crore*": 10**7,
            "billion*": 10**9, "bn": 10**9, "trillion*": 10**12},
    "fra": {"cent*": 10**2, "mille": 10**3, "millier*": 10**3, "million*": 10**6, "milliard*": 10**9, "mds": 10**9,
            "billion*": 10**12},
    "ces": {"sto": 10**2, "sta": 10**2, "stě": 10**2, "set": 10**2, "stovk*": 10**2, "tis": 10**3, "tisíc*": 10**3,
            "mil": 10**6, "mio": 10**6, "milion*": 10**6, "milión*": 10**6, "mld": 10**9, "miliard*": 10**9,
            "bilion*": 10**12},
    "dan": {"hundred*": 10**2, "tusind*": 10**3, "mio": 10**6, "million*": 10**6, "mia": 10**9, "milliard*": 10**9,
            "billion*": 10**12},
    "ukr": {"сто": 10**2, "сот*": 10**2, "тис": 10**3, "тисяч*": 10**3, "млн": 10**6, "мільйон*": 10**6,
            "млрд": 10**9, "мільярд*": 10**9, "трлн": 10**12, "трильйон*": 10**12},
    "bul": {"сто": 10**2, "стот*": 10**2, "хил": 10**3, "хиляд*": 10**3, "млн": 10**6, "милион*": 10**6,
            "млрд": 10**9, "милиард*": 10**9, "трилион*": 10**12},
    "fin": {"sata*": 10**2, "sada*": 10**2, "tuhat*": 10**3, "tuhan*": 10**3, "milj": 10**6, "miljoon*": 10**6,
            "mrd": 10**9, "miljard*": 10**9, "biljoon*": 10**12},
    "hun": {"száz*": 10**2, "ezer*": 10**3, "ezr*": 10**3, "millió*": 10**6, "mrd": 10**9, "milliárd*": 10**9,
            "billió*": 10**12},
    "nob": {"hundre*": 10**2, "tusen*": 10**3, "mill": 10**6, "million*": 10**6, "mrd": 10**9, "milliard*": 10**9,
            "billion*": 10**12},
    "ind": {"ratus*": 10**2, "seratus": 10**2, "ribu*": 10**3, "seribu": 10**3, "rb": 10**3, "juta*": 10**6,
            "jt": 10**6, "miliar*": 10**9, "milyar*": 10**9, "triliun*": 10**12},
    "jpn": {"十": 10, "百": 10**2, "千": 10**3, "万": 10**4, "萬": 10**4, "億": 10**8, "兆": 10**12},
    "kor": {"십": 10, "백": 10**2, "천": 10**3, "만": 10**4, "억": 10**8, "조": 10**12},
    "por": {"cem": 10**2, "cento*": 10**2, "centena*": 10**2, "mil": 10**3, "milhar*": 10**3, "milhão": 10**6,
            "milhões": 10**6, "mi": 10**6, "bilhão": 10**9, "bilhões": 10**9, "bi": 10**9, "bilião": 10**12,
            "biliões": 10**12, "trilhão": 10**12, "trilhões": 10**12},
    "slv": {"sto": 10**2, "stotin*": 10**2, "tisoč*": 10**3, "mio": 10**6, "milijon*": 10**6, "milijard*": 10**9,
            "bilijon*": 10**12},
    "vie": {"trăm": 10**2, "nghìn": 10**3, "ngàn": 10**3, "vạn": 10**4, "triệu": 10**6, "tỷ": 10**9, "tỉ": 10**9},
    "pol": {"sto": 10**2, "set*": 10**2, "tys": 10**3, "tysi*": 10**3, "mln": 10**6, "milion*": 10**6, "mld": 10**9,
            "miliard*": 10**9, "bln": 10**12, "bilion*": 10**12},
    "tha": {"ร้อย": 10**2, "พัน": 10**3, "หมื่น": 10**4, "แสน": 10**5, "ล้าน": 10**6},
    "khm": {"រយ": 10**2, "ពាន់": 10**3, "ម៉ឺន": 10**4, "សែន": 10**5, "លាន": 10**6, "កោដិ": 10**7},
    "spa": {"cien": 10**2, "cient*": 10**2, "centenar*": 10**2, "mil": 10**3, "millar*": 10**3, "millón": 10**6,
            "millones": 10**6, "billón": 10**12, "billones": 10**12},
}  # fmt: skip
"""Words that multiply the number before them: 5 million, 500万, 2 mil milhões."""

MONTHS: dict[str, str] = {
    "eng": "january|jan, february|feb, march|mar, april|apr, may, june|jun, july|jul, august|aug, september|sept|sep, "
    "october|oct, november|nov, december|dec",
    "fra": "janvier, février, mars, avril, mai, juin, juillet, août, septembre, octobre, novembre, décembre",
    "ces": "leden|ledna|lednu, únor*, březen|březn*, duben|dubn*, květ*, červen|červn*, červenec|červenc*, "
    "srpen|srpn*, září, říj*, listopad*, prosin*",
    "dan": "januar, februar, marts, april, maj, juni, juli, august, september, oktober, november, december",
    "ukr": "січ*, лют*, берез*, квіт*, трав*, черв*, лип*, серп*, верес*, жовт*, листопад*, груд*",
    "bul": "януари, февруари, март, април, май, юни, юли, август, септември, октомври, ноември, декември",
    "fin": "tammiku*, helmiku*, maalisku*, huhtiku*, toukoku*, kesäku*, heinäku*, eloku*, syysku*, lokaku*, "
    "marrasku*, jouluku*",
    "hun": "január*, február*, március*, április*, május*, június*, július*, augusztus*, szeptember*, október*, "
    "november*, december*",
    "nob": "januar, februar, mars, april, mai, juni, juli, august, september, oktober, november, desember",
    "ind": "januari, februari, maret, april, mei, juni, juli, agustus, september, oktober, november, desember",
    "por": "janeiro, fevereiro, março, abril, maio, junho, julho, agosto, setembro, outubro, novembro, dezembro",
    "slv": "januar*, februar*, marec|marc*, april*, maj*, junij*, julij*, avgust*, septemb*, oktob*, novemb*, decemb*",
    "pol": "stycz*, lut*, marzec|marc*, kwiec*|kwietn*, maj*, czerw*, lipiec|lipc*, sierp*, wrze*, październik*, "
    "listopad*, grud*",
    "tha": "มกราคม, กุมภาพันธ์, มีนาคม, เมษายน, พฤษภาคม, มิถุนายน, กรกฎาคม, สิงหาคม, กันยายน, ตุลาคม, พฤศจิกายน, ธันวาคม",
    "khm": "មករា, កុម្ភៈ, មីនា, មេសា, ឧសភា, មិថុនា, កក្កដា, សីហា, កញ្ញា, តុលា, វិច្ឆិកា, ធ្នូ",
    "spa": "enero, febrero, marzo, abril, mayo, junio, julio, agosto, septiembre|setiembre, octubre, noviembre, "
    "diciembre",
}
"""Names of months; Japanese, Korean and Vietnamese number them."""

AFTERNOON: dict[str, str] = {
    "eng": r"p\.?\s?m\b|in the (?:afternoon|evening)|at night|tonight|this (?:afternoon|evening)",
    "fra": r"après-midi|soir", "ces": r"odpoledne|večer|v noci", "dan": r"eftermiddag|aften|om natten",
    "ukr": r"\bдня|вечора|вечер|ввечері|увечері|пополудні|вночі", "bul": r"следобед|вечер|на обяд|през нощта",
    "fin": r"iltapäiv|illalla|ilta|\bip\b|yöllä", "hun": r"délután|\beste|éjjel|\bdu\b",
    "nob": r"ettermiddag|kveld|om natten", "ind": r"siang|sore|malam|petang", "jpn": "午後|夕方|夜|晩",
    "kor": "오후|저녁|밤", "por": r"\btarde|noite",
    "slv": r"popoldne|zvečer|ponoči", "vie": r"chiều|tối|trưa|đêm", "pol": r"po południu|wieczor|wieczór|w nocy",
    "tha": r"บ่าย|เย็น|ค่ำ|ทุ่ม|กลางคืน", "khm": r"រសៀល|ល្ងាច|យប់",
    "spa": r"\btarde|noche",
}  # fmt: skip
"""Regular expressions of what makes an hour one after noon ("3 pm", 3 da tarde, 午後3時), wherever it stands."""
HOUR_WORDS = (
    r"(?:h|uhr|hours?|o'clock|heures?|horas?|hodin\w*|годин\w*|час\w*|ór\w*|godzin\w*|ur[aeoi]?|giờ|時|시|โมง|นาฬิกา)"
)
"""What may stand between an hour and the words for afternoon."""
