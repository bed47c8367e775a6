"""The shipped samples and the readers of the official formats."""

from __future__ import annotations

import gzip
import json
import shutil
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_jsonl
from sdrrl_nemo.data.text.languages import LANGUAGES
from sdrrl_nemo.eval.config import FETCHED, BenchmarkConfig, check
from sdrrl_nemo.eval.evaluation import plan
from sdrrl_nemo.eval.readers import further_files
from sdrrl_nemo.eval.readers import official_files as readers
from sdrrl_nemo.eval.readers.hub import HUB, fetch
from sdrrl_nemo.eval.readers.official_files import NotCovered

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "data" / "benchmarks"
SCRIPTS = SAMPLES / "scripts"
MISSING = {
    "mkqa": {"ces", "ukr", "bul", "ind", "slv"},
    "bactrian": {"bul", "dan", "hun", "nob"},
    "xlsum": {"ces", "dan", "bul", "fin", "hun", "nob", "slv", "pol", "khm"},
}
"""Languages of the table that a data set does not have."""


def test_samples_have_the_counts_their_readme_states_and_are_parallel():
    eng, por = (readers.read_belebele(SAMPLES, lang) for lang in ("eng", "por"))
    assert len(eng) == len(por) == 150
    assert [(x.id, x.correct) for x in eng] == [(x.id, x.correct) for x in por]
    assert {x.correct for x in eng} == {0, 1, 2, 3}
    assert len({x.passage for x in eng}) == 55
    for lang in ("eng", "por"):
        assert len(readers.read_flores(SAMPLES, lang)) == 151
        assert len(readers.read_xlsum(SAMPLES, lang)) == 154
        assert len(readers.read_instructions(SAMPLES, lang, "dolly")) == 154
        questions, skipped = readers.read_mkqa(SAMPLES, lang)
        assert (len(questions), skipped) == (155, 5)
    assert [x.id for x in readers.read_xlsum(SAMPLES, "eng")] == [x.id for x in readers.read_xlsum(SAMPLES, "por")]


def test_samples_hold_every_text_once_in_both_languages():
    instructions = [readers.read_instructions(SAMPLES, lang) for lang in ("eng", "por")]
    assert [x.id for x in instructions[0]] == [x.id for x in instructions[1]]
    for lang, prompts in zip(("eng", "por"), instructions, strict=True):
        articles, questions = readers.read_xlsum(SAMPLES, lang), readers.read_mkqa(SAMPLES, lang)[0]
        for texts in (
            [x.prompt for x in prompts],
            [x.text for x in articles],
            [x.summary for x in articles],
            [x.question for x in questions],
            readers.read_flores(SAMPLES, lang),
            [x.passage + x.question for x in readers.read_belebele(SAMPLES, lang)],
        ):
            assert len(texts) >= 150 and len(set(texts)) == len(texts)
            assert all(unicodedata.is_normalized("NFC", text) for text in texts)


@pytest.mark.parametrize("lang", ["eng", "por"])
def test_belebele_gives_the_right_answer_away_neither_by_place_nor_by_length(lang: str):
    items = readers.read_belebele(SAMPLES, lang)
    places = Counter(x.correct for x in items)
    assert max(places.values()) - min(places.values()) <= 1
    assert all(len(set(x.choices)) == 4 for x in items)
    right = [len(x.choices[x.correct]) for x in items]
    wrong = [[len(c) for n, c in enumerate(x.choices) if n != x.correct] for x in items]
    assert sum(right) <= sum(map(sum, wrong)) / 3
    longest = sum(one > max(others) for one, others in zip(right, wrong, strict=True))
    assert longest <= len(items) / 4


@pytest.mark.parametrize("lang", ["eng", "ces", "jpn", "kor", "tha", "khm"])
def test_samples_in_other_scripts(lang: str):
    assert len(readers.read_belebele(SCRIPTS, lang)) == 2
    assert len(readers.read_flores(SCRIPTS, lang)) == 6
    assert len(readers.read_instructions(SCRIPTS, lang)) == 4
    if lang == "ces":
        with pytest.raises(NotCovered, match="mkqa has no Czech"):
            readers.read_mkqa(SCRIPTS, lang)
    else:
        assert len(readers.read_mkqa(SCRIPTS, lang)[0]) == 4
    if lang in readers.XLSUM_LANGUAGES:
        assert len(readers.read_xlsum(SCRIPTS, lang)) == 1


