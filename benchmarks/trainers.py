"""Every loss on the same real volumes: one short schedule, fold and seed for all, through nnU-Net's own commands.

    python -m benchmarks.trainers --data ../shared/data/hippocampus_mr            # all losses; hours
    python -m benchmarks.trainers --data ... --keys dice_ce focal --work runs     # some
    python -m benchmarks.trainers --data ... --lr 0.05 --missed --work fast       # those below Dice 0.5, at a higher rate
    python -m benchmarks.trainers --data ... --stock                              # nnU-Net's own trainers
    python -m benchmarks.trainers --data ... --regions                            # losses that take no labels

The network runs in bfloat16 on the CPU, as nnU-Net trains in float16 on GPUs; the loss in float32.  Each loss is trained
and predicts the validation cases as `segloss demo` does it; its scores are written to
``benchmarks/results/<data set>[-lr-<rate> | -stock | -regions]/<key>.json`` as soon as they are there, below Dice 0.5 also
what the network has learned of the classes.  Started again it skips what has a result and goes on in the middle of a killed
training.  `python docs/generate.py` makes the table of the documentation.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

import monai_segloss
from benchmarks.measure import environment
from benchmarks.probabilities import predicted_probabilities
from monai_segloss.datalist import numbers_by_name
from monai_segloss.demo.dataset import read_dataset
from monai_segloss.demo.pipeline import Demo
from monai_segloss.demo.problem import DemoError
from monai_segloss.demo.process import sigterm_as_keyboard_interrupt
from monai_segloss.demo.progress import Display
from monai_segloss.demo.settings import BASELINE, Arm, Settings, refuse_unsupported, trainer_name
from monai_segloss.files import read_json, write_json
from nnunet_trainers import VARIABLE, precision

RESULTS = Path(__file__).resolve().parent / "results"
STOCK = {
    "dice_ce": "nnUNetTrainer",
    "dice": "nnUNetTrainerDiceLoss",
    "cross_entropy": "nnUNetTrainerCELoss",
    "topk_cross_entropy": "nnUNetTrainerTopk10Loss",
    "dice_topk": "nnUNetTrainerDiceTopK10Loss",
}
"""Losses of which nnU-Net has a trainer itself."""
REACHED = 0.5
"""Mean Dice over the classes that a trainer is expected to reach."""


def arm_of(key: str, settings: Settings, stock: bool) -> Arm:
    """The trainer of a loss, ours or nnU-Net's own."""
    if not stock:
        return Arm(key, trainer_name(settings, key), f"-{key}")
    schedule = f"seed{settings.seed}_{settings.epochs}epochs_{settings.iterations}iterations"
    return Arm(key, f"{STOCK[key]}_{schedule}", f"-stock-{key}")


def as_regions(data: Path, folder: Path) -> Path:
    """The same volumes with regions in place of classes: all of them together, then each but the first by itself."""
    content = read_json(data / "dataset.json")
    numbers = numbers_by_name(content["labels"])
    names = [name for name in numbers if name not in ("background", "ignore")]
    labels = [numbers[name][0] for name in names]
    regions = {"background": 0, "_".join(names): labels, **dict(zip(names[1:], ([x] for x in labels[1:]), strict=True))}
    kept = {name: content["labels"][name] for name in ("ignore",) if name in content["labels"]}
    folder.mkdir(parents=True, exist_ok=True)
    for each in data.iterdir():
        if each.is_dir() and not (folder / each.name).exists():
            (folder / each.name).symlink_to(each)
    write_json(folder / "dataset.json", {**content, "labels": regions | kept, "regions_class_order": labels})
    return folder


def train(arm: Arm, demo: Demo) -> dict[str, Any]:
    """Train, predict and measure one loss in the work folder that all share."""
    assert demo.source is not None
    refuse_unsupported(arm.loss, demo.source)
    demo.run()
    scores = read_json(demo.work / "scores.json")["trainers"][arm.trainer]
    return {
        "loss": arm.loss,
        "trainer": arm.trainer,
        "precision": "float16" if demo.settings.device == "cuda" else os.environ[precision.VARIABLE] or "float32",
        "seconds": round(demo.stages.seconds(f"train{arm.suffix}")),
        "classes": {name: summary([case[name] for case in scores.values()]) for name in demo.source.classes},
        "cases": len(scores),
        "environment": environment(),
    }


def mean_dice(result: dict[str, Any]) -> float:
    """Over the classes."""
    return statistics.mean(each["dice"] for each in result["classes"].values())


