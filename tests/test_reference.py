"""Value and gradient of every loss on every case equal the independent NumPy formula; closed forms of the catalog."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from references import PUBLISHED, REFERENCES, UNIFORM
from references import reference as enter

import monai_segloss
from monai_segloss.core.module import DEFAULTS, READING, SegLoss
from monai_segloss.core.registry import LossInfo
from monai_segloss.losses.boundary.hausdorff_er import NORMS
from monai_segloss.losses.learned.adversarial import CRITERIA
from monai_segloss.maps.distance import MODES
from monai_segloss.testing import cases
from monai_segloss.testing.cases import Case
from monai_segloss.testing.harness import gradient, make, supported, value
from monai_segloss.testing.properties.arguments import another, apart

ENTRIES = monai_segloss.list_losses()
STEP = 1e-5
# Fourth-order central difference: offset in steps -> coefficient.
STENCIL = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}


def reference(info: LossInfo, case: Case, input: np.ndarray, **arguments: Any) -> Any:
    mask = None if case.mask is None else case.mask.numpy()
    common = {"labels": case.labels, "ignore_index": case.ignore_index, "spacing": case.spacing}
    given = {**common, **info.example, **arguments}
    if "weights" in inspect.signature(REFERENCES[info.key]).parameters:  # of what the loss brings along
        own = {name: value for name, value in arguments.items() if name in info.parameters}
        given["weights"] = weights(make(info, case, **own))
    return REFERENCES[info.key](input, case.target.numpy(), case.activation, mask, **given)


def weights(loss: SegLoss) -> dict[str, np.ndarray]:
    """Parameters of heads, priors and opponents by name."""
    found = {name: x.numpy() for name, x in loss.state_dict().items() if isinstance(x, torch.Tensor)}
    for name, opponent in getattr(loss, "opponents", {}).items():
        found |= {f"opponents.{name}.{key}": x.numpy() for key, x in opponent.network.state_dict().items()}
    return found


def settings(info: LossInfo, case: Case) -> Iterator[dict[str, Any]]:
    """The example, then each argument of the formula changed by itself, then all of them that combine."""
    yield {}
    yield from ({name: given} for name, given in changed(info, case).items())
    yield combined(info, case)


def changed(info: LossInfo, case: Case) -> dict[str, Any]:
    """Another value of each argument of the formula."""
    own = {name: p for name, p in info.parameters.items() if not apart(name, p.default)}
    return {name: another(name, parameter.default, case) for name, parameter in own.items()}


def combined(info: LossInfo, case: Case, **fixed: Any) -> dict[str, Any]:
    """All of these values that neither `fixed` nor one before them excludes."""
    together: dict[str, Any] = {}
    for name, given in changed(info, case).items():
        for one in (given, given[1:]) if name == "weight" else (given,):  # of all classes, or of the scored ones
            try:
                value(make(info, case, **fixed, **together, **{name: one}), case)
            except ValueError:
                continue
            together[name] = one
            break
    return together


def one_sided(at: Callable[[float], Any]) -> tuple[float, float]:
    """The slopes on both sides at a hundredth of the step, in order: losses that sort have kinks next to a voxel's value.

    Where there is none they differ by the curvature over that distance only.
    """
    near = STEP / 100
    slopes = sorted(((at(0) - at(-near)) / near, (at(near) - at(0)) / near))
    slack = 1e-5 * max(map(abs, slopes)) + 1e-8
    return slopes[0] - slack, slopes[1] + slack


def compare(info: LossInfo, case: Case, **arguments: Any) -> None:
    try:
        loss = make(info, case, **arguments)
    except ValueError as error:  # an argument that the activation excludes: the refusal has its own test
        if not arguments or "sigmoid" not in str(error):
            raise
        return
    found, slope = gradient(loss, case)
    what = f"{info.key} on {case.name} with {arguments}"
    expected = reference(info, case, case.input.numpy(), **arguments)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12, err_msg=what)
    rng = np.random.default_rng(0)
    for direction in rng.standard_normal((2, *case.input.shape)):

        def at(t: float, direction: np.ndarray = direction) -> Any:
            """What carries no gradient stays where it is."""
            input = case.input.numpy()
            return reference(info, case, input + t * direction, at=input, **arguments)

        derivative = sum(c * at(k * STEP) for k, c in STENCIL.items()) / STEP
        along = float((slope.numpy() * direction).sum())
        if not np.isclose(along, derivative, rtol=1e-5, atol=1e-8):
            low, high = one_sided(at)
            assert low <= along <= high, (
                f"gradient of {what}: {along}, but {derivative} by differences, {low} to {high}"
            )


@pytest.mark.parametrize("info", ENTRIES, ids=lambda info: info.key)
def test_every_loss_has_a_reference(info: LossInfo) -> None:
    assert info.key in REFERENCES


@pytest.mark.parametrize("info", ENTRIES, ids=lambda info: info.key)
def test_defaults_are_those_that_the_reference_states(info: LossInfo) -> None:
    own = {name: p.default for name, p in info.parameters.items() if name not in READING}
    off = {name: value for name, value in own.items() if value is None or value is False}
    assert PUBLISHED[info.key] == {
        name: value for name, value in own.items() if value != {**off, **DEFAULTS}.get(name, ...)
    }


def test_a_reference_ignores_no_argument_and_repeats_no_default() -> None:
    case = cases.get("labels_3d")
    read = (case.input.numpy(), case.target.numpy(), case.activation)
    with pytest.raises(TypeError, match="reference of focal ignores use_softmax, but got True"):
        REFERENCES["focal"](*read, labels=True, use_softmax=True)
    REFERENCES["focal"](*read, labels=True, use_softmax=False)
    with pytest.raises(TypeError, match="dice_ce has no argument 'gamma'"):
        REFERENCES["dice_ce"](*read, labels=True, gamma=2.0)
    with pytest.raises(TypeError, match="dice: the loss has no arguments"):
        enter("dice")(lambda r, tau: r.p)
    with pytest.raises(TypeError, match="dice: the defaults of"):
        enter("dice")(lambda r, smooth_nr=1e-5: r.p)


@pytest.mark.parametrize("name", cases.BUILDERS)
@pytest.mark.parametrize("info", ENTRIES, ids=lambda info: info.key)
def test_value_and_gradient(info: LossInfo, name: str) -> None:
    for case in supported(info, name):
        compare(info, case)


@pytest.mark.parametrize("name", ["five_classes", "regions_masked", "soft_labels", "ignored_sample"])
@pytest.mark.parametrize("info", ENTRIES, ids=lambda info: info.key)
def test_value_and_gradient_with_other_arguments(info: LossInfo, name: str) -> None:
    for case in supported(info, name):
        for arguments in settings(info, case):
            compare(info, case, **arguments)


WORDS = {"mode": MODES, "norm": NORMS, "criterion": tuple(CRITERIA)}
"""Arguments of more than two words, of which the test above takes one."""


@pytest.mark.parametrize(
    ("info", "name", "word"),
    [
        pytest.param(info, name, word, id=f"{info.key}-{word}")
        for info in ENTRIES
        for name in WORDS.keys() & info.parameters.keys()
        for word in WORDS[name]
    ],
)
def test_every_word(info: LossInfo, name: str, word: str) -> None:
    """Voxels that are no cubes, and holes of ignored ones."""
    case = cases.get("five_classes")
    mask = torch.from_numpy(np.random.default_rng(0).random(case.valid.shape) < 0.8)
    compare(info, replace(case, mask=mask), **{name: word})


@pytest.mark.parametrize("info", ENTRIES, ids=lambda info: info.key)
def test_reductions(info: LossInfo) -> None:
    for case in supported(info, "labels_3d", "ignored_sample", "regions_masked", "soft_labels"):
        for how in ("sum",) if info.cls.scalar_only else ("sum", "none"):
            for arguments in ({}, combined(info, case, reduction=how)):
                found = value(make(info, case, reduction=how, **arguments), case)
                expected = reference(info, case, case.input.numpy(), reduction=how, **arguments)
                message = f"{how} of {info.key} on {case.name} with {arguments}"
                np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12, err_msg=message)


@pytest.mark.parametrize("info", ENTRIES, ids=lambda info: info.key)
def test_single_precision(info: LossInfo) -> None:
    for case in supported(info):
        found, slope = gradient(make(info, case), case, case.input.float())
        expected, wide = gradient(make(info, case), case)
        torch.testing.assert_close(found.double(), expected, rtol=2e-4, atol=2e-6)
        torch.testing.assert_close(slope.double(), wide, rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize("key", UNIFORM)
def test_closed_form_at_the_uniform_prediction(key: str) -> None:
    """Logits 0 and no smoothing: the catalog's formula in the volume of each class."""
    info = monai_segloss.find(key)
    smooth = {name: 0.0 for name in ("smooth_nr", "smooth_dr") if name in info.parameters}
    for name in ("labels_3d", "two_classes", "five_classes"):
        case = cases.get(name)
        found = value(make(info, case, **smooth), case, 0 * case.input)
        volumes = case.onehot().flatten(2).sum(2).numpy()
        voxels = case.target[0].numel()
        expected = np.mean([closed_form(key)(v, voxels, case.classes) for v in volumes.flatten()])
        assert float(found) == pytest.approx(expected, rel=1e-9)


