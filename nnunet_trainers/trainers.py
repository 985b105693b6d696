"""Trainers by name: the declared ones, and those that a name with settings asks for."""

from __future__ import annotations

import difflib
import importlib

from monai_segloss.config import sentence
from nnunet_trainers.base import SegLossTrainer
from nnunet_trainers.naming import PREFIX, TrainerNameError, decode, is_setting

FAMILIES = ("voxel", "region", "compound", "instance", "partial", "structural", "boundary", "segloss_trainer")


def declared() -> dict[str, type[SegLossTrainer]]:
    """The trainers that are written down, by name."""
    modules = [importlib.import_module(f"nnunet_trainers.{family}") for family in FAMILIES]
    return {
        name: each
        for module in modules
        for name, each in vars(module).items()
        if isinstance(each, type) and issubclass(each, SegLossTrainer) and each.__module__ == module.__name__
    }


def find(name: str) -> type[SegLossTrainer]:
    """The trainer of that name; the same class every time, in every process.

    Raises:
        TrainerNameError: the trainer of one of our losses, with settings that are not right. nnU-Net asks with
            ``hasattr``, which lets it pass, and a program may catch it as nnU-Net's own RuntimeError.
        AttributeError: any other name, so that nnU-Net goes on looking, and ends with a message of its own.
    """
    if name.startswith(PREFIX) and name in globals():
        return globals()[name]
    known = declared()
    if name in known:
        return known[name]
    start, *settings = name.split("_")
    if start not in known or not all(is_setting(each, known[start].name_parameters()) for each in settings):
        raise AttributeError(f"module {__name__!r} has no trainer {name!r}")
    return _on_demand(name, known[start])


def __getattr__(name: str) -> type[SegLossTrainer]:
    if not name.startswith(PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return find(name)


def _on_demand(name: str, base: type[SegLossTrainer]) -> type[SegLossTrainer]:
    try:
        settings = decode(name, base.name_parameters())
        attributes = {"settings": settings, "__module__": __name__, "__doc__": f"{base.__name__} as its name says."}
        trainer: type[SegLossTrainer] = type(name, (base,), attributes)
        trainer.named_loss()
    except TrainerNameError as error:
        raise TrainerNameError(f"{str(error)[0].upper()}{str(error)[1:]}.".replace("?.", "?")) from None
    except (TypeError, ValueError) as error:
        raise TrainerNameError(f"Trainer {name!r}: {sentence(error)}") from None
    globals()[name] = trainer
    return trainer


def near(name: str) -> list[str]:
    """Names near one that is not known; none unless it starts like a trainer or is the bare name of a loss."""
    known = declared()
    stems = {each.removeprefix(PREFIX).lower(): each for each in known}
    bare = name.lower().replace("_", "")
    if bare in stems:
        return [stems[bare]]
    if not bare.startswith(PREFIX.lower()) or name.startswith("__") or name.split("_")[0] in known:
        return []
    start, *suffix = name[len(PREFIX) :].lstrip("_").split("_")
    hits = difflib.get_close_matches(start.lower().removesuffix("loss"), stems, n=3, cutoff=0.75)
    return ["_".join([stems[hit], *suffix]) for hit in hits]
