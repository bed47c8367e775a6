"""The configurations that ship: they load, name registered engines, and give them options they have."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.data.chosen_engines import ROLES, engine_config
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.filters import make_filters
from sdrrl_nemo.data.methods import METHODS, plan
from sdrrl_nemo.data.pairs import for_pair
from sdrrl_nemo.data.stages.ingest import read_instructions, split_held_out
from sdrrl_nemo.data.validation import validate

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "configs/data").glob("*.yaml"))
OPTIONAL = ("round_trip", "llm_judge")
"""Checks of translations that no shipped configuration asks for."""
BROUGHT_BY_THE_USER = ("paper_", "multi_source")
"""Configurations whose instruction sets, models and corpora are not in the repository."""


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_shipped_configuration(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(PreprocessConfig, path)
    validate(config, files=not path.stem.startswith(BROUGHT_BY_THE_USER))
    for role, (_, registry) in ROLES.items():
        chosen = engine_config(config, role)
        if not chosen.name:
            assert role in OPTIONAL, f"{role} has no engine"
            continue
        assert chosen.options.keys() <= inspect.signature(registry.factory(chosen.name)).parameters.keys()
    assert make_filters([(f.name, f.options) for f in config.filters])
    assert make_filters([(f.name, f.options) for f in config.generation.filters])


ASKED = {"demo_": "request", "multi": "request", "paper_": "implicit", "multi_source": "implicit"}
"""Beginning of a file's name, the longest that fits -> what questions say of the answer's language."""
COMBINATIONS = {
    "sdrrl": ("LL", "TL", "LT", "TT"),
    "sft": ("LL",),
    "t_sft": ("TT",),
    "t_sft_both": ("LL", "TT"),
    "cit": ("LL", "TL", "LT", "TT"),
    "xcot": ("LL", "TL", "TT"),
}
ABLATIONS = {"no_cross": ("LL", "TT"), "only_parallel": ()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_methods_own_choices_win_in_every_file(path: Path, method: str) -> None:
    """Whatever file a method starts from, cross-lingual instruction tuning names the answer's language."""
    ablation = next((c for name, c in ABLATIONS.items() if path.stem.endswith(name)), None)
    if ablation == () and method != "sdrrl":
        return  # nothing would be left
    config = load_config(PreprocessConfig, path, [f"method={method}"])
    asked = ASKED[max((start for start in ASKED if path.stem.startswith(start)), key=len)]
    made = plan(config)
    assert made.answer_language == ("always" if method == "cit" else asked)
    for pair, recipe in made.recipes.items():
        if not for_pair(config, pair).subsets.combinations:
            assert recipe.combinations == (ablation if ablation is not None else COMBINATIONS[method]), pair


def test_short_demo_changes_only_sizes() -> None:
    whole = load_config(PreprocessConfig, ROOT / "configs/data/demo_por.yaml")
    short = load_config(PreprocessConfig, ROOT / "configs/data/demo_por_short.yaml")
    assert short.generation.engine.options["model"] == whole.generation.engine.options["model"] == whole.model
    assert (short.quality, short.filters, short.code_switch) == (whole.quality, whole.filters, whole.code_switch)
    assert short.instructions.limit == 40
    assert short.output_dir != whole.output_dir


def test_demo_takes_a_part_of_its_instruction_set_and_the_study_all_of_it() -> None:
    demo = ROOT / "configs/data/demo_por.yaml"
    study = OmegaConf.load(ROOT / "configs/study/smollm2_por.yaml")
    sizes = []
    for overrides in ([], list(study.data_overrides)):
        chosen = load_config(PreprocessConfig, demo, overrides)
        chosen.instructions.path = str(ROOT / chosen.instructions.path)
        rows = read_instructions(chosen.instructions).rows
        split = split_held_out(rows, chosen.instructions.held_out, chosen.instructions.limit, chosen.seed)
        sizes.append((len(rows) - len(split.train) - len(split.held_out), len(split.train), len(split.held_out)))
    assert sizes[0][1:] == (311, 40)  # what keeps the demo's time
    assert sizes[1][0] == 0
    assert sizes[1][2] == 200


@pytest.mark.parametrize(
    ("name", "expected"),
    [("", "sample"), ("_no_self_answers", "answers")]
    + [(f"_{m}", "answers") for m in ("sft", "t_sft", "t_sft_both", "cit", "xcot")],
)
def test_only_sdrrl_learns_the_models_own_answers(name: str, expected: str) -> None:
    """docs/methods.md: a baseline learns y, whatever the configuration that its file starts from."""
    config = load_config(PreprocessConfig, ROOT / f"configs/data/demo_por{name}.yaml")
    assert plan(config).synth == expected
