"""Whether a bundle trains a segmentation at all, read off its files: nothing of it is run."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_segloss.bundle.keys import REFERENCE, follow
from monai_segloss.bundle.pipeline import LABEL, Pipeline
from monai_segloss.bundle.place import Place
from monai_segloss.bundle.stock import Stock

OTHER_TASKS = {
    "classifies whole images": "densenet efficientnet resnet resnext senet seresne vit vgg convnext mobilenet classifier "
    "torchvisionfcmodel milmodel critic discriminator regressor",
    "registers images": "localnet globalnet regunet voxelmorph",
    "makes images": "autoencoderkl vqvae varautoencoder diffusionmodel controlnet spade generator vitautoenc "
    "maskedautoencoder",
}
"""How the names of MONAI's and torchvision's networks for other tasks begin."""


def refusal(config: Any, place: Place, stock: Stock | None, file: Path) -> str | None:
    """Why a bundle's loss, network, data or trainer cannot be those of a segmentation; None where nothing speaks against it.

    Args:
        config: the training configuration.
        place: of trainer and loss in it.
        stock: its loss.
        file: its name.
    """
    escape = "say --labels or --regions if it segments all the same."
    if stock is not None and not stock.segments:
        return (
            f"the loss at {place.loss!r} is {stock.name}, which compares no segmentation with labels; expected one such as "
            f"DiceCELoss: {escape}"
        )
    kind = str(network_of(config, place).get("_target_")).rpartition(".")[2]
    does = [task for task, names in OTHER_TASKS.items() if kind.lower().startswith(tuple(names.split()))]
    if does:
        return f"the network of {file.name} is {kind}, which {does[-1]}: {escape}"
    if (stock is None or stock.classifies) and Pipeline.of(config, place.trainer).label_is_no_image:
        return f"{file.name} loads images, but no image {LABEL!r} alongside them, as for a classification: {escape}"
    return None


def ignored(place: Place, file: Path) -> str | None:
    """A sentence where the bundle has a trainer of its own that never calls its loss; None else."""
    module, _, name = place.trainer_target.rpartition(".")
    script = file.parent.parent / f"{module.replace('.', '/')}.py"
    if not module or not script.is_file() or not _never_calls(script, name):
        return None
    return (
        f"{file.name} never uses @{place.loss}: {name} in {module.replace('.', '/')}{script.suffix} trains with a loss "
        "of its own and never calls loss_function."
    )


def network_of(config: Any, place: Place) -> Mapping[str, Any]:
    """The network as a component, also in an expression such as ``$@network_def.to(@device)``; empty if there is none."""
    _, value = follow(config, f"{place.trainer}#network")
    ids = REFERENCE.findall(value) if isinstance(value, str) else []
    found = [value, *(follow(config, id.replace("::", "#"))[1] for id in ids)]
    return next((each for each in found if isinstance(each, Mapping)), {})


def _never_calls(script: Path, name: str) -> bool:
    """Whether a class of a script has an iteration of its own, and nothing there reads ``loss_function``."""
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return False
    cls = next((x for x in ast.walk(tree) if isinstance(x, ast.ClassDef) and x.name == name), None)
    own = cls is not None and any(isinstance(x, ast.FunctionDef) and x.name == "_iteration" for x in cls.body)
    reads = (isinstance(x, ast.Attribute) and x.attr == "loss_function" for x in ast.walk(tree))
    stores = (isinstance(x, ast.Attribute) and isinstance(x.ctx, ast.Store) for x in ast.walk(tree))
    return own and not any(read and not store for read, store in zip(reads, stores, strict=True))
