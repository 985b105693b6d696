"""Stand-ins for the programs of nnU-Net: they write what the real ones write, at once.

The real ones run in test_demo_real.py; these show what the pipeline does around them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

FAIL = "SEGLOSS_TEST_FAIL"


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def plan(raw: Path, preprocessed: Path) -> None:
    plan = {"patch_size": [8, 16, 16], "batch_size": 2, "spacing": [5.0, 1.2, 1.2]}
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps({"configurations": {"3d_fullres": plan}}))
    cases = sorted(p.name.removesuffix(".nii.gz") for p in (raw / "labelsTr").iterdir())
    splits = [{"train": cases[1:], "val": cases[:1]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    print("Preprocessing cases: 100%|###| 5/5 [00:00<00:00, 3.1it/s]")


def train(results: Path) -> None:
    fold = results / f"{option('-tr')}__nnUNetPlans__3d_fullres" / f"fold_{sys.argv[3]}"
    fold.mkdir(parents=True, exist_ok=True)
    first = 1 if "--c" in sys.argv else 0
    for epoch in range(first, 2):
        print(f"2026-01-01 00:00:00.000000: Epoch {epoch}")
        print(f"2026-01-01 00:00:00.000000: train_loss {0.9 - 0.1 * epoch}")
        print("2026-01-01 00:00:00.000000: val_loss 0.8")
        print(f"2026-01-01 00:00:00.000000: Pseudo dice [np.float32(0.{epoch + 5}), np.float32(nan), np.float32(0.0)]")
        print("2026-01-01 00:00:00.000000: Epoch time: 1.5 s", flush=True)
        (fold / "checkpoint_latest.pth").touch()
        fail("train")
    (fold / "checkpoint_final.pth").touch()


def predict(raw: Path) -> None:
    target = Path(option("-o"))
    target.mkdir(parents=True)
    for image in sorted(Path(option("-i")).iterdir()):
        name = image.name.replace("_0000", "")
        label = next(raw / split / name for split in ("labelsTs", "labelsTr") if (raw / split / name).exists())
        shutil.copyfile(label, target / name)
        print(f"done with {name.removesuffix('.nii.gz')}")
        fail("predict")


def fail(where: str) -> None:
    """Do what the test asks for: an error, a full disk, or no end."""
    place, _, how = os.environ.get(FAIL, "").partition(":")
    if place != where:
        return
    if how == "hang":
        print("hanging", flush=True)
        time.sleep(600)
    raise OSError(28, "No space left on device") if how == "disk" else RuntimeError("the loss is NaN")


def run() -> None:
    name, sys.argv = sys.argv[1], sys.argv[1:]
    base, preprocessed, results = (Path(os.environ[f"nnUNet_{kind}"]) for kind in ("raw", "preprocessed", "results"))
    raw = next(base.iterdir())
    if name == "nnUNetv2_plan_and_preprocess":
        plan(raw, preprocessed / raw.name)
    elif name == "nnUNetv2_train":
        train(results / raw.name)
    else:
        predict(raw)
