"""`soft_statistics` as two Triton kernels: sums of a tile of classes x voxels, and the gradient of the logits.

A program walks over tiles of one sample, all classes of a few voxels each, and leaves its own partial sums: no atomics, so
the same input gives the same bits.  The backward kernel reads the same and writes the gradient; nothing else is stored.
"""
# Triton compiles a subset of Python, without types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# ruff: noqa: B007, RUF005, RUF059, SIM108

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from monai_segloss.core.counts import FORMULAS, Stat, is_labels
from monai_segloss.kernels.functions_triton import exp, functions, log1p_

PROGRAMS = 4096
"""Most programs of a launch, whatever the device, so that sums do not depend on it."""
SHARE = 64
"""The partial sums hold at most one in so many bytes of the logits."""


class Plan(NamedTuple):
    """Constants of a compiled kernel.  A tile holds all classes, padded to ``rows``, of some ``voxels``."""

    value: Any  # functions made from the formulas
    slope: Any
    statistics: int
    pulls: bool  # whether there are slopes in log(1 - p)
    sharp: bool
    labels: bool
    hard: bool
    weighted: bool
    softmax: bool
    channels_last: bool
    classes: int
    rows: int
    voxels: int
    fold: int  # voxels that add up in a thread before they reach the sums


@triton.jit
def _probabilities(z, P: tl.constexpr):
    """p, 1 - p, their logarithms, and for softmax where p > 1/2 and p among the other classes of such a voxel."""
    if P.softmax:
        z = z - tl.max(z, 0)[None, :]
        e = exp(z)
        total = tl.sum(e, 0)
        p = e * (1 / total)[None, :]
        lp = z - tl.log(total)[None, :]
        # Only one class can have p above 1/2; its 1 - p is the sum of the others.
        big = p > 0.5
        q = tl.where(big, tl.sum(tl.where(big, 0.0, p), 0)[None, :], 1 - p)
        # The same in logarithms, where that sum is too small for a number.
        rest = tl.where(big, float("-inf"), z)
        top = tl.max(rest, 0)
        top = tl.where(top == float("-inf"), 0.0, top)
        among = exp(rest - top[None, :])
        others = tl.sum(among, 0)
        lq = tl.where(big, (tl.log(others) + top - tl.log(total))[None, :], log1p_(tl.where(big, 0.0, -p)))
        among = among * tl.where(others == 0, 0.0, 1 / others)[None, :]
    else:
        e = exp(-tl.abs(z))
        near, far = 1 / (1 + e), e / (1 + e)
        p, q = tl.where(z < 0, far, near), tl.where(z < 0, near, far)
        tail = log1p_(e)
        lp, lq = tl.where(z < 0, z, 0.0) - tail, tl.where(z < 0, 0.0, -z) - tail
        big, among = p > 0.5, p
    if P.sharp:
        lp = tl.where(q < 0.5, log1p_(tl.where(q < 0.5, -q, 0.0)), lp)
    return p, q, lp, lq, big, among


@triton.jit
def _read(logits, z_strides, target, t_strides, weight, w_strides, n, voxels, FULL: tl.constexpr, P: tl.constexpr):
    """Logits and target (rows, n), the weights (n) and whether they count: where not, logits and target are 0."""
    c = tl.arange(0, P.rows)
    inside, here = n >= 0, (c < P.classes)[:, None] & (n >= 0)[None, :]
    if not FULL:
        inside, here = n < voxels, here & (n < voxels)[None, :]
    z = tl.load(logits + c[:, None] * z_strides[1] + n[None, :] * z_strides[2], mask=here, other=0).to(tl.float32)
    v, keep = tl.where(inside, 1.0, 0.0), inside
    if P.weighted:
        v = tl.load(weight + n * w_strides[1], mask=inside, other=0).to(tl.float32)
        keep = inside & ((v <= 0) == 0)
        z = tl.where(keep[None, :], z, 0.0)
    if P.softmax and P.classes < P.rows:
        z = tl.where((c < P.classes)[:, None], z, float("-inf"))
    if P.labels:
        y = tl.load(target + n * t_strides[2], mask=inside, other=0)
        label = y.to(tl.int32)
        fits = keep & (label >= 0) & (label < P.classes) & (label.to(y.dtype) == y)
        g = tl.where(fits, label, -1)[None, :] == c[:, None]
    else:
        g = tl.load(target + c[:, None] * t_strides[1] + n[None, :] * t_strides[2], mask=here, other=0)
        if P.hard:
            g = (g != 0) & keep[None, :]
        else:
            g = tl.where(keep[None, :], g.to(tl.float32), 0.0)
    return z, g, v, keep


