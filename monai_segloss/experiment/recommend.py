"""Which losses to compare with the baseline on a data set: reasons and sources, no promise."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_segloss.config import LossConfig
from monai_segloss.core.registry import find
from monai_segloss.experiment.fingerprint import ClassFacts, Fingerprint
from monai_segloss.recipes import RECIPES

BASELINE, MOST = "dice_ce", 6
RARE, MANY, TUBE, UNEVEN, LARGE, ABSENT, SLICES = 0.01, 3, 8.0, 100.0, 0.02, 0.2, 3.0
"""A rare class has a smaller share, many components are at least so many, a tube is at least so many widths long, uneven
shares differ by so much, a large class has at least that share, often absent is in that share of cases, thick slices have
that anisotropy."""


@dataclass(frozen=True)
class Suggestion:
    """A loss that is worth a comparison.

    Args:
        key: of a loss or of a recipe.
        reason: what in the data speaks for it.
        when: what is known for and against it.
        source: the paper.
        evidence: what was measured, where results were given; else "".
    """

    key: str
    reason: str
    when: str
    source: str
    evidence: str = ""


def recommend(found: Fingerprint, evidence: Mapping[str, str] | None = None) -> list[Suggestion]:
    """At most `MOST` losses to compare with ``dice_ce``, the most specific reasons first.

    Args:
        found: the data set.
        evidence: arm -> what was measured.

    Example:
        >>> from monai_segloss.experiment.fingerprint import ClassFacts, Fingerprint
        >>> lesion = ClassFacts("lesion", 0.0004, 0.7, 6.0, 30.0, 1.5)
        >>> found = Fingerprint(20, 20, 3, (3.0, 1.0, 1.0), (lesion,), False, False, False)
        >>> [each.key for each in recommend(found)]
        ['cc_dice_ce', 'blob', 'tversky', 'catmil', 'dice_focal', 'unified_focal']
    """
    reasons: dict[str, str] = {}
    for key, reason in _rules(found):
        if all(_takes(find(each).support, found) for each in _losses(key)):
            reasons.setdefault(key, reason)
    out = []
    for key, reason in list(reasons.items())[:MOST]:
        recipe = RECIPES.get(key)
        when, source = (recipe.summary, recipe.paper) if recipe else (find(key).when, find(key).paper)
        out.append(Suggestion(key, reason, when, source, (evidence or {}).get(key, "")))
    return out


def _losses(key: str) -> Sequence[str]:
    """Of a recipe; a loss is its own."""
    config = RECIPES[key].config if key in RECIPES else LossConfig(loss=key)
    return [config.loss] if config.loss else list(config.terms)


def _takes(support: Sequence[str], found: Fingerprint) -> bool:
    return not (found.regions and "regions" not in support) and not (found.ignore and "ignore" not in support)


def _rules(found: Fingerprint) -> Iterator[tuple[str, str]]:
    known = [each for each in found.classes if each.present > 0]
    rare = [each for each in known if each.share < RARE]
    if found.partial:
        yield (
            "shi_marginal_exclusion",
            "some cases have labels of some classes only (labeled_classes.json), which the baseline takes for background",
        )
    many = [each for each in known if each.components >= MANY and each.elongation < TUBE]
    if many:
        why = f"{_named(many, 'components', '{:.0f} components per case')}: Dice over voxels sees the large ones"
        yield from (("cc_dice_ce", why), ("blob", why))
    thin = [each for each in known if each.elongation >= TUBE]
    if thin:
        why = f"{_named(thin, 'elongation', 'as long as {:.0f} of its widths')}: a gap of one voxel hardly lowers Dice"
        yield from (("dice_ce_skeleton_recall", why), ("dice_cldice", why))
    if rare:
        why = f"{_named(rare, 'share', '{:.2%} of the voxels')}: its recall may need weight"
        yield "tversky", why
    if many:
        why = f"{_named(many, 'components', '{:.0f} components per case')}: each weighs alike here, whatever its size"
        yield "catmil", why
    absent = [each for each in known if each.present <= 1 - ABSENT]
    if absent:
        why = (
            f"{_named(absent, 'present', 'in {:.0%} of the cases')}: without the class Dice hardly tells what is wrong"
        )
        yield "dice_focal", why
    shares = [each.share for each in known if each.share > 0]
    if len(shares) > 1 and max(shares) > UNEVEN * min(shares):
        yield "generalized_dice", f"the shares of the classes differ {max(shares) / min(shares):.0f}-fold"
        yield "dice_focal", "classes of very different size"
    compact = [each for each in known if each.share >= LARGE and each.components < MANY and each.elongation < TUBE]
    if compact:
        why = f"{_named(compact, 'share', '{:.1%} of the voxels')} in one piece: what is left to gain lies at the boundary"
        yield from (("boundary_dou", why), ("dice_hausdorff_dt", why))
    if thin:
        yield (
            "dice_boundary",
            f"{_named(thin, 'elongation', 'as long as {:.0f} of its widths')}: much of it is boundary",
        )
    if rare:
        yield "unified_focal", f"{_named(rare, 'share', '{:.2%} of the voxels')}: imbalance with the background"
    yield "dice_topk", "nothing in the labels speaks for it or against it: a control among the stable losses"


def _named(classes: Sequence[ClassFacts], fact: str, form: str) -> str:
    shown = [f"{each.name} {form.format(getattr(each, fact))}" for each in classes[:3]]
    return ", ".join(shown) + (f" and {len(classes) - 3} more classes" if len(classes) > 3 else "")


def notes(found: Fingerprint) -> list[str]:
    """What must be known alongside the list."""
    out = [
        "Most losses lie within the noise of the seed of dice_ce.",
        "This list says what to test; only the comparison says what helps.",
    ]
    if found.cases < found.known:
        out.append(f"{found.cases} of {found.known} cases were read.")
    if found.anisotropy >= SLICES:
        out.append(
            f"Voxels are {found.anisotropy:.1f} times as long as wide: losses with distances measure in mm, those with "
            "filters in voxels."
        )
    empty = [each.name for each in found.classes if not each.present]
    if empty:
        out.append(f"No case that was read has {', '.join(empty)}.")
    out.append("Errors of the labels, and whether labels are soft, are not visible here and were not looked for.")
    return out


def command(data: Path, keys: Sequence[str]) -> str:
    """The command that tests these losses."""
    losses = " ".join(f"--loss {key}" for key in (BASELINE, *keys))
    return f"segloss compare run --data {shlex.quote(str(data))} {losses}"


def measured(folder: Path) -> dict[str, str]:
    """Arm -> what a comparison in a folder says about it on its first measure.

    Raises:
        ValueError: the tables are missing or cannot be analyzed.
    """
    from monai_segloss.experiment.analysis import analyze
    from monai_segloss.experiment.cells import digits, plain
    from monai_segloss.experiment.findings import headline, select
    from monai_segloss.experiment.measures import MEASURES
    from monai_segloss.experiment.tables import read

    tables = read(folder / "tables")
    analysis = analyze(tables)
    out = {}
    for name in headline(tables)[:1]:
        for row in select(analysis, name).to_dict("records"):
            number = plain(row["difference"], digits(name), True)
            of = f"{row['seeds']} seed{'s' if row['seeds'] > 1 else ''}, {row['patients']} patients"
            out[str(row["arm"])] = (
                f"{row['verdict']}, {number} {MEASURES[name].words} against {analysis.baseline} ({of})"
            )
    return out
