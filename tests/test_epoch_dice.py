"""`adaptive_t_vmf_dice`: its similarity in closed form, and the Dice coefficient of the last epoch that it follows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nnunet_data import QUIET, Workspace, run
from torch import Tensor

import monai_segloss
from monai_segloss.testing import cases
from monai_segloss.testing.harness import assert_close, value

pytest_plugins = "nnunet_fixtures"
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:nnunetv2"), *QUIET]

LABEL = torch.tensor([[[0, 0, 1, 1, 2, 2]]])
READING: dict[str, Any] = {"softmax": True, "to_onehot_y": True}


def predicted(*labels: int) -> Tensor:
    """Sure logits of these labels."""
    return 40.0 * torch.nn.functional.one_hot(torch.tensor([labels]), 3).movedim(-1, 1).double()


def trained(loss: Any, logits: Tensor, label: Tensor = LABEL, **call: Any) -> float:
    return float(loss(logits.requires_grad_(), label, **call).detach())


def validated(loss: Any, logits: Tensor) -> float:
    with torch.no_grad():
        return float(loss(logits, LABEL))


def create(**arguments: Any) -> Any:
    return monai_segloss.create("adaptive_t_vmf_dice", **READING, **arguments)


RIGHT, HALF = (0, 0, 1, 1, 2, 2), (0, 0, 1, 0, 0, 0)
"""HALF has a Dice of 4/7, 2/3 and 0."""


def test_the_first_epoch_is_the_cosine_and_later_ones_are_sharper() -> None:
    """cos = 2 / sqrt(5 * 2), 1 / sqrt(2) and 0 of the classes."""
    loss, cosines = create(), torch.tensor([0.4**0.5, 0.5**0.5, 0.0], dtype=torch.float64)
    assert trained(loss, predicted(*HALF)) == pytest.approx(float(((1 - cosines) ** 2).mean()), rel=1e-5)
    loss.set_epoch(1)
    kappa = 32 * torch.tensor([4 / 7, 2 / 3, 0.0], dtype=torch.float64)
    assert_close(loss.kappa, kappa, "kappa")
    s = (1 + cosines) / (1 + kappa * (1 - cosines)) - 1
    assert trained(loss, predicted(*HALF)) == pytest.approx(float(((1 - s) ** 2).mean()), rel=1e-5)


def test_validation_comes_before_training() -> None:
    loss = create(scale=1.0)
    trained(loss, predicted(*RIGHT))
    validated(loss, predicted(*HALF))
    loss.set_epoch(1)
    assert loss.kappa.tolist() == pytest.approx([4 / 7, 2 / 3, 0])
    trained(loss, predicted(*RIGHT))
    loss.set_epoch(2)
    assert loss.kappa.tolist() == [1, 1, 1], "no validation: the Dice of training"
    loss.set_epoch(3)
    assert loss.kappa.tolist() == [1, 1, 1], "nothing was counted"
    loss.set_epoch(0)
    assert trained(loss, predicted(*HALF)) == pytest.approx(trained(create(), predicted(*HALF)))


def test_a_class_that_is_nowhere_keeps_its_kappa() -> None:
    loss = create(scale=1.0)
    trained(loss, predicted(*RIGHT))
    loss.set_epoch(1)
    trained(loss, predicted(0, 0, 0, 0, 1, 1), torch.tensor([[[0, 0, 0, 1, 1, 1]]]))
    loss.set_epoch(2)
    assert loss.kappa.tolist() == pytest.approx([6 / 7, 4 / 5, 1])


def test_what_is_not_counted() -> None:
    """Ignored voxels, coarser scales, training calls in evaluation mode, transforms of torch.func."""
    loss = create(scale=1.0)
    trained(loss, predicted(0, 0, 1, 1, 2, 0), mask=torch.tensor([[[1, 1, 1, 1, 1, 0]]]))
    trained(loss, predicted(*HALF), full_resolution=False)
    trained(loss.eval(), predicted(*HALF))
    loss.train()
    torch.func.grad(lambda z: loss(z, LABEL))(predicted(*HALF))
    loss.set_epoch(1)
    assert loss.kappa.tolist() == [1, 1, 1]


def test_regions_are_counted_above_one_half() -> None:
    loss = monai_segloss.create("adaptive_t_vmf_dice", scale=1.0, sigmoid=True)
    logits = torch.tensor([[[1.0, 1, -1, -1], [1, 1, 1, 1]]])
    trained(loss, logits, torch.tensor([[[1.0, 0, 0, 0], [1, 1, 1, 1]]]))
    loss.set_epoch(1)
    assert loss.kappa.tolist() == pytest.approx([2 / 3, 1])


def test_a_checkpoint_in_the_middle_of_an_epoch_goes_on() -> None:
    loss = create()
    trained(loss, predicted(*RIGHT))
    loss.set_epoch(1)
    validated(loss, predicted(*HALF))
    other = create()
    other.load_state_dict(loss.state_dict())
    for each in (loss, other):
        each.set_epoch(2)
    assert torch.equal(other.kappa, loss.kappa)
    assert trained(other, predicted(*HALF)) == trained(loss, predicted(*HALF))


def test_a_sum_tells_its_terms_the_epoch() -> None:
    loss: Any = monai_segloss.WeightedSum({"adaptive_t_vmf_dice": 1, "cross_entropy": 1}, **READING)
    trained(loss, predicted(*RIGHT))
    loss.set_epoch(1)
    assert loss.terms["adaptive_t_vmf_dice"].kappa.tolist() == [32, 32, 32]


def test_other_channels_than_before_are_refused() -> None:
    loss = create()
    trained(loss, predicted(*RIGHT))
    with pytest.raises(ValueError, match="input has 4 channels, but the counts so far are of 3"):
        loss(torch.zeros(1, 4, 6), LABEL)


def test_small_losses_keep_their_digits_and_nothing_is_no_success() -> None:
    g = torch.tensor([[[1.0, 0, 0, 0]]], dtype=torch.float64)
    near = torch.tensor([[[1.0, 1e-3, 0, 0]]])
    loss = monai_segloss.create("adaptive_t_vmf_dice")
    exact = (1 - 1 / (1 + 1e-6) ** 0.5) ** 2
    assert float(loss(near.double(), g)) == pytest.approx(exact, rel=1e-4)
    assert float(loss(torch.zeros_like(g), g)) == 1


def test_an_absent_class_leaves_the_mean() -> None:
    case = cases.get("empty_class")
    loss = monai_segloss.create("adaptive_t_vmf_dice", **case.reading, reduction="none")
    table = value(loss, case)[..., 0, 0, 0]
    there = case.onehot().flatten(2).any(2)
    assert not table[~there].any()
    mean = value(monai_segloss.create("adaptive_t_vmf_dice", **case.reading), case)
    assert_close(mean, table[there].mean(), "mean")


@pytest.mark.slow
def test_in_nnunet_it_is_the_pseudo_dice_of_the_last_validation(space: Workspace) -> None:
    trainer = run(space.trainer("nnUNetTrainerAdaptiveTvMFDice_2epochs_2iterations"))
    dice = torch.tensor(trainer.logger.get_value("dice_per_class_or_region", 0), dtype=torch.float64)
    kappa = trainer.loss.loss.kappa
    assert len(kappa) == len(dice) + 1
    assert_close(kappa[1:], 32 * dice.nan_to_num(), "foreground")
    saved = torch.load(f"{trainer.output_folder}/checkpoint_final.pth", map_location="cpu", weights_only=False)
    assert torch.equal(saved["segloss"]["loss_state"]["loss.epoch_dice.dice"], kappa / 32)
