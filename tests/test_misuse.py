"""Wrong types and values at every argument of every loss: the project's own sentence comes, or a finite value."""

from __future__ import annotations

import math
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import monai_segloss
from monai_segloss.core.registry import LossInfo
from monai_segloss.testing import cases
from monai_segloss.testing.harness import make, supported
from monai_segloss.testing.stand_in import prepared

LOSSES = monai_segloss.list_losses()
OURS = Path(monai_segloss.__file__).parent
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

SETTINGS: dict[str, Any] = {
    "None": None, "word": "abc", "no word": "", "true": True, "list": [1.0, 2.0], "nothing": [], "nested": [[1.0], [2.0]],
    "words": ["a"], "None inside": [None], "mapping": {"a": 1}, "set": {1}, "type": int, "nan": math.nan, "inf": math.inf,
    "-inf": -math.inf, "-1": -1, "-0.5": -0.5, "0": 0, "0.5": 0.5, "1": 1, "1.0": 1.0, "2.5": 2.5, "33": 33, "1e4": 1e4,
    "1e30": 1e30, "1e300": 1e300, "10**400": 10**400, "complex": 1j, "float32": np.float32(0.5), "float64": np.float64(2),
    "int64": np.int64(1), "bool_": np.bool_(True), "str_": np.str_("abc"), "array": np.array([1.0, 2.0]),
    "0-d array": np.array(0.5), "empty array": np.array([]), "tensor": torch.tensor([1.0, 2.0]),
    "0-d tensor": torch.tensor(0.5), "NaN tensor": torch.tensor([1.0, math.nan, 1.0]), "object": object(), "bytes": b"a",
    "meta tensor": torch.ones(3, device="meta"), "complex tensor": torch.ones(3, dtype=torch.complex64),
    "two axes": torch.ones(3, 3), "function": len, "range": range(3), "generator": (x for x in (1.0, 2.0)),
}  # fmt: skip


def own(error: BaseException, name: str) -> str | None:
    """None where an error is one of our sentences about the argument, else what is wrong with it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if not isinstance(error, TypeError | ValueError):
        return f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"
    if not Path(last.filename).is_relative_to(OURS) or "raise" not in (last.line or ""):
        return f"raised by {last.filename}: {type(error).__name__}: {str(error).splitlines()[0][:150]}"
    if "\n" in str(error):
        return f"several lines: {str(error).splitlines()[0][:150]}"
    if not re.search(rf"\b{name}\b", str(error)):
        return f"does not name it: {error}"
    return None


def outcome(call: Callable[[], Any], name: str) -> str | None:
    """None where a call is refused in a sentence of ours or gives finite numbers, else what came."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = call()
        except Exception as error:
            return own(error, name)
    return None if all(bool(x.isfinite().all()) for x in found) else f"not finite: {[x.tolist() for x in found[:1]]}"


def case_of(info: LossInfo) -> cases.Case:
    case = supported(info, "labels_3d", "regions", "one_class")[0]
    return cases.enlarged(case, 1).with_input(case.input.float())


def ran(loss: Any, case: cases.Case, **call: Any) -> list[Tensor]:
    """Value and gradient."""
    leaf = case.input.detach().clone().requires_grad_()
    value = loss(leaf, case.target, **{"spacing": (1.0,) * (leaf.ndim - 2), **call})
    assert value.dtype == torch.float32, value.dtype
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return [value.detach(), slope]


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_settings(info: LossInfo) -> None:
    case = case_of(info)
    wrong = []
    for name in info.parameters:
        for what, bad in SETTINGS.items():
            if name == "other_act" and callable(bad):
                continue
            found = outcome(lambda name=name, bad=bad: ran(make(info, case, **{name: bad}), case), name)
            if name in ("softmax", "sigmoid") and found is not None and found.startswith("not finite"):
                continue  # logits read as probabilities
            if found is not None:
                wrong.append(f"{name}={what}: {found}")
    assert not wrong, "\n".join(wrong)


