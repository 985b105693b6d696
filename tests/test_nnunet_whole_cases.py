"""Losses about whole cases under nnU-Net: refused on smaller patches, and trained on cases as they lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_data import QUIET, Workspace, add_configurations

from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.whole_cases import PatchError

pytest_plugins = "nnunet_fixtures"
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:nnunetv2"), *QUIET]

WHOLE, BOUNDS = [32, 24, 24], [500.0, 1500.0]
SIZES = {"loss": "size_penalty", "arguments": {"bounds": BOUNDS}}


def trainer(
    space: Workspace,
    loss: dict[str, Any],
    patch: Sequence[int] | None = None,
    kind: str = "labels",
    parent: str = "tiny",
) -> Any:
    """A trainer of a plan with a loss."""
    sizes = {} if patch is None else {"patch_size": list(patch)}
    add_configurations(space.plans(kind), {"tiny_own": {"inherits_from": parent, "segloss": loss, **sizes}})
    return space.trainer("nnUNetTrainerSegLoss_1epochs_3iterations", kind, "tiny_own")


def sizes(labels: Any) -> list[int]:
    return [int((np.asarray(labels) == c).sum()) for c in (1, 2)]


def test_patches_that_are_smaller_than_the_cases_are_refused(space: Workspace) -> None:
    with pytest.raises(PatchError) as caught:
        trainer(space, SIZES).initialize()
    message = str(caught.value)
    assert "SizePenaltyLoss is about whole cases, and patches of 16 x 16 x 16 voxels" in message
    assert "the largest case, 24 x 20 x 20: add a configuration" in message
    assert "--patch-size 24,24,24" in message, "a multiple of the strides"
    assert "on_patches=true" in message
    terms = {"terms": {"dice_ce": 1, "log_barrier": {"weight": 0.1, "bounds": BOUNDS}}}
    with pytest.raises(PatchError, match="LogBarrierLoss is about whole cases"):
        trainer(space, terms).initialize()
    with pytest.raises(PatchError, match="SymmetryLoss is about whole cases"):
        space.trainer("nnUNetTrainerSymmetry_1epochs_2iterations").initialize()
    with pytest.raises(PatchError, match="BettiPriorLoss is about whole cases"):
        space.trainer("nnUNetTrainerBettiPrior_1epochs_2iterations").initialize()
    with pytest.raises(
        PatchError, match=r"16 x 16 voxels .* 24 x 20 x 20: train a 3-D configuration instead of 'tiny_own'"
    ):
        trainer(space, SIZES, parent="tiny_2d").initialize()
    with pytest.raises(PatchError, match="with an ignore label nnU-Net centers patches on annotated voxels"):
        trainer(space, SIZES, WHOLE, "ignore").initialize()


def test_patches_are_trained_where_the_loss_says_so_or_compares_labels(space: Workspace) -> None:
    for arguments in ({"bounds": BOUNDS, "on_patches": True}, {}):
        made = trainer(space, {"loss": "size_penalty", "arguments": arguments})
        made.initialize()
        rotation, *_ = made.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        assert rotation != (0.0, 0.0)
        assert made.oversample_foreground_percent > 0


def test_whole_cases_are_trained_as_they_lie(space: Workspace) -> None:
    """Every patch has all voxels of its case, also with the augmentation of the training."""
    made = trainer(space, SIZES, WHOLE)
    made.initialize()
    made.on_train_start()
    log = Path(made.log_file).read_text()
    assert "whole cases, so no rotation, no scaling and no oversampling" in log
    cases = ["case_00", "case_01", "case_02"]
    data = made.dataset_class(made.preprocessed_dataset_folder, cases)
    known = {case: sizes(data.load_case(case)[1][:]) for case in cases}
    for _ in range(6):
        batch = next(made.dataloader_train)
        for key, target in zip(batch["keys"], batch["target"][0], strict=True):
            assert sizes(target) == known[key]
    assert made.inference_allowed_mirroring_axes == (0, 1, 2)
    # a patch around a voxel of a class would begin inside of the case
    assert made.dataloader_train.data_loader.oversample_foreground_percent == 0


def test_centroids_are_not_mirrored(space: Workspace) -> None:
    loss = {"loss": "moment_constraint", "arguments": {"bounds": [-20.0, 20.0]}}
    made = trainer(space, loss, WHOLE)
    made.initialize()
    assert made.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[-1] is None
    spread = trainer(space, {**loss, "arguments": {"bounds": [0.0, 20.0], "order": 2}}, WHOLE)
    spread.initialize()
    assert spread.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[-1] == (0, 1, 2)


def test_the_trainer_hands_over_the_bounds_of_each_case(space: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "bounds.json"
    own = {f"case_{n:02d}": {"size_mm": [[10.0 * n, 20.0 * n], [0.0, 5.0 * n]]} for n in range(4)}
    file.write_text(json.dumps({"format": "segloss bounds", "by_case": own}))
    loss = {"loss": "size_penalty", "arguments": {"bounds": str(file)}}
    made = trainer(space, loss, WHOLE)
    made.initialize()
    patch = torch.zeros(2, 1, *WHOLE)
    batch = {"keys": ["case_02", "case_01"], "data": patch, "target": [patch, patch[..., ::2, ::2, ::2]]}
    made.hand_over(batch)
    for scale in made.loss.extra_inputs:
        assert scale["bounds"].tolist() == [own["case_02"]["size_mm"], own["case_01"]["size_mm"]]
    made.loss.extra_inputs = ()
    with pytest.raises(LossShapeError, match="the bounds of the cases of this batch are missing"):
        made.loss([patch] * 3, [patch] * 3)
    del own["case_03"]
    file.write_text(json.dumps({"format": "segloss bounds", "by_case": own}))
    with pytest.raises(ValueError, match="the file has none of 1 cases, the first is 'case_03'"):
        trainer(space, loss, WHOLE).initialize()


@pytest.mark.parametrize(("key", "argument"), [("size_penalty", "bounds"), ("betti_prior", "betti")])
def test_bounds_that_saw_a_validation_case_are_refused(space: Workspace, key: str, argument: str) -> None:
    from monai_segloss.checking.bounds import bounds_of_fold

    file = space.root / "bounds.json"
    for fold in (0, 1):
        splits = space.plans().parent / "splits_final.json"
        file.write_text(json.dumps(bounds_of_fold(space.root / "raw" / "Dataset001_labels", fold, splits)))
        made = trainer(space, {"terms": {"dice_ce": 1, key: {"weight": 0.1, argument: str(file)}}}, WHOLE)
        if fold:
            with pytest.raises(
                ValueError, match=rf"{argument}: its file is from case_03, which fold 0 validates; .* --fold 0`"
            ):
                made.initialize()
        else:
            made.initialize()


def test_betti_numbers_from_a_file_are_trained(space: Workspace) -> None:
    """A step on whole cases, whose labels cost nothing; on patches only where the loss says so."""
    from monai_segloss.checking.bounds import bounds_of_fold

    file = space.root / "bounds.json"
    splits = space.plans().parent / "splits_final.json"
    file.write_text(json.dumps(bounds_of_fold(space.root / "raw" / "Dataset001_labels", 0, splits)))
    loss = {"loss": "betti_prior", "arguments": {"betti": str(file)}}
    with pytest.raises(PatchError, match="BettiPriorLoss is about whole cases, and patches of 16 x 16 x 16"):
        trainer(space, loss).initialize()
    trainer(space, {**loss, "arguments": {**loss["arguments"], "on_patches": True}}).initialize()
    made = trainer(space, loss, WHOLE)
    made.initialize()
    made.on_train_start()
    batch = next(made.dataloader_train)
    found = made.train_step(dict(batch))
    assert np.isfinite(found["loss"])
    y = batch["target"][0].long()
    logits = 40.0 * torch.nn.functional.one_hot(y[:, 0], 3).movedim(-1, 1)
    term = next(each for each in made.loss.modules() if type(each).__name__ == "BettiPriorLoss")
    assert term(logits, y).item() == pytest.approx(0, abs=1e-6)
    assert term(-logits, y).item() > 0.1


@pytest.mark.slow
def test_a_training_by_command_with_bounds_from_a_file(space: Workspace) -> None:
    """Measure, plan with a larger patch, train: refused without it."""
    assert "3 training cases of fold 0" in space.run("segloss", "prior", "bounds", "1", "-o", "bounds.json")
    file = space.root / "bounds.json"
    loss = {"terms": {"dice_ce": 1, "size_penalty": {"weight": 10, "bounds": str(file)}}}
    (space.root / "loss.json").write_text(json.dumps(loss))
    plan = ("segloss", "nnunet", "plan", "1", "tiny", "sizes", "--config", "loss.json")
    train = (
        "nnUNetv2_train",
        "1",
        "tiny_sizes",
        "0",
        "-tr",
        "nnUNetTrainerSegLoss_1epochs_3iterations",
        "-device",
        "cpu",
    )
    space.run(*plan)
    assert "is about whole cases, and patches of 16 x 16 x 16" in space.run(*train, fails=True)
    refused = space.run(*plan, "--replace", "--patch-size", "25,20,20", fails=True)
    assert "takes multiples of 8, 8, 8" in refused
    space.run(*plan, "--replace", "--patch-size", "24,24,24", "--batch-size", "1")
    text = space.run(*train)
    assert "train_loss_terms" in text
    checkpoint = space.model("nnUNetTrainerSegLoss_1epochs_3iterations", configuration="tiny_sizes")
    saved = torch.load(checkpoint / "fold_0" / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    limits = next(x for name, x in saved["segloss"]["loss_state"].items() if name.endswith("limits"))
    classes = json.loads(file.read_text())["classes"]
    assert limits.tolist() == [each["size_mm"]["bounds"] for each in classes.values()]
