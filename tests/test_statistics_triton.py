"""The CUDA kernels of the statistics: in Triton's interpreter they equal the plain formula in float64, which equals NumPy.

Triton decides on its import whether it interprets, so the functions called ``interpreted_...`` run in a pytest of their own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from monai_segloss import create
from monai_segloss.core import counts
from monai_segloss.core.counts import FORMULAS, Stat, plain_statistics, soft_statistics
from monai_segloss.kernels import statistics_cuda, trial
from monai_segloss.kernels.statistics_cuda import fits, fused_statistics

ROOT = Path(__file__).resolve().parent.parent
DEVICE = os.environ.get("SEGLOSS_TEST_STATISTICS_ON", "cpu")
POWERED = ("focal", "focal_neg", "ae", "ce_power", "ce_neg_power", "fp_power", "fn_power")
OVERLAP = (Stat("tp"), Stat("fp"), Stat("fn"))
COMMON = (*OVERLAP, Stat("ce"))
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def every(power: float = 1.5) -> tuple[Stat, ...]:
    """All statistics that the kernels have."""
    return tuple(Stat(name, power if name in POWERED else 0.0) for name in FORMULAS)


def case(classes: int, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    logits = (2 * torch.randn(2, classes, *shape)).to(dtype)
    return logits.to(DEVICE), torch.randint(0, classes, (2, *shape)).to(DEVICE)


def forward_backward(function, logits: Tensor, *args) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """The sums and the gradient of a fixed random combination of them."""
    leaf = logits.detach().requires_grad_()  # a copy would lose the strides
    sums = function(leaf, *args)
    factors = torch.randn(sums.shape, generator=torch.Generator().manual_seed(1)).to(sums)
    return sums.detach(), torch.autograd.grad((sums * factors).sum(), leaf)[0]


def assert_equals_formula(logits: Tensor, *args, rtol: float = 1e-5) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """Sums within ``rtol`` of the largest of their kind, the gradient within what its type can hold."""
    assert fits(logits, *args), "the plain formula would be compared with itself"
    sums, gradient = forward_backward(fused_statistics, logits, *args)
    expected, slope = forward_backward(plain_statistics, logits.double(), *args)
    assert (sums.dtype, gradient.dtype, gradient.shape) == (torch.float32, logits.dtype, logits.shape)
    error = ((sums - expected).abs() / (expected.abs().amax((0, 1)) + 1)).amax((0, 1))
    assert (error < rtol).all(), dict(zip(args[1], error.tolist(), strict=True))
    digits = rtol + 2 * torch.finfo(logits.dtype).eps
    torch.testing.assert_close(gradient.double(), slope, rtol=digits, atol=rtol * (slope.abs().max().item() + 1))
    return sums, gradient


@pytest.fixture
def small_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs per sample with several tiles each, also where there is little to do."""
    from monai_segloss.kernels import statistics_triton

    monkeypatch.setattr(statistics_triton, "SHARE", 0)
    monkeypatch.setattr(statistics_triton, "PROGRAMS", 6)


# -- in the interpreter --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["labels", "soft"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def interpreted_an_added_statistic(activation: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMULAS, "p_cube", lambda v, a: v.p**3)
    logits, labels = case(3, 40)
    target = labels if kind == "labels" else torch.rand_like(logits)
    assert_equals_formula(logits, target, (Stat("p_cube"), Stat("tp")), activation)


@pytest.mark.usefixtures("small_launches")
@pytest.mark.parametrize("kind", ["labels", "soft", "regions", "regions uint8"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def interpreted_every_statistic(activation: str, kind: str) -> None:
    logits, labels = case(4, 5, 9, 8)
    target = {
        "labels": labels,
        "soft": torch.softmax(2 * torch.randn_like(logits), 1),
        "regions": torch.rand_like(logits) < 0.4,
        "regions uint8": (torch.rand_like(logits) < 0.4).to(torch.uint8),
    }[kind]
    weight = (torch.rand(labels.shape) < 0.7).to(DEVICE) * torch.rand(labels.shape).to(DEVICE)
    assert_equals_formula(logits, target, every(), activation, weight)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 3.0, 4.5])
