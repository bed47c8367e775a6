"""The task files for lm-evaluation-harness ask and score what this project's own runner asks and scores."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.eval.config import NAMES, BenchmarkConfig
from sdrrl_nemo.eval.evaluation import plan
from sdrrl_nemo.eval.task import Task
from tests.versions import HAS_OFFICIAL_ROUGE, WITHOUT_OFFICIAL_ROUGE
from tools.bench.evaluation_speed import make_items

ROOT = Path(__file__).resolve().parents[3]
TASKS = ROOT / "configs" / "eval" / "lm_eval"
DATA = str(ROOT / "data" / "benchmarks")


class Loader(yaml.SafeLoader):
    """YAML with the harness's ``!function`` tag."""


Loader.add_constructor("!function", lambda loader, node: f"!function {node.value}")


@pytest.fixture(scope="module")
def utils() -> ModuleType:
    """utils.py as the harness imports it: by path."""
    spec = importlib.util.spec_from_file_location("lm_eval_utils", TASKS / "utils.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(path: Path) -> dict[str, Any]:
    """A task with what it includes."""
    own = yaml.load(path.read_text(encoding="utf-8"), Loader)
    included = load(TASKS / own.pop("include")) if "include" in own else {}
    return {**included, **own}


FILES = sorted(p for p in TASKS.glob("*.yaml") if p.name != "por.yaml")


def function(utils: ModuleType, name: str) -> Any:
    assert name.startswith("!function utils.")
    return getattr(utils, name.removeprefix("!function utils."))


@pytest.fixture(scope="module")
def own() -> dict[str, Task]:
    names = [*NAMES, "include", "global_mmlu", "global_mmlu_lite", "multiloko", "mgsm", "flores_plus", "m_arenahard"]
    names = [name for name in names if name != "xlsum" or HAS_OFFICIAL_ROUGE]
    config = BenchmarkConfig(data_dir=DATA, bleu_tokenize="13a", names=[*names, "language_confusion"])
    config.language_confusion.language_identifier.name = "cld3"
    return {t.name: t for t in plan(config)[0]}


def runner_name(task: str) -> str:
    """``sdrrl_flores_eng_por`` -> ``flores.eng-por``."""
    rest = task.removeprefix("sdrrl_")
    if rest.startswith("flores_"):
        name, one, other = rest.rsplit("_", 2)
        return f"{name}.{one}-{other}"
    name, lang = rest.rsplit("_", 1)
    if name.startswith("language_confusion_"):
        return f"language_confusion.{name.rpartition('_')[2]}-sample.{lang}"
    return f"{name}.{lang}"


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=WITHOUT_OFFICIAL_ROUGE if "xlsum" in p.stem else (), id=p.stem) for p in FILES],
)
def test_task_asks_what_the_runner_asks(path: Path, utils: ModuleType, own: dict[str, Task]):
    task = load(path)
    docs = function(utils, task["custom_dataset"])(
        data_dir=DATA, **task["metadata"], **task["dataset_kwargs"], **({"bleu_tokenize": "13a"})
    )["test"]
    name = runner_name(task["task"])
    if name.startswith("belebele_pq"):
        config = BenchmarkConfig(data_dir=DATA, names=["belebele"])
        config.prompts.belebele = "lm_eval"
        ours = {t.name: t for t in plan(config)[0]}[name.replace("_pq", "")]
    else:
        ours = own[name]
    asked = [getattr(r, "prompt", getattr(r, "context", "")) for r in ours.requests]
    assert [d["prompt"] for d in docs] == asked
    if task["output_type"] == "multiple_choice":
        choices = tuple(task["target_delimiter"] + c for c in task["doc_to_choice"])
        assert {r.choices for r in ours.requests} == {choices}  # type: ignore[union-attr]
    else:
        assert {r.max_new_tokens for r in ours.requests} == {task["generation_kwargs"]["max_gen_toks"]}  # type: ignore[union-attr]


