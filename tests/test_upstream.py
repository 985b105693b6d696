"""Where MONAI 1.6 and nnU-Net 2.8 are right we give their values and gradients (the rest: test_differences)."""

from __future__ import annotations

import inspect
import random
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import monai_segloss
from monai_segloss import losses
from monai_segloss.testing import cases
from monai_segloss.testing.cases import IGNORE, Case
from monai_segloss.testing.harness import gradient
from monai_segloss.testing.properties.arguments import distances
from monai_segloss.testing.stand_in import prepared

monai = pytest.importorskip("monai.losses")
compound = pytest.importorskip("nnunetv2.training.loss.compound_losses")
from monai.data.meta_tensor import MetaTensor  # noqa: E402
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss  # noqa: E402
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss  # noqa: E402

SHARED = tuple(sorted(name for name in losses.__all__ if hasattr(monai, name)))
OF_DISTANCES = {"BoundaryLoss", "HausdorffDTLoss", "LogHausdorffDTLoss"}
"""Held to MONAI where their references are, in test_identities_boundary."""
LABELS = ("labels_2d", "labels_3d", "five_classes", "empty_class", "one_voxel", "many_classes")
WEIGHT = [1.0, 2.0, 0.5, 4.0, 0.25]

Options = dict[str, Any]


