"""Stand-ins for the programs of nnU-Net in a comparison: what they write depends on trainer, seed and fold alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
import zlib
from pathlib import Path

FAIL, PACE = "SEGLOSS_TEST_FAIL", "SEGLOSS_TEST_PACE"
CONFIGURATIONS = {"3d_fullres": {"patch_size": [8, 16, 16], "spacing": [5.0, 1.2, 1.2]}}


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def plan(raw: Path, preprocessed: Path) -> None:
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps({"configurations": CONFIGURATIONS}))
    shutil.copytree(raw / "labelsTr", preprocessed / "gt_segmentations")


def stop(where: str, trainer: str) -> None:
    """End as the test asks for, at a place of a trainer."""
    which, _, rest = os.environ.get(FAIL, "").partition(":")
    place, _, how = rest.partition(":")
    if not which or which not in trainer or place != where:
        return
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "disk":
        raise OSError(28, "No space left on device")
    if how == "nan":
        print("nnunet_trainers.diverged.DivergedError: Epoch 1: the loss is NaN or infinite in 2 of 2 iterations")
        sys.exit(1)
    raise RuntimeError("no such kernel")


def train(raw: Path, preprocessed: Path, results: Path) -> None:
    trainer, configuration, fold = option("-tr"), sys.argv[2], int(sys.argv[3])
    assert ("softlabels" not in trainer) or (preprocessed / "soft_labels").is_dir()
    seed, epochs = (int(re.search(pattern, trainer)[1]) for pattern in (r"seed(\d+)", r"(\d+)epochs"))  # type: ignore[index]
    assert configuration in json.loads((preprocessed / "nnUNetPlans.json").read_text())["configurations"]
    model = results / f"{trainer}__nnUNetPlans__{configuration}"
    folder = model / f"fold_{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(preprocessed / "nnUNetPlans.json", model / "plans.json")
    shutil.copyfile(raw / "dataset.json", model / "dataset.json")
    latest, final = folder / "checkpoint_latest.pth", folder / "checkpoint_final.pth"
    assert ("--c" in sys.argv) == (latest.exists() and not final.exists())
    assert ("--val" in sys.argv) == final.exists()
    number = len(list(folder.glob("training_log_*.txt")))
    with open(folder / f"training_log_2026_1_1_00_00_{number:02}.txt", "w") as log:

        def say(text: str) -> None:
            for stream in (log, sys.stdout):
                print(f"2026-01-01 00:00:00.000000: {text}", file=stream, flush=True)

        say(f"segloss first weights: {seed:012}")
        for epoch in range(int(latest.read_text()) if latest.exists() else 0, 0 if final.exists() else epochs):
            say(f"Epoch {epoch}")
            time.sleep(float(os.environ.get(PACE, "0")))
            stop("train", trainer)
            say(f"train_loss {0.9 - 0.1 * epoch - 0.01 * seed}")
            say("val_loss 0.8")
            say(f"Pseudo dice [np.float32(0.{epoch + 5}), np.float32(nan), np.float32(0.0)]")
            say("Epoch time: 1.5 s")
            latest.with_suffix(".tmp").write_text(str(epoch + 1))
            latest.with_suffix(".tmp").rename(latest)
            if epoch == 0:
                stop("checkpoint", trainer)
        final.touch()
        say("Training done.")
        validate(raw, folder, trainer, json.loads((preprocessed / "splits_final.json").read_text())[fold]["val"])


def validate(raw: Path, folder: Path, trainer: str, cases: list[str]) -> None:
    import nibabel
    import numpy as np

    (folder / "validation").mkdir(exist_ok=True)
    for number, case in enumerate(cases):
        print(f"2026-01-01 00:00:{5 + 3 * number:02}.000000: predicting {case}")
        rng = np.random.default_rng(zlib.crc32(f"{trainer} {case}".encode()))
        image = nibabel.load(raw / "labelsTr" / f"{case}.nii.gz")
        label = np.asarray(image.dataobj)
        moved = np.roll(label, int(rng.integers(0, 3)), 0) if "Empty" not in os.environ.get(FAIL, "") else 0 * label
        nibabel.save(nibabel.Nifti1Image(moved, image.affine), folder / "validation" / f"{case}.nii.gz")
        soft = np.stack([0.1 + 0.6 * (each == moved.T) for each in range(4)]).astype(np.float32)
        np.savez_compressed(folder / "validation" / f"{case}.npz", probabilities=soft)
        time.sleep(float(os.environ.get(PACE, "0")) / 4)
        stop("validation", trainer)
    (folder / "validation" / "summary.json").write_text("{}")


def run() -> None:
    name, sys.argv = sys.argv[1], sys.argv[1:]
    base, preprocessed, results = (Path(os.environ[f"nnUNet_{kind}"]) for kind in ("raw", "preprocessed", "results"))
    raw = next(base.iterdir())
    if name == "nnUNetv2_plan_and_preprocess":
        plan(raw, preprocessed / raw.name)
    elif name == "segloss":
        assert sys.argv[1:5] == ["nnunet", "soft-labels", str(int(raw.name[7:10])), "3d_fullres"]
        shutil.copytree(raw / "labelsTr_raters", preprocessed / raw.name / "soft_labels")
    else:
        train(raw, preprocessed / raw.name, results / raw.name)