def closed_form(key: str) -> Callable[[float, float, int], float]:
    return UNIFORM[key]


MAPPED = {"cross_entropy": "weight", "weighted_cross_entropy": "weight", "binary_cross_entropy": "pos_weight"}


@pytest.mark.parametrize("how", ["mean", "sum", "none"])
@pytest.mark.parametrize("key", MAPPED)
def test_a_weight_map_weighs_voxels(key: str, how: str) -> None:
    info = monai_segloss.find(key)
    for case in supported(info, "labels_3d", "soft_labels", "ignored", "regions_masked", "soft_regions"):
        weights = torch.rand(case.valid.shape, dtype=torch.float64)
        factors = [1.0 + 0.5 * c for c in range(case.classes)]
        for arguments in ({}, {MAPPED[key]: factors}):
            loss = make(info, case, reduction=how, **arguments)
            expected = reference(info, case, case.input.numpy(), weight_map=weights.numpy(), reduction=how, **arguments)
            for sent in (weights, weights[:, 0]):
                found = loss(case.input, case.target, **case.call, weight_map=sent)
                np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, err_msg=case.name)
            packed = {"label": case.target, "weight_map": weights, **({} if case.mask is None else {"mask": case.mask})}
            assert torch.equal(loss(case.input, packed), found)