def test_no_benchmark_prompt_is_a_training_instruction():
    trained = {
        " ".join(row["instruction"].lower().split()).rstrip("?.")
        for _, row in read_jsonl(ROOT / "data" / "instructions_en.jsonl")
    }
    prompts = [x.question for x in readers.read_mkqa(SAMPLES, "eng")[0]]
    prompts += [x.prompt.split("\n")[0] for x in readers.read_instructions(SAMPLES, "eng") if "\n" not in x.prompt]
    prompts += [x.question for x in readers.read_belebele(SAMPLES, "eng")]
    same = [p for p in prompts if " ".join(p.lower().split()).rstrip("?.") in trained]
    assert same == []


def test_mkqa_reads_gzip_and_collects_aliases(tmp_path: Path):
    (tmp_path / "mkqa").mkdir()
    raw = (SAMPLES / "mkqa" / "mkqa.jsonl").read_bytes()
    (tmp_path / "mkqa" / "mkqa.jsonl.gz").write_bytes(gzip.compress(raw))
    found, skipped = readers.read_mkqa(tmp_path, "por")
    assert (found, skipped) == readers.read_mkqa(SAMPLES, "por")
    by_question = {x.question: x for x in found}
    assert by_question["quantos dias tem um ano bissexto"].answers == ("366.0", "366", "366 dias")


def test_bactrian_reads_gzip(tmp_path: Path):
    folder = tmp_path / "Bactrian-X" / "data"
    folder.mkdir(parents=True)
    (folder / "pt.json.gz").write_bytes(gzip.compress((SAMPLES / "Bactrian-X" / "data" / "pt.json").read_bytes()))
    assert readers.read_instructions(tmp_path, "por") == readers.read_instructions(SAMPLES, "por")
    with pytest.raises(SdrrlError, match=r"0 item\(s\); at least 2"):
        readers.read_instructions(tmp_path, "por", "alpaca")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(SAMPLES, tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("file", "change", "read", "says"),
    [
        ("Belebele/por_Latn.jsonl", ('"correct_answer_num": "3"', '"correct_answer_num": "5"'), "belebele", "is '5'"),
        ("Belebele/por_Latn.jsonl", ('"question":', '"query":'), "belebele", "line 1: field 'question' must be"),
        ("Belebele/por_Latn.jsonl", ('"question_number": 2', '"question_number": 1'), "belebele", "is there twice"),
        ("flores200_dataset/devtest/por_Latn.devtest", ("\n", "\n\n"), "flores", "line 2: empty"),
        ("xlsum/portuguese_test.jsonl", ('"summary"', '"headline"'), "xlsum", "line 1: field 'summary'"),
        ("mkqa/mkqa.jsonl", ('"pt": [', '"pt_br": ['), "mkqa", "no question or answers in 'pt'"),
        ("mkqa/mkqa.jsonl", ('"queries"', '"questions"'), "mkqa", "needs 'example_id', 'queries' and 'answers'"),
        ("Bactrian-X/data/pt.json", ('"instruction"', '"prompt"'), "bactrian", "field 'instruction'"),
        ("Bactrian-X/data/pt.json", ("[", ""), "bactrian", "cannot be read"),
    ],
)
def test_damage_is_one_sentence_with_file_and_line(copy: Path, file: str, change, read: str, says: str):
    path = copy / file
    path.write_text(path.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(SdrrlError) as e:
        readers.READERS[read](copy, "por")
    assert says in str(e.value) and path.name in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["belebele", "flores", "flores_plus", "xlsum", "mkqa", "bactrian"])
def test_missing_data_says_what_to_put_where(tmp_path: Path, name: str):
    with pytest.raises(SdrrlError) as e:
        readers.READERS[name](tmp_path, "por")
    assert str(tmp_path / readers.relative_path(name, "por")) in str(e.value)
    assert readers.SOURCES[name] in str(e.value)


