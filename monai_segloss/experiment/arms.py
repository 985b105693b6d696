"""One arm of a comparison: a loss with its settings, and the trainer of nnU-Net that trains it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from monai_segloss.config import LossConfig
from monai_segloss.core.errors import nearest
from monai_segloss.core.registry import find, list_losses
from monai_segloss.recipes import RECIPES

NAME = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")
PLANNED_TRAINER = "nnUNetTrainerSegLoss"


class Arm(BaseModel):
    """One loss with its settings.

    Args:
        name: in tables and names of folders: letters, digits and single underscores.
        loss: what is trained; or
        trainer: the name of a trainer of this package instead, with settings but without seed, epochs and iterations.
        lr: initial learning rate; None: that of the comparison.
        soft_labels: whether it is trained on the soft labels of the data set; validation is against the hard ones.

    As data an arm is a text (key of a loss, of a recipe, or a trainer), or a mapping with ``name``, ``lr``,
    ``soft_labels`` and either ``trainer`` or the keys of `LossConfig`.

    Example:
        >>> from monai_segloss.experiment.arms import Arm
        >>> Arm.model_validate({"name": "steep", "loss": "focal_tversky", "arguments": {"gamma": 2}}).trainer_name(1, 4, 8)
        'nnUNetTrainerFocalTversky_gamma2_seed1_4epochs_8iterations'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    loss: LossConfig | None = None
    trainer: str | None = None
    lr: float | None = Field(None, gt=0)
    soft_labels: bool = False

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, content: Any) -> Any:
        if isinstance(content, str):
            content = _of_text(content)
        if not isinstance(content, Mapping):
            raise ValueError(f"an arm is the name of a loss, or a mapping with name and loss, got {content!r}.")
        content = {key: value for key, value in content.items() if value is not None}
        loss = {key: value for key, value in content.items() if key in LossConfig.model_fields}
        rest = {key: value for key, value in content.items() if key not in loss}
        if isinstance(loss.get("loss"), LossConfig | Mapping):
            return content
        if isinstance(loss.get("loss"), str) and len(loss) == 1:
            loss = _of_text(loss["loss"]).get("loss", loss)
        default = rest.get("trainer") or content.get("loss")
        found = {**({"name": default} if isinstance(default, str) else {}), **rest}
        if "name" not in found:
            raise ValueError(f"an arm that is a sum needs a name, got {content!r}.")
        return found | ({"loss": loss} if loss else {})

    @model_validator(mode="after")
    def _whole(self) -> Arm:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name of an arm: letters, digits and single underscores between them, got {self.name!r}.")
        if (self.loss is None) == (self.trainer is None):
            raise ValueError(f"the arm {self.name!r} needs either a loss or a trainer.")
        self.trainer_name(0, 1, 1)
        return self

    @property
    def config(self) -> LossConfig:
        """The loss that is trained."""
        from nnunet_trainers import trainers

        if self.loss is not None:
            return self.loss
        named = trainers.find(str(self.trainer)).named_loss()
        assert named is not None
        return named

    @property
    def soft(self) -> bool:
        """Whether it needs the soft labels of the data set."""
        return self.soft_labels or (self.trainer is not None and bool(_settings_of(self.trainer).soft_labels))

    @property
    def planned(self) -> bool:
        """Whether the loss stands in the plans, since the name of a trainer cannot hold it."""
        return self.trainer is None and self._named() is None

    def trainer_name(
        self, seed: int, epochs: int, iterations: int, lr: float | None = None, optimizer: str | None = None
    ) -> str:
        """The name by which nnU-Net trains the arm.

        Raises:
            ValueError: there is no such trainer.
        """
        from nnunet_trainers import naming, trainers

        start, arguments, own = PLANNED_TRAINER, dict[str, float](), self.lr
        if self.trainer is not None:
            settings = _settings_of(self.trainer)
            start, arguments, own = self.trainer.split("_")[0], dict(settings.arguments), self.lr or settings.lr
        elif (named := self._named()) is not None:
            start, arguments = named
        stem = start.removeprefix(naming.PREFIX)
        wanted = naming.TrainerName(stem, arguments, own or lr, seed, epochs, iterations, optimizer, self.soft)
        name = naming.encode(wanted, trainers.find(start).name_parameters())
        trainers.find(name)
        return name

    def _named(self) -> tuple[str, dict[str, float]] | None:
        """Trainer and arguments, where a name can hold them."""
        from nnunet_trainers import trainers

        assert self.loss is not None
        if self.loss.loss is None:
            return None
        key = find(self.loss.loss).key
        start = next(name for name, each in trainers.plain().items() if each.key == key)
        kinds = trainers.find(start).name_parameters()
        fits = all(name in kinds and type(value) in (int, float) for name, value in self.loss.arguments.items())
        return (start, dict(self.loss.arguments)) if fits else None


def _of_text(text: str) -> dict[str, Any]:
    """The arm that one word names."""
    from nnunet_trainers.naming import PREFIX

    if text.startswith(PREFIX):
        return {"name": text, "trainer": text}
    if text in RECIPES:
        return {"name": text, "loss": RECIPES[text].config}
    known = [name for info in list_losses() for name in (info.key, *info.aliases)]
    if text not in known:
        hint = nearest(text, [*known, *RECIPES])
        raise ValueError(f"no loss, recipe or trainer is called {text!r}{hint or '.'} All: segloss list.")
    return {"name": text, "loss": LossConfig(loss=text)}


def _settings_of(trainer: str) -> Any:
    from nnunet_trainers import naming, trainers

    try:
        cls = trainers.find(trainer)
    except AttributeError:
        raise ValueError(
            f"the trainer {trainer!r} is not of this package, so that its name can hold no seed: compare its trainings with "
            "segloss compare existing."
        ) from None
    except naming.TrainerNameError as error:
        raise ValueError(str(error)) from None
    if cls.named_loss() is None:
        raise ValueError(f"the trainer {trainer!r} has no loss of its own: give the loss instead.")
    settings = cls.settings
    given = [each for each in ("seed", "epochs", "iterations", "optimizer") if getattr(settings, each) is not None]
    if given:
        raise ValueError(f"the trainer {trainer!r} sets {', '.join(given)}, which belongs to the whole comparison.")
    return settings
