#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Training speed and loss curve of the recipe against a plain torch loop and TRL's SFTTrainer, on the same samples.

    python tools/bench/training_speed.py speed --json docs/results/train_speed.json
    python tools/bench/training_speed.py curve --json docs/results/train_curve.json
    python tools/bench/training_speed.py live --json docs/results/train_live_rows.json

``live`` compares the recipe, which projects the rows that carry loss alone, with itself projecting all of them.
``make demo-short`` makes the model and the packed set; docs/training.md has the set of longer answers. The curve takes
shorter packs, so that 50 steps are few minutes:
``tools/preprocess_sdrrl.py --config configs/data/demo_por_short.yaml packing.seq_length=128 output_dir=OUT``, ``--data
OUT/packed``. Each contestant runs in a process of its own, one after another,
with the same number of threads, the same optimiser and learning rate. TRL is no part of the locks:
``pip install --no-deps --target DIR trl==0.24.0``, and ``PYTHONPATH=DIR`` before the commands above.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.provenance import IMPORT_PATHS, provenance

ROOT = Path(__file__).resolve().parents[2]
BETAS, EPS, CLIP = (0.9, 0.95), 1e-8, 1.0
WARM_UP = 2
"""Steps at the start that are not timed: allocators, page faults and caches fill."""


def batches_of(plan: dict[str, Any]) -> Any:
    """The recipe's own micro-batches: which samples a step sees, in which order."""
    from sdrrl_nemo.train.config import RunConfig
    from sdrrl_nemo.train.preparation import micro_batches, open_data

    config = RunConfig(run_dir="", **{})
    config.model.hf_path, config.data.path = plan["model"], plan["data"]
    config.data.packed, config.loss.sample_reduction = plan["packed"], "step"
    config.trainer.global_batch_size = plan["global_batch_size"]
    config.trainer.micro_batch_size = plan["micro_batch_size"]
    return micro_batches(config, open_data(config, plan["vocab_size"], "train"))


