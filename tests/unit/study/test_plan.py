"""What a study does, in which order, under which names; wrong configurations are one sentence."""

from __future__ import annotations

import dataclasses

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.methods import plan as data_plan
from sdrrl_nemo.study.config import StudyConfig, benchmark_config, check, training_config, training_overrides
from sdrrl_nemo.study.plan import Markers, data_dir, plan, runs
from sdrrl_nemo.study.run import share_stages
from tests.launch import ROOT

SHIPPED = ("configs/study/smollm2_por_gpu.yaml", "configs/study/smollm2_por.yaml", "configs/study/quick.yaml")
SPANISH = "configs/study/smollm2_spa.yaml"
BASELINES = ("sft", "t_sft", "cit", "xcot")


def test_every_run_is_trained_exported_and_measured_after_its_data(study):
    stages = plan(study, "study.yaml", ["seeds=2"])
    names = [s.name for s in stages]
    assert names[:3] == ["data/sdrrl", "data/sft", "data/no_cross"]  # the reference first
    assert len(names) == len(set(names)) == 3 + 1 + 6 * 3
    for stage in stages:
        for need in stage.needs:
            assert names.index(need) < names.index(stage.name)
    measured = [n for n in names if n.startswith("measure/")]
    assert measured[:4] == ["measure/base", "measure/sdrrl-1", "measure/sft-1", "measure/no_cross-1"]  # whole rounds
    by_name = {s.name: s for s in stages}
    assert by_name["measure/sft-2"].script[-3:] == ("--stage", "measure/sft-2", "seeds=2")
    assert [p.name for p in by_name["export/sft-1"].remove] == ["checkpoints"]
    assert [p.name for p in by_name["measure/sft-1"].remove] == ["hf"]


def test_a_followed_run_is_exported_and_asked_on_the_way(study):
    """max_steps is 8: checkpoints after 3 and 6, and the last one takes the checkpoints away."""
    study.tracking.methods, study.tracking.every = ["sdrrl"], 3
    by_name = {s.name: s for s in plan(study, "c", [])}
    assert [n for n in by_name if n.startswith("measure/sdrrl")] == [
        "measure/sdrrl-1@3", "measure/sdrrl-1@6", "measure/sdrrl-1", "measure/sdrrl-2"
    ]  # fmt: skip
    assert not [n for n in by_name if "@" in n and not n.split("/")[1].startswith("sdrrl-1")]
    assert by_name["export/sdrrl-1"].needs == ("train/sdrrl-1", "export/sdrrl-1@3", "export/sdrrl-1@6")
    on_the_way = by_name["export/sdrrl-1@3"]
    assert on_the_way.script[-1].endswith("/checkpoints/step-000003") and not on_the_way.remove
    assert [p.name for p in by_name["measure/sdrrl-1@3"].remove] == ["hf-step-000003"]
    assert "trainer.save_every=3" in by_name["train/sdrrl-1"].script
    assert "trainer.save_every=3" not in by_name["train/sdrrl-2"].script
    study.tracking.methods = ["sdrl"]
    with pytest.raises(SdrrlError, match=r"tracking.methods: no method is named 'sdrl'; did you mean 'sdrrl'\?"):
        check(study)


def test_exports_stay_when_asked(study):
    study.keep = "exports"
    assert all(not s.remove for s in plan(study, "c", []) if s.kind == "measure")


def test_seeds_have_names_and_are_the_same_for_all_methods(study):
    first, second = study.training_seed(1), study.training_seed(2)
    assert first != second and min(first, second) >= 0
    work = data_dir(study, "sft")
    overrides = [training_overrides(study, work, r.run_dir, r.number, tracked=False) for r in runs(study) if r.number]
    configs = [training_config(study, o) for o in overrides]
    assert [c.seed for c in configs] == [first] * 3 + [second] * 3
    assert len({c.run_dir for c in configs}) == 6
    assert len({(c.trainer.max_steps, c.trainer.global_batch_size, c.optim.lr) for c in configs}) == 1  # one budget


def test_a_changed_setting_changes_the_keys_of_what_depends_on_it(study):
    before = {s.name: s.key for s in plan(study, "c", [])}
    study.held_out.loss.questions += 1
    after = {s.name: s.key for s in plan(study, "c", [])}
    changed = {n for n in before if before[n] != after[n]}
    assert changed == {n for n in before if n.startswith("measure/")}
    study.method("sft").overrides.append("packing.seq_length=256")
    assert {n for n, k in ((s.name, s.key) for s in plan(study, "c", [])) if k != after[n]} == {
        "data/sft", "train/sft-1", "train/sft-2", "export/sft-1", "export/sft-2", "measure/sft-1", "measure/sft-2"
    }  # fmt: skip