def interpreted_powers(power: float, activation: str) -> None:
    logits, labels = case(3, 40)
    which = tuple(Stat(name, power) for name in POWERED if name != "ae" or power >= 1)
    assert_equals_formula(logits, labels, which, activation)


@pytest.mark.usefixtures("small_launches")
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("classes", "shape"),
    [
        (1, (1, 1, 1)),
        (1, (17, 31)),
        (2, (1,)),
        (3, (5, 7, 31)),
        (5, (129,)),
        (16, (3, 50)),
        (33, (65,)),
        (118, (3, 17)),
    ],
)
def interpreted_sizes(classes: int, shape: tuple[int, ...], activation: str) -> None:
    logits, labels = case(classes, *shape)
    assert_equals_formula(logits, labels, (*COMMON, Stat("focal", 2.0)), activation)
    if activation == "sigmoid" or classes > 1:
        assert_equals_formula(logits, labels, (*OVERLAP, Stat("ce_neg"), Stat("g")), activation, labels > 0)


def interpreted_three_hundred_classes() -> None:
    logits, labels = case(300, 5, 7)
    assert_equals_formula(logits, labels, (*COMMON, Stat("ce_neg")), "softmax")
    assert_equals_formula(logits, labels.to(torch.uint8), COMMON, "softmax")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def interpreted_half_precision(activation: str, dtype: torch.dtype) -> None:
    logits, labels = case(3, 6, 7, 8, dtype=dtype)
    assert_equals_formula(logits, labels, every(2.0), activation)
    sure = torch.zeros(1, 2, 700, dtype=dtype, device=DEVICE)  # a sum that overflows float16 and stalls bfloat16
    sure[:, 1] = 20
    ones = torch.ones(1, 700, dtype=torch.uint8, device=DEVICE)
    assert fused_statistics(sure, ones, OVERLAP, activation, 100 * ones)[0, 1, 0].item() == pytest.approx(70_000)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.float16, torch.float32, torch.float64]
)
def interpreted_labels_of_every_type(dtype: torch.dtype) -> None:
    logits, labels = case(3, 4, 5, 6)
    expected = fused_statistics(logits, labels, COMMON, "softmax")
    assert torch.equal(fused_statistics(logits, labels.to(dtype), COMMON, "softmax"), expected)


def interpreted_labels_of_two_classes_as_bool() -> None:
    logits, labels = case(2, 4, 5, 6)
    assert_equals_formula(logits, labels > 0, COMMON, "softmax")


@pytest.mark.parametrize("outside", [255, -1, 2**32 + 1, 1.5, float("nan")])
def interpreted_a_label_outside_of_the_classes_gives_no_channel(outside: float) -> None:
    logits, labels = case(3, 4, 5, 6)
    labels = labels.to(torch.float64 if isinstance(outside, float) else torch.int64)
    labels[:, 0] = outside
    sums, _ = assert_equals_formula(logits, labels, (*COMMON, Stat("g")), "softmax")
    assert sums[..., -1].sum() == 2 * 3 * 5 * 6