def wrong_tensors(good: Tensor) -> Iterator[tuple[str, Any]]:
    """What may come in place of a tensor, by what is wrong with it."""
    yield from (("word", "abc"), ("number", 1.0), ("list", [[1.0]]), ("array", good.numpy()), ("mapping", {"a": good}))
    yield from (("true", True), ("type", int), ("complex", good.to(torch.complex64)), ("meta", good.to("meta")))
    yield from (("0-d", torch.tensor(1.0)), ("1-d", torch.ones(3)), ("empty", good[:0]), ("more axes", good[..., None]))
    yield from (("other batch", good[:1]), ("other size", good[..., :-1]), ("fewer axes", good[..., 0]))
    yield from (("sparse", good.float().to_sparse()), ("two channels too many", torch.cat([good[:, :1]] * 7, 1)))
    for number in (-1.0, 2.0, 0.3, math.nan, math.inf, -math.inf):
        changed = good.float().clone()
        changed.view(-1)[:2] = number
        yield f"{number}", changed
    for dtype in (torch.uint8, torch.int8, torch.uint16, torch.uint32, torch.uint64, torch.int64, torch.bool, *FLOATS):
        yield f"{dtype}", (good > 0).to(dtype) if good.is_floating_point() else good.to(dtype)
    yield "complex of zeros", torch.zeros_like(good, dtype=torch.complex128)
    yield "quantized", torch.quantize_per_tensor(good.float(), 1.0, 0, torch.quint8)


def given_maps(info: LossInfo, case: cases.Case, loss: Any) -> dict[str, Tensor]:
    """Right maps of a loss by name."""
    shape = case.input.shape
    masks = case.onehot() > 0.5
    found = {"mask": torch.ones_like(case.input[:, :1]), "weight_map": torch.ones_like(case.input[:, :1])}
    found |= {"image": torch.randn(shape[0], 1, *shape[2:]), "labeled": torch.ones(shape[:2]), "points": masks.float()}
    found |= {"threshold": torch.zeros_like(case.input), "components": masks.int(), "bounds": torch.ones(shape[0], 2)}
    maps = {name: found[name] for name in ("mask", *loss.accepts)}
    return maps | {spec.key: spec.make(masks, torch.ones(len(shape) - 2), None) for spec in loss.needs}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_calls(info: LossInfo) -> None:
    """The target, the mask, the spacing and every map."""
    case = case_of(info)
    loss = make(info, case)
    wrong = []
    for name, good in given_maps(info, case, loss).items():
        for what, bad in wrong_tensors(good):
            found = outcome(lambda name=name, bad=bad: ran(loss, case, **{name: bad}), name)
            if found is not None and not (
                found.startswith("not finite") and what in ("nan", "inf", "-inf")
            ):  # it shows
                wrong.append(f"{name}={what}: {found}")
    for what, bad in wrong_tensors(case.target):
        given = cases.replace(case, target=bad)
        found = outcome(
            lambda given=given: ran(loss, given), "label" if isinstance(bad, dict) else "target|ground truth"
        )
        if found is not None:
            wrong.append(f"target={what}: {found}")
    for what, bad in wrong_tensors(case.input):
        if what in ("nan", "inf", "-inf"):
            continue
        found = outcome(lambda bad=bad: [loss(bad, case.target, spacing=(1.0,) * (case.input.ndim - 2))], "input")
        if found is not None:
            wrong.append(f"input={what}: {found}")
    spacings = {what: bad for what, bad in SETTINGS.items() if bad is not None}
    for what, bad in (spacings | {"zero": (1.0, 0.0, 1.0), "huge": (1e300,) * 3}).items():
        found = outcome(lambda bad=bad: ran(loss, case, spacing=bad), "spacing")
        if found is not None:
            wrong.append(f"spacing={what}: {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_an_input_without_axes(info: LossInfo) -> None:
    """(B, C): classification.  A loss has a value for it or says that it needs axes, with every map too."""
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1])
    target = labels if "labels" in info.support else torch.nn.functional.one_hot(labels, 3)
    reading = info.reading if "labels" in info.support else {"sigmoid": True}
    case = cases.Case(
        "points", logits, target, "softmax" if "softmax" in reading else "sigmoid", labels=target is labels
    )
    loss = prepared(info.cls(**info.example, **reading), logits[..., None, None])
    wrong = []
    for maps in ({}, *({name: x} for name, x in maps_of_points(loss).items())):
        found = outcome(lambda maps=maps: ran(loss, case, spacing=None, **maps), "input|" + "|".join(maps))
        if found is not None:
            wrong.append(f"{list(maps)}: {found}")
    assert not wrong, "\n".join(wrong)


def maps_of_points(loss: Any) -> dict[str, Tensor]:
    """Maps of one value per row."""
    sizes = {"labeled": (4, 3), "threshold": (4, 3), "points": (4, 3), "image": (4, 1)}
    return {name: torch.ones(sizes.get(name, (4,))) for name in ("mask", *loss.accepts)}
