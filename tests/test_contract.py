"""Every property of the contract, for every registered loss: a new loss is tested without a line here."""

from __future__ import annotations

import pytest
from properties import PROPERTIES, SCOPE
from properties.module import compiles

import monai_segloss
from monai_segloss.core.registry import LossInfo

ENTRIES = monai_segloss.list_losses()
PAIRS = [(name, info) for name, check in PROPERTIES.items() for info in ENTRIES if SCOPE[check](info)]
FIRST_OF_FAMILY = list({info.family: info for info in reversed(ENTRIES)}.values())


def hold(name: str, info: LossInfo) -> None:
    """The property holds; where the entry is exempt from it, it really does not."""
    if name not in info.exempt:
        PROPERTIES[name](info)
        return
    try:
        PROPERTIES[name](info)
    except AssertionError:
        return
    pytest.fail(f"{info.key} is exempt from {name} ({info.exempt[name]}), but it holds: remove the exemption")


@pytest.mark.parametrize(("name", "info"), PAIRS, ids=[f"{name}-{info.key}" for name, info in PAIRS])
def test_contract(name: str, info: LossInfo) -> None:
    hold(name, info)


@pytest.mark.slow
@pytest.mark.parametrize("info", FIRST_OF_FAMILY, ids=lambda info: info.key)
def test_the_real_compiler(info: LossInfo) -> None:
    if "compiles" not in info.exempt:
        compiles(info, backend="inductor")


@pytest.mark.parametrize("info", ENTRIES, ids=lambda info: info.key)
def test_exemptions_name_properties(info: LossInfo) -> None:
    assert set(info.exempt) <= {*PROPERTIES, "shards_equal_the_batch"}
    assert all(len(reason) > 20 for reason in info.exempt.values())
