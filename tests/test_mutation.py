"""Mutation tests: a typical mistake in the library turns the contract red."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from test_reference import compare
from torch import Tensor

import monai_segloss
from monai_segloss.core import batch as read_batch
from monai_segloss.core import counts
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.module import SegLoss
from monai_segloss.core.reading import Reader
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.core.registry import LossInfo
from monai_segloss.testing import PROPERTIES, cases
from monai_segloss.testing.harness import supported

Patch = Callable[[pytest.MonkeyPatch, LossInfo], None]


def swap_alpha_and_beta(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    original = info.cls.loss

    def loss(self: Any, batch: SegBatch) -> Any:
        self.alpha, self.beta = self.beta, self.alpha
        try:
            return original(self, batch)
        finally:
            self.alpha, self.beta = self.beta, self.alpha

    patch.setattr(info.cls, "loss", loss)


def drop_the_mask(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    """Ignored labels become a class like any other."""

    def spoil(read: SegBatch) -> None:
        read.mask = None
        if read.has_labels:
            read.target = read.target.clamp(0, read.classes - 1)

    _after_reading(patch, spoil)


def multiply_by_the_mask(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    """Instead of zeroing the logits first: a NaN there times 0 is NaN."""

    def sums(logits: Tensor, target: Tensor, which: Any, activation: Any, mask: Tensor | None = None) -> Tensor:
        g = counts.one_hot_labels(target, logits.shape[1]) if counts.is_labels(logits, target) else target
        voxels = counts.Voxels(logits.flatten(2), g.flatten(2).to(logits.dtype), activation)
        kept = 1 if mask is None else mask.flatten(1)[:, None]
        return torch.stack([(counts.FORMULAS[s.name](voxels, s.power) * kept).sum(2) for s in which], 2)

    patch.setattr(read_batch, "soft_statistics", sums)


def drop_the_background_before_softmax(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    original = info.cls.loss

    def loss(self: Any, batch: SegBatch) -> Any:
        owner = self.terms["dice"] if hasattr(self, "terms") else self
        if owner.include_background:
            return original(self, batch)
        sliced = SegBatch(batch.logits[:, 1:], batch.one_hot[:, 1:], batch.mask, batch.activation)
        owner.include_background = True
        try:
            return original(self, sliced)
        finally:
            owner.include_background = False

    patch.setattr(info.cls, "loss", loss)


def drop_the_smoothing_of_the_numerator(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    _argument_is(patch, info, "smooth_nr", 0.0)


def drop_the_smoothing_of_the_denominator(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    _argument_is(patch, info, "smooth_dr", 0.0)


def forget_the_batch_argument(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    _argument_is(patch, info, "batch", False)


def forget_the_class_weights(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    patch.setattr(SegLoss, "weights", lambda self, classes: None)


def work_in_half_precision(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    def spoil(read: SegBatch) -> None:
        read.logits = read.logits.bfloat16().to(read.logits.dtype)

    _after_reading(patch, spoil)


def detach_the_prediction(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    """The value stays right, half of the gradient is lost."""

    def spoil(read: SegBatch) -> None:
        read.logits = (read.logits + read.logits.detach()) / 2

    _after_reading(patch, spoil)


def let_ignored_samples_into_the_mean(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    patch.setattr(
        read_batch.ClassView,
        "voxel_count",
        property(lambda self: torch.ones_like(self.reduce_batch(self.batch.voxels))),
    )


def clip_the_logarithm(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    """log(clamp(p)) instead of log-softmax: a confident mistake has no gradient any more."""

    def clipped(z: Tensor, activation: Any) -> Tensor:
        return counts.activate(z, activation).clamp(1e-7, 1 - 1e-7).log()

    patch.setattr(counts, "log_activate", clipped)
    patch.setattr(read_batch, "log_activate", clipped)
    patch.setattr(counts, "BACKENDS", {})


def look_at_no_neighbor(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    patch.setattr(SegBatch, "with_neighbors", lambda self, width: self)


def let_ignored_voxels_be_neighbors(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    original = read_batch.worst_of_neighbors
    patch.setattr(read_batch, "worst_of_neighbors", lambda z, y, mask, width: original(z, y, None, width))


def forget_the_radius(patch: pytest.MonkeyPatch, info: LossInfo) -> None:
    _argument_is(patch, info, "radius", 1)


def _after_reading(patch: pytest.MonkeyPatch, change: Callable[[SegBatch], object]) -> None:
    original = Reader.read

    def read(self: Reader, *args: Any, **kwargs: Any) -> SegBatch:
        found = original(self, *args, **kwargs)
        change(found)
        return found

    patch.setattr(Reader, "read", read)


def _argument_is(patch: pytest.MonkeyPatch, info: LossInfo, name: str, fixed: object) -> None:
    patch.setattr(info.cls, name, property(lambda self: fixed, lambda self, value: None), raising=False)


@dataclass(frozen=True)
class Mutation:
    """A mistake, the losses it is put into, and the checks each of which must fail."""

    apply: Patch
    keys: tuple[str, ...]
    killed_by: tuple[str, ...]


def value_and_gradient(info: LossInfo) -> None:
    for name in ("labels_2d", "ignored_sample", "extreme"):
        compare(info, cases.get(name))


def value_and_gradient_without_background(info: LossInfo) -> None:
    compare(info, cases.get("five_classes"), include_background=False)


def value_and_gradient_over_the_batch(info: LossInfo) -> None:
    compare(info, cases.get("five_classes"), batch=True)


def value_and_gradient_with_weights(info: LossInfo) -> None:
    compare(info, cases.get("five_classes"), weight=[1.0, 2.0, 0.5, 0.25, 3.0])


COMPARISONS = {
    check.__name__: check
    for check in (
        value_and_gradient,
        value_and_gradient_without_background,
        value_and_gradient_over_the_batch,
        value_and_gradient_with_weights,
    )
}
TVERSKY, REGION = ("tversky", "focal_tversky"), ("dice", "tversky", "focal_tversky")
VOXEL, COMPOUND = ("cross_entropy", "focal", "topk_cross_entropy"), ("dice_ce", "dice_focal", "dice_topk")
WEIGHED = ("weighted_cross_entropy", "balanced_cross_entropy", "poly1_cross_entropy", "bootstrapped_cross_entropy",
           "seesaw", "unified_focal", "combo", "exponential_logarithmic")  # fmt: skip
LOGARITHMS = tuple(key for key in WEIGHED if key != "seesaw")  # which takes the logits
TABLES = ("jaccard", "jaccard_metric", "asymmetric_similarity", "sensitivity_specificity", "log_cosh_dice", "mcc",
          "noise_robust_dice", "hardness_weighted_dice", "dice_metric", "tversky_metric", "dice_plus_plus")  # fmt: skip
POOLED = ("generalized_dice", "penalty_generalized_dice", "generalized_wasserstein_dice")
TOUCHING = ("non_adjacency", "topological_interaction")
SORTED = ("lovasz_softmax", "lovasz_hinge")
CALIBRATION, COMPONENTS = ("l1_ace", "nacl", "margin_cross_entropy"), ("component_tversky", "component_mil")
SIZES, SHAPES = ("size_penalty", "log_barrier", "region_size"), ("moment_constraint", "compactness", "perimeter",
          "star_shape", "convexity", "symmetry")  # fmt: skip
MUTATIONS = [
    Mutation(drop_the_mask, TABLES + POOLED + SORTED, ("ignored_voxels_change_nothing", "value_and_gradient")),
    Mutation(multiply_by_the_mask, TABLES + POOLED[:2], ("ignored_voxels_change_nothing",)),
    Mutation(drop_the_background_before_softmax, TABLES + POOLED[:2], ("value_and_gradient_without_background",)),
    Mutation(drop_the_smoothing_of_the_denominator, TABLES + POOLED, ("every_argument_matters",)),
    Mutation(
        forget_the_batch_argument, TABLES + POOLED, ("value_and_gradient_over_the_batch", "every_argument_matters")
    ),
    Mutation(forget_the_class_weights, TABLES, ("value_and_gradient_with_weights", "every_argument_matters")),
    Mutation(work_in_half_precision, TABLES + POOLED + SORTED, ("value_and_gradient",)),
    Mutation(detach_the_prediction, TABLES + POOLED + SORTED, ("value_and_gradient",)),
    Mutation(let_ignored_samples_into_the_mean, POOLED, ("value_and_gradient", "ignored_sample_leaves_the_mean")),
    Mutation(
        swap_alpha_and_beta, (*TVERSKY, "tversky_metric"), ("value_and_gradient", "false_positives_and_negatives")
    ),
    Mutation(drop_the_mask, REGION + VOXEL + COMPOUND + WEIGHED, ("ignored_voxels_change_nothing",)),
    Mutation(drop_the_mask, ("dice_ce",), ("value_and_gradient", "everything_ignored_gives_zero")),
    Mutation(multiply_by_the_mask, REGION + VOXEL[:2] + COMPOUND, ("ignored_voxels_change_nothing",)),
    Mutation(
        drop_the_background_before_softmax, (*REGION, "focal", "dice_ce"), ("value_and_gradient_without_background",)
    ),
    Mutation(drop_the_smoothing_of_the_numerator, REGION, ("value_and_gradient", "every_argument_matters")),
    Mutation(drop_the_smoothing_of_the_denominator, REGION, ("value_and_gradient", "every_argument_matters")),
    Mutation(
        forget_the_batch_argument,
        (*REGION, "balanced_cross_entropy", *WEIGHED[-3:]),
        ("value_and_gradient_over_the_batch", "every_argument_matters"),
    ),
    Mutation(
        forget_the_class_weights, REGION + VOXEL[:2], ("value_and_gradient_with_weights", "every_argument_matters")
    ),
    Mutation(work_in_half_precision, REGION + VOXEL + COMPOUND + WEIGHED, ("value_and_gradient",)),
    Mutation(detach_the_prediction, REGION + VOXEL + COMPOUND + WEIGHED, ("value_and_gradient",)),
    Mutation(detach_the_prediction, ("dice_ce",), ("gradcheck",)),
    Mutation(let_ignored_samples_into_the_mean, REGION, ("value_and_gradient", "ignored_sample_leaves_the_mean")),
    Mutation(clip_the_logarithm, VOXEL + LOGARITHMS + CALIBRATION[1:], ("value_and_gradient",)),
    Mutation(drop_the_mask, CALIBRATION + COMPONENTS, ("ignored_voxels_change_nothing", "value_and_gradient")),
    Mutation(work_in_half_precision, CALIBRATION + COMPONENTS, ("value_and_gradient",)),
    Mutation(detach_the_prediction, CALIBRATION + COMPONENTS, ("value_and_gradient",)),
    Mutation(forget_the_batch_argument, ("l1_ace", COMPONENTS[0]), ("value_and_gradient_over_the_batch",)),
    Mutation(forget_the_class_weights, ("l1_ace", *COMPONENTS), ("value_and_gradient_with_weights",)),
    Mutation(drop_the_mask, SIZES + SHAPES, ("value_and_gradient",)),
    Mutation(detach_the_prediction, SIZES + SHAPES, ("value_and_gradient",)),
    Mutation(look_at_no_neighbor, ("dice_ce", "boundary", "topk_cross_entropy"), ("neighbors_are_of_the_same_class",)),
    Mutation(let_ignored_voxels_be_neighbors, ("dice_ce", "boundary"), ("neighbors_are_of_the_same_class",)),
    Mutation(drop_the_mask, TOUCHING, ("ignored_voxels_change_nothing", "value_and_gradient")),
    Mutation(detach_the_prediction, TOUCHING, ("value_and_gradient",)),
    Mutation(forget_the_radius, TOUCHING, ("every_argument_matters",)),
    Mutation(clip_the_logarithm, VOXEL + LOGARITHMS, ("value_and_gradient",)),
]
MUTANTS = [(m, key, check) for m in MUTATIONS for key in m.keys for check in m.killed_by]


@contextmanager
def mutated(mutation: Mutation, info: LossInfo) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        mutation.apply(patch, info)
        yield


@pytest.mark.parametrize(
    ("mutation", "key", "check"), MUTANTS, ids=[f"{m.apply.__name__}-{key}-{check}" for m, key, check in MUTANTS]
)
def test_the_mutant_is_killed(mutation: Mutation, key: str, check: str) -> None:
    info = monai_segloss.find(key)
    run = COMPARISONS.get(check) or PROPERTIES[check]
    run(info)
    with mutated(mutation, info), pytest.raises(AssertionError):
        run(info)
    run(info)


def a_millionth_more(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The formula of a card whose first part is too large by a millionth."""

    def mutated_loss(self: SegLoss, batch: SegBatch) -> Any:
        found = loss(self, batch)
        if isinstance(found, Unreduced):
            return Unreduced(found.total * (1 + 1e-6), found.count)
        first, term = next(iter(found.items()))
        return {**found, first: Term(term.weight, Unreduced(term.unreduced.total * (1 + 1e-6), term.unreduced.count))}

    return mutated_loss


@pytest.mark.parametrize("info", monai_segloss.list_losses(), ids=lambda info: info.key)
def test_every_reference_kills_a_mutant_of_a_millionth(info: LossInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    (case, *_) = supported(info, "five_classes", "regions")
    compare(info, case)
    monkeypatch.setattr(info.cls, "loss", a_millionth_more(info.cls.loss))
    with pytest.raises(AssertionError):
        compare(info, case)
