"""Memory of the loss step in the bundle, on a real CT with all of its classes: our loss and MONAI's, configuration alike.

    python -m benchmarks.bundle_memory --image CT.nii.gz --label SEGMENTATION.nii.gz --classes 118

Each loss trains the bundle in a process of its own for one step on the same patch.  There, loss and backward run once more
on logits and label of that step alone: memory is the peak of the process beyond what was there before and the gradient,
as in `benchmarks.losses`.  ``step`` is the peak of the whole process in network, loss, backward and optimizer, beyond what
was there before the step.  Linux on a CPU.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks.measure import environment, status
from monai_segloss.files import write_json

LOSSES: dict[str, dict[str, Any]] = {
    "segloss": {"_target_": "monai_segloss.DiceCELoss"},
    "MONAI": {"_target_": "monai.losses.DiceCELoss"},
}
READING = {"softmax": True, "to_onehot_y": True, "include_background": False}


class Probe(nn.Module):
    """A loss that measures itself on the logits of a training step, and the step around it."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss, self.found = loss, {}
        self.before = 0

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The value; ``found`` then holds what it cost by itself."""
        alone = logits.detach().requires_grad_()
        before, start = reset_peak(), time.process_time()
        value = self.loss(alone, label)
        value.backward()
        size = alone.numel() * alone.element_size()
        self.found = {
            "loss MiB": (status("VmHWM") - before - size) / 2**20,
            "logits MiB": size / 2**20,
            "loss CPU s": time.process_time() - start,
            "loss": value.item(),
        }
        del alone, value
        reset_peak()  # whatever follows is the step itself: forward of the network is still in memory
        return self.loss(logits, label)


def reset_peak() -> int:
    """Forget the peak of the process so far; resident bytes now."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def train(name: str, folder: Path, classes: int, patch: list[int]) -> dict[str, float]:
    """One step of the bundle with a loss, in this process."""
    from monai.bundle import create_workflow

    from monai_segloss.bundle import bundle_path

    logging.disable(logging.WARNING)
    flow = create_workflow(
        workflow_name="ConfigWorkflow",
        workflow_type="train",
        config_file=str(bundle_path() / "configs" / "train.json"),
        logging_file=False,
        bundle_root=str(folder / name),
        dataset_dir=str(folder),
        fold="all",
        epochs=1,
        batch_size=1,
        num_samples=1,
        patch_size=patch,
        loss={**LOSSES[name], **READING},
        device="$torch.device('cpu')",
        **{
            "train#handlers": [],
            "train#key_metric": None,
            "train#postprocessing": None,
            "network_def#channels": [8, 16, 32, 64],
        },
    )
    trainer = flow.trainer
    probe = trainer.loss_function = Probe(trainer.loss_function)
    before = status("VmRSS")
    trainer.run()
    return {**probe.found, "step MiB": (status("VmHWM") - before) / 2**20}


def prepare(folder: Path, image: Path, label: Path, classes: int) -> None:
    """A raw data set of one case."""
    for source, target in ((image, "imagesTr/case_0000.nii.gz"), (label, "labelsTr/case.nii.gz")):
        (folder / target).parent.mkdir()
        shutil.copyfile(source, folder / target)
    labels = {"background": 0, **{f"class {value}": value for value in range(1, classes)}}
    about = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(about))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--label", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=118, help="outputs of the network, background included")
    parser.add_argument("--patch", type=int, nargs=3, default=[96, 96, 32])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        warnings.simplefilter("ignore")
        print(json.dumps(train(options.one, options.image, options.classes, options.patch)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.image, options.label, options.classes)
        again = [sys.executable, "-m", "benchmarks.bundle_memory", "--label", "-", "--image", name]
        again += ["--classes", str(options.classes), "--patch", *map(str, options.patch)]
        env = {
            **os.environ,
            "MALLOC_MMAP_THRESHOLD_": "262144",
            "MALLOC_TRIM_THRESHOLD_": "0",
            "CUDA_VISIBLE_DEVICES": "",
        }
        rows = {}
        for loss in LOSSES:
            done = subprocess.run([*again, "--one", loss], check=True, stdout=subprocess.PIPE, text=True, env=env)
            rows[loss] = json.loads(done.stdout.splitlines()[-1])
            print(loss, *(f"{what} {value:.4g}" for what, value in rows[loss].items()), sep="   ")
    print(f"loss memory, ours to MONAI's: {rows['segloss']['loss MiB'] / rows['MONAI']['loss MiB']:.3f}")
    if options.output:
        content = {"environment": environment(), "classes": options.classes, "patch": options.patch, "rows": rows}
        write_json(options.output, content)


if __name__ == "__main__":
    main()