def recipe(plan: dict[str, Any], folder: Path) -> dict[str, Any]:
    """recipes/sdrrl_pretrain.py as a user runs it, one process."""
    settings = {
        "run_dir": str(folder / "run"),
        "model": {"hf_path": plan["model"]},
        "data": {"path": plan["data"], "packed": plan["packed"]},
        "loss": {"sample_reduction": "step", "kernel": plan["kernel"]},
        "optim": {"lr": plan["lr"], "schedule": "constant", "clip_grad": CLIP, "adam_eps": EPS},
        "trainer": {
            "precision": plan["precision"],
            "micro_batch_size": plan["micro_batch_size"],
            "global_batch_size": plan["global_batch_size"],
            "max_steps": plan["steps"],
            "save_every": -1,
            "num_threads": plan["threads"],
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    sys.argv = ["sdrrl_pretrain.py", "--config", str(path)]
    try:
        runpy.run_path(str(ROOT / "recipes/sdrrl_pretrain.py"), run_name="__main__")
    except SystemExit as e:
        if e.code:
            raise
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    return {"losses": [r["loss"] for r in rows], "seconds": [r["seconds"] for r in rows]}


def hf_model(plan: dict[str, Any]) -> Any:
    """The peers' model. transformers gives the input row of the pad token no gradient; SmolLM2 pads with its end of
    turn, which data has, so that is switched off."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if plan["precision"] == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(plan["model"], dtype=dtype)
    model.get_input_embeddings().padding_idx = None
    return model


def plain(plan: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A loop of a dozen lines over transformers and torch, on the recipe's packed micro-batches."""
    import torch

    from sdrrl_nemo.train.batches import MicroBatchStream

    model = hf_model(plan).train()
    adam = torch.optim.AdamW(model.parameters(), lr=plan["lr"], betas=BETAS, eps=EPS, weight_decay=0.0)
    stream = iter(MicroBatchStream(batches_of(plan), 0, 0, 1))
    losses, seconds = [], []
    for _ in progress(range(plan["steps"]), "plain loop"):
        start, total = time.perf_counter(), 0.0
        for _ in range(plan["global_batch_size"] // plan["micro_batch_size"]):
            b = next(stream)
            logits = model(input_ids=b["tokens"], position_ids=b["position_ids"], use_cache=False).logits
            each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), b["labels"].flatten(), reduction="none")
            loss = (each * b["weights"].flatten()).sum()
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.step()
        adam.zero_grad()
        losses.append(total)
        seconds.append(time.perf_counter() - start)
    return {"losses": losses, "seconds": seconds}


def trl(plan: dict[str, Any], folder: Path) -> dict[str, Any]:
    """TRL's SFTTrainer on the same samples in the same order: padded, or packed by itself (best fit decreasing)."""
    import torch
    from datasets import Dataset
    from torch.utils.data import DataLoader, SequentialSampler
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    batches = batches_of(plan)
    d, order = batches.dataset, [batches.samples_of_step(s) for s in range(plan["steps"])]
    rows = []
    for i in (i for step in order for i in step):
        tokens, answer = d.indexed[i].tolist(), int(d.answer_tokens[i])
        rows.append({"input_ids": tokens, "completion_mask": [0] * (len(tokens) - answer) + [1] * answer})
    seconds: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()
            losses.append(0.0)

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds.append(time.perf_counter() - self.start)

    class InOrder(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset)

        def get_train_dataloader(self) -> Any:
            if plan["trl_batch"]:
                return super().get_train_dataloader()
            steps, first = [], 0  # a batch is what the recipe packs into a step, however many samples that is
            for step in order:
                steps.append(list(range(first, first := first + len(step))))
            data = self._remove_unused_columns(self.train_dataset, description="training")
            return DataLoader(data, batch_sampler=steps, collate_fn=self.data_collator)

        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss: torch.Tensor = super().training_step(*args, **kwargs)
            losses[-1] += float(loss)  # the log rounds to four digits
            return loss

    model = hf_model(plan)
    packed = {"packing": True, "max_length": batches.seq_length} if plan["trl_packing"] else {"max_length": None}
    settings = SFTConfig(
        output_dir=str(folder / "trl"), max_steps=plan["trl_steps"], save_strategy="no", report_to=[], use_cpu=True,
        bf16=False, fp16=False, gradient_checkpointing=False, per_device_train_batch_size=plan["trl_batch"] or 1,
        num_train_epochs=1,
        gradient_accumulation_steps=plan["trl_accumulation"], learning_rate=plan["lr"], lr_scheduler_type="constant",
        adam_beta1=BETAS[0], adam_beta2=BETAS[1], adam_epsilon=EPS, weight_decay=0.0, max_grad_norm=CLIP,
        logging_steps=1, completion_only_loss=True, eos_token=None, optim="adamw_torch", dataset_num_proc=None,
        disable_tqdm=False, **packed,
    )  # fmt: skip
    trainer = InOrder(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(plan["model"]),
        callbacks=[Clock()],
    )
    trainer.train()
    lengths = [len(tokens) for tokens in trainer.train_dataset["input_ids"]]  # in the order that it sees them
    a_step = max(plan["trl_batch"], 1) * plan["trl_accumulation"]
    return {
        "losses": losses,
        "seconds": seconds,
        "step_tokens": [sum(lengths[first : first + a_step]) for first in range(0, len(lengths), a_step)],
    }


def recipe_all_rows(plan: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The recipe when every row is taken for one that carries loss."""
    import torch

    from sdrrl_nemo.train import batches

    batches.live_rows = lambda labels, weights: torch.arange(labels.numel())
    return recipe(plan, folder)


CONTESTANTS: dict[str, Callable[[dict[str, Any], Path], dict[str, Any]]] = {
    "recipe": recipe,
    "recipe, all rows": recipe_all_rows,
    "plain": plain,
    "trl": trl,
}


def contestant(name: str, plan_file: Path) -> None:
    """In the subprocess: run one, write its facts beside the plan."""
    plan = read_json(plan_file)
    import torch

    if name.startswith("recipe"):
        from sdrrl_nemo.compat.start import prepare

        prepare()
    torch.set_num_threads(plan["threads"])
    with tempfile.TemporaryDirectory() as folder:
        out = CONTESTANTS[name](plan, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    write_json(plan_file.with_suffix(".out.json"), {**out, "peak_rss_mib": peak})


def run_one(name: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One contestant in a fresh process; SdrrlError with its last lines when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        write_json(path, plan)
        paths = os.pathsep.join([*IMPORT_PATHS, *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "OMP_NUM_THREADS": str(plan["threads"]), "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "contestant", name, str(path)]
        done = subprocess.run(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise SdrrlError(f"{name}: failed (exit code {done.returncode}): {done.stdout[-3000:]}")
        return read_json(path.with_suffix(".out.json"))


def base_plan(args: argparse.Namespace, packed: bool) -> dict[str, Any]:
    """What all contestants share."""
    return {
        "model": str(args.model.resolve()),
        "data": str(args.data.resolve()),
        "vocab_size": read_json(args.model / "config.json")["vocab_size"],
        "packed": packed,
        "steps": args.steps,
        "global_batch_size": args.global_batch_size,
        "micro_batch_size": args.micro_batch_size,
        "lr": args.lr,
        "threads": args.threads,
        "precision": args.precision,
        "kernel": args.kernel,
    }


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Useful tokens a second and peak memory of every contestant; the recipe runs first and last."""
    plan = base_plan(args, packed=True)
    batches = batches_of(plan)
    steps = [batches.samples_of_step(s) for s in range(args.steps)]
    tokens = [int(batches.dataset.lengths[s].sum()) for s in steps]
    samples = sum(map(len, steps))
    padded_batch = 8  # TRL's default
    accumulation = max(1, round(samples / args.steps / padded_batch))  # about as many samples a step as we have
    padded = {"trl_packing": False, "trl_batch": padded_batch, "trl_accumulation": accumulation, "trl_steps": -1}
    packed = {"trl_packing": True, "trl_batch": args.micro_batch_size, "trl_steps": -1}
    packed |= {"trl_accumulation": args.global_batch_size // args.micro_batch_size}
    out: dict[str, Any] = {}
    jobs = [("recipe", "recipe", {}), ("plain torch loop", "plain", {}), ("TRL packed", "trl", packed)]
    jobs += [("TRL padded", "trl", padded), ("recipe again", "recipe", {})]
    for title, name, more in progress(jobs, "contestants"):
        facts = run_one(name, {**plan, **more})
        seconds = facts["seconds"][WARM_UP:]
        useful = sum(facts.get("step_tokens", tokens)[WARM_UP:])  # TRL's steps hold other samples than ours
        out[title] = {
            "tokens_per_second": useful / sum(seconds),
            "peak_rss_mib": facts["peak_rss_mib"],
            "steps": len(facts["seconds"]),
            "first_losses": facts["losses"][:3],
        }
        print(f"{title}: {out[title]}", file=sys.stderr, flush=True)
    # first and last: a machine that slows down or speeds up on the way does so for both sides
    ours = (out["recipe"]["tokens_per_second"] + out["recipe again"]["tokens_per_second"]) / 2
    ratios = {k: ours / v["tokens_per_second"] for k, v in out.items() if not k.startswith("recipe")}
    return {
        "plan": _portable(plan, args),
        "samples": samples,
        "tokens": sum(tokens),
        "contestants": out,
        "ratios": ratios,
    }


def curve(args: argparse.Namespace) -> dict[str, Any]:
    """Loss of every step, fp32, constant learning rate: the recipe on packs, TRL on the same samples padded."""
    plan = base_plan(args, packed=True)
    size = {"trl_packing": False, "trl_batch": 0, "trl_accumulation": 1, "trl_steps": args.steps}
    ours = run_one("recipe", plan)["losses"]
    theirs = run_one("trl", {**plan, **size})["losses"]
    worst = max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))
    return {"plan": _portable(plan, args), "recipe": ours, "trl": theirs, "max_relative_difference": worst}


def live(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step and peak memory with the live rows alone and with all rows, each twice in turns."""
    plan = base_plan(args, packed=True)
    batches = batches_of(plan)
    out: dict[str, Any] = {"live_share": sum(map(batches.live_share, range(args.steps))) / args.steps}
    for name in progress(["recipe", "recipe, all rows"] * 2, "contestants"):
        facts = run_one(name, plan)
        seconds = sum(facts["seconds"][WARM_UP:]) / (len(facts["seconds"]) - WARM_UP)
        found = out.setdefault(name, {"seconds_a_step": [], "peak_rss_mib": [], "losses": facts["losses"]})
        found["seconds_a_step"].append(seconds)
        found["peak_rss_mib"].append(facts["peak_rss_mib"])
    ours, all_rows = out["recipe"], out["recipe, all rows"]
    out["time_ratio"] = sum(ours["seconds_a_step"]) / sum(all_rows["seconds_a_step"])
    pairs = zip(ours["losses"], all_rows["losses"], strict=True)
    out["largest_difference_of_a_loss"] = max(abs(a - b) / abs(b) for a, b in pairs)
    return {"plan": _portable(plan, args), **out}


def _portable(plan: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The plan with its paths as they were given."""
    return {**plan, "model": str(args.model), "data": str(args.data)}


def main(argv: Sequence[str]) -> None:
    """speed | curve | live | contestant (internal)."""
    if argv[:1] == ["contestant"]:
        contestant(argv[1], Path(argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "curve", "live"))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("work/models/SmolLM2-135M-Instruct"))
    parser.add_argument("--data", type=Path, default=Path("work/data/demo_por_short/packed"))
    parser.add_argument("--steps", type=int, help="default: 10, for curve 50")
    parser.add_argument("--global-batch-size", type=int, help="packs a step; default: 2, for curve 1")
    parser.add_argument("--micro-batch-size", type=int, default=1)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--kernel", default="auto")
    args = parser.parse_args(argv)
    if args.what != "live" and importlib.util.find_spec("trl") is None:
        raise SdrrlError("TRL is not installed: pip install --no-deps --target DIR trl==0.24.0, then PYTHONPATH=DIR")
    args.steps = args.steps or (50 if args.what == "curve" else 10)
    args.global_batch_size = args.global_batch_size or (1 if args.what == "curve" else 2)
    result = {"speed": speed, "curve": curve, "live": live}[args.what](args)
    where = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {args.threads} threads, no GPU",
    }
    if args.what != "live":
        where["trl"] = importlib.metadata.version("trl")
    write_json(args.json, {**provenance(), **where, **result})


if __name__ == "__main__":
    sys.exit(run(main))
