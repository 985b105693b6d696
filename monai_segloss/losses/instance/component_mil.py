from __future__ import annotations

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, Weight, register
from monai_segloss.core.formula import MapSpec, SegBatch, Stat, Unreduced
from monai_segloss.kernels.components import Segments
from monai_segloss.losses.boundary.neighborhood import require_spatial
from monai_segloss.losses.instance.instances import (
    components,
    connectivity,
    first_class,
    instance_table,
    refuse_fractions,
)

P_SQ = Stat("p_sq")


@register(
    "component_mil",
    aliases=("component_recall",),
    tags=("instances", "lesions", "recall", "likelihood"),
    support=("labels", "regions", "ignore", "2-D", "3-D"),
    exempt={
        "compiles": "components are found on the CPU, by connected-components-3d or SciPy",
        "shards_equal_the_batch": "under DDP each process takes the mean over its own samples and classes with components",
    },
)
class ComponentMILLoss(SegLoss):
    r"""Multiple instance learning: each component must be found by at least one of its voxels.

    Formula: \frac{1}{K} \sum_{n=1}^{K} -\log \max_{i \in C_n} p_i

    When: Lesions that must not be missed, alongside a loss of all voxels: recipe catmil. It asks for one sure voxel of
    each lesion, not for its shape, and knows no false positives.

    The mean runs over the components of a (sample, class), then over those with components. With one class per voxel
    the background (channel 0) has none. log p comes from the logits: the authors' floor of p at 1e-6 takes the gradient
    away where a lesion is surely missed. Of several voxels with the largest p the first has the gradient.

    Evaluated at full resolution only: at the coarser scales of deep supervision it is 0. A keyword of the call takes
    precomputed ids: ``components_faces``, or ``components`` with ``faces=False``, see `BlobLoss`.

    Args:
        faces: only voxels that share a face are connected, as published; else diagonal neighbors too.
        weight: one factor per class, background included.

    Raises:
        ValueError: a target of fractions; ids that are no whole numbers, or 0 inside of a class.

    Example:
        >>> import torch
        >>> from monai_segloss import ComponentMILLoss
        >>> p = torch.tensor([[[0.9, 0.2, 0.1, 0.5]]])
        >>> round(ComponentMILLoss()(p, torch.tensor([[[1.0, 1.0, 0.0, 1.0]]])).item(), 4)  # -(log 0.9 + log 0.5) / 2
        0.3993

    Reference: Luu et al., CATMIL, 2026, arXiv:2604.08015.
    """

    accepts = ("components",)
    tells_scales_apart = True

    def __init__(self, *, faces: bool = True, weight: Weight | None = None, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(weight=weight, **reading)
        self.map = connectivity(faces)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.map,)

    def loss(self, batch: SegBatch) -> Unreduced:
        require_spatial(batch)
        refuse_fractions(batch)
        if not batch.full_resolution:
            return batch.nothing()
        batch, weight = batch.full_precision, self.weights(batch.classes)
        first = first_class(batch)
        segments = Segments.of(components(batch, self.map))
        missed = -segments.largest(batch.log_prob[:, first:])
        table, there = instance_table(segments, missed, batch, weight)
        return Unreduced(table + 0 * batch.sum(P_SQ)[:, first:].detach(), there)  # what is not a number elsewhere shows
