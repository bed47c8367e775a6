"""Several packed sets in one run: which they are, what their subsets are called, and what cannot go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.data.packing.blend_files import write_blend
from sdrrl_nemo.data.packing.packed import PackedDataset, PackedWriter, TokenizedSample
from sdrrl_nemo.train.batches import MicroBatches, MicroBatchStream, Schedule
from sdrrl_nemo.train.blend.chosen import chosen_sets, held_out_of, objective, shares
from sdrrl_nemo.train.blend.opened import Blend, open_blend
from sdrrl_nemo.train.blend.record import identity_of_blend, lines, record_of, write_record
from sdrrl_nemo.train.config import BlendEntry, DataSettings, RunConfig, check
from tests.launch import ROOT

SEQ = 32


def make_set(
    prefix: Path,
    samples: Mapping[str, int],
    pairs: Sequence[str] = ("eng-por",),
    *,
    seq_length: int = SEQ,
    first: int = 1,
    weight: float = 1.0,
    **about: Any,
) -> Path:
    """A packed set of random samples; the k-th sample has the key ``first + k`` and weighs ``weight ** k``."""
    rng = np.random.default_rng(first)
    writer = PackedWriter(prefix.parent, prefix.name, 100, seq_length, tuple(samples))
    pack: list[TokenizedSample] = []
    names = [name for name, n in samples.items() for _ in range(n)]
    for k, name in enumerate(rng.permutation(names)):
        n, answer = int(rng.integers(4, 14)), int(rng.integers(1, 3))
        mask = np.asarray([0] * (n - answer) + [1] * answer, np.uint8)
        tokens = rng.integers(0, 100, n).astype(np.int32)
        if sum(len(s.tokens) for s in pack) + n > seq_length:
            writer.add_pack(pack)
            pack = []
        pack.append(TokenizedSample(f"{first + k:016x}", str(name), tokens, mask, weight**k))
    writer.add_pack(pack)
    writer.finish({"tokenizer_sha256": "t" * 64, "chat_template": "{{ x }}", "pairs": list(pairs), **about})
    return prefix


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two mixed sets of one pair each, and one by subset of two pairs."""
    root = tmp_path_factory.mktemp("sets")
    make_set(root / "por/train", {"LL": 40, "TT": 20}, first=1)
    make_set(root / "jpn/train", {"LL": 11, "TT": 9}, ["eng-jpn"], first=100)
    listed = []
    for number, (prefix, name) in enumerate([("eng-fra/LL", "LL.eng-fra"), ("eng-swe/LL", "LL.eng-swe")]):
        make_set(root / "two" / prefix, {name: 5 + number}, ["eng-fra", "eng-swe"], first=200 + 10 * number)
        listed.append({"prefix": prefix, "weight": 1})
    write_blend(root / "two", listed, {})
    return root


def data(folder: Path, *paths: str, **changes: Any) -> DataSettings:
    return DataSettings(blend=[BlendEntry(str(folder / path)) for path in paths], **changes)


def opened(settings: DataSettings) -> Blend:
    return open_blend(settings, chosen_sets(settings), lambda prefix: PackedDataset(prefix.parent, prefix.name))


def test_a_path_is_a_folder_or_a_prefix_or_a_blend(folder: Path) -> None:
    por, fra, swe = folder / "por/train", folder / "two/eng-fra/LL", folder / "two/eng-swe/LL"
    for paths, expected in {
        ("por",): [por],
        ("por/train", "two/eng-swe/LL"): [por, swe],
        ("por", "two"): [por, fra, swe],
        ("two/blend.json",): [fra, swe],
    }.items():
        assert [c.prefix for c in chosen_sets(data(folder, *paths))] == expected
    assert [c.prefix for c in chosen_sets(DataSettings(path=str(folder / "two")))] == [fra, swe]
    assert chosen_sets(DataSettings(path=str(folder / "por"))) == []
    with pytest.raises(SdrrlError, match=r"data\.blend\[1\]\.path: .*/nothing is neither a folder with train.manifest"):
        chosen_sets(data(folder, "por", "nothing"))
    with pytest.raises(SdrrlError, match=r"the set .*/por/train is named twice; to draw it more often"):
        chosen_sets(data(folder, "por", "por/train"))


def test_subsets_of_several_pairs_are_told_apart(folder: Path) -> None:
    assert opened(data(folder, "por")).train.subset_names == ("LL", "TT")
    both = opened(data(folder, "por", "jpn")).train
    assert both.subset_names == ("LL.eng-por", "TT.eng-por", "LL.eng-jpn", "TT.eng-jpn")
    assert both.subset_sizes().tolist() == [40, 20, 11, 9]
    assert opened(data(folder, "two", "jpn")).train.subset_names[:3] == ("LL.eng-fra", "LL.eng-swe", "LL.eng-jpn")


