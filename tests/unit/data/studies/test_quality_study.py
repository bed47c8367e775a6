"""The study of estimators and filters: spoilt translations, thresholds by hand, and the tool on a small corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.quality.use import UseQualityEstimator
from sdrrl_nemo.data.filters import TextPair, make_filters
from sdrrl_nemo.data.studies.tau_study import first_half, sample, spoil, study_estimator, study_filters, threshold
from tools.bench.measure_quality import main

PAIRS = [
    ("The capital of France is Paris.", "A capital da França é Paris."),
    ("Drink plenty of water every day.", "Beba bastante água todos os dias."),
    ("She plays the piano very well.", "Ela toca piano muito bem."),
    ("The train leaves at seven in the morning.", "O trem parte às sete da manhã."),
    ("My brother works in a large hospital.", "Meu irmão trabalha em um grande hospital."),
    ("It rained all week in the mountains.", "Choveu a semana inteira nas montanhas."),
]
TRUE = [TextPair(s, t, "eng", "por") for s, t in PAIRS]


def test_nobody_keeps_his_own_translation() -> None:
    targets = [t for _, t in PAIRS]
    for seed in range(20):
        spoilt = spoil(TRUE, seed)
        assert sorted(spoilt["shuffled"]) == sorted(targets)
        assert all(a != b for a, b in zip(spoilt["shuffled"], targets, strict=True))
    assert spoilt["copied"] == [s for s, _ in PAIRS]
    assert spoil(TRUE, 3) == spoil(TRUE, 3)
    assert len({tuple(spoil(TRUE, seed)["shuffled"]) for seed in range(20)}) > 1


@pytest.mark.parametrize(
    ("text", "code", "half"),
    [
        ("Beba bastante água hoje.", "por", "Beba bastante"),
        ("Beba bastante água todos os dias.", "por", "Beba bastante água"),
        ("今日は天気がいい。", "jpn", "今日は"),
        ("오늘은 날씨가 좋아요.", "kor", "오늘은"),
        ("พวกเขา", "tha", "พวก"),
        ("Olá!", "por", "Ol"),
        ("", "por", ""),
    ],
)
def test_first_half(text: str, code: str, half: str) -> None:
    found = first_half(text, code)
    assert text.startswith(found)
    assert found == half


def test_threshold_keeps_the_share() -> None:
    scores = [i / 100 for i in range(1, 101)]  # 0.01 to 1.00
    assert threshold(scores, 0.95) == 0.06  # 0.06 to 1.00 are 95 scores
    assert threshold(scores, 1 - 1e-12) == 0.01
    assert threshold([0.5, 0.5, 0.5], 0.9) == 0.5
    for keep in (0.5, 0.9, 0.95, 0.99):
        tau = threshold(scores, keep)
        assert sum(s >= tau for s in scores) / len(scores) >= keep


def test_a_sample_keeps_the_corpus_order() -> None:
    few = sample(TRUE, 4, 7)
    assert len(few) == 4 == len(set(few))
    assert few == [p for p in TRUE if p in few] == sample(TRUE, 4, 7)
    assert sample(TRUE, 100, 7) == TRUE


def test_an_estimator_is_summed_up() -> None:
    found = study_estimator(UseQualityEstimator(), TRUE, tau=0.5, keep=0.95, seed=1)
    assert found["shuffled"]["auc"] == 1.0
    assert found["true"]["rejected_at_configured_tau"] == 0.0 < found["shuffled"]["rejected_at_configured_tau"]
    assert found["copied"] == {
        "auc": 0.0, "mean": 1.0, "rejected_at_configured_tau": 0.0, "rejected_at_tau_for_keep": 0.0
    }  # fmt: skip
    low, high = found["tau_interval"]
    assert low <= found["tau_for_keep"] <= high


def test_filters_are_counted_by_themselves_and_together() -> None:
    pairs = [*TRUE[:3], TextPair("Open it.", "Abra 12 34.", "eng", "por"), TextPair("Go 7.", "Открой.", "eng", "por")]
    filters = make_filters([("numbers", {}), ("script", {"minimum": 0.8})])
    found = study_filters(filters, pairs)
    assert {name: f["share"] for name, f in found.items()} == {"numbers": 0.4, "script": 0.2, "any": 0.4}
    assert found["script"]["examples"][0]["target"] == "Открой."
    assert "7" in found["numbers"]["examples"][1]["reason"]


def write_config(folder: Path, **more: object) -> Path:
    (folder / "corpus.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in PAIRS), encoding="utf-8")
    config = {
        "target_languages": ["por"],
        "output_dir": str(folder),
        "model": "none",
        "instructions": {"path": "none"},
        "generation": {"engine": {"name": "hf"}},
        "translation": {"name": "none"},
        "code_switch": {"dictionary": {"name": "freedict"}},
        "quality": {"engine": {"name": "use"}, "tau": 0.5},
        "filters": [{"name": "length_ratio"}, {"name": "length", "options": {"minimum": 30}}],
        "language_id": {"engine": {"name": "cld3"}},
        "parallel": {
            "engine": {
                "name": "tsv",
                "options": {"path": str(folder / "corpus.tsv"), "source": "eng", "target": "por"},
            }
        },
        **more,
    }
    (folder / "c.yaml").write_text(json.dumps(config))
    return folder / "c.yaml"


def test_the_tool_prints_and_keeps_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    assert main(["--config", str(config), "--json", str(tmp_path / "out.json"), "--count", "5"]) == 0
    printed = capsys.readouterr().out
    assert "| eng-por | 1.000 |" in printed
    assert "**33.3%**" in printed  # two of six translations have fewer than 30 characters
    kept = json.loads((tmp_path / "out.json").read_text())
    row = kept["pairs"]["eng-por"]
    assert row["corpus_pairs"] == 6 and row["quality"]["pairs"] == 5
    assert row["estimator"].startswith("use/") and row["corpus"].startswith("tsv/")
    assert row["filters"]["length"]["share"] == pytest.approx(1 / 3, abs=1e-4)
    assert kept["settings"]["tau"] == 0.5 and "git_commit" in kept["origin"]


def test_the_tool_can_leave_the_estimator_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    assert main(["--config", str(config), "--json", str(tmp_path / "out.json"), "--count", "0"]) == 0
    assert "AUC" not in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["pairs"]["eng-por"]["quality"] is None
    with pytest.raises(SdrrlError, match="--count"):
        main(["--config", str(config), "--json", str(tmp_path / "out.json"), "--count", "1"])
