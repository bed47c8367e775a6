"""Servers and vLLM through stand-ins that compute with the real tiny model, and the whole run on top of them."""

from __future__ import annotations

import functools
import importlib
import json
import shutil
import sys
import threading
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS, LanguageIdentifier
from sdrrl_nemo.data.engines.quality.comet import CometScorer
from sdrrl_nemo.eval.backends import local
from sdrrl_nemo.eval.backends.decoding import greedy
from sdrrl_nemo.eval.backends.interface import BACKENDS
from sdrrl_nemo.eval.config import NAMES, BenchmarkConfig, kind_of
from sdrrl_nemo.eval.evaluation import measure_model
from sdrrl_nemo.eval.model_folder import ModelFolder, load_model, open_model_folder
from sdrrl_nemo.eval.scorers import comet
from sdrrl_nemo.eval.suites.mkqa import binary_answer
from tests.launch import ROOT
from tests.versions import WITHOUT_OFFICIAL_ROUGE
from tools.evaluate import main


def nothing(done: float) -> None:
    """Progress nobody watches."""


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    path = Path(shutil.copytree(base_folder, tmp_path_factory.mktemp("long") / "model"))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    return path


@pytest.fixture(scope="module")
def folder(long_folder: Path) -> ModelFolder:
    return open_model_folder("model", long_folder)


@pytest.fixture(scope="module")
def model(folder: ModelFolder) -> Any:
    return load_model(folder, torch.device("cpu"))


@pytest.fixture
def config() -> BenchmarkConfig:
    return BenchmarkConfig(
        data_dir=str(ROOT / "data" / "benchmarks"),
        bleu_tokenize="13a",
        device="cpu",
        limits={name: 2 for name in NAMES if name != "alignment"} | {"alignment": 6},
        max_new_tokens={"belebele_letter": 3, "mkqa": 4, "xlsum": 6, "flores": 6, "off_target": 24},
    )


