"""The order of arms, and how far it can be relied on: resampling of patients and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from monai_segloss.experiment.statistics import DEFAULT, Array, Settings, TooFewError, per_patient, table


def not_the_best(arms: Mapping[str, Array], settings: Settings = DEFAULT) -> dict[str, float]:
    """For each arm: the share of bootstrap samples of patients and seeds in which another arm has the larger mean.

    That of the arm that looks best is the probability that the claimed winner is none.
    """
    means = _resampled(arms, settings)
    best = means.argmax(1)
    return {name: float((best != i).mean()) for i, name in enumerate(arms)}


@dataclass(frozen=True)
class Ranks:
    """The order of the arms, and how far it can be relied on.

    Args:
        order: best first, by the mean over patients and seeds.
        low, high: of the rank of each arm (1 is best), 95 % of the bootstrap samples.
        tau: mean of Kendall's tau between the order and that of each bootstrap sample; 1: always the same, 0: all alike.
    """

    order: tuple[str, ...]
    low: Mapping[str, float]
    high: Mapping[str, float]
    tau: float


def ranks(arms: Mapping[str, Array], settings: Settings = DEFAULT) -> Ranks:
    """The order of the arms by their means, with its stability under resampling of patients and seeds."""
    names = list(arms)
    means = np.array([per_patient(x).mean() for x in _common(arms).values()])
    resampled = stats.rankdata(-_resampled(arms, settings), axis=1)
    own = stats.rankdata(-means)
    tau = float(np.nan_to_num(taus(own, resampled)).mean()) if len(names) > 1 else 1.0
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    order = tuple(names[i] for i in np.argsort(-means, kind="stable"))
    return Ranks(
        order,
        dict(zip(names, low.tolist(), strict=True)),
        dict(zip(names, high.tolist(), strict=True)),
        tau,
    )


def taus(own: Array, rows: Array) -> Array:
    """Kendall's tau-b between ranks (arms,) and each row of ranks (resamples, arms); NaN where all of a row are alike.

    That of SciPy, which takes one row at a time: minutes for the thousands of rows of each measure.
    """
    one, other = np.triu_indices(len(own), 1)
    ours, theirs = np.sign(own[one] - own[other]), np.sign(rows[:, one] - rows[:, other])
    with np.errstate(invalid="ignore"):
        found: Array = theirs @ ours / np.sqrt((ours**2).sum() * (theirs**2).sum(1))
    return found


def _common(arms: Mapping[str, Array]) -> dict[str, Array]:
    """The tables with the patients that have a value in every run."""
    tables = {name: table(name, x) for name, x in arms.items()}
    known = np.all([np.isfinite(x).all(0) for x in tables.values()], axis=0)
    if not known.any():
        raise TooFewError("no patient has a value in every arm.")
    return {name: x[:, known] for name, x in tables.items()}


def _resampled(arms: Mapping[str, Array], settings: Settings) -> Array:
    """Means (resamples, arms) over patients drawn anew, the same for all arms, and seeds drawn anew for each arm."""
    tables = _common(arms)
    rng = np.random.default_rng(settings.seed)
    patients = next(iter(tables.values())).shape[1]
    weights = rng.multinomial(patients, np.full(patients, 1 / patients), settings.resamples) / patients
    found = []
    for values in tables.values():
        seeds = values.shape[0]
        drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), settings.resamples) / seeds
        found.append(np.einsum("rp,sp,rs->r", weights, values, drawn, optimize=True))
    return np.stack(found, 1)