def asks_why(result: dict[str, Any]) -> bool:
    """Whether a result is below what is expected, and does not say yet what the network has learned."""
    return mean_dice(result) < REACHED and "probability" not in result


def missed(folder: Path) -> list[str]:
    """The losses whose result in a folder is below what is expected."""
    results = [read_json(file) for file in sorted(folder.glob("*.json"))]
    return [result["loss"] for result in results if mean_dice(result) < REACHED]


def summary(rows: list[dict[str, float | None]]) -> dict[str, float]:
    """One class over the cases: mean Dice, surface Dice and HD95 (mm), components found, in all, and false."""
    means = {name: [value for row in rows if (value := row[name]) is not None] for name in ("dice", "nsd", "hd95")}
    found: dict[str, float] = {name: round(statistics.mean(each), 4) for name, each in means.items() if each}
    counts = ("found", "components", "false_components")
    return found | {name: sum(int(row[name] or 0) for row in rows) for name in counts}


def main() -> None:
    """Command line."""
    keys = [info.key for info in monai_segloss.list_losses()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="nnU-Net raw data set")
    parser.add_argument("--work", type=Path, default=Path("segloss-trainers"), help="folder of the runs (many GB)")
    parser.add_argument("--keys", nargs="+", default=keys, choices=keys, metavar="KEY")
    parser.add_argument("--lr", type=float, help="initial learning rate; default: nnU-Net's own, 0.01")
    parser.add_argument(
        "--missed", action="store_true", help="of these, the losses below Dice 0.5 at nnU-Net's own rate"
    )
    parser.add_argument("--stock", action="store_true", help=f"nnU-Net's own trainers, of {', '.join(STOCK)}")
    parser.add_argument(
        "--regions", action="store_true", help="the classes as regions, for the losses that take no labels"
    )
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--float32", action="store_true", help="no mixed precision on the CPU (takes twice as long)")
    options = parser.parse_args()
    if options.stock and (options.lr is not None or options.missed):
        parser.error("--stock trains at nnU-Net's own rate: leave out --lr and --missed")
    if options.regions and (options.stock or options.lr is not None or options.missed):
        parser.error("--regions trains our own at nnU-Net's own rate: leave out --stock, --lr and --missed")
    os.environ[precision.VARIABLE] = "" if options.float32 or options.device != "cpu" else "bfloat16"
    data, work = options.data.resolve(), options.work
    folder = RESULTS / (data.name if options.lr is None else f"{data.name}-lr-{options.lr:g}")
    wanted = options.keys
    if options.regions:
        folder, work = RESULTS / f"{data.name}-regions", work.with_name(f"{work.name}-regions")
        wanted = [key for key in wanted if "labels" not in monai_segloss.find(key).support]
        data = as_regions(data, work.with_name(f"{work.name}-data") / data.name)
    settings = Settings(
        loss=BASELINE,
        data=str(data),
        device=options.device,
        epochs=options.epochs,
        iterations=options.iterations,
        lr=options.lr,
        seed=options.seed,
        fold=options.fold,
        tolerance=None,
        quick=False,
    )
    if options.missed:
        again = missed(folder.with_name(data.name))
        wanted = [key for key in wanted if key in again]
    if options.stock:
        folder = RESULTS / f"{data.name}-stock"
        wanted = [key for key in wanted if key in STOCK]
        own = str(Path(__file__).resolve().parent / "stock")
        os.environ[VARIABLE] = os.pathsep.join(filter(None, [own, os.environ.get(VARIABLE)]))
    console = Console()
    try:
        with sigterm_as_keyboard_interrupt():
            for key in wanted:
                arm, target = arm_of(key, settings, options.stock), folder / f"{key}.json"
                console.print(f"{key}: {_done(target, arm, settings, work, console)}")
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command continues.")


def _done(target: Path, arm: Arm, settings: Settings, work: Path, console: Console) -> str:
    """Make what is missing of the result of one loss; what was done, or why not."""
    try:
        source = read_dataset(Path(str(settings.data)))
        demo = Demo(work, settings, [arm], " ".join(sys.argv), source, Display(console))
        if target.exists():
            result = read_json(target)
            if not asks_why(result) or not (demo.fold(arm) / "checkpoint_final.pth").exists():
                return f"{target} is there"
        else:
            result = train(arm, demo)
            write_json(target, result)
        if asks_why(result):
            write_json(target, {**result, "probability": predicted_probabilities(demo, arm)})
    except DemoError as error:
        return str(error)
    return f"written to {target}"


if __name__ == "__main__":
    main()