def test_side_by_side_or_not_changes_no_key(study):
    before = {s.name: s.key for s in plan(study, "c", [])}
    study.parallel = 5
    assert {s.name: s.key for s in plan(study, "c", ["parallel=5"])} == before


def test_all_methods_share_finished_stages_of_preprocessing(study, work):
    share_stages(study)
    (data_dir(study, "sft") / "stages" / "translate-1").mkdir()
    assert (data_dir(study, "sdrrl") / "stages" / "translate-1").is_dir()
    leftover = work / "data" / "stages" / "translate-1" / ".x.tmp"
    leftover.touch()
    share_stages(study)  # again: links stay, what a killed run left goes
    assert not leftover.exists()


def test_a_folder_of_stages_that_is_no_link_is_refused(study):
    (data_dir(study, "sft") / "stages").mkdir(parents=True)
    with pytest.raises(SdrrlError, match=r"is there already and no link"):
        share_stages(study)


def test_marker_remembers_key_and_seconds(study):
    markers, stage = Markers(study.work_dir), plan(study, "c", [])[0]
    assert not markers.done(stage) and markers.seconds(stage.name) is None
    markers.mark(stage, 1.25)
    assert markers.done(stage) and markers.seconds(stage.name) == 1.2
    with pytest.raises(SdrrlError, match=r"was done with other settings"):
        markers.done(dataclasses.replace(stage, key="x"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"reference": "sdrl"}, r"reference: no method is named 'sdrl'; did you mean 'sdrrl'\?"),
        ({"seeds": 0}, r"seeds is 0; it must be at least 1"),
        ({"keep": "all"}, r"keep: 'all' is not one of nothing, exports"),
        ({"parallel": 0}, r"parallel is 0"),
    ],
)
def test_wrong_settings_are_one_sentence(study, change, sentence):
    with pytest.raises(SdrrlError, match=sentence):
        check(dataclasses.replace(study, **change))


def test_wrong_methods_are_one_sentence(study):
    for name, sentence in (("Sft", "lower-case"), ("base", "not 'base'"), ("sdrrl", "named twice")):
        study.methods[0].name = name
        with pytest.raises(SdrrlError, match=sentence):
            check(study)
    study.methods[0].name, study.methods[0].data = "sft", "configs/data/none.yaml"
    with pytest.raises(SdrrlError, match=r"methods.sft.data: .*none.yaml: no such configuration file"):
        check(study)


@pytest.mark.parametrize("path", SHIPPED)
def test_shipped_studies_are_what_they_say(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(StudyConfig, path)
    check(config)
    assert plan(config, path, [])
    for method in config.methods:
        overrides = [*config.data_overrides, *method.overrides]
        data = load_config(PreprocessConfig, method.data, overrides)
        if method.name in BASELINES:  # they learn the human answer: docs/methods.md
            assert data.method == method.name
        assert (data_plan(data).synth == "answers") == (method.name in (*BASELINES, "no_self_answers"))
    benchmarks = benchmark_config(config)
    assert benchmarks is not None and set(benchmarks.names) == {
        "belebele", "belebele_letter", "mkqa", "xlsum", "flores", "off_target", "alignment"
    }  # fmt: skip


def test_the_full_study_has_all_methods_and_ablations(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(StudyConfig, SHIPPED[0])
    assert [m.name for m in config.methods if not m.ablation] == [*BASELINES, "sdrrl"]
    assert sum(m.ablation for m in config.methods) == 5 and config.seeds >= 3


def test_the_spanish_study_differs_from_the_portuguese_in_language_and_translator_alone(monkeypatch):
    """Else it could not say what a noisy translator changes."""
    monkeypatch.chdir(ROOT)
    spanish, portuguese = (load_config(StudyConfig, path) for path in (SPANISH, SHIPPED[1]))
    check(spanish)
    assert plan(spanish, SPANISH, []) and benchmark_config(spanish) is None
    assert (spanish.training, spanish.learning_rates) == (portuguese.training, portuguese.learning_rates)
    for method in spanish.methods:
        twin = next(m for m in portuguese.methods if m.name == method.name)
        ours, theirs = (
            dataclasses.asdict(load_config(PreprocessConfig, m.data, [*config.data_overrides, *m.overrides]))
            for m, config in ((method, spanish), (twin, portuguese))
        )
        differs = {key for key in ours if ours[key] != theirs[key]}
        assert differs == {"target_languages", "output_dir", "translation"}, method.name
