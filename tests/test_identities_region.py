"""Overlap losses: identities and closed forms of the catalog, refusals, named faults that ours do not have."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import monai_segloss
from monai_segloss.losses.region.log_cosh_dice import log_cosh
from monai_segloss.losses.region.lovasz_softmax import jaccard_steps
from monai_segloss.losses.region.mcc import mcc
from monai_segloss.testing import cases
from monai_segloss.testing.cases import Case
from monai_segloss.testing.harness import assert_close, gradient, make, refused, value
from monai_segloss.testing.properties.arguments import distances

HARD = ("labels_3d", "five_classes", "empty_class", "ignored", "regions_masked")
UNSMOOTHED = {"smooth_nr": 0.0, "smooth_dr": 0.0}


def of(key: str, case: Case, **arguments: Any) -> tuple[Tensor, Tensor]:
    return gradient(make(monai_segloss.find(key), case, **arguments), case)


def same(case: Case, one: tuple[str, dict[str, Any]], other: tuple[str, dict[str, Any]]) -> None:
    """Value and gradient of two losses."""
    (a, da), (b, db) = (of(key, case, **arguments) for key, arguments in (one, other))
    assert_close(a, b, f"{case.name}: {one} and {other}")
    assert_close(da, db, f"{case.name}: gradient of {one} and {other}", atol=1e-12)


IDENTITIES: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = [
    (("jaccard", {}), ("tversky", {"alpha": 1.0, "beta": 1.0})),
    (("jaccard", {"smooth_nr": 5e-6, "smooth_dr": 5e-6}), ("dice", {"jaccard": True})),
    (("jaccard_metric", {}), ("jaccard", {})),
    (("dice_metric", {}), ("dice", {})),
    (("tversky_metric", {}), ("tversky", {"alpha": 0.3, "beta": 0.7})),
    (("asymmetric_similarity", {"beta": 1.5}), ("tversky", {"alpha": 1 / 3.25, "beta": 2.25 / 3.25})),
    (("asymmetric_similarity", {"beta": 1.0, "smooth_nr": 5e-6, "smooth_dr": 5e-6}), ("dice", {})),
    (("penalty_generalized_dice", {"k": 0.0}), ("generalized_dice", {})),
    (("noise_robust_dice", {"gamma": 2.0}), ("dice", {"squared_pred": True})),
    (("hardness_weighted_dice", {"lam": 0.0}), ("dice", {})),
    (("generalized_dice", UNSMOOTHED), ("generalized_dice", {"scale_free": False, **UNSMOOTHED})),
]


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize(("one", "other"), IDENTITIES, ids=lambda side: f"{side[0]}-{len(side[1])}")
def test_members_of_the_family_meet(
    name: str, one: tuple[str, dict[str, Any]], other: tuple[str, dict[str, Any]]
) -> None:
    same(cases.get(name), one, other)


@pytest.mark.parametrize("key", ["jaccard", "dice", "tversky"])
def test_the_l1_form_is_right_for_soft_labels(key: str) -> None:
    """Smallest at p = g; the product form is smallest at a corner."""
    g = torch.full((1, 1, 8), 0.3)

    def at(p: float, loss: Any) -> float:
        return float(loss(torch.full_like(g, p), g))

    plain, metric = monai_segloss.create(key, **UNSMOOTHED), monai_segloss.create(f"{key}_metric")
    assert at(0.3, metric) == 0 < min(at(0.0, metric), at(0.6, metric), at(1.0, metric))
    assert at(1.0, plain) < at(0.6, plain) < at(0.3, plain)


def test_the_members_of_the_l1_family_meet_on_soft_labels() -> None:
    """Tversky at 1/2 is Dice, at 1 Jaccard; both are the ``soft_label`` form of the losses without metric in their name."""
    for name in ("soft_labels", "soft_regions"):
        case = cases.get(name)
        same(case, ("dice_metric", {}), ("dice", {"soft_label": True}))
        same(case, ("tversky_metric", {}), ("tversky", {"alpha": 0.3, "beta": 0.7, "soft_label": True}))
        same(case, ("tversky_metric", {"alpha": 0.5, "beta": 0.5, **UNSMOOTHED}), ("dice_metric", UNSMOOTHED))
        same(case, ("tversky_metric", {"alpha": 1.0, "beta": 1.0}), ("jaccard_metric", {}))


def test_penalty_weighs_errors_and_not_hits() -> None:
    """1 - 2 TP / (2 TP + (1 + k)(FP + FN)); feeding the loss instead of the coefficient would weigh TP."""
    case = cases.get("one_class")
    p, g = torch.sigmoid(case.input), case.target
    tp, error = (p * g).flatten(1).sum(1), ((p - p * g) + (g - p * g)).flatten(1).sum(1)
    expected = (1 - 2 * tp / (2 * tp + 3.5 * error)).mean()
    assert_close(of("penalty_generalized_dice", case, **UNSMOOTHED)[0], expected, "k = 2.5")


@pytest.mark.parametrize("name", HARD[:4])
def test_uniform_weights_give_the_soft_accuracy(name: str) -> None:
    case = cases.get(name)
    hits = (torch.softmax(case.input, 1) * case.onehot() * case.valid).flatten(1).sum(1) / case.valid.flatten(1).sum(1)
    assert_close(of("generalized_dice", case, w_type="uniform", **UNSMOOTHED)[0], 1 - hits.mean(), name)


def test_two_classes_and_distance_one_give_the_dice_of_the_foreground() -> None:
    case = cases.get("two_classes")
    same(case, ("generalized_wasserstein_dice", {}), ("dice", {"include_background": False}))
    same(
        case, ("generalized_wasserstein_dice", {"batch": True}), ("dice", {"include_background": False, "batch": True})
    )


def test_a_long_volume_is_summed_in_chunks() -> None:
    """More voxels than one matrix product takes."""
    torch.manual_seed(0)
    logits, label = torch.randn(1, 3, 70001, dtype=torch.float64), torch.randint(0, 3, (1, 70001))
    case = Case("long", logits, label)
    loss = make(monai_segloss.find("generalized_wasserstein_dice"), case)
    p, g = torch.softmax(logits, 1), torch.nn.functional.one_hot(label, 3).mT
    w = 1 - (p * g).sum(1)
    tp = (1 - w[label > 0]).sum()
    assert_close(value(loss, case), (w.sum() + 0) / (2 * tp + w.sum() + 1e-5), "chunks")


def test_sums_of_the_other_forms() -> None:
    """Sensitivity-specificity and overlap as functions of the sums in the catalog's table."""
    case = cases.get("five_classes")
    p, g = torch.softmax(case.input, 1).flatten(2), case.onehot().flatten(2)
    n, big_g, tp = float(p.shape[2]), g.sum(2), (p * g).sum(2)
    p_sq, tp_sq = (p**2).sum(2), (p**2 * g).sum(2)
    on, off = (big_g - 2 * tp + tp_sq) / big_g, (p_sq - tp_sq) / (n - big_g)
    assert_close(of("sensitivity_specificity", case, smooth_dr=0.0)[0], (0.05 * on + 0.95 * off).mean(), "squared")
    linear = 0.05 * (1 - tp / big_g) + 0.95 * (p - p * g).sum(2) / (n - big_g)
    assert_close(of("sensitivity_specificity", case, smooth_dr=0.0, squared=False)[0], linear.mean(), "linear")
    assert_close(of("overlap", case)[0], ((n - p_sq.sum(1)) / (2 * n)).mean(), "overlap")


