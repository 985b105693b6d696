"""Predictions that are there already, as runs: model folders of nnU-Net, or folders of predictions and their labels."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from monai_segloss.datalist import numbers_by_name
from monai_segloss.experiment.network import described

SEED = re.compile(r"_seed(\d+)(?=_|$)")
SPEC = re.compile(r"(?:(?P<arm>[^=@/\\]+?)(?:@(?P<seed>\d+))?=)?(?P<folder>.+)")


class SourceError(ValueError):
    """A folder that holds no predictions that could be compared."""


@dataclass(frozen=True)
class Source:
    """One run: a training's predictions of the cases that it held out.

    Args:
        run: name, once in a comparison.
        arm: the loss with its settings.
        seed: of the training.
        fold: held out.
        dataset, configuration: names.
        predictions: folder with one file per case, and maybe ``CASE.npz`` with probabilities.
        labels: folder with the references, or with preprocessed copies of them.
        description: of the data set (dataset.json): labels, file ending.
        facts: of the run, for the table of runs.
        state: see `tables.STATES`.
        images: folder with the images, where it is known: only figures need it.
        epochs: rows of the table of curves; None: they are in nnU-Net's logs.
    """

    run: str
    arm: str
    seed: int
    fold: str
    dataset: str
    configuration: str
    predictions: Path
    labels: Path
    description: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: str = "done"
    images: Path | None = None
    epochs: Sequence[Mapping[str, Any]] | None = None

    @property
    def ending(self) -> str:
        """Of the files."""
        return str(self.description["file_ending"])

    @property
    def cases(self) -> list[str]:
        """Names of the predicted cases."""
        return sorted(file.name.removesuffix(self.ending) for file in self.predictions.glob(f"*{self.ending}"))

    @property
    def classes(self) -> dict[str, tuple[int, ...]]:
        """Labels of each foreground class; a region has several."""
        numbers = numbers_by_name(self.description["labels"])
        return {name: each for name, each in numbers.items() if name not in ("background", "ignore")}

    @property
    def regions(self) -> bool:
        """Whether a class is made of several labels."""
        return any(len(each) > 1 for each in self.classes.values())

    @property
    def ignored(self) -> tuple[int, ...]:
        """Labels of voxels that must not count."""
        return numbers_by_name(self.description["labels"]).get("ignore", ())


def find(specs: Sequence[str], labels: Path | None = None, images: Path | None = None) -> list[Source]:
    """The runs behind what a user names.

    Args:
        specs: folders, each a model folder of nnU-Net (``TRAINER__PLANS__CONFIGURATION`` with ``fold_*/validation``), one
            that holds such folders, or predictions with a ``dataset.json`` alongside or above the labels. ``ARM=FOLDER`` and
            ``ARM@SEED=FOLDER`` name the arm and the seed where the folder does not.
        labels: folder with the references, where they are not found by nnU-Net's environment variables.
        images: folder with the images for figures; None: ``imagesTr`` next to ``labelsTr``, where it is there.

    Raises:
        SourceError: a folder is missing or holds nothing of the kind, two runs have one name, or the labels are not found.
    """
    found: list[Source] = []
    if images is not None and not images.is_dir():
        raise SourceError(f"{images} is not a folder.")
    for spec in specs:
        match = SPEC.fullmatch(spec)
        assert match is not None
        folder = Path(match["folder"]).expanduser()
        if not folder.is_dir():
            raise SourceError(f"{folder} is not a folder.")
        seed = None if match["seed"] is None else int(match["seed"])
        found += _of_folder(folder, match["arm"], seed, labels)
    names = [each.run for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SourceError(
            f"two folders are the run {twice!r}: name arm and seed, for example {twice.split(' ')[0]}@1=FOLDER."
        )
    if not found:
        raise SourceError("no folder was given.")
    return [replace(each, images=images or _images_of(each)) for each in found]


def _images_of(source: Source) -> Path | None:
    """The images by the side of the labels, or of the raw data set that nnU-Net's variable names."""
    raw = [source.labels.parent] if source.labels.name == "labelsTr" else []
    raw += [Path(os.environ[name]) / source.dataset for name in ("nnUNet_raw",) if name in os.environ]
    return next((each / "imagesTr" for each in raw if (each / "imagesTr").is_dir()), None)


def _of_folder(folder: Path, arm: str | None, seed: int | None, labels: Path | None) -> list[Source]:
    models = [folder] if _is_model(folder) else [each for each in sorted(folder.iterdir()) if _is_model(each)]
    if models:
        if len(models) > 1 and arm is not None:
            raise SourceError(f"{folder} holds {len(models)} models: one name, {arm!r}, cannot be that of all of them.")
        return [source for model in models for source in _of_model(model, arm, seed, labels)]
    return [_of_predictions(folder, arm, seed, labels)]


def _is_model(folder: Path) -> bool:
    return folder.is_dir() and folder.name.count("__") == 2 and any(folder.glob("fold_*/validation"))


def _of_model(model: Path, arm: str | None, seed: int | None, labels: Path | None) -> list[Source]:
    trainer, _, configuration = model.name.split("__")
    description = _json(model / "dataset.json")
    place = labels or _labels_of(model.parent.name)
    found = []
    for fold in sorted(model.glob("fold_*")):
        if not (fold / "validation").is_dir():
            continue
        named = SEED.search(trainer)
        own = seed if seed is not None else int(named[1]) if named else 0
        name = arm or SEED.sub("", trainer)
        which = fold.name.removeprefix("fold_")
        found.append(
            Source(
                f"{name} seed {own} fold {which}",
                name,
                own,
                which,
                model.parent.name,
                configuration,
                fold / "validation",
                place,
                description,
                facts(model, fold),
            )
        )
    return found


