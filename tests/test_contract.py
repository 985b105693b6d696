"""Every property of the contract, for every registered loss: a new loss is tested without a line here."""

from __future__ import annotations

import pytest
from representatives import REPRESENTATIVES

import monai_segloss
from monai_segloss.core.registry import LossInfo
from monai_segloss.testing import PROPERTIES, properties_of
from monai_segloss.testing.harness import supported
from monai_segloss.testing.properties.module import compiles

ENTRIES = monai_segloss.list_losses()
COMPILED = ("tversky", "focal", "dice_focal", "nacl", "compactness")
"""Of these the full tier compiles the code: one of each shape of a card, and two of their own shape."""
EXPENSIVE = ("compiles", "compiles_in_parts", "nothing_hides", "tensor_arguments")
PAIRS = [
    pytest.param(name, info, id=f"{name}-{info.key}", marks=[pytest.mark.expensive] if name in EXPENSIVE else [])
    for info in ENTRIES
    for name in properties_of(info)
]


@pytest.mark.parametrize(("name", "info"), PAIRS)
def test_contract(name: str, info: LossInfo) -> None:
    """The property is true on every case, and false where the entry is exempt."""
    PROPERTIES[name](info)


@pytest.mark.slow
@pytest.mark.parametrize(
    "info",
    [pytest.param(info, marks=[] if info.key in COMPILED else pytest.mark.nightly) for info in ENTRIES],
    ids=lambda info: info.key,
)
def test_the_real_compiler(info: LossInfo) -> None:
    if "compiles" not in info.exempt:
        for case in supported(info, "ignored_2d"):
            compiles.check(info, case, backend="inductor")


@pytest.mark.parametrize("info", ENTRIES, ids=lambda info: info.key)
def test_exemptions_name_properties(info: LossInfo) -> None:
    assert set(info.exempt) <= {*PROPERTIES, "shards_equal_the_batch"}
    assert all(len(str(reason)) > 20 for reason in info.exempt.values())


def test_a_representative_of_every_family_is_in_the_fast_tier() -> None:
    assert {monai_segloss.find(key).family for key in REPRESENTATIVES} == {info.family for info in ENTRIES}
