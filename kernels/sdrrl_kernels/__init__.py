"""Cross-entropy with a weight a token, alone or with the output projection inside; Triton on CUDA, torch elsewhere.

Needs torch, and Triton on a GPU; nothing else of the project. One file per direction, a torch reference beside it.

    >>> import torch
    >>> from sdrrl_kernels import cross_entropy
    >>> hidden = torch.eye(3, 4, requires_grad=True)
    >>> logits = hidden @ torch.eye(4, 5)  # [tokens, vocabulary]; becomes its own gradient in the backward pass
    >>> labels = torch.tensor([0, 1, -100])  # -100 (IGNORE_INDEX): the last token does not count
    >>> weights = torch.tensor([0.5, 0.25, 1.0])
    >>> subset_ids = torch.tensor([0, 1, 1])  # what the parts of the sum are counted by
    >>> out = cross_entropy(logits, labels, weights, subset_ids, 2)
    >>> out.loss.backward()
    >>> round(out.loss.item(), 4), [round(x, 4) for x in out.subset_sums.tolist()], out.subset_counts.tolist()
    (0.6786, [0.4524, 0.2262], [1, 1])
    >>> [round(x, 3) for x in hidden.grad[0].tolist()]  # weight * (softmax - one-hot)
    [-0.298, 0.074, 0.074, 0.074]

``linear_cross_entropy(hidden, weight, ...)`` takes hidden states and the output layer's weight (and ``bias=``), and
never holds all logits.
``weights`` of 1 / (number of tokens) give torch.nn.functional.cross_entropy's mean.
"""

from sdrrl_kernels.api import KERNELS, LossOutput, check_labels, cross_entropy, linear_cross_entropy, pick_backend
from sdrrl_kernels.options import LossOptions
from sdrrl_kernels.reference import IGNORE_INDEX

__all__ = [
    "IGNORE_INDEX",
    "KERNELS",
    "LossOptions",
    "LossOutput",
    "check_labels",
    "cross_entropy",
    "linear_cross_entropy",
    "pick_backend",
]
