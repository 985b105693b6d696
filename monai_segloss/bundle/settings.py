"""Settings of a bundle that make no sense, said in one sentence that names the key: what ``initialize`` calls."""

from __future__ import annotations

import json
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from multiprocessing.dummy import DummyProcess
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from monai.bundle import ConfigWorkflow
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS
from monai.transforms import Compose
from monai.transforms.traits import RandomizableTrait
from torch import nn

from monai_segloss.bundle.keys import ids, unused
from monai_segloss.bundle.overlays import refuse_idle_keys
from monai_segloss.bundle.paths import bundles
from monai_segloss.core.arguments import SCIENTIFIC
from monai_segloss.core.errors import nearest
from monai_segloss.core.hashing import content_hash
from monai_segloss.core.prior import PriorError
from monai_segloss.core.whole_cases import PatchError, refuse_patches, wants_no_mirroring, wants_whole_cases
from monai_segloss.datalist import Datalist
from monai_segloss.engine.errors import DataError, NotFiniteError
from monai_segloss.engine.targets import WHICH
from monai_segloss.prior.supply import refuse_measured

RESIZING = ("RandRotated", "RandRotate90d", "RandZoomd", "RandAffined", "Rand2DElasticd", "Rand3DElasticd")
MIRRORING = ("RandFlipd", "RandAxisFlipd")
HINT = " (often patch_size must be a multiple of the product of the strides)"
Check = tuple[Callable[[Any], bool], str]


def _whole(x: Any, low: int) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= low


def _number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x < float("inf")


COUNT: Check = (lambda x: _whole(x, 1), "a whole number from 1")
COUNT_OR_NONE: Check = (lambda x: x is None or _whole(x, 1), "a whole number from 1, or None")
FROM_ZERO: Check = (lambda x: _whole(x, 0), "a whole number from 0")
FLAG: Check = (lambda x: isinstance(x, bool), "True or False")
AMOUNT: Check = (_number, "a number from 0")
SETTINGS: dict[str, Check] = {
    "epochs": COUNT,
    "val_interval": COUNT,
    "batch_size": COUNT,
    "num_samples": COUNT,
    "num_workers": FROM_ZERO,
    "seed": (lambda x: x is None or _whole(x, 0), "a whole number from 0, or None"),
    "early_stop_patience": COUNT_OR_NONE,
    "prior_steps": COUNT_OR_NONE,
    "learning_rate": (lambda x: _number(x) and x > 0, "a number above 0"),
    "surface_tolerance": AMOUNT,
    "cache_rate": (lambda x: _number(x) and x <= 1, "a number from 0 to 1"),
    "resume": FLAG,
    "save_probabilities": FLAG,
    "amp": FLAG,
    "surface_metrics": FLAG,
    "fold": (lambda x: x == "all" or _whole(x, 0), "'all' or a whole number from 0"),
    "precompute_maps": (lambda x: x in WHICH, "'on_cpu', 'all' or 'none'"),
    "ckpt_path": (lambda x: Path(str(x)).is_file(), "a file of weights, made by training"),
    "patch_size": (
        lambda x: isinstance(x, list | tuple) and len(x) == 3 and all(_whole(each, 1) for each in x),
        "a list of 3 whole numbers from 1, as [96, 96, 96]",
    ),
    "spacing": (
        lambda x: (
            x is None or (isinstance(x, list | tuple) and len(x) == 3 and all(_number(each) and each > 0 for each in x))
        ),
        "None or a list of 3 numbers above 0 in mm, as [1.5, 1.5, 2.0]",
    ),
}
"""What each key of the bundle may be."""
OF_A_RUN = (
    "bundle_root", "ckpt_dir", "output_dir", "dataset_dir", "seed", "resume",
    "loss", "loss_key", "loss_arguments", "learning_rate",
)  # fmt: skip
"""Keys that differ between trainings of one comparison: places, seed, and what an arm is."""