def assert_equal(
    ours: Callable[..., Tensor], peer: Callable[[Tensor, Tensor], Tensor], case: Case, plus: float = 0
) -> None:
    """Value (plus a constant of the peer's convention) and gradient in float32; shapes of one value per row aside."""
    found, slope = gradient(ours, case, case.input.float())
    leaf = case.input.float().requires_grad_()
    expected = peer(leaf, case.target)
    (other,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(found.flatten(), expected.detach().float().flatten() + plus, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope, other, rtol=2e-4, atol=1e-6)


def check_monai(name: str, case: Case, **arguments: Any) -> None:
    ours = getattr(monai_segloss, name)(**case.reading, **arguments, **MONAIS_FORM.get(name, {}))
    assert_equal(ours, getattr(monai, name)(**case.reading, **arguments), case)


# What only our class has and must be set for MONAI's value: see the named differences.
MONAIS_FORM: dict[str, Options] = {
    "GeneralizedDiceLoss": {"scale_free": False},
    "SoftclDiceLoss": {"per_class": False},
    "NACLLoss": {"zero_padding": True},
}


def peer_of(name: str, *values: Any, **arguments: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """MONAI's loss; that of calibration takes labels without a channel, and must be told classes and axes."""
    if name != "NACLLoss":
        return getattr(monai, name)(*values, **arguments)  # type: ignore[no-any-return]
    loss = monai.NACLLoss(*(values or (3, 2)), **arguments)
    return lambda x, y: loss(x, y[:, 0])


def test_shared_names() -> None:
    """Each has its grid of options below, and a bare name means MONAI's class."""
    assert set(SHARED) == set(BY_POSITION)
    assert set(SHARED) - OF_DISTANCES == set(AXES)
    assert set(SHARED) == {info.cls.__name__ for info in monai_segloss.list_losses()} & set(dir(monai))


def spelled(value: object) -> str:
    """The name of a test: the value, without the address that a function has in one process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


@pytest.mark.parametrize("name", SHARED)
def test_arguments_are_those_of_monai(name: str) -> None:
    """The same names and defaults in the same positional order; ours may have more, and a default where MONAI has none."""
    ours = list(inspect.signature(getattr(monai_segloss, name)).parameters.values())
    peer = list(inspect.signature(getattr(monai, name)).parameters.values())
    assert [p.name for p in ours[: len(peer)]] == [p.name for p in peer]
    for p, q in zip(ours, peer, strict=False):
        assert p.default == (None if q.default is q.empty else getattr(q.default, "value", q.default)), p.name
    assert all(p.kind == p.POSITIONAL_OR_KEYWORD for p in ours[: len(peer)])
    assert all(p.kind == p.KEYWORD_ONLY for p in ours[len(peer) :])


OVERLAP = (False, True, False, True, None)
"""include_background, to_onehot_y, sigmoid, softmax, other_act"""
BY_POSITION: dict[str, tuple[Any, ...]] = {
    "DiceLoss": (*OVERLAP, True, True, "sum", 0.5, 0.25, True, [2.0, 3.0], False, IGNORE),
    "TverskyLoss": (*OVERLAP, 0.3, 0.8, "sum", 0.5, 0.25, True, True, IGNORE),
    "FocalLoss": (False, True, 1.5, [0.3, 0.6], [2.0, 3.0], "none", False, None),
    "DiceCELoss": (*OVERLAP, True, True, "sum", 0.5, 0.25, True, torch.tensor([1.0, 2.0, 3.0]), 0.5, 2.0, 0.1),
    "DiceFocalLoss": (
        False,
        True,
        True,
        False,
        None,
        True,
        True,
        "mean",
        0.5,
        0.25,
        True,
        1.5,
        [2.0, 3.0],
        0.5,
        2,
        0.3,
    ),
    "GeneralizedDiceLoss": (*OVERLAP, "simple", "sum", 0.5, 0.25, True, True),
    "GeneralizedWassersteinDiceLoss": (torch.tensor(distances(3)), "GDL", "sum", 0.5, 0.25),
    "MCCLoss": (*OVERLAP, "sum", 0.5, 0.25, True),
    "SoftclDiceLoss": (2, 0.5, 0.25, 0.1, *OVERLAP, "sum"),
    "BoundaryLoss": (*OVERLAP, "sum", True),
    "HausdorffDTLoss": (1.5, *OVERLAP, "sum", True),
    "LogHausdorffDTLoss": (1.5, *OVERLAP, "sum", True),
    "NACLLoss": (3, 2, 5, "mean", "l2", 0.3, 2.0),
}


@pytest.mark.parametrize("name", SHARED)
def test_arguments_by_position(name: str) -> None:
    """Every argument by its place, most of them not at their default."""
    values = BY_POSITION[name]
    assert len(values) == len(inspect.signature(getattr(monai, name)).parameters)
    ours = getattr(monai_segloss, name)(*values, **MONAIS_FORM.get(name, {}))
    assert_equal(ours, peer_of(name, *values), cases.get("labels_2d"))


def squash(x: Tensor) -> Tensor:
    return torch.sigmoid(0.5 * x)


Axes = Mapping[str, Sequence[Options]]
ACTIVATION = ({}, {"softmax": True}, {"sigmoid": True}, {"other_act": squash})
TARGET = ({"to_onehot_y": True}, {})
IGNORING = ({}, {"ignore_index": IGNORE, "to_onehot_y": True}, {"ignore_index": 1})
SMOOTHING = ({}, {"smooth_nr": 0.0, "smooth_dr": 1.0}, {"smooth_nr": 0.5, "smooth_dr": 0.25})
BACKGROUND, BATCH = ({}, {"include_background": False}), ({}, {"batch": True})
REDUCTION = ({}, {"reduction": "sum"}, {"reduction": "none"})
SOFT_LABEL = ({}, {"soft_label": True})
FORM = ({}, {"squared_pred": True}, {"jaccard": True}, {"squared_pred": True, "jaccard": True})
WEIGHTS = ({}, {"weight": 3.0}, {"weight": WEIGHT})
ALPHA = ({}, {"alpha": 0.25}, {"alpha": [0.2, 0.5, 2.0]})
GAMMA = ({}, {"gamma": 0.0}, {"gamma": 3.5})
COMMON = {"activation": ACTIVATION, "target": TARGET, "background": BACKGROUND, "batch": BATCH}
REDUCED = {"smoothing": SMOOTHING, "reduction": REDUCTION}

AXES: dict[str, Axes] = {
    "DiceLoss": {
        **COMMON,
        **REDUCED,
        "form": (*FORM, {"soft_label": True}, {"soft_label": True, "jaccard": True}),
        "weight": WEIGHTS,
        "ignored": IGNORING,
    },
    "TverskyLoss": {
        **COMMON,
        **REDUCED,
        "sides": ({}, {"alpha": 0.3, "beta": 0.7}, {"alpha": 1.0, "beta": 1.0}, {"alpha": 0.0, "beta": 2.0}),
        "soft_label": SOFT_LABEL,
        "ignored": IGNORING,
    },
    "FocalLoss": {
        "softmax": ({}, {"use_softmax": True}),
        "target": TARGET,
        "background": BACKGROUND,
        "gamma": GAMMA,
        "alpha": ALPHA,
        "weight": WEIGHTS,
        "ignored": IGNORING,
        "reduction": REDUCTION,
    },
    "DiceCELoss": {
        "target": TARGET,
        "background": BACKGROUND,
        "batch": BATCH,
        "form": FORM,
        "smoothing": SMOOTHING,
        "weight": ({}, {"weight": torch.tensor(WEIGHT[:3]), "to_onehot_y": True}),
        "factors": ({}, {"lambda_dice": 0.3, "lambda_ce": 2.0}, {"lambda_dice": 0.0}, {"lambda_ce": 0.0}),
        "label_smoothing": ({}, {"label_smoothing": 0.1}),
        "reduction": REDUCTION[:2],
        "activation": ACTIVATION[1:2],
    },
    "DiceFocalLoss": {
        "target": TARGET,
        "background": BACKGROUND,
        "batch": BATCH,
        "form": FORM,
        "smoothing": SMOOTHING,
        "gamma": GAMMA,
        "alpha": ALPHA,
        "weight": WEIGHTS,
        "factors": ({}, {"lambda_dice": 0.3, "lambda_focal": 2.0}, {"lambda_dice": 0.0}, {"lambda_focal": 0.0}),
        "activation": ACTIVATION[2:3],
    },
    "GeneralizedDiceLoss": {
        **COMMON,
        **REDUCED,
        "w_type": ({}, {"w_type": "simple"}, {"w_type": "uniform"}),
        "soft_label": SOFT_LABEL,
    },
    "GeneralizedWassersteinDiceLoss": {
        **REDUCED,
        "matrix": ({"dist_matrix": torch.tensor(distances(3))}, {"dist_matrix": 1 - torch.eye(3)}),
        "mode": ({}, {"weighting_mode": "GDL"}),
    },
    "MCCLoss": {**COMMON, **REDUCED},
    "SoftclDiceLoss": {
        **{name: options for name, options in COMMON.items() if name != "batch"},
        **REDUCED,
        "erosions": ({}, {"iter_": 0}, {"iter_": 7}),
        "harmonic": ({}, {"smooth": 0.5}),
    },
    "NACLLoss": {
        "window": ({}, {"kernel_size": 1}, {"kernel_size": 7}),
        "distance": ({}, {"distance_type": "l2"}),
        "factor": ({}, {"alpha": 0.0}, {"alpha": 2.5}),
    },
}
"""Options of the shared classes; a combination is one of each axis."""


def is_named_difference(name: str, options: Options) -> bool:
    """Combinations in which MONAI's focal loss is shown in test_differences."""
    if name != "FocalLoss":
        return False
    softmax, ignoring = "use_softmax" in options, "ignore_index" in options
    background, mean = "include_background" not in options, "reduction" not in options
    return options.get("reduction") == "sum" or (softmax and not background) or (ignoring and mean and not softmax)


def combinations(name: str, count: int = 200) -> list[Options]:
    """Combinations of options, at random but the same in every run."""
    merged = ({k: v for part in parts for k, v in part.items()} for parts in product(*AXES[name].values()))
    allowed = [options for options in merged if not is_named_difference(name, options)]
    return random.Random(name).sample(allowed, min(count, len(allowed)))


def meeting(name: str, options: Options) -> Case:
    """Three classes, all in each sample, with the target that the options ask for."""
    generator = torch.Generator().manual_seed(7)
    label = torch.randint(0, 3, (2, 1, 5, 6), generator=generator)
    label.view(2, -1)[:, :3] = torch.arange(3)
    input = torch.randn(2, 3, 5, 6, generator=generator)
    probabilities = {"softmax", "sigmoid", "other_act"} <= set(inspect.signature(getattr(monai, name)).parameters)
    if probabilities and not {"softmax", "sigmoid", "other_act"} & set(options):
        input = input.sigmoid()
    case = Case("meeting", input, label)
    if options.get("ignore_index") == IGNORE:
        return replace(case, target=torch.where(torch.rand(label.shape, generator=generator) < 0.2, IGNORE, label))
    if "to_onehot_y" in options or "target" not in AXES[name]:
        return case
    return replace(case, target=case.onehot().float(), labels=False)


def per_scored_class(name: str, options: Options) -> Options:
    """Sequences cut to the classes that are scored."""
    count = 2 if "include_background" in options and name != "DiceCELoss" else 3
    return {
        key: value[:count] if key in ("weight", "alpha") and isinstance(value, list) else value
        for key, value in options.items()
    }


def monais_softmax_focal(peer: Callable[..., Tensor], options: Options) -> Callable[[Tensor, Tensor], Tensor]:
    """MONAI's map has a channel per class, its mean divides by their number: named differences of scale and shape."""
    if options.get("reduction") == "none":
        return lambda x, y: peer(x, y).sum(1)
    return peer if "ignore_index" in options else lambda x, y: peer(x, y) * x.shape[1]


@pytest.mark.parametrize("name", AXES)
def test_options_together(name: str) -> None:
    for options in combinations(name):
        case, given = meeting(name, options), per_scored_class(name, options)
        ours = getattr(monai_segloss, name)(**given, **MONAIS_FORM.get(name, {}))
        peer = peer_of(name, **given)
        try:
            assert_equal(ours, monais_softmax_focal(peer, options) if "use_softmax" in options else peer, case)
        except AssertionError as error:
            raise AssertionError(f"{name}(**{given}): {error}") from None


def outcome(cls: type, arguments: Options, input: Tensor, target: Tensor) -> tuple[Exception | Tensor, set[str]]:
    """The value or the error of a loss made and called, and what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found: Exception | Tensor
        try:
            found = cls(**arguments)(input, target)
        except Exception as error:
            found = error
    return found, {str(warning.message) for warning in caught}


@pytest.mark.parametrize(
    "arguments", [{"softmax": True}, {"to_onehot_y": True}, {"include_background": False}], ids=spelled
)
@pytest.mark.parametrize("name", AXES)
def test_warnings_of_a_single_channel(name: str, arguments: Options) -> None:
    """The same words, once; where there is one term, the same value."""
    if not set(arguments) <= set(inspect.signature(getattr(monai, name)).parameters):
        return
    input, target = torch.full((2, 1, 2, 2), 0.25), torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(2, 1, 2, 2)
    expected, said = outcome(getattr(monai, name), arguments, input, target)
    found, warned = outcome(getattr(monai_segloss, name), {**MONAIS_FORM.get(name, {}), **arguments}, input, target)
    assert len(said) == 1
    assert warned == said
    if name not in ("DiceCELoss", "DiceFocalLoss"):
        torch.testing.assert_close(found, expected)


MISUSE: list[tuple[Options, tuple[int, ...], tuple[int, ...]]] = [
    ({"other_act": "tanh"}, (2, 3, 4), (2, 3, 4)),
    ({"sigmoid": True, "softmax": True}, (2, 3, 4), (2, 3, 4)),
    ({"softmax": True, "other_act": torch.tanh}, (2, 3, 4), (2, 3, 4)),
    ({"reduction": "average"}, (2, 3, 4), (2, 3, 4)),
    ({"reduction": None}, (2, 3, 4), (2, 3, 4)),
    ({"weight": torch.tensor([1.0, 2.0])}, (2, 3, 4), (2, 3, 4)),
    ({"weight": torch.tensor([1.0, 2.0, 3.0, 4.0])}, (2, 3, 4), (2, 3, 4)),
    ({"weight": torch.tensor([1.0, -1.0, 1.0])}, (2, 3, 4), (2, 3, 4)),
    ({"weight": torch.tensor([1.0, 2.0, 3.0]), "include_background": False, "use_softmax": True}, (2, 3, 4), (2, 3, 4)),
    ({"alpha": [0.1, 0.5], "use_softmax": True}, (2, 3, 4), (2, 3, 4)),
    ({"alpha": [0.1, 0.5], "use_softmax": False}, (2, 3, 4), (2, 3, 4)),
    ({"lambda_dice": -1.0}, (2, 3, 4), (2, 3, 4)),
    ({"lambda_ce": -1.0}, (2, 3, 4), (2, 3, 4)),
    ({"lambda_focal": -1.0}, (2, 3, 4), (2, 3, 4)),
    ({"w_type": "cubic"}, (2, 3, 4), (2, 3, 4)),
    ({"dist_matrix": torch.ones(2, 3)}, (2, 3, 4), (2, 1, 4)),
    ({"dist_matrix": torch.eye(3), "weighting_mode": "gdl"}, (2, 3, 4), (2, 1, 4)),
    ({"label_smoothing": 0.1, "reduction": "none"}, (2, 3, 4), (2, 3, 4)),
    ({"alfa": 1.0}, (2, 3, 4), (2, 3, 4)),
    ({}, (2, 3, 4), (2, 3, 5)),
    ({}, (1, 2, 3), (4, 5, 6)),
    ({}, (1, 3, 4, 4), (1, 2, 4, 4)),
    ({}, (1, 2, 3), (1, 1, 2, 3)),
]


@pytest.mark.parametrize(("arguments", "input", "target"), MISUSE, ids=spelled)
def test_misuse_raises_what_monai_raises(arguments: Options, input: tuple[int, ...], target: tuple[int, ...]) -> None:
    """The type, for each class that has the arguments; ours may be a type of its own below it."""
    met = 0
    for name in SHARED:
        known = set(inspect.signature(getattr(monai, name)).parameters) | {"alfa"}
        told = {"GeneralizedWassersteinDiceLoss": "dist_matrix", "NACLLoss": "classes"}.get(name)  # which MONAI demands
        if (told and told not in arguments) or not set(arguments) <= known:
            continue
        met += 1
        expected, _ = outcome(getattr(monai, name), arguments, torch.rand(input), torch.ones(target))
        found, _ = outcome(getattr(monai_segloss, name), arguments, torch.rand(input), torch.ones(target))
        assert isinstance(expected, Exception), f"MONAI's {name} accepts it"
        assert isinstance(found, type(expected)), f"{name}: {found!r} instead of {expected!r}"
    assert met


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"include_background": False},
        {"batch": True},
        {"squared_pred": True},
        {"squared_pred": True, "jaccard": True, "batch": True},
        {"jaccard": True, "include_background": False},
        {"soft_label": True},
        {"smooth_nr": 0.0, "smooth_dr": 1.0},
        {"reduction": "sum"},
        {"reduction": "none"},
        {"weight": WEIGHT},
        {"weight": WEIGHT[1:], "include_background": False},
        {"weight": 3.0},
    ],
    ids=spelled,
)
def test_dice(name: str, arguments: Options) -> None:
    case = cases.get(name)
    if isinstance(arguments.get("weight"), list):
        first = 0 if arguments.get("include_background", True) else 1
        weight = (WEIGHT * 24)[first : case.classes]
        if len(weight) < 2:
            pytest.fail("a weight of one class is a named difference")
        arguments = {**arguments, "weight": weight}
    check_monai("DiceLoss", case, **arguments)


@pytest.mark.parametrize("name", ["one_class", "regions", "soft_labels", "soft_regions", "ignored"])
@pytest.mark.parametrize("arguments", [{}, {"batch": True}, {"squared_pred": True}, {"soft_label": True}], ids=spelled)
def test_dice_of_other_targets(name: str, arguments: Options) -> None:
    case = cases.get(name)
    if "soft" not in name or arguments.get("soft_label") or arguments.get("squared_pred"):
        check_monai("DiceLoss", replace(case, target=case.target.float()), **arguments)


@pytest.mark.parametrize("name", [*LABELS, "one_class", "regions", "soft_labels", "ignored"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"alpha": 0.3, "beta": 0.7},
        {"alpha": 0.3, "beta": 0.7, "batch": True},
        {"alpha": 1.0, "beta": 1.0, "smooth_nr": 1.0, "smooth_dr": 1.0},
        {"alpha": 0.3, "beta": 0.7, "soft_label": True},
        {"reduction": "sum"},
    ],
    ids=spelled,
)
def test_tversky(name: str, arguments: Options) -> None:
    case = cases.get(name)
    check_monai("TverskyLoss", replace(case, target=case.target.float()), **arguments)
    if case.classes > 1:
        check_monai("TverskyLoss", replace(case, target=case.target.float()), include_background=False, **arguments)


def plain(case: Case) -> Case:
    """The case for MONAI's focal loss, which has no `sigmoid` argument."""
    return replace(case, target=case.target.float())


@pytest.mark.parametrize("name", [*LABELS, "regions", "one_class"])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_sigmoid_focal(name: str, gamma: float, alpha: float | None) -> None:
    case = plain(cases.get(name))
    reading = {"to_onehot_y": True} if case.labels else {}
    for more in ({}, {"include_background": False}, {"weight": 2.0}) if case.classes > 1 else ({}, {"weight": 2.0}):
        ours = monai_segloss.FocalLoss(gamma=gamma, alpha=alpha, **reading, **more)
        assert_equal(ours, monai.FocalLoss(gamma=gamma, alpha=alpha, **reading, **more), case)


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("alpha", [None, 0.25, "per class"])
def test_softmax_focal_is_monai_times_classes(name: str, alpha: float | str | None) -> None:
    case = cases.get(name)
    given = [0.5 / (1 + c) for c in range(case.classes)] if alpha == "per class" else alpha
    ours = monai_segloss.FocalLoss(to_onehot_y=True, use_softmax=True, alpha=given)
    peer = monai.FocalLoss(to_onehot_y=True, use_softmax=True, alpha=given)
    assert_equal(ours, lambda x, y: peer(x, y) * case.classes, case)


@pytest.mark.parametrize("name", [*LABELS, "one_class"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"lambda_dice": 0.3, "lambda_ce": 2.0},
        {"label_smoothing": 0.1},
        {"include_background": False, "batch": True},
    ],
    ids=spelled,
)
def test_dice_ce(name: str, arguments: Options) -> None:
    case = cases.get(name)
    if case.classes == 1:
        arguments = {k: v for k, v in arguments.items() if k not in ("label_smoothing", "include_background")}
    check_monai("DiceCELoss", case, **arguments)
    if case.classes > 1:
        check_monai("DiceCELoss", case, weight=torch.tensor((WEIGHT * 24)[: case.classes]), **arguments)


@pytest.mark.parametrize("name", ["regions", "one_class"])
@pytest.mark.parametrize(
    "arguments", [{}, {"gamma": 3.0, "lambda_focal": 0.5}, {"alpha": 0.25, "batch": True}], ids=spelled
)
def test_dice_focal(name: str, arguments: Options) -> None:
    check_monai("DiceFocalLoss", plain(cases.get(name)), **arguments)


@pytest.mark.parametrize("name", [*LABELS[:5], "regions"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"w_type": "simple", "batch": True},
        {"w_type": "uniform", "include_background": False},
        {"batch": True, "soft_label": True},
        {"smooth_nr": 0.0, "smooth_dr": 1.0, "reduction": "sum"},
    ],
    ids=spelled,
)
def test_generalized_dice(name: str, arguments: Options) -> None:
    case = cases.get(name)
    check_monai("GeneralizedDiceLoss", case if case.labels else plain(case), **arguments)


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("mode", ["default", "GDL"])
def test_wasserstein_dice(name: str, mode: str) -> None:
    case = cases.get(name)
    for more in ((), ("sum", 0.5, 1.0)):
        arguments = (torch.tensor(distances(case.classes)), mode, *more)
        peer = monai.GeneralizedWassersteinDiceLoss(*arguments)
        assert_equal(monai_segloss.GeneralizedWassersteinDiceLoss(*arguments), peer, case)


