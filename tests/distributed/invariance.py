"""The invariance matrix of docs/invariance.md: layouts, micro-batches, resumes and reshardings against one reference.

    python -m tests.distributed.invariance

The reference is one process in float64: plain transformers, every sample a row of its own, an Adam of its own
(``reference``).
Every run trains the same 20 steps through the recipe's own ``fit`` on gloo ranks; losses, subset losses and gradient
norms of each step are compared with it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from sdrrl_nemo.common.fileio import atomic_write, read_json, write_json
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.data.packing.packed import PackedDataset
from sdrrl_nemo.data.text.tokenizer import load_tokenizer, tokenizer_sha256
from sdrrl_nemo.train.batches import MicroBatches, Schedule
from sdrrl_nemo.train.config import OptimSettings
from sdrrl_nemo.train.schedule import learning_rate
from tests.runs import checkpoint_tensors, metric_rows
from tests.tiny import packed_set, tokenizer_files
from tests.warm import python, torchrun

STEPS, SAVED, BATCH, SEED = 20, 15, 8, 1234
OPTIM = {"lr": 1e-4, "warmup_steps": 3, "clip_grad": 1.0, "schedule": "cosine"}
LAYOUTS = {  # four processes or fewer; what is left of them is data parallel
    "1": (1, {}),
    "DP2": (2, {}),
    "TP2": (2, {"tp": 2}),
    "TP2 SP": (2, {"tp": 2, "sequence_parallel": True}),
    "PP2": (2, {"pp": 2}),
    "PP2 VPP2": (2, {"pp": 2, "vpp": 2}),
    "CP2": (2, {"cp": 2}),
    "DP4": (4, {}),
    "TP4": (4, {"tp": 4}),
    "TP4 SP": (4, {"tp": 4, "sequence_parallel": True}),
    "PP4": (4, {"pp": 4}),
    "PP4 VPP2": (4, {"pp": 4, "vpp": 2}),
    "CP4": (4, {"cp": 4}),
    "TP2 DP2": (4, {"tp": 2}),
    "TP2 SP DP2": (4, {"tp": 2, "sequence_parallel": True}),
    "TP2 PP2": (4, {"tp": 2, "pp": 2}),
    "TP2 SP PP2 VPP2": (4, {"tp": 2, "sequence_parallel": True, "pp": 2, "vpp": 2}),
    "TP2 CP2": (4, {"tp": 2, "cp": 2}),
    "TP2 SP CP2": (4, {"tp": 2, "sequence_parallel": True, "cp": 2}),
    "PP2 DP2": (4, {"pp": 2}),
    "PP2 CP2": (4, {"pp": 2, "cp": 2}),
    "PP2 VPP2 CP2": (4, {"pp": 2, "vpp": 2, "cp": 2}),
    "CP2 DP2": (4, {"cp": 2}),
    "DP4 DO": (4, {"use_distributed_optimizer": True}),
    "TP2 SP DP2 DO": (4, {"tp": 2, "sequence_parallel": True, "use_distributed_optimizer": True}),
    "PP2 DP2 DO": (4, {"pp": 2, "use_distributed_optimizer": True}),
}
BF16 = ("1", "DP2", "TP2", "TP2 SP", "PP2", "PP2 VPP2", "CP2", "DP4", "TP2 SP DP2", "TP2 PP2", "PP2 DP2 DO")
RESUMED = "TP2 PP2"
RESHARD = (  # every ordered pair within a group; a run keeps its kind of optimizer (its identity.json says so)
    ("TP4 SP", "PP4 VPP2", "CP4", "DP4", "TP2 PP2", "TP2 SP CP2", "PP2 DP2"),
    ("DP4 DO", "TP2 SP DP2 DO", "PP2 DP2 DO"),
)


def tiny_model(folder: Path, tokenizer_from: Path) -> Path:
    """Llama with 8 heads in 4 groups and 8 layers, so that 4 divides everything; fp32, seeded, untied.

    Tokenizer and number of rows are those of the folder ``tokenizer_from``.
    """
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=read_json(tokenizer_from / "config.json")["vocab_size"],
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        initializer_range=0.08,
        tie_word_embeddings=False,
        torch_dtype="float32",
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    tokenizer_files(folder, tokenizer_from)
    return folder


class Adam64:
    """Adam in float64 with bias correction and clipping by the global norm (Kingma and Ba 2015)."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], o: OptimSettings) -> None:
        self.parameters, self.o, self.t = list(parameters), o, 0
        self.m = [torch.zeros_like(p) for p in self.parameters]
        self.v = [torch.zeros_like(p) for p in self.parameters]

    def step(self, lr: float) -> float:
        """One update; returns the gradient norm before clipping."""
        self.t += 1
        o = self.o
        grads = [p.grad for p in self.parameters]
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
        scale = min(1.0, o.clip_grad / (norm + 1e-6))
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, grads, self.m, self.v, strict=True):
                g.mul_(scale)
                m.mul_(o.adam_beta1).add_(g, alpha=1 - o.adam_beta1)
                v.mul_(o.adam_beta2).addcmul_(g, g, value=1 - o.adam_beta2)
                denominator = (v / (1 - o.adam_beta2**self.t)).sqrt().add_(o.adam_eps)
                p.addcdiv_(m / (1 - o.adam_beta1**self.t), denominator, value=-lr)
                p.grad = None
        return norm


