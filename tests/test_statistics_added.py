"""A statistic that somebody adds is one line: every back end has it, forward and backward; what surrounds the kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import monai_segloss.kernels  # noqa: F401  (registers the fast backends)
from monai_segloss import create
from monai_segloss.core import counts
from monai_segloss.core.counts import FORMULAS, Stat, plain_statistics, soft_statistics
from monai_segloss.core.expression import VOXEL, slopes
from monai_segloss.kernels import emit, native, statistics_cpu
from monai_segloss.kernels.statistics_cpu import Chunks, Native

ROOT = Path(__file__).resolve().parent.parent
CUBE = (Stat("p_cube"),)
POWERED = ("focal", "focal_neg", "ae", "ce_power", "ce_neg_power", "fp_power", "fn_power")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMULAS, "p_cube", lambda v, a: v.p**3)


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compiler", lambda: None)
    native.load.cache_clear()
    statistics_cpu._way.cache_clear()
    yield  # type: ignore[misc]
    native.load.cache_clear()
    statistics_cpu._way.cache_clear()


def assert_cube(activation: str, kind: str) -> None:
    logits = torch.randn(2, 3, 50, requires_grad=True)
    target = torch.randint(0, 3, (2, 50)) if kind == "labels" else torch.rand(2, 3, 50)
    factors = torch.tensor([[1.0, -2.0, 3.0], [0.5, 1.0, 2.0]])[..., None]
    p = torch.softmax(logits, 1) if activation == "softmax" else torch.sigmoid(logits)
    expected = p.pow(3).sum(2, keepdim=True)
    (slope,) = torch.autograd.grad((expected * factors).sum(), logits)
    found = soft_statistics(logits, target, CUBE, activation)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad((found * factors).sum(), logits)[0], slope)


@pytest.mark.usefixtures("added", "compiler")
@pytest.mark.parametrize("kind", ["labels", "channels"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_added_statistic_in_cpp(activation: str, kind: str) -> None:
    assert_cube(activation, kind)


@pytest.mark.usefixtures("added", "without_compiler")
@pytest.mark.parametrize("kind", ["labels", "channels"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_added_statistic_without_a_compiler(activation: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_cpu, "CHUNK", {"cpu": 100})
    assert_cube(activation, kind)


def test_a_mistake_in_the_table_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMULAS, "wrong", lambda v, a: v.probability)
    with pytest.raises(AttributeError, match="probability"):
        soft_statistics(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long), (Stat("wrong"),))
    with pytest.raises(KeyError, match="nothing"):
        soft_statistics(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long), (Stat("nothing"),))


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("name", list(FORMULAS))
def test_derived_slopes_are_those_of_autograd(name: str, power: float) -> None:
    """Through p, 1 - p and log p, and apart from them through log(1 - p); at g = 0 and 1 the short forms give the same."""
    formula = FORMULAS[name]
    power = power if name in POWERED else 0.0
    found = formula(VOXEL, power)
    names = VOXEL._fields

    def number(x, v: dict[str, Tensor]):  # type: ignore[no-untyped-def]
        lines = emit.Lines(repr, "{} = {}")
        result = lines.name(x)
        scope = {**v, **FUNCTIONS}
        exec("\n".join([*lines.lines, f"result = {result}"]), scope)
        return scope["result"] + torch.zeros((), dtype=torch.float64)

    for g in (0.0, 0.32, 1.0):
        p = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
        leaves = [x.clone().requires_grad_() for x in (p, 1 - p, p.log(), (1 - p).log())]
        v = dict(zip(names, (*leaves, torch.full_like(p, g)), strict=True))
        value = formula(type("V", (), v), power)
        assert torch.allclose(number(found, v).expand_as(p), value + 0 * p)
        assert torch.allclose(number(found.at(g=g), v).expand_as(p), value + 0 * p)
        grads = [torch.zeros_like(p)] * 4
        if value.requires_grad:
            given = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
            grads = [torch.zeros_like(p) if x is None else x for x in given]
        by_p, by_q, by_lp, by_lq = grads
        for derived in (slopes(found), [x.at(g=g) for x in slopes(found)]):
            rise, pull = (number(x, v).expand_as(p) for x in derived)
            assert torch.allclose(rise, p * (by_p - by_q) + by_lp)
            assert torch.allclose(pull, by_lq)


FUNCTIONS = {
    "raised": torch.pow,
    "absolute": torch.abs,
    "sign": torch.sign,
    "smaller": lambda x, y: torch.minimum(*torch.broadcast_tensors(torch.as_tensor(x), torch.as_tensor(y))),
    "larger": lambda x, y: x.clamp_min(y),
    "above": lambda x, y: (x > y).double(),
    "step": lambda x, y: torch.heaviside(torch.as_tensor(x - y), torch.tensor(0.5, dtype=torch.float64)),
    "log1p_": torch.log1p,
}


def test_label_targets_leave_no_term_that_vanishes() -> None:
    for name, which in (("ce", "values"), ("tp", "slopes"), ("focal", "values"), ("fn", "values")):
        assert getattr(emit.part(emit.expressions([Stat(name, 2.0)]), g=0), which) == []
    assert emit.part(emit.expressions([Stat("se")]), g=1).values == [VOXEL.q**2]


def test_without_a_compiler_the_values_are_the_same(without_compiler: None) -> None:
    logits, labels = torch.randn(2, 3, 8, 8, 8), torch.randint(0, 3, (2, 1, 8, 8, 8))
    loss = create("dice_ce", softmax=True, to_onehot_y=True)
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, labels)
    (slope,) = torch.autograd.grad(value, leaf)
    wide = logits.double().requires_grad_()
    expected = loss(wide, labels)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(slope.double(), torch.autograd.grad(expected, wide)[0], rtol=1e-4, atol=1e-9)


FAILS = """
import sys, warnings, torch
from monai_segloss import create
loss = create("dice_ce", softmax=True, to_onehot_y=True)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for key in ("dice_ce", "focal", "dice_ce"):
        loss = create(key, softmax=True, to_onehot_y=True)
        assert loss(torch.randn(1, 2, 4), torch.ones(1, 1, 4)).isfinite()
