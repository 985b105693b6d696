"""The registry: one entry per loss, from which names, tests, docs, trainers and bundles follow."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from monai_segloss.core.arguments import checked, plain
from monai_segloss.core.docstring import IDENTIFIER, arguments, completed, first_paragraph, sections
from monai_segloss.core.errors import Renamed, UnknownLoss, nearest, renamed
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import DEFAULTS, KINDS, OF_EVERY_LOSS, SegLoss
from monai_segloss.core.names import camel
from monai_segloss.core.packages import described
from monai_segloss.core.recommend import Recommended

ONE_NUMBER = '``"mean"`` or ``"sum"``; one number for the batch, so ``"none"`` is refused.'
"""What the argument ``reduction`` of a scalar loss is."""
EVERYTHING = ("labels", "regions", "soft labels", "ignore", "2-D", "3-D")


@dataclass(frozen=True)
class LossInfo:
    """One loss.  Its docstring says what it is: summary, formula, when, arguments and reference are read from there.

    Args:
        key: snake_case name of registry key, function and file.
        cls: the module class; its name is Camel(key) + "Loss".
        family: a folder of `monai_segloss.losses`; `register` takes that of the class.
        aliases: other names that `create` and `find` know.
        tags: words to search by.
        support: targets and shapes it supports, out of `EVERYTHING`.
        example: constructor arguments of the smallest sensible example, alongside the activation.
        size: shortest edge, in voxels, of an image that the loss makes sense on.
        min_error_width: width, in voxels, of the narrowest error that the loss notices.
        cost: seconds of a step, and of what, for a loss that takes a multiple of the others.
        recommended: arguments that trainers and bundles pass.
        exempt: property of the contract -> why it is false by design for this loss: a reason, or an `Exempt` of some cases.
    """

    key: str
    cls: type[SegLoss]
    family: str
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    support: tuple[str, ...] = EVERYTHING
    example: Mapping[str, Any] = field(default_factory=dict)
    size: int = 1
    min_error_width: int = 1
    cost: str = ""
    recommended: Recommended = field(default_factory=Recommended)
    exempt: Mapping[str, str | Exempt] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The loss in one line."""
        return first_paragraph(sections(self.cls)[""])

    @property
    def formula(self) -> str:
        """The formula in LaTeX."""
        return sections(self.cls)["Formula"]

    @property
    def when(self) -> str:
        """When to use it, in one or two sentences, with what is known against it."""
        return sections(self.cls)["When"]

    @property
    def paper(self) -> str:
        """Authors, title, venue, year, arXiv number or DOI."""
        return first_paragraph(sections(self.cls)["Reference"]).removesuffix(".")

    @property
    def doi(self) -> str:
        """The arXiv numbers and DOIs alone."""
        return "; ".join(IDENTIFIER.findall(self.paper))

    @property
    @described()
    def described(self) -> SegLoss:
        """The loss of the example, to ask and not to call: packages that it needs may be missing."""
        return self.cls(**self.example)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        """Maps that the loss of the example needs."""
        return self.described.needs

    @property
    def taps(self) -> tuple[str, ...]:
        """What the loss of the example takes from the network."""
        return self.described.taps

    @property
    def brings(self) -> bool:
        """Whether the loss of the example must be prepared for a network."""
        return self.described.brings

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments with which the loss reads a map of labels: softmax, or one-vs-rest where it knows only that."""
        return {"softmax" if "labels" in self.support else "sigmoid": True, "to_onehot_y": True}

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """All constructor arguments with their defaults, shared ones included, in signature order."""
        entered = "__signature__" in vars(self.cls)
        return (inspect.signature(self.cls) if entered else _full_signature(self.cls)).parameters

    def recommend(self, arguments: Mapping[str, Any], **asked: Any) -> dict[str, Any]:
        """The recommended arguments for a data set, see `Recommended.resolve`, alongside those that are given.

        Those for a loss that another one is built on are what that loss takes.
        """
        found = self.recommended.resolve(**asked)
        if "base" in self.parameters:
            base = arguments.get("base", self.parameters["base"].default)
            terms = {base: {}} if isinstance(base, str) else base
            infos = [find(x.get("loss", name) if isinstance(x, Mapping) else name) for name, x in terms.items()]
            found = {name: x for name, x in found.items() if any(name in info.parameters for info in infos)}
        return {**found, **arguments}

    @property
    def arguments(self) -> Mapping[str, str]:
        """What each constructor argument is, as the card says or else the shape that it derives from."""
        found = arguments(self.cls, self.parameters)
        return {**found, "reduction": ONE_NUMBER} if self.cls.scalar_only else found

    nnunet, waive, grain = Renamed("recommended"), Renamed("exempt"), Renamed("min_error_width")

    def exemption(self, name: str) -> Exempt | None:
        """The exemption from a property of the contract, or None."""
        found = self.exempt.get(name)
        return Exempt(found) if isinstance(found, str) else found

    def surfaces(self) -> dict[str, str]:
        """How the loss is written on each surface."""
        arguments = {**self.reading, **self.example}
        call = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        activations = {"labels": "softmax for labels", "regions": "sigmoid for regions"}
        words = ", ".join(words for kind, words in activations.items() if kind in self.support)
        return {
            "Python": f"monai_segloss.{self.cls.__name__}({call})",
            "by name": f'monai_segloss.create("{self.key}", {call})',
            "MONAI config": json.dumps({"_target_": f"monai_segloss.{self.cls.__name__}", **arguments}),
            "bundle": f"python -m monai.bundle run --config_file configs/train.json --loss_key {self.key}",
            "nnU-Net": f"nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainer{camel(self.key)}",
            "trainer": "; ".join([words, *self.recommended.words]),
        }


FORMER = {name: x.new for name, x in vars(LossInfo).items() if isinstance(x, Renamed)}


def __getattr__(name: str) -> Any:
    if name == "NnUNetPolicy":
        renamed("monai_segloss.core.registry.NnUNetPolicy", "monai_segloss.core.recommend.Recommended")
        return Recommended
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_REGISTRY: dict[str, LossInfo] = {}
_NAMES: dict[str, str] = {}
LOSSES: Mapping[str, LossInfo] = MappingProxyType(_REGISTRY)
"""All losses by key."""

T = TypeVar("T", bound=type[SegLoss])


def register(key: str, *, positional: str = "", **facts: Any) -> Callable[[T], T]:
    """Class decorator that enters a loss into the registry.

    Args:
        key: snake_case key; the class must be called ``camel(key) + "Loss"``.
        positional: names of the arguments that may be given by position; for classes that have the name of one of MONAI's.
        facts: the other fields of `LossInfo`.

    Raises:
        ValueError: where the key, an alias or the class name breaks the rules of naming.
    """

    def enter(cls: T) -> T:
        if cls.__name__ != f"{camel(key)}Loss":
            raise ValueError(f"class {cls.__name__} registered as {key!r} must be called {camel(key)}Loss.")
        for old in facts.keys() & FORMER.keys():
            renamed(f"the field {old}", FORMER[old])
            facts[FORMER[old]] = facts.pop(old)
        facts.setdefault("family", cls.__module__.split(".")[-2] if "." in cls.__module__ else "own")
        facts["recommended"] = facts.get("recommended", Recommended()).fitted(_full_signature(cls).parameters)
        info = LossInfo(key=key, cls=cls, **facts)
        for name in (key, *info.aliases):
            if name in _NAMES:
                raise ValueError(f"the name {name!r} already belongs to {_NAMES[name]!r}.")
            _NAMES[name] = key
        _REGISTRY[key] = info
        _set_signature(cls, tuple(positional.split()))
        cls.__doc__ = completed(cls, info.arguments)
        if positional:
            _leave_name_to_monai(cls)
        return cls

    return enter


def _leave_name_to_monai(cls: type[SegLoss]) -> None:
    """Keep the class out of ``dir()`` of its module.

    MONAI's configuration parser searches every module whose name begins with ``monai`` for a bare ``_target_``, and a bare
    name that MONAI owns must go on meaning MONAI's class.
    """
    module = sys.modules[cls.__module__]
    module.__dir__ = lambda: sorted(vars(module).keys() - {cls.__name__})  # type: ignore[method-assign]


def _full_signature(cls: type[SegLoss], positional: tuple[str, ...] = ()) -> inspect.Signature:
    """The signature of a class with the shared arguments spelled out, and MONAI's order of positional arguments."""
    own = inspect.signature(cls.__init__).parameters.values()
    known = {p.name: p for p in own if p.name != "self" and p.kind is not p.VAR_KEYWORD}
    shared = [n for n in DEFAULTS if n in (*cls.formula_arguments, *OF_EVERY_LOSS) and n not in known]
    known |= {n: inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS[n]) for n in shared}
    order = (*positional, *(n for n in known if n not in positional))
    both, named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature([known[n].replace(kind=both if n in positional else named) for n in order])


