"""Compare trainings that are there already, and read the report.

    python examples/compare_losses.py comparison-example

Needs `pip install "monai-segloss[compare]"`. Takes half a minute on a CPU.

In place of trainings it writes what trainings leave: label maps of twelve held-out cases, from two losses with two
seeds each. The first loss makes small errors that differ from seed to seed. The second misses the border of every
organ and most lesions. `segloss compare existing` measures all cases and says which differences are larger than
the noise of the seed. For your own models name their folders, `ARM@SEED=FOLDER`; model folders of nnU-Net need no
`--labels`.
"""

from __future__ import annotations

import argparse
import subprocess
import sysconfig
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from monai_segloss.demo.generate import LABELS, Size, make_dataset


def predicted(label: np.ndarray, careful: bool, rng: np.random.Generator) -> np.ndarray:
    """A label map with errors."""
    found = np.where(ndimage.gaussian_filter(rng.normal(size=label.shape), 2) > 0.12, 0, label)
    if not careful:
        organ = label == LABELS["organ"]
        found[organ & ~ndimage.binary_erosion(organ, iterations=1)] = 0
        found[(label == LABELS["lesion"]) & (rng.random() < 0.7)] = LABELS["organ"]
    return found.astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what is made lies here")
    parser.add_argument("--cases", type=int, default=12, help="held-out cases; a verdict takes at least six")
    options = parser.parse_args()

    # 1. Cases with their labels, and predictions of two losses with two seeds each.
    data = options.folder / "data"
    make_dataset(data, seed=0, size=Size(train=options.cases, test=0, extent=(45.0, 30.0, 30.0)))
    arms = []
    for loss, careful in (("first", True), ("second", False)):
        for seed in (0, 1):
            folder = options.folder / "predictions" / f"{loss}_{seed}"
            folder.mkdir(parents=True)
            rng = np.random.default_rng([careful, seed])
            for file in sorted((data / "labelsTr").iterdir()):
                label = nibabel.load(file)
                mask = predicted(np.asarray(label.dataobj), careful, rng)
                nibabel.save(nibabel.Nifti1Image(mask, label.affine), folder / file.name)
            arms.append(f"{loss}@{seed}={folder}")

    # 2. Measure and compare.
    report = options.folder / "report"
    command = ["segloss", "compare", "existing", *arms, "--labels", str(data / "labelsTr"), "-o", str(report)]
    print("$", *command, flush=True)
    subprocess.run([Path(sysconfig.get_path("scripts")) / command[0], *command[1:]], check=True)
    print(f"Look at {report / 'report.html'}: the verdict, then the cases in which the losses differ most.")


if __name__ == "__main__":
    main()