def test_every_function_and_task_named_is_there(utils: ModuleType):
    group = load(TASKS / "por.yaml")
    tasks = {load(p)["task"] for p in FILES}
    assert set(group["task"]) == {t for t in tasks if "_pq_" not in t}
    for path in FILES:
        for value in [*load(path).values(), *(m["aggregation"] for m in load(path)["metric_list"])]:
            if isinstance(value, str) and value.startswith("!function"):
                assert callable(function(utils, value))


@WITHOUT_OFFICIAL_ROUGE
def test_scores_are_the_runners(utils: ModuleType):
    limits = {"mkqa": 40, "xlsum": 12, "flores": 40}
    config = BenchmarkConfig(data_dir=DATA, bleu_tokenize="13a", names=[*NAMES, "multiloko"], limits=limits)
    own = {t.name: t for t in plan(config)[0]}

    def docs(file: str) -> list[dict[str, Any]]:
        task = load(TASKS / file)
        make = function(utils, task["custom_dataset"])
        rows = list(make(data_dir=DATA, **task["dataset_kwargs"], bleu_tokenize="13a")["test"])
        return rows[: config.limits.get(file.partition("_")[0])]

    def answers(rows: list[dict[str, Any]]) -> list[str]:
        """Right, half right and wrong in turn."""
        return [(r["reference"], r["reference"][: len(r["reference"]) // 2], "sim")[n % 3] for n, r in enumerate(rows)]

    for file, name, score, keys in (
        ("mkqa_por.yaml", "mkqa.por", utils.score_mkqa, ("f1", "em")),
        ("xlsum_por.yaml", "xlsum.por", utils.score_xlsum, ("rouge1", "rougeL")),
        ("multiloko_por.yaml", "multiloko.por", utils.score_multiloko, ("em", "f1", "chrf")),
    ):
        rows = docs(file)
        texts = answers(rows)
        ours = own[name].score([{"text": t} for t in texts]).metrics
        theirs = [score(r, [t]) for r, t in zip(rows, texts, strict=True)]
        for key in keys:
            assert math.fsum(x[key] for x in theirs) / len(theirs) == pytest.approx(ours[key])
            assert 0 < float(ours[key] or 0) < 100
    rows = docs("flores_eng_por.yaml")
    texts = answers(rows)
    found = own["flores.eng-por"].score([{"text": t} for t in texts]).metrics
    items = [utils.score_flores(r, [t]) for r, t in zip(rows, texts, strict=True)]
    assert utils.corpus_bleu([x["bleu"] for x in items]) == pytest.approx(found["bleu"])
    assert utils.corpus_chrf([x["chrf"] for x in items]) == pytest.approx(found["chrf"])


def test_language_confusion_is_the_runners(utils: ModuleType, own: dict[str, Task]) -> None:
    pytest.importorskip("gcld3")
    task = load(TASKS / "language_confusion_monolingual_por.yaml")
    docs = list(utils.language_confusion(data_dir=DATA, **task["dataset_kwargs"], identifier="cld3")["test"])
    portuguese = "Primeiro misture a farinha com a água e deixe a massa descansar durante uma hora na mesa da cozinha."
    english = "First mix the flour with the water and let the dough rest for an hour on the kitchen table."
    texts = [portuguese, english, f"{portuguese}\n{english}", "Sim.", portuguese, portuguese]
    ours = own["language_confusion.monolingual-sample.por"].score([{"text": t} for t in texts]).metrics
    items = [utils.score_language_confusion(d, [t]) for d, t in zip(docs, texts, strict=True)]
    found = {key: getattr(utils, name)([x[key] for x in items]) for key, name in RATES.items()}
    assert (found["lpr"], found["line_accuracy"]) == (pytest.approx(ours["lpr"]), pytest.approx(ours["line_accuracy"]))
    assert 0 < found["lpr"] < found["line_accuracy"] < 100
    assert math.isnan(found["wpr"])  # Portuguese words are not judged
    rows = [(source, lang, item) for source, (_, lang, item) in zip("aabbbb", (x["lpr"] for x in items), strict=True)]
    assert utils.line_pass_rate(rows) == pytest.approx((50.0 + 200 / 3) / 2)  # a mean over sources, not over answers


RATES = {"lpr": "line_pass_rate", "line_accuracy": "line_accuracy", "wpr": "word_pass_rate"}


def test_arena_answers_are_judged_together_or_not_at_all(
    utils: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def compare(judge: Any, pairs: list[tuple[str, str, str]]) -> list[tuple[str | None, str | None]]:
        calls.append(judge._served.name)
        return [("A<B" if "good" in own else "A>B", "A>B" if "good" in own else "A<B") for _, _, own in pairs]

    monkeypatch.setattr(utils.Judge, "compare", compare)
    unjudged = list(utils.arena_questions(data_dir=DATA, lang="por")["test"])
    rows = [utils.score_arena(d, ["x"])["win_rate"] for d in unjudged]
    assert math.isnan(utils.arena_win_rate(rows)) and not calls
    place = tmp_path / "por.jsonl"
    place.write_text("".join(json.dumps({"question_id": d["id"], "answer": "base"}) + "\n" for d in unjudged))
    judge = {"model": "judge", "baseline": str(tmp_path / "{language}.jsonl")}
    docs = utils.arena_questions(data_dir=DATA, lang="por", arena_hard=judge)["test"]
    answers = ["good"] * 2 + ["bad"] * (len(docs) - 2)
    rows = [utils.score_arena(d, [t])["win_rate"] for d, t in zip(docs, answers, strict=True)]
    assert {row[1] for row in rows} == {"base"}
    assert utils.arena_win_rate(rows) == pytest.approx(100 * 2 / len(docs))
    assert utils.arena_official(rows) == pytest.approx(100 * 2 / len(docs))
    assert calls == ["judge"]  # once for both metrics
    for wrong, said in (({"modle": "judge"}, "'modle' is unknown; did you mean 'model'"), ({"model": "x"}, "baseline")):
        with pytest.raises(SdrrlError, match=said):
            utils.arena_questions(data_dir=DATA, lang="por", arena_hard=wrong)


def test_off_target_rate_leaves_out_short_answers(utils: ModuleType):
    pytest.importorskip("gcld3")
    doc = {"lang": "por"}
    values = [
        utils.score_off_target(doc, [t])["off_target"]
        for t in (
            "Sim.",
            "A biblioteca pública da cidade velha abre às nove da manhã e não fecha antes das seis da tarde.",
            "The public library in the old town opens at nine in the morning and closes at six in the evening.",
        )
    ]
    assert math.isnan(values[0]) and values[1:] == [0.0, 1.0]
    assert utils.rate(values) == 50.0
    assert math.isnan(utils.rate([math.nan]))


def test_benchmark_items_are_the_same_every_time(tmp_path: Path):
    make_items(tmp_path / "a", 80)
    make_items(tmp_path / "b", 80)
    for name in ("eng_Latn", "por_Latn"):
        raw = (tmp_path / "a" / "Belebele" / f"{name}.jsonl").read_bytes()
        assert raw == (tmp_path / "b" / "Belebele" / f"{name}.jsonl").read_bytes()
        assert len(raw.splitlines()) == 40
    config = BenchmarkConfig(data_dir=str(tmp_path / "a"), names=["belebele"])
    assert [len(t.requests) for t in plan(config)[0]] == [40, 40]


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed here")
def test_harness_runs_the_tasks(base_folder: Path, tmp_path: Path):
    model = tmp_path / "model"
    shutil.copytree(base_folder, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    command = [
        sys.executable, "-m", "lm_eval", "run", "--include_path", str(TASKS), "--tasks", "sdrrl_por",
        "--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--device", "cpu", "--limit", "2",
        "--apply_chat_template", "--gen_kwargs", "max_gen_toks=4",
        "--metadata", '{"bleu_tokenize": "13a", "identifier": "cld3"}',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for task in load(TASKS / "por.yaml")["task"]:
        assert task in done.stdout
