"""Whole training steps, the stock loss and ours: network, loss, backward, clipping, optimizer.

    python -m benchmarks step
    python -m benchmarks step --keys dice_ce dice_boundary --classes 3 --patch 64

``nnunet`` is ``train_step`` of nnU-Net's trainer and of ours on a plan of `PlainConvUNet` with deep supervision; ``monai``
is MONAI's `UNet`, as large, with `DiceCELoss` of MONAI or a loss of ours.  The input is random, no loader is in the way.
Steppers of one program take turns.  ``alone`` is forward and backward of the loss alone on the network's outputs; its share
of the step is what a faster loss can win.  Memory is the peak of the process beyond what was there before the step, each in
a process of its own.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import monai_segloss
from benchmarks.measure import LEAN, extra_memory, race
from benchmarks.peers import SPACING, case, ours
from benchmarks.results import Row, arguments, opened
from monai_segloss.core.names import camel

STOCK = "stock"
FEATURES = (16, 32, 64, 128)
FIELDS = ("program", "classes", "patch", "loss")


class Stepper:
    """A training step, and the loss alone on the outputs of the network."""

    def __init__(
        self, step: Callable[[], object], outputs: Callable[[], list[Tensor]], loss: Callable[[list[Tensor]], Tensor]
    ) -> None:
        self.step, self._loss = step, loss
        with torch.no_grad():
            found = outputs()
        self.outputs = [x.detach().clone().requires_grad_() for x in found]

    def loss(self) -> None:
        """Forward and backward of the loss."""
        for x in self.outputs:
            x.grad = None
        self._loss(self.outputs).backward()


def nnunet(key: str, classes: int, patch: int, device: str) -> Stepper:
    """A step of nnU-Net's trainer, or of ours for a loss."""
    folders()
    labels = {"background": 0, **{f"class {c}": c for c in range(1, classes)}}
    about = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    with contextlib.redirect_stdout(io.StringIO()):
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        from nnunet_trainers.trainers import find

        kind = nnUNetTrainer if key == STOCK else find(f"nnUNetTrainer{camel(key)}")
        trainer = kind(plan(patch), "3d_fullres", 0, about, torch.device(device))
        trainer.initialize()
    data, label = images(classes, patch, device)
    targets = [at_scale(label, scale) for scale in trainer._get_deep_supervision_scales()]
    batch = {"data": data, "target": targets, "keys": ["case", "case"]}
    return Stepper(lambda: trainer.train_step(batch), lambda: trainer.network(data), lambda x: trainer.loss(x, targets))


@cache
def folders() -> None:
    """The folders of an nnU-Net installation until this process ends, before nnU-Net is imported."""
    root = Path(tempfile.mkdtemp(prefix="segloss-step-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    os.environ |= {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}
    data = root / "preprocessed" / "Dataset001_Step" / "data"
    data.mkdir(parents=True)
    (data / "case.b2nd").touch()  # the kind of data set is read off it


def plan(patch: int) -> dict[str, Any]:
    """A plan of nnU-Net, as small as its own for the hippocampus."""
    stages = len(FEATURES)
    network = {
        "n_stages": stages,
        "features_per_stage": list(FEATURES),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3] * 3] * stages,
        "strides": [[1] * 3, *[[2] * 3] * (stages - 1)],
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
        "arch_kwargs": network,
    }
    configuration = {
        "data_identifier": "data",
        "batch_size": 2,
        "batch_dice": False,
        "patch_size": [patch] * 3,
        "spacing": list(SPACING),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "architecture": architecture,
    }
    return {
        "dataset_name": "Dataset001_Step",
        "plans_name": "nnUNetPlans",
        "configurations": {"3d_fullres": configuration},
        "continue_training": False,
    }


