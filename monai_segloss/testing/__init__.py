"""The contract of a segmentation loss, of this project or of others: `check_loss`, or `LossContract` in pytest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from monai_segloss.core.errors import nearest
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.module import SegLoss
from monai_segloss.core.registry import EVERYTHING, LOSSES, LossInfo
from monai_segloss.testing.cases import Case
from monai_segloss.testing.contract import Property
from monai_segloss.testing.harness import Violation
from monai_segloss.testing.properties import PROPERTIES
from monai_segloss.testing.properties.arguments import OTHER

__all__ = [
    "OTHER",
    "PROPERTIES",
    "Case",
    "Exempt",
    "LossContract",
    "Property",
    "Violation",
    "check_loss",
    "entry",
    "properties_of",
]


def check_loss(
    loss: type[SegLoss],
    *,
    example: Mapping[str, Any] | None = None,
    support: Iterable[str] | None = None,
    exempt: Mapping[str, str | Exempt] | None = None,
    size: int | None = None,
    min_error_width: int | None = None,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
) -> None:
    """Check every property of the contract that says something about a loss, on every input case that it supports.

    Args:
        loss: the class.  Where it is registered, what is not given here is that of its entry.
        example: constructor arguments alongside those that say how input and target are read; default none.
        support: what the loss reads, out of ``"labels", "regions", "soft labels", "ignore", "2-D", "3-D"``; default all.
        exempt: properties that are false by design for the loss, each with a reason or an `Exempt`, which names the cases.
            There the property must really be false.
        size: shortest edge, in voxels, of an image that the loss makes sense on; default 1.
        min_error_width: width, in voxels, of the narrowest error that the loss notices; default 1.
        only: names of the properties to check; default all.
        skip: names of properties not to check.

    Raises:
        Violation: an AssertionError with a line for each violated property and case.
        ValueError: ``only``, ``skip`` or ``exempt`` names no property, or ``support`` is not of these words.

    Example:
        >>> from monai_segloss import DiceLoss
        >>> from monai_segloss.testing import check_loss
        >>> check_loss(DiceLoss, only=["finite", "labels_equal_onehot"])
    """
    info = entry(loss, example=example, support=support, exempt=exempt, size=size, min_error_width=min_error_width)
    wrong = []
    for name in properties_of(info, only, skip):
        try:
            PROPERTIES[name](info)
        except Violation as violation:
            wrong.append(str(violation))
        except Exception as error:
            where = getattr(error, "__notes__", [name])[-1]
            wrong.append(f"{where}: {type(error).__name__}: {error}")
    if wrong:
        raise Violation(f"{loss.__name__} violates the contract:\n" + "\n".join(wrong))


def entry(loss: type[SegLoss], **facts: Any) -> LossInfo:
    """The entry of a loss with other facts; for a class that is not registered, a new one."""
    if not (isinstance(loss, type) and issubclass(loss, SegLoss)):
        raise TypeError(f"loss must be a class derived from SegLoss, got {loss!r}.")
    given = {name: value for name, value in facts.items() if value is not None}
    if "support" in given:
        given["support"] = tuple(given["support"])
        for word in given["support"]:
            if word not in EVERYTHING:
                raise ValueError(
                    f"support names {word!r}{nearest(word, EVERYTHING)}: known are {', '.join(EVERYTHING)}."
                )
    _known("exempt", given.get("exempt", ()))
    known = next((vars(info) for info in LOSSES.values() if info.cls is loss), None)
    if known is None:
        key = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", loss.__name__.removesuffix("Loss")).lower()
        known = {"key": key, "cls": loss, "family": "own"}
    return LossInfo(**{**known, **given})


def properties_of(info: LossInfo, only: Iterable[str] = (), skip: Iterable[str] = ()) -> list[str]:
    """Names of the properties that say something about an entry, or those of them that are chosen."""
    chosen, left_out = tuple(only), tuple(skip)
    _known("only", chosen)
    _known("skip", left_out)
    return [
        name
        for name, found in PROPERTIES.items()
        if found.about(info) and name not in left_out and (not chosen or name in chosen)
    ]


def _known(argument: str, names: Iterable[str]) -> None:
    """Names of properties; the test over two processes is not one that runs here."""
    for name in names:
        if name not in PROPERTIES and name != "shards_equal_the_batch":
            raise ValueError(f"{argument} names no property of the contract: {name!r}{nearest(name, PROPERTIES)}.")


class LossContract:
    """Base class of pytest: the contract of ``loss``, one test per property.

    The other attributes are the arguments of `check_loss`.

    Example, in a test module::

        class TestMyLoss(LossContract):
            loss = MyLoss
            support = ("labels", "ignore", "2-D", "3-D")
    """

    loss: ClassVar[type[SegLoss]]
    example: ClassVar[Mapping[str, Any] | None] = None
    support: ClassVar[Iterable[str] | None] = None
    exempt: ClassVar[Mapping[str, str | Exempt] | None] = None
    size: ClassVar[int | None] = None
    min_error_width: ClassVar[int | None] = None
    only: ClassVar[Iterable[str]] = ()
    skip: ClassVar[Iterable[str]] = ()

    def entry(self) -> LossInfo:
        """What the registry would say."""
        facts = {name: getattr(self, name) for name in ("example", "support", "exempt", "size", "min_error_width")}
        return entry(self.loss, **facts)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """One test per property."""
        if "name_of_property" in metafunc.fixturenames:
            metafunc.parametrize("name_of_property", properties_of(self.entry(), self.only, self.skip))

    def test_property(self, name_of_property: str) -> None:
        """The property is true on every case, and false where the loss is exempt."""
        PROPERTIES[name_of_property](self.entry())
