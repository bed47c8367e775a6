"""Eq. 6 inside the model: what the last pipeline stage returns, by hand, for logits and for hidden states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.train import loss as module
from sdrrl_nemo.train.batches import live_rows
from sdrrl_nemo.train.config import LossSettings
from sdrrl_nemo.train.loss import (
    Eq6LossReduction,
    LabelFlag,
    LossInputs,
    attach_loss,
    check_kernel,
    loss_names,
    sum_gradients,
)

BATCH, LENGTH, WIDTH, VOCAB, PADDED, SUBSETS = 2, 5, 4, 11, 16, 3


class OutputLayer:
    """As mcore's: hidden [s, b, h] -> (logits [s, b, v], no bias to add); the weight may be another layer's."""

    sequence_parallel = False

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.bias: Tensor | None = None
        self.projected: list[int] = []

    def forward(
        self, input_: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, None]:
        self.projected.append(input_.shape[0] * input_.shape[1])
        logits = input_ @ (self.weight if weight is None else weight).t()
        return logits if self.bias is None else logits + self.bias, None


class Model:
    """What attach_loss sees of mcore's GPTModel."""

    def __init__(self, weight: Tensor, post_process: bool = True) -> None:
        self.post_process, self.output_layer = post_process, OutputLayer(weight)
        self.config = SimpleNamespace(sequence_parallel=False)

    def compute_language_model_loss(self, labels: Any, logits: Tensor) -> Tensor:
        raise AssertionError("megatron-core's own loss")


@pytest.fixture
def inputs() -> LossInputs:
    """labels, weights and subsets [b, s]; one label is ignored, one weight 0."""
    g = torch.Generator().manual_seed(1)
    labels = torch.randint(0, VOCAB, (BATCH, LENGTH), generator=g)
    labels[0, 3] = -100
    weights = torch.rand(BATCH, LENGTH, generator=g) + 0.1
    weights[1, 2] = 0
    subsets = torch.randint(0, SUBSETS, (BATCH, LENGTH), generator=g)
    return LossInputs(labels, weights, subsets, live_rows(labels, weights))


def by_hand(inputs: LossInputs, logits: Tensor, smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """[1 + SUBSETS]: sum of weight x cross-entropy over tokens, and the same by subset; logits [s, b, v]."""
    each = logits[..., :VOCAB].transpose(0, 1).reshape(-1, VOCAB)
    token = F.cross_entropy(each, inputs.labels.reshape(-1), reduction="none", label_smoothing=smoothing)
    token = token + z_loss * torch.logsumexp(each, 1) ** 2 * (inputs.labels.reshape(-1) != -100)
    token = token * inputs.weights.reshape(-1)
    sums = [token[inputs.subset_ids.reshape(-1) == d].sum() for d in range(SUBSETS)]
    return torch.stack([token.sum(), *sums])


def model_of(weight: Tensor, vocab: int = VOCAB, **settings: Any) -> Model:
    made = Model(weight)
    attach_loss(made, vocab, SUBSETS, LossSettings(**settings))
    return made


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kernel", ["torch", "auto", "fused_linear"])
@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.01)])
def test_loss_and_gradient_are_eq_6s(inputs: LossInputs, kernel: str, smoothing: float, z_loss: float) -> None:
    g = torch.Generator().manual_seed(2)
    hidden = torch.randn(LENGTH, BATCH, WIDTH, generator=g).requires_grad_()
    weight = torch.randn(PADDED, WIDTH, generator=g).requires_grad_()
    want = by_hand(inputs, hidden @ weight.t(), smoothing, z_loss)
    want_gradients = torch.autograd.grad(want[0], (hidden, weight))
    model = model_of(weight, kernel=kernel, label_smoothing=smoothing, z_loss=z_loss)
    output, bias = model.output_layer.forward(hidden)
    assert bias is None
    assert output is hidden
    found = model.compute_language_model_loss(inputs, output)
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(torch.autograd.grad(found[0], (hidden, weight)), want_gradients)
    # the row without label and the one that weighs nothing are not projected; fused: the logits never exist at once
    assert model.output_layer.projected == ([] if kernel == "fused_linear" else [BATCH * LENGTH - 2])
    assert inputs.live.tolist() == [i for i in range(BATCH * LENGTH) if i not in (2 * BATCH + 1, 3 * BATCH)]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kernel", ["torch", "fused_linear"])