@triton.jit
def _add(
    acc, logits, z_strides, target, t_strides, weight, w_strides, start, voxels, FULL: tl.constexpr, P: tl.constexpr
):
    """The sums and what one more tile adds."""
    n = start + tl.arange(0, P.voxels)
    z, g, v, keep = _read(logits, z_strides, target, t_strides, weight, w_strides, n, voxels, FULL, P)
    p, q, lp, lq, big, among = _probabilities(z, P)
    ROWS: tl.constexpr = P.rows
    FOLD: tl.constexpr = P.fold
    LANES: tl.constexpr = P.voxels // P.fold
    found = ()
    values = P.value(p, q, lp, lq, g)
    for i in tl.static_range(P.statistics):
        value = values[i]
        if P.weighted or not FULL:
            value = value * v[None, :]
        # First what lies in one thread: neighbors, or with the channels last every so many-th voxel.
        if P.channels_last:
            folded = tl.sum(tl.reshape(value, (ROWS, FOLD, LANES)), 1)
        else:
            folded = tl.sum(tl.reshape(value, (ROWS, LANES, FOLD)), 2)
        found = found + (acc[i] + folded,)
    return found


@triton.jit
def _sums(
    logits, z_strides, target, t_strides, weight, w_strides, partial, voxels, parts, P: tl.constexpr
):  # fmt: skip
    """Partial sums (sample, part, class, statistic) over every ``parts``-th tile of a sample."""
    program = tl.program_id(0).to(tl.int64)
    b, part = program // parts, tl.program_id(0) % parts
    logits, target, weight = logits + b * z_strides[0], target + b * t_strides[0], weight + b * w_strides[0]
    ROWS: tl.constexpr = P.rows
    LANES: tl.constexpr = P.voxels // P.fold
    acc = ()
    for i in tl.static_range(P.statistics):
        acc = acc + (tl.zeros((ROWS, LANES), tl.float32),)
    tiles = voxels // P.voxels
    for tile in range(part, tiles, parts):
        acc = _add(
            acc, logits, z_strides, target, t_strides, weight, w_strides, tile * P.voxels, voxels, True, P
        )  # fmt: skip
    if part == parts - 1 and tiles * P.voxels < voxels:
        acc = _add(
            acc, logits, z_strides, target, t_strides, weight, w_strides, tiles * P.voxels, voxels, False, P
        )  # fmt: skip
    c = tl.arange(0, P.rows)
    for i in tl.static_range(P.statistics):
        where = (program * P.classes + c) * P.statistics + i
        tl.store(partial + where, tl.sum(acc[i], 1), mask=c < P.classes)


