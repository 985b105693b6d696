"""Where a loss differs on purpose from the loss of the same name elsewhere.  Tests and documentation read this list."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One named difference.

    Args:
        key: the registry key, or ``"*"`` for all losses.
        peer: the library and version it was seen in.
        name: short identifier that a test of the difference carries.
        theirs: what the peer does.
        ours: what we do.
    """

    key: str
    peer: str
    name: str
    theirs: str
    ours: str


MONAI = "MONAI 1.6.1"
NNUNET = "nnU-Net 2.8.1"

DIFFERENCES = (
    Difference(
        "focal",
        MONAI,
        "focal-softmax-mean",
        "With softmax the mean also divides by the number of classes, so that gamma 0 gives the cross-entropy over C.",
        "The mean over voxels; gamma 0 is the cross-entropy.",
    ),
    Difference(
        "focal",
        MONAI,
        "focal-ignore-index",
        "Passing ignore_index multiplies the loss by C, even where nothing is ignored: a sum over C channels is divided by "
        "a mask of one channel.",
        "ignore_index with nothing to ignore changes nothing.",
    ),
    Difference(
        "focal",
        MONAI,
        "focal-background",
        "include_background=False drops channel 0 of the logits before the softmax; a scalar alpha is then dropped, with a "
        "warning.",
        "The background drops after the softmax; alpha holds.",
    ),
    Difference(
        "focal",
        MONAI,
        "focal-sum",
        'reduction="sum" averages over space first.',
        "The sum over voxels.",
    ),
    Difference(
        "dice_focal",
        MONAI,
        "dice-focal-activation",
        "The focal term takes the sigmoid of the input, whatever activation the Dice term has.",
        "Both terms see the same probabilities: with softmax=True the second is the softmax form, and without an activation "
        "the input is read as probabilities.",
    ),
    Difference(
        "dice_ce",
        MONAI,
        "dice-ce-activation",
        "The cross-entropy term always takes the softmax of the input (the sigmoid for one channel), whatever activation "
        "the Dice term has.",
        "Both terms see the same probabilities: with sigmoid=True the second is binary cross-entropy per channel, and "
        "without an activation the input is read as probabilities.",
    ),
    Difference(
        "focal",
        MONAI,
        "focal-soft-targets",
        "With soft targets the sigmoid form scales the focusing logit by 2g - 1: the factor is 0.5^gamma at g = 0.5, "
        "whatever the prediction.",
        "The positive part is focused by 1 - p and the negative by p, each weighted by the target.",
    ),
    Difference(
        "dice_ce",
        MONAI,
        "dice-ce-onehot-weight",
        "Weighted cross-entropy of a one-hot target is divided by the voxels, that of labels by the sum of weights.",
        "Labels and the same one-hot target give one value.",
    ),
    Difference(
        "dice",
        MONAI,
        "dice-one-class-weight",
        "weight is ignored where one class is scored, also in DiceCELoss.",
        "It is applied.",
    ),
    Difference(
        "generalized_dice",
        MONAI,
        "generalized-dice-scale",
        "The weights 1 / G^2 enter as they are, so that the smoothing of 1e-5 rules over large structures: two classes of a "
        "million voxels each, both predicted wholly wrong, cost 0.286.",
        "The weights of a sample are divided by the largest, which gives 1; scale_free=False gives MONAI's value.",
    ),
    Difference(
        "generalized_wasserstein_dice",
        MONAI,
        "wasserstein-float64",
        "A distance matrix in float64, NumPy's default, makes the loss float64.",
        "The loss has the dtype of the probabilities, float32 for logits in float32 or half precision.",
    ),
    Difference(
        "mcc",
        MONAI,
        "mcc-absent",
        "A class that a sample has no voxel of, or no voxel outside of, enters the mean as a constant 1 without gradient, "
        "whatever is predicted.",
        "It leaves the mean.",
    ),
    Difference(
        "soft_cldice",
        MONAI,
        "cldice-pooled",
        "Space and classes of a sample are one sum: a large class hides a small one, however wrong that is.",
        "A value per class; per_class=False gives MONAI's value.",
    ),
    Difference(
        "soft_cldice",
        MONAI,
        "cldice-wide",
        "A structure that is too wide for iter_ erosions has an empty skeleton, and its sensitivity is 1 whatever is "
        "predicted, without a word.",
        "The same value, and a warning.",
    ),
    Difference(
        "nacl",
        MONAI,
        "nacl-edge",
        "Voxels beyond the edge of the image are of no class: there the logits are drawn to shares that sum to less than 1, "
        "8/27 in the corner of a volume.",
        "Shares among the voxels of the window that are in the image; zero_padding=True gives MONAI's value.",
    ),
    Difference(
        "nacl",
        MONAI,
        "nacl-gaussian",
        'kernel_ops="gaussian" takes no notice of kernel_size: the window reaches 4 sigma.',
        "A window of kernel_size voxels, sampled and normalized.",
    ),
    Difference(
        "nacl",
        MONAI,
        "nacl-ignored",
        "Labels that the cross-entropy ignores (-100) fail in the penalty.",
        "ignore_index and mask: an ignored voxel is in no window.",
    ),
    Difference(
        "unified_focal",
        MONAI,
        "unified-focal-half",
        "AsymmetricUnifiedFocalLoss (two classes, no activation) takes the mean of the cross-entropy over voxels and both "
        "channels: half of the paper's.",
        "The mean over voxels; any number of classes, and the activation that the arguments say.",
    ),
    Difference(
        "*",
        MONAI,
        "ignored-nan",
        "Ignored voxels are multiplied by 0: a NaN there makes the loss NaN.",
        "Their logits become 0 first.",
    ),
    Difference(
        "*",
        MONAI,
        "ignore-index-of-channels",
        "With a target of one channel per class, an ignore_index outside of the channels ignores voxels that are 0 in all "
        "channels.",
        "Those voxels count; send a mask to leave them out.",
    ),
    Difference(
        "*",
        MONAI,
        "none-shape",
        'reduction="none" has a shape of its own in each class.',
        "A table is (B, C, 1, ...), with batch=True (1, C, 1, ...); a map is (B, 1, *S) or (B, C, *S). Losses that are one "
        "number by nature refuse it.",
    ),
    Difference(
        "*",
        MONAI,
        "half-precision",
        "Half-precision input outside of autocast is summed in half precision: NaN, or always 1.",
        "Everything is computed in float32.",
    ),
    Difference(
        "*",
        f"{MONAI} and {NNUNET}",
        "all-ignored-sample",
        "A sample of which every voxel is ignored enters the mean as a perfect one.",
        "It leaves the mean.",
    ),
    Difference(
        "*",
        MONAI,
        "value-check",
        "Labels out of range fail in a scatter, values outside of [0, 1] or NaN in a one-hot target pass.",
        "One sentence that names the value.",
    ),
    Difference(
        "*",
        MONAI,
        "logits-as-probabilities",
        "Logits without an activation are read as probabilities, without a word.",
        "Read so too; a warning, once per loss.",
    ),
    Difference(
        "*",
        MONAI,
        "argument-check",
        "Arguments out of range pass: a negative gamma or smoothing, an alpha of 7, a distance matrix that is not 0 on its "
        "diagonal.",
        "One sentence that names the argument.",
    ),
    Difference(
        "*",
        MONAI,
        "small-losses",
        "An overlap loss is one minus a ratio, so that in float32 nothing below about 1e-7 is left of it.",
        "The complement is summed instead; small losses keep their digits.",
    ),
    Difference(
        "dice",
        NNUNET,
        "dice-sign",
        "The loss is minus the Dice coefficient.",
        "One minus the Dice coefficient: the value is larger by 1, the gradient is the same.",
    ),
    Difference(
        "topk_cross_entropy",
        NNUNET,
        "topk-ignored",
        "k percent are taken of all voxels, the ignored ones enter as zeros; fewer than 100 / k voxels give NaN.",
        "k percent of the valid voxels, at least one.",
    ),
    Difference(
        "dice_ce",
        NNUNET,
        "regions-ignore",
        "With regions and an ignore label the binary cross-entropy is summed over channels and divided by a mask of one "
        "channel: C times too large.",
        "The mean over channels and valid voxels.",
    ),
    Difference(
        "cross_entropy",
        NNUNET,
        "all-ignored",
        "Cross-entropy of a patch without a valid voxel is NaN.",
        "0, with zero gradient.",
    ),
    Difference(
        "hausdorff_dt",
        MONAI,
        "hausdorff-integer-target",
        "Distances of a target of integers are cut to whole numbers.",
        "Maps are float32 whatever the type of the target; a map of integers is refused.",
    ),
    Difference(
        "boundary",
        MONAI,
        "boundary-spacing",
        "There is no spacing: distances count voxels, and inside 1 is subtracted.",
        "Millimeters, from the argument or the metadata; inside the smallest spacing is subtracted, which is 1 at 1 mm.",
    ),
    Difference(
        "hausdorff_dt",
        MONAI,
        "hausdorff-spacing",
        "There is no spacing: distances count voxels.",
        "Millimeters, from the argument or the metadata.",
    ),
)
