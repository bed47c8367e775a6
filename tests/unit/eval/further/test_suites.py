"""Benchmarks beside the paper's on the shipped samples: what is asked, what is scored, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.evaluation import plan
from sdrrl_nemo.eval.readers import further_files as files
from sdrrl_nemo.eval.readers.official_files import NotCovered
from sdrrl_nemo.eval.task import Task
from tests.launch import ROOT

SAMPLES = ROOT / "data" / "benchmarks"
NAMES = ["include", "global_mmlu", "global_mmlu_lite", "multiloko", "mgsm", "m_arenahard", "language_confusion"]


def planned(data: Path = SAMPLES, names: list[str] = NAMES, **options: Any) -> tuple[dict[str, Task], dict[str, str]]:
    tasks, skipped = plan(BenchmarkConfig(data_dir=str(data), names=names, **options))
    return {t.name: t for t in tasks}, skipped


def answer(text: str) -> dict[str, Any]:
    return {"text": text, "tokens": 1, "finished": True}


def test_every_benchmark_has_its_tasks_in_both_languages() -> None:
    pytest.importorskip("fasttext")
    tasks, skipped = planned()
    assert skipped == {"include.eng": "INCLUDE-44 has no English"}
    both = {f"{n}.{lang}" for n in NAMES[1:-1] for lang in ("eng", "por")}
    confusion = {f"language_confusion.{x}" for x in ("monolingual-sample.eng", "monolingual-sample.por")}
    assert set(tasks) == both | confusion | {"include.por", "language_confusion.crosslingual-sample.por"}
    assert {len(t.requests) for t in tasks.values()} == {6, 8}


def test_four_options_are_asked_as_the_harness_asks_and_split_by_culture() -> None:
    tasks, _ = planned(names=["global_mmlu", "include"])
    task = tasks["global_mmlu.por"]
    first: Any = task.requests[0]
    assert first.context == "Qual destes números é primo?\nA. 21\nB. 27\nC. 29\nD. 33\nAnswer:"
    assert first.choices == (" A", " B", " C", " D")
    found = task.score([[-1.0 if k == 2 else -2.0 for k in range(4)]] * 8)  # C each time
    assert found.metrics == {"accuracy": 37.5, "accuracy_ca": 50.0, "accuracy_cs": 25.0}
    assert [i["reference"] for i in found.items] == list("CBACDACB")
    assert tasks["include.por"].score([[0.0, -1.0, -1.0, -1.0]] * 6).metrics == {"accuracy": pytest.approx(100 / 3)}


def test_short_answers() -> None:
    tasks, _ = planned(names=["multiloko", "mgsm"])
    ours = tasks["multiloko.por"]
    assert ours.requests[0].prompt.startswith("Answer the following question in Portuguese")  # type: ignore[union-attr]
    found = ours.score([answer(x) for x in ("Vinte e seis!", "no Rio", "x", "7", "O real", "y")])
    assert found.metrics["em"] == 50.0 and 50 < float(found.metrics["f1"] or 0) < 70
    maths = tasks["mgsm.por"]
    assert "'Resposta:'" in maths.requests[0].prompt  # type: ignore[union-attr]
    texts = ("3 + 4\nResposta: 7", "14", "Resposta: 60.", "Resposta: 5", "Resposta: 75 reais", "Resposta: 1,20")
    assert maths.score([answer(t) for t in texts]).metrics == {
        "accuracy": pytest.approx(400 / 6),
        "answered": pytest.approx(500 / 6),
    }


def test_language_confusion_of_answers() -> None:
    pytest.importorskip("fasttext")
    task = planned(names=["language_confusion"])[0]["language_confusion.monolingual-sample.por"]
    portuguese = "Primeiro misture a farinha com a água e deixe a massa descansar."
    english = "First mix the flour with the water and let it rest."
    texts = [portuguese, english, f"{portuguese}\n{english}", "Sim.", portuguese, portuguese]
    found = task.score([answer(t) for t in texts])
    assert [i["score"] for i in found.items] == [1.0, 0.0, 0.0, None, 1.0, 1.0]
    assert found.metrics == {"lpr": 60.0, "line_accuracy": pytest.approx(70.0)}
    assert task.score([answer("Sim.")] * 6).metrics == {"lpr": None}


class Swapped:
    """A judge that prefers the longer answer, whatever its place, and says so; one reply has no verdict."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def side_by_side(self, shown: list[str], ask: Any) -> list[str | None]:
        from sdrrl_nemo.eval.scorers.arena_hard import read_verdict

        self.asked = shown
        return [read_verdict("[[A>B]]" if len(_part(x, "A")) > len(_part(x, "B")) else "[[B>>A]]") for x in shown]