def test_a_micro_batch_without_loss_gives_zeros(inputs: LossInputs, kernel: str) -> None:
    """Padding alone, or a context-parallel rank whose part of every row is question."""
    hidden = torch.randn(LENGTH, BATCH, WIDTH).requires_grad_()
    weight = torch.randn(PADDED, WIDTH).requires_grad_()
    none = inputs._replace(labels=torch.full_like(inputs.labels, -100), live=torch.zeros(0, dtype=torch.int64))
    model = model_of(weight, kernel=kernel)
    found = model.compute_language_model_loss(none, model.output_layer.forward(hidden)[0])
    assert found.tolist() == [0.0] * (1 + SUBSETS)
    for gradient in torch.autograd.grad(found[0], (hidden, weight)):
        assert not gradient.any()


@pytest.mark.usefixtures("alone")
def test_fused_takes_the_weight_that_the_layer_is_called_with(inputs: LossInputs) -> None:
    """Tied embeddings: mcore hands the embedding's weight to the output layer at each call."""
    hidden, tied = torch.randn(LENGTH, BATCH, WIDTH), torch.randn(PADDED, WIDTH)
    model = model_of(torch.zeros(PADDED, WIDTH), kernel="fused_linear")
    output, _ = model.output_layer.forward(hidden, weight=tied)
    torch.testing.assert_close(model.compute_language_model_loss(inputs, output), by_hand(inputs, hidden @ tied.t()))
    output, _ = model.output_layer.forward(hidden)
    want = by_hand(inputs, torch.zeros(LENGTH, BATCH, PADDED))
    torch.testing.assert_close(model.compute_language_model_loss(inputs, output), want)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kernel", ["torch", "fused_linear"])
def test_a_bias_of_the_output_layer_is_in_the_loss(inputs: LossInputs, kernel: str) -> None:
    g = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(LENGTH, BATCH, WIDTH, generator=g), torch.randn(PADDED, WIDTH, generator=g)
    bias = torch.randn(PADDED, generator=g).requires_grad_()
    want = by_hand(inputs, hidden @ weight.t() + bias)
    model = model_of(weight, kernel=kernel)
    model.output_layer.bias = bias
    found = model.compute_language_model_loss(inputs, model.output_layer.forward(hidden)[0])
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(torch.autograd.grad(found[0], bias), torch.autograd.grad(want[0], bias))


@pytest.mark.usefixtures("alone")
def test_fused_adds_the_weights_gradient_where_megatron_sums_it(inputs: LossInputs) -> None:
    """Two micro-batches: what DistributedDataParallel has to add for them is a zero."""
    hidden, weight = torch.randn(LENGTH, BATCH, WIDTH), torch.randn(PADDED, WIDTH).requires_grad_()
    want = torch.autograd.grad(by_hand(inputs, hidden @ weight.t())[0], weight)[0]
    weight.main_grad, weight.grad_added_to_main_grad = torch.zeros(PADDED, WIDTH), False  # type: ignore[attr-defined]
    model = model_of(weight, kernel="fused_linear")
    for turn in (1, 2):
        model.compute_language_model_loss(inputs, model.output_layer.forward(hidden)[0])[0].backward()
        torch.testing.assert_close(weight.main_grad, turn * want)  # type: ignore[attr-defined]
    assert weight.grad_added_to_main_grad  # type: ignore[attr-defined]
    assert weight.grad is not None and not weight.grad.to_dense().any()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kernel", ["torch", "fused_linear"])