def test_a_class_without_voxels_has_no_misses() -> None:
    for key in ("sensitivity_specificity", "noise_robust_dice"):
        found, slope = of(key, cases.get("empty_class"), smooth_dr=0.0)
        assert found.isfinite()
        assert slope.isfinite().all()


def test_overlap_does_not_read_the_labels() -> None:
    case = cases.get("labels_3d")
    assert torch.equal(of("overlap", case)[0], of("overlap", replace(case, target=(case.target + 1) % 3))[0])


def test_log_cosh() -> None:
    """Of each entry at least that of the mean; exact near 0, no overflow far away."""
    case = cases.get("five_classes")
    assert of("log_cosh_dice", case)[0] >= of("log_cosh_dice", case, elementwise=False)[0]
    x = torch.tensor([0.0, 1e-5, -1e-3, 0.5, 1.0, -3.0, 1e5], requires_grad=True)
    y = log_cosh(x)
    exact = torch.logaddexp(x.double(), -x.double()) - math.log(2)
    exact[1:3] = x.double()[1:3] ** 2 / 2 - x.double()[1:3] ** 4 / 12
    torch.testing.assert_close(y.double(), exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], torch.tanh(x), rtol=1e-5, atol=0)
    refused((ValueError, "elementwise"), monai_segloss.create, "log_cosh_dice", elementwise=False, reduction="none")


