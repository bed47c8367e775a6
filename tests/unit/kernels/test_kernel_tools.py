"""The tools beside the kernels, as commands: compiling ahead of time fails on a spill, the roofline adds up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.bench import roofline

ROOT = Path(__file__).resolve().parents[3]


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {
        "PYTHONPATH": f"{ROOT}:{ROOT}/kernels"
    }
    command = [sys.executable, str(ROOT / "tools" / "bench" / name), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)


def test_gradient_kernel_compiles_without_spills(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = tool("compile_kernels.py", "--dtypes", "bf16", "--sm", "90", "--only", "gradient", "--json", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    reports = json.loads(out.read_text())
    assert [(r["kernel"], r["spill_bytes"]) for r in reports] == [
        ("gradient", 0),
        ("gradient +tail", 0),
        ("gradient, odd rows", 0),
    ]
    assert all(r["load_bits"] == 128 and r["store_bits"] == 128 and r["rounds_to_nearest"] for r in reports[:2])
    assert reports[2]["store_bits"] == 16 and reports[2]["rounds_to_nearest"]  # no wider than a column
    assert (reports[0]["row_reads"], reports[0]["row_writes"]) == (1.0, 1.0)


def test_a_spill_fails(tmp_path: Path) -> None:
    """A row four times wider than the plan allows must spill, and the tool must say so."""
    script = tmp_path / "wide.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from tools.bench import compile_kernels as tool\n"
        "from sdrrl_kernels import cross_entropy_triton as launch\n"
        "launch.RESIDENT_COLUMNS = {2: 131072, 4: 131072}\n"
        "sys.exit(tool.main(['--dtypes', 'bf16', '--sm', '90', '--only', 'one pass, resident']))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "error: one pass, resident bf16 sm_90 spills registers" in done.stderr


def test_roofline_counts_bytes() -> None:
    done = tool("roofline.py", "--tokens", "1000", "--vocab", "32000")
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| ours, one pass"))
    gigabytes = float(row.split("|")[3])
    assert gigabytes == pytest.approx(1000 * 32000 * 2 * 2 / 1e9, abs=0.01)


def test_the_roofline_is_within_five_per_cent_of_published_times_or_says_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    off = {(r.what, r.gpu.name, r.tokens, r.vocab): r.predicted() / r.ms - 1 for r in roofline.PUBLISHED}
    assert {k for k, share in off.items() if abs(share) > 0.05} == {
        (r.what, r.gpu.name, r.tokens, r.vocab) for r in roofline.PUBLISHED if r.reason
    }
    assert len(off) == 12 and sum(abs(share) <= 0.05 for share in off.values()) == 10
    # by hand: 6 N V H operations at 75% of 989 TFLOP/s; 2.5 passes over 8192 x 32000 x 2 bytes at 85% of 3.35 TB/s
    by_hand = {
        ("Liger CuTe linear", "H200 SXM", 8192, 128256): 6 * 8192 * 128256 * 4096 / 0.75 / 989e12 * 1e3,
        ("Liger Triton cross-entropy", "H100 SXM", 8192, 32000): 0.34 + 2.5 * 8192 * 64000 / 0.85 / 3.35e12 * 1e3,
    }
    for row in roofline.PUBLISHED:
        if (key := (row.what, row.gpu.name, row.tokens, row.vocab)) in by_hand:
            assert row.predicted() == pytest.approx(by_hand[key])
    assert roofline.main(["--published"]) == 0
    out = capsys.readouterr().out
    assert "| Liger CuTe linear | H200 SXM | 8192x128256, H = 4096 | 34.4 | 34.81 | +1.2% | Liger-Kernel #1356 |" in out
    assert "- Liger Triton linear, H200 SXM, 8192 rows: 32 chunks" in out
