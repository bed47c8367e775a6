"""Versions at the start: known to fail is an error, not known is a warning by rank 0, and both can be switched off."""

from __future__ import annotations

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat import check, versions


def found(monkeypatch: pytest.MonkeyPatch, **other: str | None) -> None:
    """As if these were installed: the versions that are served, but for ``other``."""
    known = {
        "python": "3.11.7",
        "torch": "2.13.0+cpu",
        "numpy": "1.26.4",
        "transformers": "4.57.6",
        "megatron-core": "0.15.3",
        "nemo_toolkit": "2.7.3",
        "lightning": "2.4.0",
    }
    installed = {**known, **{name.replace("_", "-"): v for name, v in other.items() if name != "nemo_toolkit"}}
    monkeypatch.setattr(versions, "installed_version", installed.get)
    monkeypatch.delenv(check.TRY_ANYWAY, raising=False)


def test_served_versions_say_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found(monkeypatch)
    for purpose in versions.PURPOSES:
        check.start_check(purpose)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("package", "version"),
    [("transformer_engine", "2.20.0"), ("lightning", "2.6.1"), ("megatron_core", "0.16.0"), ("torch", None)],
)
def test_what_is_known_to_fail_or_is_missing_is_an_error(
    package: str, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(monkeypatch, **{package: version})
    with pytest.raises(SdrrlError) as e:
        check.start_check("train")
    assert str(e.value).startswith(package.replace("_", "-")) and check.TRY_ANYWAY in str(e.value)
    monkeypatch.setenv(check.TRY_ANYWAY, "1")
    check.start_check("train")


def test_an_unknown_version_is_a_warning_by_rank_zero(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found(monkeypatch, torch="2.99.0", flash_attn="1.0.0")
    check.start_check("train")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:2] for line in lines] == [["warning:", "torch"], ["warning:", "flash-attn"]]
    check.start_check("train", warn=False)
    monkeypatch.setenv("RANK", "1")
    check.start_check("train")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(check.TRY_ANYWAY, "0")  # says no
    monkeypatch.setenv("RANK", "0")
    check.start_check("train")
    assert "torch 2.99.0" in capsys.readouterr().err
