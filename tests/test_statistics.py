"""The one operation under the losses: the fast path equals the plain formula, which equals NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from references.reading import read
from torch import Tensor

import monai_segloss.kernels  # noqa: F401  (registers the fast backends)
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import FORMULAS, Stat, plain_statistics, soft_statistics

POWERS = {
    "focal": 2.0,
    "focal_neg": 2.0,
    "ae": 1.5,
    "ce_power": 0.5,
    "ce_neg_power": 1.5,
    "fp_power": 1.5,
    "fn_power": 2.0,
}
ALL = tuple(Stat(name, POWERS.get(name, 0.0)) for name in FORMULAS)
OVERLAP = (Stat("tp"), Stat("fp"), Stat("fn"))
SIZES = [
    (1, (1, 1, 1)),
    (1, (17, 15, 33)),
    (2, (1,)),
    (2, (4, 32, 32)),
    (3, (2, 3)),
    (3, (17, 15, 33)),
    (8, (5, 7)),
    (9, (5, 7)),
    (118, (3, 5)),
    (118, (16, 17, 19)),
]
ACTIVATIONS = ["softmax", "sigmoid"]


def batch(classes: int, shape: tuple[int, ...], *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    logits = 2 * torch.randn(2, classes, *shape, dtype=torch.float64)
    return logits.to(dtype), torch.randint(0, classes, (2, *shape))


def forward_backward(function, logits: Tensor, *args) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """The sums and the gradient of a fixed random combination of them."""
    leaf = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    sums = function(leaf, *args)
    combination = torch.randn(sums.shape, generator=torch.Generator().manual_seed(1), dtype=sums.dtype)
    (gradient,) = torch.autograd.grad((sums * combination).sum(), leaf)
    return sums.detach(), gradient


def assert_same(logits: Tensor, *args, rtol: float = 1e-4, atol: float = 1e-5) -> None:  # type: ignore[no-untyped-def]
    """Fast and plain agree; the sums are compared relative to the largest of their kind."""
    sums, gradient = forward_backward(soft_statistics, logits, *args)
    plain_sums, plain_gradient = forward_backward(plain_statistics, logits, *args)
    assert sums.dtype == plain_sums.dtype
    assert gradient.dtype == logits.dtype
    scale = plain_sums.abs().amax().item() + 1
    torch.testing.assert_close(sums, plain_sums, rtol=rtol, atol=atol * scale)
    torch.testing.assert_close(gradient, plain_gradient, rtol=rtol, atol=atol)


def numpy_sums(logits: Tensor, labels: Tensor, stat: Stat, activation: str, valid: Tensor) -> np.ndarray:
    r = read(logits.numpy(), labels.numpy(), activation, valid.numpy(), labels=True)
    p, g = r.p, r.g
    values = {
        "g": g,
        "tp": p * g,
        "fp": p * (1 - g),
        "fn": (1 - p) * g,
        "se": (p - g) ** 2,
        "tp_l1": (p + g - np.abs(p - g)) / 2,
        "fp_l1": np.where(p > g, p - g, 0),
        "fn_l1": np.where(g > p, g - p, 0),
        "ce": -g * r.log_p,
        "ce_neg": -(1 - g) * r.log_q,
        "nlp": -r.log_p,
        "tn": (1 - p) * (1 - g),
        "p_sq": p**2,
        "g_sq": g**2,
        "pq": p * (1 - p),
        "ae": np.abs(p - g) ** stat.power,
        "se_g": (p - g) ** 2 * g,
        "se_neg": (p - g) ** 2 * (1 - g),
        "ae_tp": np.abs(p - g) * p * g,
        "ae_err": np.abs(p - g) * (p * (1 - g) + (1 - p) * g),
        "log1p": g * np.log1p(p),
        "focal": -g * (1 - p) ** stat.power * r.log_p,
        "focal_neg": -(1 - g) * p**stat.power * r.log_q,
        "ce_power": g * (-r.log_p) ** stat.power,
        "fp_power": (p * (1 - g)) ** stat.power,
        "fn_power": ((1 - p) * g) ** stat.power,
        "ce_neg_power": (1 - g) * (-r.log_q) ** stat.power,
    }
    return (values[stat.name] * r.valid).sum(axis=r.axes)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stat", ALL, ids=lambda s: s.name)
@pytest.mark.parametrize("function", [plain_statistics, soft_statistics])
def test_every_statistic_equals_numpy(function, stat, activation):  # type: ignore[no-untyped-def]
    logits, labels = batch(4, (3, 5, 4), dtype=torch.float64)
    valid = torch.rand(labels.shape) < 0.7
    found = function(logits, labels, (stat,), activation, valid)[..., 0]
    np.testing.assert_allclose(found.numpy(), numpy_sums(logits, labels, stat, activation, valid), rtol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("classes", "shape"), SIZES)
def test_fast_path_equals_plain_formula(classes, activation, shape, monkeypatch):  # type: ignore[no-untyped-def]
    """From one voxel to a full chunk and to three chunks, of which the last is partly filled."""
    logits, labels = batch(classes, shape)
    # Softmax over one class is the constant 1, whose complement has no logarithm.
    assert_same(logits, labels, ALL if classes in (2, 3) else (*OVERLAP, Stat("ce")), activation)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "none", torch.square])
@pytest.mark.parametrize("kind", ["onehot bool", "onehot float", "soft", "regions uint8", "half"])
def test_targets_of_every_kind(kind, activation):  # type: ignore[no-untyped-def]
    logits, labels = batch(3, (5, 6, 7))
    onehot = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
    target = {
        "onehot bool": onehot.bool(),
        "onehot float": onehot.float(),
        "soft": torch.softmax(torch.randn_like(logits), 1),
        "regions uint8": (torch.rand(logits.shape) < 0.4).to(torch.uint8),
        "half": onehot.half(),
    }[kind]
    which = (*OVERLAP, Stat("tp_l1"), Stat("se"))
    if activation in ("none", torch.square):
        logits = torch.rand(logits.shape) * 0.8 + 0.1
    assert_same(logits, target, which, activation)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_of_every_integer_type(dtype):  # type: ignore[no-untyped-def]
    logits, labels = batch(3, (4, 5, 6))
    expected = soft_statistics(logits, labels, OVERLAP)
    assert torch.equal(soft_statistics(logits, labels.to(dtype), OVERLAP), expected)


@pytest.mark.parametrize("outside", [255, -1, 3])
def test_a_label_outside_of_the_classes_gives_no_channel(outside):  # type: ignore[no-untyped-def]
    logits, labels = batch(3, (4, 5, 6))
    labels[:, 0] = outside
    assert_same(logits, labels, (*OVERLAP, Stat("ce"), Stat("g")))
    assert soft_statistics(logits, labels, (Stat("g"),)).sum() == (labels != outside).sum()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["bool", "weights"])
def test_masked_voxels_have_no_influence(kind, activation):  # type: ignore[no-untyped-def]
    logits, labels = batch(3, (6, 7, 8))
    weight = torch.rand(labels.shape) < 0.5
    if kind == "weights":
        weight = weight * torch.rand(labels.shape)
    assert_same(logits, labels, ALL, activation, weight)
    spoilt = torch.where(weight[:, None] > 0, logits, torch.nan)
    clean_sums, clean_gradient = forward_backward(soft_statistics, logits, labels, ALL, activation, weight)
    sums, gradient = forward_backward(soft_statistics, spoilt, labels, ALL, activation, weight)
    assert torch.equal(sums, clean_sums)
    assert torch.equal(gradient, clean_gradient)
    assert not gradient[(weight == 0)[:, None].expand_as(gradient)].any()


def test_masked_target_values_have_no_influence():  # type: ignore[no-untyped-def]
    logits, labels = batch(3, (6, 7, 8))
    weight = torch.rand(labels.shape) < 0.5
    target = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    expected = forward_backward(soft_statistics, logits, target, OVERLAP, "softmax", weight)
    target[~weight[:, None].expand_as(target)] = torch.nan
    found = forward_backward(soft_statistics, logits, target, OVERLAP, "softmax", weight)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dtypes(activation, dtype):  # type: ignore[no-untyped-def]
    """Sums are float32 or better: 70000 voxels of probability 1 overflow float16 and stall bfloat16."""
    logits, labels = batch(3, (6, 7, 8), dtype=dtype)
    assert_same(logits, labels, ALL, activation, rtol=2e-2 if dtype != torch.float64 else 1e-10, atol=1e-5)
    wide = logits if dtype == torch.float64 else logits.float()
    torch.testing.assert_close(
        soft_statistics(logits, labels, ALL, activation), plain_statistics(wide, labels, ALL, activation)
    )
    sure = torch.zeros(1, 2, 70_000, dtype=dtype)
    sure[:, 1] = 20
    assert soft_statistics(sure, torch.ones(1, 70_000, dtype=torch.long), OVERLAP)[0, 1, 0] == pytest.approx(70_000)


@pytest.mark.parametrize("classes", [3, 9])
@pytest.mark.parametrize("margin", [20.0, 200.0])
def test_sure_and_wrong(classes, margin):  # type: ignore[no-untyped-def]
    """So sure that every other probability underflows: log p and log(1 - p) and their slopes stay what they are."""
    logits, labels = batch(classes, (4, 5))
    winner = torch.where(torch.rand(labels.shape) < 0.5, labels, (labels + 1) % classes)
    sure = margin * torch.nn.functional.one_hot(winner, classes).movedim(-1, 1) + logits
    which = (*OVERLAP, Stat("ce"), Stat("ce_neg"), Stat("focal", 2.0))
    assert_same(sure, labels, which)
    found = soft_statistics(sure, labels, (Stat("ce_neg"),))[..., 0]
    wide = plain_statistics(sure.double(), labels, (Stat("ce_neg"),))[..., 0]
    torch.testing.assert_close(found.double(), wide, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [plain_statistics, soft_statistics])
@pytest.mark.parametrize("name", ["fn", "fp", "tn", "pq", "fn_power"])
def test_nearly_sure_and_right_keeps_its_digits(name, function):  # type: ignore[no-untyped-def]
    """1 - p is the sum of the others where p rounds to 1, with and without a compiler."""
    logits, labels = batch(3, (4, 5), dtype=torch.float64)
    sure = 20 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1) + logits
    found = function(sure.float(), labels, (Stat(name, 1.5),))
    torch.testing.assert_close(found.double(), plain_statistics(sure, labels, (Stat(name, 1.5),)), rtol=1e-4, atol=0)


def layouts() -> dict[str, Tensor]:
    base = 2 * torch.randn(2, 3, 6, 8, 10)
    return {
        "channels last": base.to(memory_format=torch.channels_last_3d),
        "transposed": base.transpose(2, 4),
        "sliced": base[:, :, ::2, 1:, :-1],
        "classes sliced": torch.randn(2, 6, 6, 8, 10)[:, ::2],
        "expanded batch": base[:1].expand(4, -1, -1, -1, -1),
    }


@pytest.mark.parametrize("name", layouts())
def test_memory_layouts(name):  # type: ignore[no-untyped-def]
    logits = layouts()[name]
    labels = torch.randint(0, 3, (logits.shape[0], *logits.shape[2:])).transpose(0, -1).contiguous().transpose(0, -1)
    expected = soft_statistics(logits.contiguous(), labels.contiguous(), (*OVERLAP, Stat("ce")))
    torch.testing.assert_close(soft_statistics(logits, labels, (*OVERLAP, Stat("ce"))), expected, rtol=1e-6, atol=1e-5)
    _, gradient = forward_backward(soft_statistics, logits.contiguous(), labels, OVERLAP)
    _, found = forward_backward(soft_statistics, logits, labels, OVERLAP)
    torch.testing.assert_close(found, gradient)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "stat", [s for s in ALL if s.name not in ("g", "g_sq") and not s.name.endswith("_l1")], ids=lambda s: s.name
)
def test_double_backward(stat, activation):  # type: ignore[no-untyped-def]
    logits, labels = batch(3, (3,), dtype=torch.float64)
    logits, labels, valid = logits[:1], labels[:1], torch.tensor([[True, False, True]])

    def sums(z: Tensor) -> Tensor:
        return soft_statistics(z, labels, (stat,), activation, valid)

    assert torch.autograd.gradcheck(sums, logits.requires_grad_())
    assert torch.autograd.gradgradcheck(sums, logits)


@pytest.mark.parametrize("target", ["labels", "soft"])
def test_sums_that_do_not_depend_on_the_logits_have_no_slope(target):  # type: ignore[no-untyped-def]
    logits, labels = batch(3, (4, 5))
    given = labels if target == "labels" else torch.rand_like(logits)
    sums = soft_statistics(logits.requires_grad_(), given, (Stat("g"), Stat("g_sq")))
    assert not torch.autograd.grad(sums.sum(), logits, create_graph=True)[0].any()
    sums = soft_statistics(logits, given, (Stat("g"), Stat("g_sq")))
    assert not torch.autograd.grad(sums.sum(), logits)[0].any()


def test_a_constant_input_needs_no_graph():  # type: ignore[no-untyped-def]
    logits, labels = batch(3, (4, 5))
    assert not soft_statistics(logits, labels, OVERLAP).requires_grad
    with torch.no_grad():
        assert not soft_statistics(logits.requires_grad_(), labels, OVERLAP).requires_grad
    with torch.inference_mode():
        soft_statistics(logits.detach(), labels, OVERLAP)


@pytest.mark.parametrize("classes", [3, 118])
def test_backward_again_through_the_same_graph(classes):  # type: ignore[no-untyped-def]
    """The probabilities of the forward pass become the gradient of the first backward pass, and only of that."""
    logits, labels = batch(classes, (6, 7, 8))
    logits.requires_grad_()
    sums = soft_statistics(logits, labels, (*OVERLAP, Stat("ce"), Stat("focal", 2.0)))
    weight = torch.randn_like(sums)
    first, second, third = (torch.autograd.grad(sums, logits, weight, retain_graph=True)[0] for _ in range(3))
    assert len({first.data_ptr(), second.data_ptr(), third.data_ptr(), logits.data_ptr()}) == 4
    torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-6)
    assert torch.equal(third, second)


@pytest.mark.parametrize("classes", [3, 118])
def test_only_the_inputs_are_kept_for_the_backward_pass(classes):  # type: ignore[no-untyped-def]
    """No one-hot: beyond logits and labels the graph holds a small fraction of them, and what becomes the gradient."""
    logits, labels = batch(classes, (16, 16, 16))
    logits.requires_grad_()
    mask = torch.rand(labels.shape) < 0.9
    known = {t.untyped_storage().data_ptr() for t in (logits, labels, mask)}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        soft_statistics(logits, labels, (*OVERLAP, Stat("ce")), "softmax", mask)
    extra = sum(size for pointer, size in kept.items() if pointer not in known)
    assert extra <= 0.05 * logits.untyped_storage().nbytes() + mask.untyped_storage().nbytes()


def test_logits_read_without_gradients_keep_theirs() -> None:
    logits, labels = batch(3, (4, 5))
    seg = SegBatch(logits.requires_grad_(), labels, torch.rand(labels.shape) < 0.5, "softmax")
    with torch.no_grad():
        assert not seg.prob.requires_grad
    assert seg.masked_logits.requires_grad
