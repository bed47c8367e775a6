from __future__ import annotations

import json
import pickle
import random
import shutil
import sys
from pathlib import Path

import ctranslate2
import pytest
import tokenizers
import torch
from transformers import NllbTokenizer

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.transformers5 import is_version_5
from sdrrl_nemo.data.engines.base import TRANSLATORS, Translator, fingerprint_of
from sdrrl_nemo.data.engines.translate.nllb_ctranslate2 import NllbCTranslate2Translator
from sdrrl_nemo.data.engines.translate.nllb_hf import NllbHfTranslator
from sdrrl_nemo.data.text.languages import LANGUAGES
from tests.unit.engines.translate.tiny_nllb import LINES, POSITIONS, build

ENGLISH, CZECH, JAPANESE = LINES.values()
ENGINES = ("nllb_hf", "nllb_ctranslate2")


@pytest.fixture(scope="module")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model."""
    return build(tmp_path_factory.mktemp("models") / "tiny-nllb")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where conversions of the tiny model lie."""
    return tmp_path_factory.mktemp("ctranslate2")


def make(name: str, folder: Path, cache: Path, **options: object) -> Translator:
    """Either engine in float32."""
    if name == "nllb_ctranslate2":
        options |= {"cache": str(cache), "compute_type": "float32", "intra_threads": 1}
    return TRANSLATORS.create(name, model=str(folder), **options)


