"""A loss as a torch module: it can be copied, pickled, compiled, and a call leaves nothing behind."""

from __future__ import annotations

import copy
import doctest
import inspect
import pickle
import sys

import torch

from monai_segloss.core.registry import LOSSES, LossInfo
from monai_segloss.testing.cases import Case
from monai_segloss.testing.contract import on
from monai_segloss.testing.harness import Violation, assert_close, gradient, make, require, value


@on("ignored_2d", "regions")
def compiles(info: LossInfo, case: Case, backend: str = "eager") -> None:
    """`torch.compile(fullgraph=True)`: no graph break, same value and gradient."""
    loss = make(info, case)
    input = case.input.float()
    expected, slope = gradient(loss, case, input)
    torch.compiler.reset()
    try:
        found, other = gradient(torch.compile(loss, fullgraph=True, backend=backend), case, input)
    except RuntimeError as error:
        raise Violation(str(error)) from error
    assert_close(found, expected, "compiled", rtol=1e-5)
    assert_close(other, slope, "gradient, compiled", rtol=1e-3, atol=1e-7)


@on("labels_3d", "labels_2d", "one_class", "regions")
def copies(info: LossInfo, case: Case) -> None:
    """deepcopy and pickle give a module of the same value, before and after a call, and so does its state."""
    loss = make(info, case)
    expected = value(make(info, case), case)
    for _ in range(2):
        for twin in (copy.deepcopy(loss), *([pickle.loads(pickle.dumps(loss))] if _importable(info.cls) else [])):
            found = value(twin, case)
            require(torch.equal(found, expected), f"{found} instead of {expected}")
        value(loss, case)
    other = make(info, case)
    other.load_state_dict(loss.state_dict())
    require(torch.equal(value(other, case), expected), "the state of the module does not give its value")


@on("labels_3d", "labels_2d", "one_class", "ignored_2d", "regions", "regions_masked")
def calls_leave_no_trace(info: LossInfo, case: Case) -> None:
    """A call changes neither its inputs nor the module (what it logs excepted), and the next call gives the same."""
    loss = make(info, case)
    sent = [t for t in (case.input, case.target, case.mask) if t is not None]
    before, state = [t.clone() for t in sent], pickle.dumps(_state(loss))
    first = loss(case.input, case.target, **case.call)
    require(all(torch.equal(a, b) for a, b in zip(sent, before, strict=True)), "an input changed")
    found, slope = gradient(loss.__call__, case)
    require(all(torch.equal(a, b) for a, b in zip(sent, before, strict=True)), "an input changed in training")
    require(pickle.dumps(_state(loss)) == state, "the module changed")
    require(torch.equal(first, found), "the second call has another value")
    second, again = gradient(loss.__call__, case)
    require(torch.equal(first, second), "the third call has another value")
    require(torch.equal(slope, again), "the next call has another gradient")


def _importable(cls: type) -> bool:
    """Whether pickle finds the class by its name, which it does not inside of a function."""
    return getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is cls


def _state(loss: torch.nn.Module) -> dict[str, object]:
    logged = ("last", "_parts")  # the values of a call for the log, and of a sum of sums the weights in it
    return {name: item for name, item in vars(loss).items() if name not in logged}


def _example(info: LossInfo) -> doctest.DocTest:
    text = inspect.getdoc(info.cls) or ""
    return doctest.DocTestParser().get_doctest(text, {}, info.key, None, 0)


@on(about=lambda info: info.key in LOSSES or bool(_example(info).examples))
def docstring_example_runs(info: LossInfo) -> None:
    """The class docstring has an example, and what it prints is what it says."""
    test = _example(info)
    require(test.examples, f"{info.cls.__name__} has no example in its docstring")
    report: list[str] = []
    state = torch.get_rng_state()
    result = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    torch.set_rng_state(state)
    require(result.failed == 0, "".join(report))
