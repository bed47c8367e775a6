"""The training configurations that ship: they load and fit their header's processes, model and data."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from transformers import LlamaConfig, MistralConfig, PretrainedConfig

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.cost.gpus import gpu
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.validation import validate
from sdrrl_nemo.train.config import RunConfig, check

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "configs").glob("*.yaml"))
REAL_SIZE = [path for path in FILES if re.match(r"(llama2|seallm)_", path.stem)]
MODELS: dict[str, PretrainedConfig] = {  # published config.json: head counts and sizes that a layout must divide
    "Llama-2-7b-chat-hf": LlamaConfig(),  # transformers' defaults are this model's
    "Llama-2-13b-chat-hf": LlamaConfig(
        hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40
    ),
    "SeaLLM-7B-v2": MistralConfig(vocab_size=48384),  # a Mistral with a larger vocabulary
}


def header(path: Path) -> str:
    """The comment at the top, its continued lines joined; that of the base file where there is none of torchrun."""
    text = re.match(r"(#[^\n]*\n)*", path.read_text()).group().replace("\\\n#", "")  # type: ignore[union-attr]
    base = yaml.safe_load(path.read_text()).get("base")
    return header(path.parent / base) if "torchrun" not in text and base else text


def processes(path: Path) -> int:
    """How many processes the header's torchrun starts."""
    command = next(line for line in header(path).splitlines() if "torchrun" in line)
    per_node = re.search(r"--nproc-per-node (\d+)", command)
    nodes = re.search(r"--nnodes (\d+)", command)
    assert per_node, f"{path.name}: its torchrun command does not say how many processes"
    return int(per_node[1]) * int(nodes[1] if nodes else 1)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_it_loads_and_fits_the_processes_its_header_starts(path: Path) -> None:
    assert check(load_config(RunConfig, path), processes(path)) >= 1


@pytest.mark.parametrize("path", REAL_SIZE, ids=lambda p: p.stem)
def test_the_layout_divides_the_model_and_fits_the_memory(path: Path) -> None:
    """Weights, gradients, optimiser and activations, by the arithmetic in the file's comments, in 90% of an A800."""
    config = load_config(RunConfig, path)
    t, hf = config.trainer, MODELS[Path(config.model.hf_path).name]
    dp = check(config, processes(path))
    for size in (hf.num_attention_heads, hf.num_key_value_heads, hf.intermediate_size):
        assert size % t.tp == 0
    assert hf.num_hidden_layers % (t.pp * t.vpp) == 0
    assert t.tp == 1 or t.sequence_parallel  # activations are counted as split
    parameters = ModelShape.of(hf).parameters() / (t.tp * t.pp)
    assert config.optim.use_distributed_optimizer
    state = parameters * (6 + 12 / dp)
    tokens = 2048 * t.micro_batch_size / t.cp
    layer = tokens * (16 * hf.hidden_size + 6 * hf.intermediate_size) / t.tp
    assert state + hf.num_hidden_layers * layer < 0.9e9 * gpu("a800-80g").memory_gb


@pytest.mark.parametrize("path", REAL_SIZE, ids=lambda p: p.stem)
def test_the_data_is_what_the_header_preprocesses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(RunConfig, path)
    command = next(line for line in header(path).splitlines() if "preprocess_sdrrl.py" in line)
    words = shlex.split(command.lstrip("# "))
    data = load_config(PreprocessConfig, words[words.index("--config") + 1], [w for w in words if "=" in w])
    validate(data, files=False)
    assert config.data.path == f"{data.output_dir}/packed"
    assert config.model.hf_path == data.model
    assert str(data.generation.engine.options["model"]).endswith(Path(data.model).name)  # the model teaches itself
    assert (config.data.validation == "validation") == (data.packing.validation_fraction > 0)
    assert data.packing.seq_length == 2048


@pytest.mark.parametrize("path", REAL_SIZE, ids=lambda p: p.stem)
def test_what_the_paper_states_is_kept(path: Path) -> None:
    """Section 4.1: four epochs, automatically calculated learning rate, early stopping."""
    config = load_config(RunConfig, path)
    assert (config.trainer.epochs, config.trainer.max_steps) == (4, 0)
    assert config.optim.lr == "auto"
    assert config.optim.auto_lr_base == pytest.approx(5e-5 if "SeaLLM-7B-v2" in config.model.hf_path else 3e-4)
    assert config.validation.every > 0 and config.validation.patience > 0
    assert (config.loss.sample_reduction, config.loss.normalise) == ("mean", "sum")  # Eq. 6
    assert config.optim.clip_grad == "auto"  # LLaMA-Factory's 1.0 for a mean over tokens, once for each subset
    assert len({load_config(RunConfig, p).run_dir for p in REAL_SIZE}) == len(REAL_SIZE)