def test_focal_tversky_refuses_the_other_convention_of_gamma() -> None:
    with pytest.raises(ValueError, match=r"gamma.*0\.75.*4/3"):
        monai_segloss.create("focal_tversky", gamma=0.75)


def test_ranges_of_percentages_and_smoothing() -> None:
    for k in (0.0, 100.5):
        with pytest.raises(ValueError, match="k is a percentage"):
            monai_segloss.create("topk_cross_entropy", k=k)
    with pytest.raises(ValueError, match="label_smoothing"):
        monai_segloss.create("cross_entropy", label_smoothing=1.0)
    with pytest.raises(ValueError, match="alpha"):
        monai_segloss.create("focal", alpha=1.5)


def test_identities_between_losses() -> None:
    """The catalog's identities: members of one family meet at special arguments."""
    case = cases.get("five_classes")

    def of(key: str, **arguments: Any) -> torch.Tensor:
        return value(monai_segloss.create(key, **case.reading, **arguments), case)

    dice, ce = of("dice"), of("cross_entropy")
    torch.testing.assert_close(of("tversky", alpha=0.5, beta=0.5, smooth_nr=5e-6, smooth_dr=5e-6), dice)
    torch.testing.assert_close(
        of("tversky", alpha=1.0, beta=1.0, smooth_nr=5e-6, smooth_dr=5e-6), of("dice", jaccard=True)
    )
    torch.testing.assert_close(of("focal_tversky", gamma=1.0), of("tversky", alpha=0.3, beta=0.7))
    torch.testing.assert_close(of("focal", gamma=0.0), ce)
    torch.testing.assert_close(of("topk_cross_entropy", k=100), ce)
    torch.testing.assert_close(of("dice_ce"), dice + ce)
    soft = replace(case, labels=False, target=case.onehot())
    torch.testing.assert_close(value(monai_segloss.create("dice", softmax=True, soft_label=True), soft), dice)
