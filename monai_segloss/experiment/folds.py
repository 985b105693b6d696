"""The folds of a comparison: nnU-Net's own split, of patients where some have several images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_segloss.demo.problem import DemoError
from monai_segloss.files import read_json

SEED = 12345
"""That of nnU-Net's own splits."""


def read_patients(file: Path, cases: Sequence[str]) -> dict[str, str]:
    """Case -> patient, from a JSON file; a case that it lacks is its own patient.

    Raises:
        DemoError: the file holds something else, or a case that there is not.
    """
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise DemoError(f"--patients {file}: {error}") from None
    if not isinstance(found, Mapping) or not all(isinstance(each, str) for each in found.values()):
        raise DemoError(f"--patients {file}: expected a mapping of cases to names of patients")
    unknown = sorted(set(found) - set(cases))
    if unknown:
        raise DemoError(f"--patients {file}: there is no case {unknown[0]!r}")
    return dict(found)


def make_folds(cases: Sequence[str], count: int, patients: Mapping[str, str]) -> list[dict[str, list[str]]]:
    """Training and held-out cases of each fold, split by nnU-Net's function.

    Args:
        cases: all of them.
        count: folds.
        patients: case -> patient; all cases of one lie on the same side.

    Raises:
        DemoError: there are more folds than patients.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    whose = {case: patients.get(case, case) for case in cases}
    names = sorted(set(whose.values()))
    if count > len(names):
        raise DemoError(f"--splits {count}: there are only {len(names)} patients to split")
    split = generate_crossval_split(names, SEED, count)
    return [
        {side: [case for case in cases if whose[case] in set(map(str, each[side]))] for side in ("train", "val")}
        for each in split
    ]
