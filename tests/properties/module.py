"""A loss as a torch module: it can be copied, pickled, compiled, and a call leaves nothing behind."""

from __future__ import annotations

import copy
import doctest
import inspect
import pickle

import torch
from harness import assert_close, gradient, make, supported, value

import monai_segloss
from monai_segloss.core.registry import LossInfo


def compiles(info: LossInfo, backend: str = "eager") -> None:
    """`torch.compile(fullgraph=True)`: no graph break, same value and gradient."""
    for case in supported(info, "ignored_2d", *(["regions"] if backend == "eager" else [])):
        loss = make(info, case)
        input = case.input.float()
        expected, slope = gradient(loss, case, input)
        torch.compiler.reset()
        try:
            found, other = gradient(torch.compile(loss, fullgraph=True, backend=backend), case, input)
        except RuntimeError as error:
            raise AssertionError(f"{case.name}: {error}") from error
        assert_close(found, expected, f"{case.name}: compiled", rtol=1e-5)
        assert_close(other, slope, f"{case.name}: gradient, compiled", rtol=1e-3, atol=1e-7)


def copies(info: LossInfo) -> None:
    """deepcopy and pickle give a module of the same value, before and after a call, and so does its state."""
    for case in supported(info, "labels_3d", "regions"):
        loss = make(info, case)
        expected = None
        for _ in range(2):
            for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
                found = value(twin, case)
                expected = value(make(info, case), case) if expected is None else expected
                assert torch.equal(found, expected), f"{case.name}: {found} instead of {expected}"
            value(loss, case)
        other = make(info, case)
        other.load_state_dict(loss.state_dict())
        assert torch.equal(value(other, case), expected)


def calls_leave_no_trace(info: LossInfo) -> None:
    """A call changes neither its inputs nor the module (`last` excepted), and the next call gives the same."""
    for case in supported(info, "labels_3d", "ignored_2d", "regions_masked"):
        loss = make(info, case)
        sent = [t for t in (case.input, case.target, case.mask) if t is not None]
        before, state = [t.clone() for t in sent], pickle.dumps(_state(loss))
        first, slope = gradient(loss.__call__, case)
        assert all(torch.equal(a, b) for a, b in zip(sent, before, strict=True)), f"{case.name}: an input changed"
        assert pickle.dumps(_state(loss)) == state, f"{case.name}: the module changed"
        second, again = gradient(loss.__call__, case)
        assert torch.equal(first, second)
        assert torch.equal(slope, again), f"{case.name}: the second call differs"


def _state(loss: torch.nn.Module) -> dict[str, object]:
    return {name: item for name, item in vars(loss).items() if name != "last"}


def docstring_example_runs(info: LossInfo) -> None:
    """The class docstring has an example, and what it prints is what it says."""
    text = inspect.getdoc(info.cls) or ""
    test = doctest.DocTestParser().get_doctest(text, {}, info.key, None, 0)
    assert test.examples, f"{info.cls.__name__} has no example in its docstring"
    report: list[str] = []
    state = torch.get_rng_state()
    result = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    torch.set_rng_state(state)
    assert result.failed == 0, "".join(report)


def names_resolve(info: LossInfo) -> None:
    """Key, aliases and class name lead to the entry, whose class is public under its own name."""
    for name in (info.key, *info.aliases, info.cls.__name__):
        assert monai_segloss.find(name) is info, name
    assert getattr(monai_segloss, info.cls.__name__) is info.cls
    assert info.cls.__name__ == f"{monai_segloss.core.registry.camel(info.key)}Loss"
    assert info in monai_segloss.list_losses(tag=info.family)