@pytest.mark.parametrize(
    ("activation", "kind"),
    [*((a, k) for a in ("softmax", "sigmoid") for k in ("bool", "float32")), ("softmax", "float16"), ("sigmoid", "uint8"),
     ("softmax", "nothing")],
)  # fmt: skip
def interpreted_masked_voxels_have_no_influence(kind: str, activation: str) -> None:
    logits, labels = case(3, 5, 6, 8)
    weight = torch.rand(labels.shape, device=DEVICE) < (0.5 if kind != "nothing" else 0.0)
    if kind.startswith("float"):
        weight = (weight * torch.rand(labels.shape, device=DEVICE)).to(getattr(torch, kind))
    elif kind == "uint8":
        weight = weight.to(torch.uint8)
    clean = assert_equals_formula(logits, labels, every(2.0), activation, weight)
    spoilt = torch.where(weight[:, None] > 0, logits, torch.nan)
    found = forward_backward(fused_statistics, spoilt, labels, every(2.0), activation, weight)
    assert all(torch.equal(a, b) for a, b in zip(found, clean, strict=True))
    assert not found[1][(weight == 0)[:, None].expand_as(logits)].any()
    target = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    expected = fused_statistics(logits, target, COMMON, activation, weight)
    spoilt = torch.where(weight[:, None] > 0, target, torch.nan)
    assert torch.equal(fused_statistics(logits, spoilt, COMMON, activation, weight), expected)


@pytest.mark.parametrize("classes", [3, 9])
@pytest.mark.parametrize("margin", [20.0, 200.0])
def interpreted_sure_and_wrong(classes: int, margin: float) -> None:
    """So sure that every other probability underflows: log p and log(1 - p) and their slopes stay what they are."""
    logits, labels = case(classes, 4, 5)
    winner = torch.where(torch.rand(labels.shape, device=DEVICE) < 0.5, labels, (labels + 1) % classes)
    sure = margin * torch.nn.functional.one_hot(winner, classes).movedim(-1, 1) + logits
    which = (*COMMON, Stat("ce_neg"), Stat("focal", 2.0), Stat("focal", 0.5), Stat("focal_neg", 2.0))
    sums, _ = assert_equals_formula(sure, labels, which, "softmax")
    right = margin * torch.nn.functional.one_hot(labels, classes).movedim(-1, 1) + logits
    sums = fused_statistics(right, labels, OVERLAP, "softmax")
    wide = plain_statistics(right.double(), labels, OVERLAP, "softmax")
    tiny = torch.finfo(torch.float32).tiny
    torch.testing.assert_close(sums[..., 1:].double(), wide[..., 1:], rtol=1e-3 if margin < 50 else 1, atol=1e6 * tiny)


@pytest.mark.parametrize("margin", [12.0, 16.0, 20.0])
def interpreted_exponents_below_one_where_all_is_right(margin: float) -> None:
    """The power magnifies an error of log p, and below a floor there is no slope."""
    logits, labels = case(3, 60)
    right = margin * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1) + logits / 4
    for name in ("focal", "ce_power"):
        which = (Stat(name, 0.5),)
        _, gradient = forward_backward(fused_statistics, right, labels, which, "softmax")
        _, slope = forward_backward(plain_statistics, right.double(), labels, which, "softmax")
        torch.testing.assert_close(gradient.double(), slope, rtol=1e-3, atol=1e-3 * slope.abs().max().item() + 1e-8)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def interpreted_a_target_that_is_met_exactly(activation: str) -> None:
    logits = torch.zeros(1, 4, 6, device=DEVICE)
    target = torch.full_like(logits, 0.25 if activation == "softmax" else 0.5)
    target[:, 2:, ::2] = 0.1
    which = (Stat("tp_l1"), Stat("ae", 1.0), Stat("ae_tp"), Stat("ae_err"))
    _, gradient = forward_backward(fused_statistics, logits, target, which, activation)
    _, slope = forward_backward(plain_statistics, logits, target, which, activation)
    torch.testing.assert_close(gradient, slope)
    met = torch.full_like(logits, target[0, 0, 0].item())
    _, gradient = forward_backward(fused_statistics, logits, met, (Stat("fp_l1"), Stat("fn_l1")), activation)
    assert not gradient.any()  # torch's clamp has another slope there in some versions


