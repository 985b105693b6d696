from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, Weight, non_negative, register
from monai_segloss.core.exact import widest_dtype
from monai_segloss.core.formula import Counts, MapSpec, SegBatch, Stat, Unreduced
from monai_segloss.kernels.components import Segments
from monai_segloss.losses.boundary.neighborhood import require_spatial
from monai_segloss.losses.instance.instances import components, connectivity, first_class, refuse_fractions
from monai_segloss.losses.instance.weighted_statistics import weighted_statistics
from monai_segloss.losses.region.tversky import tversky


@register(
    "component_tversky",
    tags=("instances", "lesions", "imbalance", "overlap", "recall"),
    support=("labels", "regions", "ignore", "2-D", "3-D"),
    exempt={"compiles": "components are found on the CPU, by connected-components-3d or SciPy"},
)
class ComponentTverskyLoss(SegLoss):
    r"""Tversky loss in which a voxel of a component weighs one by the size of the component.

    Formula: 1 - \frac{TP + s_n}{TP + \alpha FP + \beta FN + s_d},\quad TP = \sum_i w_i p_i g_i,\quad w_i =
    \frac{1}{|C(i)| + a},\quad w_i = b\ \text{in the background}

    When: Many lesions of unequal size, alongside a loss of all voxels: recipe catmil. A component of any size weighs
    about 1, but a false positive b per voxel: the smaller a patient's lesions, the less it costs next to them.

    FP = sum w p (1 - g) and FN = sum w (1 - p) g. Each class is taken against the rest; with one class per voxel the
    background (channel 0) has no components. The mean runs over the (sample, class) with components. The authors take
    the union of the foreground, which for one class is the same.

    Evaluated at full resolution only: at the coarser scales of deep supervision, where sizes mean something else, it
    is 0. A keyword of the call takes precomputed ids: ``components_faces``, or ``components`` with ``faces=False``,
    see `BlobLoss`.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        offset: a, in voxels, which keeps components of a few voxels, perhaps noise, from weighing all.
        background: b, weight of a voxel outside of the class.
        faces: only voxels that share a face are connected, as published; else diagonal neighbors too.
        batch: sum over the components of the batch, and of all processes.
        weight: one factor per class, background included.

    Raises:
        ValueError: a target of fractions; ids that are no whole numbers, or 0 inside of a class.

    Example:
        >>> import torch
        >>> from monai_segloss import ComponentTverskyLoss
        >>> loss = ComponentTverskyLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[1, 0, 1, 1]]])).item(), 4)
        0.414

    Reference: Luu et al., CATMIL, 2026, arXiv:2604.08015.
    """

    accepts = ("components",)
    tells_scales_apart = True

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        offset: float = 5.0,
        background: float = 0.01,
        faces: bool = True,
        batch: bool = False,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        weight: Weight | None = None,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(batch=batch, smooth_nr=smooth_nr, smooth_dr=smooth_dr, weight=weight, **reading)
        self.alpha, self.beta = non_negative(alpha=alpha, beta=beta)
        self.offset, self.background = non_negative(offset=offset, background=background)
        self.map = connectivity(faces)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.map,)

    def loss(self, batch: SegBatch) -> Unreduced:
        require_spatial(batch)
        refuse_fractions(batch)
        if not batch.full_resolution:
            return batch.nothing()
        batch, first = batch.full_precision, first_class(batch)
        view, weight = batch.class_view(not first, self.batch), self.weights(batch.classes)
        w = component_weights(
            Segments.of(components(batch, self.map)), self.offset, self.background, batch.voxels.dtype
        )
        tp, fp, fn = weighted_statistics(("tp", "fp", "fn"), view, w)
        table = tversky(Counts(tp, fp, fn, view.voxel_count), self.alpha, self.beta, self.smooth_nr, self.smooth_dr)
        return Unreduced.table(table, view.sums(Stat("g"))[0], view.foreground(weight))


def component_weights(segments: Segments, offset: float, background: float, dtype: torch.dtype) -> Tensor:
    """1 / (size + offset) in a component, ``background`` outside, (B, C', *S)."""
    sizes = segments.sizes.to(widest_dtype(segments.owner.device))
    values = torch.cat((1 / (sizes + offset), sizes.new_full((1,), background)))  # where the number -1 leads
    values = values.to(dtype)
    return torch.stack([values[number] for number in segments.number])