def test_a_subset_that_two_sets_have_is_one_subset(folder: Path, tmp_path: Path) -> None:
    make_set(tmp_path / "more/train", {"TT": 3, "mt": 4}, first=500)
    settings = DataSettings(blend=[BlendEntry(str(folder / "por")), BlendEntry(str(tmp_path / "more"))])
    together = opened(settings)
    assert together.train.subset_names == ("LL", "TT", "mt")
    assert together.train.subset_sizes().tolist() == [40, 23, 4]
    settings.blend[1].weight = 2.0
    message = r"por/train \(weight 1\) and .*more/train \(weight 2\) both have samples of the subset TT"
    with pytest.raises(SdrrlError, match=message):
        opened(settings).weights()


def test_samples_are_those_of_the_sets(folder: Path) -> None:
    together = opened(data(folder, "por", "jpn")).train
    alone = [PackedDataset(folder / name) for name in ("por", "jpn")]
    assert len(together) == sum(map(len, alone))
    number = 0
    for packed in alone:
        for i in range(len(packed.lengths)):
            for found, expected in zip(together.sample(number), packed.sample(i), strict=True):
                np.testing.assert_array_equal(found, expected)
            assert together.sample_key[number] == packed.sample_key[i]
            number += 1
    first_pack = len(alone[0])
    assert together.samples_of(first_pack).start == len(alone[0].lengths)
    assert together.sample_weight is None


def batches_of(blend: Blend, packed: bool, mbs: int = 1, gbs: int = 4) -> MicroBatches:
    from sdrrl_nemo.train.batches import Mixture

    schedule = blend.schedule(gbs, 3)
    mixture = Mixture(blend.weights(), blend.steps_a_draw(schedule, 2 * schedule.steps_per_epoch))
    return MicroBatches(
        blend.train, packed=packed, micro_batch_size=mbs, reduction="mean", schedule=schedule, mixture=mixture
    )


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("sampling", ["proportional", "equal", "temperature", "numbers"])
def test_weights_of_two_epochs_add_up_to_the_objective(folder: Path, packed: bool, sampling: str) -> None:
    """Through the micro-batches, in their fp32, in two layouts: over the run each subset carries lambda_d."""
    settings = data(folder, "por", "jpn", packed=packed, sampling=sampling, temperature=3.0, objective={"TT*": 0.25})
    settings.blend[1].weight = 2.0
    if sampling == "numbers":
        settings.blend[0].sampling, settings.blend[1].sampling = 1.0, 3.0
    blend = opened(settings)
    totals = []
    for mbs, dp in ((1, 1), (1, 2), (2, 2)):
        batches = batches_of(blend, packed, mbs)
        total = torch.zeros(4, dtype=torch.float64)
        streams = [iter(MicroBatchStream(batches, 0, rank, dp)) for rank in range(dp)]
        steps = 2 * batches.schedule.steps_per_epoch
        for stream in streams:
            for _ in range(steps * 4 // (mbs * dp)):
                b = next(stream)
                total.index_add_(0, b["subset_ids"].reshape(-1), b["weights"].double().reshape(-1))
        totals.append(total / steps)
    for total in totals:
        torch.testing.assert_close(total, torch.tensor([1, 0.25, 2, 0.5], dtype=torch.float64), rtol=1e-6, atol=0)
    assert batches_of(blend, packed).step_weight() == pytest.approx(3.75, rel=1e-5)


def test_a_stream_goes_on_where_it_stopped(folder: Path) -> None:
    batches = batches_of(opened(data(folder, "por", "jpn", sampling="equal", epoch_rows=22)), packed=True)
    full, late = iter(MicroBatchStream(batches, 0, 1, 2)), iter(MicroBatchStream(batches, 7, 1, 2))
    for _ in range(7 * 2):
        next(full)
    for _ in range(12):
        one, other = next(full), next(late)
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_one_set_as_a_blend_is_the_set_itself(folder: Path) -> None:
    """The same rows, tokens and weights, bit for bit."""
    alone = PackedDataset(folder / "por")
    plain = MicroBatches(alone, packed=True, micro_batch_size=2, reduction="mean", schedule=Schedule(len(alone), 4, 3))
    as_blend = batches_of(opened(data(folder, "por")), packed=True, mbs=2)
    streams = [iter(MicroBatchStream(b, 0, 0, 1)) for b in (plain, as_blend)]
    for _ in range(4 * plain.schedule.steps_per_epoch):
        one, other = (next(s) for s in streams)
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_weights_of_samples(tmp_path: Path, folder: Path) -> None:
    """A sidecar where one weight is not 1; the mean of a subset is the weighted one, also beside a set without."""
    make_set(tmp_path / "w/train", {"LL": 4, "TT": 2}, ["eng-kor"], first=900, weight=1.5)
    assert not (folder / "por/train.sample_weight.npy").exists()
    packed = PackedDataset(tmp_path / "w")
    assert packed.sample_weight is not None and packed.sample_weight.tolist() == [1.5**k for k in range(6)]
    assert packed.manifest["subsets"]["LL"]["weights"] == packed.sample_weight[packed.subset == 0].sum()
    settings = DataSettings(blend=[BlendEntry(str(tmp_path / "w")), BlendEntry(str(folder / "por"))])
    batches = batches_of(opened(settings), packed=True)
    assert batches.step_weight() == pytest.approx(4, rel=1e-5)
    weights, own = batches.weights[:6] * packed.answer_tokens, packed.sample_weight
    for subset in (0, 1):
        mine = packed.subset == subset
        np.testing.assert_allclose(weights[mine] / weights[mine].sum(), own[mine] / own[mine].sum())
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        writer = PackedWriter(tmp_path / "bad", "train", 100, 8, ("LL",))
        sample = TokenizedSample("1".zfill(16), "LL", np.asarray([1, 2], np.int32), np.asarray([0, 1], np.uint8), bad)
        with pytest.raises(SdrrlError, match="must be a positive number"):
            writer.add_pack([sample])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seq_length": 64}, "por/train has packs of 32 tokens, .*other/train has packs of 64 tokens; .*seq_length"),
        ({"tokenizer_sha256": "u" * 64}, r"has tokens of the tokenizer t+…, .*other/train has .* u+…; .*same model"),
        ({"chat_template": "{{ y }}"}, "template {{ x }}, .*other/train has .* template {{ y }}; .*and templates"),
    ],
)
def test_sets_that_were_packed_differently_are_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    make_set(tmp_path / "other/train", {"LL": 3}, first=700, **change)
    settings = DataSettings(blend=[BlendEntry(str(folder / "por")), BlendEntry(str(tmp_path / "other"))])
    with pytest.raises(SdrrlError, match=message):
        opened(settings)