@pytest.mark.parametrize("name", ["channels last", "transposed", "sliced", "classes sliced", "expanded batch", "2-D"])
@pytest.mark.usefixtures("small_launches")
def interpreted_memory_layouts(name: str) -> None:
    base = case(5, 6, 8, 10)[0]
    logits = {
        "channels last": base.to(memory_format=torch.channels_last_3d),
        "transposed": base.transpose(2, 4),
        "sliced": base[:, :, ::2, 1:, :-1],
        "classes sliced": torch.cat([base, base], 1)[:, ::2],
        "expanded batch": base[:1].expand(4, -1, -1, -1, -1),
        "2-D": base[:, :, 0].to(memory_format=torch.channels_last),
    }[name]
    labels = torch.randint(0, 5, (logits.shape[0], *logits.shape[2:])).to(DEVICE)
    turned = labels.transpose(0, -1).contiguous().transpose(0, -1)
    soft = torch.softmax(torch.randn(logits.shape, device=DEVICE), 1).transpose(1, 2).contiguous().transpose(1, 2)
    for target in (turned, soft):
        _, gradient = assert_equals_formula(logits, target, (*COMMON, Stat("nlp")), "softmax")
        if name in ("channels last", "2-D"):
            assert gradient.stride() == logits.stride()


def interpreted_an_absent_class() -> None:
    logits, labels = case(4, 40)
    sums, _ = assert_equals_formula(logits, labels.clamp_max(1), every(2.0), "softmax")
    sums, _ = assert_equals_formula(logits, torch.zeros_like(labels), every(2.0), "softmax")
    assert not sums[:, 1:, 0].any()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def interpreted_a_wrong_number_is_not_hidden(activation: str) -> None:
    logits, labels = case(3, 40)
    logits[0, :, 3] = torch.nan
    labels[0, 3] = 1
    sums = fused_statistics(logits, labels, tuple(s for s in every() if s.name not in ("g", "g_sq")), activation)
    assert sums[0].isnan().any(0).all()
    assert not sums[1].isnan().any()


def interpreted_a_class_without_probability() -> None:
    """Logits of minus infinity, as of classes that a network leaves out."""
    logits, labels = case(4, 40)
    logits[:, 3] = -torch.inf
    which = tuple(s for s in every(2.0) if s.name != "nlp")
    sums, gradient = forward_backward(fused_statistics, logits, labels.clamp_max(2), which, "softmax")
    expected, slope = forward_backward(fused_statistics, logits[:, :3], labels.clamp_max(2), which, "softmax")
    torch.testing.assert_close(sums[:, :3], expected)
    assert gradient.isfinite().all()
    assert slope.isfinite().all()


def interpreted_same_bits_whatever_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_segloss.kernels import statistics_triton

    logits, labels = case(3, 1000)
    first = forward_backward(fused_statistics, logits, labels, COMMON, "softmax")
    again = forward_backward(fused_statistics, logits, labels, COMMON, "softmax")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    monkeypatch.setattr(statistics_triton, "PROGRAMS", 1)
    sums, gradient = forward_backward(fused_statistics, logits, labels, COMMON, "softmax")
    torch.testing.assert_close(sums, first[0], rtol=1e-6, atol=0)
    assert torch.equal(gradient, first[1])


