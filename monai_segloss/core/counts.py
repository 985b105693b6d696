"""Soft statistics: the sums over voxels of which most losses are a function.

`soft_statistics` is the one operation behind them.  It has a plain formula, written with ordinary differentiable tensor
operations, which is the definition; faster backends for a device register themselves in `BACKENDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_segloss.core.derivatives import under_vmap

Activation = str | Callable[[Tensor], Tensor]


class Stat(NamedTuple):
    """One statistic, summed over the voxels of a sample for every class; ``power`` is an exponent of some sums.

    With p the probability, g the target and v the voxel weight, per (sample, class):

    ========= =================================== ============ ====================================
    ``tp``    sum v p g                           ``ce``       -sum v g log p
    ``fp``    sum v p (1 - g)                     ``ce_neg``   -sum v (1 - g) log(1 - p)
    ``fn``    sum v (1 - p) g                     ``nlp``      -sum v log p
    ``g``     sum v g                             ``focal``    -sum v g (1 - p)^power log p
    ``se``    sum v (p - g)^2                     ``focal_neg`` -sum v (1 - g) p^power log(1 - p)
    ``tp_l1`` sum v min(p, g)                     ``fp_l1``    sum v max(p - g, 0)
    ``fn_l1`` sum v max(g - p, 0)                 ``tn``       sum v (1 - p)(1 - g)
    ``p_sq``  sum v p^2                           ``g_sq``     sum v g^2
    ``pq``    sum v p (1 - p)                     ``ae``       sum v |p - g|^power
    ``se_g``  sum v (p - g)^2 g                   ``se_neg``   sum v (p - g)^2 (1 - g)
    ``ae_tp`` sum v |p - g| p g                   ``ae_err``   sum v |p - g| (p (1 - g) + (1 - p) g)
    ========= =================================== ============ ====================================

    ``ce_power`` and ``ce_neg_power`` are the sums of v g (-log p)^power and v (1 - g) (-log(1 - p))^power, ``fp_power`` and
    ``fn_power`` those of v ((1 - g) p)^power and v (g (1 - p))^power.
    ``log1p`` is sum v g log(1 + p).
    """

    name: str
    power: float = 0.0


class Voxels:
    """Probability, complement, their logarithms and target of the voxels, each computed when first asked for.

    Of the classes from ``first`` on, of which others have no part where channels are independent.
    """

    def __init__(self, z: Tensor, g: Tensor, activation: Activation, first: int = 0) -> None:
        z, first, g = (z[:, first:], 0, g[:, first:]) if activation == "sigmoid" else (z, first, g[:, first:])
        self.z, self.g, self.activation, self.first = z, g, activation, first
        self._activated: Tensor | None = None
        self._lp: Tensor | None = None

    @property
    def p(self) -> Tensor:
        """Probability."""
        return self._all[:, self.first :]

    @property
    def _all(self) -> Tensor:
        """Probabilities of all classes, from which 1 - p is computed."""
        if self._activated is None:
            self._activated = activate(self.z, self.activation)
        return self._activated

    @property
    def q(self) -> Tensor:
        """1 - p."""
        return complement(self.z, self._all, self.activation)[:, self.first :]

    @property
    def lp(self) -> Tensor:
        """log p."""
        if self._lp is None:
            self._lp = log_activate(self.z, self.activation)[:, self.first :]
        return self._lp

    @property
    def lq(self) -> Tensor:
        """log(1 - p)."""
        return log_complement(self.z, self.activation)[:, self.first :]


def activate(z: Tensor, activation: Activation) -> Tensor:
    """Probabilities of the logits ``z`` (B, C, ...); with ``"none"`` the input is taken as probabilities."""
    if activation == "softmax":
        return torch.softmax(z, 1)
    if activation == "sigmoid":
        return torch.sigmoid(z)
    return z if isinstance(activation, str) else activation(z)


def log_activate(z: Tensor, activation: Activation) -> Tensor:
    """log p, from the logits where there are logits."""
    if activation == "softmax":
        return torch.log_softmax(z, 1)
    if activation == "sigmoid":
        return F.logsigmoid(z)
    return _log(activate(z, activation))


def complement(z: Tensor, p: Tensor, activation: Activation) -> Tensor:
    """1 - p of the probabilities p of the logits z; for softmax exact near p = 1.

    Only one class can have p above 1/2; there the sum of the others takes the place of 1 - p.
    """
    if activation == "sigmoid":
        return torch.sigmoid(-z)
    if activation != "softmax":
        return 1 - p
    top = p > 0.5
    return torch.where(top, p.masked_fill(top, 0).sum(1, keepdim=True), 1 - p)


def log_complement(z: Tensor, activation: Activation) -> Tensor:
    """log(1 - p); for softmax exact near p = 1.

    Only one class can have p above 1/2; there the log-sum-exp of the other logits takes the place of 1 - p.
    """
    if activation == "sigmoid":
        return F.logsigmoid(-z)
    p = activate(z, activation)
    if activation != "softmax":
        return _log(1 - p)
    top = p > 0.5
    others = torch.logsumexp(z.masked_fill(top, -torch.inf), 1, keepdim=True) - torch.logsumexp(z, 1, keepdim=True)
    return torch.where(top, others, torch.log1p(-p.masked_fill(top, 0)))


def _log(p: Tensor) -> Tensor:
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def _power(base: Any, exponent: float) -> Any:
    """``base ** exponent`` whose gradient stays finite at 0 for exponents below 1."""
    return base.clamp_min(1e-7) ** exponent if 0 < exponent < 1 else base**exponent


def _log_power(log: Any, exponent: float) -> Any:
    """``(-log) ** exponent``, for exponents below 1 constant below 1e-6, where the derivative is infinite."""
    return (-log).clamp_min(1e-6 if exponent < 1 else 0) ** exponent


FORMULAS: dict[str, Callable[[Any, float], Any]] = {
    "g": lambda v, a: v.g,
    "tp": lambda v, a: v.p * v.g,
    "fp": lambda v, a: v.p * (1 - v.g),
    "fn": lambda v, a: v.q * v.g,
    "fp_power": lambda v, a: _power(v.p, a) * (1 - v.g) ** a,
    "fn_power": lambda v, a: _power(v.q, a) * v.g**a,
    "se": lambda v, a: (v.p - v.g) ** 2,
    "tp_l1": lambda v, a: v.p.minimum(v.g),
    "fp_l1": lambda v, a: (v.p - v.g).clamp_min(0),
    "fn_l1": lambda v, a: (v.g - v.p).clamp_min(0),
    "tn": lambda v, a: v.q * (1 - v.g),
    "p_sq": lambda v, a: v.p**2,
    "g_sq": lambda v, a: v.g**2,
    "pq": lambda v, a: v.p * v.q,
    "ae": lambda v, a: (v.p - v.g).abs() ** a,
    "se_g": lambda v, a: (v.p - v.g) ** 2 * v.g,
    "se_neg": lambda v, a: (v.p - v.g) ** 2 * (1 - v.g),
    "ae_tp": lambda v, a: (v.p - v.g).abs() * v.p * v.g,
    "ae_err": lambda v, a: (v.p - v.g).abs() * (v.p * (1 - v.g) + v.q * v.g),
    "ce": lambda v, a: -v.g * v.lp,
    "ce_neg": lambda v, a: -(1 - v.g) * v.lq,
    "nlp": lambda v, a: -v.lp,
    "log1p": lambda v, a: v.g * v.p.log1p(),
    "focal": lambda v, a: -v.g * _power(v.q, a) * v.lp,
    "focal_neg": lambda v, a: -(1 - v.g) * _power(v.p, a) * v.lq,
    "ce_power": lambda v, a: v.g * _log_power(v.lp, a),
    "ce_neg_power": lambda v, a: (1 - v.g) * _log_power(v.lq, a),
}
"""Name of a statistic -> its only formula, of `Voxels` and the exponent.  With tensors it is the definition; the kernels for
CPU and CUDA, their slopes and the short forms for labels are made from it (`monai_segloss.core.expression`)."""


def plain_statistics(
    logits: Tensor,
    target: Tensor,
    which: Sequence[Stat],
    activation: Activation = "softmax",
    weight: Tensor | None = None,
) -> Tensor:
    """The definition of `soft_statistics` in ordinary tensor operations (same arguments, same result)."""
    z = logits.flatten(2) if logits.ndim > 2 else logits[..., None]
    z = z if z.dtype == torch.float64 else z.float()
    labels = target.reshape(z.shape[0], -1) if is_labels(logits, target) else None
    g = target.reshape(z.shape) if labels is None else one_hot_labels(labels, z.shape[1])
    w = None if weight is None else weight.reshape(z.shape[0], 1, -1)
    if w is not None and not learned(w):  # the derivative in a weight of 0 is what its voxel would add
        z, g = z.masked_fill(is_ignored(w), 0), g.masked_fill(is_ignored(w), 0)
    voxels = Voxels(z, g.to(z.dtype), activation)
    sums = []
    for stat in which:
        value = FORMULAS[stat.name](voxels, stat.power)
        sums.append((value if w is None else value * w.to(value.dtype)).sum(2))
    return torch.stack(sums, 2)


def learned(x: Tensor | None) -> bool:
    """Whether a gradient in ``x`` is wanted."""
    return x is not None and x.requires_grad and torch.is_grad_enabled()


def mask_logits(z: Tensor, mask: Tensor | None) -> Tensor:
    """Logits (B, C, ...) in float32 (or float64), 0 where ``mask`` (B, ...) says that a voxel does not count."""
    z = z if z.dtype == torch.float64 else z.float()
    return z if mask is None else z.masked_fill(~mask[:, None], 0)


def is_ignored(weight: Tensor) -> Tensor:
    """Where a mask or a weight says that a voxel has no influence."""
    return ~weight if weight.dtype == torch.bool else weight <= 0


def is_labels(logits: Tensor, target: Tensor) -> bool:
    """Whether ``target`` (B, *S) holds labels rather than one channel per class."""
    return target.ndim == logits.ndim - 1


def one_hot_labels(labels: Tensor, classes: int) -> Tensor:
    """Boolean (B, C, ...) of the labels (B, ...); a label outside of the classes gives no channel."""
    index = torch.arange(classes, device=labels.device).view(1, -1, *(1,) * (labels.ndim - 1))
    return labels[:, None] == index


Backend = Callable[[Tensor, Tensor, "tuple[Stat, ...]", Activation, "Tensor | None"], Tensor]
BACKENDS: dict[str, Backend] = {}
"""Device type -> a faster equal of `plain_statistics`; `monai_segloss.kernels` fills it."""
OPERATORS: set[str] = set()
"""Device types whose backend also stands in a compiled graph; for the others the compiler gets the plain formula."""


def soft_statistics(
    logits: Tensor,
    target: Tensor,
    which: Sequence[Stat],
    activation: Activation = "softmax",
    weight: Tensor | None = None,
) -> Tensor:
    """Sums of soft statistics over the voxels of each sample, differentiable in all of its tensors.

    Back ends know the gradient in ``logits``; where ``target`` or ``weight`` want one, the plain formula takes their place.
    A caller's own activation, which may have parameters, is called here, once.

    Args:
        logits: (B, C, *S), any floating type and memory format; computed in float32 (float64 stays).
        target: labels (B, *S) of any integer type, or one channel per class (B, C, *S): bool, one-hot, soft, regions.
        which: the K statistics, see `Stat`.
        activation: ``"softmax"``, ``"sigmoid"``, ``"none"`` (``logits`` are probabilities) or a callable.
        weight: (B, *S) boolean mask or weights >= 0 of the voxels; where it is 0 the logits have no influence at all,
            unless a gradient in the weight is wanted.

    Returns:
        (B, C, K) in float32 (float64 for float64 logits).

    Example:
        >>> import torch
        >>> from monai_segloss.core.counts import Stat, soft_statistics
        >>> sums = soft_statistics(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]), (Stat("tp"), Stat("fp")))
        >>> sums[0].tolist()
        [[1.5, 0.5], [0.5, 1.5]]
    """
    device = logits.device.type
    backend = BACKENDS.get(device)
    if (
        backend is None
        or learned(target)
        or learned(weight)
        or (torch.compiler.is_compiling() and device not in OPERATORS)
        or under_vmap()
    ):
        return plain_statistics(logits, target, tuple(which), activation, weight)
    if not isinstance(activation, str):
        logits, activation = activation(mask_logits(logits, None if weight is None else ~is_ignored(weight))), "none"
    return backend(logits, target, tuple(which), activation, weight)


@dataclass(frozen=True)
class Counts:
    """Soft true positives, false positives and false negatives (B | 1, C) and the voxels n (B | 1, 1) they come from."""

    tp: Tensor
    fp: Tensor
    fn: Tensor
    n: Tensor
