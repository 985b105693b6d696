"""Compound losses: what they are made of, what they refuse, and faults of other implementations that they do not have."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from harness import of, same

import monai_segloss
from monai_segloss.testing import cases
from monai_segloss.testing.harness import gradient, refused, value

LABELS = ("labels_3d", "two_classes", "five_classes", "ignored", "ignored_sample", "empty_class")
REGIONS = ("one_class", "regions", "regions_masked")


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("kind", ["asymmetric", "symmetric"])
def test_unified_focal_without_exponent_is_weighted_cross_entropy_and_tversky(name: str, kind: str) -> None:
    case, lam, delta = cases.get(name), 0.25, 0.75
    weight = [1 - delta, *[delta] * (case.classes - 1)]
    ce = of("weighted_cross_entropy", case, weight=weight, normalize="voxels")
    tversky = of("tversky", case, alpha=1 - delta, beta=delta)
    found = of("unified_focal", case, kind=kind, lam=lam, delta=delta, gamma=0.0)
    same(found, lam * ce + (1 - lam) * tversky)


@pytest.mark.parametrize("name", REGIONS)
def test_unified_focal_of_regions_is_focal_and_focal_tversky(name: str) -> None:
    """alpha and the exponent of sigmoid focal are delta and gamma of the symmetric kind."""
    case, delta, gamma = cases.get(name), 0.75, 0.25
    focal = of("focal", case, alpha=delta, gamma=gamma)
    tversky = of("focal_tversky", case, alpha=1 - delta, beta=delta, gamma=1 / (1 - gamma))
    same(of("unified_focal", case, kind="symmetric", delta=delta, gamma=gamma), (focal + tversky) / 2)


def test_a_region_is_the_two_class_problem_of_the_authors() -> None:
    """One channel and its complement: the cross-entropy part of two classes, and the foreground of the Tversky part."""
    case = cases.get("two_classes")
    z = case.input[:, 1:] - case.input[:, :1]
    for kind in ("asymmetric", "symmetric"):
        two = monai_segloss.create("unified_focal", kind=kind, lam=1.0, **case.reading)(case.input, case.target)
        one = monai_segloss.create("unified_focal", kind=kind, lam=1.0, sigmoid=True)(z, case.target.double())
        same(one, two)


def test_the_unified_focal_cross_entropy_is_not_halved() -> None:
    """MONAI averages it over the two channels too."""
    case = cases.get("two_classes")
    found = of("unified_focal", case, lam=1.0, delta=0.5, gamma=0.0)
    same(found, of("cross_entropy", case) / 2)


@pytest.mark.parametrize("name", [*REGIONS, "soft_regions"])
def test_combo_of_regions_is_binary_cross_entropy_and_dice(name: str) -> None:
    case, beta = cases.get(name), 0.75
    bce = (1 - beta) * of("binary_cross_entropy", case, pos_weight=beta / (1 - beta))
    dice = of("dice", case, smooth_nr=1.0, smooth_dr=1.0)
    same(of("combo", case, alpha=0.25, beta=beta), 0.25 * bce + 0.75 * dice)


def test_combo_scores_the_foreground_and_every_region() -> None:
    labels, regions = cases.get("labels_3d"), cases.get("regions")
    same(of("combo", labels), of("combo", labels, include_background=False))
    same(of("combo", regions), of("combo", regions, include_background=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of("combo", cases.get("one_class"))


def test_beta_of_combo_cancels_in_two_softmax_channels_with_the_background() -> None:
    case = cases.get("two_classes")
    low, high = (of("combo", case, alpha=1.0, beta=beta, include_background=True) for beta in (0.1, 0.9))
    same(low, high)
    assert of("combo", case, alpha=1.0, beta=0.1) != of("combo", case, alpha=1.0, beta=0.9)


def test_combo_punishes_false_foreground() -> None:
    """The authors' code rewards it: the second logarithm has the wrong sign there."""
    case = cases.get("regions")
    loss = monai_segloss.create("combo", alpha=1.0, beta=0.0, sigmoid=True)
    slope = gradient(loss, case)[1]
    assert (slope[~case.target] > 0).all()
    assert not slope[case.target].any()