class SettingError(ValueError):
    """A key of a configuration has a value that makes no sense."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check values of keys of the bundle before any work; other keys pass.

    Raises:
        SettingError: the first value that makes no sense, with its key and what was expected.

    Example:
        >>> check_settings({"epochs": "ten"})
        Traceback (most recent call last):
        monai_segloss.bundle.settings.SettingError: epochs must be a whole number from 1, got 'ten'.
    """
    for key, value in settings.items():
        fine, expected = SETTINGS.get(key, (lambda _: True, ""))
        if not fine(value):
            word = isinstance(value, str) and SCIENTIFIC.fullmatch(value)
            hint = f"; a YAML file needs the dot of {float(value)}" if word else ""
            raise SettingError(f"{key} must be {expected}, got {value!r}{hint}.")


def check_keys() -> None:
    """Refuse keys of the configuration that is being run which no bundle of this package has and nothing refers to.

    For the list ``initialize``.  MONAI tells an expression nothing of the configuration that it stands in; it is found in
    the frames of the caller.  Elsewhere nothing is checked.

    Raises:
        SettingError: the first such key, with the nearest known ones.
    """
    workflow = _workflow()
    if workflow is None:
        return
    files = [path for bundle in bundles() for path in (bundle / "configs").glob("*.json") if path.stem != "metadata"]
    known = {id.replace("::", "#") for path in files for id, _ in ids(json.loads(path.read_text(encoding="utf-8")))}
    for tracking in DEFAULT_EXP_MGMT_SETTINGS.values():  # other programs set these whether they track or not
        known |= set(tracking["configs"]) - set(tracking["handlers_id"])
    try:
        refuse_idle_keys(workflow.parser.get())
    except ValueError as error:
        raise SettingError(str(error)) from None
    found = unused(workflow.parser.get(), {*known, workflow.init_id, workflow.run_id, workflow.final_id})
    if found:
        hint = nearest(found[0], known) or f"; a key of your own must be referred to by another, as @{found[0]}."
        raise SettingError(f"nothing uses the key {found[0]!r}{hint}")


def settings_hash() -> str:
    """Hash of the configuration that is being run, without what differs between trainings of one comparison (`OF_A_RUN`).

    For an expression in a configuration, as `check_keys`; elsewhere that of nothing.
    """
    workflow = _workflow()
    config = {} if workflow is None else workflow.parser.get()
    return content_hash({key: value for key, value in config.items() if key not in OF_A_RUN})