def sentences(count: int) -> list[str]:
    """Word salad of the lines that the model learnt, so that it is not sure of itself."""
    rng, words = random.Random(0), " ".join(ENGLISH).split()
    return [" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(count)]


@pytest.mark.parametrize("name", ENGINES)
def test_the_language_token_chooses_the_language_and_lines_stay(name: str, nllb: Path, cache: Path) -> None:
    engine = make(name, nllb, cache)
    assert engine.translate(ENGLISH, "eng", "ces") == CZECH
    assert engine.translate(ENGLISH, "eng", "jpn") == JAPANESE
    text = f"  {ENGLISH[0]}\n\n{ENGLISH[1]} \n"
    assert engine.translate([text, "", " \n"], "eng", "ces") == [f"  {CZECH[0]}\n\n{CZECH[1]} \n", "", " \n"]
    assert engine.translate([], "eng", "ces") == []
    assert engine.incomplete == 0


@pytest.mark.parametrize("name", ENGINES)
def test_batches_and_order_do_not_change_a_translation(name: str, nllb: Path, cache: Path) -> None:
    texts = sentences(20)
    whole = make(name, nllb, cache).translate(texts, "eng", "ces")
    assert make(name, nllb, cache, batch_tokens=40).translate(texts[::-1], "eng", "ces") == whole[::-1]
    assert len(set(whole)) > 3


@pytest.mark.parametrize("name", ENGINES)
def test_a_translation_that_does_not_end_is_empty_and_counted(name: str, nllb: Path, cache: Path) -> None:
    engine = make(name, nllb, cache)
    pieces = len(engine._tokenizer.tokenize(CZECH[4])) + 1  # with the end token, without the language token
    just, short = (make(name, nllb, cache, max_output_tokens=n) for n in (pieces, pieces - 1))
    assert just.translate([ENGLISH[4]], "eng", "ces") == [CZECH[4]]
    assert short.translate([ENGLISH[4], f"{ENGLISH[0]}\n{ENGLISH[4]}"], "eng", "ces") == ["", ""]
    assert (just.incomplete, short.incomplete) == (0, 2)


@pytest.mark.parametrize("name", ENGINES)
def test_a_line_over_the_limit_is_an_error_and_never_cut(name: str, nllb: Path, cache: Path) -> None:
    engine = make(name, nllb, cache)
    assert engine.max_units == POSITIONS
    line = " ".join(ENGLISH * 6)
    (units,) = engine.units([line], "eng")
    assert units > POSITIONS
    with pytest.raises(SdrrlError, match=rf"a line of {units} tokens exceeds the limit of 64.*translation\.segment"):
        engine.translate([ENGLISH[0], line], "eng", "ces")
    narrow = make(name, nllb, cache, max_input_tokens=3)
    with pytest.raises(SdrrlError, match="exceeds the limit of 3"):
        narrow.translate([ENGLISH[0]], "eng", "ces")


def test_both_engines_search_the_same_model(nllb: Path, cache: Path) -> None:
    """Greedy search gives the same tokens. Beam search may not: CTranslate2 leaves the language token out when it
    divides by the length and stops at four finished hypotheses, transformers when none can overtake; so the
    probability that each gives to CTranslate2's best hypothesis is compared instead."""
    texts = sentences(24)
    greedy = [make(name, nllb, cache, beams=1).translate(texts, "eng", "ces") for name in ENGINES]
    assert greedy[0] == greedy[1]

    hf, ct2 = NllbHfTranslator(str(nllb)), make("nllb_ctranslate2", nllb, cache)
    rows, tokenizer = hf._encode(texts, "eng_Latn"), hf._tokenizer
    found = ct2._model.translate_batch(
        [tokenizer.convert_ids_to_tokens(row) for row in rows],
        target_prefix=[["ces_Latn"]] * len(rows),
        beam_size=4,
        length_penalty=0,
        return_scores=True,
        return_end_token=True,
    )
    for row, result in zip(rows, found, strict=True):
        ids = tokenizer.convert_tokens_to_ids(result.hypotheses[0])
        start = torch.tensor([[tokenizer.eos_token_id, *ids[:-1]]])
        with torch.no_grad():
            logits = hf._model(input_ids=torch.tensor([row]), decoder_input_ids=start).logits[0]
        theirs = logits.log_softmax(-1)[torch.arange(1, len(ids)), torch.tensor(ids[1:])].sum()
        assert result.scores[0] == pytest.approx(float(theirs), abs=2e-4)


@pytest.mark.parametrize("name", ENGINES)
def test_candidates_are_the_hypotheses_of_the_beam(name: str, nllb: Path, cache: Path) -> None:
    """Compared with what the libraries themselves give for one text at a time."""
    engine, texts = make(name, nllb, cache), sentences(6)
    tokenizer = engine._tokenizer
    found = engine.candidates([*texts, ""], "eng", "ces", 3)
    assert found.pop() == [""] * 3
    assert engine.most_candidates == 4
    for text, own in zip(texts, found, strict=True):
        row = engine._encode([text], "eng_Latn")[0]
        if name == "nllb_hf":
            ids = engine._model.generate(
                input_ids=torch.tensor([row]),
                num_beams=4,
                num_return_sequences=3,
                forced_bos_token_id=tokenizer.convert_tokens_to_ids("ces_Latn"),
                decoder_start_token_id=tokenizer.eos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                max_new_tokens=POSITIONS - 1,
            )
            theirs = tokenizer.batch_decode(ids, skip_special_tokens=True)
        else:
            (result,) = engine._model.translate_batch(
                [tokenizer.convert_ids_to_tokens(row)], [["ces_Latn"]], beam_size=4, num_hypotheses=3
            )
            theirs = [tokenizer.decode(tokenizer.convert_tokens_to_ids(h[1:])) for h in result.hypotheses]
        assert own == [one.strip() for one in theirs]
        assert len(set(own)) > 1
    lines = engine.candidates([f"{texts[0]}\n {texts[1]}"], "eng", "ces", 3)
    assert lines == [[f"{a}\n {b}" for a, b in zip(*found[:2], strict=True)]]
    with pytest.raises(SdrrlError, match="5 candidates need as many beams, not 4"):
        engine.candidates(texts, "eng", "ces", 5)


def test_conversion_is_made_once_and_stands_alone(nllb: Path, tmp_path: Path) -> None:
    options = {"cache": str(tmp_path / "cache"), "compute_type": "int8"}
    engine = NllbCTranslate2Translator(str(nllb), **options)
    identity, out = engine.identity, engine.translate(ENGLISH, "eng", "ces")
    (folder,) = [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
    written = (folder / "model.bin").stat().st_mtime_ns
    copy = pickle.loads(pickle.dumps(engine))
    assert "_model" not in copy.__dict__
    assert copy.identity == identity
    assert copy.translate(ENGLISH, "eng", "ces") == out
    assert (folder / "model.bin").stat().st_mtime_ns == written
    alone = NllbCTranslate2Translator(str(shutil.copytree(folder, tmp_path / "alone")), compute_type="int8")
    assert alone.translate(ENGLISH, "eng", "ces") == out
    assert alone.max_units == POSITIONS
    (folder / "converted.json").unlink()  # a conversion that was cut short is made again
    NllbCTranslate2Translator(str(nllb), **options).translate(ENGLISH[:1], "eng", "ces")
    assert (folder / "converted.json").is_file()


def test_a_folder_with_the_sentencepiece_file_alone_keeps_its_languages(nllb: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(nllb, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    for name in ENGINES:
        engine = make(name, folder, tmp_path / "cache")
        if is_version_5():  # which would encode a space at the end of a line that 4.57 leaves out
            with pytest.raises(
                SdrrlError, match=r"add the published model's tokenizer\.json or install transformers 4\.57"
            ):
                engine.translate(ENGLISH, "eng", "ces")
            continue
        assert type(engine._tokenizer) is NllbTokenizer
        assert engine.translate(ENGLISH, "eng", "ces") == CZECH
        assert [engine._language_id(entry.flores) for entry in LANGUAGES.values()]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_line_is_encoded_as_tokenizer_json_says(nllb: Path, tmp_path: Path, legacy: bool) -> None:
    """Published files split at white space first, which transformers 5 forgets where it builds the tokenizer anew."""
    folder = shutil.copytree(nllb, tmp_path / "model")
    stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    stored["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "WhitespaceSplit"}, stored["pre_tokenizer"]],
    }
    (folder / "tokenizer.json").write_text(json.dumps(stored), encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    kept = {"tokenizer_class": "NllbTokenizer", "src_lang": settings["src_lang"], "legacy_behaviour": legacy}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept), encoding="utf-8")
    file = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    english, end = file.token_to_id("eng_Latn"), file.token_to_id("</s>")
    lines = [*ENGLISH, *CZECH, "two  birds", "birds\u200b", "the </s> cat", "ａ\tb é", "\u3000猫は", "<mask> dva"]
    whole = [file.encode(line, add_special_tokens=False).ids for line in lines]
    expected = [[*ids, end, english] if legacy else [english, *ids, end] for ids in whole]
    for name in ENGINES:
        assert make(name, folder, tmp_path / "cache")._encode(lines, "eng_Latn") == expected


def test_lost_language_tokens_are_an_error(nllb: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(nllb, tmp_path / "model")
    stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    stored["added_tokens"] = [t for t in stored["added_tokens"] if t["content"] != "ces_Latn"]
    (folder / "tokenizer.json").write_text(json.dumps(stored), encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if is_version_5() and name != "tokenizer_config.json":
            continue  # which writes that file alone
        facts = json.loads((folder / name).read_text(encoding="utf-8"))
        facts.pop("ces_Latn", None)
        for key in {"additional_special_tokens", "extra_special_tokens"} & set(facts):
            facts[key] = ["eng_Latn", "jpn_Jpan"] if facts[key] else facts[key]
        decoder = facts.get("added_tokens_decoder", {})
        for number in [k for k, v in decoder.items() if v["content"] == "ces_Latn"]:
            del decoder[number]
        (folder / name).write_text(json.dumps(facts), encoding="utf-8")
    engine = NllbHfTranslator(str(folder))
    with pytest.raises(SdrrlError, match="does not know the language token 'ces_Latn'"):
        engine.translate(ENGLISH, "eng", "ces")


def test_the_fingerprint_follows_weights_and_options(nllb: Path, cache: Path, tmp_path: Path) -> None:
    other = shutil.copytree(nllb, tmp_path / nllb.name)
    plain = {name: fingerprint_of(make(name, nllb, cache), "eng", "ces") for name in ENGINES}
    for name in ENGINES:
        assert fingerprint_of(make(name, other, cache), "eng", "ces") == plain[name]
        assert fingerprint_of(make(name, nllb, cache, beams=1), "eng", "ces") != plain[name]
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    for name in ENGINES:
        assert fingerprint_of(make(name, other, cache), "eng", "ces") != plain[name]


def test_an_edited_conversion_is_made_anew(nllb: Path, tmp_path: Path) -> None:
    options = {"cache": str(tmp_path / "cache"), "compute_type": "float32"}
    out = NllbCTranslate2Translator(str(nllb), **options).translate(ENGLISH, "eng", "ces")
    (folder,) = [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
    whole = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(whole[:-4] + b"\0\0\0\0")
    assert NllbCTranslate2Translator(str(nllb), **options).translate(ENGLISH, "eng", "ces") == out
    assert (folder / "model.bin").read_bytes() == whole


def test_bad_options_are_one_sentence(nllb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENGINES:
        with pytest.raises(SdrrlError, match=r"holds no model \(no config.json\)"):
            TRANSLATORS.create(name, model=str(tmp_path))
        with pytest.raises(SdrrlError, match="beams, batch_tokens and max_output_tokens >= 1"):
            TRANSLATORS.create(name, model=str(nllb), beams=0)
        assert "CC-BY-NC-4.0" in TRANSLATORS.create(name, model=str(nllb)).licence
    with pytest.raises(SdrrlError, match="compute_type 'int9' is unknown; did you mean 'int8'"):
        NllbCTranslate2Translator(str(nllb), compute_type="int9")
    with pytest.raises(SdrrlError, match="dtype 'half' is unknown"):
        NllbHfTranslator(str(nllb), dtype="half")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(SdrrlError, match="is a 'llama' model; an NLLB-200 folder"):
        NllbHfTranslator(str(tmp_path))
    (tmp_path / "model.bin").write_bytes(b"\x01\x02")
    broken = NllbCTranslate2Translator(str(tmp_path), tokenizer=str(nllb))
    with pytest.raises(SdrrlError, match="CTranslate2 cannot load it"):
        broken.translate(ENGLISH, "eng", "ces")
    if not ctranslate2.get_cuda_device_count():
        with pytest.raises(SdrrlError, match="CTranslate2 cannot load it"):
            make("nllb_ctranslate2", nllb, tmp_path / "c", device="cuda").translate(["a"], "eng", "ces")
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(SdrrlError, match=r"'ctranslate2' cannot be imported.*sdrrl-nemo\[translate\]"):
        NllbCTranslate2Translator(str(nllb), cache=str(tmp_path / "d")).translate(["a"], "eng", "ces")
