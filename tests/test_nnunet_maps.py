"""What reaches a loss alongside the target in nnU-Net: maps made in the workers, labeled classes of each case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_data import SHORT, Workspace, run
from torch import Tensor

from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.maps import MapSpec
from nnunet_trainers import maps, partial_labels
from nnunet_trainers.maps import Layout
from nnunet_trainers.recording import OtherConfigurationError

pytest_plugins = "nnunet_fixtures"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def size_of_class(masks: Tensor, spacing: Tensor | None, valid: Tensor | None) -> Tensor:
    """A map that says at each voxel of a class how many the class has."""
    return masks * masks.flatten(2).sum(2)[..., None, None]


def everywhere(masks: Tensor, spacing: Tensor | None, valid: Tensor | None) -> Tensor:
    """A map with a value outside of its class: the number of the class, times the first edge of a voxel."""
    assert spacing is not None
    numbers = torch.arange(1, masks.shape[1] + 1).view(1, -1, 1, 1)
    return (numbers * int(spacing[0])).expand(masks.shape)


def half(masks: Tensor, spacing: Tensor | None, valid: Tensor | None) -> Tensor:
    """A map of fractions, 0.5 where a voxel counts."""
    assert valid is not None
    return 0.5 * valid.expand(masks.shape)


OWN, ALL = MapSpec("own", size_of_class, exclusive=True), MapSpec("all", everywhere)
LABELS = torch.tensor([[[0, 1, 1], [2, 2, 2], [3, 0, 0]]], dtype=torch.int16)  # 3 is ignored


def test_labels_pack_and_split() -> None:
    layout = Layout((OWN, ALL), 2, False, False, (3.0, 1.0))
    packed = layout.pack(LABELS)
    assert packed.shape == (1 + 1 + 2, 3, 3)
    target, found = layout.split(torch.stack([packed, packed]))
    assert target.dtype == torch.int16
    assert torch.equal(target[1], LABELS)
    assert found["own"][0, 0].tolist() == [[0, 2, 2], [3, 3, 3], [0, 0, 0]]
    assert found["all"][0].flatten(1).unique(dim=1).tolist() == [[0], [3], [6]]


def test_a_batch_without_the_maps_is_refused_saying_who_left_them_out() -> None:
    with pytest.raises(LossShapeError, match=r"has 1 channels, expected 4 .* replaces get_training_transforms"):
        Layout((OWN, ALL), 2, False, False, (3.0, 1.0)).split(LABELS[None])


def test_fractions_arrive_and_know_what_is_ignored() -> None:
    layout = Layout((OWN, MapSpec("half", half)), 2, False, False, (3.0, 1.0))
    target, found = layout.split(layout.pack(LABELS)[None])
    assert torch.equal(target[0], LABELS)
    assert target.dtype == torch.int16
    assert found["half"][0, 1].tolist() == [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0.5, 0.5]]
    assert found["own"][0, 0].tolist() == [[0, 2, 2], [3, 3, 3], [0, 0, 0]]
    regions = torch.stack([LABELS[0] >= 1, LABELS[0] == 2, LABELS[0] == 3])
    layout = Layout((MapSpec("half", half),), 2, True, True, (1.0, 1.0))
    target, found = layout.split(layout.pack(regions)[None])
    assert torch.equal(target[0], regions)
    assert found["half"][0, 1].tolist() == [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0.5, 0.5]]


def test_regions_pack_and_split_without_what_is_ignored() -> None:
    regions = torch.stack([LABELS[0] >= 1, LABELS[0] == 2, LABELS[0] == 3])  # the last channel marks what to ignore
    layout = Layout((OWN,), 2, True, True, (1.0, 1.0))
    target, found = layout.split(layout.pack(regions)[None])
    assert target.dtype == torch.bool
    assert torch.equal(target[0], regions)
    assert found["own"][0, 0].tolist() == [[0, 5, 5], [5, 5, 5], [0, 0, 0]]
    assert found["own"][0, 1].tolist() == [[0, 0, 0], [3, 3, 3], [0, 0, 0]]


class Stop(BaseException):
    """What ends a training when the test has seen enough."""


def first_calls(trainer: Any) -> list[dict[str, Any]]:
    """The arguments of the loss in the first training step, by scale."""
    seen: list[dict[str, Any]] = []

    class Spy(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.accepts, self.needs = inner, inner.accepts, inner.needs

        def forward(self, output: Tensor, target: Tensor, **more: Any) -> Tensor:
            seen.append({"output": output, "target": target, **more})
            value: Tensor = self.inner(output, target, **more)
            return value

    trainer.initialize()
    trainer.loss.loss = Spy(trainer.loss.loss)
    step = trainer.train_step

    def once(batch: dict[str, Any]) -> None:
        step(batch)
        raise Stop

    trainer.train_step = once
    with pytest.raises(Stop):
        trainer.run_training()
    return seen


@pytest.mark.parametrize("kind", ["labels", "ignore", "regions", "regions_ignore"])
@pytest.mark.parametrize("name", ["Blob", "CCDiceCE"])
def test_maps_of_the_workers_are_those_that_the_loss_makes(space: Workspace, name: str, kind: str) -> None:
    """At full resolution value and gradient are the same with and without them."""
    trainer = space.trainer(f"nnUNetTrainer{name}_seed1_{SHORT}", kind)
    full, *rest = first_calls(trainer)
    keys = {spec.key for spec in trainer.loss.loss.inner.needs}
    assert keys
    assert all(keys <= set(call) for call in (full, *rest))
    loss, gradients = trainer.loss.loss.inner, []
    values = []
    for given in (full, {key: value for key, value in full.items() if key not in keys}):
        call = dict(given)
        output = call.pop("output").detach().requires_grad_()
        value = loss(output, call.pop("target"), **call)
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, output)[0])
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(gradients[0], gradients[1])


class Unsplit(Exception):
    """What ends the training in a test, in place of a step."""


def first_batch(trainer: Any) -> dict[str, Any]:
    """The first batch of a training as the loader made it."""
    found: list[dict[str, Any]] = []

    def stop(batch: dict[str, Any]) -> None:
        found.append(batch)
        raise Unsplit

    trainer.train_step = stop
    with pytest.raises(Unsplit):
        trainer.run_training()
    del trainer.train_step
    return found[0]


@pytest.mark.parametrize("kind", ["labels", "regions_ignore"])
def test_a_step_of_others_is_told_what_the_target_carries(space: Workspace, kind: str) -> None:
    """A target with maps after it has their names in the message; once handed over, the loss takes it."""
    trainer = space.trainer(f"nnUNetTrainerBlob_{SHORT}", kind)
    batch = first_batch(trainer)
    output = trainer.network(batch["data"])
    (key,) = (spec.key for spec in trainer.loss.needs)
    message = (
        rf"target has \d channels, expected \d: .* packed the map '{key}' after it; .*hand_over.*docs/how-to/nnunet"
    )
    for _ in range(2):
        with pytest.raises(LossShapeError, match=message):
            trainer.loss(output, batch["target"])
        value = trainer.loss(output, trainer.hand_over(batch)["target"])
        assert torch.isfinite(value)
    plain = [trainer.extra_inputs.layout.split(scale)[0] for scale in batch["target"]]
    assert torch.isfinite(trainer.loss(output, plain)), "without packed maps the loss makes its own"


def test_a_step_of_others_does_not_train_on_the_labeled_classes_of_another_batch(space: Workspace) -> None:
    write_labeled(space, {"*": ["ball"], "case_01": ["ball", "core"]})
    trainer = space.trainer(f"nnUNetTrainerMarginalDice_{SHORT}")
    batch = first_batch(trainer)
    output = trainer.network(batch["data"])
    trainer.loss(output, trainer.hand_over(batch)["target"])
    with pytest.raises(LossShapeError, match=r"labeled classes of this batch .* are missing; .*hand_over"):
        trainer.loss(output, batch["target"])


def test_the_online_metric_sees_the_target_alone(space: Workspace) -> None:
    trainer = run(space.trainer(f"nnUNetTrainerBlob_{SHORT}"))
    assert len(trainer.logger.get_value("dice_per_class_or_region", 0)) == 2


def write_labeled(space: Workspace, content: object) -> Path:
    path = space.plans().parent / partial_labels.FILE
    path.write_text(json.dumps(content))
    return path


def test_labeled_classes_reach_the_loss_by_case(space: Workspace) -> None:
    file = write_labeled(space, {"*": ["ball"], "case_01": ["ball", "core"]})
    trainer = space.trainer("nnUNetTrainerMarginalDice_seed1_1epochs_8iterations")
    trainer.initialize()
    assert f"labeled classes of each case: {file}" in Path(trainer.log_file).read_text()
    seen: list[tuple[str, list[bool]]] = []
    hand_over = trainer.hand_over

    def spy(batch: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = hand_over(batch)
        for scale in trainer.loss.extra_inputs:
            seen.extend(zip(batch["keys"], scale["labeled"].tolist(), strict=True))
        return result

    trainer.hand_over = spy
    run(trainer)
    rows = {"case_00": [True, True, False], "case_01": [True, True, True]}
    assert {case for case, _ in seen} >= {"case_00", "case_01"}
    assert all(row == rows["case_01" if case == "case_01" else "case_00"] for case, row in seen)
    assert np.isfinite(trainer.logger.get_value("train_losses", 0))


def test_a_run_does_not_go_on_with_other_labeled_classes(space: Workspace) -> None:
    name = f"nnUNetTrainerMarginalDice_{SHORT}"
    file = write_labeled(space, {"*": ["ball"], "case_01": ["ball", "core"]})
    run(space.trainer(name))
    file.write_text(json.dumps({"*": ["ball", "core"]}))
    with pytest.raises(OtherConfigurationError, match=rf"{partial_labels.FILE} is \"\w+\" there and"):
        space.trainer(name, fold=1).initialize()
    file.unlink()
    with pytest.raises(OtherConfigurationError, match=f"{partial_labels.FILE} is .* there and null here"):
        space.trainer(name, fold=1).initialize()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"case_00": ["ball"]}, "says nothing of 3 cases .case_01 first."),
        ({"*": ["bal"]}, "names the class 'bal'"),
        ({"*": ["ball"], "case_1": ["core"]}, "no case 'case_1'; did you mean 'case_01'"),
        ({"*": ["ball"]}, "'core' is labeled in no case"),
        ({"*": "ball"}, "must be a list of class names"),
        (["ball"], "must map cases"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_before_any_work(space: Workspace, content: object, message: str) -> None:
    write_labeled(space, content)
    with pytest.raises(partial_labels.LabeledClassesError, match=message) as caught:
        space.trainer(f"nnUNetTrainerMarginalDice_{SHORT}").initialize()
    assert partial_labels.FILE in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_losses_say_that_they_do_not_read_the_file(space: Workspace) -> None:
    write_labeled(space, {"*": ["ball", "core"]})
    trainer = space.trainer(f"nnUNetTrainerDice_{SHORT}")
    trainer.initialize()
    assert "takes every class as labeled" in Path(trainer.log_file).read_text()
    assert trainer.extra_inputs.labeled is None


def test_only_maps_of_the_cpu_are_made_in_workers() -> None:
    on_cpu = MapSpec("slow", size_of_class, on_cpu=True)
    assert maps.worker_maps([OWN, on_cpu]) == (on_cpu,)
