"""nnU-Net from volumes to predictions: plan, train with a loss of this package, predict, measure.

    python examples/train_nnunet.py nnunet-example

Needs `pip install "monai-segloss[nnunet]"`. Takes about five minutes on a CPU. `--device cuda` uses a GPU.

The programs are nnU-Net's own. The variable `nnUNet_extTrainer` lets them find the trainers of this package. On
your own machine `segloss nnunet enable` does that once. For your own data put `imagesTr`, `labelsTr` and
`dataset.json` in place of the generated volumes, and leave the length of the training out of the trainer's name.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

import nibabel
import numpy as np

from monai_segloss.demo.generate import LABELS, Size, make_dataset
from nnunet_trainers import discovery_dir


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what is made lies here")
    parser.add_argument("--trainer", default="nnUNetTrainerFocalTversky_lr5em2_seed0_9epochs_25iterations")
    parser.add_argument("--extent", type=float, nargs=3, default=(60.0, 55.2, 55.2), help="of the volumes in mm: z y x")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "mps"])
    options = parser.parse_args()

    # 1. The folders of nnU-Net, and a data set of CT-like volumes: 10 to train with, 2 to predict.
    folders = {f"nnUNet_{name}": str(options.folder.resolve() / name) for name in ("raw", "preprocessed", "results")}
    os.environ.update(folders, nnUNet_extTrainer=discovery_dir(), nnUNet_def_n_proc="1")
    raw = options.folder / "raw" / "Dataset001_Generated"
    make_dataset(raw, seed=0, size=Size(train=10, test=2, extent=tuple(options.extent)))

    # 2. Plan, train, predict. Each line is what you would type.
    run("nnUNetv2_plan_and_preprocess -d 1 -c 3d_fullres -np 1 -npfp 1")
    os.environ.update(nnUNet_n_proc_DA="0")  # no worker processes: in so short a training they cost more than they help
    run(f"nnUNetv2_train 1 3d_fullres 0 -tr {options.trainer} -device {options.device}")
    predictions = options.folder / "predictions"
    run(
        f"nnUNetv2_predict -d 1 -c 3d_fullres -f 0 -tr {options.trainer} -device {options.device} -npp 1 -nps 1 "
        f'-i "{raw}/imagesTs" -o "{predictions}"'
    )

    # 3. Dice of the two volumes that the training has not seen.
    for file in sorted((raw / "labelsTs").iterdir()):
        reference, predicted = (np.asarray(nibabel.load(path).dataobj) for path in (file, predictions / file.name))
        for name, value in list(LABELS.items())[1:]:
            a, b = reference == value, predicted == value
            print(f"{file.name} {name}: Dice {2 * (a & b).sum() / (a.sum() + b.sum()):.3f}")
    model = options.folder / "results" / raw.name / f"{options.trainer}__nnUNetPlans__3d_fullres"
    print(f"Look at {model / 'fold_0' / 'progress.png'} and at the label maps in {predictions}.")


def run(command: str) -> None:
    """A program of this Python environment; its output is shown, and an error ends the example."""
    print(f"$ {command}", flush=True)
    name, *arguments = shlex.split(command)
    subprocess.run([Path(sysconfig.get_path("scripts")) / name, *arguments], check=True)


if __name__ == "__main__":
    main()
