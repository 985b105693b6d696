"""The result of a run as one self-contained HTML page."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from monai_segloss.demo import figures, measure
from monai_segloss.demo.dataset import RawDataset, read_volume
from monai_segloss.demo.measure import Scores
from monai_segloss.demo.metrics import Summary, best_median_worst, known_mean, summarize
from monai_segloss.demo.progress import Epoch
from monai_segloss.demo.settings import Settings, machine, versions

ZERO = 0.005
"""A Dice below this prints as 0.00 and is explained."""


@dataclass(frozen=True)
class Result:
    """What came out of one training.

    Args:
        trainer: name for nnU-Net.
        loss: key of the registry.
        epochs: its learning curve.
        scores: by case and class.
        predictions: folder of label maps.
    """

    trainer: str
    loss: str
    epochs: Sequence[Epoch]
    scores: Scores
    predictions: Path

    def summary(self, name: str) -> Summary:
        """One class over all cases."""
        return summarize(measure.class_scores(self.scores, name))


@dataclass(frozen=True)
class ReportData:
    """Everything the page tells.

    Args:
        settings: of the run.
        command: what the user typed.
        dataset: as nnU-Net saw it.
        source: folder of the user's data, None for generated volumes.
        split: training and validation cases.
        cases: the evaluated ones.
        plan: of the trained configuration.
        tolerance: of the surface Dice in mm.
        times: seconds and attempts by stage.
        results: the training, maybe a baseline next to it.
    """

    settings: Settings
    command: str
    dataset: RawDataset
    source: Path | None
    split: Mapping[str, Sequence[str]]
    cases: Sequence[str]
    plan: Mapping[str, Any]
    tolerance: float
    times: Mapping[str, tuple[float, int]]
    results: Sequence[Result]


def render(facts: ReportData) -> str:
    """The page; everything that comes from outside is escaped."""
    import jinja2

    source = files("monai_segloss.demo").joinpath("report.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(source)
    classes = list(facts.dataset.classes)
    return template.render(
        facts=facts,
        title=facts.results[0].loss,
        data_title="generated CT-like volumes" if facts.source is None else facts.source.name,
        classes=[class_row(facts, name, index) for index, name in enumerate(classes)],
        overall=[known_mean(result.summary(name).dice for name in classes) for result in facts.results],
        notes=[note for index, name in enumerate(classes) for note in zero_notes(facts, name, index)],
        curves=_inline(figures.curves({_short(facts, r): r.epochs for r in facts.results}, classes), "image/svg+xml"),
        cases=case_figures(facts),
        table=case_table(facts),
        times=time_rows(facts.times),
        total=duration(sum(seconds for seconds, _ in facts.times.values())),
        epoch_seconds=[known_mean(epoch.seconds for epoch in result.epochs) for result in facts.results],
        loss=_info(facts.results[0].loss),
        versions=versions(),
        machine=machine(facts.settings.device),
        number=number,
        color=figures.color,
        baseline=len(facts.results) > 1,
    )


def class_row(facts: ReportData, name: str, index: int) -> dict[str, Any]:
    """One class: its color and its summary by training."""
    return {
        "name": name,
        "color": figures.color(index),
        "summaries": [result.summary(name) for result in facts.results],
    }


def summary_lines(results: Sequence[Result], classes: Sequence[str]) -> Iterator[str]:
    """The result for the terminal: a line per class and training."""
    width = max(len(name) for name in (*classes, "class")), max(len(result.loss) for result in results)
    for name in classes:
        for result in results:
            summary = result.summary(name)
            found = f"{summary.found} of {summary.components} found"
            start = f"  {name:<{width[0]}}  {result.loss:<{width[1]}}"
            near = f"NSD {number(summary.nsd, 3)}  HD95 {number(summary.hd95, 1)} mm"
            yield f"{start}  Dice {number(summary.dice, 3)}  {near}  {found}"


def zero_notes(facts: ReportData, name: str, index: int) -> list[str]:
    """Why a class has no Dice or a Dice of zero; nothing where it has one."""
    notes = []
    for result in facts.results:
        summary = result.summary(name)
        if not summary.reference_voxels:
            notes.append(
                f"Class {name} is in none of the {summary.cases} evaluated cases: nothing can be said about it."
            )
            break
        if summary.dice >= ZERO:
            continue
        share = measure.voxel_shares(facts.dataset, facts.split["train"])[name]
        steps = facts.settings.epochs * facts.settings.iterations
        if summary.predicted_voxels:
            what = f"was predicted ({summary.predicted_voxels} voxels) almost nowhere where it is"
        else:
            what = "was predicted nowhere"
        dice = [epoch.dice[index] for epoch in result.epochs if index < len(epoch.dice)]
        curve = f" and its Dice on validation patches was {number(dice[-1])} after the last epoch" if dice else ""
        notes.append(
            f"Class {name} stays at zero with {result.loss}: it {what}. It makes up {share:.2%} of the voxels in training"
            f"{curve}; {steps} iterations were not enough for this loss to find it. Train longer (--epochs, "
            "--iterations) or try a loss with a cross-entropy term (--loss dice_ce)."
        )
    return notes


def case_figures(facts: ReportData) -> list[dict[str, Any]]:
    """Best, median and worst case by mean Dice of the first training, with pictures."""
    first = facts.results[0]
    by_case = measure.case_dice(first.scores)
    titles = [_short(facts, result) for result in facts.results]
    found = []
    for rank, case in best_median_worst(by_case).items():
        image, spacing = read_volume(facts.dataset.images(case)[0])
        reference, _ = read_volume(facts.dataset.label(case))
        maps = {
            title: read_volume(result.predictions / f"{case}{facts.dataset.ending}")[0]
            for title, result in zip(titles, facts.results, strict=True)
        }
        png = figures.overlay(figures.Case(image, reference, maps, spacing), facts.dataset.classes)
        dice = [measure.case_dice(result.scores)[case] for result in facts.results]
        picture = _inline(png, "image/png")
        found.append({"rank": rank, "case": case, "picture": picture, "dice": list(zip(titles, dice, strict=True))})
    return found


def case_table(facts: ReportData) -> list[dict[str, Any]]:
    """Dice of every class in every case, in the order of the mean."""
    order = sorted(facts.cases, key=lambda case: -measure.case_dice(facts.results[0].scores)[case])
    classes = list(facts.dataset.classes)
    return [
        {"case": case, "rows": [(r.loss, [r.scores[case][name] for name in classes]) for r in facts.results]}
        for case in order
    ]


def time_rows(times: Mapping[str, tuple[float, int]]) -> list[dict[str, Any]]:
    """Stages with their time in words and as a share of the longest."""
    longest = max((seconds for seconds, _ in times.values()), default=0.0) or 1.0
    return [
        {"stage": stage, "time": duration(seconds), "share": round(100 * seconds / longest, 1), "attempts": attempts}
        for stage, (seconds, attempts) in times.items()
    ]


def duration(seconds: float) -> str:
    """Time for people: ``0.4 s``, ``27 s``, ``3 min 05 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def number(value: float, digits: int = 2) -> str:
    """A figure, or a dash where there is none."""
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.{digits}f}"


def _info(key: str) -> Any:
    import monai_segloss

    return monai_segloss.find(key)


def _short(facts: ReportData, result: Result) -> str:
    return result.loss if len({r.loss for r in facts.results}) == len(facts.results) else result.trainer


def _inline(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
