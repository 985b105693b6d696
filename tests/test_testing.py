"""`check_loss`: a right loss of somebody else passes, wrong ones are caught by the name of what they violate."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Unpack

import pytest
import torch
from torch import Tensor

import monai_segloss
from monai_segloss import SegLoss
from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.testing import (
    PROPERTIES,
    Exempt,
    LossContract,
    Property,
    Violation,
    check_loss,
    entry,
    properties_of,
)
from monai_segloss.testing.cases import BUILDERS
from monai_segloss.testing.harness import require

SLOW = ("compiles", "gradcheck", "tensor_arguments", "second_derivatives", "every_argument_matters")


class MistakesLoss(RegionLoss):
    """1 - (TP + nr) / (TP + penalty (FP + FN) + dr): not registered."""

    def __init__(self, *, penalty: float = 2.0, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        (self.penalty,) = non_negative(penalty=penalty)

    def table(self, view: ClassView) -> Tensor:
        n = view.counts()
        mistakes = self.penalty * (n.fp + n.fn)
        return mistakes / (n.tp + mistakes + self.smooth_dr)


class MaskIgnoredLoss(MistakesLoss):
    """Ignored voxels count as background."""

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        batch.mask = None
        if batch.has_labels:
            batch.target = batch.target.clamp(0, batch.classes - 1)
        return super().statistics(batch)


class UpsideDownLoss(MistakesLoss):
    """The best prediction has the largest value."""

    def table(self, view: ClassView) -> Tensor:
        return 1 - super().table(view)


class NaNHiddenLoss(MistakesLoss):
    """NaN becomes 0."""

    def table(self, view: ClassView) -> Tensor:
        return super().table(view).nan_to_num()


class ChangesItsInputLoss(MistakesLoss):
    """Logits are changed in place."""

    def loss(self, batch: SegBatch) -> Unreduced:
        with torch.no_grad():
            batch.logits.mul_(0.5)
        return super().loss(batch)


class WrongMeanLoss(MistakesLoss):
    """The mean divides by one more."""

    def loss(self, batch: SegBatch) -> Unreduced:
        found = super().loss(batch)
        return Unreduced(found.total, found.count + 1)


class TestMistakes(LossContract):
    """One test per property."""

    loss = MistakesLoss
    exempt: ClassVar = {
        "every_argument_matters": "the numerator is written as its complement, so smooth_nr does nothing"
    }


def test_a_right_loss_passes_and_its_exemption_is_needed() -> None:
    some = ("finite", "ignored_voxels_change_nothing", "every_argument_matters", "unknown_arguments_are_refused")
    check_loss(MistakesLoss, exempt=TestMistakes.exempt, only=some)
    with pytest.raises(Violation, match="every_argument_matters: smooth_nr: another value changes nothing"):
        check_loss(MistakesLoss, only=some)


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        (MaskIgnoredLoss, ("ignored_voxels_change_nothing on regions_masked", "ignored_target_values_are_not_read on")),
        (UpsideDownLoss, ("perfect_prediction_is_the_minimum on labels_3d: a worse prediction",)),
        (NaNHiddenLoss, ("bad_predictions_are_not_hidden on labels_3d: NaN in the prediction gives",)),
        (ChangesItsInputLoss, ("calls_leave_no_trace on labels_3d: an input changed",)),
        (WrongMeanLoss, ("reductions_agree on labels_3d: mean",)),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_wrong_loss_is_caught_by_name(loss: type[SegLoss], names: tuple[str, ...]) -> None:
    with pytest.raises(Violation) as caught:
        check_loss(loss, skip=SLOW)
    text = str(caught.value)
    assert text.startswith(f"{loss.__name__} violates the contract:\n")
    for name in names:
        assert name in text
    violated = {line.split(" on ")[0].split(":")[0] for line in text.splitlines()[1:]}
    assert "unknown_arguments_are_refused" not in violated


def test_an_error_of_the_loss_is_in_the_report() -> None:
    class BrokenLoss(MistakesLoss):
        def table(self, view: ClassView) -> Tensor:
            raise KeyError("penalty")

    with pytest.raises(Violation, match="finite on labels_3d: KeyError: 'penalty'"):
        check_loss(BrokenLoss, only=["finite"])


def test_names_and_words_are_checked() -> None:
    for given in ({"only": ["finit"]}, {"skip": ["finit"]}, {"exempt": {"finit": "no number is"}}):
        with pytest.raises(ValueError, match=f"{next(iter(given))} names no property.*'finit'.*'finite'"):
            check_loss(MistakesLoss, **given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"support names '2D'.*2-D"):
        check_loss(MistakesLoss, support=["labels", "2D"])
    with pytest.raises(TypeError, match="loss must be a class derived from SegLoss"):
        check_loss(MistakesLoss(softmax=True))  # type: ignore[arg-type]
    assert entry(monai_segloss.DiceLoss) == monai_segloss.find("dice")


def positive(info: Any, case: Any) -> None:
    """False on two of the three cases below, by name."""
    require(case.name == "labels_2d", "no")


def test_exemptions_are_per_case() -> None:
    info = monai_segloss.find("dice")
    names = ("labels_2d", "labels_3d", "regions")
    some = Property("positive", positive, names, lambda info: True)

    def exempt(*cases: str) -> Any:
        return replace(info, exempt={"positive": Exempt("a property of this test", cases=cases)})

    some(exempt("labels_3d", "regions"))
    for cases, text in {
        (): "positive on labels_2d holds: remove the exemption",
        names: "positive on labels_2d holds",
        ("regions",): "positive on labels_3d: no",
    }.items():
        with pytest.raises(Violation, match=text):
            some(exempt(*cases))
    with pytest.raises(ValueError, match="exempt from positive on tiny: no case"):
        some(exempt("tiny"))


def test_only_a_violation_is_what_an_exemption_means() -> None:
    def broken(info: Any, case: Any) -> None:
        raise AssertionError("of something else")

    info = replace(monai_segloss.find("dice"), exempt={"broken": "it must be violated, not break"})
    with pytest.raises(AssertionError, match="of something else"):
        Property("broken", broken, ("labels_3d",), lambda info: True)(info)


def test_a_property_that_runs_no_case_is_an_error() -> None:
    info = replace(monai_segloss.find("dice"), support=("regions",))
    with pytest.raises(ValueError, match=r"positive runs no case of dice: support is regions\."):
        Property("positive", positive, ("labels_2d", "labels_3d"), lambda info: True)(info)


KINDS = (("labels",), ("regions",), ("labels", "regions"))
OTHERS = [
    (space, more) for space in (("2-D",), ("3-D",), ("2-D", "3-D")) for more in ((), ("ignore",), ("soft labels",))
]


@pytest.mark.parametrize("key", ["tversky", "lovasz_hinge", "boundary", "topk_cross_entropy"])
def test_every_property_runs_a_case_whatever_a_loss_supports(key: str) -> None:
    info = monai_segloss.find(key)
    for kinds, (space, more) in product(KINDS, OTHERS):
        some = replace(info, support=(*kinds, *space, *more))
        for name in properties_of(some):
            assert PROPERTIES[name].inputs(some)


def test_every_case_is_one_of_a_property() -> None:
    assert {name for found in PROPERTIES.values() for name in found.cases} >= BUILDERS.keys()


def test_the_class_of_pytest_has_a_test_per_property(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from monai_segloss import DiceLoss\n"
        "from monai_segloss.testing import LossContract\n\n\n"
        "class UpsideDown(DiceLoss):\n"
        "    def table(self, view):\n"
        "        return -super().table(view)\n\n\n"
        "class TestMine(LossContract):\n"
        "    loss = UpsideDown\n"
        "    only = ('finite', 'perfect_prediction_is_the_minimum', 'unknown_arguments_are_refused')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "TestMine::test_property[perfect_prediction_is_the_minimum]" in done.stdout


def test_the_package_needs_no_pytest() -> None:
    code = "import sys, monai_segloss.testing; assert not {'pytest', '_pytest'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
