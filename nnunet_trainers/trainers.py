"""Trainers by name: one for every loss of the registry, and those that a name with settings asks for."""

from __future__ import annotations

import difflib

from monai_segloss import LossInfo, list_losses
from monai_segloss.config import sentence
from monai_segloss.core.names import camel
from nnunet_trainers.base import SegLossTrainer
from nnunet_trainers.naming import PREFIX, TrainerNameError, decode, is_setting
from nnunet_trainers.segloss_trainer import nnUNetTrainerSegLoss


def plain() -> dict[str, type[SegLossTrainer]]:
    """The trainers whose names have no settings: that of each loss, and the one whose loss is written in the plans."""
    trainers = [_of_loss(info) for info in list_losses()]
    return {each.__name__: each for each in (*trainers, nnUNetTrainerSegLoss)}


def _of_loss(info: LossInfo) -> type[SegLossTrainer]:
    name = f"{PREFIX}{camel(info.key)}"
    if name not in globals():
        globals()[name] = _subclass(name, SegLossTrainer, f"{info.summary}\n\n{info.when}", key=info.key)
    return globals()[name]


def _subclass(name: str, base: type[SegLossTrainer], doc: str, **attributes: object) -> type[SegLossTrainer]:
    """A trainer that lives in this module, where pickle finds it again by its name."""
    return type(name, (base,), {**attributes, "__module__": __name__, "__doc__": doc})


def find(name: str) -> type[SegLossTrainer]:
    """The trainer of that name; the same class every time, in every process.

    Raises:
        TrainerNameError: the trainer of one of our losses, with settings that are not right. nnU-Net asks with
            ``hasattr``, which lets it pass, and a program may catch it as nnU-Net's own RuntimeError.
        AttributeError: any other name, so that nnU-Net goes on looking, and ends with a message of its own.
    """
    if name.startswith(PREFIX) and name in globals():
        return globals()[name]
    known = plain()
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
        trainer = _subclass(name, base, f"{base.__name__} as its name says.", settings=settings)
        trainer.named_loss()
    except TrainerNameError as error:
        raise TrainerNameError(f"{str(error)[0].upper()}{str(error)[1:]}.".replace("?.", "?")) from None
    except (TypeError, ValueError) as error:
        raise TrainerNameError(f"Trainer {name!r}: {sentence(error)}") from None
    globals()[name] = trainer
    return trainer


def near(name: str) -> list[str]:
    """Names near one that is not known; none unless it starts like a trainer or is the bare name of a loss."""
    known = plain()
    stems = {each.removeprefix(PREFIX).lower(): each for each in known}
    bare = name.lower().replace("_", "")
    if bare in stems:
        return [stems[bare]]
    if not bare.startswith(PREFIX.lower()) or name.startswith("__") or name.split("_")[0] in known:
        return []
    start, *suffix = name[len(PREFIX) :].lstrip("_").split("_")
    hits = difflib.get_close_matches(start.lower().removesuffix("loss"), stems, n=3, cutoff=0.75)
    return ["_".join([stems[hit], *suffix]) for hit in hits]