def interpreted_partial_sums_are_a_small_part(monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_segloss.kernels import statistics_triton

    for classes, edge in ((3, 128), (118, 64), (118, 128), (300, 64)):
        logits = torch.empty(2, classes, edge**3, dtype=torch.float16, device="meta")
        labels = torch.empty(2, edge**3, dtype=torch.uint8, device="meta")
        run = statistics_triton.plan_launch(logits, labels, None, COMMON, "softmax")
        assert run.parts > 1
        assert 2 * run.parts * classes * len(COMMON) * 4 < 0.02 * logits.numel() * logits.element_size()


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernels as the backend of the tensors at hand, as if they were on CUDA."""
    monkeypatch.setitem(counts.BACKENDS, DEVICE, fused_statistics)
    monkeypatch.setattr(counts, "OPERATORS", {DEVICE})
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def interpreted_a_compiled_graph_holds_the_operator(layout: torch.memory_format) -> None:
    from functorch.compile import aot_module_simplified, make_boxed_func

    logits, labels = case(3, 4, 5, 6)
    logits = logits.contiguous(memory_format=layout).requires_grad_()
    names: list[str] = []

    def compiler(graph, inputs):  # type: ignore[no-untyped-def]
        names.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    def backend(graph, inputs):  # type: ignore[no-untyped-def]
        return aot_module_simplified(graph, inputs, fw_compiler=compiler, bw_compiler=compiler)

    def value(z: Tensor) -> Tensor:
        return soft_statistics(z, labels, COMMON, "softmax", labels < 2).square().sum()

    found = torch.compile(value, fullgraph=True, backend=backend)(logits)
    (gradient,) = torch.autograd.grad(found, logits)
    assert {"segloss.statistics.default", "segloss.statistics_gradient.default"} <= set(names)
    assert not any("softmax" in name for name in names)
    torch.testing.assert_close(found, value(logits))
    torch.testing.assert_close(gradient, torch.autograd.grad(value(logits), logits)[0])


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def interpreted_second_derivative(activation: str) -> None:
    logits, labels = case(3, 4, 5)
    logits.requires_grad_()
    direction = torch.randn_like(logits)

    def second(function, z: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        value = function(z, labels, COMMON, activation, labels < 2).square().sum()
        (slope,) = torch.autograd.grad(value, z, create_graph=True)
        return torch.autograd.grad((slope * direction).sum(), z)[0]

    torch.testing.assert_close(second(soft_statistics, logits), second(plain_statistics, logits), rtol=1e-4, atol=1e-4)
    sums = soft_statistics(logits, labels, (Stat("g"),), activation)
    assert not torch.autograd.grad(sums.sum(), logits, create_graph=True)[0].any()


def interpreted_the_operators_keep_their_word() -> None:
    logits, labels = case(3, 4, 5)
    rest = (labels.flatten(1), (labels < 2).flatten(1), ["tp", "ce"], [0.0, 0.0], "softmax")
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    flat = logits.flatten(2)
    torch.library.opcheck(torch.ops.segloss.statistics, (flat.requires_grad_(), *rest), test_utils=tests)
    gradient = (torch.randn(2, 3, 2, device=DEVICE), flat.detach(), *rest)
    torch.library.opcheck(torch.ops.segloss.statistics_gradient, gradient, test_utils=tests)


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("key", ["dice_ce", "focal", "poly1_cross_entropy", "mcc"])
@pytest.mark.parametrize("reading", ["softmax", "sigmoid"])
def interpreted_losses(key: str, reading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = case(3, 5, 6, 8)
    loss = create(key, **{reading: True}, to_onehot_y=True, ignore_index=2)
    leaf = logits.requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf, labels[:, None]), leaf)
    monkeypatch.delitem(counts.BACKENDS, DEVICE)
    value = loss(leaf, labels[:, None])
    torch.testing.assert_close(slope, torch.autograd.grad(value, leaf)[0], rtol=1e-4, atol=1e-7)


# -- in the ordinary run -------------------------------------------------------------------------------------------


def interpreted(functions: str = "interpreted_*", **environment: str) -> None:
    """Run the functions above."""
    names = ("-o", f"python_functions={functions}", "-W", "ignore::RuntimeWarning", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", "-q", "-x", *names, __file__]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


SOME = (
    "interpreted_every_statistic interpreted_masked* interpreted_memory* interpreted_the_operators* interpreted_second*"
)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    "functions", [SOME, pytest.param("interpreted_*", marks=pytest.mark.nightly)], ids=["some", "all"]
)
def test_the_kernels_in_the_interpreter(functions: str) -> None:
    interpreted(functions, TRITON_INTERPRET="1", SEGLOSS_TEST_STATISTICS_ON="cpu")


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_kernels_on_a_gpu() -> None:
    interpreted(TRITON_INTERPRET="0", SEGLOSS_TEST_STATISTICS_ON="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_without_waiting_for_it() -> None:
    loss = create("dice_ce", softmax=True, to_onehot_y=True)
    logits = torch.randn(2, 3, 16, 16, 16, device="cuda", dtype=torch.float16, requires_grad=True)
    labels = torch.randint(0, 3, (2, 1, 16, 16, 16), device="cuda")
    loss(logits, labels).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(logits, labels).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


COMPILED = """
import torch
import triton
from triton.backends.compiler import GPUTarget


class NoGPU:  # what Triton asks before it compiles
    def get_current_device(self): return 0
    def get_current_stream(self, device=None): return 0
    def get_current_target(self): return GPUTarget("cuda", ARCH, 32)
    def get_active_torch_device(self): return torch.device("cpu")


triton.runtime.driver.set_active(NoGPU())
from monai_segloss.core.counts import Stat
from monai_segloss.kernels.statistics_triton import _gradient, _sums, plan_launch


def both(which, classes, dtype, target, last=False, masked=False, activation="softmax"):
    voxels = 4096
    z = torch.empty(2, voxels, classes, dtype=dtype).mT if last else torch.empty(2, classes, voxels, dtype=dtype)
    y = torch.empty_like(z, dtype=target) if activation == "sigmoid" else torch.empty(2, voxels, dtype=target)
    w = torch.empty(2, voxels, dtype=torch.bool) if masked else None
    run = plan_launch(z, y, w, tuple(Stat(name, 2.0 if name == "focal" else 0.0) for name in which), activation)
    end = (voxels, run.parts)
    rest = {"P": run.plan, **run.options, "grid": (1,)}
    grad = torch.empty(2, classes, len(which))
    assert _sums.warmup(*run.inputs, grad, *end, **rest).asm["cubin"]
    assert _gradient.warmup(*run.inputs, grad, z, z.stride(), *end, **rest).asm["cubin"]


area = ("tp", "fp", "fn")
for ARCH in (80, 90):
    both((*area, "ce"), 3, torch.float16, torch.int64)
both((*area, "ce"), 118, torch.bfloat16, torch.uint8, last=True, masked=True)
both((*area, "ce_neg", "focal"), 300, torch.float32, torch.int16)
both((*area, "ce", "ce_neg"), 4, torch.float16, torch.bool, activation="sigmoid")
both((*area, "ce", "ce_neg"), 3, torch.float32, torch.float32, activation="sigmoid", masked=True)
"""


@needs_triton
@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    """By the way that a launch takes, up to the driver."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPILED], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


WITHOUT = """
import sys
sys.modules["triton"] = None
import monai_segloss, monai_segloss.kernels, torch
from monai_segloss.core.counts import BACKENDS, OPERATORS
assert set(BACKENDS) == {"cpu"} and not OPERATORS
loss = monai_segloss.create("dice_ce", softmax=True, to_onehot_y=True)
assert loss(torch.randn(1, 2, 4), torch.ones(1, 1, 4)).isfinite()
"""


def test_without_triton_all_but_the_kernels_work() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_the_package_does_not_import_triton() -> None:
    program = "import sys, torch; print('triton' in sys.modules); import monai_segloss; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    before, after = done.stdout.split()
    assert before == after


@pytest.mark.parametrize(
    "what",
    ["float64", "probabilities", "callable", "classes", "elements", "constant", "target", "weight"],
)
def test_all_else_takes_the_plain_formula(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = torch.rand(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    which, activation, weight, target = COMMON, "softmax", torch.rand(2, 4, 5), labels
    assert fits(logits, target, which, activation, weight)
    if what == "float64":
        logits = logits.double()
    elif what in ("probabilities", "callable"):
        activation = "none" if what == "probabilities" else torch.square
    elif what == "classes":
        monkeypatch.setattr(statistics_cuda, "MOST_CLASSES", 2)
    elif what == "elements":
        monkeypatch.setattr(statistics_cuda, "MOST_ELEMENTS", 60)
    elif what == "constant":
        logits, target, which = logits[:, :1], torch.zeros_like(labels), (Stat("ce_neg"),)
    elif what == "target":
        target = torch.rand(logits.shape).requires_grad_()
    else:
        weight.requires_grad_()
    expected = plain_statistics(logits, target, which, activation, weight)
    monkeypatch.setattr(torch.ops.segloss, "statistics", lambda *_: pytest.fail("a kernel was asked"))
    found = fused_statistics(logits, target, which, activation, weight)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found.requires_grad == expected.requires_grad


def test_chosen_for_cuda_tensors() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    assert counts.BACKENDS["cuda"] is fused_statistics
    assert "cuda" in counts.OPERATORS
    assert "cpu" not in counts.OPERATORS


# -- the first call of each kind ---------------------------------------------------------------------------------------


def _broken(*args: object) -> Tensor:
    raise RuntimeError("Failed to find C compiler.")


def _sums(logits: Tensor, target: Tensor, weight: Tensor | None, which: tuple[Stat, ...], activation: str) -> Tensor:
    return plain_statistics(logits, target, which, activation, weight)


def _gradient(factors: Tensor, logits: Tensor, *rest: object) -> Tensor:
    """In a thread of its own: inside of an operator nothing records gradients."""

    def work() -> Tensor:
        leaf = logits.detach().requires_grad_()
        return torch.autograd.grad(_sums(leaf, *rest), leaf, factors)[0]  # type: ignore[arg-type]

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kernels that are right, and of how many voxels each call was."""
    found: list[int] = []
    monkeypatch.setattr(statistics_cuda, "triton_sums", lambda *args: found.append(args[0].shape[2]) or _sums(*args))
    monkeypatch.setattr(statistics_cuda, "triton_gradient", _gradient)
    monkeypatch.setattr(trial, "ON", {"cpu"})
    monkeypatch.setattr(trial, "_VERIFIED", {})
    return found


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("direction", ["triton_sums", "triton_gradient"])
@pytest.mark.parametrize(("kernel", "reason"), [(_broken, "Failed to find C compiler"), (None, "differs .* by up to")])
def test_a_kernel_that_fails_gives_way_to_the_formula(
    direction: str, kernel: object, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning, and the values of the definition from then on; also of a kernel that is wrong without an error."""
    right = getattr(statistics_cuda, direction)
    monkeypatch.setattr(statistics_cuda, direction, kernel or (lambda *args: 1.2 * right(*args)))
    logits, labels = torch.randn(2, 3, 12, 100), torch.randint(0, 3, (2, 12, 100))
    expected = forward_backward(plain_statistics, logits, labels, COMMON, "softmax")
    with pytest.warns(RuntimeWarning, match=f"fused kernel does not run on this machine: .*{reason}"):
        found = forward_backward(fused_statistics, logits, labels, COMMON, "softmax")
    again = forward_backward(fused_statistics, logits, labels, COMMON, "softmax")
    for got in (found, again):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_kernel_that_is_right_is_tried_once(calls: list[int]) -> None:
    for shape in ((12, 100), (12, 100), (13, 100)):
        fused_statistics(torch.randn(2, 3, *shape), torch.randint(0, 3, (2, *shape)), COMMON, "softmax")
    assert calls == [trial.VOXELS, 1200, 1200, 1300]
    forward_backward(fused_statistics, torch.randn(2, 3, 12, 100), torch.randint(0, 3, (2, 12, 100)), COMMON, "softmax")
    assert calls[4:] == [trial.VOXELS, 1200], "with the gradient it is another kind"