@pytest.mark.parametrize("name", LABELS)
def test_exponential_logarithmic_with_gamma_one(name: str) -> None:
    case = cases.get(name)
    ce = of("exponential_logarithmic", case, gamma=1.0, lambda_dice=0.0, lambda_ce=1.0)
    same(ce, of("cross_entropy", case))
    f = [0.5**c for c in range(case.classes)]
    weight = [math.sqrt(sum(f) / x) for x in f]
    weighted = of("exponential_logarithmic", case, gamma=1.0, lambda_dice=0.0, lambda_ce=1.0, frequencies=f)
    same(weighted, of("weighted_cross_entropy", case, weight=weight, normalize="voxels"), rtol=1e-6)
    only_dice = {"gamma": 1.0, "lambda_dice": 1.0, "lambda_ce": 0.0}
    parts = monai_segloss.create("dice", smooth_nr=1.0, smooth_dr=1.0, reduction="none", **case.reading)
    present = case.valid.flatten(1).any(1)
    dice = value(parts, case).flatten(1)[present]
    same(of("exponential_logarithmic", case, **only_dice), (-torch.log(1 - dice)).mean())


def test_exponential_logarithmic_at_the_uniform_prediction() -> None:
    case = cases.get("five_classes")
    n, g = 0.3, case.onehot().flatten(2).sum(2)
    voxels = case.target[0].numel()
    d = (2 * g / 5 + 1) / (voxels / 5 + g + 1)
    expected = 0.8 * ((-d.log()) ** n).mean() + 0.2 * math.log(5) ** n
    same(of("exponential_logarithmic", case.with_input(0 * case.input)), expected)


def test_a_nearly_perfect_prediction_keeps_its_digits_and_a_finite_gradient() -> None:
    """-ln of a ratio in float32 is 0 or 6e-8 here, whose power .3 is 0 or 0.007."""
    case = cases.get("five_classes")
    for margin in (8.0, 12.0, 40.0):
        near = cases.perfect(case, margin / 2)
        for key in ("exponential_logarithmic", "unified_focal"):
            loss = monai_segloss.create(key, **case.reading)
            wide, narrow = gradient(loss, near), gradient(loss, near, near.input.float())
            torch.testing.assert_close(narrow[0].double(), wide[0], rtol=2e-3, atol=0)
            assert narrow[1].isfinite().all()


@pytest.mark.parametrize("smooth", [0.0, 1e-5])
def test_a_class_that_is_nowhere_predicted_is_asked_for(smooth: float) -> None:
    """-ln D grows without bound; taken from 1 - D in float32, it stays at 16 and has no gradient."""
    label = torch.tensor([[[0, 0, 0, 1]]])
    logits = torch.tensor([[[12.0] * 4, [-12.0] * 4]], dtype=torch.float64)
    loss = monai_segloss.create(
        "exponential_logarithmic", lambda_ce=0.0, smooth_nr=smooth, smooth_dr=smooth, softmax=True, to_onehot_y=True
    )
    p = torch.softmax(logits[0], 0)
    d = torch.stack(
        [(2 * p[0, :3].sum() + smooth) / (p[0].sum() + 3 + smooth), (2 * p[1, 3] + smooth) / (p[1].sum() + 1 + smooth)]
    )
    expected = 0.8 * ((-d.log()) ** 0.3).mean()
    found = []
    for dtype in (torch.float32, torch.float64):
        leaf = logits.to(dtype).requires_grad_()
        value = loss(leaf, label)
        found.append(torch.autograd.grad(value, leaf)[0].double())
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-9)
    assert found[0][0, 1, 3] < (-1e-2 if smooth == 0 else -1e-7)
    never = loss(torch.tensor([[[200.0] * 4, [-200.0] * 4]], requires_grad=True), label)
    assert never.isfinite()


def test_a_class_that_never_occurs_gets_the_weight_of_the_rarest() -> None:
    case = cases.get("labels_3d")
    never = of("exponential_logarithmic", case, frequencies=[6.0, 2.0, 0.0])
    same(never, of("exponential_logarithmic", case, frequencies=[0.75, 0.25, 0.0]), rtol=1e-6)
    assert never.isfinite()
    one = cases.get("regions")
    assert of("exponential_logarithmic", one, frequencies=[0.0, 1.0, 0.5]).isfinite()


