"""Sizes of the model to plan for: a Hugging Face config, or a name before anything is downloaded (models.yaml)."""

from __future__ import annotations

from fnmatch import fnmatch
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoConfig, PretrainedConfig

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json_object
from sdrrl_nemo.compat.transformers5 import read_config
from sdrrl_nemo.model.families import check_kind
from sdrrl_nemo.model.published.config_keys import check_keys


@cache
def known_models() -> dict[str, dict[str, Any]]:
    """models.yaml."""
    text = resources.files("sdrrl_nemo.plan").joinpath("models.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return found


def hf_config(hf_path: str, named: str = "") -> tuple[PretrainedConfig, str]:
    """(config, where it comes from) of the model to plan for; weights and tokenizer are not needed.

    Args:
        hf_path: the run's ``model.hf_path``; where the folder is missing its name may be that of a known model.
        named: ``--hf-config``: a folder, a config.json, or a name of models.yaml; goes before ``hf_path``.
    """
    asked = named or hf_path
    path = Path(asked)
    file = path if path.suffix == ".json" else path / "config.json"
    if file.is_file():
        return _read(file), str(file)
    names = known_models()
    name = asked if asked in names else _by_folder(path.name)
    if name is None:
        key = "--hf-config" if named else "model.hf_path"
        raise SdrrlError(
            f"{key}: {asked}: no config.json there, and no known model has that name; give --hf-config a folder, a "
            f"config.json or one of {', '.join(names)}"
        )
    facts = dict(names[name]["config"])
    config = AutoConfig.for_model(facts.pop("model_type"), **facts)
    return config, f"{name} ({names[name]['source']})"


def _by_folder(folder: str) -> str | None:
    fits = [
        (len(pattern), name)
        for name, facts in known_models().items()
        for pattern in facts["folders"]
        if fnmatch(folder.lower(), pattern)
    ]
    return max(fits)[1] if fits else None


def _read(file: Path) -> PretrainedConfig:
    document = read_json_object(file)
    check_kind(document.get("model_type"), str(file))
    check_keys(document, str(file))
    try:
        return read_config(file)
    except (ValueError, KeyError, OSError, TypeError) as e:
        reason = str(e).strip().partition("\n")[0]
        raise SdrrlError(f"{file}: transformers cannot read it ({reason})") from None
