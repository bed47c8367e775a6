"""The way back: what is rejected, what is compared, what is refused before a run."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data import chosen_engines
from sdrrl_nemo.data.config import PreprocessConfig, RoundTripConfig, TranslationConfig
from sdrrl_nemo.data.engines.base import Translator
from sdrrl_nemo.data.filters import TextPair
from sdrrl_nemo.data.preflight.forecast import forecast
from sdrrl_nemo.data.stages.checks.round_trip import RoundTrip
from sdrrl_nemo.data.validation import import_plugins, validate
from tests.unit.data.tiny_run import tiny_config
from tools.preprocess_sdrrl import preprocess

SOURCE = "The cat sleeps on the warm stones of the garden wall."


class Back(Translator):
    """Gives what a table says and remembers which way it was asked."""

    def __init__(self, table: dict[str, str]) -> None:
        self.table, self.ways = table, Counter()  # type: ignore[var-annotated]

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        self.ways[source, target] += len(texts)
        return [self.table[text] for text in texts]


def stage(table: dict[str, str], **options: object) -> RoundTrip:
    section = RoundTripConfig(engine=TranslationConfig(name="back"), **options)  # type: ignore[arg-type]
    return RoundTrip("round-trip", Back(table), section, ("eng", "por"), 8)


def chrf2(hypothesis: str, reference: str) -> float:
    """chrF with beta 2 over character n-grams of 1 to 6 without spaces, written down from Popović (2015)."""
    sides = ["".join(text.split()) for text in (hypothesis, reference)]
    precisions, recalls = [], []
    for n in range(1, 7):
        ours, theirs = (Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in sides)
        if ours and theirs:
            same = (ours & theirs).total()
            precisions.append(same / ours.total())
            recalls.append(same / theirs.total())
    p, r = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 5 * p * r / (4 * p + r) if p + r else 0.0


@pytest.mark.parametrize(
    ("back", "passes"),
    [
        (SOURCE, True),
        ("The cat is sleeping on the warm stones of the garden's wall.", True),
        ("Nobody has seen such prices since many a long year.", False),
        ("", False),
    ],
)
def test_what_does_not_come_back_is_rejected(back: str, passes: bool) -> None:
    (verdict,) = stage({"tradução": back}).judge([TextPair(SOURCE, "tradução", "eng", "por")])
    assert (verdict.rejection is None) == passes
    if back and not passes:
        assert f"chrF {chrf2(back, SOURCE):.4f} < 0.4; came back as: {back}" == verdict.rejection.detail


def test_protected_text_does_not_count_and_short_texts_stay() -> None:
    code = "\n```python\nfor number in range(10):\n    print('the same code on both sides', number)\n```\n"
    wrong = stage({f"tradução{code}": f"Prices rise in many a year.{code}", "oi": "Nobody"})
    pairs = [TextPair(SOURCE + code, f"tradução{code}", "eng", "por"), TextPair("Hello", "oi", "eng", "por")]
    assert chrf2(f"Prices rise in many a year.{code}", SOURCE + code) > 0.4  # as a whole it would pass
    first, second = wrong.judge(pairs)
    assert first.rejection is not None
    assert second.rejection is None
    assert wrong.engine.ways == {("por", "eng"): 1}  # type: ignore[attr-defined]


def test_settings_hold_what_decides_and_the_stage_travels() -> None:
    one, two = stage({}), stage({}, minimum=0.5)
    assert one.settings() != two.settings()
    one.judge([])
    assert pickle.loads(pickle.dumps(one)).settings() == one.settings()


def test_an_optional_stage_of_a_run(tmp_path: Path) -> None:
    path = tiny_config(tmp_path, rows=20)
    config = load_config(PreprocessConfig, path, ["round_trip.engine.name=tiny", "round_trip.minimum=0.415"])
    import_plugins(config.plugins)
    engines = chosen_engines.Engines(config)
    (use,) = [use for use in engines.uses if use.role == "round_trip"]
    assert use.ways == [["por", "eng"]]
    assert [work.calls for work in forecast(config).work if work.role == "round_trip"]
    assert preprocess(config, tmp_path / "out")
    stats = json.loads((tmp_path / "out/stats.json").read_text(encoding="utf-8"))
    (found,) = [s for s in stats["stages"] if s["name"] == "round-trip"]
    assert 0 < found["dropped"]["round trip"] < found["in"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("round_trip.metric=bleu", r"round_trip\.metric: unknown value 'bleu'"),
        ("round_trip.minimum=40", r"round_trip\.minimum: 40(\.0)? is not between 0 and 1"),
        ("round_trip.engine.candidates=4", r"round_trip\.engine\.candidates"),
        ("round_trip.engine.name=tinny", r"round_trip\.engine\.name: unknown translator backend 'tinny'.*tiny"),
    ],
)
def test_refusals(tmp_path: Path, override: str, message: str) -> None:
    config = load_config(PreprocessConfig, tiny_config(tmp_path), [override])
    import_plugins(config.plugins)

    def start() -> None:
        validate(config)
        chosen_engines.Engines(config)

    with pytest.raises(SdrrlError, match=message):
        start()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(PreprocessConfig, tiny_config(tmp_path), ["round_trip.engine.name=tiny"])
    import_plugins(config.plugins)
    monkeypatch.setattr(chosen_engines, "CHRF_PACKAGE", ("no-such-package", "eval"))
    with pytest.raises(SdrrlError, match=r"'no-such-package' is not installed.*sdrrl-nemo\[eval\]"):
        chosen_engines.Engines(config)
