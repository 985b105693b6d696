"""Published comparisons: tables that `segloss compare` has measured, kept with their settings, and the page made from them.

    python -m benchmarks comparisons keep FOLDER hippocampus_mr --about "60 MR volumes ..."
    python -m benchmarks comparisons page                        # docs/comparison.md

`segloss compare report benchmarks/results/comparisons/NAME` makes the whole report of one from its tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.measure import environment
from benchmarks.results import FOLDER
from monai_segloss.experiment.analysis import Analysis, analyze
from monai_segloss.experiment.cells import plain
from monai_segloss.experiment.findings import failures, select, summary
from monai_segloss.experiment.measures import MEASURES
from monai_segloss.experiment.statistics import Settings
from monai_segloss.experiment.tables import COLUMNS, HALF, MEAN, OWN, Tables, read
from monai_segloss.files import read_json, write_json, write_text

KEPT = FOLDER / "comparisons"
PAGE = FOLDER.parent.parent / "docs" / "comparison.md"
NOTE = (
    "<!-- Written by `python -m benchmarks comparisons page` from benchmarks/results/comparisons; do not edit. -->\n\n"
)
MEASURED = {
    "nsd": "NSD",
    "hd95": "HD95 mm",
    "sensitivity": "sensitivity",
    "cldice": "clDice",
    "betti_0_error": "Betti-0 error",
    "betti_1_error": "Betti-1 error",
    "lesion_recall": "lesion recall",
    "lesion_precision": "lesion precision",
    "ece": "ECE",
}
"""Columns after Dice, where they were measured."""
DIGITS = 5
HEAD = """# What we measured

These trainings differ only in the loss. `segloss compare run` made them ([how-to](how-to/compare.md)). Each loss was
trained with two seeds, the baseline `dice_ce` with four. Each patient gives a difference to the baseline. The tables
have the mean of these differences over the patients, and its bootstrap interval (95 %, BCa) in brackets.

A loss is called better or worse only if three conditions hold:

- The interval excludes 0.
- Wilcoxon's signed-rank test rejects after Holm's correction over all losses.
- The difference is larger than the noise of the seed. The noise is the largest difference that other seeds of the
  baseline would give.

In the column "with own thresholds" each loss predicts at the threshold per class that has the best Dice on other
held-out images. NSD is the normalized surface Dice. The lesion columns count connected components.