@pytest.fixture(scope="module")
def server(folder: ModelFolder, model: Any) -> Iterator[str]:
    """The completions protocol of a vLLM server as far as it is used here: token ids in, echo with logprobs."""

    class Handler(BaseHTTPRequestHandler):
        def _send(self, reply: dict[str, Any]) -> None:
            raw = json.dumps(reply).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(raw)

        def do_GET(self) -> None:
            self._send({"data": [{"id": "tiny"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            ids = body["prompt"]
            if body.get("echo"):
                with torch.inference_mode():
                    logp = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
                values = [None, *(float(logp[j, ids[j + 1]]) for j in range(len(ids) - 1)), -0.5]  # and the new token
                self._send({"choices": [{"text": "", "logprobs": {"token_logprobs": values}}]})
                return
            [made] = greedy(model, folder.tokenizer, [ids], [body["max_tokens"]], 1, nothing)
            reason = "stop" if made["finished"] else "length"
            self._send(
                {
                    "choices": [{"text": made["text"], "finish_reason": reason}],
                    "usage": {"completion_tokens": made["tokens"]},
                }
            )

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/v1"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def vllm(folder: ModelFolder, model: Any, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """vLLM's interface as far as it is used here."""
    module: Any = types.ModuleType("vllm")
    module.__version__ = "stand-in"

    class SamplingParams(types.SimpleNamespace):
        pass

    class LLM:
        def __init__(self, model: str, dtype: str, seed: int) -> None:
            assert Path(model) == folder.path

        def generate(self, prompts: list[Any], sampling: list[Any], use_tqdm: bool) -> list[Any]:
            out = []
            for prompt, s in zip(prompts, sampling, strict=True):
                ids = prompt["prompt_token_ids"]
                if getattr(s, "prompt_logprobs", None) is not None:
                    with torch.inference_mode():
                        logp = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
                    table = [
                        None if j == 0 else {ids[j]: types.SimpleNamespace(logprob=float(logp[j - 1, ids[j]]))}
                        for j in range(len(ids))
                    ]
                    out.append(types.SimpleNamespace(prompt_logprobs=table))
                    continue
                [made] = greedy(model, folder.tokenizer, [ids], [s.max_tokens], 1, nothing)
                extra = [folder.eos_token_id] if made["finished"] else []
                one = types.SimpleNamespace(
                    text=made["text"],
                    token_ids=[0] * made["tokens"] + extra,
                    finish_reason="stop" if made["finished"] else "length",
                )
                out.append(types.SimpleNamespace(outputs=[one]))
            return out

    module.SamplingParams, module.LLM = SamplingParams, LLM
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


def agree(backend: Any, reference: Any) -> None:
    """Same answers and log-likelihoods as the local backend."""
    rng = np.random.default_rng(7)
    prompts = [rng.integers(3, 250, n).tolist() for n in (4, 9, 15)]
    limits = [5, 9, 4]
    assert backend.generate(prompts, limits, nothing) == reference.generate(prompts, limits, nothing)
    choices = [[rng.integers(3, 250, n).tolist() for n in (1, 2, 4)] for _ in prompts]
    np.testing.assert_allclose(
        backend.choose(prompts, choices, nothing), reference.choose(prompts, choices, nothing), atol=2e-4, rtol=0
    )


def test_server_gives_what_the_local_backend_gives(folder: ModelFolder, config: BenchmarkConfig, server: str):
    reference = BACKENDS.create("transformers", folder=folder, config=config)
    made = BACKENDS.create("openai_server", folder=folder, config=config, model="tiny", base_url=server)
    agree(made, reference)


def test_vllm_gives_what_the_local_backend_gives(folder: ModelFolder, config: BenchmarkConfig, vllm: types.ModuleType):
    reference = BACKENDS.create("transformers", folder=folder, config=config)
    agree(BACKENDS.create("vllm", folder=folder, config=config), reference)


def test_missing_vllm_and_wrong_server_are_one_sentence(
    folder: ModelFolder, config: BenchmarkConfig, server: str, monkeypatch: pytest.MonkeyPatch
):
    real = importlib.import_module

    def absent(name: str, *rest: Any) -> Any:
        if name == "vllm":
            raise ImportError("No module named 'vllm'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(SdrrlError, match=r"install it with 'pip install vllm'"):
        BACKENDS.create("vllm", folder=folder, config=config)
    made = BACKENDS.create("openai_server", folder=folder, config=config, model="tny", base_url=server)
    with pytest.raises(SdrrlError, match="did you mean 'tiny'"):
        made.generate([[1]], [1], nothing)
    made = BACKENDS.create("openai_server", folder=folder, config=config, model="tiny", base_url=server)
    with pytest.raises(SdrrlError, match="no hidden states"):
        made.states([[1]], nothing)


def test_server_options_that_cannot_be_meant(
    folder: ModelFolder, config: BenchmarkConfig, server: str, monkeypatch: pytest.MonkeyPatch
):
    def made(**options: Any) -> Any:
        return BACKENDS.create(
            "openai_server", folder=folder, config=config, model="tiny", **{"base_url": server, **options}
        )

    with pytest.raises(SdrrlError, match=r"backend 'openai_server': base_url 'host:8000' is no http"):
        made(base_url="host:8000")
    with pytest.raises(SdrrlError, match="concurrency >= 1"):
        made(concurrency=0)
    monkeypatch.delenv("SDRRL_TEST_KEY", raising=False)
    with pytest.raises(SdrrlError, match="the environment variable SDRRL_TEST_KEY is not set"):
        made(api_key_env="SDRRL_TEST_KEY").generate([[1]], [1], nothing)
    assert made().generate([], [], nothing) == []


@pytest.fixture(scope="module", autouse=True)
def identifier() -> None:
    if "a_is_por" not in list(LANGUAGE_IDENTIFIERS):

        @LANGUAGE_IDENTIFIERS.register("a_is_por")
        class Letter(LanguageIdentifier):
            """Texts with an ``a`` are Portuguese, all others English."""

            identity = "a_is_por"

            def identify(self, texts):
                return [("por" if "a" in t.lower() else "eng", 1.0) for t in texts]


@WITHOUT_OFFICIAL_ROUGE
def test_whole_run_then_again_from_the_store(
    long_folder: Path, config: BenchmarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config.off_target.language_identifier.name = "a_is_por"
    config.off_target.min_letters = 1
    result = measure_model(long_folder, config, tmp_path)
    assert list(result["tasks"]) == [
        "belebele.eng", "belebele.por", "belebele_letter.eng", "belebele_letter.por", "mkqa.eng", "mkqa.por",
        "xlsum.eng", "xlsum.por", "flores.eng-por", "flores.por-eng", "off_target.eng", "off_target.por",
        "alignment.eng-por",
    ]  # fmt: skip
    for name, task in result["tasks"].items():
        assert task["n"] == len(task["items"]) == (6 if name.startswith("alignment") else 2)
        assert all({"id", "prediction", "score"} <= set(i) for i in task["items"])
    tasks = result["tasks"]
    for name, metric in (("belebele.por", "accuracy"), ("mkqa.por", "f1"), ("xlsum.por", "rougeL")):
        mean = 100 * np.mean([i["score"] for i in tasks[name]["items"]])
        assert tasks[name]["metrics"][metric] == pytest.approx(mean)
    for i in tasks["belebele.por"]["items"]:
        assert "ABCD"[int(np.argmax(i["log_likelihoods"]))] == i["prediction"]
        assert i["score"] == float(i["prediction"] == i["reference"])
    assert "tok:13a" in tasks["flores.eng-por"]["signature"]
    assert len(tasks["alignment.eng-por"]["tsne"]["source"]) == 6
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert written["tasks"].keys() == tasks.keys()

    def loaded(*args: Any) -> Any:
        raise AssertionError("the model was loaded though every task was done")

    monkeypatch.setattr(local, "load_model", loaded)
    again = measure_model(long_folder, config, tmp_path)
    for name, task in tasks.items():
        assert {**again["tasks"][name], "scoring_seconds": 0} == {**task, "scoring_seconds": 0}
    assert again["tasks"].keys() == tasks.keys()
    config.batch_tokens = 200  # no part of a score in fp32
    measure_model(long_folder, config, tmp_path)
    config.max_new_tokens["mkqa"] = 5
    with pytest.raises(AssertionError, match="was loaded"):
        measure_model(long_folder, config, tmp_path)


def test_tasks_that_are_answered_together_have_the_answers_they_have_alone(
    long_folder: Path, config: BenchmarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The answers of several tasks are asked for at once, as on a GPU; each task is stored by itself all the same."""
    config.names, config.batch_tokens = ["mkqa", "flores", "belebele"], 4096
    alone = measure_model(long_folder, config, tmp_path / "alone")["tasks"]
    asked: list[int] = []

    def counted(self: local.TransformersBackend, prompts: Any, limits: Any, advance: Any) -> list[Any]:
        asked.append(len(prompts))
        return greedy(self.model, self.folder.tokenizer, prompts, limits, self.config.batch_tokens, advance)

    monkeypatch.setattr(local.TransformersBackend, "together", lambda self, batch_size: True)
    monkeypatch.setattr(local.TransformersBackend, "generate", counted)
    together = measure_model(long_folder, config, tmp_path / "together")["tasks"]
    assert asked == [8]  # two questions and two sentences in each language
    assert {n: t["items"] for n, t in together.items()} == {n: t["items"] for n, t in alone.items()}
    assert measure_model(long_folder, config, tmp_path / "together")["tasks"].keys() == alone.keys()
    assert asked == [8]


@WITHOUT_OFFICIAL_ROUGE
def test_languages_that_a_set_lacks_are_listed(long_folder: Path, config: BenchmarkConfig, tmp_path: Path):
    config.data_dir += "/scripts"
    config.names, config.languages = ["mkqa", "xlsum"], ["ces", "tha", "jpn"]
    result = measure_model(long_folder, config, tmp_path)
    assert result["skipped"] == {"mkqa.ces": "mkqa has no Czech", "xlsum.ces": "xlsum has no Czech"}
    assert {"mkqa.tha", "mkqa.jpn", "xlsum.tha", "xlsum.jpn"} <= set(result["tasks"])
    assert result["tasks"]["mkqa.tha"]["unanswerable_skipped"] == 1


def test_several_models_in_one_table(
    long_folder: Path, model_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = model_folder(tmp_path / "other", seed=9)
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 4096}))
    path = tmp_path / "benchmarks.yaml"
    path.write_text(
        "kind: benchmarks\n"
        f"output_dir: {tmp_path}/out\nmodels: {{base: {long_folder}, tuned: {other}}}\n"
        f"data_dir: {ROOT}/data/benchmarks\nnames: [belebele, off_target]\nlimits: {{belebele: 3, off_target: 3}}\n"
        "max_new_tokens: {off_target: 12}\ncases: 2\n"
        "off_target: {min_letters: 1, language_identifier: {name: a_is_por}}\n"
    )
    assert run(main, ["--config", str(path)]) == 0
    said = capsys.readouterr().out
    assert "belebele.por" in said and "tuned" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert [r["task"] for r in summary["rows"]] == ["belebele.eng", "belebele.por", "off_target.eng", "off_target.por"]
    cases = (tmp_path / "out" / "cases.md").read_text(encoding="utf-8")
    assert cases.count("- base (") == cases.count("- tuned (") == 2
    assert run(main, ["--config", str(path), "languages=[xyz]"]) == 2
    assert "unknown language 'xyz'" in capsys.readouterr().err
    assert run(main, ["--config", str(path), "names=[belebel]"]) == 2
    assert "did you mean 'belebele'" in capsys.readouterr().err
    assert run(main, ["--config", str(path), "prompts.mkqa=no field"]) == 2
    assert "prompts.mkqa" in capsys.readouterr().err


def test_comet_scores_are_stored_and_missing_parts_said_first(
    long_folder: Path, config: BenchmarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config.names = ["flores"]
    config.comet.enabled, config.comet.model, config.comet.python = True, str(tmp_path / "comet"), sys.executable
    with pytest.raises(SdrrlError, match=r"no COMET model at .*model.ckpt"):
        measure_model(long_folder, config, tmp_path / "out")
    checkpoint = tmp_path / "comet" / "checkpoints" / "model.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    config.comet.python = str(tmp_path / "nowhere")
    with pytest.raises(SdrrlError, match="make comet-env"):
        measure_model(long_folder, config, tmp_path / "out")
    config.comet.python = sys.executable
    asked: list[dict[str, str]] = []

    def score(self: Any, segments: list[dict[str, str]]) -> list[float]:
        asked.extend(segments)
        return [round(len(s["ref"]) / 1000, 6) for s in segments]

    monkeypatch.setattr(CometScorer, "score", score)
    first = measure_model(long_folder, config, tmp_path / "out")["tasks"]
    again = measure_model(long_folder, config, tmp_path / "out")["tasks"]
    assert len(asked) == 4  # two directions of two sentences, once
    item = first["flores.eng-por"]["items"][0]
    assert asked[0] == {"src": item["prompt"], "mt": item["prediction"], "ref": item["reference"]}
    assert item["comet"] == round(len(item["reference"]) / 1000, 6)
    for task in first:
        mean = np.mean([i["comet"] for i in first[task]["items"]])
        assert first[task]["metrics"]["comet"] == pytest.approx(100 * mean) == again[task]["metrics"]["comet"]

    def killed_after_one(self: Any, segments: list[dict[str, str]]) -> list[float]:
        if len(asked) > before:
            raise KeyboardInterrupt
        return score(self, segments)

    asked.clear()
    for path in tmp_path.glob("out/tasks/*/comet.*"):
        path.unlink()
    one_at_a_time = functools.partial(comet.score_batches, send=1)
    monkeypatch.setattr(comet, "score_batches", one_at_a_time)
    monkeypatch.setattr(CometScorer, "score", killed_after_one)
    for before in range(3):  # killed after every segment: each is asked once
        with pytest.raises(KeyboardInterrupt):
            measure_model(long_folder, config, tmp_path / "out")
        assert len(asked) == before + 1
    monkeypatch.setattr(CometScorer, "score", score)
    assert measure_model(long_folder, config, tmp_path / "out")["tasks"].keys() == first.keys()
    assert len(asked) == 4


def test_kind_is_read_through_the_base_file(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("kind: benchmarks\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\ntitle: x\n")
    (tmp_path / "c.yaml").write_text("title: x\n")
    kinds = [kind_of(tmp_path / f"{n}.yaml") for n in "abcd"]
    assert kinds == ["benchmarks", "benchmarks", "", ""]


@pytest.mark.parametrize(
    ("text", "lang", "said"),
    [
        ("Sim, é.", "por", "yes"), ("Simples", "por", None), ("não", "por", "no"), ("No.", "por", "no"),
        ("はい、そうです", "jpn", "yes"), ("ใช่ครับ", "tha", "yes"), ("Ja", "dan", "yes"), ("Paris", "eng", None),
        ("nothing", "eng", None),
    ],
)  # fmt: skip
def test_binary_answers_in_each_language(text: str, lang: str, said: str | None):
    assert binary_answer(text, lang) == said
