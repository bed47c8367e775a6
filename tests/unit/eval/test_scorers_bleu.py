"""BLEU with FLORES-200's pieces and chrF++ against sacreBLEU's own command, with a SentencePiece model trained here."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sacrebleu
import sentencepiece
from sacrebleu.tokenizers import tokenizer_spm

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.languages import LANGUAGES, PAPER_LANGUAGES
from sdrrl_nemo.eval.scorers import bleu
from tests.launch import ROOT

CASES = json.loads((ROOT / "tests/data/scorers/rouge.json").read_text(encoding="utf-8"))["cases"]
HYPOTHESES = [" ".join(c["prediction"].split()) for c in CASES]
REFERENCES = [c["reference"] for c in CASES]
PAPER = "nrefs:1|case:mixed|eff:no|tok:flores200|smooth:exp|version:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What $SACREBLEU names, with a small SentencePiece model of all 18 languages."""
    root = tmp_path_factory.mktemp("sacrebleu")
    (root / "models").mkdir()
    corpus = root / "corpus.txt"
    corpus.write_text("\n".join(REFERENCES), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(root / "spm"), vocab_size=1500, character_coverage=1.0, minloglevel=2
    )
    (root / "spm.model").rename(root / "models" / bleu.MODEL)
    (root / "hypotheses.txt").write_text("\n".join(HYPOTHESES) + "\n", encoding="utf-8")
    (root / "references.txt").write_text("\n".join(REFERENCES) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(folder))
    return bleu.model_path()


