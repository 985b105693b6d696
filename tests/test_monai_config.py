"""The losses in MONAI: names in configurations, MetaTensor, mixed precision in the trainers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from torch import Tensor, nn

import monai_segloss
from monai_segloss.bundle import overlay
from monai_segloss.core.registry import LossInfo
from monai_segloss.engine import SegLossTrainer
from monai_segloss.testing.stand_in import prepared

LOSSES = monai_segloss.list_losses()
every_loss = pytest.mark.parametrize("info", LOSSES, ids=[info.key for info in LOSSES])

NAMES = """
import importlib, json, pkgutil, sys, warnings

def ours():
    import monai_segloss
    if {everything}:
        for module in pkgutil.walk_packages(monai_segloss.__path__, "monai_segloss."):
            importlib.import_module(module.name)

def theirs():
    import monai.bundle, monai.engines, monai.handlers, monai.losses, monai.metrics, monai.networks, monai.transforms

first, second = (ours, theirs) if {ours_first} else (theirs, ours)
first()
second()
warnings.simplefilter("error")
from monai.bundle import ComponentLocator, ConfigParser

mixed, public = [], {{}}
locator = ComponentLocator()
for module in [name for name in sys.modules if name.split(".")[0] == "monai_segloss"]:
    for name in vars(sys.modules[module]).keys() | set(dir(sys.modules[module])):
        owners = locator.get_component_module_name(name) or []
        owners = [owners] if isinstance(owners, str) else owners
        ours_too = [owner for owner in owners if owner.split(".")[0] == "monai_segloss"]
        if ours_too and len(ours_too) < len(owners):
            mixed.append(name)
import monai_segloss
classes = [info.cls.__name__ for info in monai_segloss.list_losses()]
names = [*classes, *("monai_segloss." + name for name in classes)]
parser = ConfigParser([{{"_target_": name, "_mode_": "callable"}} for name in names])
for index, name in enumerate(names):
    public[name] = parser.get_parsed_content(str(index)).__module__
import monai.losses
owned = [info.cls.__name__ for info in monai_segloss.list_losses() if hasattr(monai.losses, info.cls.__name__)]
print(json.dumps([sorted(set(mixed)), public, owned]))
"""


@pytest.mark.parametrize(("ours_first", "everything"), [(True, False), (False, True)], ids=["ours", "monai"])
def test_a_bare_name_that_monai_owns_is_monais_and_one_that_only_we_own_is_ours(
    ours_first: bool, everything: bool
) -> None:
    """A fresh process per import order: the table of names is made from the modules that are loaded."""
    script = NAMES.format(ours_first=ours_first, everything=everything)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    mixed, public, owned = json.loads(done.stdout.splitlines()[-1])
    assert not mixed, "names of ours that MONAI defines too"
    assert {"DiceLoss", "TverskyLoss", "FocalLoss", "DiceCELoss"} <= set(owned)
    for name, module in public.items():
        expected = "monai.losses." if name in owned else "monai_segloss"
        assert module.startswith(expected), f"{name} became {module}.{name}"


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 6, 7, 8), torch.randint(0, 3, (2, 1, 6, 7, 8))


@every_loss
def test_a_configuration_round_trip_gives_the_same_loss(info: LossInfo, tmp_path: Path) -> None:
    config = {"loss": {**overlay(info)["loss"], **info.example}}
    first = ConfigParser(config)
    ConfigParser.export_config_file(first.get(), str(tmp_path / "loss.json"))
    again = ConfigParser(json.loads((tmp_path / "loss.json").read_text()))
    losses = [parser.get_parsed_content("loss") for parser in (first, again)]
    direct = monai_segloss.create(info.key, **{k: v for k, v in config["loss"].items() if k != "_target_"})
    input, target = batch()
    losses, direct = [prepared(loss, input) for loss in losses], prepared(direct, input)
    assert [type(loss) for loss in losses] == [info.cls, info.cls]
    assert losses[0](input, target) == losses[1](input, target) == direct(input, target)


@every_loss
def test_meta_tensors_give_the_value_of_plain_tensors(info: LossInfo) -> None:
    input, target = batch()
    loss = prepared(monai_segloss.create(info.key, **{**info.example, **info.reading}), input)
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0]))
    leaf = MetaTensor(input.clone(), affine=affine).requires_grad_()
    value = loss(leaf, MetaTensor(target, affine=affine))
    torch.testing.assert_close(value, loss(input, target, spacing=(1.0, 2.0, 3.0)), rtol=0, atol=0)
    assert type(value) is Tensor
    value.backward()
    assert leaf.grad is not None
    assert bool(leaf.grad.isfinite().all())


class BFloat16(SimpleInferer):
    """Mixed precision on the CPU, which MONAI's trainer has on CUDA only."""

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pred = network(inputs, *args, **kwargs)
        assert pred.dtype == torch.bfloat16
        return pred


def train(cls: type, info: LossInfo, data: list[Any], inferer: SimpleInferer) -> tuple[float, nn.Module]:
    torch.manual_seed(1)
    net = nn.Conv3d(1, 3, 3, padding=1)
    engine = cls(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(Dataset(data), batch_size=2),
        network=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        loss_function=prepared(info.cls(**info.example, **info.reading), batch()[0]),
        inferer=inferer,
        decollate=False,
    )
    if isinstance(engine, SegLossTrainer):
        engine.taps = None  # the stand-in hands features over
    engine.run()
    return engine.state.output["loss"].item(), net


@every_loss
@pytest.mark.parametrize("cls", [SupervisedTrainer, SegLossTrainer])
def test_a_step_in_the_trainers_also_in_bfloat16(info: LossInfo, cls: type) -> None:
    data = [{"image": torch.randn(1, 6, 7, 8), "label": torch.randint(0, 3, (1, 6, 7, 8))} for _ in range(2)]
    full, net = train(cls, info, data, SimpleInferer())
    mixed, mixed_net = train(cls, info, data, BFloat16())
    assert mixed == pytest.approx(full, rel=0.02, abs=1e-3)
    atol = 0.04 if "persistence" in info.tags else 0.01  # of rounded values other voxels are the first and the last
    for ours, theirs in zip(net.parameters(), mixed_net.parameters(), strict=True):
        assert bool(theirs.isfinite().all())
        torch.testing.assert_close(ours, theirs, rtol=0.1, atol=atol)
