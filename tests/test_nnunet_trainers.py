"""Which trainers there are, how nnU-Net finds them, and the loss that each builds."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import monai_segloss
import nnunet_trainers
from monai_segloss.config import LossConfig
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.names import camel
from monai_segloss.core.recommend import Recommended
from monai_segloss.testing.stand_in import prepared
from nnunet_trainers import VARIABLE, building, discovery_dir
from nnunet_trainers.building import DatasetProperties
from nnunet_trainers.deep_supervision import NnUNetLoss
from nnunet_trainers.naming import TrainerNameError

pytest_plugins = "nnunet_fixtures"
pytestmark = pytest.mark.usefixtures("nnunet")

LOSSES = monai_segloss.list_losses()
SETTINGS = "nnUNetTrainerFocalTversky_alpha0p2_beta0p8_lr1em3_seed5_20epochs_50iterations"


def lookup(name: str) -> type:
    """What nnU-Net's commands do with the name after -tr."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    return recursive_find_trainer_class_by_name(name)


@pytest.fixture(autouse=True)
def discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, discovery_dir())


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_every_loss_has_its_trainer(info: monai_segloss.LossInfo) -> None:
    from nnunet_trainers import trainers

    name = f"nnUNetTrainer{camel(info.key)}"
    trainer = trainers.plain()[name]
    assert trainer.key == info.key
    assert trainer.__doc__ is not None
    assert trainer.__doc__.startswith(info.summary)
    assert lookup(name) is getattr(nnunet_trainers, name) is pickle.loads(pickle.dumps(trainer)) is trainer
    assert name in dir(nnunet_trainers)


def test_a_trainer_is_the_same_class_in_a_spawned_process() -> None:
    wanted = [nnunet_trainers.nnUNetTrainerDice, lookup(SETTINGS)]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert [pool.submit(same, each).result() for each in wanted] == wanted


def same(trainer: type) -> type:
    """What a worker unpickles goes back to its parent."""
    assert getattr(nnunet_trainers, trainer.__name__) is trainer
    return trainer


def test_a_misspelt_trainer_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nnUNetTrainerFocalTversy"):
        _ = nnunet_trainers.nnUNetTrainerFocalTversy
    with pytest.raises(AttributeError, match="has no attribute 'region'"):
        _ = nnunet_trainers.region


def test_no_trainer_is_without_a_loss() -> None:
    from nnunet_trainers import trainers

    keys = [trainer.key for trainer in trainers.plain().values() if trainer.key]
    assert sorted(keys) == [info.key for info in LOSSES]
    assert set(trainers.plain()) - {f"nnUNetTrainer{camel(key)}" for key in keys} == {"nnUNetTrainerSegLoss"}


