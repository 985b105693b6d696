"""Names of the version before: each works, with a warning that names the new one."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import monai_segloss
from monai_segloss.core import batch as batch_module
from monai_segloss.core import module, reduce, registry
from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.errors import Renamed
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.voxel_sum import VoxelSum
from monai_segloss.testing import LossContract, check_loss

LABEL = torch.tensor([[[0, 0, 1, 1]]])
ATTRIBUTES = [
    (owner, name)
    for owner in (SegBatch, ClassView, reduce.Term, VoxelSum, module.SegLoss, registry.LossInfo, LossContract)
    for name, each in vars(owner).items()
    if isinstance(each, Renamed)
]


@pytest.mark.parametrize(("owner", "name"), ATTRIBUTES, ids=[f"{owner.__name__}.{name}" for owner, name in ATTRIBUTES])
def test_a_renamed_attribute(owner: Any, name: str) -> None:
    """Each leads to an attribute that the class has, also where it is a field without a default."""
    new = vars(owner)[name].new
    assert new in {*dir(owner), *getattr(owner, "__annotations__", ())}
    with pytest.warns(DeprecationWarning, match=rf"{owner.__name__}\.{name} is now called {new}"):
        assert getattr(owner, name, None) is getattr(owner, new, None)


@pytest.mark.parametrize(
    ("where", "old", "new"),
    [(batch_module, "Scored", "ClassView"), (reduce, "Scores", "Unreduced"), (module, "ScoringArgs", "FormulaArgs")],
    ids=["Scored", "Scores", "ScoringArgs"],
)
def test_a_renamed_class(where: Any, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is now called {new}") as caught:
        assert getattr(where, old) is getattr(where, new)
    assert caught[0].filename == __file__
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        where.other  # noqa: B018


def old_card() -> type[module.SegLoss]:
    class Mistakes(module.SegLoss):
        scoring = ("include_background", "batch")
        scalar = True
        marks = ("points",)

        def loss(self, batch: SegBatch) -> Any:
            view = batch.scored(self.include_background, self.batch)
            tp, fn = view.sums(*batch_module.AREA)[::2]
            return reduce.Scores.table(fn / (tp + fn), view.present)

    return Mistakes


def test_a_card_in_the_former_words() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        card = old_card()
    said = {str(each.message).partition(";")[0] for each in caught}
    assert {
        f"Mistakes.{name} is now called {vars(module.SegLoss)[name].new}" for name in ("scoring", "scalar", "marks")
    } == said
    assert {(each.filename, each.category) for each in caught} == {(__file__, DeprecationWarning)}
    assert (card.formula_arguments, card.point_maps) == (("include_background", "batch"), ("points",))
    with pytest.raises(ValueError, match="one number for the batch"):
        card(reduction="none")
    with pytest.raises(TypeError, match="unexpected argument 'smooth_nr'"):
        card(smooth_nr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        value = card(softmax=True, to_onehot_y=True)(torch.zeros(1, 2, 4), LABEL)
    assert value.item() == pytest.approx(0.5)


def test_the_width_of_errors() -> None:
    with pytest.warns(DeprecationWarning, match="grain is now called min_error_width"):
        check_loss(monai_segloss.DiceLoss, grain=3, only=["finite"])
    with pytest.warns(DeprecationWarning, match=r"Old\.grain is now called min_error_width"):

        class Old(LossContract):
            loss = monai_segloss.DiceLoss
            grain = 3

    assert Old().entry().min_error_width == 3


def test_a_card_in_the_words_of_today_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Hit(RegionLoss):
            formula_arguments = ("include_background", "batch")

            def table(self, view: ClassView) -> torch.Tensor:
                return view.counts().tp

        Hit(softmax=True, to_onehot_y=True)(torch.zeros(1, 2, 4), LABEL)
