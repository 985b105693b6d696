"""The registry by itself: what `register` makes of a class."""

from typing import Any

import pytest
from torch import Tensor

import monai_segloss
from monai_segloss.core import registry
from monai_segloss.core.batch import ClassView
from monai_segloss.core.docstring import description
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", {})
    monkeypatch.setattr(registry, "_NAMES", {})


@pytest.mark.usefixtures("empty")
def test_annotations_are_read_in_a_file_that_evaluates_them() -> None:
    """This file has no ``from __future__ import annotations``."""

    @register("evaluated")
    class EvaluatedLoss(RegionLoss):
        def __init__(self, *, alpha: float = 0.5, beta: float | None = None, **common: Any) -> None:
            super().__init__(**common)

        def table(self, view: ClassView) -> Tensor:
            return view.counts().tp

    for name in ("alpha", "beta"):
        with pytest.raises(TypeError, match=f"{name} must be a number, got 'x'"):
            EvaluatedLoss(**{name: "x"})
    EvaluatedLoss(alpha=1.0, beta=None)


@pytest.mark.usefixtures("empty")
def test_the_former_name_of_exemptions_still_works() -> None:
    with pytest.warns(DeprecationWarning, match="the field waive is now called exempt"):

        @register("old", waive={"flips": "it is not symmetric"})
        class OldLoss(RegionLoss):
            def table(self, view: ClassView) -> Tensor:
                return view.counts().tp

    info = registry.find("old")
    assert info.exempt == {"flips": "it is not symmetric"}
    with pytest.warns(DeprecationWarning, match=r"LossInfo\.waive is now called exempt"):
        assert info.waive is info.exempt


def test_the_docstring_says_what_a_loss_is() -> None:
    """Summary, formula, when and reference of a loss stand in its docstring; the description repeats none of them."""
    for info in monai_segloss.list_losses():
        for text in (info.summary, info.formula, info.when, info.paper):
            assert text, info.key
            assert "\n" not in text, info.key
            assert text not in " ".join(description(info.cls).split()), info.key
        assert info.doi or "No paper" in info.paper or "Moltz" in info.paper, info.key