# -- generalized Dice ---------------------------------------------------------------------------------------------


def swapped(volume: int) -> tuple[Tensor, Tensor]:
    """Two classes of that volume, both predicted wholly wrong."""
    g = torch.zeros(1, 2, 2 * volume)
    g[0, 0, :volume], g[0, 1, volume:] = 1, 1
    return g.flip(1), g


@pytest.mark.parametrize("volume", [100, 10_000, 1_000_000])
def test_large_structures_wholly_wrong_cost_one(volume: int) -> None:
    p, g = swapped(volume)
    assert monai_segloss.create("generalized_dice")(p, g) == pytest.approx(1, abs=1e-6)


def test_undivided_weights_let_the_smoothing_rule() -> None:
    """The fault of MONAI's form that the default has not."""
    p, g = swapped(1_000_000)
    assert monai_segloss.create("generalized_dice", scale_free=False)(p, g) == pytest.approx(0.286, abs=1e-3)


def test_an_absent_class_does_not_take_all_of_the_weight() -> None:
    label = torch.zeros(1, 1, 100, dtype=torch.long)
    label[..., :40] = 1
    logits = 8.0 * torch.nn.functional.one_hot(label[:, 0], 3).mT.float()
    for scale_free in (True, False):
        loss = monai_segloss.create("generalized_dice", softmax=True, to_onehot_y=True, scale_free=scale_free)
        assert loss(logits, label) < 0.01


def test_a_sample_without_any_scored_class_costs_nothing() -> None:
    case = cases.get("empty_class")
    parts = value(make(monai_segloss.find("generalized_dice"), case, include_background=False, reduction="none"), case)
    assert parts[0] > 0
    assert parts[1] == 0


def test_closed_form_of_the_pooled_losses() -> None:
    """At the uniform prediction, per sample."""
    for name in ("labels_3d", "five_classes"):
        case = cases.get(name)
        volumes, n, c = case.onehot().flatten(2).sum(2), case.target[0].numel(), case.classes
        flat = replace(case, input=0 * case.input)
        for exponent, w_type in enumerate(("uniform", "simple", "square")):
            w = volumes**-exponent
            expected = 1 - 2 * (w * volumes / c).sum(1) / (w * (n / c + volumes)).sum(1)
            assert_close(of("generalized_dice", flat, w_type=w_type, **UNSMOOTHED)[0], expected.mean(), w_type)
        tp = (n - volumes[:, 0]) / c
        expected = 1 - 2 * tp / (2 * tp + n * (1 - 1 / c))
        assert_close(of("generalized_wasserstein_dice", flat, **UNSMOOTHED)[0], expected.mean(), name)


# -- Matthews correlation -----------------------------------------------------------------------------------------


def table(*counts: float, dtype: torch.dtype = torch.float32, **arguments: float) -> Tensor:
    tp, fp, fn, tn = (torch.tensor([[x]], dtype=dtype) for x in counts)
    n = monai_segloss.core.counts.Counts(tp, fp, fn, tp + fp + fn + tn)
    return mcc(n, tn, **arguments)


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e11])
def test_counts_do_not_overflow(scale: float) -> None:
    """The product of four counts leaves float32 at 8e9 voxels."""
    assert table(3 * scale, scale, 2 * scale, 5 * scale) == pytest.approx(1 - 13 / math.sqrt(4 * 5 * 6 * 7), rel=1e-6)