def command(folder: Path, *options: str) -> str:
    """What sacreBLEU's own command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", "references.txt", "-i", "hypotheses.txt", "-tok", "flores200", *options],
        cwd=folder,
        env={**os.environ, "SACREBLEU": str(folder), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_every_sentence_equals_the_command(folder: Path, model: Path) -> None:
    assert len(CASES) >= 200
    assert {c["lang"] for c in CASES} == set(PAPER_LANGUAGES)
    found = [bleu.score_item(h, r) for h, r in zip(HYPOTHESES, REFERENCES, strict=True)]
    for metric, ours in (("bleu", [x.bleu for x in found]), ("chrf", [x.chrf for x in found])):
        options = ("-m", metric, "-sl", "-b", "-w", "12", *(["--chrf-word-order", "2"] if metric == "chrf" else []))
        lines = command(folder, *options).split()
        assert [f"{x:.12f}" for x in ours] == lines
    assert sum(0 < x.bleu < 99 for x in found) > 150


def test_the_corpus_equals_the_command_and_the_papers_signature(folder: Path, model: Path) -> None:
    found = bleu.corpus_score(HYPOTHESES, REFERENCES)
    theirs = json.loads(command(folder, "-m", "bleu", "chrf", "--chrf-word-order", "2", "-w", "12"))
    assert [x["name"] for x in theirs] == ["BLEU", "chrF2++"]
    assert [x["score"] for x in theirs] == [round(found.bleu, 12), round(found.chrf, 12)]
    assert [x["signature"] for x in theirs] == [found.signature, found.chrf_signature]
    assert found.signature == PAPER + sacrebleu.__version__
    order = list(range(len(CASES)))[::-1]
    assert bleu.corpus_score([HYPOTHESES[i] for i in order], [REFERENCES[i] for i in order]).bleu == pytest.approx(
        found.bleu, abs=1e-12
    )


def test_pieces_matter(model: Path) -> None:
    thai = next(c for c in CASES if c["lang"] == "tha" and 0 < c["rougeL"] < 1)
    pieces = bleu.score_item(thai["prediction"], thai["reference"])
    words = bleu.score_item(thai["prediction"], thai["reference"], tokenize="13a")
    assert pieces.bleu != words.bleu
    assert pieces.chrf == words.chrf


def test_a_figure_by_hand() -> None:
    # 4 of 5 unigrams, 3 of 4, 2 of 3 and 1 of 2 n-grams match, lengths are equal
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu.corpus_score(["a b c d e"], ["a b c d f"], "13a").bleu == pytest.approx(expected)
    assert math.isclose(bleu.corpus_score(["x y z w"], ["x y z w"], "13a").chrf, 100)


def test_a_missing_model_is_one_sentence_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer_spm, "download_file", lambda *_: pytest.fail("it would download"))
    path = tmp_path / "models" / "flores200sacrebleuspm"
    with pytest.raises(SdrrlError, match=r"put .* at") as caught:
        bleu.corpus_score(["a"], ["a"])
    assert str(path) in str(caught.value) and "SACREBLEU" in str(caught.value)
    path.parent.mkdir()
    path.write_bytes(b"")
    with pytest.raises(SdrrlError, match=r"put .* at"):
        bleu.score_item("a", "a")
    path.write_bytes(b"no model")
    with pytest.raises(SdrrlError, match="cannot use the tokeniser 'flores200'"):
        bleu.score_item("a", "a")


def test_a_tokeniser_that_would_fail_fails_before_anything_is_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(SdrrlError, match=r"put .* at"):
        bleu.check()
    with pytest.raises(SdrrlError, match="cannot use the tokeniser 'flores300'"):
        bleu.check("flores300")
    bleu.check("13a")


def test_what_cannot_be_scored() -> None:
    with pytest.raises(SdrrlError, match="1 translations for 2 references"):
        bleu.corpus_score(["a"], ["a", "b"], "13a")
    with pytest.raises(SdrrlError, match="at least one translation"):
        bleu.corpus_score([], [], "13a")
    with pytest.raises(SdrrlError, match="cannot use the tokeniser 'flores300'"):
        bleu.corpus_score(["a"], ["a"], "flores300")


def test_the_tokeniser_follows_the_language(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    found = {lang: bleu.tokeniser(lang) for lang in (*LANGUAGES, "zho")}
    cut_by_character = {"jpn", "tha", "khm", "kor"}
    assert found == {x: "zh" if x == "zho" else "char" if x in cut_by_character else "13a" for x in found}
    japanese, other = "図書館は九時に開きます。", "図書館は十時に開きます。"
    assert bleu.score_item(other, japanese, found["jpn"]).bleu > 50
    assert bleu.corpus_score([other], [japanese], "13a").bleu == 0.0  # whole sentences as words
    for lang in (*cut_by_character, "zho"):
        for wanted in ("13a", "intl", "none"):
            with pytest.raises(SdrrlError, match=f"bleu_tokenize: '{wanted}' cuts at spaces"):
                bleu.tokeniser(lang, wanted)
    assert [bleu.tokeniser(x, "ja-mecab") for x in ("jpn", "por", "kor")] == ["ja-mecab", "13a", "char"]
    assert [bleu.tokeniser(x, "char") for x in ("jpn", "por")] == ["char", "char"]
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(folder))
    assert {bleu.tokeniser(x) for x in LANGUAGES} == {"flores200"}
    assert bleu.tokeniser("por", "13a") == "13a"


def test_a_sentencepiece_model_elsewhere_is_named_by_a_key(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    named = str(folder / "models" / bleu.MODEL)
    assert bleu.tokeniser("jpn", spm=named) == "flores200"
    found = bleu.corpus_score(HYPOTHESES, REFERENCES, spm=named)
    theirs = json.loads(command(folder, "-m", "bleu", "-w", "12"))
    assert (round(found.bleu, 12), found.signature) == (theirs["score"], theirs["signature"])
    with pytest.raises(SdrrlError, match="bleu_spm: no SentencePiece model at"):
        bleu.check("flores200", str(tmp_path / "nowhere"))
    with pytest.raises(SdrrlError, match=r"tok:flores101 needs its SentencePiece model; put https://.*\.model at"):
        bleu.check("flores101")


def test_no_other_module_makes_a_bleu() -> None:
    root = Path(__file__).resolve().parents[3]
    files = [p for d in ("sdrrl_nemo", "tools", "configs") for p in (root / d).rglob("*.py")]
    makers = [p.name for p in files if re.search(r"\bBLEU\(|sentence_bleu|corpus_bleu\(.*sacre", p.read_text("utf-8"))]
    assert len(files) > 100 and makers == ["bleu.py"]