@pytest.mark.parametrize("name", ["labels_2d", "labels_3d", "five_classes", "regions"])
@pytest.mark.parametrize("arguments", [{}, {"batch": True}, {"smooth_nr": 1.0, "smooth_dr": 2.0}], ids=spelled)
def test_mcc(name: str, arguments: Options) -> None:
    case = cases.get(name)
    check_monai("MCCLoss", case if case.labels else plain(case), **arguments)


@pytest.mark.parametrize("name", ["labels_2d", "labels_3d", "five_classes", "regions", "one_class"])
@pytest.mark.parametrize("arguments", [{}, {"iter_": 10}, {"smooth_nr": 1e-3, "smooth_dr": 0.5}], ids=spelled)
def test_cldice(name: str, arguments: Options) -> None:
    """Of all classes at once, and of a single scored class in the form of ours; Dice plus clDice too."""
    case = cases.get(name)
    case = case if case.labels else plain(case)
    check_monai("SoftclDiceLoss", case, **arguments)
    for alpha in (0.0, 0.3, 1.0):
        ours = monai_segloss.DiceclDiceLoss(alpha=alpha, smooth=1e-4, per_class=False, **case.reading, **arguments)
        assert_equal(ours, monai.SoftDiceclDiceLoss(alpha=alpha, **case.reading, **arguments), case)
    if case.classes == 1:
        ours = monai_segloss.SoftclDiceLoss(**case.reading, **arguments)
        assert_equal(ours, monai.SoftclDiceLoss(**case.reading, **arguments), case)