def test_class_weights_of_a_term_beside_its_own_weight() -> None:
    case, weights = cases.get("labels_3d"), [0.5, 1.0, 2.0]
    expected = 0.25 * of("dice", case, weight=weights) + 3 * of("cross_entropy", case, weight=weights[::-1])
    terms = {
        "dice": {"weight": 0.25, "class_weight": weights},
        "cross_entropy": {"weight": 3, "class_weight": weights[::-1]},
    }
    same(monai_segloss.WeightedSum(terms, **case.reading)(case.input, case.target, **case.call), expected)
    config = monai_segloss.LossConfig(terms=terms)
    same(config.build(**case.reading)(case.input, case.target, **case.call), expected)
    with pytest.raises(TypeError, match="class_weight: the loss 'lovasz_softmax' has no class weights"):
        monai_segloss.WeightedSum({"lovasz_softmax": {"class_weight": weights}})
    with pytest.raises(ValueError, match="class_weight: the loss 'lovasz_softmax' has no class weights"):
        monai_segloss.LossConfig(terms={"lovasz_softmax": {"class_weight": weights}})


def test_what_is_refused() -> None:
    create = monai_segloss.create
    refused((ValueError, "kind must be 'asymmetric' or 'symmetric', got 'sym'"), create, "unified_focal", kind="sym")
    for name, bad in (("lam", 1.5), ("delta", -0.1), ("gamma", 1.0), ("gamma", math.nan)):
        refused((ValueError, name), create, "unified_focal", **{name: bad})
    for name in ("alpha", "beta"):
        refused((ValueError, name), create, "combo", **{name: 1.5})
    refused((ValueError, "gamma must be above 0"), create, "exponential_logarithmic", gamma=0.0)
    for bad in ([0.0, 0.0], 0.5, [-1.0, 2.0], [math.nan, 1.0]):
        refused((ValueError, "frequencies"), create, "exponential_logarithmic", frequencies=bad)
    refused((ValueError, r"frequencies.*\[0, 1\]"), create, "exponential_logarithmic", sigmoid=True, frequencies=[2.0])
    loss = create("exponential_logarithmic", softmax=True, to_onehot_y=True, frequencies=[0.5, 0.5])
    case = cases.get("labels_3d")
    refused((ValueError, "frequencies has 2 values for 3"), loss, case.input, case.target)


def test_a_checkpoint_from_before_compounds_were_sums_is_read() -> None:
    """Class weights and alpha stood in the loss itself, and there were no means of terms."""
    weight, alpha = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64)
    for loss, state in (
        (monai_segloss.DiceCELoss(softmax=True), {}),
        (monai_segloss.DiceCELoss(softmax=True, weight=[1, 2]), {"class_weight": weight}),
        (
            monai_segloss.DiceFocalLoss(softmax=True, weight=[1, 2], alpha=0.25),
            {"class_weight": weight, "alpha": alpha},
        ),
        (monai_segloss.DiceCEBoundaryLoss(softmax=True), {"_extra_state": {"means": {"dice": 0.5}}}),
    ):
        before = {name: x.clone() for name, x in loss.state_dict().items() if isinstance(x, torch.Tensor)}
        loss.load_state_dict(dict(state))
        after = loss.state_dict()
        assert all(torch.equal(x, after[name]) for name, x in before.items())
        assert loss.means == state.get("_extra_state", {"means": {}})["means"]
    with pytest.raises(RuntimeError, match="Unexpected key"):
        monai_segloss.DiceCELoss(softmax=True).load_state_dict({"something": weight})


def test_weights_of_a_compound_are_attributes_and_numbers_are_not_logged() -> None:
    loss = monai_segloss.DiceCELoss(lambda_ce=2, softmax=True)
    assert (loss.lambda_dice, loss.lambda_ce, loss.term_weights) == (1.0, 2.0, {})
    loss = monai_segloss.DiceBoundaryLoss(lambda_dice=1, lambda_boundary=0.5, softmax=True)
    assert (loss.lambda_dice, loss.lambda_boundary) == (1.0, 0.5)
    assert loss.term_weights == {"dice": 1.0, "boundary": 0.5}
    loss = monai_segloss.DiceBoundaryLoss(softmax=True)
    assert loss.lambda_boundary.mapping["schedule"] == "rebalance"
    loss.set_epoch(9)
    assert loss.term_weights == pytest.approx({"dice": 0.9, "boundary": 0.1})
