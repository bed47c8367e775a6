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
    ],
)
def test_instruction_sets(path: str, stated: str, expected: str, noncommercial: bool, tmp_path: Path) -> None:
    (part, _) = inputs(config(path, tmp_path, stated), ["eng"])
    assert (part["licence"], part["noncommercial"]) == (expected, noncommercial)


def test_what_a_model_folder_states(tmp_path: Path) -> None:
    assert model_licence(tmp_path) == "unstated"
    (tmp_path / "README.md").write_text("---\ntags: [x]\nlicense: llama2\n---\n# Llama\nlicense: wrong\n")
    assert model_licence(tmp_path) == "llama2"
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
        "licence unstated: corpus tsv (unstated)",
    ]
    assert restrictions([parts[-1]]) == []


def test_they_are_shown_at_start() -> None:
    out = io.StringIO()
    engine = {"role": "translator", "name": "nllb_hf", "for": "eng-por", "identity": "x", "licence": "CC-BY-NC-4.0"}
    print_engines([engine], [{"role": "model", "name": "m", "for": "", "licence": "llama2"}], out)
    assert "Licences: not for commercial use: translator nllb_hf (CC-BY-NC-4.0)." in out.getvalue()
    assert "llama2" in out.getvalue()