def soft_dice(batch: bool) -> Options:
    return {"batch_dice": batch, "do_bg": False, "smooth": 1e-5, "ddp": False}


@pytest.mark.parametrize("name", [*LABELS, "ignored"])
@pytest.mark.parametrize("batch", [False, True])
def test_default_loss_of_nnunet_plus_one(name: str, batch: bool) -> None:
    case = cases.get(name)
    peer = compound.DC_and_CE_loss(
        soft_dice(batch), {}, ignore_label=case.ignore_index, dice_class=MemoryEfficientSoftDiceLoss
    )
    ours = monai_segloss.DiceCELoss(include_background=False, batch=batch, **case.reading)
    assert_equal(ours, peer, case, plus=1)


def test_default_loss_of_nnunet_with_everything_ignored() -> None:
    case = cases.get("ignored")
    nothing = replace(case, target=torch.full_like(case.target, cases.IGNORE))
    peer = compound.DC_and_CE_loss(soft_dice(False), {}, ignore_label=cases.IGNORE)
    assert_equal(monai_segloss.DiceCELoss(include_background=False, **case.reading), peer, nothing, plus=1)


@pytest.mark.parametrize("batch", [False, True])
def test_region_loss_of_nnunet_plus_one(batch: bool) -> None:
    case = cases.get("regions")
    peer = compound.DC_and_BCE_loss({}, {**soft_dice(batch), "do_bg": True}, dice_class=MemoryEfficientSoftDiceLoss)
    assert_equal(monai_segloss.DiceCELoss(sigmoid=True, batch=batch), peer, case, plus=1)


