"""The documentation that follows from registry and results.

python docs/generate.py build/site          # sources of the site, with a page and a figure per loss; git ignores build/
mkdocs build                                # the site, build/html; tox run -e docs does both
python docs/generate.py build/site --only dice_ce
python docs/generate.py --write             # the generated pages that are kept in git: TRACKED
python docs/generate.py --check             # whether they are current
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

import monai_segloss
from monai_segloss import LossInfo
from monai_segloss.core.citation import bibtex
from monai_segloss.core.names import camel
from monai_segloss.core.registry import EVERYTHING
from monai_segloss.differences import DIFFERENCES, Difference

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))
from edges import edge_cases  # noqa: E402
from figures import figure  # noqa: E402
from pages import (  # noqa: E402, F401
    EXAMPLES,
    PROPERTIES,
    REFERENCE,
    examples_page,
    gallery_page,
    markdown,
    parameter_table,
    prose,
    public_names,
    reference_pages,
    support_cells,
    support_table,
)

TRACKED = ("losses.md", "differences.md", "benchmarks.md", "support.md")
"""Generated pages that can be read in the repository; adding a loss changes none of them before the next release."""
TESTED = DOCS / "tested.json"
"""Written by the tox environments of versions, such as py311-lowest."""
TABLE = re.compile(r"(?<=<!-- tested: -->\n).*?(?=<!-- end -->)", re.DOTALL)
"""The generated part of docs/support.md."""
SITES = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/", "openreview": "https://openreview.net/forum?id="}
FIGURE = (
    "Value and gradient on a volume with 5 % foreground: every voxel with the same probability of its true class (left), "
    "a confident prediction (p = 0.98) that is shifted off its target step by step (right)."
)
HAUSDORFF = (
    "Far voxels push a class down with their squared distance before its own voxels can hold it, and where p has come to "
    "0, (p - g)^2 has no gradient in the logits."
)
ALONE = {
    "active_boundary": "It reads where the predicted boundaries lie, never which class is on which side, so that a class "
    "is as probable outside as inside. It is published alongside cross-entropy and `lovasz_softmax`.",
    "active_contour": "Its region term is linear in p: the many voxels of the background push a class down first, and where "
    "p has come to 0 it has no gradient. Start from trained weights, or add it to cross-entropy.",
    "boundary": "Far voxels, of which there are many, push a class down with their distance, more than its few voxels pull "
    "it up, and where p has come to 0 it has no gradient. It is published alongside a region loss: `dice_boundary`.",
    "elastic_interaction": "A constant added to a probability costs nothing, so that it does not train alone.",
    "exclusion_cross_entropy": "All classes are labeled here, so that background everywhere costs nothing: it belongs "
    "alongside `marginal_cross_entropy`.",
    "exclusion_dice": "All classes are labeled here, so that background everywhere costs nothing: it belongs "
    "alongside `marginal_dice`.",
    "focal_positive": "It knows no false positive: more of a class is never worse: it belongs alongside another loss.",
    "generalized_surface": "Far voxels push a class down with their squared distance, and inside, where 1 - p^2 counts, "
    "p near 0 has no gradient. It is published alongside Dice and cross-entropy, with a share that grows.",
    "hausdorff_dt": f"{HAUSDORFF} It is published alongside Dice: `dice_hausdorff_dt`.",
    "log_hausdorff_dt": HAUSDORFF,
    "lovasz_hinge": "Scores of 0 everywhere cost 1, a plateau that a short training hardly leaves; it is used to raise the "
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
    "channels share; it is published alongside Dice, for channels that are read at 1/2.",
}
"""Why a loss hardly trains alone and from random weights."""
NOTE = "<!-- Written by docs/generate.py from the registry; do not edit. -->\n\n"


def build(out: Path, figures: Collection[str] | None = None) -> None:
    """Write the documentation into a folder that has the layout of the repository.

    Args:
        out: the folder; what is in it stays.
        figures: keys of the losses to draw and to compute edge cases of; None: all.
    """
    losses = monai_segloss.list_losses()
    keys = "|".join(info.key for info in losses)
    for path in sources():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            to = "" if path.parent == Path("docs") else "../"
            text = (ROOT / path).read_text(encoding="utf-8")
            text = re.sub(r"\A<!--.*?-->\s*", "", text)  # a page begins with its title
            text = re.sub(r"(\]\([^):]*/)\)", r"\1index.md)", text)  # a folder
            linked = re.sub(rf"^\| ({keys})(?=[ ,])", rf"| [\1]({to}losses/\1.md)", text, flags=re.MULTILINE)
            (out / path).write_text(linked if "docs" in path.parts else text, encoding="utf-8")
        else:
            shutil.copyfile(ROOT / path, out / path)
    drawn = [info for info in losses if figures is None or info.key in figures]
    edges = {info.key: edge_cases(info) for info in drawn}
    pages = {f"losses/{info.key}.md": loss_page(info, edges.get(info.key, "")) for info in losses}
    pages |= {"losses.md": index_page(losses), "gallery.md": gallery_page(losses, FIGURE)}
    pages |= {"decisions/index.md": decisions_page()}
    pages |= {f"reference/{name}": text for name, text in reference_pages().items()}
    for name, text in pages.items():
        (out / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (out / "docs" / name).write_text(text, encoding="utf-8")
    (out / "examples").mkdir(exist_ok=True)
    (out / "examples" / "index.md").write_text(examples_page(ROOT / "examples"), encoding="utf-8")
    folder = out / "docs" / "images" / "losses"
    folder.mkdir(parents=True, exist_ok=True)
    for info in drawn:
        (folder / f"{info.key}.svg").write_text(figure(info), encoding="utf-8")


def decisions_page() -> str:
    """A list of the decisions."""
    found = {file.name: file.read_text(encoding="utf-8") for file in sorted((DOCS / "decisions").glob("*.md"))}
    lines = [f"- [{text.splitlines()[0].removeprefix('# ')}]({name})" for name, text in found.items()]
    return "\n".join(["# Decisions", "", *lines, ""])


def sources() -> list[Path]:
    """Markdown of the repository, and the images and styles of the documentation."""
    found = [
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        *(ROOT / "bundles").rglob("*.md"),
        *(DOCS / "images").rglob("*.*"),
        *(DOCS / "assets").rglob("*.*"),
    ]
    return sorted(path.relative_to(ROOT) for path in found)


def tracked(without: Collection[str] = ()) -> dict[str, str]:
    """The generated pages that are kept in git, by name; ``without`` rows of these losses in the table of losses."""
    sys.path.append(str(ROOT))  # last: the installed package comes before the sources
    from benchmarks.page import page

    losses = monai_segloss.list_losses()
    texts = (
        table_page([info for info in losses if info.key not in without]),
        differences_page(),
    )
    return {
        **{name: NOTE + text for name, text in zip(TRACKED, texts, strict=False)},
        "benchmarks.md": page(),
        "support.md": support_page(),
    }


def waiting() -> list[str]:
    """Losses that came after the last release and have no row in the table of losses yet; at a release there is none."""
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    if next(line for line in changes if line.startswith("## ")) != "## Unreleased":
        return []
    table = (DOCS / "losses.md").read_text(encoding="utf-8")
    return [info.key for info in monai_segloss.list_losses() if f"| [{info.key}](" not in table]


def stale() -> list[str]:
    """The pages kept in git that are not as they would be written today."""
    wanted = tracked(waiting())
    return [name for name in TRACKED if (DOCS / name).read_text(encoding="utf-8") != wanted[name]]


def support_page() -> str:
    """docs/support.md with the table of versions that tests have run with."""
    columns = {"python": "Python", "torch": "PyTorch", "monai": "MONAI", "nnunetv2": "nnU-Net", "numpy": "NumPy"}
    columns |= {"passed": "tests passed", "day": "day"}
    runs = json.loads(TESTED.read_text(encoding="utf-8")) if TESTED.exists() else {}
    head = [f"| {' | '.join(['environment', *columns.values()])} |", f"| --- |{' --- |' * len(columns)}"]
    lines = head if runs else ["None of them has been run to its end yet."]
    lines += [f"| `{name}` | {' | '.join(str(run[column]) for column in columns)} |" for name, run in runs.items()]
    return TABLE.sub("\n".join(["", *lines, "", ""]), (DOCS / "support.md").read_text(encoding="utf-8"))


def table_page(losses: list[LossInfo]) -> str:
    """The short table of losses."""
    lines = [
        "# Losses",
        "",
        "`segloss show KEY` prints formula, parameters, support and use of a loss. `python docs/generate.py build/site` "
        "makes a page with a figure for each.",
        "",
        "| loss | family | what | source |",
        "| --- | --- | --- | --- |",
    ]
    for info in losses:
        card = f"[{info.key}](../monai_segloss/losses/{info.family}/{info.key}.py)"
        lines.append(f"| {card} | {info.family} | {info.summary} | {source_links(info)} |")
    return "\n".join([*lines, ""])


def source_links(info: LossInfo) -> str:
    """Links to the papers."""
    found = []
    for each in info.doi.split("; "):
        kind, _, number = each.partition(":")
        found.append(f"[{each}]({SITES[kind]}{number})" if kind in SITES else each)
    return ", ".join(found)


def linked(info: LossInfo) -> str:
    """The papers, their numbers as links."""
    text = f"{info.paper}."
    for each in info.doi.split("; "):
        kind, _, number = each.partition(":")
        text = text.replace(each, f"[{each}]({SITES[kind]}{number})") if kind in SITES else text
    return text


def loss_page(info: LossInfo, edges: str = "") -> str:
    """The page of one loss; with a sentence on its edge cases."""
    lines = [f"# {info.key}", "", f"[All losses](../losses.md) / [{info.family}](../gallery.md#{info.family})", ""]
    lines += [markdown(info.summary), "", f"**When.** {markdown(info.when)}", "", "$$", info.formula, "$$", ""]
    lines += [f"![{FIGURE}](../images/losses/{info.key}.svg)", "", f"*{FIGURE}*", ""]
    lines += [f"**Edge cases.** {edges}", ""] if edges else []
    lines += ["## Parameters", "", *parameter_table(info), "", "## Details", "", *prose(info), "## Use", ""]
    lines += ["| where | how |", "| --- | --- |"]
    for surface, line in info.surfaces().items():
        words = line if surface == "trainer" else f"`{line}`"
        lines.append(f"| {surface} | {words} |")
    lines += ["", "## Support", "", *support_table(info)]
    lines += ["", f"Cost of a step: {info.cost}."] if info.cost else []
    different = [d for d in DIFFERENCES if d.key == info.key]
    if different:
        lines += ["", "## Differences", "", *difference_table(different)]
    lines += measured(info.key)
    lines += ["", "## Source", "", linked(info), ""]
    lines += [f"`segloss cite {info.key}` prints", "", "```bibtex", "\n\n".join(bibtex(info.paper)), "```", ""]
    lines += ["and the entry of this package."]
    return "\n".join([*lines, ""])


def index_page(losses: list[LossInfo]) -> str:
    """The table of all losses, and what each supports."""
    lines = ["# Losses", "", "| key | family | what | when |", "| --- | --- | --- | --- |"]
    lines += [f"| [{i.key}](losses/{i.key}.md) | {i.family} | {i.summary} | {i.when} |" for i in losses]
    lines += ["", "## Support", ""]
    lines += [
        "A trainer refuses what its loss does not support before any work. Tests train every cell of this table.",
        "",
        "Every loss takes `torch.func.grad` and `jacrev` (not forward mode, `jvp`), tensors made in inference mode, and "
        "`torch.compile`, which some of them break into several graphs. Where a second derivative is not known it is "
        'refused. `torch.vmap` is refused by all: a loss looks at the values of its target; `reduction="none"` keeps '
        "samples apart.",
        "",
        "All of them run on a device without float64, such as MPS: what needs it is computed on the CPU there, the rest in "
        "float32. Tests run each in an emulation on the CPU that refuses float64; no Mac was at hand.",
        "",
    ]
    columns = [*EVERYTHING, *PROPERTIES.values()]
    lines += [f"| key | {' | '.join(columns)} | nnU-Net |", f"| --- |{' --- |' * (len(columns) + 1)}"]
    for info in losses:
        lines.append(f"| {info.key} | {' | '.join(support_cells(info))} | `nnUNetTrainer{camel(info.key)}` |")
    return "\n".join([*lines, ""])


def measured(key: str) -> list[str]:
    """What the published comparisons say of a loss, and why it hardly trains alone where that is known."""
    lines = ["", "## From random weights", "", ALONE[key]] if key in ALONE else []
    rows = []
    for part in (DOCS / "comparison.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        for row in re.findall(rf"^\| `{key}` \|(.+)\|$", part, re.MULTILINE):
            dice, difference, verdict = (cell.strip() for cell in row.split("|")[:3])
            rows.append(f"| {part.splitlines()[0]} | {dice} | {difference} | {verdict} |")
    if rows:
        head = "| data | Dice | difference from `dice_ce` | verdict |"
        lines += ["", "## Measured", "", head, "| --- | --- | --- | --- |", *rows]
        lines += ["", "Small networks and short trainings, two seeds each: [the whole tables](../comparison.md)."]
    return lines


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
    """Build the documentation, or write or check the pages kept in git."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("out", nargs="?", type=Path, help="folder to build into")
    what.add_argument("--write", action="store_true", help=f"write docs/{{{','.join(TRACKED)}}}")
    what.add_argument("--check", action="store_true", help="exit code 1 where one of them is not current")
    parser.add_argument("--only", nargs="+", metavar="KEY", help="draw the figures of these losses alone")
    options = parser.parse_args()
    if options.write:
        for name, text in tracked().items():
            (DOCS / name).write_text(text, encoding="utf-8")
    elif options.check:
        for key in waiting():
            print(f"docs/losses.md has no row for {key} yet; python docs/generate.py --write adds it at a release.")
        if found := stale():
            sys.exit(f"not current: {', '.join(found)}; run python docs/generate.py --write")
    else:
        build(options.out, options.only)


if __name__ == "__main__":
    main()
