"""Write what follows from registry and results: a page per loss, differences, benchmarks, overlays of the bundle.

python docs/generate.py
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import monai_segloss
from monai_segloss import LossInfo
from monai_segloss.bundle import write_overlays
from monai_segloss.cli.losses import surfaces
from monai_segloss.core.registry import EVERYTHING, camel
from monai_segloss.differences import DIFFERENCES, Difference

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT.parent / "benchmarks" / "results" / "hippocampus_mr"
FIGURE = (
    "Value and gradient on a volume with 5 % foreground: every voxel with the same probability of its true class (left), "
    "a sure prediction that slides off its target (right)."
)
FAST = RESULTS.with_name(f"{RESULTS.name}-lr-0.05")
STOCK = RESULTS.with_name(f"{RESULTS.name}-stock")
REGIONS = RESULTS.with_name(f"{RESULTS.name}-regions")
HAUSDORFF = (
    "Far voxels push a class down with their squared distance before its own voxels can hold it, and where p has come to "
    "0, (p - g)^2 has no gradient in the logits."
)
REASONS = {
    "active_boundary": "It reads where the predicted boundaries lie, never which class is on which side, so that a class "
    "is as probable outside as inside. It is published beside cross-entropy and `lovasz_softmax`.",
    "active_contour": "Its region term is linear in p: the many voxels of the background push a class down first, and where "
    "p has come to 0 it has no gradient. Start from trained weights, or add it to cross-entropy.",
    "boundary": "Far voxels, of which there are many, push a class down with their distance, more than its few voxels pull "
    "it up, and where p has come to 0 it has no gradient. It is published beside a region loss: `dice_boundary`.",
    "elastic_interaction": "A constant added to a probability costs nothing, so that it does not train alone.",
    "exclusion_cross_entropy": "All classes are labeled here, so that background everywhere costs nothing: it belongs "
    "beside `marginal_cross_entropy`.",
    "exclusion_dice": "All classes are labeled here, so that background everywhere costs nothing: it belongs "
    "beside `marginal_dice`.",
    "focal_positive": "It knows no false positive: more of a class is never worse, so that it belongs beside another loss.",
    "generalized_surface": "Far voxels push a class down with their squared distance, and inside, where 1 - p^2 counts, "
    "p near 0 has no gradient. It is published beside Dice and cross-entropy, with a share that grows.",
    "hausdorff_dt": f"{HAUSDORFF} It is published beside Dice: `dice_hausdorff_dt`.",
    "log_hausdorff_dt": HAUSDORFF,
    "lovasz_hinge": "Scores of 0 everywhere cost 1, a plateau that 300 iterations hardly leave; it is used to raise the "
    "Jaccard index after training with cross-entropy.",
    "mumford_shah": "It does not know which class is which: the right parts under other names have the same value.",
    "noise_robust_dice": "A class that is predicted everywhere costs less than one that is predicted faintly, so that it "
    "spreads before it shrinks.",
    "overlap": "It does not read the labels: any certain prediction is as good as another, right or wrong.",
    "penalty_generalized_dice": "Near 1 its slope is that of the generalized Dice loss divided by 1 + k = 3.5, so that it "
    "starts slowly; `generalized_dice` comes farther in the same time.",
    "region_wise": "It is linear in p: the many voxels of the background push the classes down first, and where p has come "
    "to 0 it has no gradient. The paper trains it alone, with other networks and data.",
    "signed_distance_regression": "Its best output is a distance, near 1/2 along every boundary, which with softmax the "
    "channels share; it is published beside Dice, for channels that are read at 1/2.",
}
"""What else explains that a loss does not reach 0.5."""
FOUND, DECIDED, TOO_MUCH = 2.0, 0.6, 0.05
"""A class counts as found where it is more than so many times as probable inside of its voxels as outside, as decided
from this largest probability on, as predicted too widely from this mean probability outside on."""
NOTE = "<!-- Written by docs/generate.py from the registry; do not edit. -->\n\n"


def pages() -> dict[Path, str]:
    """All generated pages, path relative to ``docs`` -> text."""
    losses = monai_segloss.list_losses()
    out = {Path("losses") / f"{info.key}.md": NOTE + loss_page(info) for info in losses}
    out[Path("losses/index.md")] = NOTE + index_page(losses)
    out[Path("trainers.md")] = NOTE + trainers_page(losses)
    out[Path("differences.md")] = NOTE + differences_page()
    sys.path.append(str(ROOT.parent))  # last: the installed package comes before the sources
    from benchmarks.page import page

    out[Path("benchmarks.md")] = page()
    return out


def loss_page(info: LossInfo) -> str:
    """The page of one loss."""
    lines = [f"# {info.key}", "", info.summary, "", f"**When.** {info.when}", "", "$$", info.formula, "$$", ""]
    lines += [f"![{FIGURE}](../images/losses/{info.key}.svg)", "", f"*{FIGURE}*", ""]
    lines += ["## Parameters", "", "| parameter | default |", "| --- | --- |"]
    for name, parameter in info.parameters.items():
        default = "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        lines.append(f"| `{name}` | {default} |")
    lines += ["", "## Description", "", "```text", inspect.getdoc(info.cls) or "", "```", "", "## Use", ""]
    lines += [f"- {surface}: `{line}`" for surface, line in surfaces(info).items()]
    lines += ["", "## Support", "", ", ".join(info.support) + "."]
    lines += [f"- Without the property `{name}` of the contract: {reason}" for name, reason in info.waive.items()]
    different = [d for d in DIFFERENCES if d.key == info.key]
    if different:
        lines += ["", "## Differences", "", *difference_table(different)]
    lines += on_real_volumes(info)
    lines += ["", "## Source", "", f"{info.paper}. {info.doi}", ""]
    return "\n".join(lines)


def index_page(losses: list[LossInfo]) -> str:
    """The table of all losses, and what each supports."""
    lines = ["# Losses", "", "| key | family | what | when |", "| --- | --- | --- | --- |"]
    lines += [f"| [{i.key}]({i.key}.md) | {i.family} | {i.summary} | {i.when} |" for i in losses]
    lines += ["", "## Support", ""]
    lines += [
        "A trainer refuses what its loss does not support before any work. Tests train every cell of this table.",
        "",
        "Every loss takes `torch.func.grad` and `jacrev` (not forward mode, `jvp`), tensors made in inference mode, and "
        "`torch.compile`, which some of them break into several graphs. Where a second derivative is not known it is "
        'refused. `torch.vmap` is refused by all: a loss looks at the values of its target; `reduction="none"` keeps '
        "samples apart.",
        "",
    ]
    columns = [*EVERYTHING, "one graph", "second derivative"]
    lines += [f"| key | {' | '.join(columns)} | nnU-Net |", f"| --- |{' --- |' * (len(columns) + 1)}"]
    for info in losses:
        known = [what in info.support for what in EVERYTHING]
        known += [what not in info.waive for what in ("compiles", "second_derivatives")]
        cells = " | ".join("yes" if each else "-" for each in known)
        lines.append(f"| {info.key} | {cells} | `nnUNetTrainer{camel(info.key)}` |")
    return "\n".join([*lines, ""])


def trainers_page(losses: list[LossInfo]) -> str:
    """What each trainer reached on real volumes in a short run."""
    lines = [
        "# Trainers on real volumes",
        "",
        "The same short schedule, fold and seed for every loss, through `nnUNetv2_train` and `nnUNetv2_predict`. It "
        "shows that a trainer learns, not which loss is best: one seed, 300 iterations, and differences of a few points "
        "are noise.",
        "",
        "`python -m benchmarks.trainers --data hippocampus_mr` (60 MR volumes of the hippocampus, fold 0, seed 0, 6 "
        "epochs of 50 iterations, batch and patch as nnU-Net plans them; the network in bfloat16, the loss in float32, on "
        "one core of an AMD EPYC that trains another loss on the other). Dice is the mean over the validation cases, "
        "minutes are wall time, pauses for other work included.",
        "",
        "nnU-Net's learning rate of 0.01 is made for 250,000 iterations; 300 are few. Beside ours stand nnU-Net's own "
        "trainers of the same loss (`--stock`), from the same first weights and on the same batches. What a network has "
        "learned that stays below 0.5 is on the page of its loss: how probable each class is inside and outside of its "
        "voxels. A loss that takes no labels has the classes as regions (`--regions`): both together, and the second.",
        "",
    ]
    rows, missing = [], []
    for info in losses:
        run, fast = _run_of(info), _run(info.key, FAST)
        if run is None:
            missing.append(info.key)
            continue
        classes = run["classes"]
        nsd, hd95 = (_mean([each.get(what) for each in classes.values()], n) for what, n in (("nsd", 3), ("hd95", 1)))
        per_class = ", ".join(f"{name} {each['dice']:.3f}" for name, each in classes.items())
        stock, again = (f"{_dice(other):.3f}" if other else "" for other in (_run(info.key, STOCK), fast))
        rows.append(
            {
                "loss": f"[{info.key}](losses/{info.key}.md){'' if 'labels' in info.support else ', regions'}",
                "mean Dice": f"{_dice(run):.3f}",
                "nnU-Net's own": stock,
                "at rate 0.05": again,
                "per class": per_class,
                "NSD": nsd,
                "HD95 mm": hd95,
                "minutes": f"{run['seconds'] / 60:.0f}",
                "precision": run.get("precision", "float32"),
                "commit": run["environment"]["commit"],
            }
        )
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    table = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    lines += [f"| {' | '.join(cells)} |" for cells in table]
    if missing:
        lines += ["", f"Not run yet: {', '.join(missing)}."]
    return "\n".join([*lines, ""])


def on_real_volumes(info: LossInfo) -> list[str]:
    """What the trainer of a loss reached, and why that is little where it is."""
    key, run, fast = info.key, _run_of(info), _run(info.key, FAST)
    if run is None:
        return []
    found = f"Validation Dice {_dice(run):.3f} after 300 iterations at nnU-Net's learning rate of 0.01"
    found += f", {_dice(fast):.3f} at 0.05" if fast else ""
    stock = _run(key, STOCK)
    found += f"; {_dice(stock):.3f} by nnU-Net's own {stock['trainer'].partition('_')[0]}" if stock else ""
    lines = ["", "## On real volumes", "", f"{found} ([all](../trainers.md)). {REASONS.get(key, '')}".rstrip()]
    return lines + _learned(run) if "probability" in run else lines


def _learned(run: dict[str, Any]) -> list[str]:
    """The probabilities of a network whose predictions are poor."""
    return [
        "",
        "Its probability of each class, mean over the voxels of the class and over all others, and the largest:",
        "",
        "| class | inside | outside | largest | so far |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {p['inside']:.3f} | {p['outside']:.3f} | {p['largest']:.3f} | {_so_far(**p)} |"
            for name, p in run["probability"].items()
        ),
    ]


def _so_far(inside: float, outside: float, largest: float) -> str:
    """How far a network has come with a class: first it finds the place, then it decides."""
    if largest < DECIDED:
        return "found, not decided" if inside > FOUND * outside else "not found"
    if outside > TOO_MUCH:
        return "predicted far beyond it"
    return "partly predicted" if inside < DECIDED else "predicted"


def _run_of(info: LossInfo) -> dict[str, Any] | None:
    """The result of a loss on the classes, or where it takes no labels on the classes as regions."""
    return _run(info.key, RESULTS if "labels" in info.support else REGIONS)


def _run(key: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """The result of a training."""
    file = folder / f"{key}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _dice(run: dict[str, Any]) -> float:
    return mean(each["dice"] for each in run["classes"].values())


def _mean(values: list[float | None], digits: int) -> str:
    """The mean over the classes; a dash where one has no value, as the distance to a class that was never found."""
    known = [value for value in values if value is not None]
    return f"{mean(known):.{digits}f}" if len(known) == len(values) else "-"


def differences_page() -> str:
    """Where values differ from MONAI and nnU-Net, and why."""
    lines = [
        "# Differences from MONAI and nnU-Net",
        "",
        "A class that has MONAI's name takes MONAI's arguments and gives MONAI's values, except for the differences below. "
        "A test shows each of them.",
        "",
    ]
    return "\n".join([*lines, *difference_table(list(DIFFERENCES)), ""])


def difference_table(rows: list[Difference]) -> list[str]:
    """Rows of Markdown."""
    lines = ["| loss | seen in | theirs | ours |", "| --- | --- | --- | --- |"]
    return lines + [f"| {'all' if d.key == '*' else d.key} | {d.peer} | {d.theirs} | {d.ours} |" for d in rows]


def main() -> None:
    """Write all pages and overlays, and remove pages of losses that are gone."""
    wanted = pages()
    for path, text in wanted.items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
    for old in {p.relative_to(ROOT) for p in (ROOT / "losses").glob("*.md")} - set(wanted):
        (ROOT / old).unlink()
    write_overlays()
    from benchmarks.page import draw

    draw()
    sys.path.insert(0, str(ROOT))
    from figures import figure

    folder = ROOT / "images" / "losses"
    folder.mkdir(exist_ok=True)
    for info in monai_segloss.list_losses():
        (folder / f"{info.key}.svg").write_text(figure(info), encoding="utf-8")


if __name__ == "__main__":
    main()