def test_no_trainer_has_the_name_of_a_builtin(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunet_trainers import trainers

    monkeypatch.delenv(VARIABLE)
    for name in trainers.plain():
        with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer"):
            lookup(name)


def test_a_name_with_settings_is_one_class_that_holds_them() -> None:
    trainer: Any = lookup(SETTINGS)
    assert trainer is lookup(SETTINGS)
    assert trainer.__name__ == SETTINGS
    assert issubclass(trainer, lookup("nnUNetTrainerFocalTversky"))
    assert trainer.named_loss() == LossConfig(loss="focal_tversky", arguments={"alpha": 0.2, "beta": 0.8})
    assert (trainer.settings.lr, trainer.settings.seed) == (0.001, 5)
    assert (trainer.settings.epochs, trainer.settings.iterations) == (20, 50)
    assert pickle.loads(pickle.dumps(trainer)) is trainer


def test_neighbors_stand_in_the_name() -> None:
    trainer = lookup("nnUNetTrainerDiceCE_neighbors3_lr1em2")
    config = trainer.named_loss()
    assert config is not None
    assert config.arguments == {"neighbors": 3}
    assert building.record(config, DatasetProperties())["arguments"]["neighbors"] == 3
    assert lookup("nnUNetTrainerTversky_alpha0p3_neighbors3").named_loss()
    earlier = {"loss": "dice", "arguments": {}}  # as recorded before there was the argument
    assert building.with_defaults(earlier)["arguments"]["neighbors"] == 1
    with pytest.raises(TrainerNameError, match="neighbors must be an odd whole number"):
        nnunet_trainers.trainers.find("nnUNetTrainerDiceCE_neighbors4")


def test_a_new_process_unpickles_trainers_and_does_without_monai() -> None:
    names = [SETTINGS, "nnUNetTrainerDiceCE"]
    data = pickle.dumps([lookup(name) for name in names]).hex()
    program = f"""if True:
        import pickle, sys
        print(*[each.__name__ for each in pickle.loads(bytes.fromhex('{data}'))], "monai" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*names, "False"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("nnUNetTrainerFocalTversky_alpha0.3", "must be written 'nnUNetTrainerFocalTversky_alpha0p3'"),
        ("nnUNetTrainerFocalTversky_beta0p7_alpha0p3", "must be written 'nnUNetTrainerFocalTversky_alpha0p3_beta0p7'"),
        ("nnUNetTrainerFocalTversky_alhpa0p3", "'nnUNetTrainerFocalTversky_alpha0p3'"),
        ("nnUNetTrainerFocalTversky_alpha", "the settings are, in this order: alpha<number>"),
        ("nnUNetTrainerDiceTopK_k200", "k is a percentage"),
        ("nnUNetTrainerSegLoss_alpha0p3", "the settings are, in this order: softlabels, lr<number>, adam, seed<N>"),
    ],
)
def test_a_trainer_of_ours_with_wrong_settings_gets_one_sentence_with_the_right_ones(name: str, nearest: str) -> None:
    with pytest.raises(TrainerNameError) as caught:
        lookup(name)
    message = str(caught.value)
    assert isinstance(caught.value, RuntimeError), "as nnU-Net's own, which services catch"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert nearest in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nnUNetTrainerFocalTversy", "did you mean 'nnUNetTrainerFocalTversky'?"),
        ("nnUNetTrainerFocalTverskyLoss", "did you mean 'nnUNetTrainerFocalTversky'?"),
        ("nnUNetTrainer_FocalTversky", "did you mean 'nnUNetTrainerFocalTversky'?"),
        ("nnunettrainerdicece", "did you mean 'nnUNetTrainerDiceCE'"),
        ("nnUNetTrainerFocalTversy_alpha0p3", "did you mean 'nnUNetTrainerFocalTversky_alpha0p3'?"),
        ("focal_tversky", "did you mean 'nnUNetTrainerFocalTversky'?"),
        ("nnUNetTrainerDiceFocalLoss", "did you mean 'nnUNetTrainerDiceFocal'?"),
        ("nnUNetTrainerDiceCE_noSmooth_300epochs", ""),
        ("nnUNetTrainerDiceCE_noDA", ""),
        ("nnUNetTrainerDice__lr1em3", ""),
        ("nnUNetTrainerMine", ""),
        ("nnUNetTrainer_special", ""),
        ("Other", ""),
        ("SegLossTrainer", ""),
        ("find", ""),
        ("__path__", ""),
    ],
)
def test_a_name_that_may_be_of_others_is_left_to_nnunet(
    name: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer"):
        lookup(name)
    said = capsys.readouterr().out
    assert hint in said
    assert ("did you mean" in said) == bool(hint)


def test_every_trainer_of_nnunet_is_found_as_without_this_package() -> None:
    """Its variants have names near ours (``nnUNetTrainerDiceCELoss_noSmooth``)."""
    import importlib
    import pkgutil

    from nnunetv2.training.nnUNetTrainer import variants

    from nnunet_trainers import trainers

    names = {
        name
        for module in pkgutil.walk_packages(variants.__path__, f"{variants.__name__}.")
        for name, each in vars(importlib.import_module(module.name)).items()
        if isinstance(each, type) and name.startswith("nnUNetTrainer")
    }
    assert "nnUNetTrainerDiceCELoss_noSmooth" in names
    for name in names:
        with pytest.raises(AttributeError):
            trainers.find(name)


@pytest.mark.parametrize("name", ["nnUNetTrainerMine", "nnUNetTrainerclDice", "nnUNetTrainerDiceCE_noDA"])
def test_the_trainers_of_a_user_stay_whatever_their_names(
    name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
    (tmp_path / "mine.py").write_text(source + f"class {name}(nnUNetTrainer): ...\n")
    for folders in ([discovery_dir(), tmp_path], [tmp_path, discovery_dir()]):
        monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, folders)))
        assert lookup(name).__module__ == "mine"
        assert lookup("nnUNetTrainerDice").__module__ == "nnunet_trainers.trainers"


def test_a_wrong_name_before_the_folder_of_a_user_gets_advice_and_the_message_of_nnunet(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, os.pathsep.join([discovery_dir(), str(tmp_path)]))
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer"):
        lookup("nnUNetTrainerFocalTversy")
    assert "did you mean 'nnUNetTrainerFocalTversky'?" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer"):
        lookup("nnUNetTrainerFocalTversky_alpha0.3")
    assert "must be written 'nnUNetTrainerFocalTversky_alpha0p3'" in capsys.readouterr().out


# -- the loss of a trainer ------------------------------------------------------------------------------------------


def test_what_a_trainer_adds_to_a_loss() -> None:
    info = monai_segloss.find("tversky")
    recommended = {"alpha": 0.3, "beta": 0.7}
    assert info.recommended.resolve(batch_dice=False) == {**recommended, "include_background": False, "batch": False}
    assert info.recommended.resolve(batch_dice=True)["batch"] is True
    assert info.recommended.resolve(regions=True)["include_background"] is True
    assert monai_segloss.find("topk_cross_entropy").recommended.resolve(batch_dice=True) == {}
    assert monai_segloss.find("topk_cross_entropy").recommended == Recommended(include_background=None, batch=None)


def test_what_is_written_stands_against_what_is_added() -> None:
    config = LossConfig(loss="tversky", arguments={"alpha": 0.9, "batch": False})
    arguments = building.resolve(config, DatasetProperties(batch_dice=True)).arguments
    assert arguments == {"alpha": 0.9, "beta": 0.7, "include_background": False, "batch": False}


def test_each_term_of_a_sum_gets_what_it_takes() -> None:
    config = LossConfig.model_validate({"terms": {"dice": 1, "hard": {"loss": "topk", "weight": 0.5, "k": 5}}})
    full = building.resolve(config, DatasetProperties(batch_dice=True)).terms
    assert full == {"dice": {"weight": 1, "include_background": False, "batch": True}, "hard": config.terms["hard"]}
    loss = building.create_loss(config, DatasetProperties(ignore_label=3))
    assert torch.isfinite(loss(torch.zeros(1, 3, 4, 4), torch.randint(0, 4, (1, 1, 4, 4))))


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
@pytest.mark.parametrize(
    "data",
    [
        DatasetProperties(),
        DatasetProperties(ignore_label=3),
        DatasetProperties(regions=True),
        DatasetProperties(regions=True, ignore_label=3),
    ],
    ids=str,
)
def test_every_loss_reads_what_nnunet_sends(info: monai_segloss.LossInfo, data: DatasetProperties) -> None:
    config = LossConfig(loss=info.key)
    if ("regions" if data.regions else "labels") not in info.support:
        with pytest.raises(NotImplementedError, match=f"{info.key!r} does not support"):
            building.refuse_unsupported(config, data)
        return
    logits = torch.randn(2, 3, 4, 5, 6, requires_grad=True)
    inner = prepared(building.create_loss(config, data), logits)
    loss = NnUNetLoss(inner, [(1, 1, 1)], None, data.ignores_by_channel)
    target, ignored = nnunet_target(data)
    value = loss(logits, target)
    value.backward()
    assert logits.grad is not None
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    if "ignored_voxels_change_nothing" not in info.exempt:
        assert (logits.grad[ignored.expand_as(logits)] == 0).all()
    assert logits.grad.abs().sum() > 0


def nnunet_target(data: DatasetProperties) -> tuple[Tensor, Tensor]:
    """A target as nnU-Net's loader makes it, and the voxels that must not count."""
    labels = torch.randint(0, 3, (2, 1, 4, 5, 6), dtype=torch.int16)
    ignored = torch.rand(labels.shape) < (0 if data.ignore_label is None else 0.3)
    if data.regions:
        regions = torch.cat([labels > 0, labels > 1, labels == 1], 1) & ~ignored
        return (torch.cat([regions, ignored], 1) if data.ignore_label is not None else regions), ignored
    return torch.where(ignored, 3, labels).to(torch.int16), ignored


def test_the_record_is_plain_json_with_every_argument() -> None:
    record = building.record(
        LossConfig(loss="cross_entropy", arguments={"weight": torch.tensor([1.0, 2.0])}), DatasetProperties()
    )
    assert record["loss"] == "cross_entropy"
    assert record["arguments"]["weight"] == [1.0, 2.0]
    assert record["arguments"]["label_smoothing"] == 0.0
    assert record["data"] == {"regions": False, "ignore_label": None, "batch_dice": False, "dimensions": 3}


def test_a_loss_says_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    short = dataclasses.replace(monai_segloss.find("dice"), support=("labels", "3-D"))
    monkeypatch.setattr(building, "find", lambda key: short)
    building.refuse_unsupported(LossConfig(loss="dice"), DatasetProperties())
    with pytest.raises(NotImplementedError, match="'dice' does not support regions and 2-D and ignore"):
        building.refuse_unsupported(LossConfig(loss="dice"), DatasetProperties(True, 3, False, 2))


# -- deep supervision -----------------------------------------------------------------------------------------------


class Recorder(nn.Module):
    """A loss that keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.last: dict[str, Tensor] = {}

    def forward(self, output: Tensor, target: Tensor, mask: Tensor | None, spacing: tuple[float, ...]) -> Tensor:
        self.calls.append((output.shape[-1], target.shape, mask, spacing))
        self.last = {"part": output.mean().detach()}
        return output.mean()


def scales(*sizes: int, channels: int = 1) -> list[Tensor]:
    return [torch.full((1, channels, size), float(size)) for size in sizes]


def test_scales_are_weighed_and_those_of_weight_zero_left_out() -> None:
    inner = Recorder()
    loss = NnUNetLoss(inner, [(1.0,), (2.0,), (4.0,)], (0.75, 0.25, 0.0))
    assert loss(scales(8, 4, 2), scales(8, 4, 2)) == 0.75 * 8 + 0.25 * 4
    assert [(call[0], call[3]) for call in inner.calls] == [(8, (1.0,)), (4, (2.0,))]
    assert loss.last == {"part": 8.0}


def test_one_scale_has_weight_one_where_nnunet_divides_by_zero() -> None:
    assert NnUNetLoss(Recorder(), [(1.0,)], (float("nan"),))(scales(8), scales(8)) == 8


def test_without_deep_supervision_there_are_no_lists() -> None:
    loss = NnUNetLoss(Recorder(), [(1.0,)])
    assert loss(*scales(8), *scales(8)) == 8
    with pytest.raises(LossShapeError, match="deep supervision is off"):
        loss(scales(8), scales(8))


@pytest.mark.parametrize(("outputs", "targets"), [((8, 4), (8,)), ((8,), (8, 4)), ((8, 4, 2), (8, 4, 2))])
def test_the_number_of_scales_is_checked(outputs: tuple[int, ...], targets: tuple[int, ...]) -> None:
    loss = NnUNetLoss(Recorder(), [(1.0,), (2.0,)], (0.5, 0.5))
    with pytest.raises(LossShapeError, match=rf"2 scales: {len(outputs)} outputs and {len(targets)} targets"):
        loss(scales(*outputs), scales(*targets))
    with pytest.raises(LossShapeError, match="a tensor came"):
        loss(*scales(8), *scales(8))


def test_the_number_of_weights_is_checked() -> None:
    with pytest.raises(LossShapeError, match="2 came for 1 scales"):
        NnUNetLoss(Recorder(), [(1.0,)], (0.5, 0.5))


def test_the_last_channel_of_regions_is_what_to_ignore() -> None:
    inner = Recorder()
    target = torch.tensor([[[1, 0], [1, 1], [0, 1]]], dtype=torch.bool)
    NnUNetLoss(inner, [(1.0,)], None, ignore_channel=True)(torch.zeros(1, 2, 2), target)
    ((_, shape, mask, _),) = inner.calls
    assert shape == (1, 2, 2)
    assert mask.tolist() == [[[True, False]]]


def test_the_epoch_reaches_scheduled_weights() -> None:
    terms = {"dice": 1, "cross_entropy": {"schedule": "linear", "start": 0, "end": 1, "epochs": 4}}
    inner = building.create_loss(LossConfig.model_validate({"terms": terms}), DatasetProperties())
    loss = NnUNetLoss(inner, [(1.0, 1.0)])
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 1, 4, 4))
    values = []
    for epoch in (0, 2, 4):
        loss.set_epoch(epoch)
        values.append(loss(logits, target))
    assert values[2] - values[1] == pytest.approx(float(values[1] - values[0]), rel=1e-5)
    assert values[1] - values[0] == pytest.approx(float(loss.last["cross_entropy"]) / 2, rel=1e-5)