def _set_signature(cls: type[SegLoss], positional: tuple[str, ...]) -> None:
    """Give the class its full signature, and check what comes by it."""
    init, signature = cls.__init__, _full_signature(cls, positional)
    own = inspect.signature(init).parameters
    annotations = KINDS | {n: _spelled(p.annotation) for n, p in own.items() if n in signature.parameters}

    @functools.wraps(init)
    def full(self: SegLoss, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(positional):
            raise TypeError(f"{cls.__name__}() takes at most {len(positional)} positional arguments, got {len(args)}.")
        for name, value in zip(positional, args, strict=False):
            if name in kwargs:
                raise TypeError(f"{cls.__name__}() got multiple values for argument {name!r}.")
            kwargs[name] = value
        kwargs = {name: plain(value) for name, value in kwargs.items()}
        for name, value in kwargs.items():
            kwargs[name] = checked(name, value, annotations.get(name, ""), cls.bounds)
        init(self, **kwargs)
        self.arguments = kwargs

    cls.__init__ = full  # type: ignore[method-assign]
    cls.__signature__ = signature  # type: ignore[attr-defined]


def _spelled(annotation: Any) -> str:
    """An annotation as it is written, also where it was evaluated."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def find(key: str) -> LossInfo:
    """The entry of a key, an alias or a class name.

    Raises:
        UnknownLoss: a KeyError that names the nearest known names.
    """
    name = _NAMES.get(key) or _NAMES.get(key.lower())
    if name is None:
        name = next((k for k, info in _REGISTRY.items() if key in (info.cls.__name__, camel(k))), None)
    if name is None:
        raise UnknownLoss(f"no loss is called {key!r}{nearest(key, _NAMES)} (`segloss list` shows all).")
    return _REGISTRY[name]


def create(key: str, **arguments: Any) -> SegLoss:
    """A loss by name: ``create("focal_tversky", softmax=True, to_onehot_y=True)``.

    Raises:
        UnknownLoss: no such key.
        TypeError: an argument that the loss does not take.
    """
    return find(key).cls(**arguments)


def list_losses(tag: str | None = None) -> list[LossInfo]:
    """All entries, or those of a family or with a tag, sorted by key."""
    chosen = [i for i in _REGISTRY.values() if tag is None or tag == i.family or tag in i.tags]
    return sorted(chosen, key=lambda info: info.key)
