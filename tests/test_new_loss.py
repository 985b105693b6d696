"""Adding a loss takes three files: the rest follows in a copy of the project, where the new loss trains on each surface."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import repository

KEY = "sokal_sneath"
CARD = '''"""Sokal-Sneath loss.  Sokal & Sneath, Principles of Numerical Taxonomy, 1963."""

from __future__ import annotations

from torch import Tensor

from monai_segloss.core.batch import ClassView
from monai_segloss.core.counts import Counts
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.losses.region.dice import one_minus_ratio


def sokal_sneath(n: Counts, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5) -> Tensor:
    """1 - (TP + nr) / (TP + 2 FP + 2 FN + dr), (B | 1, C)."""
    return one_minus_ratio(n.tp, 2 * (n.fp + n.fn), smooth_nr, smooth_dr)


@register(
    "sokal_sneath",
)
class SokalSneathLoss(RegionLoss):
    """One minus the soft Sokal-Sneath index of each class.

    Formula:
        1 - (TP + s_n) / (TP + 2 FP + 2 FN + s_d)

    When:
        Never yet: a loss of the tests.

    Args:
        common: see `SegLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import SokalSneathLoss
        >>> loss = SokalSneathLoss(softmax=True, to_onehot_y=True, include_background=False)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.8889

    Reference:
        Sokal & Sneath, Principles of Numerical Taxonomy, 1963.
    """

    def table(self, view: ClassView) -> Tensor:
        return sokal_sneath(view.counts(), self.smooth_nr, self.smooth_dr)
'''
REFERENCE = '''

def sokal_sneath(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    include_background: bool = True,
    batch: bool = False,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    """Sokal & Sneath 1963."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    tp, fp, fn = (
        table_sum(r, x, include_background=include_background, batch=batch)
        for x in (r.p * r.g, r.p * (1 - r.g), (1 - r.p) * r.g)
    )
    loss = 1 - (tp + smooth_nr) / (tp + 2 * fp + 2 * fn + smooth_dr)
    return table_reduce(r, loss, weight, batch, reduction)


REFERENCES["sokal_sneath"] = sokal_sneath
'''
LINE = "from monai_segloss.losses.region.sokal_sneath import SokalSneathLoss\n"
FILES = ["monai_segloss/losses/__init__.py", f"monai_segloss/losses/region/{KEY}.py", "tests/references/region.py"]


def add(project: Path) -> None:
    """Card, reference, line."""
    (project / FILES[1]).write_text(CARD)
    with (project / FILES[2]).open("a") as file:
        file.write(REFERENCE)
    listed = (project / FILES[0]).read_text()
    after = "from monai_segloss.losses.region.threshold_map_dice"
    assert after in listed
    listed = listed.replace(after, LINE + after).replace(
        '    "SeesawLoss",\n', '    "SeesawLoss",\n    "SokalSneathLoss",\n'
    )
    (project / FILES[0]).write_text(listed)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the new loss, which nothing but its three files speaks of."""
    copy = repository.copy(tmp_path_factory.mktemp("new") / "project")
    add(copy)
    return copy


def python(project: Path, *arguments: str) -> str:
    """Output of a program that imports the copy."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env={**environ, "PYTHONPATH": str(project)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def passed(project: Path, *arguments: str) -> int:
    """How many tests of the copy passed; none may fail."""
    text = python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
    return int(text.split(" passed")[0].split()[-1])


@repository.needed
@pytest.mark.slow
def test_a_new_loss_takes_three_files(project: Path, tmp_path: Path) -> None:
    where = python(project, "-c", "import monai_segloss as m; print(m.__file__, m.SokalSneathLoss.__name__)")
    assert where.split() == [str(project / "monai_segloss" / "__init__.py"), "SokalSneathLoss"]
    contract = passed(project, "tests/test_contract.py", "tests/test_reference.py", "-k", KEY)
    assert contract > 50
    surfaces = [
        "trains_resumes_and_predicts",
        "bundle_trains_evaluates_and_infers",
        "page_of_a_loss",
        "has_its_trainer",
    ]
    files = [f"tests/test_{name}.py" for name in ("nnunet_every_trainer", "bundle", "docs", "nnunet_trainers")]
    assert passed(project, *files, "-k", f"{KEY} and ({' or '.join(surfaces)})") == len(surfaces)
    python(project, "docs/generate.py", str(tmp_path), "--only", KEY)
    assert (tmp_path / "docs" / "images" / "losses" / f"{KEY}.svg").read_text().startswith("<?xml")
    assert f"no row for {KEY} yet" in python(project, "docs/generate.py", "--check")
    changed = repository.git("status", "--porcelain", "--untracked-files=all", folder=project).splitlines()
    assert sorted(line[3:] for line in changed) == FILES
