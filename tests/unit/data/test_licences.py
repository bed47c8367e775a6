"""What licences a run lists, and what they add up to."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from sdrrl_nemo.data.config import InstructionsConfig, PreprocessConfig
from sdrrl_nemo.data.licences import inputs, model_licence, restrictions
from sdrrl_nemo.data.summary import print_engines


def config(path: str, model: Path, licence: str = "unstated") -> PreprocessConfig:
    return PreprocessConfig(model=str(model), instructions=InstructionsConfig(path=path, licence=licence))


@pytest.mark.parametrize(
    ("path", "stated", "expected", "noncommercial"),
    [
        ("somewhere/alpaca_data.json", "unstated", "CC-BY-NC-4.0", True),
        ("hub:tatsu-lab/alpaca", "unstated", "CC-BY-NC-4.0", True),
        ("alpaca_data.json", "CC0-1.0", "CC0-1.0", False),
        ("mine.jsonl", "unstated", "unstated", False),
        ("hub:databricks/databricks-dolly-15k", "unstated", "CC-BY-SA-3.0", False),
        ("data/ShareGPT_V3_cleaned.json", "unstated", "unclear: conversations that users of ChatGPT shared", False),
    ],
)
def test_instruction_sets(path: str, stated: str, expected: str, noncommercial: bool, tmp_path: Path) -> None:
    (part, _) = inputs(config(path, tmp_path, stated), ["eng"])
    assert (part["licence"], part["noncommercial"]) == (expected, noncommercial)


def test_what_a_model_folder_states(tmp_path: Path) -> None:
    assert model_licence(tmp_path) == "unstated"
    (tmp_path / "README.md").write_text("---\ntags: [x]\nlicense: llama2\n---\n# Llama\nlicense: wrong\n")
    assert model_licence(tmp_path) == "llama2"
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: deepseek\n---\n")
    assert model_licence(tmp_path) == "deepseek"
    (tmp_path / "README.md").write_text("# Model\n---\nlicense: mit\n---\n")
    assert model_licence(tmp_path) == "unstated"
    (tmp_path / "README.md").write_text("---\n[broken\n---\n")
    assert model_licence(tmp_path) == "unstated"
    (tmp_path / "LICENSE.txt").write_text(
        "\n  LLAMA 2 COMMUNITY LICENSE AGREEMENT\t\nLlama 2 Version Release Date: July\n"
    )
    assert model_licence(tmp_path) == "llama2"
    (tmp_path / "LICENSE").write_text("                                 Apache License\n   Version 2.0, January 2004\n")
    assert model_licence(tmp_path) == "Apache-2.0"
    (tmp_path / "import.json").write_text(json.dumps({"licence": "apache-2.0"}))
    assert model_licence(tmp_path) == "apache-2.0"


def test_restrictions_name_every_part_once() -> None:
    parts = [
        {"role": "translator", "name": "nllb_ctranslate2", "licence": "CC-BY-NC-4.0"},
        {"role": "quality", "name": "cometkiwi", "licence": "CC-BY-NC-SA-4.0"},
        {"role": "quality", "name": "cometkiwi", "licence": "CC-BY-NC-SA-4.0"},
        {"role": "dictionary", "name": "freedict", "licence": "GPL-2.0-or-later"},
        {"role": "corpus", "name": "tsv", "licence": "unstated"},
        {"role": "generator", "name": "hf", "licence": "Apache-2.0"},
    ]
    assert restrictions(parts) == [
        "not for commercial use: translator nllb_ctranslate2 (CC-BY-NC-4.0), quality cometkiwi (CC-BY-NC-SA-4.0)",
        "to be passed on under the same terms, as far as they reach: quality cometkiwi (CC-BY-NC-SA-4.0), "
        "dictionary freedict (GPL-2.0-or-later)",
        "licence unstated or unclear: corpus tsv (unstated)",
    ]
    assert restrictions([parts[-1]]) == []


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("llama2", "its answers not for training language models of another family: model m (llama2)"),
        ("llama3", "its answers not for training language models of another family: model m (llama3)"),
        ("Llama 2 Community License", "its answers not for training language models of another family: "),
        ("llama3.1", "what its answers train is named Llama: model m (llama3.1)"),
        ("Llama-3.3", "what its answers train is named Llama: model m (Llama-3.3)"),
        ("other", "licence unstated or unclear: model m (other)"),
        ("", "licence unstated or unclear: model m ()"),
    ],
)
def test_what_base_models_ask(licence: str, said: str) -> None:
    (sentence,) = restrictions([{"role": "model", "name": "m", "licence": licence}])
    assert sentence.startswith(said)
    assert len(restrictions([{"role": "quality", "name": "m", "licence": "llama2"}])) == 0  # no text of its in the set


def test_engines_say_whether_they_forbid_commerce(tmp_path: Path) -> None:
    from sdrrl_nemo.data.engines.translate.nllb_ctranslate2 import NllbCTranslate2Translator

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "m2m_100"}))  # nothing is loaded before its use
    assert NllbCTranslate2Translator(str(tmp_path)).noncommercial
    own = NllbCTranslate2Translator(str(tmp_path), licence="MIT")
    assert (own.licence, own.noncommercial) == ("MIT", False)


def test_they_are_shown_at_start() -> None:
    out = io.StringIO()
    engine = {"role": "translator", "name": "nllb_hf", "for": "eng-por", "identity": "x", "licence": "CC-BY-NC-4.0"}
    print_engines([engine], [{"role": "model", "name": "m", "for": "", "licence": "llama2"}], out)
    assert "Licences: not for commercial use: translator nllb_hf (CC-BY-NC-4.0)." in out.getvalue()
    assert "llama2" in out.getvalue()