print(sum("C++" in str(w.message) for w in seen))
"""


@pytest.mark.parametrize(("compiler", "warned"), [("none", 0), ("false", 1), ("no-such-compiler", 0)])
def test_a_compiler_that_fails_is_told_once(compiler: str, warned: int, tmp_path: Path) -> None:
    environment = {"SEGLOSS_COMPILER": compiler, "SEGLOSS_CACHE": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", FAILS], env=environment, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(warned)]


@pytest.mark.usefixtures("compiler")
def test_kernels_are_kept_where_only_the_user_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.CACHE, str(tmp_path / "kernels"))
    library = native.build('extern "C" int seven() { return 7; }')
    assert library.parent == tmp_path / "kernels"
    assert library.parent.stat().st_mode & 0o777 == 0o700
    assert native.build('extern "C" int seven() { return 7; }') == library
    assert sorted(library.parent.iterdir()) == [library]
    library.parent.chmod(0o777)
    assert native.folder() != library.parent


def test_torch_func_and_vmap() -> None:
    logits, labels = torch.randn(2, 3, 20, dtype=torch.float64), torch.randint(0, 3, (2, 20))
    which = (Stat("tp"), Stat("ce"), Stat("focal", 2.0))

    def value(function):  # type: ignore[no-untyped-def]
        return lambda z, y=labels: function(z, y, which).square().sum()

    for transform in (torch.func.grad, lambda f: torch.func.grad(lambda z: torch.func.grad(f)(z).square().sum())):
        torch.testing.assert_close(
            transform(value(soft_statistics))(logits), transform(value(plain_statistics))(logits)
        )
    many, each = torch.randn(4, 2, 3, 20, dtype=torch.float64), torch.randint(0, 3, (4, 2, 20))
    found = torch.func.vmap(lambda z, y: soft_statistics(z, y, which))(many, each)
    expected = torch.stack([plain_statistics(z, y, which) for z, y in zip(many, each, strict=True)])
    torch.testing.assert_close(found, expected)
    shared = torch.func.vmap(lambda z: soft_statistics(z, labels, which))(many)
    torch.testing.assert_close(shared, torch.stack([plain_statistics(z, labels, which) for z in many]))


def test_labels_made_in_inference_mode() -> None:
    with torch.inference_mode():
        labels, mask = torch.randint(0, 3, (2, 20)), torch.rand(2, 20) < 0.5
    logits = torch.randn(2, 3, 20, requires_grad=True)
    soft_statistics(logits, labels, (Stat("tp"),), "softmax", mask).sum().backward()
    assert logits.grad is not None


@pytest.mark.parametrize("learned", ["target", "weight"])
def test_a_target_or_weight_that_learns_takes_the_definition(learned: str) -> None:
    logits, target, weight = torch.randn(2, 3, 20), torch.rand(2, 3, 20), torch.rand(2, 20)
    leaf = (target if learned == "target" else weight).requires_grad_()
    which = (Stat("tp"), Stat("ce"))
    (found,) = torch.autograd.grad(soft_statistics(logits, target, which, "softmax", weight).sum(), leaf)
    (expected,) = torch.autograd.grad(plain_statistics(logits, target, which, "softmax", weight).sum(), leaf)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        assert not soft_statistics(logits, target, which, "softmax", weight).requires_grad


@pytest.mark.usefixtures("compiler")
def test_the_kernels_are_used() -> None:
    form = statistics_cpu.Form((Stat("tp"),), "softmax")
    formulas = (FORMULAS["tp"],)
    assert isinstance(statistics_cpu._way(form, formulas, True, torch.float32, False, "cpu"), Native)
    assert type(statistics_cpu._way(form, formulas, True, torch.float32, False, "mps")) is Chunks


def test_a_map_computes_the_probabilities_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = counts.log_activate
    monkeypatch.setattr(counts, "log_activate", lambda *args: calls.append(args) or original(*args))
    loss = create("cross_entropy", softmax=True, label_smoothing=0.1, reduction="none")
    target = torch.rand(2, 3, 5).softmax(1)
    loss(torch.randn(2, 3, 5), target)
    assert len(calls) == 1