def test_every_language_has_a_place_or_a_reason():
    for lang in LANGUAGES:
        for name in readers.READERS:
            if lang in MISSING.get(name, set()):
                with pytest.raises(NotCovered, match="has no"):
                    readers.relative_path(name, lang)
            else:
                assert not readers.relative_path(name, lang).is_absolute()


@pytest.mark.parametrize("name", ["belebele", "xlsum"])
def test_fetch_writes_the_official_format(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    """A local folder stands in for the hub: datasets.load_dataset opens both alike."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    source = SAMPLES / readers.relative_path(name, "por")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    split = "test"
    shutil.copy(source, mirror / f"{split}.jsonl")
    configuration = "por_Latn" if name == "belebele" else "portuguese"
    files = f"  data_files:\n  - split: {split}\n    path: {split}.jsonl\n"
    (mirror / "README.md").write_text(f"---\nconfigs:\n- config_name: {configuration}\n{files}---\n")
    written = fetch(name, "por", tmp_path / "data", {name: str(mirror)})
    assert readers.READERS[name](tmp_path / "data", "por") == readers.READERS[name](SAMPLES, "por")
    before = written.stat().st_mtime_ns
    shutil.rmtree(mirror)
    fetch(name, "por", tmp_path / "data", {name: str(mirror)})  # what is on disk is not fetched again
    assert written.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("name", "configuration", "split"),
    [
        ("flores_plus", "por_Latn", "devtest"),
        ("include", "Portuguese", "test"),
        ("global_mmlu", "pt", "test"),
        ("global_mmlu_lite", "pt", "test"),
        ("m_arenahard", "pt", "test"),
    ],
)
def test_fetch_of_the_further_sets(
    tmp_path: Path, name: str, configuration: str, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the suites read of what was fetched is what they read of the file itself."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folders = {"flores_plus": "flores_plus/devtest", "include": "include-base-44/Portuguese"}
    folders |= {"global_mmlu": "Global-MMLU/pt", "global_mmlu_lite": "Global-MMLU-Lite/pt"}
    folder = folders.get(name, "m-ArenaHard/pt")
    [source] = (SAMPLES / folder).glob("por_Latn.jsonl" if name == "flores_plus" else "*")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    shutil.copy(source, mirror / "rows.jsonl")
    files = f"  data_files:\n  - split: {split}\n    path: rows.jsonl\n"
    (mirror / "README.md").write_text(f"---\nconfigs:\n- config_name: {configuration}\n{files}---\n")
    read = {
        "flores_plus": readers.read_flores_plus,
        "include": further_files.read_include,
        "global_mmlu": further_files.read_global_mmlu,
        "global_mmlu_lite": lambda data, lang: further_files.read_global_mmlu(data, lang, lite=True),
        "m_arenahard": further_files.read_arena_hard,
    }[name]
    written = fetch(name, "por", tmp_path / "data", {name: str(mirror)})
    assert written.relative_to(tmp_path / "data") == Path(folder, source.name)
    assert read(tmp_path / "data", "por") == read(SAMPLES, "por")


def test_fetch_of_mgsm_and_its_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's rows have the number beside a worked answer; languages that MGSM lacks are skipped, not fetched."""
    asked = []
    rows = [{"question": "Two  and\ntwo?", "answer": None, "answer_number": 4}]
    rows.append({"question": "A thousand?", "answer": "Step by step", "answer_number": 1000})

    def load(*names: str, **options: str) -> list[dict[str, Any]]:
        asked.append((*names, *options.values()))
        return rows

    monkeypatch.setattr("datasets.load_dataset", load)
    config = BenchmarkConfig(data_dir=str(tmp_path), names=["mgsm"], languages=["fra", "por"], download=True)
    tasks, skipped = plan(config)
    assert asked == [("juletxara/mgsm", code, "test", "refs/convert/parquet") for code in ("en", "fr")]
    assert [t.name for t in tasks] == ["mgsm.eng", "mgsm.fra"]
    assert skipped == {"mgsm.por": "MGSM has no Portuguese"}
    found = further_files.read_mgsm(tmp_path, "fra")
    assert [(x.question, x.targets) for x in found] == [("Two and two?", ("4",)), ("A thousand?", ("1000",))]


def test_every_set_on_a_hub_can_be_replaced_by_a_mirror() -> None:
    assert set(HUB) == {*readers.READERS, *further_files.FETCHED}
    assert set(FETCHED) == {*HUB, "language_confusion"}
    check(BenchmarkConfig(output_dir="x", hub=dict.fromkeys(FETCHED, "mirror")))


def test_fetch_failure_says_what_to_do(tmp_path: Path):
    with pytest.raises(SdrrlError) as e:
        fetch("flores", "por", tmp_path, {"flores": str(tmp_path / "nowhere")})
    assert "cannot be fetched" in str(e.value) and "por_Latn.devtest" in str(e.value)


def test_hub_mkqa_types_become_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [json.loads(line) for line in (SAMPLES / "mkqa" / "mkqa.jsonl").read_text(encoding="utf-8").splitlines()]
    from sdrrl_nemo.eval.readers import hub

    for row in rows:
        for answers in row["answers"].values():
            for a in answers:
                a["type"] = hub.MKQA_TYPES.index(a["type"])
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: rows)
    fetch("mkqa", "por", tmp_path, {})
    assert readers.read_mkqa(tmp_path, "por") == readers.read_mkqa(SAMPLES, "por")