def reference(
    model_folder: Path, data: PackedDataset, packed: bool, beta1: float = OptimSettings.adam_beta1
) -> list[dict[str, float]]:
    """Losses by step and subset, and gradient norms, in float64; every sample is a row of its own."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float64).train()
    o = OptimSettings(**OPTIM, adam_beta1=beta1)
    adam = Adam64(list(model.parameters()), o)
    schedule = Schedule(MicroBatches.row_count(data, packed), BATCH, SEED)
    sizes = data.subset_sizes()
    out = []
    for step in range(STEPS):
        addends, losses = dict.fromkeys(data.subset_names, 0.0), []
        chosen = [int(row) for row in schedule.batch(step) if row >= 0]
        samples = [i for row in chosen for i in (data.samples_of(row) if packed else [row])]
        tokens = [torch.from_numpy(data.indexed[i].astype("int64")) for i in samples]
        # Padding on the right changes nothing for a causal model; logits are made where an answer is predicted only.
        states = model.model(torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)).last_hidden_state
        for i, t, state in zip(samples, tokens, states, strict=True):
            answer, subset = int(data.answer_tokens[i]), int(data.subset[i])
            logits = model.lm_head(state[len(t) - answer - 1 : len(t) - 1])
            loss = torch.nn.functional.cross_entropy(logits, t[-answer:])  # mean over the answer
            losses.append(loss * schedule.steps_per_epoch / int(sizes[subset]))
            addends[data.subset_names[subset]] += float(losses[-1].detach())
        torch.stack(losses).sum().backward()
        norm = adam.step(learning_rate(o, step, STEPS))
        out.append({"loss": sum(addends.values()), **{f"loss_{k}": v for k, v in addends.items()}, "grad_norm": norm})
    return out


def difference(run: Path, expected: Sequence[dict[str, float]], first: int = 0) -> dict[str, float]:
    """Largest relative difference over the steps, by kind; a subset that a step lacks is compared with the loss."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    if [r["step"] for r in rows] != list(range(1, STEPS + 1)):
        raise AssertionError(f"{run}: steps {[r['step'] for r in rows]}")
    worst = {"loss": 0.0, "subset losses": 0.0, "gradient norm": 0.0}
    for row, want in list(zip(rows, expected, strict=True))[first:]:
        for key, value in want.items():
            kind = {"loss": "loss", "grad_norm": "gradient norm"}.get(key, "subset losses")
            scale = abs(value) if value else abs(want["loss"])
            worst[kind] = max(worst[kind], abs(row[key] - value) / scale)
    return worst


