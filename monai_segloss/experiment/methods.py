"""Methods and limits as text for a paper, in the order of the checklist CLAIM (Tejani et al., Radiology: AI 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import monai_segloss
from monai_segloss.core.errors import UnknownLoss
from monai_segloss.experiment.accounts import matching
from monai_segloss.experiment.analysis import Analysis
from monai_segloss.experiment.cells import capital, listed, percent, quoted
from monai_segloss.experiment.findings import arms, failures, summary
from monai_segloss.experiment.measures import MEASURES, Options
from monai_segloss.experiment.sections import classes_of, size_names
from monai_segloss.experiment.statistics import LEAST_PATIENTS, Settings
from monai_segloss.experiment.tables import HALF, MEAN, OWN, Tables, measures_of

TO_STATE = "To be stated by the authors:"


def methods(
    tables: Tables, analysis: Analysis, settings: Settings, options: Options | None
) -> dict[str, Sequence[str]]:
    """Headings with their sentences; what the tables do not know is named, so that the authors add it."""
    return {
        "Data": _data(tables),
        "Patients, folds and seeds": _partitions(tables, analysis),
        "Models and losses": _losses(tables),
        "Operating points": _points(tables),
        "Measures": _measures(tables, options),
        "Statistics": _statistics(tables, analysis, settings),
        "Results": summary(tables, analysis, settings),
        "Failures": failures(tables),
        "Limits": _limits(tables, analysis),
        "Reproduction": (
            f"Measured and analyzed with monai-segloss {monai_segloss.__version__}.",
            f"{TO_STATE} availability of code, trained models and data.",
        ),
    }


def _data(tables: Tables) -> Sequence[str]:
    names = sorted(set(tables.runs["dataset"]))
    configurations = sorted(set(tables.runs["configuration"]))
    cases = tables.cases
    return (
        f"The data set is {listed(names)} with {cases['case'].nunique()} measured images of {cases['patient'].nunique()} "
        f"patients.",
        f"The classes are {listed(classes_of(tables), 30)}." if len(cases) else "No case was measured.",
        f"The configuration is {listed(configurations)}.",
        f"{TO_STATE} source, eligibility, dates, scanners, consent, further preprocessing, and who made the "
        "reference standard, how, with which variability.",
    )


def _partitions(tables: Tables, analysis: Analysis) -> Sequence[str]:
    runs = tables.runs
    seeds = runs.groupby("arm", sort=False)["seed"].nunique()
    others = seeds.drop(analysis.baseline)
    spread = f"{others.min()}" if others.min() == others.max() else f"{others.min()} to {others.max()}"
    folds = sorted(set(runs["fold"]))
    if folds == ["all"]:
        held = f"{TO_STATE} that no model was trained on an image that it is measured on, since no fold was recorded."
    else:
        which = f"{len(folds)} folds ({', '.join(folds)}) were" if len(folds) > 1 else f"Fold {folds[0]} was"
        held = f"{which} held out; each image is measured by models that did not train on it."
    return (
        held,
        f"The baseline {quoted(analysis.baseline)} was trained with {seeds[analysis.baseline]} seeds, the others with "
        f"{spread}.",
        *matching(tables),
        f"{TO_STATE} whether images of one patient lie in one fold.",
    )


def _losses(tables: Tables) -> Sequence[str]:
    runs, out = tables.runs, []
    for arm in arms(tables):
        own = runs[runs["arm"] == arm].iloc[0]
        facts = [f"{name} {quoted(str(own[name]))}" for name in ("loss", "settings", "trainer") if _there(own, name)]
        paper = _paper(str(own["loss"]) if _there(own, "loss") else arm)
        said = [*facts, *([paper] if paper else [])]
        out.append(f"Arm {quoted(arm)}{': ' + '; '.join(said) if said else ''}.")
    networks = sorted({each for each in runs["network"] if isinstance(each, str)}) if "network" in runs else []
    lengths = sorted(set(runs["epochs"].dropna().astype(int))) if "epochs" in runs else []
    return (
        *out,
        *(f"The network: {each}." for each in networks),
        *([f"A finished training has {listed(list(map(str, lengths)))} epochs."] if lengths else []),
        f"{TO_STATE} architecture, optimizer, schedule, augmentation and hardware, the same for all arms.",
    )


def _there(row: Mapping[str, object], name: str) -> bool:
    return name in row and isinstance(row[name], str) and bool(row[name])


def _paper(key: str) -> str:
    """Of a loss of the registry; "" where the name is none of its keys."""
    try:
        return monai_segloss.find(key).paper
    except UnknownLoss:
        return ""


def _points(tables: Tables) -> Sequence[str]:
    found = set(tables.cases["point"])
    out = ["All arms are compared at a common operating point: the largest probability, or 1/2 of a region."]
    if OWN in found:
        out.append(
            "Alongside it each arm is measured at a threshold per class with the best mean Dice over the images of the "
            "other held-out patients of the run, never over those of the patient that it is applied to."
        )
    elif HALF in found:
        out.append("Thresholds of their own were not chosen, since there are no probabilities.")
    return out


def _measures(tables: Tables, options: Options | None) -> Sequence[str]:
    named = []
    for name in measures_of(tables.cases):
        facts = MEASURES[name]
        best = {True: "larger is better", False: "smaller is better", None: "0 is best"}[facts.larger_is_better]
        named.append(f"{facts.words} ({f'{facts.unit}, ' if facts.unit else ''}{best})")
    out = [f"Measured per case and class: {', '.join(named)}."] if named else ["Nothing was measured."]
    if options is None:
        out.append(f"{TO_STATE} tolerance of the surface Dice, size classes and bins, which were not recorded.")
    else:
        out.append(
            f"The tolerance of the surface Dice is {options.tolerance:g} mm; calibration has {options.bins} bins."
        )
        if options.sizes:
            out.append(
                f"The size classes of components are {', '.join(size_names(options.sizes, len(options.sizes) + 1))}."
            )
    return (
        *out,
        "With neither reference nor prediction overlaps are 1 and distances 0; with one of them overlaps are 0 and "
        "distances the diagonal of the image; measures that need a reference are then missing and left out of means.",
        "Components have 8 neighbors in 2-D and 26 in 3-D; one is found where the prediction shares a voxel with it.",
        f"The class {quoted(MEAN)} is the mean over the classes of a case.",
    )


def _statistics(tables: Tables, analysis: Analysis, settings: Settings) -> Sequence[str]:
    alpha = f"{settings.alpha:g}"
    margin = (
        f"An arm is equivalent where the interval of {percent(1 - 2 * settings.alpha)} lies within "
        f"±{settings.margin:g}, in the unit of the measure."
        if settings.margin
        else "Equivalence was not tested."
    )
    return (
        "The unit is the patient: values of several seeds and images are averaged first.",
        f"Differences to {quoted(analysis.baseline)} are paired, with the bias-corrected and accelerated bootstrap interval "
        f"of {percent(1 - settings.alpha)} ({settings.resamples} resamples, seed {settings.seed}).",
        "Wilcoxon's signed-rank test (zeros after Pratt) is corrected by Holm over the arms of a measure and class.",
        "The noise band is the largest difference between groups of runs that differ in their seeds alone, from the "
        f"standard deviation over the seeds of the baseline and Student's t at level {alpha} over the number of arms.",
        "A difference is claimed where the interval excludes 0, the corrected test rejects at "
        f"{alpha}, and the difference exceeds the noise band.",
        margin,
        f"With fewer than {LEAST_PATIENTS} patients nothing is claimed.",
        "Ranks, Kendall's tau and the probability that the best is not the best come from samples of patients and seeds.",
    )


def _limits(tables: Tables, analysis: Analysis) -> Sequence[str]:
    measures, folds = len(measures_of(tables.cases)), tables.runs["fold"].nunique()
    return (
        *(capital(warning.replace("`", "'")) for warning in analysis.warnings),
        f"The correction is over arms, not over the {measures} measures and the classes: the first measure is the "
        "one asked about, the others describe.",
        "Losses were compared at the settings given; each may have better ones.",
        "The held-out cases are of the same source as the training, so that nothing is said about other sites or scanners.",
        *(("Folds share training cases, which the intervals do not account for.",) if folds > 1 else ()),
    )
