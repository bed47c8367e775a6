"""Two languages preprocessed apart and trained in one run, as users do it; one of the sets has weights of its rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sdrrl_nemo.common.fileio import read_json, sha256_file
from sdrrl_nemo.data.packing.packed import PackedDataset
from tests import warm
from tests.runs import metric_rows
from tests.tiny import tiny_model
from tests.unit.data.tiny_run import instruction_rows, tiny_config, write_rows

RECIPE = "recipes/sdrrl_pretrain.py"
WEIGHTS = {3: 2.5, 7: 0.5}
"""Number of an instruction -> its weight, in the Portuguese set."""


def _yaml(path: Path, content: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``por`` mixed and with weights, ``fra`` by subset; both with a validation set."""
    folder = tmp_path_factory.mktemp("blend-run")
    model = tiny_model(folder / "model", layers=2)
    rows = instruction_rows(24)
    weighted = [{**row, "weight": WEIGHTS.get(i, 1)} for i, row in enumerate(rows)]
    # the tiny identifier knows no French
    special = {"por": {}, "fra": {"language_id": {"engine": {"name": "tiny"}, "min_letters": 10000}}}
    for target, changes in special.items():
        config = yaml.safe_load(tiny_config(folder / target).read_text()) | changes
        write_rows(folder / target / "instructions.jsonl", weighted if target == "por" else rows)
        config |= {"model": str(model), "target_languages": [target], "output_dir": str(folder / target / "out")}
        config["instructions"]["held_out"] = 4
        config["packing"] = {"seq_length": 512, "validation_fraction": 0.34}
        if target == "fra":
            config["packing"]["by"] = "subset"
        done = warm.python("tools/preprocess_sdrrl.py", "--config", _yaml(folder / f"{target}.yaml", config))
        assert done.returncode == 0, done.stdout[-4000:]
    return folder


def training(folder: Path, name: str, **data: Any) -> str:
    blend = [{"path": f"{folder}/por/out/packed", "weight": 1.5}, {"path": f"{folder}/fra/out/packed"}]
    settings = {
        "run_dir": str(folder / "runs" / name),
        "model": {"hf_path": str(folder / "model"), "pad_heads_to": 2},
        "data": {"blend": blend, "validation": "validation", **data},
        "trainer": {"tp": 2, "precision": "fp32", "global_batch_size": 4, "epochs": 2.0, "num_threads": 1},
        "optim": {"lr": 1e-3},
    }
    return _yaml(folder / f"train-{name}.yaml", settings)


def test_weights_of_rows_are_in_the_packed_set(made: Path) -> None:
    rows = [json.loads(line) for line in (made / "por/out/transfer_set.jsonl").read_text().splitlines()]
    packed = PackedDataset(made / "por/out/packed")
    assert packed.sample_weight is not None
    of_key = {int(r["key"], 16): r.get("weight", 1.0) for r in rows}
    assert packed.sample_weight.tolist() == [of_key[int(k)] for k in packed.sample_key]
    heavy = {i for r in rows if "weight" in r for i in WEIGHTS if f"number {i} " in json.dumps(r)}
    assert {r["weight"] for r in rows if "weight" in r} <= set(WEIGHTS.values()) and heavy
    assert not list((made / "fra/out/packed").rglob("*sample_weight*"))
    stats = read_json(made / "por/out/stats.json")["subsets"]
    for number, name in enumerate(packed.subset_names):
        of = packed.sample_weight[packed.subset == number]
        assert stats[name]["weight"] == pytest.approx(1 / of.sum())


def test_two_languages_in_one_run(made: Path) -> None:
    config = training(made, "run", sampling="temperature", temperature=2.0, objective={"mt*": 0.5})
    plan = warm.python(RECIPE, "--config", config, "--dry-run", "--gpus", "2")
    assert plan.returncode == 0, plan.stdout[-4000:]
    assert "temperature 2, an epoch draws" in plan.stdout and "LL.eng-fra" in plan.stdout
    done = warm.torchrun(2, RECIPE, "--config", config)
    assert done.returncode == 0, done.stdout[-4000:]
    run = made / "runs/run"
    record = read_json(run / "blend.json")
    assert len(record["sets"]) == 7  # one mixed set, six by subset
    for entry in record["sets"]:
        manifest = read_json(Path(f"{entry['prefix']}.manifest.json"))
        assert entry["manifest_sha256"] == manifest["manifest_sha256"] and entry["rows"] == manifest["packs"]
    names = [f"{d}.eng-{t}" for t in ("por", "fra") for d in ("LL", "TL", "LT", "TT", "mt", "comp")]
    assert sorted(record["subsets"]) == sorted(names)
    weights = {n: s["objective"] for n, s in record["subsets"].items()}
    assert weights == {n: (1.5 if "por" in n else 1.0) * (0.5 if n.startswith("mt") else 1.0) for n in names}
    rows = metric_rows(run)
    assert len(rows) == 2 * record["steps_per_epoch"]
    for row in rows:
        assert sum(row[f"loss_{n}"] for n in names) == pytest.approx(row["loss"], rel=1e-6)
    [held] = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert all(held[f"loss_{n}"] > 0 for n in names) and np.isfinite(held["loss"])


def test_another_blend_is_another_run(made: Path) -> None:
    run = made / "runs/run"
    before = sha256_file(run / "identity.json")
    changes = {
        "blend.temperature: 2.0 there, 3.0 here": {"temperature": 3.0},
        "blend.subsets.mt.eng-fra.objective: 0.5 there, 0.25 here": {"objective": {"mt*": 0.25}},
    }
    for message, change in changes.items():
        data = {"sampling": "temperature", "temperature": 2.0, "objective": {"mt*": 0.5}} | change
        done = warm.torchrun(2, RECIPE, "--config", training(made, "other", **data), f"run_dir={run}")
        assert done.returncode != 0
        assert "holds a run with other settings (" in done.stdout and message in done.stdout, done.stdout[-3000:]
    assert sha256_file(run / "identity.json") == before
    # the same sets at another place are the same run, which is finished
    moved = made / "moved"
    moved.mkdir()
    for target in ("por", "fra"):
        shutil.copytree(made / target / "out/packed", moved / target / "out/packed")
    text = Path(training(made, "run", sampling="temperature", temperature=2.0, objective={"mt*": 0.5})).read_text()
    elsewhere = made / "moved.yaml"
    for target in ("por", "fra"):
        text = text.replace(f"{made}/{target}/out", f"{moved}/{target}/out")
    elsewhere.write_text(text)
    done = warm.torchrun(2, RECIPE, "--config", str(elsewhere))
    assert done.returncode == 0 and "steps are done" in done.stdout, done.stdout[-3000:]
