"""Combinations of losses as papers trained them, ready to use: losses, weights and schedules by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_segloss.config import LossConfig
from monai_segloss.core.errors import nearest


@dataclass(frozen=True)
class Recipe:
    """A combination of losses from a paper.

    Args:
        key: snake_case name, the first author first.
        summary: the combination in one line.
        paper: authors, title, venue, year.
        doi: arXiv number or DOI.
        source: where weights and schedule come from, and what of them is a choice made here.
        content: the `LossConfig` as plain data.
    """

    key: str
    summary: str
    paper: str
    doi: str
    source: str
    content: Mapping[str, Any]

    @property
    def config(self) -> LossConfig:
        """The combination, validated."""
        return LossConfig.model_validate(self.content)


def recipe(key: str) -> LossConfig:
    """The configuration of a published combination of losses; `segloss list recipes` shows all.

    Raises:
        KeyError: no such recipe, with the nearest names.

    Example:
        >>> from monai_segloss import recipe
        >>> loss = recipe("karimi_hausdorff_er").build(softmax=True, to_onehot_y=True)
        >>> loss.term_weights
        {'dice': 1.0, 'hausdorff_er': 0.01}
    """
    if key not in RECIPES:
        raise KeyError(f"no recipe is called {key!r}{nearest(key, RECIPES) or '.'}")
    return RECIPES[key].config


def _like_dice(term: str) -> dict[str, Any]:
    """Dice, and another term with the weight that gives it the size of Dice."""
    return {"dice": 1, term: {"schedule": "ratio", "term": term, "to": "dice", "start": 0.01}}


KERVADEC = {
    "paper": "Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL 2019 and Medical Image Analysis 2021",
    "doi": "arXiv:1812.07032",
}
KARIMI = {
    "paper": "Karimi & Salcudean, Reducing the Hausdorff distance in medical image segmentation with CNNs, IEEE TMI 2020",
    "doi": "arXiv:1904.10030",
    "source": "both terms of the same size in each epoch, from memory of the paper, which gives the weight to Dice: the sum "
    "is the same up to a factor; the weight of the first epoch, 0.01, is chosen here",
}
MA = {
    "paper": "Ma et al., How distance transform maps boost segmentation CNNs: an empirical study, MIDL 2020",
    "doi": "PMLR 121:479-492",
}
RAMP = {"schedule": "pause", "epochs": 5, "then": {"schedule": "linear", "start": 0, "end": 1, "epochs": 995}}

RECIPES: dict[str, Recipe] = {
    each.key: each
    for each in (
        Recipe(
            key="kervadec_constant",
            summary="Generalized Dice + 0.01 boundary loss (per mm).",
            source="the weight from the authors' scripts, which also use 0.1",
            content={
                "loss": "generalized_dice_boundary",
                "arguments": {"lambda_dice": 1, "lambda_boundary": 0.01},
            },
            **KERVADEC,
        ),
        Recipe(
            key="kervadec_increase",
            summary="Generalized Dice + boundary loss (per mm), whose weight is 0.01, 0.02, 0.03 ...",
            source="the figures from memory of the paper",
            content={
                "loss": "generalized_dice_boundary",
                "arguments": {"lambda_dice": 1, "lambda_boundary": "increase"},
            },
            **KERVADEC,
        ),
        Recipe(
            key="kervadec_rebalance",
            summary="(1 - alpha) generalized Dice + alpha boundary loss (per mm), alpha 0.01, 0.02 ... 0.99.",
            source="the figures from memory of the paper",
            content={"loss": "generalized_dice_boundary"},
            **KERVADEC,
        ),
        Recipe(
            key="kervadec_steal",
            summary="Generalized Dice, 1 down to 0.1, + boundary loss (per mm), 0.01 up without end, by 0.01 per epoch.",
            source="the authors' code, which differs from the paper's pair of 1 - alpha and alpha; the first "
            "weights from memory",
            content={
                "loss": "generalized_dice_boundary",
                "arguments": {
                    "lambda_dice": {"schedule": "linear", "start": 1, "end": 0.1, "epochs": 90},
                    "lambda_boundary": "increase",
                },
            },
            **KERVADEC,
        ),
        Recipe(
            key="ma_boundary",
            summary="alpha (Dice + cross-entropy) + (1 - alpha) boundary loss (per mm), alpha 1, 0.99 ... 0.01.",
            source="schedule and terms from the authors' code",
            content={
                "loss": "dice_ce_boundary",
                "arguments": {"lambda_boundary": {"schedule": "rebalance", "start": 0}},
            },
            **MA,
        ),
        Recipe(
            key="ma_hausdorff",
            summary="alpha (Dice + cross-entropy) + (1 - alpha) Hausdorff loss (per mm^2), alpha 1, 0.999 ... 0.",
            source="the step of 0.001 per epoch from the authors' code, which measures distances inside of the masks only; "
            "here on both sides",
            content={
                "terms": {
                    "dice_ce": {"schedule": "linear", "start": 1, "end": 0, "epochs": 1000},
                    "hausdorff_dt": {"schedule": "linear", "start": 0, "end": 1, "epochs": 1000},
                }
            },
            **MA,
        ),
        Recipe(
            key="karimi_hausdorff_dt",
            summary="Dice + Hausdorff loss by distance transforms, of the same size.",
            content={"loss": "dice_hausdorff_dt"},
            **KARIMI,
        ),
        Recipe(
            key="karimi_hausdorff_dt_one_sided",
            summary="Dice + its one-sided form, which needs no distance transform of the prediction, of the same size.",
            content={"loss": "dice_hausdorff_dt", "arguments": {"one_sided": True}},
            **KARIMI,
        ),
        Recipe(
            key="karimi_hausdorff_er",
            summary="Dice + Hausdorff loss by erosions, of the same size.",
            content={"terms": _like_dice("hausdorff_er")},
            **KARIMI,
        ),
        Recipe(
            key="karimi_hausdorff_conv",
            summary="Dice + Hausdorff loss by balls of several radii, of the same size.",
            content={"terms": _like_dice("hausdorff_conv")},
            **KARIMI,
        ),
        Recipe(
            key="celaya_generalized_surface",
            summary="alpha (Dice + cross-entropy) + (1 - alpha) generalized surface loss; alpha 1 for 5 epochs, then to 0.",
            paper="Celaya, Riviere & Fuentes, A generalized surface loss for reducing the Hausdorff distance in medical "
            "imaging segmentation, 2023",
            doi="arXiv:2302.03868",
            source="pause and linear ramp from the authors' code; the ramp ends with nnU-Net's 1000 epochs: for another "
            "length set its epochs",
            content={
                "terms": {
                    "dice_ce": {"schedule": "rest", "of": RAMP},
                    "generalized_surface": RAMP,
                }
            },
        ),
        Recipe(
            key="wang_active_boundary",
            summary="Cross-entropy + Lovász-Softmax + active boundary loss.",
            paper="Wang et al., Active boundary loss for semantic segmentation, AAAI 2022",
            doi="arXiv:2102.02696",
            source="the terms from the paper; the weights of 1 are chosen here",
            content={"terms": {"cross_entropy": 1, "lovasz_softmax": 1, "active_boundary": 1}},
        ),
        Recipe(
            key="hu_persistence",
            summary="Dice + cross-entropy, from epoch 50 on + 0.005 persistence matching.",
            paper="Hu et al., Topology-preserving deep image segmentation, NeurIPS 2019",
            doi="arXiv:1906.05404",
            source="a weight of the authors' range, after a warm-up, from memory; that it begins in epoch 50, and Dice, are "
            "chosen here",
            content={
                "terms": {
                    "dice_ce": 1,
                    "persistence_matching": {"schedule": "warm_up", "value": 0.005, "epochs": 0, "begin": 50},
                }
            },
        ),
        Recipe(
            key="shi_marginal_exclusion",
            summary="Marginal and exclusion forms of Dice and cross-entropy, for cases with labels of some classes.",
            paper="Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation, "
            "Medical Image Analysis 2021",
            doi="arXiv:2007.03868",
            source="four terms of weight 1, from memory of the paper; published code gives the exclusion terms twice the "
            "weight",
            content={
                "terms": dict.fromkeys(
                    ("marginal_dice", "marginal_cross_entropy", "exclusion_dice", "exclusion_cross_entropy"), 1
                )
            },
        ),
        Recipe(
            key="zhu_dice_focal",
            summary="Dice + 0.5 focal loss.",
            paper="Zhu et al., AnatomyNet: deep learning for fast and fully automated whole-volume segmentation of head and "
            "neck anatomy, Medical Physics 2019",
            doi="arXiv:1808.05238",
            source="the weight from memory of the paper; means over classes and voxels in the place of its sums",
            content={"loss": "dice_focal", "arguments": {"lambda_focal": 0.5}},
        ),
        Recipe(
            key="catmil",
            summary="Dice + cross-entropy + Tversky loss of components, 0 up to 0.1 in 50 epochs, + 0.2 multiple instances.",
            paper="Luu et al., CATMIL, 2026",
            doi="arXiv:2604.08015",
            source="weights, ramp and connection over faces from the authors' code; they take the union of the foreground, "
            "here each class has its components",
            content={
                "terms": {
                    "dice_ce": 1,
                    "component_tversky": {"schedule": "linear", "start": 0, "end": 0.1, "epochs": 50},
                    "component_mil": 0.2,
                }
            },
        ),
        Recipe(
            key="wang_dice_metric",
            summary="0.25 cross-entropy + 0.75 Dice semimetric loss, for soft labels.",
            paper="Wang et al., Dice semimetric losses: optimizing the Dice score with soft labels, MICCAI 2023",
            doi="arXiv:2303.16296",
            source="the weights from the authors' code",
            content={"terms": {"cross_entropy": 0.25, "dice_metric": 0.75}},
        ),
        Recipe(
            key="valverde_neighbors",
            summary="Dice + cross-entropy, and the same of the worst logits among neighbors of the same class (SCNP).",
            paper="Valverde et al., same-class neighbor penalization, CVPR 2026",
            doi="arXiv:2603.18671",
            source="the sum of a loss and its penalty, with a window of 3 voxels, is the paper's; the authors' nnU-Net "
            "trainer has the penalty alone, which is dice_ce with neighbors=3. Reported are gains on vessels, none on "
            "ATLAS2 and ISLES24, and harm on MSLesSeg with its tiny lesions",
            content={"terms": {"dice_ce": 1, "penalty": {"loss": "dice_ce", "weight": 1, "neighbors": 3}}},
        ),
    )
}
"""All recipes by key."""
