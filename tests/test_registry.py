"""The registry by itself: what `register` makes of a class."""

import inspect
from typing import Any, Unpack

import pytest
from torch import Tensor

import monai_segloss
from monai_segloss.core import registry
from monai_segloss.core.batch import ClassView
from monai_segloss.core.docstring import arguments, completed, description, sections
from monai_segloss.core.module import FormulaArgs, ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
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


@pytest.mark.parametrize("info", monai_segloss.list_losses(), ids=lambda info: info.key)
def test_every_argument_of_a_loss_is_described(info: monai_segloss.LossInfo) -> None:
    text = inspect.getdoc(info.cls) or ""
    for name, parameter in info.parameters.items():
        assert info.arguments[name], name
        assert f"{name}: " in text or f"{name}, " in text, name
        if name == "reduction" and info.cls.scalar_only:
            assert "is refused" in info.arguments[name]
        if name == "include_background" and parameter.default is None:
            assert info.arguments[name] != monai_segloss.find("dice").arguments[name], "the default differs"


class Blocks:
    """Summary.

    Formula:
        a +
        b

    When:
        Often.

    What it is.

    Args:
        alpha, beta: two
            weights.

    Reference:
        Somebody, 1999,
        arXiv:9901.00001.

        A note.
    """


class Inline(Blocks):
    """Summary.

    Formula: a +
    b

    When: Often.

    What it is.

    Args:
        beta: another one.

    Reference: Somebody, 1999,
    arXiv:9901.00001.

    A note.
    """


def test_a_section_is_a_block_or_a_paragraph() -> None:
    for cls in (Blocks, Inline):
        found = sections(cls)
        assert [found[name] for name in ("", "Formula", "When")] == ["Summary.", "a + b", "Often."]
        assert found["Reference"].startswith("Somebody, 1999, arXiv:9901.00001.")
        assert description(cls).startswith("What it is.")
        assert "arXiv" not in description(cls)
        assert "weights" not in description(cls)
    assert "A note." in description(Inline)


def test_arguments_are_described_by_the_nearest_class() -> None:
    assert arguments(Inline, ("alpha", "beta", "gamma")) == {
        "alpha": "two weights.",
        "beta": "another one.",
        "gamma": "",
    }
    text = completed(Inline, arguments(Inline, ("alpha", "beta", "gamma"))) or ""
    assert "Args:\n    beta: another one.\n    alpha: two weights.\n\nReference: " in text
    assert text.startswith("Summary.\n\nFormula: a +\nb\n\nWhen: Often.\n\nWhat it is.\n\nArgs:")
    assert text.endswith("arXiv:9901.00001.\n\nA note.")

    class Bare:
        pass

    assert completed(Bare, {"alpha": "a weight."}) is None  # as all are in python -OO


def test_a_constructor_says_which_shared_arguments_a_loss_takes() -> None:
    class Reads(SegLoss):
        def __init__(self, *, weight: float | None = None, **reading: Unpack[ReadingArgs]) -> None:
            super().__init__(weight=weight, **reading)

    class Unreduced(SegLoss):
        def __init__(self, **common: "Unpack[FormulaArgs]") -> None:
            super().__init__(**common)

    class Passes(Reads):
        def __init__(self, **anything: Any) -> None:
            super().__init__(**anything)

    class Subset(RegionLoss):
        formula_arguments = ("smooth_dr",)

    class OfSubset(Subset):
        def __init__(self, **common: Unpack[FormulaArgs]) -> None:
            super().__init__(**common)

    from typing import Unpack as Inside  # a name that only this function knows

    class Local(Reads):
        def __init__(self, **reading: "Inside[ReadingArgs]") -> None:
            super().__init__(**reading)

    assert Reads.formula_arguments == Passes.formula_arguments == Local.formula_arguments == ("weight",)
    assert Unreduced.formula_arguments == SegLoss.formula_arguments
    assert Subset.formula_arguments == OfSubset.formula_arguments == ("smooth_dr",)


@pytest.mark.usefixtures("empty")
def test_what_a_loss_does_not_take_is_not_recommended() -> None:
    @register("narrow", recommended=Recommended(arguments={"reduction": "sum"}))
    class NarrowLoss(RegionLoss):
        formula_arguments = ("batch",)

    assert registry.find("narrow").recommended.resolve(batch_dice=True) == {"batch": True, "reduction": "sum"}