@triton.jit
def _pull_back(
    factors, logits, z_strides, target, t_strides, weight, w_strides, out, o_strides, start, voxels,
    FULL: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """The gradient of the logits of one tile."""
    c, n = tl.arange(0, P.rows), start + tl.arange(0, P.voxels)
    z, g, v, keep = _read(logits, z_strides, target, t_strides, weight, w_strides, n, voxels, FULL, P)
    p, q, lp, lq, big, among = _probabilities(z, P)
    slope, pull = P.slope(p, q, lp, lq, g, factors)
    if P.softmax:
        total = tl.sum(slope, 0)[None, :]
        # A sharp slope is large where 1 - p is small and must keep its digits.
        found = slope * q - p * (total - slope) if P.sharp else slope - p * total
        if P.pulls:
            # A class above 1/2 pulls on the others in proportion to p among them, the rest as p / (1 - p).
            own = tl.where(big, 0.0, pull * p / q)
            by_big = tl.sum(tl.where(big, pull * p, 0.0), 0)
            found += p * (tl.sum(own, 0)[None, :] - own - pull) + tl.where(big, 0.0, among) * by_big[None, :]
    else:
        found = slope * q - pull * p
    if P.weighted:
        found = tl.where(keep[None, :], found * v[None, :], 0.0)
    here = (c < P.classes)[:, None] & (n >= 0)[None, :]
    if not FULL:
        here = here & (n < voxels)[None, :]
    where = out + c[:, None] * o_strides[1] + n[None, :] * o_strides[2]
    tl.store(where, found.to(out.dtype.element_ty), mask=here)


@triton.jit
def _gradient(
    logits, z_strides, target, t_strides, weight, w_strides, grad, out, o_strides, voxels, parts, P: tl.constexpr
):  # fmt: skip
    """The gradient of the logits from that of the sums (sample, class, statistic), every ``parts``-th tile."""
    b, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    logits, target, weight = logits + b * z_strides[0], target + b * t_strides[0], weight + b * w_strides[0]
    out += b * o_strides[0]
    c = tl.arange(0, P.rows)
    factors = ()
    for i in tl.static_range(P.statistics):
        where = (b * P.classes + c) * P.statistics + i
        factors = factors + (tl.load(grad + where, mask=c < P.classes, other=0),)
    tiles = voxels // P.voxels
    for tile in range(part, tiles, parts):
        _pull_back(
            factors, logits, z_strides, target, t_strides, weight, w_strides, out, o_strides,
            tile * P.voxels, voxels, True, P,
        )  # fmt: skip
    if part == parts - 1 and tiles * P.voxels < voxels:
        _pull_back(
            factors, logits, z_strides, target, t_strides, weight, w_strides, out, o_strides,
            tiles * P.voxels, voxels, False, P,
        )  # fmt: skip


class _Launch(NamedTuple):
    """What both kernels are started with."""

    inputs: tuple[Any, ...]
    plan: Plan
    parts: int
    options: dict[str, Any]


def plan_launch(
    logits: Tensor, target: Tensor, weight: Tensor | None, which: tuple[Stat, ...], activation: str
) -> _Launch:
    """Over logits (B, C, N), target (B, N) or (B, C, N) and weight (B, N), all by their strides."""
    batch, classes, voxels = logits.shape
    labels, hard = is_labels(logits, target), target.dtype == torch.bool
    target = target.view(torch.uint8) if hard else target
    sent = logits if weight is None else weight.view(torch.uint8) if weight.dtype == torch.bool else weight
    t_strides = (target.stride(0), 0, target.stride(1)) if labels else target.stride()
    w_strides = (0, 0) if weight is None else sent.stride()
    rows = triton.next_power_of_2(classes)
    hard = hard or labels
    values, slopes, pulls, sharp = functions(which, tuple(FORMULAS[name] for name, _ in which), hard)
    held = 1024 if pulls or len(which) > 6 else 2048
    width = max(held // 128, min(256, held // rows))
    plan = Plan(
        value=values,
        slope=slopes,
        statistics=len(which),
        pulls=pulls,
        sharp=sharp,
        labels=labels,
        hard=hard,
        weighted=weight is not None,
        softmax=activation == "softmax",
        channels_last=voxels > 1 and logits.stride(2) != 1,
        classes=classes,
        rows=rows,
        voxels=width,
        fold=8,
    )
    fewest = max(1, SHARE * 4 * len(which) // (width * logits.element_size()))
    parts = max(1, min(triton.cdiv(voxels, width * fewest), PROGRAMS // batch))
    inputs = (logits, logits.stride(), target, t_strides, sent, w_strides)
    return _Launch(inputs, plan, parts, {"num_warps": max(1, rows * width // held), "enable_fp_fusion": True})


def triton_sums(
    logits: Tensor, target: Tensor, weight: Tensor | None, which: tuple[Stat, ...], activation: str
) -> Tensor:
    """The statistics (B, C, K) in float32; partial sums add up in float64."""
    batch, classes, voxels = logits.shape
    run = plan_launch(logits, target, weight, which, activation)
    partial = logits.new_empty((batch, run.parts, classes, len(which)), dtype=torch.float32)
    with torch.cuda.device_of(logits):
        _sums[(batch * run.parts,)](*run.inputs, partial, voxels, run.parts, P=run.plan, **run.options)
    return partial.sum(1, dtype=torch.float64).float()


def triton_gradient(
    grad: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, which: tuple[Stat, ...], activation: str
) -> Tensor:
    """The gradient of the logits, in their type and layout, from that of the statistics (B, C, K)."""
    batch, _, voxels = logits.shape
    run = plan_launch(logits, target, weight, which, activation)
    out, grad = torch.empty_like(logits), grad.float().contiguous()
    with torch.cuda.device_of(logits):
        _gradient[(batch * run.parts,)](
            *run.inputs, grad, out, out.stride(), voxels, run.parts, P=run.plan, **run.options
        )
    return out