def monai(key: str, classes: int, patch: int, device: str) -> Stepper:
    """A step of a plain loop around MONAI's network."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet

    network = UNet(3, 1, classes, FEATURES, (2,) * (len(FEATURES) - 1), num_res_units=2).to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99, nesterov=True)
    reading = {"to_onehot_y": True, "softmax": True, "include_background": False}
    loss: Callable[[Tensor, Tensor], Tensor] = DiceCELoss(**reading) if key == STOCK else ours(key)
    data, label = images(classes, patch, device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, enabled=device != "cpu"):
            output = network(data)
        loss(output.float() if key == STOCK else output, label).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    return Stepper(step, lambda: [network(data)], lambda x: loss(x[0], label))


PROGRAMS: dict[str, Callable[[str, int, int, str], Stepper]] = {"nnunet": nnunet, "monai": monai}


def images(classes: int, patch: int, device: str) -> tuple[Tensor, Tensor]:
    """Two random images, and their labels in blobs."""
    label = case(classes, patch)[1]
    image = torch.randn(2, 1, patch, patch, patch, generator=torch.Generator().manual_seed(1))
    return image.to(device), label.to(device)


def at_scale(label: Tensor, scale: list[float]) -> Tensor:
    """Labels at a scale of deep supervision, as nnU-Net's loader sends them."""
    return label[(..., *(slice(None, None, round(1 / s)) for s in scale))].to(torch.int16)


def measure(program: str, keys: list[str], classes: int, options: argparse.Namespace) -> list[Row]:
    """One row per loss; the steps of all take turns."""
    steppers = {key: PROGRAMS[program](key, classes, options.patch, options.device) for key in keys}
    rounds = (options.device, options.repeats, options.seconds * len(keys))
    steps = race({key: stepper.step for key, stepper in steppers.items()}, *rounds)
    alone = race({key: stepper.loss for key, stepper in steppers.items()}, *rounds)
    rows = []
    for key in keys:
        row: Row = dict(zip(FIELDS, (program, classes, options.patch, key), strict=True))
        rows.append({**row, "step": steps[key], "alone": alone[key]})
    return rows


def peak(program: str, key: str, classes: int, patch: int, device: str) -> int:
    """Peak bytes of a step, in a process of its own."""
    question = json.dumps([program, key, classes, patch, device])
    code = f"import json, benchmarks.step as s; s.measure_memory(*json.loads({question!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env={**os.environ, **LEAN}, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the process that measures the memory of {key} ended with {done.returncode}")
    return int(done.stdout.split()[-1])


def measure_memory(program: str, key: str, classes: int, patch: int, device: str) -> None:
    """Print the peak of the second step."""
    stepper = PROGRAMS[program](key, classes, patch, device)
    stepper.step()
    print(extra_memory(stepper.step, 0, device))


def show(rows: list[Row]) -> None:
    """Print the comparison."""
    table = Table("program", "classes", "patch", "loss", "step ms", "to stock", "loss ms", "share", "peak MB")
    for row in rows:
        stock = next((r for r in rows if all(r[f] == row[f] for f in FIELDS[:3]) and r["loss"] == STOCK), row)
        step, alone = row["step"]["least"], row["alone"]["least"]
        cells = (f"{1e3 * step:.0f}", f"{step / stock['step']['least']:.2f}", f"{1e3 * alone:.1f}")
        memory = f"{row['peak bytes'] / 1e6:.0f}" if "peak bytes" in row else "-"
        table.add_row(*(str(row[f]) for f in FIELDS), *cells, f"{alone / step:.1%}", memory)
    Console().print(table)


def main() -> None:
    """Command line."""
    known = [info.key for info in monai_segloss.list_losses()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--keys", nargs="+", default=["dice_ce", "dice_boundary"], choices=known, metavar="KEY")
    parser.add_argument("--classes", nargs="+", type=int, default=[3, 16, 118])
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--no-memory", action="store_true")
    arguments(parser)
    options = parser.parse_args()
    results = opened(options, "step")
    keys = [STOCK, *options.keys]
    for program in options.programs:
        for classes in options.classes:
            fields = [dict(zip(FIELDS, (program, classes, options.patch, key), strict=True)) for key in keys]
            if not options.again and all(results.has(**each) for each in fields):
                continue
            for row in measure(program, keys, classes, options):
                if not options.no_memory:
                    row["peak bytes"] = peak(program, row["loss"], classes, options.patch, options.device)
                results.add(row, *FIELDS)
    show([row for row in results.rows if row["patch"] == options.patch and row["classes"] in options.classes])
    Console().print(f"in {results.file}")


if __name__ == "__main__":
    main()
