from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import fingerprint_of
from sdrrl_nemo.data.engines.translate.bergamot import DIRECTIONS, BergamotTranslator, _embedded


@pytest.fixture(scope="module")
def translator() -> BergamotTranslator:
    return BergamotTranslator(threads=2)


def test_both_directions(translator: BergamotTranslator) -> None:
    assert translator.translate(["How are you today?"], "eng", "por") == ["Como você está hoje?"]
    assert translator.translate(["Como você está hoje?"], "por", "eng") == ["How are you today?"]


def test_layout_code_and_addresses_survive(translator: BergamotTranslator) -> None:
    text = (
        "# Title\n\n1. Drink water. It is good!\n   - Run `ls -la` first.\n\n"
        "```python\nprint('good morning')\n```\nSee https://example.com/a?b=1, please.\n"
    )
    (out,) = translator.translate([text], "eng", "por")
    before, after = text.split("\n"), out.split("\n")
    assert len(before) == len(after)
    assert after[0].startswith("# T")
    assert after[2].startswith("1. ")
    assert after[3].startswith("   - ")
    assert "`ls -la`" in after[3]
    assert after[5:8] == before[5:8]
    assert "https://example.com/a?b=1" in after[8]
    assert "água" in out
    assert "Drink" not in out


def test_portuguese_no_is_left_alone(translator: BergamotTranslator) -> None:
    # The package's post-editing would turn "no ícone" into "não ícone".
    (out,) = translator.translate(["Click the accessibility icon on the top bar."], "eng", "por")
    assert " no ícone" in out


def test_no_sentence_is_lost_and_symbols_stay(translator: BergamotTranslator) -> None:
    texts = ["I like it. You like it. We like it. They like it.", "E = mc^2 is by Dr. Müller.", "I love you 😀!"]
    out = translator.translate(texts, "eng", "por")
    assert out[0].count(".") == 4
    assert "mc^2" in out[1]
    assert "Müller" in out[1]
    assert "😀" in out[2]
    same = ["", "  \n", "12 + 3 = 15", "日本"]
    assert translator.translate(same, "eng", "por") == same


def test_thread_count_changes_nothing(translator: BergamotTranslator) -> None:
    texts = [f"There are {n} books on the table. The {n}th is red." for n in range(12)]
    one = BergamotTranslator(threads=1)
    assert one.translate(texts, "eng", "por") == translator.translate(texts, "eng", "por")
    assert one.identity == translator.identity


def test_other_pairs_are_refused(translator: BergamotTranslator) -> None:
    with pytest.raises(SdrrlError, match="does not serve eng->jpn, only eng->por, por->eng"):
        translator.translate(["x"], "eng", "jpn")
    with pytest.raises(SdrrlError, match="use the ISO 639-3 code 'por'"):
        translator.translate(["x"], "eng", "pt")


def test_models_from_folders_and_the_way_through_english(translator: BergamotTranslator, tmp_path: Path) -> None:
    # A copy of the Portuguese model stands for another language's: what counts is which models a text goes through.
    folder = shutil.copytree(_embedded(DIRECTIONS["por", "eng"]), tmp_path / "fra-eng")
    engine = BergamotTranslator(threads=2, models={"fra-eng": str(folder)})
    assert engine.translate(["Como você está hoje?"], "fra", "eng") == ["How are you today?"]
    assert engine.translate(["Como você está hoje?\n"], "fra", "por") == ["Como você está hoje?\n"]
    assert fingerprint_of(engine, "fra", "eng") != fingerprint_of(translator, "por", "eng")
    assert fingerprint_of(engine, "eng", "por") == fingerprint_of(translator, "eng", "por")  # goes through no folder
    copy = pickle.loads(pickle.dumps(engine))
    assert copy.identity == engine.identity
    assert copy.translate(["Bom dia."], "fra", "eng") == translator.translate(["Bom dia."], "por", "eng")
    with pytest.raises(SdrrlError, match="does not serve eng->fra, only eng->por, fra->eng, por->eng"):
        engine.translate(["x"], "eng", "fra")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(SdrrlError, match=r"models.fra-eng: .* holds no tokenizer.json"):
        BergamotTranslator(models={"fra-eng": str(folder)})
    with pytest.raises(SdrrlError, match=r"models\.fraeng is no pair; write it as eng-ces"):
        BergamotTranslator(models={"fraeng": str(folder)})