def test_a_ranks_slice_of_the_vocabulary_begins_where_its_rows_do(
    inputs: LossInputs, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 2 of a group whose other ranks are left out: its labels are 32 more than its columns."""
    monkeypatch.setattr(module.parallel_state, "get_tensor_model_parallel_rank", lambda: 2)
    hidden, weight = torch.randn(LENGTH, BATCH, WIDTH), torch.randn(PADDED, WIDTH)
    made = model_of(weight, 2 * PADDED + VOCAB, kernel=kernel)
    shifted = inputs._replace(labels=torch.where(inputs.labels >= 0, inputs.labels + 2 * PADDED, -100))
    output, _ = made.output_layer.forward(hidden)
    torch.testing.assert_close(made.compute_language_model_loss(shifted, output), by_hand(inputs, hidden @ weight.t()))


def test_stages_before_the_last_keep_their_model() -> None:
    model = Model(torch.zeros(2, 2), post_process=False)
    attach_loss(model, VOCAB, SUBSETS, LossSettings(kernel="fused_linear"))
    assert "compute_language_model_loss" not in vars(model) and "forward" not in vars(model.output_layer)


def test_the_loss_goes_to_megatron_undivided_and_as_a_copy() -> None:
    vector = torch.tensor([6.0, 1.0, 2.0, 3.0], requires_grad=True)
    loss, tokens, said = Eq6LossReduction().forward(None, vector)
    assert float(loss) == 6.0 and loss._base is None  # the pipeline frees it, and refuses to free a view
    assert int(tokens) == 0 and tokens.dtype == torch.int
    assert torch.equal(said["vector"], vector) and not said["vector"].requires_grad
    assert torch.autograd.grad(loss, vector)[0].tolist() == [1, 0, 0, 0]


@pytest.mark.usefixtures("alone")
def test_micro_batches_are_summed_in_float64() -> None:
    reduction = Eq6LossReduction()
    assert reduction.micro_losses is None
    parts = [{"vector": torch.tensor([1e8, 1.0])}, {"vector": torch.tensor([1.0, 2.0])}]
    total = reduction.reduce(parts)
    assert total.dtype == torch.float64 and total.tolist() == [1e8 + 1, 3.0]
    assert reduction.micro_losses.tolist() == [1e8, 1.0]


@pytest.mark.usefixtures("alone")
def test_ranks_are_summed_over_data_and_context_parallelism(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        module.parallel_state, "get_data_parallel_group", lambda with_context_parallel=False: with_context_parallel
    )
    monkeypatch.setattr(module.torch.distributed, "all_reduce", lambda t, group: seen.append((t.tolist(), group)))
    Eq6LossReduction().reduce([{"vector": torch.tensor([2.0, 3.0])}])
    assert seen == [([2.0, 3.0], True)]


def test_gradients_are_sums_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(module, "finalize_model_grads", lambda *a, **k: seen.append((a, k)))
    sum_gradients(["model"], torch.tensor(7), pg_collection="groups")
    assert seen == [((["model"], None), {"pg_collection": "groups"})]


def test_a_kernel_that_cannot_run_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    check_kernel("auto", torch.device("cpu"))
    with pytest.raises(SdrrlError, match=r"loss\.kernel: kernel must be one of auto, .* got 'cuda'"):
        check_kernel("cuda", torch.device("cpu"))
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(SdrrlError, match=r"loss\.kernel: kernel 'triton' needs a CUDA device"):
        check_kernel("triton", torch.device("cpu"))


def test_names_of_the_entries() -> None:
    assert loss_names(["LL", "TT"]) == ("loss", "loss_LL", "loss_TT")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kernel", ["torch", "fused_linear"])
def test_a_label_outside_the_vocabulary_stops_the_run_with_a_sentence(inputs: LossInputs, kernel: str) -> None:
    """VOCAB is a row of the model's table and no token: a packed set of a tokenizer with one token more."""
    hidden, weight = torch.randn(LENGTH, BATCH, WIDTH), torch.randn(PADDED, WIDTH)
    flag, made = LabelFlag(VOCAB), Model(weight)
    attach_loss(made, VOCAB, SUBSETS, LossSettings(kernel=kernel), flag)
    flag.require_none(1)
    labels = inputs.labels.clone()
    labels[1, 4] = VOCAB
    bad = inputs._replace(labels=labels)
    for given, nan in ((inputs, False), (bad, True), (inputs, False)):  # a later micro-batch does not clear it
        found = made.compute_language_model_loss(given, made.output_layer.forward(hidden)[0])
        assert bool(torch.isnan(found[0])) is nan
    with pytest.raises(SdrrlError, match="step 7 at the latest: a label is outside the vocabulary of 11 tokens"):
        flag.require_none(7)
