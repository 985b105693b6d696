"""Whether the soft labels of a raw data set fit it, see `monai_segloss.datalist.soft_labels`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_segloss.checking import Finding
from monai_segloss.checking.volumes import Case, Opened
from monai_segloss.datalist.soft_labels import SoftLabelError, SoftLabels, find

if TYPE_CHECKING:
    from monai_segloss import LossInfo


def check_soft_labels(
    folder: Path,
    content: Mapping[str, Any],
    labels: Collection[int],
    training: Sequence[Case],
    info: LossInfo | None,
    open_cases: Callable[[list[Case]], Sequence[Opened]],
) -> Iterator[Finding]:
    """Findings about the soft labels; none where there are no soft labels.

    Args:
        folder: of the raw data set.
        content: of its dataset.json.
        labels: of the foreground.
        training: its training cases.
        info: a loss that is to be trained.
        open_cases: opens the files of some cases.
    """
    try:
        found = find(folder, content["file_ending"], labels, [case.name for case in training])
    except SoftLabelError as error:
        yield Finding("error", f"{error}.")
        return
    if found is None:
        return
    if info is not None and "soft labels" not in info.support:
        yield Finding("warning", f"{info.key} does not support soft labels: it can train on labelsTr alone.")
    opened = open_cases(list(_cases(found, training)))
    for each in opened:
        yield from (Finding("error", f"{each.name}: {text}.") for text in each.errors)
        yield from (Finding("warning", f"{each.name}: {text}.") for text in each.warnings)
    if not any(each.errors for each in opened):
        uneven = found.by_raters and len({len(files) for files in found.files.values()}) > 1
        yield Finding("warning" if uneven else "ok", found.words)


def _cases(found: SoftLabels, training: Sequence[Case]) -> Iterator[Case]:
    """Each soft label together with the label map, on whose grid it must lie."""
    for case in training:
        files = found.files[case.name]
        if not found.by_raters:
            yield Case(f"{case.name} (soft label)", tuple(files.values()), case.label, "0000" in files)
        elif case.label is not None:
            yield from (Case(f"{case.name} by {rater}", (case.label,), file) for rater, file in files.items())