@pytest.mark.parametrize("name", ["belebele", "flores", "flores_plus", "xlsum", "mkqa", "bactrian"])
def test_every_file_is_read_gzipped_too(tmp_path: Path, name: str):
    place = readers.relative_path(name, "por")
    packed = tmp_path / place.parent / (place.name + ".gz")
    packed.parent.mkdir(parents=True)
    packed.write_bytes(gzip.compress((SAMPLES / place).read_bytes()))
    assert readers.READERS[name](tmp_path, "por") == readers.READERS[name](SAMPLES, "por")
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(SdrrlError, match=r"\.gz: cannot be read .*; fetch the file again"):
        readers.READERS[name](tmp_path, "por")


def test_rows_are_read_from_parquet_and_broken_at_line_feeds_alone(tmp_path: Path):
    rows = [row for _, row in read_jsonl(SAMPLES / "xlsum" / "portuguese_test.jsonl")]
    rows[0]["text"] += "\u2028\x85 Fim."
    (tmp_path / "xlsum").mkdir()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "xlsum" / "portuguese_test.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    packed = readers.read_xlsum(tmp_path, "por")
    assert packed[0].text.endswith("\u2028\x85 Fim.") and len(packed) == len(rows)
    (tmp_path / "xlsum" / "portuguese_test.jsonl.gz").unlink()
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "xlsum" / "portuguese_test-00000-of-00001.parquet")
    assert readers.read_xlsum(tmp_path, "por") == packed


def test_a_passage_is_its_link_and_its_split(tmp_path: Path):
    rows = [row for _, row in read_jsonl(SAMPLES / "Belebele" / "por_Latn.jsonl")][:2]
    same = [
        {**row, "link": "https://x", "question_number": 1, "split": s}
        for row, s in zip(rows, ("dev", "test"), strict=True)
    ]
    path = tmp_path / "Belebele" / "por_Latn.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(map(json.dumps, same)), encoding="utf-8")
    assert [x.id for x in readers.read_belebele(tmp_path, "por")] == ["https://x#dev#1", "https://x#test#1"]
    path.write_text("\n".join(json.dumps({**row, "split": "dev"}) for row in same), encoding="utf-8")
    with pytest.raises(SdrrlError, match="'https://x#dev#1' is there twice"):
        readers.read_belebele(tmp_path, "por")


def test_flores_plus_is_ordered_by_id(tmp_path: Path):
    path = tmp_path / "flores_plus" / "devtest" / "por_Latn.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"id": 10, "text": "Dez."}\n{"id": 9, "text": "Nove."}\n', encoding="utf-8")
    assert readers.read_flores_plus(tmp_path, "por") == ["Nove.", "Dez."]
    path.write_text('{"id": "x", "text": "Dez."}\n', encoding="utf-8")
    with pytest.raises(SdrrlError, match="line 1: field 'id' is 'x'"):
        readers.read_flores_plus(tmp_path, "por")
