from __future__ import annotations

import dataclasses

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.provenance import REPO_ROOT
from sdrrl_nemo.data.chosen_engines import Engines
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.engines.language_id.cld3 import OTHER_LABELS, Cld3Identifier
from sdrrl_nemo.data.engines.quality.use import UseQualityEstimator
from sdrrl_nemo.data.pairs import for_pair
from sdrrl_nemo.data.text.languages import from_cld3

PAIRS = [
    ("The capital of France is Paris.", "A capital da França é Paris."),
    ("Drink plenty of water every day.", "Beba bastante água todos os dias."),
    ("She plays the piano very well.", "Ela toca piano muito bem."),
]


@pytest.fixture(scope="module")
def use() -> UseQualityEstimator:
    return UseQualityEstimator()


def test_translations_score_above_mismatches(use: UseQualityEstimator) -> None:
    sources, targets = zip(*PAIRS, strict=True)
    good = use.score(sources, targets)
    wrong = use.score(sources, targets[1:] + targets[:1])
    assert min(good) > 0.6 > max(wrong)


def test_one_wrong_sentence_in_a_long_text_shows(use: UseQualityEstimator) -> None:
    source = "\n".join(s for s, _ in PAIRS)
    right = "\n".join(t for _, t in PAIRS)
    wrong = "\n".join([PAIRS[0][1], PAIRS[2][1], PAIRS[2][1]])
    assert use.score([source], [right])[0] - use.score([source], [wrong])[0] > 0.15
    worst = UseQualityEstimator(aggregate="min")
    assert worst.score([source], [wrong])[0] < 0.5 < worst.score([source], [right])[0]


def test_scores_do_not_depend_on_the_batch(use: UseQualityEstimator) -> None:
    sources, targets = zip(*PAIRS, strict=True)
    alone = [use.score([s], [t])[0] for s, t in PAIRS]
    assert use.score(sources, targets) == pytest.approx(alone, abs=1e-4)
    assert use.score(["Text.", "", "12"], ["", "", "12"]) == [-1.0, 1.0, 1.0]


def test_languages_that_it_cannot_judge_are_refused() -> None:
    """Before anything runs: true Czech translations score about as badly as wrong ones."""
    changes = ["synth.mode=answers", "target_languages=[por,ces]"]
    config = load_config(PreprocessConfig, REPO_ROOT / "configs/data/demo_por.yaml", changes)
    with pytest.raises(SdrrlError, match=r"quality\.engine: 'use' is no judge of ces \(pair eng-ces\)"):
        Engines(config)
    other = {"*-ces": {"quality": {"engine": {"name": "cometkiwi", "options": {"model": "none"}}, "tau": 0.8}}}
    engines = Engines(dataclasses.replace(config, by_pair=other))
    assert isinstance(engines.get("quality", for_pair(config, ("eng", "por"))), UseQualityEstimator)


TEXTS = {
    "eng": "The quick brown fox jumps over the lazy dog near the river.",
    "por": "A raposa marrom rápida pula sobre o cachorro preguiçoso perto do rio.",
    "ces": "Příliš žluťoučký kůň úpěl ďábelské ódy na kraji lesa.",
    "nob": "Jeg vet ikke hvor han bor, men jeg tror det er et sted i Oslo.",
    "jpn": "今日は天気がいいので、公園を散歩しました。",
    "kor": "오늘은 날씨가 좋아서 공원에서 산책을 했습니다.",
    "ukr": "Сьогодні гарна погода, тому ми пішли гуляти до парку.",
    "spa": "Hoy hace buen tiempo, así que fuimos a pasear por el parque.",
}


def test_languages_are_identified_as_iso_639_3() -> None:
    engine = Cld3Identifier()
    found = engine.identify(list(TEXTS.values()))
    assert [code for code, _ in found] == list(TEXTS)
    assert all(0.7 < p <= 1 for _, p in found)
    assert found == Cld3Identifier().identify(list(TEXTS.values()))
    assert engine.identify(["", " \n", "\ud800"]) == [(None, 0.0)] * 3
    assert engine.identify(["x\0y"])[0][1] <= 1


def test_label_tables_do_not_overlap() -> None:
    assert not any(from_cld3(label) for label in OTHER_LABELS)
    assert all(len(code) == 3 for code in OTHER_LABELS.values())


def test_bad_options_are_refused() -> None:
    with pytest.raises(SdrrlError, match="did you mean 'mean'"):
        UseQualityEstimator(aggregate="men")
    with pytest.raises(SdrrlError, match="max_bytes"):
        Cld3Identifier(max_bytes=0)