def test_shares(folder: Path) -> None:
    chosen = chosen_sets(data(folder, "por", "two"))
    rows = [80, 10, 10]

    def found(**changes: Any) -> tuple[float, ...]:
        return shares(DataSettings(**changes), chosen, rows)

    assert found(sampling="proportional") == ()
    assert found(sampling="equal") == pytest.approx([1 / 3] * 3)
    assert found(sampling="temperature", temperature=1.0) == pytest.approx([0.8, 0.1, 0.1])
    roots = [80**0.25, 10**0.25, 10**0.25]
    assert found(sampling="temperature", temperature=4.0) == pytest.approx(np.asarray(roots) / sum(roots))
    # numbers are of the entries; within the second one its two sets by their rows
    numbered = [replace(c, sampling=1.0 if c.part == 0 else 3.0) for c in chosen]
    assert shares(DataSettings(sampling="numbers"), numbered, [80, 30, 10]) == pytest.approx([1 / 4, 9 / 16, 3 / 16])


def test_objective(folder: Path) -> None:
    blend = opened(data(folder, "por", "jpn", objective={"TT*": 0.5, "TT.eng-jpn": 3.0}))
    assert blend.weights().tolist() == [1, 0.5, 1, 3]
    with pytest.raises(SdrrlError, match=r"'LL.eng-jp' is no subset of this run; did you mean 'LL.eng-jpn'"):
        opened(data(folder, "por", "jpn", objective={"LL.eng-jp": 2.0})).weights()
    with pytest.raises(SdrrlError, match="every subset has the weight 0"):
        objective(DataSettings(objective={"*": 0.0}), ["LL"], [], [])


def test_held_out_sets(tmp_path: Path, folder: Path) -> None:
    make_set(tmp_path / "por/train", {"LL": 4, "TT": 2}, first=10)
    make_set(tmp_path / "por/validation", {"LL": 2, "TT": 1}, first=20)
    make_set(tmp_path / "two/eng-fra/LL", {"LL.eng-fra": 5}, ["eng-fra", "eng-swe"], first=30)
    make_set(tmp_path / "two/eng-fra/validation/LL", {"LL.eng-fra": 3}, ["eng-fra", "eng-swe"], first=40)
    settings = data(tmp_path, "por", "two/eng-fra/LL", validation="validation")
    blend = opened(settings)
    assert blend.held_out is not None
    assert blend.held_out.subset_names == blend.train.subset_names == ("LL.eng-por", "TT.eng-por", "LL.eng-fra")
    assert blend.held_out.subset_sizes().tolist() == [2, 1, 3]
    with pytest.raises(SdrrlError, match=r"the set .*/jpn/train has no held-out set"):
        held_out_of(chosen_sets(data(folder, "jpn")), "validation")
    make_set(tmp_path / "por/other", {"LL": 2, "mt": 1}, first=50)
    with pytest.raises(SdrrlError, match=r"por/other has the subset mt, which no set of data.blend has"):
        opened(data(tmp_path, "por", validation="other"))


