"""What is trained: two shapes that say something about a GPU, small stand-ins for a CPU, one for tests."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest

DRAWN_BY = 1
"""One higher whenever made_up.py draws other numbers: inputs of before are then made anew."""


@dataclass(frozen=True)
class Shape:
    """A model's sizes (``config``: of a config.json), rows of data, batches, and the length of its run."""

    name: str
    words: str
    config: dict[str, Any]
    row_tokens: int
    rows: int
    micro_batch_size: int
    global_batch_size: int
    steps: int
    warm_up: int
    """Steps at the start that are not timed: allocators, compilers and caches fill."""
    reference_steps: int
    """Steps of the CPU's fp32 run that losses are compared with."""
    memory_gb: tuple[float, float] = (0.0, 0.0)
    """What a card must have for the recipe (the planner's figure, rounded up) and for the plain loop (estimated)."""
    precision: str = "bf16"
    lr: float = 1e-4

    def facts(self) -> dict[str, Any]:
        """What the inputs are made of, as JSON has it."""
        return {"drawn_by": DRAWN_BY} | {
            key: value for key, value in asdict(self).items() if key in ("name", "config", "row_tokens", "rows")
        }


def _llama(hidden: int, wide: int, layers: int, heads: int, groups: int, rows: int, tied: bool, theta: float) -> Any:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": hidden // heads,
        "vocab_size": rows,
        "tie_word_embeddings": tied,
        "rope_theta": theta,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "initializer_range": 0.02,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "bfloat16",
    }


SMOL = _llama(576, 1536, 30, 9, 3, 49152, True, 1e5)
SLICE = _llama(4096, 11008, 4, 32, 32, 32000, False, 1e4)
TINY = _llama(256, 384, 2, 4, 2, 512, True, 1e4)

SHAPES = (
    Shape("smol", "SmolLM2-135M's sizes", SMOL, 2048, 240, 8, 8, 30, 5, 2, (20.0, 50.0)),
    Shape("slice", "4 layers of Llama-2-7B's sizes", SLICE, 2048, 60, 2, 2, 30, 5, 1, (26.0, 32.0)),
)
SMALL = (
    Shape("smol-small", "tiny, tied", _llama(192, 256, 2, 3, 1, 512, True, 1e5), 128, 8, 2, 2, 4, 1, 2),
    Shape("slice-small", "tiny, untied", _llama(256, 384, 2, 4, 4, 512, False, 1e4), 128, 8, 2, 2, 4, 1, 1),
)
"""What a CPU runs in a second, through the same code."""
TEST = Shape("tiny", "tiny, of tests/gpu", TINY, 128, 16, 2, 4, 24, 1, 24, precision="fp32")


def shape(name: str) -> Shape:
    """By name; SdrrlError lists the known ones."""
    known = {s.name: s for s in (*SHAPES, *SMALL, TEST)}
    if name not in known:
        raise SdrrlError(f"shape '{name}' is unknown{suggest(name, known)}")
    return known[name]