class Workspace:
    """Model, data, configuration and the runs under one folder."""

    def __init__(self, folder: Path, tokenizer_from: Path) -> None:
        self.folder = folder
        self.model = tiny_model(folder / "model", tokenizer_from)
        packed_set(folder / "data", self.model, samples=97)
        settings = {
            "run_dir": "unset",
            "seed": SEED,
            "model": {"hf_path": str(self.model)},
            "data": {"path": str(folder / "data")},
            "trainer": {
                "precision": "fp32",
                "global_batch_size": BATCH,
                "max_steps": STEPS,
                "num_threads": 1,
                "save_every": -1,
                "keep_checkpoints": STEPS + 1,
            },
            "optim": OPTIM,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        self.data = PackedDataset(folder / "data", "train", tokenizer_sha256(load_tokenizer(self.model)))

    def train(self, processes: int, runs: Sequence[tuple[Path, dict[str, Any]]]) -> None:
        """Runs that share a number of processes, one after another in the same processes."""
        lines = [f"run_dir={run} " + " ".join(f"{k}={v}" for k, v in o.items()) for run, o in runs]
        done = torchrun(
            processes, "tests/distributed/fit_worker.py", str(self.folder / "config.yaml"), *lines, timeout=7200
        )
        if done.returncode:
            raise RuntimeError(done.stdout[-6000:])

    def resumed(self, source: Path, step: int, target: Path) -> Path:
        """A run directory as one looks that was interrupted after ``step``."""
        target.mkdir(parents=True)
        for name in ("identity.json", "metrics.jsonl"):
            shutil.copy(source / name, target / name)
        name = f"step-{step:06d}"
        shutil.copytree(source / "checkpoints" / name, target / "checkpoints" / name)
        return target


def overrides(layout: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Keys of a run."""
    section = {"use_distributed_optimizer": "optim"}
    return {**{f"{section.get(k, 'trainer')}.{k}": str(v).lower() for k, v in layout.items()}, **more}


def accumulations(name: str) -> dict[int, int]:
    """Micro-batch sizes of a layout -> micro-batches a step; interleaving needs a multiple of the pipeline size."""
    processes, layout = LAYOUTS[name]
    data_parallel = processes // (layout.get("tp", 1) * layout.get("pp", 1) * layout.get("cp", 1))
    whole = layout["pp"] if layout.get("vpp", 1) > 1 else 1
    found = {micro: BATCH // (micro * data_parallel) for micro in (1, 2, 4)}
    return {m: a for m, a in found.items() if a >= 1 and a % whole == 0}


def largest(name: str) -> dict[str, Any]:
    """The largest micro-batch of a layout: the fewest messages between processes."""
    return {"trainer.micro_batch_size": max(accumulations(name))}


def matrix(names: Sequence[str]) -> Iterator[tuple[str, int, dict[str, Any], bool]]:
    """(name, processes, overrides, packed) of every run of the first table.

    One and two processes: micro-batch 1 and 2, packed and padded. Four processes, where a message takes
    milliseconds on two cores: the two largest micro-batches, the smaller one packed and the larger one padded.
    """
    for name in names:
        processes, layout = LAYOUTS[name]
        steps = accumulations(name)
        cases = [c for c in product((True, False), steps) if c[1] <= 2]
        if processes > 2:
            cases = [(True, sorted(steps)[-2:][0]), (False, max(steps))]
        for packed, micro in cases:
            more = {"trainer.micro_batch_size": micro, "data.packed": str(packed).lower()}
            title = f"{name}, micro-batch {micro}, accumulation {steps[micro]}, {'packed' if packed else 'padded'}"
            yield title, processes, overrides(layout, **more), packed


def run_all(work: Workspace, names: Sequence[str], keep: Callable[[dict[str, Any]], None]) -> None:
    """All three tables; ``keep`` gets what there is after each part."""
    result: dict[str, Any] = {"layouts": {}, "bf16": {}, "resume": {}, "reshard": {}}
    expected_without_beta1 = reference(work.model, work.data, True, beta1=0.0)
    for group in RESHARD:
        result["reshard"] |= reshardings(work, expected_without_beta1, [n for n in group if n in names])
    result["resume"] = resumes(work, names)
    keep(result)
    expected = {packed: reference(work.model, work.data, packed) for packed in (True, False)}
    cases = list(matrix(names))
    for processes in sorted({c[1] for c in cases}):
        mine = [c for c in cases if c[1] == processes]
        paths = [work.folder / f"m{processes}-{i}" for i in range(len(mine))]
        work.train(processes, [(p, c[2]) for p, c in zip(paths, mine, strict=True)])
        for p, c in zip(paths, mine, strict=True):
            result["layouts"][c[0]] = difference(p, expected[c[3]])
            shutil.rmtree(p)
        print(f"{processes} processes: {len(mine)} runs", file=sys.stderr, flush=True)
        bf16 = [n for n in names if LAYOUTS[n][0] == processes and n in BF16]
        paths = [work.folder / f"b{processes}-{i}" for i in range(len(bf16))]
        precision = {"trainer.precision": "bf16"}
        runs = [(p, overrides(LAYOUTS[n][1], **precision, **largest(n))) for p, n in zip(paths, bf16, strict=True)]
        work.train(processes, runs)
        for p, n in zip(paths, bf16, strict=True):
            result["bf16"][n] = difference(p, expected[True])
        keep(result)


def resumes(work: Workspace, names: Sequence[str]) -> dict[str, Any]:
    """Interrupted after every step 1 to 19, in a mixed layout: bit-equal rows, yes or no."""
    name = RESUMED if RESUMED in names else names[-1]
    processes, layout = LAYOUTS[name]
    straight = work.folder / "straight"
    work.train(processes, [(straight, overrides(layout, **largest(name), **{"trainer.save_every": 1}))])
    (straight / "finished.json").unlink()
    paths = [work.resumed(straight, k, work.folder / f"r{k}") for k in range(1, STEPS)]
    work.train(processes, [(p, overrides(layout, **largest(name))) for p in paths])
    equal = [metric_rows(p) == metric_rows(straight) for p in paths]
    return {"layout": name, "steps": STEPS - 1, "bit_equal": sum(equal)}


def reshardings(work: Workspace, expected: Sequence[dict[str, float]], names: Sequence[str]) -> dict[str, Any]:
    """Saved after SAVED steps in one layout, continued in another: every ordered pair.

    Adam's beta1 is 0, so the first moment in the last checkpoint is the last step's gradient (Megatron's own way of
    checking gradients); it is compared, parameter by parameter, with that of one process.
    """
    tag = re.sub(r"\W+", "", names[0]) if names else ""
    beta1, saving = {"optim.adam_beta1": 0.0}, {"trainer.save_every": SAVED}
    sources = {n: work.folder / f"s{tag}{i}" for i, n in enumerate(names)}
    one = work.folder / f"one{tag}"
    work.train(1, [(one, {**beta1, **saving})])
    work.train(4, [(p, overrides(LAYOUTS[n][1], **largest(n), **beta1, **saving)) for n, p in sources.items()])
    pairs = {(a, b): work.folder / f"p{tag}{i}" for i, (a, b) in enumerate(product(names, names)) if a != b}
    for (a, _), path in pairs.items():
        work.resumed(sources[a], SAVED, path)
    work.train(4, [(p, overrides(LAYOUTS[b][1], **largest(b), **beta1, **saving)) for (_, b), p in pairs.items()])
    out = {f"{a} -> {b}": difference(p, expected, first=SAVED) for (a, b), p in pairs.items()}
    if pairs:
        done = python("tests/distributed/invariance.py", "--gradients", str(one), *map(str, pairs.values()))
        if done.returncode:
            raise RuntimeError(done.stdout[-3000:])
        gradients = json.loads(done.stdout.strip().splitlines()[-1])
        for row, value in zip(out.values(), gradients, strict=True):
            row["gradients"] = value
    for path in (one, *sources.values(), *pairs.values()):
        shutil.rmtree(path)
    return out


def compare_gradients(runs: Sequence[Path]) -> None:
    """Print, for each run after the first, the largest difference of a parameter's gradient from the first run's.

    Each relative to the largest entry of that gradient. Needs a process of its own: loading makes a process group.
    """
    from sdrrl_nemo.compat.start import prepare

    prepare()
    from sdrrl_nemo.model import standalone

    standalone.init_parallel()

    def gradients(run: Path) -> dict[str, torch.Tensor]:
        found = {}
        for name, value in checkpoint_tensors(run):
            _, mark, parameter = name.partition(".exp_avg.")
            if mark:
                found[parameter.removeprefix("module.")] = value.double()
        return found

    first = gradients(runs[0])
    worst = []
    for run in runs[1:]:
        other = gradients(run)
        if set(other) != set(first) or not first:
            raise AssertionError(f"{run}: {sorted(set(other) ^ set(first))[:4]}")
        worst.append(max(float((other[n] - g).abs().max() / g.abs().max()) for n, g in first.items()))
    print(json.dumps(worst))


def markdown(result: dict[str, Any], command: str, rows: int) -> str:
    """docs/invariance.md."""

    def table(rows: dict[str, dict[str, float]], head: str) -> list[str]:
        columns = list(next(iter(rows.values()))) if rows else []
        out = [f"| {head} | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
        return out + [f"| {n} | " + " | ".join(f"{v:.1e}" for v in d.values()) + " |" for n, d in rows.items()]

    def worst(rows: dict[str, dict[str, float]]) -> str:
        return f"{max(max(d.values()) for d in rows.values()):.1e}" if rows else "none"

    r = result["resume"]
    lines = [
        "# Invariance: the layout does not change the training",
        "",
        "This page shows that training gives the same numbers however it is split over processes: every",
        "layout, precision and resume against one process in float64.",
        "",
        f"Written by `{command}`. {STEPS} steps of a Llama with 8 layers, 8 heads in 4 groups and V = {rows}, Adam, "
        "clipping, warm-up and cosine,",
        "against one process in float64 (plain transformers, every sample a row of its own, its own Adam): largest",
        "relative difference over all steps. A subset that a step lacks is measured against the step's loss. Gloo.",
        "",
        f"- fp32, {len(result['layouts'])} runs: largest difference {worst(result['layouts'])} (goal 1e-5).",
        f"- bf16, {len(result['bf16'])} runs: {worst(result['bf16'])}: the rounding of bf16, one process included.",
        f"- interrupted after each of the steps 1 to {r['steps']} in {r['layout']}: {r['bit_equal']} of {r['steps']} "
        "continue bit for bit.",
        f"- saved in one layout and continued in another, {len(result['reshard'])} ordered pairs, Adam with beta1 = 0: "
        f"{worst(result['reshard'])};",
        "  the column `gradients` compares each gradient of the last step with that of one process in fp32.",
        "- DO: distributed optimizer.",
        "",
        "## fp32",
        "",
        *table(result["layouts"], "layout"),
        "",
        "## bf16, packed, the largest micro-batch of the layout",
        "",
        *table(result["bf16"], "layout"),
        "",
        f"## Saved in one layout after step {SAVED}, continued in another (steps after the change)",
        "",
        *table(result["reshard"], "from -> to"),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("docs/results/invariance.json"))
    parser.add_argument("--markdown", type=Path, default=Path("docs/invariance.md"))
    parser.add_argument("--gradients", type=Path, nargs="+", help="compare the gradients of these runs, and end")
    parser.add_argument("--tokenizer", type=Path, default=Path("work/models/SmolLM2-135M-Instruct"))
    parser.add_argument("--layouts", nargs="*", default=list(LAYOUTS), choices=list(LAYOUTS))
    args = parser.parse_args()
    if args.gradients:
        compare_gradients(args.gradients)
        return
    command = "python -m tests.distributed.invariance"
    origin = {k: v for k, v in provenance().items() if k != "command"}
    rows = read_json(args.tokenizer / "config.json")["vocab_size"]

    def keep(result: dict[str, Any]) -> None:
        write_json(args.json, {"command": command, "origin": origin, **result})
        with atomic_write(args.markdown) as f:
            f.write(markdown(result, command, rows))

    with tempfile.TemporaryDirectory() as folder:
        run_all(Workspace(Path(folder), args.tokenizer), args.layouts, keep)


if __name__ == "__main__":
    main()
