"""A MONAI bundle with DICOM series: train on them, then segment a new series.

    python examples/bundle_dicom.py bundle-example

Needs `pip install "monai-segloss[bundle,dicom]"`. Takes two minutes on a CPU; a GPU is used where there is one.

Each case is a folder of slices, as a scanner or a PACS writes it, in an oblique position. Its label is a NIfTI
file on the same grid. For your own data put such folders into `imagesTr`, labels into `labelsTr`, and write a
`dataset.json` like the one below. `docs/how-to/bundle.md` has more, such as the evaluation of the validation
cases.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import itk
import nibabel
import numpy as np

UID = "1.2.826.0.1.3680043.2.1125."  # a prefix for tests; a hospital has its own


def make_case(series: Path, label: Path, seed: int, edge: int) -> None:
    """Write a noisy image of a ball as DICOM slices, and its label."""
    rng = np.random.default_rng(seed)
    shape = np.array((edge // 2, edge, edge))  # z, y, x
    distance = [i - n / 2 - rng.uniform(-2, 2) for i, n in zip(np.indices(shape), shape, strict=True)]
    inside = 4 * distance[0] ** 2 + distance[1] ** 2 + distance[2] ** 2 < (edge / 4) ** 2
    image = (200 * inside + rng.normal(0, 40, shape)).astype(np.int16)

    spacing, origin = (0.8, 0.8, 1.6), np.array((-12.0, 7.5, -100.0))  # x, y, z in mm
    tilt = np.deg2rad(10)
    direction = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])

    def placed(array: np.ndarray, corner: np.ndarray) -> itk.Image:
        found = itk.image_from_array(np.ascontiguousarray(array))
        found.SetSpacing(spacing)
        found.SetOrigin([float(x) for x in corner])
        found.SetDirection(itk.matrix_from_array(direction))
        return found

    series.mkdir(parents=True)
    label.parent.mkdir(exist_ok=True)
    itk.imwrite(placed(inside.astype(np.uint8), origin), str(label))
    for z in range(shape[0]):
        piece = placed(image[z : z + 1], origin + direction[:, 2] * spacing[2] * z)
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",  # a CT image
            "0008|0018": f"{UID}{seed}.1.{z + 1}",  # this slice
            "0008|0060": "CT",
            "0020|000d": f"{UID}{seed}.2",  # its study
            "0020|000e": f"{UID}{seed}.3",  # its series
            "0020|0013": str(z + 1),
        }
        for tag, value in tags.items():
            piece.GetMetaDataDictionary()[tag] = value
        io = itk.GDCMImageIO.New()
        io.KeepOriginalUIDOn()
        itk.imwrite(piece, str(series / f"slice_{z:03d}.dcm"), imageio=io)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what is made lies here")
    parser.add_argument("--epochs", type=int, default=20, help="of the training")
    parser.add_argument("--edge", type=int, default=48, help="of an image, in voxels")
    options = parser.parse_args()
    folder = options.folder.resolve()

    # 1. A data set: six cases for training and validation, and a new one.
    data = folder / "data"
    for i in range(6):
        make_case(data / "imagesTr" / f"case_{i}_0000", data / "labelsTr" / f"case_{i}.nii.gz", i, options.edge)
    make_case(folder / "new" / "patient", folder / "reference" / "patient.nii.gz", 6, options.edge)
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "ball": 1}, "file_ending": ".nii.gz"}
    (data / "dataset.json").write_text(json.dumps({**about, "numTraining": 6}))

    # 2. Your copy of the bundle; train; segment the new series. Each line is what you would type.
    bundle = folder / "bundle"
    run(folder, f'segloss bundle copy "{bundle}"')
    always = f'--dataset_dir "{data}" --patch_size [16,16,16]'
    length = f"--epochs {options.epochs} --learning_rate 0.01"
    run(
        bundle,
        f"python -m monai.bundle run --config_file configs/train.json --loss_key dice_boundary {length} {always}",
    )
    run(bundle, f'python -m monai.bundle run --config_file configs/inference.json --images_dir "{folder}/new" {always}')

    # 3. The label map of the new series has its place in the scanner.
    reference = nibabel.load(folder / "reference" / "patient.nii.gz")
    predicted = nibabel.load(bundle / "predictions" / "patient.nii.gz")
    same = np.allclose(predicted.affine, reference.affine, atol=1e-4)
    a, b = (np.asarray(file.dataobj) == 1 for file in (predicted, reference))
    print(f"The prediction is on the grid of the series: {same}. Dice {2 * (a & b).sum() / (a.sum() + b.sum()):.3f}.")
    print(f"Look at {bundle / 'eval'} and at {bundle / 'predictions' / 'patient.nii.gz'}.")


def run(where: Path, command: str) -> None:
    """A program of this Python environment, in a folder; its output is shown, and an error ends the example."""
    print(f"$ {command}", flush=True)
    name, *arguments = shlex.split(command)
    program = sys.executable if name == "python" else Path(sysconfig.get_path("scripts")) / name
    subprocess.run([program, *arguments], cwd=where, check=True)


if __name__ == "__main__":
    main()
