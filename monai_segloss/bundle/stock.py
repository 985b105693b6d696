"""The loss that a bundle of somebody else was written for: whether it segments, how it reads and scores."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pydoc import locate
from typing import Any

from monai_segloss import LossInfo
from monai_segloss.bundle.keys import is_expression, resolved
from monai_segloss.core.module import DEFAULTS, SegLoss

LIBRARIES = ("monai.", "torch.", "monai_segloss.")
LABELS = {"softmax": True, "to_onehot_y": True}
READS: Mapping[str, Mapping[str, Any]] = {
    "CrossEntropyLoss": LABELS,
    "NLLLoss": LABELS,  # the softmax of log probabilities is the probabilities
    "NACLLoss": LABELS,
    "GeneralizedWassersteinDiceLoss": LABELS,
    "BCEWithLogitsLoss": {"sigmoid": True},
    "BCELoss": {},
}
"""Losses of segmentations that take no argument for it, and what they do to the network's output."""

ACTIVATIONS = ("softmax", "sigmoid", "other_act")
FOCAL = ("FocalLoss", "DiceFocalLoss", "GeneralizedDiceFocalLoss")
READING = (*ACTIVATIONS, "use_softmax", "to_onehot_y", "reduction", "terms")
NEUTRAL: Mapping[str, Any] = {
    **DEFAULTS,
    "squared_pred": False,
    "jaccard": False,
    "soft_label": False,
    "w_type": "square",
    "label_smoothing": 0.0,
    "pos_weight": None,
    "lambda_dice": 1.0,
    "lambda_ce": 1.0,
    "lambda_focal": 1.0,
}
"""Arguments that mean the same in every loss that has them, with the values that change nothing."""

SCORING = ("include_background", "batch", "squared_pred", "jaccard")
"""Those of them that say what is scored, so that defaults count too."""

ALL_CLASSES = ("CrossEntropyLoss", "NLLLoss", "DiceCELoss")
"""Losses whose class weights begin with the background even where it is not scored."""


