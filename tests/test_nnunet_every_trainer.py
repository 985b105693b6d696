"""Every loss of the registry as an nnU-Net trainer: training, a resumed run and a prediction on a tiny data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_data import QUIET, Workspace, dataset, run

import monai_segloss
from monai_segloss import LossInfo
from monai_segloss.core.names import camel
from monai_segloss.core.whole_cases import PatchError

pytest_plugins = "nnunet_fixtures"
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:nnunetv2"), *QUIET]

LOSSES = monai_segloss.list_losses()
LABELS = [info for info in LOSSES if "labels" in info.support]
OTHER = [
    (info, kind)
    for info in LOSSES
    for kind, needs in {"regions": {"regions"}, "ignore": {"labels", "ignore"}}.items()
    if needs <= set(info.support)
]


def named(info: LossInfo, epochs: int, iterations: int) -> str:
    return f"nnUNetTrainer{camel(info.key)}_{epochs}epochs_{iterations}iterations"


def configuration(info: LossInfo) -> str:
    """One whose patches hold whole cases, for a loss about these."""
    return "tiny_whole" if info.cls(**info.example).whole_cases else "tiny"


def predict(trainer: Any, space: Workspace) -> np.ndarray:
    """The label map that nnU-Net's predictor makes of a case with the trained folder, which it reads anew."""
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), perform_everything_on_device=False)
    folder = str(Path(trainer.output_folder).parent)
    predictor.initialize_from_trained_model_folder(folder, (0,), "checkpoint_final.pth")
    image = str(space.root / "raw" / dataset("labels") / "imagesTr" / "case_03_0000.nii.gz")
    data, properties = NibabelIOWithReorient().read_images([image])
    found: np.ndarray = predictor.predict_single_npy_array(data, properties)
    return found


class Killed(BaseException):
    """What ends the training in a test."""


def train_for_an_epoch(trainer: Any) -> None:
    """Run the trainer until its second epoch begins, where it is killed."""
    start = trainer.on_train_epoch_start

    def dying() -> None:
        if trainer.current_epoch == 1:
            raise Killed
        start()

    trainer.on_train_epoch_start = dying
    with pytest.raises(Killed):
        trainer.run_training()


@pytest.mark.slow
@pytest.mark.expensive
@pytest.mark.parametrize("info", LABELS, ids=lambda info: info.key)
def test_trains_resumes_and_predicts(info: LossInfo, space: Workspace) -> None:
    name = named(info, 2, 3)
    train_for_an_epoch(space.trainer(name, configuration=configuration(info)))
    resumed = space.trainer(name, configuration=configuration(info), resume=True)
    resumed.load_checkpoint(str(Path(resumed.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 1
    run(resumed)
    for epoch in range(2):
        assert np.isfinite(resumed.logger.get_value("train_losses", epoch))
        assert np.isfinite(resumed.logger.get_value("val_losses", epoch))
    labels = predict(resumed, space)
    assert labels.shape == (24, 20, 20)
    assert set(np.unique(labels)) <= {0, 1, 2}


@pytest.mark.slow
@pytest.mark.expensive
@pytest.mark.parametrize(("info", "kind"), OTHER, ids=[f"{kind}-{info.key}" for info, kind in OTHER])
def test_regions_and_ignored_labels(info: LossInfo, kind: str, space: Workspace) -> None:
    """An epoch on every other kind of target that the loss says it supports."""
    trainer = space.trainer(named(info, 1, 2), kind, configuration(info))
    if kind == "ignore" and configuration(info) == "tiny_whole":
        with pytest.raises(PatchError, match="with an ignore label nnU-Net centers patches"):
            trainer.initialize()
        return
    run(trainer)
    assert np.isfinite(trainer.logger.get_value("train_losses", 0))
    assert np.isfinite(trainer.logger.get_value("val_losses", 0))


NOT_LABELS = [info for info in LOSSES if "labels" not in info.support]
NOT_REGIONS = [info for info in LOSSES if "regions" not in info.support]
REFUSED = [(info, "labels") for info in NOT_LABELS] + [(info, "regions") for info in NOT_REGIONS]


@pytest.mark.parametrize(("info", "kind"), REFUSED, ids=[f"{kind}-{info.key}" for info, kind in REFUSED])
def test_what_a_loss_does_not_support_is_refused_before_any_work(info: LossInfo, kind: str, space: Workspace) -> None:
    with pytest.raises((ValueError, RuntimeError), match=f"{info.key}|{info.cls.__name__}"):
        space.trainer(named(info, 1, 2), kind).initialize()
