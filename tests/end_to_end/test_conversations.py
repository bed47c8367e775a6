"""A base model without a chat template learns conversations of three turns: preprocess, train, export as users do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer, GenerationConfig

from sdrrl_nemo.common.fileio import read_json, read_jsonl
from sdrrl_nemo.data.packing.packed import PackedDataset
from tests import warm
from tests.runs import metric_rows
from tests.tiny import tiny_model
from tests.tiny_tokenizer import TEXT_END, TURN_END
from tests.unit.data.tiny_run import tiny_config, write_rows


def records(count: int) -> list[dict[str, Any]]:
    """Conversations of three exchanges, the last of which holds a control token."""
    rows = []
    for i in range(count):
        texts = [f"the question {i} turn {k} about the number {i * k + 7}" for k in range(6)]
        texts[5] += f" {TURN_END}"
        turns = [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(texts)]
        rows.append({"messages": turns})
    return rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as base models are published: no chat template, one end token."""
    folder = tiny_model(tmp_path_factory.mktemp("base") / "model")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = read_json(folder / "tokenizer_config.json")
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": settings_end(folder)}))
    return folder


def settings_end(folder: Path) -> int:
    return int(AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(TEXT_END))


def _yaml(path: Path, content: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def test_a_base_model_learns_conversations(base: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(tiny_config(tmp_path / "data").read_text())
    write_rows(tmp_path / "data" / "instructions.jsonl", records(24))
    data["generation"]["engine"] = {"name": "tiny_talker"}
    data |= {"model": str(base), "packing": {"seq_length": 512}}
    refused = warm.python("tools/preprocess_sdrrl.py", "--config", _yaml(tmp_path / "none.yaml", data))
    assert refused.returncode == 2
    assert "templates.chat_template" in refused.stdout
    data["templates"] = {"chat_template": "chatml"}
    done = warm.python("tools/preprocess_sdrrl.py", "--config", _yaml(tmp_path / "data.yaml", data))
    assert done.returncode == 0, done.stdout[-3000:]

    output = Path(data["output_dir"])
    manifest = read_json(output / "packed" / "train.manifest.json")
    packed, tokenizer = PackedDataset(output / "packed"), AutoTokenizer.from_pretrained(base)
    end = tokenizer.convert_tokens_to_ids(TURN_END)
    rows = {row["key"]: row for _, row in read_jsonl(output / "transfer_set.jsonl")}
    for pack in (packed[i] for i in range(len(packed))):
        begin = 0
        for length, key in zip(pack.lengths, pack.sample_key, strict=True):
            row = rows[f"{key:016x}"]
            ids, mask = (x[begin : begin + length].tolist() for x in (pack.tokens, pack.loss_mask))
            turns = [*row.get("earlier", []), row]
            messages = [m for t in turns for m in (_message("user", t["question"]), _message("assistant", t["answer"]))]
            assert ids.count(end) == len(messages), "a control token in a text is plain text"
            text = tokenizer.apply_chat_template(messages, chat_template=manifest["chat_template"], tokenize=False)
            assert tokenizer.decode(ids) == text[: text.rindex(TURN_END) + len(TURN_END)]
            assert sum(t for t, m in zip(ids, mask, strict=True) if m and t == end) == end * len(turns)
            begin += length
    assert any("earlier" in row for row in rows.values())

    run = {
        "run_dir": str(tmp_path / "run"),
        "model": {"hf_path": str(base)},
        "data": {"path": str(output / "packed")},
        "trainer": {"precision": "fp32", "global_batch_size": 4, "max_steps": 3, "num_threads": 1},
        "optim": {"lr": 1.0e-3},
    }
    done = warm.torchrun(1, "recipes/sdrrl_pretrain.py", "--config", _yaml(tmp_path / "run.yaml", run))
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(metric_rows(tmp_path / "run")) == 3
    hf = tmp_path / "hf"
    done = warm.python("tools/export_hf.py", "--run", str(tmp_path / "run"), "--output", str(hf))
    assert done.returncode == 0, done.stdout[-3000:]
    assert AutoTokenizer.from_pretrained(hf).chat_template == manifest["chat_template"]
    assert set(GenerationConfig.from_pretrained(hf).eos_token_id) == {end, settings_end(base)}


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
