"""The heads of both cards as hubs read them, and the model card against the files of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.data.licences import FORBIDS_COMMERCE, model_licence
from sdrrl_nemo.report.front_matter import (
    HUB_LICENCES,
    TAGS,
    dataset_head,
    front_matter,
    hub_id,
    hub_languages,
    hub_licence,
    size_category,
)
from sdrrl_nemo.report.model_card import model_card, run_of

EXPORT = {
    "weights": "auto",
    "dtype": "fp32",
    "max_abs_logit_diff": 2.5e-5,
    "compared_tokens": 40,
    "versions": {"torch": "2.13.0"},
}


def part(role: str, name: str, licence: str, noncommercial: bool = False) -> dict[str, Any]:
    return {"role": role, "name": name, "licence": licence, "noncommercial": noncommercial, "for": "eng"}


def some_stats(*more: dict[str, Any]) -> dict[str, Any]:
    """stats.json of a set, as far as the cards read it."""
    subsets = {
        "LL.eng-por": {"samples": 600, "tokens": 6000, "answer_tokens": 3000, "weight": 1 / 600},
        "LL.eng-jpn": {"samples": 500, "tokens": 5000, "answer_tokens": 2000, "weight": 1 / 500},
        "mt.eng-por": {"samples": 100, "tokens": 900, "answer_tokens": 400, "weight": 0.01},
    }
    return {
        "method": "sdrrl",
        "pairs": ["eng-por", "eng-jpn"],
        "subsets": subsets,
        "packing": {"samples": 1200, "tokens": 11900},
        "engines": [
            part("generator", "hf", "apache-2.0"),
            part("translator", "bergamot", "weights: unstated by the package"),
            part("language_id", "fasttext", "CC-BY-SA-3.0"),
            part("corpus", "gnome_help", "CC-BY-SA-3.0"),
            *more,
        ],
        "licences": [part("instructions", "instructions_en.jsonl", "CC0-1.0"), part("model", "base", "apache-2.0")],
    }


def head_of(card: str) -> dict[str, Any]:
    """The YAML between the first two rules of a card."""
    first, head, _ = card.split("---\n", 2)
    assert first == ""
    found = yaml.safe_load(head)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A base model, a transfer set and a finished run beside each other, without weights."""
    base = tmp_path / "Base-135M"
    base.mkdir()
    write_json(base / "config.json", {"_name_or_path": "someone/Base-135M", "model_type": "llama"})
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    (tmp_path / "set").mkdir()
    write_json(tmp_path / "set" / "stats.json", some_stats())
    run = tmp_path / "run"
    (run / "checkpoints" / "step-000004").mkdir(parents=True)
    config = {
        "seed": 7,
        "model": {"hf_path": str(base)},
        "data": {"path": str(tmp_path / "set" / "packed")},
        "trainer": {"tp": 2, "pp": 1, "global_batch_size": 8, "precision": "bf16"},
        "optim": {"lr": "auto", "schedule": "cosine"},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(run / "identity.json", {"optim": {"lr": 2e-4, "schedule": "cosine", "warmup_steps": 1}})
    rows = [{"step": i, "loss": 4.0 - i / 2, "tokens": 100 * i} for i in (1, 2, 3, 4)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return run


def the_card(run: Path) -> str:
    return model_card(run.parent / "Base-135M", run / "checkpoints" / "step-000004", EXPORT)


def test_model_card_of_a_run(run: Path) -> None:
    card = the_card(run)
    head = head_of(card)
    assert head == {
        "language": ["en", "pt", "ja"],
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "someone/Base-135M",
        "base_model_relation": "finetune",
        "tags": [*TAGS, "method:sdrrl"],
    }
    assert "# Base-135M, English → Portuguese, Japanese\n" in card
    assert "1,200 samples with 11,900 tokens" in card and "| LL | 1,100 | 11,000 | 5,000 |" in card
    for row in ("| optimiser steps | 4 |", "| tokens seen | 1,000 |", "| learning rate | 0.0002 |", "| seed | 7 |"):
        assert row in card
    assert "| parallel layout | TP 2 |" in card and "| loss of the first and the last step | 3.5000, 2.0000 |" in card
    assert "Loss on held-out data" not in card and "LoRA" not in card
    assert "2.5e-05 over 40 tokens" in card and "| torch | 2.13.0 |" in card
    assert str(run.parent) not in card, "a card that is passed on names no folder of this machine"


def test_a_blend_has_the_licences_and_languages_of_all_its_sets(run: Path) -> None:
    """Two preprocessings, one of them by subset and with a part that forbids commerce."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run.parent / "kor").mkdir()
    only = {"LL": {"samples": 7, "tokens": 70, "answer_tokens": 30}}
    more = some_stats(part("translator", "nllb", "CC-BY-NC-4.0", noncommercial=True))
    write_json(run.parent / "kor/stats.json", {**more, "pairs": ["eng-kor"], "subsets": only})
    paths = [run.parent / "set/packed", run.parent / "kor/packed/eng-kor/LL"]
    config["data"] = {"blend": [{"path": str(p)} for p in paths]}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    blend = {"sampling": "temperature", "temperature": 2.0, "rows": "packs", "epoch_rows": 1500, "sets": [{}, {}]}
    subsets = {"LL.eng-por": {"objective": 1.0}, "LL.eng-kor": {"objective": 0.5}}
    write_json(run / "identity.json", {"blend": {**blend, "subsets": subsets}})
    card = the_card(run)
    assert "English → Portuguese, Japanese, Korean" in card and "2,400 samples" in card
    assert "| LL | 1,107 |" in card
    assert head_of(card)["license"] == "other" and "cc-by-nc-4.0" in head_of(card)["license_name"]
    assert "| weights of subsets | LL.eng-kor 0.5 |" in card and "each subset counts the same" not in card
    assert "| sampling of a blend | temperature 2, 2 sets, 1,500 packs an epoch |" in card
    (run.parent / "kor/stats.json").unlink()
    assert "The training data were not found" in the_card(run)


def test_lora_and_held_out_loss_are_told(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"lora": {"rank": 16, "alpha": 32.0}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(run / "finished.json", {"step": 4, "reason": "end", "best_step": 3, "best_loss": 1.25})
    card = the_card(run)
    assert "lora" in head_of(card)["tags"] and "| LoRA | rank 16, alpha 32.0 |" in card and "adapters merged" in card
    assert "Loss on held-out data (Eq. 6): 1.2500 at step 3" in card


def test_clipping_and_a_mean_over_subsets_are_told(run: Path) -> None:
    assert "gradients clipped" not in the_card(run)  # neither rows nor settings say so
    identity: dict[str, Any] = {"optim": {"clip_grad": 1.0}}
    write_json(run / "identity.json", identity)
    assert "| gradients clipped | at norm 1.0 |" in the_card(run)  # rows of an earlier version
    rows = [{"step": i, "loss": 1.0, "clipped": i == 1, "skipped": False} for i in (1, 2, 3, 4)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    write_json(run / "identity.json", identity | {"loss": {"normalise": "mean"}})
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"loss": {"normalise": "mean"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(run / "finished.json", {"step": 4, "reason": "end", "best_step": 3, "best_loss": 1.25})
    card = the_card(run)
    assert "| gradients clipped | at norm 1: 1 of 4 steps (25%) |" in card and "| loss over subsets | mean |" in card
    assert "Loss on held-out data (Eq. 6 divided by the number of subsets): 1.2500 at step 3" in card


def test_what_forbids_commerce_is_in_the_head_and_is_read_again(run: Path, tmp_path: Path) -> None:
    stats = some_stats(part("translator", "nllb", "CC-BY-NC-4.0", True), part("quality", "x", "odd terms", True))
    stats["licences"][0] = part("instructions", "hub:tatsu-lab/alpaca", "CC-BY-NC-4.0", True)
    write_json(run.parent / "set" / "stats.json", stats)
    card = the_card(run)
    head = head_of(card)
    assert head["license"] == "other" and head["license_name"] == "apache-2.0-and-cc-by-nc-4.0-and-odd-terms"
    assert head["license_link"] == "README.md#licences" and "\n## Licences\n" in card
    assert head["datasets"] == ["tatsu-lab/alpaca"]
    assert "Not for commercial use: translator nllb" in card
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "README.md").write_text(card)
    assert FORBIDS_COMMERCE.search(model_licence(exported)), "a set made with this model must say so too"


def test_the_base_models_own_terms_are_no_more_than_its_own(run: Path) -> None:
    (run.parent / "Base-135M" / "README.md").write_text("---\nlicense: llama2\n---\n")
    stats = some_stats(part("generator", "hf", "llama2"))
    write_json(run.parent / "set" / "stats.json", stats)
    assert head_of(the_card(run))["license"] == "llama2"


def test_without_run_or_data_the_card_says_so(run: Path) -> None:
    (run.parent / "set" / "stats.json").unlink()
    card = the_card(run)
    assert "The training data were not found" in card and "| seed | 7 |" in card
    assert "language" not in head_of(card) and "datasets" not in head_of(card)
    assert run_of(run / "checkpoints" / "step-000004") == run.resolve()
    lonely = run.parent / "step-000004"
    lonely.mkdir()
    assert run_of(lonely) is None
    card = model_card(run.parent / "Base-135M", lonely, EXPORT)
    assert "exported without its run" in card and head_of(card)["license"] == "apache-2.0"
    (run.parent / "Base-135M" / "README.md").unlink()
    (run.parent / "Base-135M" / "config.json").unlink()
    head = head_of(model_card(run.parent / "Base-135M", lonely, EXPORT))
    assert head["license"] == "unknown" and "base_model" not in head
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(SdrrlError, match=r"config\.yaml: not valid YAML"):
        the_card(run)


def test_head_of_a_transfer_set() -> None:
    head = head_of(dataset_head(some_stats(), "Transfer set, x: y"))
    assert head == {
        "pretty_name": "Transfer set, x: y",
        "language": ["en", "pt", "ja"],
        "license": ["apache-2.0", "unknown", "cc-by-sa-3.0", "cc0-1.0"],
        "task_categories": ["text-generation", "translation"],
        "size_categories": ["1K<n<10K"],
        "tags": [*TAGS, "method:sdrrl"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "transfer_set.jsonl"}]}],
    }
    plain = some_stats()
    del plain["subsets"]["mt.eng-por"]
    assert head_of(dataset_head(plain, "x"))["task_categories"] == ["text-generation"]
    judged = head_of(dataset_head(some_stats(part("quality", "cometkiwi", "CC-BY-NC-SA-4.0", True)), "x"))
    assert "cc-by-nc-sa-4.0" in judged["license"], "a judge whose licence forbids commerce is named"


def test_hubs_own_classes_take_the_heads(run: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(the_card(run))
    assert isinstance(card.data, hub.ModelCardData) and card.data.license == "apache-2.0"
    assert card.data.base_model == "someone/Base-135M" and card.data.pipeline_tag == "text-generation"
    assert card.text.lstrip().startswith("# Base-135M")
    data = hub.DatasetCard(dataset_head(some_stats(), "Set") + "\n# Set\n").data
    assert isinstance(data, hub.DatasetCardData) and data.size_categories == ["1K<n<10K"]
    assert data.language == ["en", "pt", "ja"] and data.to_dict()["configs"][0]["config_name"] == "default"


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("GPL-2.0-or-later", "gpl-2.0"),
        ("GPL-3.0+", "gpl-3.0"),
        ("llama3.1", "llama3.1"),
        ("unstated", "unknown"),
        ("", "unknown"),
        ("by source; see OPUS (opus.nlpl.eu)", "unknown"),
        ("other", "other"),
        ("SeaLLMs licence", "other"),
    ],
)
def test_licences_by_the_hubs_names(stated: str, expected: str) -> None:
    assert hub_licence(stated) == expected
    assert expected in (*HUB_LICENCES, "other", "unknown")


def test_sizes_languages_and_ids() -> None:
    sizes = [size_category(n) for n in (0, 999, 1000, 9_999, 10_000, 999_999, 10**6, 10**7)]
    assert sizes == ["n<1K", "n<1K", "1K<n<10K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M"]
    assert hub_languages(["eng-por", "fra-jpn", "eng-xyz"]) == ["en", "fr", "pt", "ja", "xyz"]
    assert hub_id("a/b-1.5") == "a/b-1.5"
    assert [hub_id(x) for x in ("/models/b", "b", "a/b/c", "../b", None, 3)] == [""] * 6


@given(st.text(), st.lists(st.text()))
def test_heads_hold_any_text(text: str, more: list[str]) -> None:
    head = front_matter({"a": text, "b": more, "empty": [], "none": None})
    lines = (" ".join(text.split()), [" ".join(t.split()) for t in more])
    wanted = {k: v for k, v, given in zip("ab", lines, (text, more), strict=True) if given not in ("", [])}
    assert head.startswith("---\n") and head.endswith("---\n") and head.count("\n---") == 1
    assert (yaml.safe_load(head.removeprefix("---\n").removesuffix("---\n")) or {}) == wanted


def test_figures_of_an_evaluation_are_shown(run: Path, tmp_path: Path) -> None:
    base, checkpoint = run.parent / "Base-135M", run / "checkpoints" / "step-000004"
    loss = {"title": "Loss, Portuguese → Portuguese", "unit": "nats/token", "base": 3.4151, "trained": 3.004}
    bleu = {"title": "BLEU, English → Portuguese", "unit": "BLEU", "base": 2.6, "trained": 8.5}
    write_json(tmp_path / "results.json", {"loss": [loss], "off_target": [], "translation": [bleu]})
    card = model_card(base, checkpoint, EXPORT, evaluation=tmp_path)
    assert "| Loss, Portuguese → Portuguese | nats/token | 3.415 | 3.004 |" in card
    assert "| BLEU, English → Portuguese | BLEU | 2.600 | 8.500 |" in card and "before any evaluation" not in card
    assert "before any evaluation" in the_card(run)
    write_json(tmp_path / "results.json", {"loss": [{"title": "x"}]})
    with pytest.raises(SdrrlError, match=r"results\.json: holds no measures"):
        model_card(base, checkpoint, EXPORT, evaluation=tmp_path)


def test_what_the_export_mended_is_told_without_this_machines_folders(run: Path) -> None:
    base, checkpoint = run.parent / "Base-135M", run / "checkpoints" / "step-000004"
    note = f"{base}/generation_config.json: eos_token_id lacked <|im_end|>; added"
    card = model_card(base, checkpoint, {**EXPORT, "notes": [note], "types": ["bfloat16", "float32"]})
    assert "- generation_config.json: eos_token_id lacked" in card.replace("\\", "") and str(run.parent) not in card
    assert "Weights in bfloat16, float32 from checkpoint" in card
