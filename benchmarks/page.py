"""``docs/benchmarks.md`` and its plots, from the results of all machines.

python -m benchmarks page
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.learned import BASE, IMAGE
from benchmarks.losses import memory_ratio, peers_of, ratio
from benchmarks.memory import times_logits
from benchmarks.plots import NAMES
from benchmarks.results import FOLDER, Row
from benchmarks.step import STOCK

DOCS = FOLDER.parent.parent / "docs"
IMAGES = Path("images") / "benchmarks"
COMMANDS = ("losses", "busy", "memory", "scaling", "slices", "step", "learned", "distance", "topology", "neighbors")
NOTE = "<!-- Written by `python -m benchmarks page` from benchmarks/results; do not edit. -->\n\n"
HEAD = """# Benchmarks

What the losses cost, next to the same losses of MONAI, nnU-Net and kornia. A test shows that these compute the same value
and the same gradient.

- **Time** is that of forward and backward. All that are compared take turns in one process, and the least of the rounds
  counts, since whatever else a machine does only adds. Ratios travel better than milliseconds.
- **Floor**: the time in which the bytes of a step move at the copy bandwidth of the same device, measured in the same run.
  Logits and labels are read twice (the gradient needs the sums first), the gradient is written once.
- **Memory** is the peak beyond logits, labels, maps and gradient, on the CPU in a process of its own. The table "Memory" has
  the peak of all losses beyond logits and labels only, gradient and maps included, in multiples of the float32 logits.
- **Settings** are those at which all compute the same: without the background where peers leave it out, `hausdorff_er` with
  kornia's norm, which costs several times the default (`OURS` in `benchmarks/peers.py`). Table "Memory" has our defaults.
- **Maps given**: a loss on distances or components makes its maps from the label; a loader can make them ahead of time.

```text
python -m benchmarks losses     # --keys, --classes, --part 1/4, --device cuda
python -m benchmarks memory
python -m benchmarks scaling
python -m benchmarks slices
python -m benchmarks step
python -m benchmarks learned
python -m benchmarks distance
python -m benchmarks topology
python -m benchmarks page
```

Each writes to `benchmarks/results/MACHINE` as soon as it has a figure, and goes on where it was killed. Why a step of the
same loss takes 20 ms in one process and 45 in the next: [decision 1](decisions/0001-statistics.md). What was tried and kept
in the sorting and filtering losses: [decision 5](decisions/0005-sorting-and-filtering.md).
"""


def page(folder: Path = FOLDER) -> str:
    """The text."""
    machines = {path.name: found for path in sorted(folder.iterdir()) if (found := read(path))}
    parts = [HEAD, *(section(name, found) for name, found in machines.items())]
    return NOTE + "\n".join(parts)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Results of a machine by command; empty for a folder that holds something else."""
    files = {command: folder / f"{command}.json" for command in COMMANDS}
    return {command: json.loads(file.read_text(encoding="utf-8")) for command, file in files.items() if file.exists()}


def section(machine: str, found: dict[str, dict[str, Any]]) -> str:
    """Everything about one machine."""
    lines = [f"## {machine}", "", *about(found), ""]
    if "losses" in found:
        lines += losses(machine, found["losses"]["rows"])
    if "busy" in found:
        lines += ["### Alongside busy processes", "", *alongside(found["busy"]["rows"])]
    if "memory" in found:
        lines += memory(found["memory"]["rows"])
    if "scaling" in found:
        keys = sorted({row["loss"] for row in found["scaling"]["rows"]})
        lines += ["### Scaling", ""]
        for key in keys:
            lines += [f"![Time of {key} against voxels, classes and samples]({IMAGES}/{machine}-{key}.svg)", ""]
    if "slices" in found:
        lines += slices(found["slices"]["rows"])
    if "step" in found:
        lines += steps(found["step"]["rows"])
    if "learned" in found:
        lines += learned(found["learned"]["rows"])
    if "distance" in found:
        lines += distances(found["distance"]["rows"])
    if "topology" in found:
        lines += topology(found["topology"]["rows"])
    if "neighbors" in found:
        lines += neighbors(found["neighbors"]["rows"])
    return "\n".join(lines)


def about(found: dict[str, dict[str, Any]]) -> list[str]:
    """Device, versions and commits."""
    every = [environment for content in found.values() for environment in content["environments"]]
    facts = list(dict.fromkeys(name for environment in every for name in environment))
    values = {name: list(dict.fromkeys(str(e[name]) for e in every if name in e)) for name in facts}
    return ["; ".join(f"{name} {', '.join(each)}" for name, each in values.items()) + "."]


