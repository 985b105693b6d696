"""Adding a loss takes three files: the rest follows in a copy of the project, where the new loss trains on each surface."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import repository

KEY = "sokal_sneath"
CARD = '''from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import RegionLoss, register
from monai_segloss.core.formula import Counts, ClassView
from monai_segloss.losses.region.dice_form import one_minus_ratio


@register("sokal_sneath")
class SokalSneathLoss(RegionLoss):
    """One minus the soft Sokal-Sneath index of each class.

    Formula: 1 - (TP + s_n) / (TP + 2 FP + 2 FN + s_d)

    When: Never yet: a loss of the tests.

    Example:
        >>> import torch
        >>> from monai_segloss import SokalSneathLoss
        >>> loss = SokalSneathLoss(softmax=True, to_onehot_y=True, include_background=False)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.8889

    Reference: Sokal & Sneath, Principles of Numerical Taxonomy, 1963.
    """

    def table(self, view: ClassView) -> Tensor:
        return sokal_sneath(view.counts(), self.smooth_nr, self.smooth_dr)


def sokal_sneath(n: Counts, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5) -> Tensor:
    """1 - (TP + nr) / (TP + 2 FP + 2 FN + dr), (B | 1, C)."""
    return one_minus_ratio(n.tp, 2 * (n.fp + n.fn), smooth_nr, smooth_dr)
'''
REFERENCE = '''

@reference("sokal_sneath")
def sokal_sneath(r: Reading, smooth_nr: float, smooth_dr: float, **scoring: Any) -> Array:
    """Sokal & Sneath 1963."""
    table = Table(r, **scoring)
    tp, fp, fn = (table.sum(x) for x in (r.p * r.g, r.p * (1 - r.g), (1 - r.p) * r.g))
    return table.reduce(1 - (tp + smooth_nr) / (tp + 2 * fp + 2 * fn + smooth_dr))
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


def passed(project: Path, *arguments: str) -> Counter[str]:
    """How many tests of each file of the copy passed; none may fail."""
    text = python(project, "-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments)
    return Counter(re.findall(r"^tests/test_(\w+)\.py::\S+ PASSED", text, re.MULTILINE))


@repository.needed
@pytest.mark.slow
def test_a_new_loss_takes_three_files(project: Path, tmp_path: Path) -> None:
    where = python(project, "-c", "import monai_segloss as m; print(m.__file__, m.SokalSneathLoss.__name__)")
    assert where.split() == [str(project / "monai_segloss" / "__init__.py"), "SokalSneathLoss"]
    surfaces = {
        "nnunet_every_trainer": "trains_resumes_and_predicts",
        "bundle": "bundle_trains_evaluates_and_infers",
        "docs": "page_of_a_loss",
        "nnunet_trainers": "has_its_trainer",
    }
    files = [f"tests/test_{name}.py" for name in ("contract", "reference", *surfaces)]
    found = passed(
        project, *files, "-k", f"{KEY} and ({' or '.join(('test_contract', 'test_reference', *surfaces.values()))})"
    )
    assert found["contract"] + found["reference"] > 50
    assert {name: found[name] for name in surfaces} == dict.fromkeys(surfaces, 1)
    python(project, "docs/generate.py", str(tmp_path), "--only", KEY)
    assert (tmp_path / "docs" / "images" / "losses" / f"{KEY}.svg").read_text().startswith("<?xml")
    assert f"no row for {KEY} yet" in python(project, "docs/generate.py", "--check")
    changed = repository.git("status", "--porcelain", "--untracked-files=all", folder=project).splitlines()
    assert sorted(line[3:] for line in changed) == FILES