The networks are small and the trainings are short, because they ran on two CPU cores. They show which losses train at
this length, and how large the noise is. They do not show which loss is best after nnU-Net's 250,000 iterations on
your data. For that, run the comparison on your data.
"""


def keep(folder: Path, name: str, about: str) -> Path:
    """Copy the tables of a comparison, with numbers of five digits."""
    tables, target = read(folder / "tables"), KEPT / name
    for each in COLUMNS:
        frame: pd.DataFrame = getattr(tables, each)
        write_text(target / "tables" / f"{each}.csv", frame.round(DIGITS).to_csv(index=False))
    settings = read_json(folder / "comparison.json") if (folder / "comparison.json").exists() else {}
    settings = _without_folders(settings)
    known = set(tables.runs["arm"])
    settings["arms"] = [
        arm for arm in settings.get("arms", []) if (arm if isinstance(arm, str) else arm["name"]) in known
    ]
    write_json(
        target / "about.json", {"about": about, "settings": settings, "environment": environment("cpu")}, indent=1
    )
    return target


def _without_folders(content: Any) -> Any:
    """The settings with the names of files alone, which mean nothing on another machine."""
    if isinstance(content, dict):
        return {key: _without_folders(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_folders(each) for each in content]
    return Path(content).name if isinstance(content, str) and "/" in content else content


def page() -> str:
    """The text of all that are kept."""
    parts = [HEAD]
    for folder in sorted(each for each in KEPT.iterdir() if (each / "about.json").exists()):
        parts += ["\n".join(section(folder)), ""]
    return NOTE + "\n".join(parts)


def section(folder: Path) -> Iterator[str]:
    """One data set."""
    about, tables = read_json(folder / "about.json"), read(folder / "tables")
    analysis, settings = analyze(tables, about["settings"].get("baseline") or None), Settings()
    yield from (f"## {folder.name}", "", about["about"], "", protocol(tables, about), "")
    yield from (f"- {each}" for each in (*summary(tables, analysis, settings), *failures(tables)))
    best = analysis.not_best.get("dice", {})
    if best:
        leader = analysis.ranks["dice"].order[0]
        yield (
            f"- `{leader}` has the largest mean Dice. The probability that another loss is better is {best[leader]:.2f} "
            "(bootstrap over patients and seeds). Kendall's tau between the order of the losses and that in a bootstrap "
            f"sample is {analysis.ranks['dice'].tau:.2f} on average."
        )
    yield from ("", *table(tables, analysis), "")
    yield f"The whole report: `segloss compare report benchmarks/results/comparisons/{folder.name}`."


def protocol(tables: Tables, about: dict[str, Any]) -> str:
    """What all runs have in common."""
    settings, runs, where = about["settings"], tables.runs, about["environment"]
    networks = sorted({each for each in runs.get("network", []) if isinstance(each, str)})
    length = f"{settings['epochs']} epochs of {settings['iterations']} iterations" if "epochs" in settings else ""
    folds = ", ".join(sorted(set(runs["fold"])))
    total = runs["minutes"].sum() / 60 if "minutes" in runs else float("nan")
    facts = [
        f"{len(runs)} trainings, {tables.cases['patient'].nunique()} held-out patients (fold {folds})",
        *networks,
        *([length] if length else []),
        f"{where['cpu']}, one thread each, {total:.1f} hours in all; torch {where['torch']}, nnU-Net {where['nnunetv2']}",
    ]
    return "; ".join(facts) + "."


def table(tables: Tables, analysis: Analysis) -> Iterator[str]:
    """A row per arm, best mean Dice first."""
    cases = tables.joined()
    shown = [name for name in MEASURED if name in cases.columns and cases[name].notna().any()]
    patients = cases[cases["label"] == MEAN].groupby(["point", "arm", "patient"])[["dice", *shown]].mean()
    means = patients.groupby(["point", "arm"]).mean().loc[HALF]
    half, own, minutes = (
        select(analysis, "dice"),
        select(analysis, "dice", point=OWN),
        tables.runs.groupby("arm")["minutes"],
    )
    head = [
        "loss",
        "Dice",
        "difference",
        "verdict",
        "with own thresholds",
        *(MEASURED[name] for name in shown),
        "minutes",
    ]
    yield f"| {' | '.join(head)} |"
    yield "| --- |" + " --- |" * (len(head) - 1)
    dice = means["dice"].sort_values(ascending=False)
    for arm, value in dice.items():
        found, other = (part[part["arm"] == arm] for part in (half, own))
        cells = [f"`{arm}`", f"{value:.3f}", _difference(found), *(found["verdict"] if len(found) else ["baseline"])]
        cells += [f"{_difference(other)} {'' if other.empty else other['verdict'].iloc[0]}".strip()]
        cells += [plain(means[name][arm], _digits(name)) for name in shown]
        yield f"| {' | '.join([*cells, f'{minutes.mean()[arm]:.1f}'])} |"


def _difference(found: pd.DataFrame) -> str:
    if found.empty:
        return ""
    row = found.iloc[0]
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def _digits(name: str) -> int:
    return 1 if MEASURES[name].unit or name.startswith("betti") else 3


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    keeping = commands.add_parser("keep", help="keep the tables of a comparison")
    keeping.add_argument("folder", type=Path)
    keeping.add_argument("name")
    keeping.add_argument("--about", required=True, help="one or two sentences on the data")
    commands.add_parser("page", help="write docs/comparison.md")
    options = parser.parse_args()
    if options.command == "keep":
        print(keep(options.folder, options.name, options.about))
    else:
        write_text(PAGE, page())
        print(PAGE)


if __name__ == "__main__":
    main()
