"""Recommended arguments: one resolver for trainers and bundles, and the names it had before."""

from __future__ import annotations

from typing import Any

import pytest

import monai_segloss
from monai_segloss import LossConfig
from monai_segloss.bundle import component
from monai_segloss.core import registry
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.registry import LossInfo
from nnunet_trainers.building import DatasetProperties, resolve

LOSSES = monai_segloss.list_losses()


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_what_is_recommended_is_what_the_loss_takes(info: LossInfo) -> None:
    found = info.recommended.resolve(regions=True, batch_dice=True)
    assert set(found) <= set(info.parameters)
    assert {"include_background", "batch"} & set(info.parameters) <= set(found)


@pytest.mark.parametrize("kind", ["labels", "regions"])
@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_trainers_and_bundles_pass_the_same(info: LossInfo, kind: str) -> None:
    """A plan's batch_dice aside, which a bundle has not."""
    if kind not in info.support:
        pytest.skip(f"{info.key} takes no {kind}")
    config, reading = LossConfig(loss=info.key), {"labels": {"softmax": True, "to_onehot_y": True}}
    written = component(config, reading.get(kind, {"sigmoid": True}))
    trained = resolve(config, DatasetProperties(regions=kind == "regions")).arguments
    planned = {"batch"} if info.recommended.batch == "plan" else set()
    assert without(written, {"_target_", "softmax", "sigmoid", "to_onehot_y"}) == without(trained, planned)


def without(arguments: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in names}


def test_the_former_names_warn_and_work(monkeypatch: pytest.MonkeyPatch) -> None:
    info = monai_segloss.find("tversky")
    with pytest.warns(DeprecationWarning, match=r"LossInfo\.nnunet is now called recommended"):
        assert info.nnunet is info.recommended
    with pytest.warns(DeprecationWarning, match=r"core\.recommend\.Recommended"):
        assert registry.NnUNetPolicy is Recommended
    for name in ("_REGISTRY", "_NAMES"):
        monkeypatch.setattr(registry, name, {})
    with pytest.warns(DeprecationWarning, match="the field nnunet is now called recommended"):
        registry.register("toy", nnunet=Recommended(batch=None))(type("ToyLoss", (monai_segloss.SegLoss,), {}))
    assert registry.find("toy").recommended == Recommended(batch=None)