@pytest.mark.parametrize(
    "counts", [(5.0, 1e-4, 2e-4, 2e6), (1e6, 0.5, 0.25, 1e6), (3.0, 40.0, 50.0, 7.0)], ids=["tiny", "good", "inverted"]
)
def test_small_losses_keep_their_digits(counts: tuple[float, ...]) -> None:
    assert table(*counts) == pytest.approx(float(table(*counts, dtype=torch.float64)), rel=1e-5)
    tp, fp, fn, tn = counts
    plain = 1 - (tp * tn - fp * fn + 2) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn) + 3)
    smoothed = table(*counts, dtype=torch.float64, smooth_nr=2.0, smooth_dr=3.0)
    assert smoothed == pytest.approx(plain, rel=1e-6, abs=1e-13)


def test_a_class_without_correlation_leaves_the_mean() -> None:
    """MONAI's value there is a constant 1 without gradient, and 0 at exactly nothing predicted."""
    case = cases.get("empty_class")
    found = value(make(monai_segloss.find("mcc"), case, reduction="none"), case).flatten(1)
    assert (found[1] == 0).all()
    assert found[0, 2] == 0
    assert_close(of("mcc", case)[0], found[0, :2].mean(), "two classes are left")
    everywhere = replace(case, target=torch.zeros_like(case.target))
    found, slope = of("mcc", everywhere)
    assert found == 0
    assert not slope.any()


def test_both_channels_of_two_classes_correlate_alike() -> None:
    case = cases.get("two_classes")
    found = value(make(monai_segloss.find("mcc"), case, reduction="none"), case)
    assert_close(found[:, 0], found[:, 1], "channels")


# -- Lovász -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_image", [True, False])
def test_lovasz_extends_the_jaccard_loss(per_image: bool) -> None:
    """On hard predictions it is the Jaccard loss."""
    case = cases.get("five_classes")
    wrong = replace(case, input=200 * torch.nn.functional.one_hot(case.input.argmax(1), 5).movedim(-1, 1).double())
    same(wrong, ("lovasz_softmax", {"per_image": per_image}), ("jaccard", {"batch": not per_image, **UNSMOOTHED}))


def test_absent_classes() -> None:
    """Present: left out; all: their largest probability."""
    case = cases.get("empty_class")
    first = replace(case, input=case.input[:1], target=case.target[:1])
    present, every = (of("lovasz_softmax", first, classes=classes)[0] for classes in ("present", "all"))
    largest = torch.softmax(first.input, 1)[:, 2].max()
    assert_close(every, (2 * present + largest) / 3, "all")


def test_the_image_of_a_batch_of_one_is_the_batch() -> None:
    for key in ("lovasz_softmax", "lovasz_hinge"):
        case = cases.get("tiny")
        same(case, (key, {"per_image": True}), (key, {"per_image": False}))


def test_hinge_reads_logits() -> None:
    """Two classes are one problem with the score z1 - z0; beyond the margin nothing is lost."""
    case = cases.get("two_classes")
    binary = Case("binary", case.input[:, 1:] - case.input[:, :1], case.target.double(), "sigmoid", labels=False)
    assert_close(of("lovasz_hinge", case)[0], of("lovasz_hinge", binary)[0], "binary")
    right = replace(binary, input=2.0 * (2 * binary.target - 1))
    assert of("lovasz_hinge", right)[0] == 0
    assert of("lovasz_hinge", replace(right, input=right.input / 4))[0] > 0


@pytest.mark.parametrize("name", ["two_classes", "labels_3d", "five_classes"])
def test_where_the_hinge_is_0_the_largest_logit_is_right(name: str) -> None:
    """Also the logit of the background is trained: one class per voxel is told by the largest."""
    case = cases.get(name)
    loss = make(monai_segloss.find("lovasz_hinge"), case)
    assert gradient(loss, case)[1][:, 0].any()
    moved = case.input + torch.randn_like(case.input[:, :1])
    assert_close(value(loss, case, moved), value(loss, case), "all logits of a voxel together")
    logits = case.input.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        lost = loss(logits, case.target, **case.call)
        lost.backward()
        optimizer.step()
    assert lost.item() < 1e-3
    assert (logits.argmax(1, keepdim=True) == case.target.reshape(logits[:, :1].shape)).all()


def test_hinge_is_convex() -> None:
    case = cases.get("regions")
    loss = make(monai_segloss.find("lovasz_hinge"), case)
    ends = [3 * torch.randn(case.input.shape, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1)]
    a, b = (value(loss, case, x) for x in ends)
    for t in (0.1, 0.5, 0.9):
        assert value(loss, case, t * ends[0] + (1 - t) * ends[1]) <= t * a + (1 - t) * b + 1e-12