def _workflow() -> Any:
    """The workflow whose expression calls, None where there is none."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigWorkflow):
            return caller
        frame = frame.f_back
    return None


def check_network(network: nn.Module, in_channels: int, num_classes: int, patch_size: Sequence[int]) -> None:
    """Send the shape of one patch through a network, without memory or time for its values.

    Args:
        network: with one output, or several of which the first has the size of the patch.
        in_channels: of the image.
        num_classes: outputs that the data set asks for.
        patch_size: in voxels.

    Raises:
        SettingError: the network does not take such a patch, or gives something else than (1, num_classes, *patch_size).
    """
    wanted = (1, num_classes, *patch_size)
    try:
        with torch.no_grad():
            found = deepcopy(network).eval().to("meta")(torch.empty(1, in_channels, *patch_size, device="meta"))
    except Exception as error:
        raise SettingError(
            f"patch_size {list(patch_size)} with {in_channels} channels does not go through network_def{HINT}: "
            f"{_last_line(error)}"
        ) from error
    first = found[0] if isinstance(found, list | tuple) else found
    if tuple(first.shape) != wanted:
        raise SettingError(
            f"network_def makes {tuple(first.shape)} of a patch of patch_size {list(patch_size)}; expected {wanted}{HINT}."
        )


def check_measured(loss: Any, datalist: Datalist, fold: int | str) -> None:
    """Refuse a loss whose file of bounds or rules was measured on the label of a case that the fold validates.

    A case is found by any of its names (`Datalist.names`).  A file that names no cases passes.

    Args:
        loss: that is trained.
        datalist: of the data set.
        fold: of the run.

    Raises:
        SettingError: there is such a case; the sentence names it, and the command that makes another file.
    """
    if not isinstance(loss, nn.Module):
        return
    try:
        refuse_measured(loss, lambda: datalist.split_names(fold), fold, {"bounds": " --axes xyz"})
    except PriorError as error:
        raise SettingError(str(error)) from None


def check_whole_cases(
    loss: Any, items: Sequence[Mapping[str, Any]], transform: Compose, patch_size: Sequence[int]
) -> None:
    """Refuse patches and augmentation that a loss for whole cases does not bear; of other losses nothing is looked at.

    Args:
        loss: that is trained.
        items: the training cases, each of which is read as far as its first random transform.
        transform: of the training cases, to dictionaries with a ``label``.
        patch_size: in voxels.

    Raises:
        SettingError: patches are smaller than the largest case, or a random transform moves or resizes images.
    """
    if not isinstance(loss, nn.Module) or not wants_whole_cases(loss):
        return
    unfit = (*RESIZING, *(() if not wants_no_mirroring(loss) else MIRRORING))
    for each in transform.flatten().transforms:
        if type(each).__name__ in unfit:
            raise SettingError(
                f"the loss is about whole cases as they lie, and {type(each).__name__} changes them: leave it out of "
                "train#random_transforms (with --train#random_transforms#NUMBER#_disabled_ true), or say on_patches=true "
                "among the arguments of the loss to train all the same."
            )
    first = transform.get_index_of_first(lambda each: isinstance(each, RandomizableTrait))
    axes = len(patch_size)
    shapes = [transform(dict(item), end=first)["label"].shape[-axes:] for item in items]
    largest = [max(edges) for edges in zip(*shapes, strict=True)]
    try:
        refuse_patches(loss, patch_size, largest, f"set patch_size to at least {largest}")
    except PatchError as error:
        raise SettingError(str(error)) from None


def explain_errors() -> None:
    """Let ``python -m monai.bundle`` end with one sentence where configuration or data are wrong; elsewhere do nothing.

    MONAI wraps what goes wrong while a key is made into its own errors.  Only these are shortened, to the key and to what
    was said first, and files and networks that cannot be used; every other error keeps its traceback.
    """
    if getattr(sys.modules["__main__"], "__spec__", None) is None:
        return
    if str(sys.modules["__main__"].__spec__.name).startswith("monai.bundle"):  # type: ignore[union-attr]
        sys.excepthook = _explain


def _explain(cls: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    for thread in threading.enumerate():  # of MONAI's caches: the process aborts if Python ends under one at work
        if isinstance(thread, DummyProcess):
            thread.join(timeout=60)
    key, said = _key(trace), error
    while isinstance(said, RuntimeError) and said.__cause__ is not None:  # MONAI's frames around what was said
        said = said.__cause__
    for kind, start in ((DataError, "The data are wrong"), (NotFiniteError, "The run has ended")):
        if isinstance(said, kind):
            print(f"\n{start}: {said}", file=sys.stderr)
            return
    known = isinstance(said, ValueError | TypeError | LookupError | OSError | ImportError)
    if key is None or key.startswith("run") or not known:  # what goes wrong in training needs its traceback
        sys.__excepthook__(cls, error, trace)
        return
    text = str(said.args[0]) if isinstance(said, KeyError) and said.args else str(said)
    place = "" if isinstance(said, SettingError) else f" while making the key {key!r}"
    print(f"\nThe configuration is wrong{place}: {' '.join(text.split())}", file=sys.stderr)


def _key(trace: TracebackType | None) -> str | None:
    """The id that MONAI was making: in the innermost of its functions that make one."""
    ids = [
        frame.f_locals.get("id") for frame, _ in traceback.walk_tb(trace) if frame.f_code.co_name == "_resolve_one_item"
    ]
    return str(ids[-1]).replace("::", "#") if ids else None


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
