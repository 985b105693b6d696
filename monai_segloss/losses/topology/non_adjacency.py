from __future__ import annotations

from monai_segloss.core.card import Exempt, ReadingArgs, SegLoss, Unpack, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.kernels.pairs import adjacency
from monai_segloss.losses.boundary.neighborhood import class_view, mean_table, require_spatial, scored_maps
from monai_segloss.losses.topology.rules import BOUNDS, Pairs, apart_matrix, refuse_sigmoid, rule_of, whole_radius

TOUCH = ("labels_3d", "labels_2d", "five_classes", "ignored")


@register(
    "non_adjacency",
    aliases=("nonadj",),
    tags=("anatomy", "adjacency"),
    support=("labels", "soft labels", "ignore", "2-D", "3-D"),
    exempt={
        "perfect_prediction_is_the_minimum": Exempt("without a rule it is always 0", ("two_classes",)),
        "perfect_prediction_is_zero": Exempt("classes of the label touch that must not", TOUCH),
    },
)
class NonAdjacencyLoss(SegLoss):
    r"""Probability that two classes touch which never touch in anatomy.

    Formula: \frac{1}{|F|} \sum_{(a, b) \in F} \frac{1}{N} \sum_i p_{ia} \frac{1}{(2r + 1)^d} \sum_{j \in \Omega_i} p_{jb}

    When: Many classes whose neighbors are known, alongside dice_ce, with a weight of 10 to 1000 from 0 up a ramp: values
    are of the size of surface over volume. It asks for no label, so that images without one train it too.

    F are the pairs that must not touch, in both orders; Omega_i is the box of r voxels to each side. The mean runs over
    the voxels of a sample, then over samples. Beyond the image and at ignored voxels there is nothing, and an axis of
    one voxel is none. With the voxel itself in its box, doubt between two such classes costs too. One class per voxel only.

    Args:
        forbidden: pairs of classes, as [[1, 2], [1, 3]], or the file of ``segloss prior adjacency``, which counts contacts
            in the training labels within the same radius; None: every two foreground classes.
        radius: r, in voxels.
        include_center: whether a voxel lies in its own box; else the mean runs over the others.

    Raises:
        ValueError: ``sigmoid=True``; a class without a channel; a file of another radius or of other classes.

    Example:
        >>> import torch
        >>> from monai_segloss import NonAdjacencyLoss
        >>> p = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]])
        >>> loss = NonAdjacencyLoss(forbidden=[[0, 1]])
        >>> round(loss(p, p).item() * 4 * 3, 4)  # one contact, of 4 voxels with boxes of 3
        1.0

    Reference: Ganaye, Sdika, Triggs & Benoit-Cattin, Removing segmentation inconsistencies with semi-supervised
    non-adjacency constraint, Medical Image Analysis 2019, openreview:UIl2gLDfwJE.
    """

    formula_arguments = ()
    bounds = BOUNDS

    def __init__(
        self,
        *,
        forbidden: Pairs | str | None = None,
        radius: int = 1,
        include_center: bool = True,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(**reading)
        refuse_sigmoid(self.reader.sigmoid)
        self.radius, self.include_center = whole_radius(radius), bool(include_center)
        self.rule = None if forbidden is None else rule_of(forbidden, self.radius)
        cases = () if self.rule is None else self.rule.cases
        self.from_labels = {"forbidden": (cases, "adjacency")} if cases else {}

    def loss(self, batch: SegBatch) -> Unreduced:
        require_spatial(batch)
        batch = batch.full_precision
        forbidden = apart_matrix(None, self.rule, batch.classes, batch.logits.device)
        p, _ = scored_maps(batch, class_view(batch, True))
        touching = adjacency(p, self.radius, self.include_center) * forbidden
        contacts = touching.sum((1, 2)) / forbidden.sum().clamp_min(1)
        return mean_table(contacts[:, None], batch)
