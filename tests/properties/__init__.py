"""The contract: what every registered loss does, one function of the registry entry per property.

A property raises AssertionError where it does not hold. An entry for which one is honestly false names it in
`LossInfo.exempt` with the reason; the exempt property must then really fail.
"""

from __future__ import annotations

from collections.abc import Callable

from monai_segloss.core.registry import LossInfo

from . import arguments, derivatives, masking, module, reading, transforms, values

Property = Callable[[LossInfo], None]


def _always(info: LossInfo) -> bool:
    return True


# Property -> the entries it is about; for the others there is nothing to say.
SCOPE: dict[Property, Callable[[LossInfo], bool]] = {
    values.finite: _always,
    values.low_precision: _always,
    values.autocast_is_off: _always,
    values.gradcheck: _always,
    values.perfect_prediction_is_the_minimum: _always,
    values.perfect_prediction_is_zero: _always,
    values.reductions_agree: lambda info: not info.cls.scalar,
    values.scalar_reductions: lambda info: info.cls.scalar,
    values.bad_predictions_are_not_hidden: _always,
    derivatives.tensor_arguments: _always,
    derivatives.constructor_tensors: _always,
    derivatives.second_derivatives: _always,
    derivatives.nothing_hides: _always,
    transforms.functional_gradient: _always,
    transforms.inference_tensors: _always,
    transforms.vmap_is_refused: _always,
    transforms.compiles_in_parts: lambda info: "compiles" in info.exempt,
    masking.ignored_voxels_change_nothing: _always,
    masking.ignored_target_values_are_not_read: _always,
    masking.ignoring_nothing_changes_nothing: _always,
    masking.everything_ignored_gives_zero: _always,
    masking.ignored_sample_leaves_the_mean: _always,
    masking.mask_equals_ignore_index: _always,
    reading.labels_equal_onehot: _always,
    reading.label_types_and_shapes: _always,
    reading.other_act_equals_activation: _always,
    reading.probabilities_need_no_activation: _always,
    reading.logits_need_an_activation: _always,
    reading.one_channel_needs_no_onehot: _always,
    reading.batch_order: _always,
    reading.class_order: _always,
    reading.flips: _always,
    reading.slice_equals_volume: _always,
    reading.sent_maps_equal_computed_ones: lambda info: bool(info.needs),
    module.compiles: _always,
    module.copies: _always,
    module.calls_leave_no_trace: _always,
    module.docstring_example_runs: _always,
    module.names_resolve: _always,
    arguments.every_argument_matters: _always,
    arguments.reading_arguments_matter: _always,
    arguments.unknown_arguments_are_refused: _always,
    arguments.wrong_values_are_refused: _always,
    arguments.false_positives_and_negatives: lambda info: {"alpha", "beta"} <= set(info.parameters),
    arguments.bad_input_is_refused: _always,
}
PROPERTIES: dict[str, Property] = {check.__name__: check for check in SCOPE}
