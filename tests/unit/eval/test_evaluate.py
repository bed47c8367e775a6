"""The whole evaluation on a tiny model: restart, errors in one sentence, the report at the end."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS, LanguageIdentifier
from sdrrl_nemo.eval.backends import local
from sdrrl_nemo.eval.model_folder import open_model_folder
from tools.evaluate import main

YAML = """
base_model: {base}
trained_model: {trained}
data_dir: {data}
output_dir: {out}
target_language: por
title: "A <b>small</b> & quick test"
loss: {{questions: 0, pairs: 3}}
generation: {{questions: 4, pairs: 3, max_new_tokens: 6, batch_size: 3, dtype: float32}}
language_identifier: {{name: vowel_counter}}
off_target: {{min_letters: 1}}
alignment: {{perplexity: 3}}
goals: {{bootstrap_samples: 100}}
samples: 2
"""


@pytest.fixture(scope="module", autouse=True)
def identifier():
    """A real, if simple-minded, identifier: texts with an `a` are Portuguese, all others English."""
    if "vowel_counter" not in list(LANGUAGE_IDENTIFIERS):

        @LANGUAGE_IDENTIFIERS.register("vowel_counter")
        class VowelCounter(LanguageIdentifier):
            def identify(self, texts):
                return [("por" if "a" in t.lower() else "eng", 1.0) for t in texts]


@pytest.fixture
def config(tmp_path: Path, data_dir: Path, base_folder: Path, trained_folder: Path) -> Path:
    path = tmp_path / "eval.yaml"
    path.write_text(
        YAML.format(base=base_folder, trained=trained_folder, data=data_dir, out=tmp_path / "out"), encoding="utf-8"
    )
    return path


def evaluate(config: Path, *overrides: str) -> int:
    return run(main, ["--config", str(config), *overrides])


class Checker(HTMLParser):
    """Tags must close; nothing may be fetched from elsewhere."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        assert "src" not in named
        assert tag != "script"
        if "href" in named:
            assert named["href"].startswith(("#", "data:")), named
            self.targets.append(named["href"])
        if "id" in named:
            self.ids.add(named["id"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_page(page: str) -> None:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert {t[1:] for t in checker.targets if t.startswith("#")} <= checker.ids
    for outside in ("http://", "https://", "url(", "@import"):
        assert outside not in page.replace("http://www.w3.org/2000/svg", "")


def test_results_restart_and_report(config, tmp_path, monkeypatch, capsys):
    assert evaluate(config, "run_dir=/nowhere/run") == 0
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert {r["id"] for r in results["loss"]} == {
        "loss.questions.eng-eng", "loss.questions.por-por", "loss.questions.eng-por", "loss.questions.por-eng",
        "loss.translation.eng-por", "loss.translation.por-eng",
    }  # fmt: skip
    assert [r["samples"] for r in results["loss"]] == [5, 5, 5, 5, 3, 3]
    assert {r["id"] for r in results["translation"]} == {
        "BLEU.eng-por", "chrF.eng-por", "BLEU.por-eng", "chrF.por-eng"
    }  # fmt: skip
    assert len(results["goals"]) == 3
    rows = [json.loads(x) for x in (out / "generations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4 + 4 + 3 + 3
    assert rows[0]["base"]["text"] != rows[0]["trained"]["text"]
    page = (out / "report.html").read_text(encoding="utf-8")
    check_page(page)
    assert "A &lt;b&gt;small&lt;/b&gt; &amp; quick test" in page
    assert "No training run was found" in page
    assert "No stats.json was found" in page
    printed = capsys.readouterr().out
    assert "BLEU signature: nrefs:1" in printed
    assert "11 tasks, 0 already done" in printed

    def refuse(*_):
        raise AssertionError("the model was loaded although every task was done")

    before = json.loads((out / "results.json").read_text(encoding="utf-8"))
    with monkeypatch.context() as patch:
        patch.setattr(local, "load_model", refuse)
        assert evaluate(config, "run_dir=/nowhere/run") == 0
    again = json.loads((out / "results.json").read_text(encoding="utf-8"))
    del before["provenance"], again["provenance"]  # names the command and the state of the checkout
    assert again == before
    assert "11 already done" in capsys.readouterr().out

    lost = next(out.glob("*/tasks/*/answers.por.*.json"))
    lost.unlink()
    assert evaluate(config) == 0
    assert lost.is_file()
    again = json.loads((out / "results.json").read_text(encoding="utf-8"))
    for section in ("loss", "translation", "off_target", "alignment", "goals"):
        assert again[section] == results[section]
    assert evaluate(config, "generation.max_new_tokens=3") == 0
    assert len(list(out.glob("*/tasks/*/answers.por.*.json"))) == 4


def test_stopped_evaluation_keeps_what_was_done(config, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(local, "greedy", stop)
        assert evaluate(config) == 130
    done = sorted(p.name.split(".")[0] for p in (tmp_path / "out").rglob("*.json"))
    assert done == ["alignment"] + ["loss"] * 6
    assert evaluate(config) == 0


def test_the_same_model_twice_shows_no_change(config, tmp_path, base_folder):
    assert evaluate(config, f"trained_model={base_folder}") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    measures = results["loss"] + results["translation"] + results["off_target"] + results["alignment"]["measures"]
    assert {m["verdict"] for m in measures} <= {"no clear change", "not measured"}
    assert all(m["difference"] in (0, None) for m in measures)


def errors_with(capsys, code: int) -> str:
    assert code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert len(text.strip().splitlines()) == 1
    return text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("base_model=/nowhere/model", "/nowhere/model: no such folder"),
        ("data_dir=/nowhere", "/nowhere/heldout/eng-por/questions.jsonl: no held-out file here"),
        ("target_language=ces", "heldout/eng-ces/questions.jsonl: no held-out file here (pairs there: eng-por)"),
        ("target_language=pro", "unknown language 'pro'"),
        ("target_language=eng", "must differ"),
        ("language_identifier.name=vowel_conter", "did you mean 'vowel_counter'?"),
        ("generation.dtype=bfloat", "did you mean 'bfloat16'?"),
        ("generation.max_new_token=3", "did you mean 'generation.max_new_tokens'?"),
        ("generation.batch_size=0", "generation.batch_size is 0; it must be at least 1"),
        ("alignment.perplexity=99", "alignment.perplexity is 99"),
        ("bleu_tokenize=nonsense", "bleu_tokenize: sacreBLEU cannot use the tokeniser 'nonsense'"),
    ],
)
def test_bad_settings_are_one_sentence(config, capsys, override, message):
    assert message in errors_with(capsys, evaluate(config, override))


def test_broken_held_out_rows_are_named(config, data_dir, capsys):
    path = data_dir / "heldout" / "eng-por" / "pairs.jsonl"
    good = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([good[0], "{broken", *good[1:]]), encoding="utf-8")
    assert f"{path}, line 2: not valid JSON" in errors_with(capsys, evaluate(config))
    path.write_text("\n".join([good[0], json.dumps({"key": "1", "source": "x", "target": " "})]), encoding="utf-8")
    assert "line 2: field 'target' must be a non-empty text" in errors_with(capsys, evaluate(config))


def test_another_tokenizer_is_refused(config, tmp_path, capsys, model_folder):
    other = model_folder(tmp_path / "other", seed=2, extra_token=True)
    capsys.readouterr()  # transformers 5 shows a bar while it writes
    assert "its tokenizer" in errors_with(capsys, evaluate(config, f"trained_model={other}"))


def test_damaged_weights_are_refused(config, tmp_path, trained_folder, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(trained_folder, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "model.safetensors: cut: it has" in errors_with(capsys, evaluate(config, f"trained_model={broken}"))
    weights.unlink()
    assert "no weights" in errors_with(capsys, evaluate(config, f"trained_model={broken}"))


def test_fingerprint_follows_the_weights(base_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(base_folder, copy)
    assert open_model_folder("base", copy).fingerprint == open_model_folder("base", base_folder).fingerprint
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert open_model_folder("base", copy).fingerprint != open_model_folder("base", base_folder).fingerprint
