"""Structured random values: records of instruction sets, configurations, overrides, tokenizers and model configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from sdrrl_nemo.common.config import load_config, override
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.readers import read_examples
from sdrrl_nemo.eval.config import BenchmarkConfig, EvalConfig
from tests.fuzz.harness import VALUES, only_sdrrl_error, share
from tests.fuzz.parsers import CONFIG, PARSERS, YAML, place, tokenizer_files

KEYS = st.sampled_from(
    [
        "seed",
        "base",
        "by_pair",
        "by_pair.eng-por",
        "generation.engine.options",
        "filters",
        "filters[0]",
        "pairs",
        "model",
        "limits",
        "models.base",
        "target_languages.0",
        "packing.seq_length",
        "quality.engine",
        "a b",
        "",
        ".",
        "[",
        "${seed}",
    ]
)
OVERRIDES = st.lists(st.tuples(KEYS, VALUES | st.binary().map(str)), max_size=2)
FIELDS = st.sampled_from("instruction|input|output|conversations|messages|role|content|from|x\ny".split("|"))  # noqa: SIM905
TURNS = VALUES | st.lists(st.dictionaries(FIELDS, VALUES, max_size=3))


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_records(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"

    @share(0.015)
    @given(st.lists(st.dictionaries(FIELDS, TURNS, max_size=3)))
    @example([{"instruction": "a", "output": "\ud800"}])
    @example([{"x\ny": 1}])
    def check(rows: list[Any]) -> None:
        texts = [json.dumps(row) for row in rows]
        path.write_text("\n".join(texts) if suffix == "jsonl" else f"[{','.join(texts)}]", encoding="utf-8")
        only_sdrrl_error(path, lambda: [str(found).encode() for found in read_examples(path)], f"records.{suffix}")

    check()


def _schemas() -> list[type]:
    from sdrrl_nemo.train.config import RunConfig

    return [RunConfig, PreprocessConfig, EvalConfig, BenchmarkConfig]


@pytest.mark.parametrize("schema", _schemas())
def test_configurations_and_overrides(schema: type, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"

    @share(0.01)
    @given(
        st.dictionaries(KEYS, VALUES, max_size=4), st.lists(st.tuples(KEYS, VALUES | st.binary().map(str)), max_size=2)
    )
    @example({"base": "run.yaml"}, [])
    @example({"base": ["a"]}, [])
    @example({"base": "0"}, [])
    @example({"base": "\ud800"}, [])
    @example({"base": "\0"}, [])
    @example({"by_pair": {"\ud800": {"a": ["\udfff"]}}}, [])
    @example({}, [("run_dir", "\ud800")])
    @example({"seed": "${seed}"}, [])
    @example({"by_pair": {"a": "${"}}, [])
    @example({}, [("seed", "${")])
    @example({}, [("by_pair", [1])])
    def check(content: dict[str, Any], pairs: list[tuple[str, Any]]) -> None:
        path.write_text(yaml.safe_dump(content, allow_unicode=False), encoding="utf-8")
        overrides = [f"{key}={value}" for key, value in pairs]
        where = path if not overrides else Path("")
        only_sdrrl_error(where, lambda: load_config(schema, path, overrides), f"configuration {schema.__name__}")

    check()


@share(0.01)
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_sections_by_language(changes: dict[str, Any]) -> None:
    path = Path("by_pair.eng-por")
    only_sdrrl_error(path, lambda: override(EvalConfig(), changes, str(path)), "section by pair")


@share(0.02)
@given(st.dictionaries(st.sampled_from(sorted(CONFIG)), VALUES, min_size=1, max_size=3))
@example({"num_hidden_layers": 0})
@example({"rope_scaling": []})
@example({"rope_scaling": {"rope_type": "llama3", "factor": "x"}})
@example({"rope_theta": None})
def test_model_configurations(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = place(PARSERS["config.json"], tmp_path)
    path.write_text(json.dumps({**CONFIG, **changes}), encoding="utf-8")
    only_sdrrl_error(path, lambda: PARSERS["config.json"].read(path), "config.json")


@share(0.01)
@given(st.sampled_from(["model", "decoder", "pre_tokenizer", "normalizer", "added_tokens", "post_processor"]), VALUES)
@example("model", {"type": "BPE", "vocab": {"a": 5}, "merges": [["a", "b"]]})
@example("normalizer", [""])
def test_tokenizers(tmp_path: Path, key: str, value: Any) -> None:
    path = place(PARSERS["tokenizer.json"], tmp_path)
    whole = json.loads(tokenizer_files()["tokenizer.json"])
    path.write_text(json.dumps({**whole, key: value}), encoding="utf-8")
    only_sdrrl_error(path.parent, lambda: PARSERS["tokenizer.json"].read(path), "tokenizer.json")


@share(0.005)
@given(st.sampled_from(["{% for", "{{ x.y.z }}", "{{ 1 / 0 }}", "{{ raise_exception('no') }}", "{{ '\\ud800' }}"]))
def test_chat_templates(tmp_path: Path, template: str) -> None:
    path = place(PARSERS["tokenizer_config.json"], tmp_path)
    whole = json.loads(tokenizer_files()["tokenizer_config.json"])
    (path.parent / "chat_template.jinja").unlink(missing_ok=True)
    path.write_text(json.dumps({**whole, "chat_template": template}), encoding="utf-8")
    only_sdrrl_error(path.parent, lambda: PARSERS["tokenizer_config.json"].read(path), "chat template")


def test_a_document_inside_itself_and_one_as_deep_as_a_well(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    for content in (b"a: &x [*x]\nseed: 1\n", b"by_pair: &x {a: *x}\n", b"a: " + b"[" * 4000, b"a: " + b"&a [" * 300):
        path.write_bytes(content + YAML)
        assert only_sdrrl_error(path, lambda: load_config(PreprocessConfig, path), "configuration") is not None
