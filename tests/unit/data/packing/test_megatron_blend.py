"""megatron-core's BlendedDataset over the sets of ``packing.by: subset`` draws from each set as often as a run here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdrrl_nemo.data.packing.blend_files import BLEND_TXT, write_blend
from sdrrl_nemo.data.packing.packed import PackedDataset, PackedWriter, TokenizedSample
from sdrrl_nemo.train.blend.chosen import chosen_sets
from sdrrl_nemo.train.blend.opened import open_blend
from sdrrl_nemo.train.blend.quotas import greedy
from sdrrl_nemo.train.blend.record import record_of, write_record
from sdrrl_nemo.train.config import DataSettings
from tests.megatron_blend import draws_of, megatron_blend

SEQ = 24
PACKS = {"eng-por/LL": 41, "eng-por/TT": 23, "eng-por/mt": 64, "eng-jpn/LL": 17, "eng-jpn/TT": 5, "eng-jpn/mt": 32}
SAMPLINGS = [
    {"sampling": "proportional"},
    {"sampling": "equal"},
    {"sampling": "temperature", "temperature": 3.0},
    {"sampling": "equal", "epoch_rows": 77},
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as packing by subset leaves it; every pack is full, so that Megatron cuts as many samples of a set."""
    folder = tmp_path_factory.mktemp("packed")
    rng = np.random.default_rng(0)
    for number, (prefix, packs) in enumerate(PACKS.items()):
        pair, kind = prefix.split("/")
        writer = PackedWriter(folder / pair, kind, 100, SEQ, (f"{kind}.{pair}",))
        for i in range(packs):
            tokens, mask = rng.integers(0, 100, SEQ // 2).astype(np.int32), np.asarray([0] * 6 + [1] * 6, np.uint8)
            writer.add_pack([TokenizedSample(f"{number * 1000 + i:016x}", f"{kind}.{pair}", tokens, mask)] * 2)
        writer.finish({"tokenizer_sha256": "t" * 64, "pairs": ["eng-por", "eng-jpn"], "pair": pair})
    write_blend(folder, [{"prefix": prefix, "weight": packs} for prefix, packs in PACKS.items()], {})
    return folder


def test_blend_txt_draws_every_pack_once(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packed)  # its prefixes are relative
    theirs = megatron_blend(Path(BLEND_TXT).read_text(encoding="utf-8").split(), sum(PACKS.values()), SEQ)
    assert all(abs(n - packs) <= 1 for n, packs in zip(draws_of(theirs), PACKS.values(), strict=True))
    assert len(theirs[0]["tokens"]) == SEQ


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_draws_of_a_run(packed: Path, tmp_path: Path, sampling: dict[str, object]) -> None:
    """The run's own blend.txt, given to Megatron: each set is drawn as often as by the run, but for one."""
    data = DataSettings(path=str(packed), **sampling)  # type: ignore[arg-type]
    blend = open_blend(data, chosen_sets(data), lambda prefix: PackedDataset(prefix.parent, prefix.name))
    record = record_of(blend, blend.schedule(8, 1), steps=1)
    write_record(tmp_path, record)
    line = (tmp_path / BLEND_TXT).read_text(encoding="utf-8").split()
    theirs = megatron_blend(line, record["epoch_rows"], SEQ)
    ours = [s["quota"] for s in record["sets"]]
    assert sum(ours) == record["epoch_rows"]
    assert all(abs(a - b) <= 1 for a, b in zip(draws_of(theirs), ours, strict=True)), (draws_of(theirs), ours)
    if sampling["sampling"] != "proportional":  # set by set in the same order, however many Megatron makes of it
        assert theirs.dataset_index.tolist() == greedy([float(w) for w in theirs.weights], len(theirs)).tolist()
