"""``packing.by: subset``: a packed set for each subset and pair, which Megatron opens, and the blend beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import get_blend_from_list

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, sha256_file
from sdrrl_nemo.data.packing.packed import PackedDataset
from sdrrl_nemo.data.rows import SUBSETS
from tests.unit.data.tiny_run import tiny_config
from tools.preprocess_sdrrl import main

PAIRS = ("eng-por", "eng-fra")
TWO = ("target_languages=[por,fra]", "by_pair.eng-fra.language_id.min_letters=10000")
"""Both pairs; the tiny identifier knows no French."""


def preprocess(config: Path, *overrides: str) -> int:
    return main(["--config", str(config), *overrides])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs, once mixed and once by subset; a third of the questions is held out for validation."""
    config = tiny_config(tmp_path_factory.mktemp("by-subset"), rows=30)
    common = [*TWO, "packing.validation_fraction=0.34"]
    mixed, apart = config.parent / "mixed", config.parent / "subset"
    assert preprocess(config, *common, f"output_dir={mixed}") == 0
    shutil.copytree(mixed, apart)  # the stages are the same, and are not run again
    (apart / "data_card.html").unlink()
    assert preprocess(config, *common, f"output_dir={apart}", "packing.by=subset") == 0
    assert (mixed / "data_card.html").is_file() and (apart / "data_card.html").is_file()
    return config.parent


def rows_of(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "transfer_set.jsonl").read_text(encoding="utf-8").splitlines()]


def test_each_subset_of_each_pair_is_a_set_of_its_own(made: Path) -> None:
    folder = made / "subset/packed"
    rows = rows_of(made / "subset")
    for pair in PAIRS:
        for kind in SUBSETS:
            for path, split in ((folder / pair, "train"), (folder / pair / "validation", "validation")):
                packed = PackedDataset(path, kind)
                expected = {r["key"] for r in rows if r["subset"] == f"{kind}.{pair}" and r["split"] == split}
                assert sorted(f"{k:016x}" for k in packed.sample_key) == sorted(expected)
                assert packed.subset_names == (f"{kind}.{pair}",)
                assert packed.manifest["pair"] == pair and packed.manifest["pairs"] == list(PAIRS)
                theirs = IndexedDataset(str(path / kind))
                assert [len(s) for s in theirs[:]] == packed.lengths.tolist()


def test_the_same_samples_as_mixed(made: Path) -> None:
    assert (made / "subset/transfer_set.jsonl").read_bytes() == (made / "mixed/transfer_set.jsonl").read_bytes()
    mixed, apart = (read_json(made / name / "stats.json") for name in ("mixed", "subset"))
    assert apart["subsets"] == mixed["subsets"] and list(apart["subsets"]) == list(mixed["subsets"])
    for key in ("samples", "tokens", "seq_length"):
        assert apart["packing"][key] == mixed["packing"][key]
    assert apart["packing"]["packs"] >= mixed["packing"]["packs"]


def test_the_blend_is_what_megatron_takes(made: Path) -> None:
    folder = made / "subset/packed"
    line = (folder / "blend.txt").read_text(encoding="utf-8")
    prefixes, weights = get_blend_from_list(line.split())
    assert prefixes == [f"{pair}/{kind}" for pair in PAIRS for kind in SUBSETS]
    assert weights == [len(PackedDataset((folder / p).parent, Path(p).name)) for p in prefixes]
    blend = read_json(folder / "blend.json")
    assert [s["prefix"] for s in blend["sets"]] == prefixes
    assert [s["validation"] for s in blend["sets"]] == [p.replace("/", "/validation/") for p in prefixes]
    for entry in blend["sets"]:
        assert entry["manifest_sha256"] == read_json(folder / f"{entry['prefix']}.manifest.json")["manifest_sha256"]


def test_every_file_is_in_the_statistics(made: Path) -> None:
    stats = read_json(made / "subset/stats.json")
    files = {str(p.relative_to(made / "subset")) for p in (made / "subset/packed").rglob("*") if p.is_file()}
    assert {n for n in stats["files"] if n.startswith("packed/")} == files
    assert all(stats["files"][n] == sha256_file(made / "subset" / n) for n in files)


def test_one_way_of_packing_leaves_nothing_of_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path, rows=20)
    packed, few = tmp_path / "out/packed", ("subsets.combinations=[LL]", "instructions.held_out=4")
    assert preprocess(config, *few, "packing.by=subset") == 0
    before = {p.name: p.read_bytes() for p in (packed / "eng-por").iterdir()}
    assert preprocess(config, *few, "packing.by=subset") == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert preprocess(config, *few) == 0
    assert {p.name.partition(".")[0] for p in packed.iterdir()} == {"train"}
    assert preprocess(config, *few, "packing.by=subset") == 0
    assert sorted(p.name for p in packed.iterdir()) == ["blend.json", "blend.txt", "eng-por"]
    assert {p.name: p.read_bytes() for p in (packed / "eng-por").iterdir()} == before
    assert {name.partition(".")[0] for name in before} == {"LL", "mt", "comp"}


def test_one_subset_of_several_pairs_is_a_set_a_pair(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, rows=20)
    assert preprocess(config, "method=xcot", *TWO, "packing.by=subset") == 0
    blend = read_json(tmp_path / "out/packed/blend.json")
    assert [s["prefix"] for s in blend["sets"]] == ["eng-por/xcot", "eng-fra/xcot"]
    assert {s["subset"] for s in blend["sets"]} == {"xcot"}
    stats = read_json(tmp_path / "out/stats.json")
    assert stats["subsets"]["xcot"]["samples"] == sum(s["samples"] for s in blend["sets"])


def test_another_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match=r"packing\.by: unknown value 'subsets'; did you mean 'subset'\?"):
        preprocess(tiny_config(tmp_path), "packing.by=subsets")