def test_what_is_never_drawn_is_said(folder: Path, tmp_path: Path) -> None:
    blend = opened(data(folder, "por", "jpn", sampling="equal", epoch_rows=8))
    schedule = blend.schedule(4, 3)
    record = record_of(blend, schedule, steps=2)
    rows = sum(blend.train.rows_of_sets(True))
    assert record["epoch_rows"] == 8 and [s["quota"] for s in record["sets"]] == [4, 4]
    drawn = {i for step in range(2) for row in schedule.batch(step) for i in blend.train.samples_of(int(row))}
    assert record["never_drawn"] == len(blend.train.lengths) - len(drawn) > 0
    assert sum(s["drawn"] for s in record["subsets"].values()) == len(drawn)
    said = dict(lines(record))
    assert said["blend"] == f"2 sets, equal, an epoch draws 8 of {rows} packs"
    assert said["never drawn"].startswith(f"{record['never_drawn']} of 80 samples in 2 steps")
    assert record_of(blend, schedule, steps=2 * rows)["never_drawn"] == 0
    write_record(tmp_path, record)
    assert read_json(tmp_path / "blend.json") == record
    line = (tmp_path / "blend.txt").read_text().split()
    assert line[0::2] == ["0.5", "0.5"] and line[1::2] == [str(folder / "por/train"), str(folder / "jpn/train")]
    elsewhere = {**record, "sets": [{**s, "prefix": "/moved"} for s in record["sets"]]}
    assert identity_of_blend(elsewhere) == identity_of_blend(record)


def test_a_set_that_no_epoch_draws_is_refused(folder: Path) -> None:
    settings = data(folder, "por", "jpn", sampling="numbers", epoch_rows=1)
    settings.blend[0].sampling, settings.blend[1].sampling = 1.0, 1e-6
    blend = opened(settings)
    with pytest.raises(SdrrlError, match=r"an epoch of 1 rows draws none of .*jpn/train; raise its sampling"):
        blend.steps_a_draw(blend.schedule(4, 3), 10)


@pytest.mark.parametrize(
    ("changes", "entry", "message"),
    [
        ({"path": "a"}, {}, "data.path and data.blend are both set"),
        ({}, {"weight": 0.0}, r"data.blend\[0\].weight: must be a positive number, is 0.0"),
        ({}, {"sampling": 2.0}, r"data.blend\[0\].sampling is set, and data.sampling is proportional"),
        ({"sampling": "numbers"}, {}, r"data.blend\[0\].sampling is missing, and data.sampling is numbers"),
        ({"sampling": "numbers"}, {"sampling": -1.0}, r"data.blend\[0\].sampling: must be a positive number"),
        ({"sampling": "even"}, {}, "data.sampling: 'even' is not one of proportional, equal, temperature, numbers"),
        ({"sampling": "temperature", "temperature": 0.0}, {}, "data.temperature: must be a positive number"),
        ({"epoch_rows": 5}, {}, "data.epoch_rows=5: must not be negative, and 0 with data.sampling: proportional"),
        ({"objective": {"LL": -1.0}}, {}, "data.objective: 'LL' must be a number from 0, is -1.0"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], entry: dict[str, Any], message: str) -> None:
    config = RunConfig(data=DataSettings(blend=[BlendEntry("x", **entry)], **changes))
    with pytest.raises(SdrrlError, match=message):
        check(config, 1)


def test_a_mean_over_a_steps_tokens_has_no_weights_of_subsets() -> None:
    config = RunConfig(data=DataSettings(blend=[BlendEntry("x", weight=2.0)]))
    config.loss.sample_reduction = "step"
    with pytest.raises(SdrrlError, match=r"which loss\.sample_reduction: step does not have"):
        check(config, 1)


def test_the_blend_of_the_documentation_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    block = page.partition("## Blends")[2].partition("```yaml\n")[2].partition("```")[0]
    path = tmp_path / "run.yaml"
    path.write_text(f"run_dir: r\nmodel: {{hf_path: m}}\n{block}", encoding="utf-8")
    config = load_config(RunConfig, path)
    assert check(config, 1) == 1
    assert [e.weight for e in config.data.blend] == [1.0, 0.5, 1.0] and config.data.sampling == "temperature"
    assert config.data.objective == {"mt*": 0.5} and config.data.path == ""