def _of_predictions(folder: Path, arm: str | None, seed: int | None, labels: Path | None) -> Source:
    if labels is None:
        raise SourceError(
            f"{folder} is no model folder of nnU-Net (TRAINER__PLANS__CONFIGURATION with fold_*/validation); for a folder "
            "of predictions give --labels."
        )
    places = (folder / "dataset.json", labels / "dataset.json", labels.parent / "dataset.json")
    file = next((each for each in places if each.is_file()), None)
    if file is None:
        raise SourceError(
            f"dataset.json, which names the labels, is in none of {', '.join(str(p.parent) for p in places)}."
        )
    name, own = arm or folder.name, seed or 0
    dataset = file.parent.name
    source = Source(
        f"{name} seed {own} fold all", name, own, "all", dataset, "predictions", folder, labels, _json(file)
    )
    if not source.cases:
        raise SourceError(f"{folder} holds no files that end in {source.ending}.")
    return source


def _labels_of(dataset: str) -> Path:
    """The references of a data set, by the variables of nnU-Net."""
    places = [
        Path(os.environ[variable]) / dataset / name
        for variable, name in (("nnUNet_preprocessed", "gt_segmentations"), ("nnUNet_raw", "labelsTr"))
        if variable in os.environ
    ]
    for place in places:
        if place.is_dir():
            return place
    looked = f" (looked in {', '.join(map(str, places))})" if places else ", and nnUNet_raw is not set"
    raise SourceError(f"the labels of {dataset} were not found{looked}; give --labels.")


def facts(model: Path, fold: Path) -> dict[str, Any]:
    """What nnU-Net's folder of a run says about it, whether it was finished or not."""
    epochs, times = _log(fold)
    minutes = round(sum(times) / 60, 2) if epochs else None
    return {"epochs": epochs or None, "minutes": minutes, **_hashes(model, fold)}


def _hashes(model: Path, fold: Path) -> dict[str, Any]:
    """Of what runs that are compared must share: held-out cases, plans (the loss aside), first weights."""
    weights = re.search(r"segloss first weights: (\w+)", _logs(fold))
    return {
        "splits_hash": hash_of_cases(fold / "validation"),
        "weights_hash": weights[1] if weights else None,
        **_plans(model),
    }


def hash_of_cases(predictions: Path) -> str | None:
    """Of the names of what was predicted; None where nothing was."""
    files = predictions.iterdir() if predictions.is_dir() else ()
    cases = [file.name for file in files if file.suffix not in (".json", ".npz", ".pkl")]
    return _hash(" ".join(sorted(cases)).encode()) if cases else None


def _plans(model: Path) -> dict[str, Any]:
    """Hash of the plans, and the network in words."""
    if not (model / "plans.json").is_file():
        return {"plans_hash": None, "network": None}
    plans, name = _json(model / "plans.json"), model.name.split("__")[-1]
    known, chain = plans.pop("configurations", {}), list[Any]()
    while name in known and known[name] not in chain:
        chain.append(known[name])
        name = known[name].get("inherits_from")
    merged = {key: value for each in reversed(chain) for key, value in each.items()}
    planned = {key: value for key, value in merged.items() if key not in ("inherits_from", "segloss")}
    hashed = _hash(json.dumps([plans, planned], sort_keys=True).encode())
    return {"plans_hash": hashed, "network": described(planned)}


def _logs(fold: Path) -> str:
    """All logs of a run, in the order of their dates, whose numbers have no leading zeros."""
    files = sorted(
        fold.glob("training_log_*.txt"), key=lambda file: [int(each) for each in re.findall(r"\d+", file.stem)]
    )
    return "\n".join(file.read_text(errors="replace") for file in files)


def _hash(content: bytes) -> str:
    return sha256(content).hexdigest()[:12]


def _log(fold: Path) -> tuple[int, list[float]]:
    """Epochs and their seconds, of all logs of a run."""
    text = _logs(fold)
    epochs = {int(each) for each in re.findall(r"Epoch (\d+)\s*$", text, re.M)}
    return len(epochs), [float(each) for each in re.findall(r"Epoch time: ([\d.]+) s", text)]


def curves(source: Source) -> list[dict[str, Any]]:
    """Losses and the online Dice by epoch, of the logs of a run of nnU-Net; the last one counts where one was repeated."""
    if source.epochs is not None:
        return [{"run": source.run, **row} for row in source.epochs]
    rows: dict[int, dict[str, Any]] = {}
    epoch: int | None = None
    patterns = {"train_loss": r"train_loss (\S+)\s*$", "val_loss": r"val_loss (\S+)\s*$"}
    for line in _logs(source.predictions.parent).splitlines():
        begun = re.search(r"Epoch (\d+)\s*$", line)
        if begun:
            epoch = int(begun[1])
            rows[epoch] = {"run": source.run, "epoch": epoch}
        for name, pattern in patterns.items() if epoch is not None else ():
            value = re.search(pattern, line)
            if value and epoch is not None:
                rows[epoch][name] = _number(value[1])
        dice = re.search(r"Pseudo dice \[(.*)\]", line)
        if dice and epoch is not None:
            values = [x for each in re.findall(r"\d+\.\d*(?:e-?\d+)?|nan", dice[1]) if (x := _number(each)) == x]
            rows[epoch]["dice"] = sum(values) / len(values) if values else None
    return [rows[each] for each in sorted(rows)]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{file} cannot be read: {error}.") from None
    return content