def losses(machine: str, rows: list[Row]) -> list[str]:
    """Tables of all losses, one per number of classes, and the comparison as a plot."""
    lines = []
    if any(ratio(row) is not None for row in rows):
        lines += [f"![Time of each loss next to the fastest peer]({IMAGES}/{machine}-peers.svg)", ""]
    for size in sorted({(row["classes"], row["edge"], row["batch"]) for row in rows}):
        classes, edge, batch = size
        lines += [f"### Losses, ({batch}, {classes}, {edge}³)", ""]
        lines += [
            "| loss | ms | to the floor | to dice_ce | maps given | to the fastest peer | extra MB | to the leanest |"
        ]
        lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
        for row in rows:
            if (row["classes"], row["edge"], row["batch"]) == size:
                lines.append(line(row))
        lines.append("")
    return lines


def alongside(rows: list[Row]) -> list[str]:
    """Losses while other processes compute: the ratio of the rounds' medians, since the least is a lucky round."""
    lines = [
        "| loss | input | busy processes | ms (median) | to the fastest peer (medians) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        seconds = {name: found["median"] for name, found in row["seconds"].items()}
        theirs = [seconds[name] for name in peers_of(row)]
        compared = seconds["segloss"] / min(theirs) if theirs else None
        shape = f"({row['batch']}, {row['classes']}, {row['edge']}³)"
        lines.append(
            f"| {row['loss']} | {shape} | {row['busy']} | {1e3 * seconds['segloss']:.1f} | {number(compared)} |"
        )
    return [*lines, ""]


def line(row: Row) -> str:
    """A row of the table."""
    seconds = {name: found["least"] for name, found in row["seconds"].items()}
    mine, peers = seconds["segloss"], peers_of(row)
    fastest = f" ({NAMES[min(peers, key=seconds.__getitem__)]})" if peers else ""
    given = f"{1e3 * seconds['given']:.1f} ms" if "given" in seconds else ""
    extra = f"{row['extra bytes']['segloss'] / 1e6:.1f}" if "extra bytes" in row else ""
    cells = [
        row["loss"],
        f"{1e3 * mine:.1f}",
        f"{mine / row['floor']:.1f}",
        f"{mine / seconds['dice_ce']:.2f}",
        given,
        number(ratio(row)) + fastest,
        extra,
        number(memory_ratio(row), 3),
    ]
    return f"| {' | '.join(cells)} |"


def number(x: float | None, digits: int = 2) -> str:
    """Or nothing."""
    return "" if x is None else f"{x:.{digits}f}"


def memory(rows: list[Row]) -> list[str]:
    """Peak memory of all losses, a column per size."""
    sizes = sorted({(row["batch"], row["classes"], row["edge"]) for row in rows}, key=lambda size: size[1])
    lines = ["### Memory", "", f"| loss | {' | '.join(f'({b}, {c}, {n}³)' for b, c, n in sizes)} |"]
    lines += [f"| --- |{' --- |' * len(sizes)}"]
    for key in sorted({row["loss"] for row in rows}):
        found = {(row["batch"], row["classes"], row["edge"]): row for row in rows if row["loss"] == key}
        lines.append(f"| {key} | {' | '.join(multiple(found[size]) if size in found else '' for size in sizes)} |")
    return [*lines, ""]


def multiple(row: Row) -> str:
    """Of the logits, and whether the pass was ended."""
    stopped = f", stopped after {row['stopped after']:.0f} s" if "stopped after" in row else ""
    return f"{times_logits(row):.1f}{stopped}"


def neighbors(rows: list[Row]) -> list[str]:
    """With and without the worst logits of neighbors."""
    lines = ["### Worst logits of neighbors", "", "| loss | input | ms | neighbors=3: ms | ratio |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for row in rows:
        plain, worst = (1e3 * row["seconds"][width]["least"] for width in ("1", "3"))
        shape = f"({row['batch']}, {row['classes']}, {row['edge']}³)"
        lines.append(f"| {row['loss']} | {shape} | {plain:.1f} | {worst:.1f} | {worst / plain:.2f} |")
    return [*lines, ""]


def slices(rows: list[Row]) -> list[str]:
    """Batches of small slices."""
    lines = [
        "### Slices",
        "",
        "| loss | input | ms | fastest peer | peer ms | to it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        seconds = {name: found["least"] for name, found in row["seconds"].items()}
        peer = min(peers_of(row), key=seconds.__getitem__)
        times = [f"{1e3 * seconds[name]:.2f}" for name in ("segloss", peer)]
        shape = f"({row['batch']}, {row['classes']}, {row['edge']}²)"
        lines.append(f"| {row['loss']} | {shape} | {times[0]} | {NAMES[peer]} | {times[1]} | {number(ratio(row))} |")
    return [*lines, ""]


def steps(rows: list[Row]) -> list[str]:
    """Whole training steps."""
    lines = ["### Training steps", ""]
    lines += ["| program | classes | patch | loss | step ms | to stock | loss alone ms | share | peak MB |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    stock = {(r["program"], r["classes"], r["patch"]): r["step"]["least"] for r in rows if r["loss"] == STOCK}
    for row in rows:
        step, alone = row["step"]["least"], row["alone"]["least"]
        base = stock.get((row["program"], row["classes"], row["patch"]))
        cells = [NAMES[row["program"]], row["classes"], f"{row['patch']}³", row["loss"], f"{1e3 * step:.0f}"]
        cells += [number(step / base if base else None), f"{1e3 * alone:.1f}", f"{alone / step:.1%}"]
        cells.append(f"{row['peak bytes'] / 1e6:.0f}" if "peak bytes" in row else "")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, ""]


def learned(rows: list[Row]) -> list[str]:
    """Whole training steps with what a loss brings along, a table per size."""
    lines = []
    for size in sorted({(row["classes"], row["patch"]) for row in rows}):
        classes, patch = size
        steps = {r["loss"]: r["step"] for r in rows if (r["classes"], r["patch"]) == size}
        lines += [f"### Training steps of losses that bring networks, (2, {classes}, {patch}³)", ""]
        lines += ["Whole steps of MONAI's U-Net. CPU time does not count what else a machine does.", ""]
        lines += ["| loss | step ms | to dice_ce | CPU ms | to dice_ce |", "| --- | --- | --- | --- | --- |"]
        for key, step in sorted(steps.items(), key=lambda each: each[1]["cpu"]):
            cells = [f"{key}, of the image" if key in IMAGE else key]
            for clock in ("least", "cpu"):
                cells += [f"{1e3 * step[clock]:.0f}", number(step[clock] / steps[BASE][clock])]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def distances(rows: list[Row]) -> list[str]:
    """Distance maps."""
    lines = ["### Distances", "", "| what | edge | by | segloss s | MONAI s | times as fast |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        mine, theirs = (row["seconds"][who]["least"] for who in ("segloss", "monai"))
        cells = [row["what"], row["edge"], row["by"], f"{mine:.3f}", f"{theirs:.3f}", f"{theirs / mine:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, ""]


def topology(rows: list[Row]) -> list[str]:
    """Persistence, soft skeletons and skeletons."""
    lines = ["### Topology", ""]
    lines += ["CPU time of forward and backward; MB beyond logits, target and gradient.", ""]
    lines += ["| what | input | first | s | MB | second | s | MB | second to first |"]
    lines += [f"|{' --- |' * 9}"]
    for row in rows:
        cells, seconds = [row["what"], row["input"]], {who: found["cpu"] for who, found in row["seconds"].items()}
        for who, taken in seconds.items():
            kept = row.get("extra bytes", {}).get(who)
            cells += [NAMES.get(who, who), f"{taken:.3f}", "" if kept is None else f"{kept / 1e6:.0f}"]
        first, second = seconds.values()
        lines.append(f"| {' | '.join(cells)} | {second / first:.2f} |")
    return [*lines, ""]


def images(folder: Path = FOLDER) -> dict[Path, str]:
    """Plots by path below the documentation."""
    from benchmarks import plots

    out = {}
    for path in sorted(folder.iterdir()):
        found = read(path)
        if any(ratio(row) is not None for row in found.get("losses", {}).get("rows", [])):
            out[IMAGES / f"{path.name}-peers.svg"] = plots.peers(found["losses"]["rows"])
        rows = found.get("scaling", {}).get("rows", [])
        for key in sorted({row["loss"] for row in rows}):
            out[IMAGES / f"{path.name}-{key}.svg"] = plots.scaling(rows, key)
    return out


def draw() -> int:
    """Write the plots, remove those without results, and say how many there are."""
    import matplotlib as mpl

    with mpl.rc_context():  # the figures of others keep their settings
        drawn = images()
    (DOCS / IMAGES).mkdir(parents=True, exist_ok=True)
    for old in {each.relative_to(DOCS) for each in (DOCS / IMAGES).glob("*.svg")} - set(drawn):
        (DOCS / old).unlink()
    for path, text in drawn.items():
        (DOCS / path).write_text(text, encoding="utf-8")
    return len(drawn)


def main() -> None:
    """Write them."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    (DOCS / "benchmarks.md").write_text(page(), encoding="utf-8")
    print(f"docs/benchmarks.md and {draw()} plots")


if __name__ == "__main__":
    main()
