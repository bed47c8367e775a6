"""A tiny but real NLLB folder that translates twelve English or French lines into sixteen languages.

Languages of one script share their lines: what counts is that the language token decides, that the script is right, and
that a line's length is about its source's. Texts of under forty letters are not identified, so none is off-target.
"""

from __future__ import annotations

from pathlib import Path

import sentencepiece
import torch
from transformers import M2M100ForConditionalGeneration, NllbTokenizerFast

from sdrrl_nemo.data.text.languages import LANGUAGES, PAPER_LANGUAGES
from tests.unit.engines.translate.tiny_nllb import save_tokenizer, untrained

LINES = {
    "eng": "the cat sleeps here|I read a good book|our water is cold|she opens the door|"
    "two birds sing now|rain fell last night|my tea is too hot|bread needs some salt|"
    "he walks to school|the moon is so far|green leaves fall|we all like music",
    "fra": "le chat dort ici|je lis un bon livre|notre eau est froide|elle ouvre la porte|"
    "deux oiseaux chantent|hier il a plu|mon thé est chaud|le pain veut du sel|"
    "il va vite au lycée|la lune est loin|des feuilles tombent|nous aimons jouer",
    "Latn": "o gato dorme aqui|leio um bom livro|nossa água é fria|ela abre uma porta|"
    "cantam dois pardais|choveu esta noite|meu chá está quente|pão pede algum sal|"
    "ele anda à escola|longe fica a lua|folhas verdes caem|gostamos de música",
    "Cyrl": "кіт тут тихо спить|читаю добру книгу|вода дуже холодна|вона відчиняє двері|"
    "два птахи співають|вночі йшов дощ|мій чай гарячий|хліб потребує солі|"
    "він іде до школи|місяць так далеко|листя вже падає|ми любимо музику",
    "Jpan": "猫はここで寝る|良い本を読んだ|水がとても冷たい|彼女は戸を開ける|"
    "鳥が二羽歌う|昨夜は雨が降った|私のお茶は熱い|パンに塩がいる|"
    "彼は学校へ歩く|月はとても遠い|緑の葉が落ちる|皆音楽が好きだ",
    "Hang": "고양이가 여기서 잔다|좋은 책을 읽는다|우리 물은 차갑다|그녀가 문을 연다|"
    "새 두 마리가 운다|어젯밤 비가 왔다|내 차는 뜨겁다|빵에 소금이 든다|"
    "그는 학교에 간다|달은 아주 멀다|푸른 잎이 진다|음악을 좋아한다",
    "Thai": "แมวนอนอยู่ที่นี่|ฉันอ่านหนังสือดี|น้ำของเราเย็นมาก|เธอเปิดประตูบ้าน|"
    "นกสองตัวร้องเพลง|เมื่อคืนฝนตกหนัก|ชาของฉันร้อนมาก|ขนมปังต้องใส่เกลือ|"
    "เขาเดินไปโรงเรียน|พระจันทร์อยู่ไกล|ใบไม้เขียวร่วง|เราชอบฟังดนตรี",
    "Khmr": "ឆ្មាគេងនៅទីនេះ|ខ្ញុំអានសៀវភៅល្អ|ទឹករបស់យើងត្រជាក់|នាងបើកទ្វារផ្ទះ|"
    "បក្សីពីរច្រៀង|យប់មិញមានភ្លៀង|តែរបស់ខ្ញុំក្តៅ|នំប៉័ងត្រូវការអំបិល|"
    "គាត់ដើរទៅសាលា|ព្រះចន្ទនៅឆ្ងាយ|ស្លឹកបៃតងធ្លាក់|យើងចូលចិត្តតន្ត្រី",
}
"""Language or script -> twelve lines."""


def lines_of(code: str) -> list[str]:
    """The twelve lines of a language."""
    entry = LANGUAGES[code]
    return LINES.get(code, LINES.get(entry.flores.partition("_")[2], "")).split("|")


def build(folder: Path, steps: int = 140) -> Path:
    """Train SentencePiece and, seeded, the model."""
    folder.mkdir(parents=True)
    corpus = folder / "lines.txt"
    corpus.write_text("\n".join(line for lines in LINES.values() for line in lines.split("|")), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=700,
        hard_vocab_limit=False,
        model_type="bpe",
        character_coverage=1.0,
        minloglevel=2,
    )
    (folder / "sentencepiece.bpe.vocab").unlink()
    corpus.unlink()
    tokenizer = save_tokenizer(folder)
    model = untrained(tokenizer, width=64, decoder_layers=1)
    _train(model, tokenizer, steps)
    model.save_pretrained(folder)
    return folder


def _train(model: M2M100ForConditionalGeneration, tokenizer: NllbTokenizerFast, steps: int) -> None:
    sources, targets, weights = [], [], []
    for target in (code for code in PAPER_LANGUAGES if code not in ("eng", "fra")):
        for source in ("eng", "fra") if target in ("ind", "jpn", "kor") else ("eng",):
            tokenizer.src_lang, tokenizer.tgt_lang = LANGUAGES[source].flores, LANGUAGES[target].flores
            sources += [tokenizer(line).input_ids for line in lines_of(source)]
            targets += [tokenizer(text_target=line).input_ids for line in lines_of(target)]
            # Ten languages share the Latin lines: without this the other scripts would hardly be seen.
            weights += [0.2 if LANGUAGES[target].scripts == ("Latn",) else 1.0] * len(lines_of(target))
    pad = tokenizer.pad_token_id
    inputs = torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in sources], batch_first=True, padding_value=pad)
    labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(t) for t in targets], batch_first=True, padding_value=-100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(steps):
        chosen = torch.multinomial(torch.tensor(weights), 64)
        mask = (inputs[chosen] != pad).long()
        model(input_ids=inputs[chosen], attention_mask=mask, labels=labels[chosen]).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