def test_steps_are_those_of_the_jaccard_loss() -> None:
    g = torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.2
    for mask in (g, ~g, torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)):
        wrong = torch.arange(1, len(mask) + 1)
        union = mask.sum() + wrong - mask.cumsum(0)
        found = jaccard_steps(mask, torch.float64)
        assert_close(found.cumsum(0), wrong / union.double(), "sum of steps")
        assert (found >= 0).all()


@pytest.mark.parametrize("classes", [2, 6])
def test_lovasz_keeps_one_map_of_slopes(classes: int) -> None:
    """For the backward pass: probabilities, slopes and the boolean target, and no sorted copy or order."""
    logits = torch.randn(1, classes, 4096, requires_grad=True)
    label = torch.randint(0, classes, (1, 1, 4096))
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        monai_segloss.create("lovasz_softmax", softmax=True, to_onehot_y=True)(logits, label)
    one = 4 * logits.numel()
    assert sum(kept.values()) < 2.5 * one


def test_nan_of_an_absent_channel_is_not_hidden() -> None:
    case = cases.get("empty_region")
    input = case.input.clone()
    input[0, 2, 0, 0, 0] = torch.nan
    assert value(make(monai_segloss.find("lovasz_softmax"), case), case, input).isnan()


# -- refusals -----------------------------------------------------------------------------------------------------


WASSERSTEIN = "generalized_wasserstein_dice"
REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("generalized_dice", {"w_type": "cubic"}, "w_type.*'square'"),
    ("penalty_generalized_dice", {"w_type": None}, "w_type"),
    ("noise_robust_dice", {"gamma": 0.9}, r"gamma.*\[1, 2\]"),
    ("hardness_weighted_dice", {"lam": 1.1}, r"lam.*\[0, 1\]"),
    ("sensitivity_specificity", {"r": 1.1}, r"r must.*\[0, 1\]"),
    ("lovasz_softmax", {"classes": "some"}, "classes.*'present'"),
    (WASSERSTEIN, {"sigmoid": True}, "sigmoid"),
    (WASSERSTEIN, {"weighting_mode": "gdl"}, "weighting_mode.*'GDL'"),
    (WASSERSTEIN, {"dist_matrix": [[0.0, 1.0]]}, r"dist_matrix.*\(1, 2\)"),
    (WASSERSTEIN, {"dist_matrix": [[0.0, 1.0], [1.0, 1.0]]}, "dist_matrix.*diagonal"),
    (WASSERSTEIN, {"dist_matrix": [[0.0, -1.0], [1.0, 0.0]]}, "dist_matrix.*at least 0"),
    (WASSERSTEIN, {"dist_matrix": [[0.0, 0.0], [0.0, 0.0]]}, "dist_matrix.*not all 0"),
]


@pytest.mark.parametrize(("key", "arguments", "text"), REFUSALS, ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_arguments(key: str, arguments: dict[str, Any], text: str) -> None:
    refused((ValueError, text), monai_segloss.create, key, **arguments)


def test_distances_must_fit_the_classes() -> None:
    case = cases.get("labels_3d")
    loss = make(monai_segloss.find("generalized_wasserstein_dice"), case, dist_matrix=distances(4))
    refused((ValueError, "dist_matrix is for 4 classes.*3 channels"), value, loss, case)
    with pytest.warns(UserWarning, match="dist_matrix.*background"):
        monai_segloss.create("generalized_wasserstein_dice", dist_matrix=[[0, 1, 1], [0.5, 0, 1], [1, 1, 0]])
    one = monai_segloss.create("generalized_wasserstein_dice")
    with pytest.warns(UserWarning, match="single channel"):
        refused((ValueError, "1 channel"), one, torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))


@pytest.mark.parametrize("key", ["lovasz_softmax", "lovasz_hinge"])
def test_ranks_need_hard_labels(key: str) -> None:
    case = cases.get("soft_labels")
    refused((ValueError, "hard labels"), value, make(monai_segloss.find(key), case), case)