@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated:UserWarning")
@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("k", [5, 10, 100])
def test_topk_of_nnunet(name: str, k: int) -> None:
    case = cases.get(name)
    assert_equal(monai_segloss.TopKCrossEntropyLoss(k=k, **case.reading), TopKLoss(k=k), case)
    peer = compound.DC_and_topk_loss(soft_dice(True), {"k": k})
    assert_equal(monai_segloss.DiceTopKLoss(k=k, include_background=False, batch=True, **case.reading), peer, case, 1)


@pytest.mark.parametrize("name", [*LABELS, "ignored"])
def test_cross_entropy_of_torch(name: str) -> None:
    case = cases.get(name)
    weight = torch.tensor((WEIGHT * 24)[: case.classes])
    ignored = {"ignore_index": case.ignore_index} if case.ignore_index is not None else {}
    for more in ({}, {"weight": weight}, {"label_smoothing": 0.2}, {"weight": weight, "label_smoothing": 0.2}):
        ours = monai_segloss.CrossEntropyLoss(**case.reading, **more)
        assert_equal(ours, RobustCrossEntropyLoss(**ignored, **more), case)


def test_binary_cross_entropy_of_torch() -> None:
    case = plain(cases.get("regions"))
    weight = torch.tensor(WEIGHT[:3])
    assert_equal(monai_segloss.CrossEntropyLoss(sigmoid=True), torch.nn.BCEWithLogitsLoss(), case)
    peer = torch.nn.BCEWithLogitsLoss(pos_weight=weight.view(3, 1, 1, 1))
    assert_equal(monai_segloss.CrossEntropyLoss(sigmoid=True, weight=weight), peer, case)


@pytest.mark.parametrize("info", monai_segloss.list_losses(), ids=lambda info: info.key)
def test_metatensors_are_read_as_tensors(info: Any) -> None:
    case = cases.get("labels_3d")
    loss = prepared(info.cls(**info.example, **info.reading), case.input)
    found = loss(MetaTensor(case.input), MetaTensor(case.target), spacing=torch.ones(3))
    assert type(found) is Tensor
    assert torch.equal(found, loss(case.input, case.target, spacing=torch.ones(3)))
