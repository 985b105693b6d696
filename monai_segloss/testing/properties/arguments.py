"""Every argument does something, and bad input is refused in one sentence that names it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from monai_segloss.core.module import OF_EVERY_LOSS, SegLoss
from monai_segloss.core.registry import LossInfo
from monai_segloss.testing import cases
from monai_segloss.testing.cases import Case
from monai_segloss.testing.contract import on
from monai_segloss.testing.harness import gradient, make, refused, require, supported, value

# Another value for arguments whose default says too little; the rest is derived from the default.
OTHER: dict[str, Callable[[Case], Any]] = {
    "weight": lambda case: [1.0 + 0.3 * c for c in range(case.classes)],
    "pos_weight": lambda case: [1.0 + 0.5 * c for c in range(case.classes)],
    "normalize": lambda case: "voxels",
    "k": lambda case: 95.0,
    "frequencies": lambda case: [0.5 ** (1 + c) for c in range(case.classes)],
    "alpha": lambda case: 0.2,
    "label_smoothing": lambda case: 0.25,
    "lambda_dice": lambda case: 0.5,
    "lambda_ce": lambda case: 0.75,
    "lambda_boundary": lambda case: 0.25,
    "lambda_hausdorff": lambda case: 0.5,
    "lam": lambda case: 0.25,
    "w_type": lambda case: "simple",
    "weighting_mode": lambda case: "GDL",
    "classes": lambda case: "all",
    "dist_matrix": lambda case: distances(case.classes),
    "clip": lambda case: (1.0, 2.0),
    "labeled": lambda case: [1],
    "forbidden": lambda case: [[0, 1]],
    "inclusion": lambda case: [[1, 2 % case.classes]],
    "exclusion": lambda case: [[0, 1]],
    "mode": lambda case: "none",
    "empty": lambda case: "diagonal",
    "field": lambda case: "inside",
    "binarize": lambda case: "argmax",
    "alpha_max": lambda case: -1.0,
    "erosions": lambda case: 1,
    "radius": lambda case: 1,
    "radius_mm": lambda case: 1.0,
    "norm": lambda case: "minmax",
    "radii": lambda case: (1.0, 2.0),
    "width": lambda case: 3.0,
    "tolerance": lambda case: 3.0,
    "domain": lambda case: "all",
    "head": lambda case: "tanh",
    "axis": lambda case: 0,
    "points": lambda case: "centers",
    "max_points": lambda case: 2,
    "base": lambda case: "dice",
    "criterion": lambda case: "hinge",
    "balance": lambda case: {"method": "uncertainty_weighting", "kind": "regression"},
    "tasks": lambda case: {"contour": {"weight": 0.5, "width": 2}, "depth": {"target": "signed_distance"}},
    "side": lambda case: "outside",
    "where": lambda case: "foreground",
    "threshold": lambda case: 0.6,
    "d_max": lambda case: 1.5,
    "lambda_contour": lambda case: 0.5,
    "lambda_distance": lambda case: 0.25,
    "kernel_ops": lambda case: "gaussian",
    "distance_type": lambda case: "l2",
    "dimensions": lambda case: (0,),
    "patch_size": lambda case: 3,
    "betti": lambda case: (2, (0, 1)),
    "iter_": lambda case: 0,
    "bounds": lambda case: (0.02, 0.05),
    "unit": lambda case: "share",
    "t": lambda case: 8.0,
    "order": lambda case: 2,
    "measure": lambda case: "kl",
    "steps": lambda case: 1,
    "min_size": lambda case: 30.0,
    "offsets": lambda case: (1.0,),
    "fit": lambda case: "image",
    "swap": lambda case: [[case.classes - 2, case.classes - 1]],
}
KINDS = {"asymmetric": "symmetric", "uniform": "spatial"}
"""Another value of ``kind``, by its default."""
APART = (*OF_EVERY_LOSS, "use_softmax", "prior", "on_patches")
"""Arguments that have properties or tests of their own; no case has the file of a prior, or is a patch of a larger one."""
TOLD = ("classes", "dim")
"""Facts of the input that the caller may tell, where they are None by default."""
ALONGSIDE: dict[str, dict[str, Any]] = {
    "sigma": {"kernel_ops": "gaussian", "weight_boundary": 1.0},
    "roi_factor": {"weight_boundary": 1.0},
    "alpha": {"margin": 0.0},
}
"""What switches on the part of a formula that an argument is about, where a loss has it."""
# The lower end of the range of arguments that may be negative.
LOWEST = {"epsilon": -1.0, "alpha_max": -1.0, "axis": -3.0, "exponent": -100.0}


def distances(classes: int) -> list[list[float]]:
    """Ordered foreground classes, all as far from the background as it gets."""
    far = 2.0 * classes
    return [
        [0.0 if i == j else far if 0 in (i, j) else float(abs(i - j)) for j in range(classes)] for i in range(classes)
    ]


@on()
def every_argument_matters(info: LossInfo) -> None:
    """Each argument of the formula changes value or gradient, for one class per voxel and for regions, or is refused."""
    voxels_of_one_class = supported(info, "labels_3d", "five_classes", "empty_class", "soft_labels")
    overlapping = supported(info, "regions", "soft_regions", "empty_region")
    for group in (voxels_of_one_class or supported(info, "labels_2d"), overlapping or supported(info, "one_class")):
        for name, parameter in info.parameters.items():
            if group and not apart(name, parameter.default):
                require(
                    any(_matters(info, case, name, parameter.default) for case in group),
                    f"{name}: another value changes nothing on {', '.join(case.name for case in group)}",
                )


def apart(name: str, default: object) -> bool:
    """Whether an argument is no setting of the formula."""
    return name in APART or (name in TOLD and default is None)


def _matters(info: LossInfo, case: Case, name: str, default: object) -> bool:
    changed = {name: another(name, default, case)}

    def differ(on: Case = case, **others: object) -> bool:
        losses = [make(info, on, **others, **more) for more in ({}, changed)]
        if not torch.equal(*(_values(loss, on) for loss in losses)):
            return True
        return not torch.equal(*(gradient(loss, on)[1] for loss in losses))

    try:
        if differ():
            return True
        if name == "batch":  # all samples having as many voxels, a mean of means is the mean
            return differ(reduction="sum")
        others = {other: value for other, value in ALONGSIDE.get(name, {}).items() if other in info.parameters}
        if others:
            return differ(**others)
        if "spacing" in name:  # which few of the cases have
            return differ(replace(case, spacing=(3.0, 2.0, 1.0)[: case.input.ndim - 2]))
        if "bounds" in info.parameters and name != "bounds" and differ(bounds=OTHER["bounds"](case)):
            return True
        # what matters only alongside class weights
        return "weight" in info.parameters and name != "weight" and differ(weight=OTHER["weight"](case))
    except ValueError as error:  # excluded by the activation; that the value is wrong or does not fit is no effect
        return name in str(error) and "sigmoid" in str(error)


def _values(loss: SegLoss, case: Case) -> torch.Tensor:
    """The value, and that after a step of what is trained against the network."""
    first = gradient(loss, case)[0]
    return torch.stack((first, value(loss, case))) if loss.update() else first


def another(name: str, default: Any, case: Case) -> object:
    """A value of the argument that is not its default."""
    if name == "kind" and default in KINDS:
        return KINDS[str(default)]
    if name in OTHER and not isinstance(default, bool):
        found = OTHER[name](case)
        return found if found != default else found + 1
    if name == "include_background" and default is None:  # as the activation says
        return case.activation == "softmax"
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 20
    if not isinstance(default, float):
        raise ValueError(f"{name} has the default {default!r}: give another value, OTHER[{name!r}] = lambda case: ...")
    return default * 1.5 + 0.25 if default in (0, 1) else (1 + default) / 2  # towards 1, which is in every range


@on("labels_3d", support="labels")
def reading_arguments_matter(info: LossInfo, case: Case) -> None:
    """Activation, ignored label and reduction change the value; labels without `to_onehot_y` are refused."""
    probabilities = torch.softmax(case.input, 1)
    others = {"softmax": True, "sigmoid": True, "other_act": lambda p: p**2.5, "ignore_index": 1, "reduction": "sum"}
    if "regions" not in info.support:
        refused((ValueError, "sigmoid"), make, info, case, softmax=False, sigmoid=others.pop("sigmoid"))
    found = {
        name: value(make(info, case, **{"softmax": False, name: given}), case, probabilities)
        for name, given in others.items()
    }
    require(
        len({round(float(v), 9) for v in found.values()}) == len(found), f"two of these give the same value: {found}"
    )
    refused((ValueError, "to_onehot_y=True"), make(info, case, to_onehot_y=False), case.input, case.target)


@on()
def unknown_arguments_are_refused(info: LossInfo) -> None:
    """A misspelt argument is a TypeError that names it and the nearest one; wrong values are named too."""

    def build(**arguments: object) -> object:
        return info.cls(**{**info.example, **arguments})

    refused((TypeError, "sofmax.*'softmax'"), build, sofmax=True)
    for name in ("include_background", "batch", "smooth_nr", "smooth_dr", "weight"):
        if name not in info.parameters:
            refused((TypeError, name), build, **{name: None})
    refused((ValueError, "reduction.*average"), build, reduction="average")
    refused((ValueError, "softmax"), build, softmax=True, sigmoid=True)
    refused((TypeError, "other_act"), build, other_act=3)


@on()
def wrong_values_are_refused(info: LossInfo) -> None:
    """A negative, infinite or missing number is an error that names the argument."""
    for name, parameter in info.parameters.items():
        numeric = isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool)
        if numeric or name in ("weight", "alpha"):
            for bad in (LOWEST.get(name, 0.0) - 1, math.inf, math.nan):
                refused((ValueError, name), info.cls, **{**info.example, name: bad})
    if "weight" in info.parameters:
        for case in supported(info, "labels_3d"):
            refused((ValueError, "weight.*4 values for 3"), value, make(info, case, weight=[1.0, 2.0, 1.0, 1.0]), case)


@on("one_class", "regions", support="regions", about=lambda info: {"alpha", "beta"} <= set(info.parameters))
def false_positives_and_negatives(info: LossInfo, case: Case) -> None:
    """alpha moves only false positives, beta only false negatives."""
    truth = case.target.bool()
    extra = truth | (torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)) < 0.3)
    missed = truth & (torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)) < 0.7)
    found = {}
    for error, predicted in {"alpha": extra, "beta": missed}.items():
        input = torch.where(predicted, 100.0, -100.0).double()
        for name in ("alpha", "beta"):
            low, high = (value(make(info, case, **{name: x}), case, input) for x in (0.25, 0.75))
            found[error, name] = float(high - low)
    require(found["alpha", "alpha"] > 0.01, "alpha does not weigh false positives")
    require(found["beta", "beta"] > 0.01, "beta does not weigh false negatives")
    require(abs(found["alpha", "beta"]) < 1e-9, "beta moves false positives")
    require(abs(found["beta", "alpha"]) < 1e-9, "alpha moves false negatives")


@on("labels_3d", support="labels 3-D")
def bad_input_is_refused(info: LossInfo, case: Case) -> None:
    """Shape, device, type, label and NaN: one sentence that names the argument, before any work."""
    loss, x, y = make(info, case), case.input, case.target
    refused((ValueError, "target.*shape|shape.*target"), loss, x, y[:, :, 1:])
    refused((AssertionError, "target.*shape|shape.*target"), loss, x, y[:, :, 1:])
    refused((ValueError, "target.*shape|shape.*target"), loss, x, y[:1])
    refused((TypeError, "input.*int64"), loss, x.long(), y)
    refused((TypeError, "target.*ndarray"), loss, x, y.numpy())
    refused((ValueError, "target is on meta.*cpu"), loss, x, y.to("meta"))
    refused((ValueError, "mask.*shape"), loss, x, y, mask=torch.ones(2, 3))
    refused((ValueError, "spacing.*shape"), loss, x, y, spacing=(1.0, 1.0))
    refused((ValueError, "spacing.*positive"), loss, x, y, spacing=(1.0, 0.0, 1.0))
    for spacing in ("isotropic", (1.0, None, 1.0), [torch.ones(3), torch.ones(3)]):
        refused((TypeError, "spacing must be numbers or a tensor of shape"), loss, x, y, spacing=spacing)
    refused((TypeError, "nonsense"), loss, x, y, nonsense=x)
    refused((ValueError, "label"), loss, x, {"mask": y})
    seven = y.clone()
    seven[0, 0, 0, 0, :2] = 7
    refused((ValueError, "label 7 .*2 voxels.*labels 0 to 2"), loss, x, seven)
    refused((ValueError, "label -1"), loss, x, y - 1)
    half = y.double()
    half[0, 0, 0, 0, 0] = 0.5
    refused((ValueError, "integer"), loss, x, half)
    half[0, 0, 0, 0, 0] = torch.nan
    refused((ValueError, "target.*NaN"), loss, x, half)
    value(make(info, case, ignore_index=cases.IGNORE), case)


@on("regions", support="regions 3-D")
def bad_regions_are_refused(info: LossInfo, case: Case) -> None:
    """Channels that are missing, and values that are no share of a voxel."""
    loss = make(info, case)
    refused((ValueError, "target.*shape|shape.*target"), loss, case.input, case.target[:, :2])
    refused((ValueError, r"value 2.*\[0, 1\]"), loss, case.input, 2.0 * case.target)
    refused((ValueError, "target.*NaN"), loss, case.input, torch.where(case.target, torch.nan, 0.0))
