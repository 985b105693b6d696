"""Every property of the contract, for every registered loss: a new loss is tested without a line here."""

from __future__ import annotations

import pytest

import monai_segloss
from monai_segloss.core.registry import LossInfo
from monai_segloss.testing import PROPERTIES, properties_of
from monai_segloss.testing.harness import supported
from monai_segloss.testing.properties.module import compiles

ENTRIES = monai_segloss.list_losses()
PAIRS = [(name, info) for name in PROPERTIES for info in ENTRIES if name in properties_of(info)]
FIRST_OF_FAMILY = list({info.family: info for info in reversed(ENTRIES)}.values())


@pytest.mark.parametrize(("name", "info"), PAIRS, ids=[f"{name}-{info.key}" for name, info in PAIRS])
def test_contract(name: str, info: LossInfo) -> None:
    """The property is true on every case, and false where the entry is exempt."""
    PROPERTIES[name](info)


@pytest.mark.slow
@pytest.mark.parametrize("info", FIRST_OF_FAMILY, ids=lambda info: info.key)
def test_the_real_compiler(info: LossInfo) -> None:
    if "compiles" not in info.exempt:
        for case in supported(info, "ignored_2d"):
            compiles.check(info, case, backend="inductor")


@pytest.mark.parametrize("info", ENTRIES, ids=lambda info: info.key)
def test_exemptions_name_properties(info: LossInfo) -> None:
    assert set(info.exempt) <= {*PROPERTIES, "shards_equal_the_batch"}
    assert all(len(str(reason)) > 20 for reason in info.exempt.values())
