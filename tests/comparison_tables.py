"""Tables of a comparison that nobody ran: runs, cases, bins of probabilities and curves with known effects."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_segloss.experiment.tables import HALF, MEAN, OWN, Tables

PATIENTS = 12
ARMS = {"dice_ce": 0.0, "tversky": 0.06, "boundary": 0.0}
SEEDS = {"dice_ce": 4, "tversky": 2, "boundary": 2}


def rows(
    arms: dict[str, float], seeds: dict[str, int], points: tuple[str, ...] = (HALF, OWN)
) -> tuple[list[Any], list[Any]]:
    """Runs and cases: two folds, two classes, sizes that differ, Dice and a distance that follows it."""
    rng = np.random.default_rng(0)
    level = 0.7 + 0.1 * rng.standard_normal(PATIENTS)
    runs, cases = [], []
    for arm, effect in arms.items():
        for seed in range(seeds[arm]):
            for fold in "01":
                run = f"{arm}_seed{seed}_fold{fold}"
                facts = {"dataset": "D", "configuration": "3d_fullres", "fold": fold, "seed": seed}
                runs.append({"run": run, "arm": arm, "state": "done", "minutes": 3.5, **facts})
                luck = 0.002 * rng.standard_normal()
                for i in range(PATIENTS):
                    if i % 2 != int(fold):
                        continue
                    for point in points:
                        for label, size in (("organ", 100.0), ("lesion", 10.0)):
                            dice = level[i] + effect + luck + 0.01 * rng.standard_normal()
                            about = {
                                "run": run,
                                "case": f"c{i:02}",
                                "patient": f"p{i:02}",
                                "label": label,
                                "point": point,
                            }
                            values = {"dice": dice, "hd95": 20 * (1 - dice), "reference_mm3": size * (i + 1)}
                            cases.append({**about, **values})
                        cases.append({**about, "label": MEAN, "dice": dice, "hd95": 20 * (1 - dice)})
    return runs, cases


def whole(arms: dict[str, float] | None = None, seeds: dict[str, int] | None = None) -> Tables:
    """Tables with everything that a report can show."""
    arms = ARMS if arms is None else arms
    runs, cases = rows(arms, dict.fromkeys(arms, 2) if seeds is None else seeds)
    rng = np.random.default_rng(1)
    for case in cases:
        if case["label"] == MEAN:
            continue
        case["predicted_mm3"] = case["reference_mm3"] * 0.9
        for i, count in enumerate((4, 2)):
            case[f"lesions_size_{i}"] = count
            case[f"lesions_found_size_{i}"] = round(count * case["dice"])
        if case["point"] == OWN:
            case["threshold"] = 0.4
    bins, curves = [], []
    for run in runs:
        run |= {"splits_hash": f"s{run['fold']}", "plans_hash": "p", "weights_hash": f"w{run['seed']}"}
        for case in (each for each in cases if each["run"] == run["run"] and each["point"] == HALF):
            if case["label"] == MEAN:
                continue
            for i in range(10):
                voxels, p = 100.0 * (10 - i), (i + 0.5) / 10
                about = {name: case[name] for name in ("run", "case", "patient", "label")}
                positives = voxels * p * (1 - 0.1 * rng.random())
                bins.append({**about, "bin": i, "voxels": voxels, "confidence": voxels * p, "positives": positives})
        for epoch in range(30):
            dice = 0.8 * (1 - np.exp(-epoch / 8)) + arms[run["arm"]]
            curves.append(
                {"run": run["run"], "epoch": epoch, "train_loss": 0.5 - dice, "val_loss": 0.6 - dice, "dice": dice}
            )
    return Tables.of(runs, cases, bins, curves)
