"""The loss over two ranks that each hold half of the vocabulary (gloo): as good as one rank, equal on both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("world", [2])
def test_vocab_parallel(world: int, tmp_path: Path) -> None:
    worker = Path(__file__).with_name("kernels_tp_worker.py")
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}:{ROOT}/kernels",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(worker), str(world), str(tmp_path / "store")]
    ranks = [
        subprocess.Popen(
            [*command, str(r)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for r in range(world)
    ]
    outputs = [p.communicate(timeout=500)[0] for p in ranks]
    assert all(p.returncode == 0 for p in ranks), "\n".join(outputs)
    assert outputs[0].splitlines()[-1] == outputs[1].splitlines()[-1] != "", outputs