def _part(shown: str, who: str) -> str:
    return shown.partition(f"[Answer of assistant {who}]\n")[2].partition(f"\n[End of {who}]")[0]


def test_a_judge_sees_each_pair_in_both_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Swapped()
    monkeypatch.setattr("sdrrl_nemo.eval.suites.further.arena_hard.ServedModel", lambda *_: judge)
    rows = [{"id": f"sample-{n}", "prediction": "12345"} for n in range(1, 7)]
    place = tmp_path / "results.json"
    place.write_text(json.dumps({"tasks": {f"m_arenahard.{x}": {"items": rows} for x in ("eng", "por")}}))
    own = BenchmarkConfig().arena_hard
    own.model, own.baseline = "judge", str(place)
    task = planned(names=["m_arenahard"], arena_hard=own)[0]["m_arenahard.por"]
    found = task.score([answer(t) for t in ("1", "1234567", "1234567", "1", "1", "1234567")])
    assert found.metrics == {"win_rate": 50.0, "arena_hard": 50.0} and found.extra == {"judged": 6, "ties": 0}
    assert [i["score"] for i in found.items] == [0.0, 1.0, 1.0, 0.0, 0.0, 1.0]
    assert len(judge.asked) == 12 and [_part(judge.asked[k], "A") for k in (0, 1)] == ["12345", "1"]
    place.write_text(
        json.dumps({"tasks": {"m_arenahard.por": {"items": rows[:2]}, "m_arenahard.eng": {"items": rows}}})
    )
    with pytest.raises(SdrrlError, match=r"no answer to question 'sample-3' of m_arenahard\.por"):
        planned(names=["m_arenahard"], arena_hard=own)
    own.baseline = ""
    with pytest.raises(SdrrlError, match=r"arena_hard\.model needs arena_hard\.baseline"):
        planned(names=["m_arenahard"], arena_hard=own)


def test_answers_without_a_judge_are_kept_unscored() -> None:
    found = planned(names=["m_arenahard"])[0]["m_arenahard.eng"].score([answer("x")] * 6)
    assert found.metrics == {"win_rate": None, "arena_hard": None}
    assert [i["score"] for i in found.items] == [None] * 6


def test_parquet_of_the_hub_and_shards_named_as_there(tmp_path: Path) -> None:
    ours = files.read_global_mmlu(SAMPLES, "por")
    rows = [json.loads(x) for x in (SAMPLES / "Global-MMLU/pt/test.jsonl").read_text("utf-8").splitlines()]
    folder = tmp_path / "Global-MMLU" / "pt"
    folder.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet")
    assert files.read_global_mmlu(tmp_path, "por") == ours


@pytest.mark.parametrize(
    ("file", "change", "read", "says"),
    [
        (
            "Global-MMLU/pt/test.jsonl",
            ('"answer": "C"', '"answer": "E"'),
            "global_mmlu",
            "line 1: field 'answer' is 'E'",
        ),
        ("include-base-44/Portuguese/test.jsonl", ('"option_a"', '"option"'), "include", "field 'option_a'"),
        ("multiloko/portuguese/dev.jsonl", ('"targets": [', '"targets": 1, "x": ['), "multiloko", "field 'targets'"),
        ("mgsm/mgsm_pt.tsv", ("\t", " "), "mgsm", "line 1: a problem, a tab and a whole number"),
        ("m-ArenaHard/pt/test.jsonl", ('"sample-2"', '"sample-1"'), "arena_hard", "'sample-1' is there twice"),
        (
            "language-confusion/test_sets/monolingual/sample/pt.csv",
            ("prompt", "text"),
            "language_confusion",
            "'prompt'",
        ),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, file: str, change: tuple[str, str], read: str, says: str) -> None:
    for part in {file.split("/", maxsplit=1)[0]}:
        shutil.copytree(SAMPLES / part, tmp_path / part)
    path = tmp_path / file
    path.write_text(path.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(SdrrlError) as e:
        getattr(files, f"read_{read}")(tmp_path, "por")
    assert says in str(e.value) and "\n" not in str(e.value)


def test_what_a_data_set_lacks_is_said() -> None:
    for read, lang in ((files.read_include, "tha"), (files.read_multiloko, "fin"), (files.read_mgsm, "kor")):
        with pytest.raises(NotCovered, match="has no"):
            read(SAMPLES, lang)
    with pytest.raises(SdrrlError, match=r"mgsm_fr\.tsv .*no such file; put MGSM there"):
        files.read_mgsm(SAMPLES, "fra")