@dataclass(frozen=True)
class Stock:
    """A loss as a bundle makes it."""

    name: str
    given: Mapping[str, Any]
    """The arguments that the bundle states."""
    arguments: Mapping[str, Any]
    """The same, and the defaults of the others."""
    known: bool = True
    """Whether its class is of PyTorch, of MONAI or ours; of another one there is only what the bundle states."""
    segments: bool = True

    @classmethod
    def of(cls, config: Any, node: Any) -> Stock | None:
        """The loss of a component or of an expression that calls its class; None for another expression.

        Args:
            config: the training configuration, whose references are followed.
            node: what stands at the key of the loss.
        """
        import monai.losses

        node = _called(node) if is_expression(node) else node
        target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
        found = locate(target) if target.startswith(LIBRARIES) else getattr(monai.losses, target, None)
        if not target:
            return None
        given = {name: _plain(resolved(config, value)) for name, value in node.items() if not name.startswith("_")}
        if not inspect.isclass(found):
            return cls(target.rpartition(".")[2], given, given, known=False)
        known = inspect.signature(found).parameters
        defaults = {n: _plain(p.default) for n, p in known.items() if p.default is not p.empty}
        segments = issubclass(found, SegLoss) or "to_onehot_y" in known or found.__name__ in READS
        return cls(found.__name__, given, {**defaults, **given}, segments=segments)

    @property
    def reading(self) -> dict[str, Any] | None:
        """How it reads network and labels, in MONAI's words; None where it does not say what the network gives."""
        if self.name in READS:
            return self._reduced(dict(READS[self.name]))
        labels = {"to_onehot_y": True} if self.arguments.get("to_onehot_y") is True else {}
        if self.name == "FocalLoss" and "other_act" not in self.given:
            return self._reduced({"softmax" if self._softmax else "sigmoid": True, **labels})
        if self._softmax:
            return self._reduced({"softmax": True, **labels})
        said = {name: self.arguments[name] for name in ("sigmoid", "other_act") if self.arguments.get(name)}
        return self._reduced({**said, **labels}) if said else None

    def without_activation(self) -> dict[str, Any]:
        """The reading where the network gives probabilities."""
        return self._reduced({"to_onehot_y": True} if self.arguments.get("to_onehot_y") is True else {})

    @property
    def classifies(self) -> bool:
        """Whether it is also what classifiers train with."""
        return not self.known or self.name in READS or self.name == "FocalLoss"

    def carried(
        self, info: LossInfo, chosen: Mapping[str, Any], term: bool = False
    ) -> tuple[dict[str, Any], list[str]]:
        """The arguments that one of our losses takes over, and a sentence for each that it cannot.

        Args:
            info: our loss.
            chosen: arguments that its user has set; they stand.
            term: of a weighted sum, where ``weight`` is another thing than class weights.
        """
        found, lost = dict[str, Any](), list[str]()
        for name, value in self.arguments.items():
            if name in READING or name in chosen or not (name in self.given or _changes(name, value, info)):
                continue
            why = self._why_not(name, value, info)
            if why is None:
                found["class_weight" if term and name == "weight" else name] = value
            elif value != NEUTRAL.get(name, None) and not (name == "ignore_index" and value == -100):
                lost.append(f"{name}={value!r} of {self.name} is not carried over: {why}.")
        return found, lost

    def _why_not(self, name: str, value: Any, info: LossInfo) -> str | None:
        if name not in info.parameters:
            return f"{info.key} has no such argument"
        if name == "weight":
            return self._why_not_weight(value, info)
        if name.startswith("lambda_") and not isinstance(info.parameters[name].default, int | float):
            return f"that of {info.key} follows the epochs"
        same = self.name == info.cls.__name__ or {self.name, info.cls.__name__} <= set(FOCAL)
        return None if same or name in NEUTRAL else f"{name} means something else in {info.key}"

    def _why_not_weight(self, value: Any, info: LossInfo) -> str | None:
        if self.name in ("BCELoss", "BCEWithLogitsLoss"):
            return "it weighs elements of the batch, not classes"
        fits = self.name == info.cls.__name__ or self.arguments.get("include_background", True) is True
        if fits or not isinstance(value, list):
            return None
        kind = "all classes" if self.name in ALL_CLASSES else "the scored classes"
        return f"it has one number for each of {kind}; set weight of {info.key} yourself"

    @property
    def _softmax(self) -> bool:
        return self.arguments.get("softmax") is True or self.arguments.get("use_softmax") is True

    def _reduced(self, reading: dict[str, Any]) -> dict[str, Any]:
        reduction = self.arguments.get("reduction", "mean")
        return {**reading, **({} if reduction == "mean" else {"reduction": reduction})}


def _changes(name: str, value: Any, info: LossInfo) -> bool:
    """Whether a default of the stock loss scores otherwise than what our card recommends, or its default."""
    if name not in SCORING:
        return False
    recommended = {"include_background": info.recommended.include_background, "batch": info.recommended.batch}.get(name)
    default = info.parameters[name].default if name in info.parameters else NEUTRAL[name]
    return bool(value != default or recommended in (True, False))


def _plain(value: Any) -> Any:
    """The word of an enumeration such as MONAI's ``LossReduction``."""
    return str(value.value) if isinstance(value, Enum) else value


def _called(expression: str) -> dict[str, Any]:
    """``$monai.losses.DiceLoss(softmax=True)`` as a component; an argument that is no literal stays an expression."""
    try:
        call = ast.parse(expression[1:].strip(), mode="eval").body
    except SyntaxError:
        return {}
    if not isinstance(call, ast.Call) or call.args:
        return {}
    node: dict[str, Any] = {"_target_": ast.unparse(call.func)}
    for keyword in call.keywords:
        if keyword.arg is not None:
            try:
                node[keyword.arg] = ast.literal_eval(keyword.value)
            except ValueError:
                node[keyword.arg] = f"${ast.unparse(keyword.value)}"
    return node
