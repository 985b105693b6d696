"""Bundles in the shapes of MONAI's model zoo: how they read and score stays, other tasks are refused, what runs is named."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import monai.losses
import monai.transforms
import nnunet_data
import pytest
import torch
import zoo_bundle
import zoo_shapes
from bundle_runs import ENVIRON
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from typer.testing import CliRunner

import monai_segloss
from monai_segloss import LossConfig
from monai_segloss.bundle import generic_overlay
from monai_segloss.bundle.checks import check_bundle
from monai_segloss.bundle.foreign import measures_distances
from monai_segloss.bundle.pipeline import Pipeline, run_id
from monai_segloss.bundle.stock import Stock
from monai_segloss.engine import DeepSupervision, KnownSpacing
from monai_segloss.files import write_json

LOSSES = ("dice_boundary", "cc_dice_ce", "unified_focal")
TRAINER = "train#trainer"
LABELS = {"to_onehot_y": True, "softmax": True}

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI's reminder that a configuration is code


def built(node: Any) -> Any:
    """A component as MONAI makes it."""
    return ConfigParser({"loss": node}).get_parsed_content("loss")


def overlay_for(tmp_path: Path, key: str, **changes: Any) -> Any:
    """The overlay of a loss for the plain bundle with changes of its top-level keys."""
    return generic_overlay(LossConfig(loss=key), zoo_bundle.write(tmp_path / "zoo", **changes))


def argued(key: str, name: str) -> LossConfig:
    """A loss; with weights that any trainer can use, where a bundle has a trainer of its own."""
    arguments = {"lambda_boundary": 0.01} if (key, name) == ("dice_boundary", "vista3d") else {}
    return LossConfig(loss=key, arguments=arguments)


@pytest.mark.parametrize("key", LOSSES)
@pytest.mark.parametrize("name", zoo_shapes.SEGMENTATION)
def test_every_shape_reads_and_scores_as_before(name: str, key: str, tmp_path: Path) -> None:
    bundle = zoo_shapes.write(tmp_path, name)
    found = generic_overlay(argued(key, name), bundle)
    node = found.content["loss"]
    ours = node["loss"] if node["_target_"].endswith("KnownSpacing") else node
    stock = zoo_shapes.config(name)["loss"]
    theirs = built(stock)
    scored = getattr(theirs, "dice", theirs).include_background
    for flag in ("softmax", "sigmoid", "to_onehot_y"):
        assert ours.get(flag, False) == stock.get(flag, False)
    for argument in ("squared_pred", "jaccard", "batch"):
        if argument in monai_segloss.find(key).parameters:
            assert ours.get(argument, False) == stock.get(argument, False)
    lost = [note for note in found.notes if note.startswith("include_background=False")]
    assert len(lost) == (key == "unified_focal" and not scored)
    assert ours.get("include_background", True) is (scored or bool(lost))
    assert found.run_id == ("training" if "training" in zoo_shapes.config(name) else "run")
    assert all(finding.level != "error" for finding in check_bundle(bundle, []))
    write_json(bundle / "ours.json", found.content)
    assert all(finding.level != "error" for finding in check_bundle(bundle, [bundle / "ours.json"]))
    edge, channels = (8, 8, 8)[: 2 if name == "endoscopic_tool" else 3], 2 if name == "endoscopic_tool" else 3
    label = torch.zeros(1, 1 if stock["to_onehot_y"] else channels, *edge)
    label[:, :, 2:6, 3:5] = 1
    output = torch.randn(1, channels, *edge, requires_grad=True)
    loss = built(node)
    value = loss(output, label)
    value.backward()
    assert math.isfinite(value.item())
    assert output.grad is not None
    assert output.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "DiceCELoss", **LABELS},
        {"_target_": "monai.losses.DiceCELoss", **LABELS, "include_background": False, "squared_pred": True}
        | {
            "batch": True,
            "smooth_nr": 0.0,
            "smooth_dr": 0.5,
            "lambda_dice": 0.3,
            "lambda_ce": 0.7,
            "label_smoothing": 0.1,
        },
        {"_target_": "DiceCELoss", **LABELS, "weight": "$torch.tensor([0.2, 0.3, 0.5])", "include_background": False},
        {"_target_": "DiceLoss", "sigmoid": True, "jaccard": True, "weight": [0.5, 2.0, 1.0], "reduction": "sum"},
        {"_target_": "DiceLoss", "other_act": "$torch.tanh", "squared_pred": True},
        {"_target_": "DiceFocalLoss", "to_onehot_y": True, "sigmoid": True, "gamma": 1.0, "lambda_focal": 2.0},
        {"_target_": "FocalLoss", "to_onehot_y": True},
        {"_target_": "FocalLoss", "to_onehot_y": True, "gamma": 0.5, "alpha": 0.3, "include_background": False},
        {"_target_": "TverskyLoss", **LABELS, "alpha": 0.2, "beta": 0.8, "batch": True},
        {"_target_": "GeneralizedDiceLoss", **LABELS, "w_type": "simple"},
        {"_target_": "HausdorffDTLoss", **LABELS, "alpha": 1.5},
        {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1},
        {"_target_": "torch.nn.CrossEntropyLoss", "weight": "$torch.tensor([0.2, 0.3, 0.5])"},
        "$monai.losses.DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=0)",
    ],
    ids=str,
)
def test_the_same_loss_has_the_same_value(node: Any, tmp_path: Path) -> None:
    """Whatever MONAI's loss is told, and whatever it is not: ours of the same name takes its place without a difference."""
    name = Stock.of({}, node).name  # type: ignore[union-attr]
    key = next(info.key for info in monai_segloss.list_losses() if info.cls.__name__ == name)
    found = overlay_for(tmp_path, key, loss=node)
    assert not [note for note in found.notes if "carried" in note]
    torch.manual_seed(0)
    output, label = torch.randn(2, 3, 6, 6, 6), torch.randint(0, 3, (2, 1, 6, 6, 6))
    one_hot = torch.zeros_like(output).scatter(1, label, 1.0)
    theirs = ConfigParser({"imports": ["$import monai"], "loss": node}).get_parsed_content("loss")
    reads_labels = getattr(theirs, "to_onehot_y", getattr(getattr(theirs, "dice", None), "to_onehot_y", False))
    wanted = theirs(output, label[:, 0] if "CrossEntropy" in str(node) else label if reads_labels else one_hot)
    ours = built(found.content["loss"])(output, label if found.content["loss"].get("to_onehot_y") else one_hot)
    torch.testing.assert_close(ours, wanted.float(), rtol=1e-4, atol=1e-5)


def test_references_in_a_loss_are_followed(tmp_path: Path) -> None:
    loss = {"_target_": "DiceLoss", "softmax": "@soft", "to_onehot_y": True, "include_background": "$@scored"}
    found = overlay_for(tmp_path, "dice", loss=loss, soft=True, scored="@never", never=False)
    assert (found.content["loss"]["softmax"], found.content["loss"]["include_background"]) == (True, False)


@pytest.mark.parametrize(
    ("stock", "key", "note"),
    [
        (
            {"include_background": False},
            "unified_focal",
            "include_background=False of DiceCELoss is not carried over: unified",
        ),
        (
            {"lambda_dice": 0.5},
            "dice_boundary",
            "lambda_dice=0.5 of DiceCELoss is not carried over: that of dice_boundary follows",
        ),
        (
            {"_target_": "TverskyLoss", "alpha": 0.7},
            "hausdorff_dt",
            "alpha=0.7 of TverskyLoss is not carried over: alpha means",
        ),
        (
            {"_target_": "HausdorffDTLoss"},
            "cross_entropy",
            "include_background=False of HausdorffDTLoss is not carried over",
        ),
        (
            {"include_background": False, "weight": [1, 2, 3]},
            "dice",
            "it has one number for each of all classes; set weight of",
        ),
    ],
)
def test_what_cannot_be_carried_over_is_noted(stock: dict[str, Any], key: str, note: str, tmp_path: Path) -> None:
    found = overlay_for(tmp_path, key, loss={"_target_": "DiceCELoss", **LABELS, **stock})
    assert [each for each in found.notes if note in each], found.notes
    built(found.content["loss"])


def test_what_the_user_sets_stands(tmp_path: Path) -> None:
    bundle = zoo_bundle.write(
        tmp_path / "zoo", loss={"_target_": "DiceLoss", **LABELS, "batch": True, "smooth_nr": 0.0}
    )
    terms = LossConfig(terms={"dice": {"weight": 1, "batch": False}, "focal": {"weight": 2.0}})  # type: ignore[dict-item]
    found = generic_overlay(terms, bundle).content["loss"]["terms"]
    assert found["dice"] == {"weight": 1.0, "include_background": True, "batch": False, "smooth_nr": 0.0}
    assert found["focal"] == {"weight": 2.0, "include_background": True}


def test_class_weights_go_to_a_term_under_their_own_name(tmp_path: Path) -> None:
    stock = {"_target_": "torch.nn.CrossEntropyLoss", "weight": [1.0, 2.0, 3.0]}
    bundle = zoo_bundle.write(tmp_path / "zoo", loss=stock)
    found = generic_overlay(LossConfig(terms={"cross_entropy": 0.5}), bundle).content["loss"]  # type: ignore[dict-item]
    assert found["terms"]["cross_entropy"] == {"weight": 0.5, "class_weight": [1.0, 2.0, 3.0]}
    assert built(found).terms["cross_entropy"].class_weight.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("loss", "applied", "reading"),
    [
        ({"_target_": "torch.nn.BCEWithLogitsLoss"}, "softmax", {"sigmoid": True}),
        ({"_target_": "torch.nn.BCELoss"}, "sigmoid", {}),
        ({"_target_": "torch.nn.NLLLoss"}, "softmax", LABELS),
        ({"_target_": "DiceLoss", "to_onehot_y": True}, "softmax", LABELS),
        ({"_target_": "DiceLoss"}, "sigmoid", {"sigmoid": True}),
        ({"_target_": "DiceLoss"}, None, {}),
        ({"_target_": "scripts.losses.Mine"}, "sigmoid", {"sigmoid": True}),
        ({"_target_": "scripts.losses.Mine"}, None, LABELS),
    ],
    ids=str,
)
def test_how_a_loss_reads(loss: dict[str, Any], applied: str | None, reading: dict[str, Any], tmp_path: Path) -> None:
    train = zoo_bundle.train()["train"]
    activation = {"_target_": "Activationsd", "keys": "pred", **({applied: True} if applied else {})}
    train["postprocessing"]["transforms"][0] = activation
    found = overlay_for(tmp_path, "dice", loss=loss, train=train)
    read = {
        name: value for name, value in found.content["loss"].items() if name in ("softmax", "sigmoid", "to_onehot_y")
    }
    assert read == reading
    assert bool(found.notes) is not loss["_target_"].startswith("torch.nn.")


def test_what_a_loss_of_somebody_else_states_counts(tmp_path: Path) -> None:
    own = {"_target_": "scripts.losses.MyDice", "sigmoid": True, "include_background": False, "temperature": 3}
    found = overlay_for(tmp_path, "dice", loss=own)
    assert found.content["loss"] == {
        "_target_": "monai_segloss.DiceLoss",
        "sigmoid": True,
        "include_background": False,
    }
    assert found.notes == ["temperature=3 of MyDice is not carried over: dice has no such argument."]


def test_weights_of_elements_are_no_class_weights(tmp_path: Path) -> None:
    stock = {"_target_": "torch.nn.BCEWithLogitsLoss", "weight": [[2.0]], "pos_weight": 3.0}
    found = overlay_for(tmp_path, "binary_cross_entropy", loss=stock)
    assert found.content["loss"]["pos_weight"] == 3.0
    assert "weight" not in found.content["loss"]
    again = overlay_for(tmp_path / "again", "cross_entropy", loss=stock)
    assert (
        "weight=[[2.0]] of BCEWithLogitsLoss is not carried over: it weighs elements of the batch, not classes."
        in again.notes
    )


def test_an_overlay_over_an_overlay(tmp_path: Path) -> None:
    """Our wrappers are seen through, and that for deep supervision stays."""
    deep = {
        "_target_": "monai_segloss.engine.DeepSupervision",
        "loss": {"_target_": "monai_segloss.DiceLoss", **LABELS, "include_background": False},
        "weights": [1, 0.5],
    }
    node = {"_target_": "monai_segloss.engine.KnownSpacing", "loss": deep, "spacing": [1, 1, 2]}
    found = overlay_for(tmp_path, "dice_ce", loss=node).content["loss"]
    assert (found["_target_"], found["weights"]) == ("monai_segloss.engine.DeepSupervision", [1, 0.5])
    assert found["loss"]["include_background"] is False
    wrong = {**node, "loss": {**deep, "loss": {"_target_": "monai_segloss.DiceLoss", "alpah": 1}}}
    bundle = zoo_bundle.write(tmp_path / "wrong", loss=wrong)
    assert [f for f in check_bundle(bundle, []) if f.level == "error" and "loss#loss#loss: DiceLoss() got" in f.text]


def losses_of(module: Any, also: str = "Loss") -> list[str]:
    return [name for name, cls in vars(module).items() if inspect.isclass(cls) and name.endswith(also)]


@pytest.mark.parametrize("target", [*losses_of(monai.losses), *(f"torch.nn.{name}" for name in losses_of(torch.nn))])
def test_only_losses_of_segmentations_are_replaced(target: str, tmp_path: Path) -> None:
    cls = getattr(torch.nn if target.startswith("torch.") else monai.losses, target.rpartition(".")[2])
    if "loss" in inspect.signature(cls).parameters:  # a wrapper: DeepSupervisionLoss has a test of its own
        return
    segments = "to_onehot_y" in inspect.signature(cls).parameters or target in (
        *("torch.nn.CrossEntropyLoss", "torch.nn.NLLLoss", "torch.nn.BCELoss", "torch.nn.BCEWithLogitsLoss"),
        *("NACLLoss", "GeneralizedWassersteinDiceLoss"),
    )
    if segments:
        assert overlay_for(tmp_path, "dice", loss={"_target_": target}).content["loss"]["_target_"].endswith("DiceLoss")
        return
    with pytest.raises(ValueError, match=rf"the loss at 'loss' is {cls.__name__}, which compares no segmentation"):
        overlay_for(tmp_path, "dice", loss={"_target_": target})
    assert generic_overlay(LossConfig(loss="dice"), tmp_path / "zoo", "regions").content["loss"]["sigmoid"] is True


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mednist_reg", "is LocalNormalizedCrossCorrelationLoss, which compares no segmentation with labels"),
        ("endoscopic_inbody_classification", "the network of train.json is SEResNet50, which classifies whole images"),
        (
            "maisi_ct_generative",
            "train.json never uses @loss: MyTrainer in scripts/trainer.py trains with a loss of its own",
        ),
    ],
)
def test_bundles_of_other_tasks_are_refused(name: str, why: str, tmp_path: Path) -> None:
    bundle = zoo_shapes.write(tmp_path, name)
    for key in LOSSES:
        with pytest.raises(ValueError, match=re.escape(why)):
            generic_overlay(LossConfig(loss=key), bundle)
    place = "train#trainer#loss_function" if name == "mednist_reg" else "loss"
    write_json(bundle / "mine.json", {place: {"_target_": "monai_segloss.DiceLoss", **LABELS}})
    assert [finding for finding in check_bundle(bundle, [bundle / "mine.json"]) if why in finding.text]


@pytest.mark.parametrize(
    ("network", "does"),
    [
        ("monai.networks.nets.DenseNet121", "classifies whole images"),
        ("torchvision.models.resnet50", "classifies whole images"),
        ("VoxelMorphUNet", "registers images"),
        ("AutoencoderKL", "makes images"),
        ("ViTAutoEnc", "makes images"),
    ],
)
def test_networks_of_other_tasks_are_known(network: str, does: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=f"the network of train.json is {network.rpartition('.')[2]}, which {does}: say --"
    ):
        overlay_for(tmp_path, "dice", network_def={"_target_": network})


def test_a_classifier_is_known_by_its_labels_too(tmp_path: Path) -> None:
    bundle = zoo_shapes.write(tmp_path, "endoscopic_inbody_classification")
    config = zoo_shapes.config("endoscopic_inbody_classification")
    assert generic_overlay(LossConfig(loss="dice"), bundle, "labels").content["loss"]["softmax"] is True
    config["network_def"] = {"_target_": "scripts.networks.Mine"}
    (bundle / "configs" / "train.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"train\.json loads images, but no image 'label' alongside them"):
        generic_overlay(LossConfig(loss="dice"), bundle)


def test_a_loss_that_no_trainer_has(tmp_path: Path) -> None:
    train = zoo_bundle.train()["train"]
    del train["trainer"]["loss_function"]
    with pytest.raises(ValueError, match=r"train\.json never uses @loss: no component has the key 'loss_function'"):
        overlay_for(tmp_path, "dice", train=train)


def steps(*transforms: dict[str, Any]) -> tuple[dict[str, Any], Pipeline]:
    """A configuration whose training has these transforms."""
    config = zoo_bundle.train()
    config["train"]["deterministic_transforms"] = [zoo_shapes.LOAD, *transforms]
    config["train"]["random_transforms"] = []
    return config, Pipeline.of(config, TRAINER)


SPACED = zoo_shapes.spaced(1.5, 1.5, 2.0)


@pytest.mark.parametrize(
    ("transforms", "spacing", "note"),
    [
        ([SPACED], (1.5, 1.5, 2.0), None),
        ([SPACED, zoo_shapes.TURN], (1.5, 1.5, 2.0), None),
        (
            [SPACED, {**zoo_shapes.TURN, "spatial_axes": [1, 2]}],
            None,
            "RandRotate90d at 'train#deterministic_transforms#2'",
        ),
        ([SPACED, zoo_shapes.RAS], None, "Orientationd at 'train#deterministic_transforms#2' changes the voxels"),
        ([SPACED, {"_target_": "Resized", "keys": ["label"], "spatial_size": [8, 8, 8]}], None, "Resized at"),
        ([SPACED, {"_target_": "RandZoomd", "keys": ["label"]}], (1.5, 1.5, 2.0), "RandZoomd at"),
        (
            [SPACED, {"_target_": "RandAffined", "keys": ["label"], "scale_range": 0.1}],
            (1.5, 1.5, 2.0),
            "RandAffined at",
        ),
        ([{**SPACED, "keys": "image"}], None, "no Spacingd resamples the label"),
        ([{**SPACED, "pixdim": [1.5, 0, 2]}], None, "pixdim of Spacingd at"),
        ([{**SPACED, "pixdim": "$np.ones(3)"}], None, "pixdim of Spacingd at"),
        ([], None, "no Spacingd resamples the label: distances are measured with the affine of each label"),
    ],
    ids=str,
)
def test_the_spacing_of_the_labels(transforms: list[Any], spacing: Any, note: str | None) -> None:
    config, pipeline = steps(*transforms)
    found, notes = pipeline.spacing(config, 3)
    assert found == spacing
    assert len(notes) == (note is not None)
    assert note is None or notes[0].startswith(note)


def test_a_data_set_that_forgets_the_affine_is_named(tmp_path: Path) -> None:
    train = zoo_bundle.train()["train"]
    train["dataset"] |= {"_target_": "PersistentDataset", "cache_dir": "x"}
    found = overlay_for(tmp_path, "boundary", train=train)
    assert [note for note in found.notes if "PersistentDataset keeps no affine, so that distances count voxels" in note]
    told = generic_overlay(LossConfig(loss="boundary"), tmp_path / "zoo", spacing=(0.5, 0.5, 3))
    assert told.content["loss"]["spacing"] == [0.5, 0.5, 3]
    assert not [note for note in told.notes if "affine" in note]
    with pytest.raises(ValueError, match="spacing has 2 numbers, the network 3 spatial axes; expected one number each"):
        generic_overlay(LossConfig(loss="boundary"), tmp_path / "zoo", spacing=(1, 1))
    trusted = generic_overlay(LossConfig(loss="boundary"), tmp_path / "zoo", spacing="affine")
    assert trusted.content["loss"]["_target_"] == "monai_segloss.BoundaryLoss"
    unused = generic_overlay(LossConfig(loss="dice"), tmp_path / "zoo", spacing=(1, 1, 1))
    assert "dice measures no distances: the spacing is not used." in unused.notes


def test_which_losses_measure_distances() -> None:
    for info in monai_segloss.list_losses():
        found = measures_distances(LossConfig(loss=info.key, arguments=dict(info.example)))
        assert found or not any(spec.in_mm for spec in info.needs)
        assert not (found and info.family in ("voxel", "region"))
    for key in ("contour_dice", "boundary_f1", "hausdorff_conv", "border_weighted_ce"):  # without a map in mm
        assert measures_distances(LossConfig(loss=key))


def test_a_known_spacing_stands_whatever_the_label_carries() -> None:
    torch.manual_seed(0)
    output, plain = torch.randn(1, 2, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8)
    plain[..., 2:6, 3:7, 1:5] = 1
    loss, spacing = monai_segloss.BoundaryLoss(**LABELS), (1.0, 2.0, 5.0)
    wanted = loss(output, plain, spacing=spacing)
    for label in (plain, MetaTensor(plain), MetaTensor(plain, affine=torch.diag(torch.tensor([9.0, 9, 9, 1])))):
        torch.testing.assert_close(KnownSpacing(loss, spacing)(output, label), wanted)
        torch.testing.assert_close(KnownSpacing(loss, spacing)(output, {"label": label}), wanted)
    deep, outputs = DeepSupervision(loss), [output, output[..., ::2, ::2, ::2]]
    placed = MetaTensor(plain, affine=torch.diag(torch.tensor([*spacing, 1.0])))
    torch.testing.assert_close(KnownSpacing(deep, spacing)(outputs, plain), deep(outputs, placed))
    for wrong in ((), (1.0, 0.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="spacing must be positive numbers, one per axis, got"):
            KnownSpacing(loss, wrong)


def test_a_known_spacing_hands_on_what_a_trainer_asks_for() -> None:
    loss = KnownSpacing(monai_segloss.create("dice_boundary", **LABELS, lambda_boundary="rebalance"), (1.0, 1.0))
    assert [spec.key for spec in loss.needs] == ["sdm"]
    loss.set_epoch(3)
    assert loss.loss.epoch == 3  # type: ignore[union-attr]
    loss(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4))
    assert set(loss.last) == {"dice", "boundary"}
    loss.end_epoch({"dice": 0.5, "boundary": 0.1})
    plain = KnownSpacing(monai.losses.DiceLoss(**LABELS), (1.0, 1.0))
    plain.set_epoch(1)
    assert (plain.needs, plain.last) == ((), {})


MOVING = {
    "Affined": {"rotate_params": [0.3]},
    "GridDistortiond": {"num_cells": 2, "distort_steps": [(1.2, 0.7, 1.0)] * 2},
    "Rand2DElasticd": {"spacing": [4, 4], "magnitude_range": [2, 3], "prob": 1.0},
    "RandAffined": {"rotate_range": [0.5, 0.6], "prob": 1.0},
    "RandGridDistortiond": {"prob": 1.0, "distort_limit": 0.5},
    "RandRotated": {"range_x": [0.5, 0.6], "prob": 1.0},
    "RandZoomd": {"min_zoom": 1.4, "max_zoom": 1.5, "prob": 1.0},
    "Resized": {"spatial_size": [13, 11]},
    "Rotated": {"angle": 0.5},
    "Spacingd": {"pixdim": [0.7, 0.7]},
    "Zoomd": {"zoom": 1.4},
    "RandFlipd": {"prob": 1.0},
    "RandRotate90d": {"prob": 1.0},
    "SpatialPadd": {"spatial_size": [20, 20]},
    "ResizeWithPadOrCropd": {"spatial_size": [20, 10]},
    "RandSpatialCropd": {"roi_size": [8, 8]},
}


@pytest.mark.parametrize("kind", MOVING)
@pytest.mark.filterwarnings("ignore")
def test_a_transform_is_named_where_it_makes_fractions_of_labels(kind: str) -> None:
    """By its default, and not any more with the option that the sentence gives."""
    node = {"_target_": kind, "keys": ["image", "label"], **MOVING[kind]}
    config, pipeline = steps(node)
    said = pipeline.interpolated(config)
    label = torch.zeros(1, 16, 16)
    label[:, 4:11, 3:12] = 3

    def fractions(arguments: dict[str, Any]) -> bool:
        torch.manual_seed(0)
        cls = getattr(monai.transforms, kind)
        transform = cls(**{name: value for name, value in arguments.items() if name != "_target_"})
        moved = transform({"image": MetaTensor(label), "label": MetaTensor(label)})["label"]
        return bool(((moved != 0) & (moved != 3)).any())

    assert fractions(node) is bool(said), said
    for sentence in said:
        assert sentence.startswith(f"{kind} at 'train#deterministic_transforms#1' moves 'label' with its default")
        name, value = re.search(r'set --train#deterministic_transforms#1#(\w+) "(.*)"\.', sentence).groups()  # type: ignore[union-attr]
        mended = {**node, name: json.loads(value.replace("'", '"'))}
        assert not fractions(mended)
        config, pipeline = steps(mended)
        assert pipeline.interpolated(config) == []


def test_check_sees_what_an_overlay_mends(tmp_path: Path) -> None:
    bundle = zoo_shapes.write(tmp_path, "prostate_mri")
    wrong = [finding.text for finding in check_bundle(bundle, []) if "fractions" in finding.text]
    assert [text.split(" ")[0] for text in wrong] == ["RandAffined", "Rand3DElasticd", "RandZoomd"]
    mended = {f"train#random_transforms#{index}#mode": "nearest" for index in (1, 2, 3)}
    write_json(bundle / "mended.json", mended)
    assert not [finding for finding in check_bundle(bundle, [bundle / "mended.json"]) if "fractions" in finding.text]


def test_a_reference_that_leads_nowhere_is_an_error_where_it_runs(tmp_path: Path) -> None:
    train = zoo_bundle.train()["train"]
    train["trainer"]["inferer"] = "@train#inferrer"
    bundle = zoo_bundle.write(tmp_path / "zoo", train=train, unused="@nowhere")
    wrong = [finding.text for finding in check_bundle(bundle, []) if finding.level == "error"]
    assert wrong == ["train.json: 'train#trainer#inferer' refers to the key 'train#inferrer', which is missing."]


@pytest.mark.parametrize(
    ("keys", "id"),
    [
        ({"run": ["$@train#trainer.run()"]}, "run"),
        ({"training": ["$setup()", "$@train::trainer.run()"], "run": ["$@train#trainer.run()"]}, "run"),
        ({"initialize": ["$x"], "go": "$@train#trainer.run()"}, "go"),
        ({"run": ["$@validate#evaluator.run()"]}, None),
    ],
)
def test_the_run_id(keys: dict[str, Any], id: str | None) -> None:
    assert run_id(keys, TRAINER) == id


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = nnunet_data.write_raw(tmp_path_factory.mktemp("zoo"), "labels")
    zoo_shapes.write_frames(data)
    return data


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "key", "options"),
    [
        ("swin_unetr_btcv", "dice_boundary", ()),
        pytest.param("endoscopic_tool", "cc_dice_ce", (), marks=pytest.mark.nightly),
        ("prostate_mri", "cc_dice_ce", tuple(f"--train#random_transforms#{index}#mode nearest" for index in (1, 2, 3))),
        pytest.param("vista3d", "unified_focal", (), marks=pytest.mark.nightly),
    ],
)
def test_the_printed_command_trains(
    name: str, key: str, options: tuple[str, ...], tmp_path: Path, dataset: Path
) -> None:
    from monai_segloss.cli import app

    bundle = zoo_shapes.write(tmp_path, name)
    arguments = ["bundle", "overlay", key, "--bundle", str(bundle), "-o", str(tmp_path / "ours.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    command = re.search(r"^python (-m monai.bundle run.*)$", result.output, flags=re.MULTILINE)
    assert command is not None
    settings = ["--bundle_root", bundle, "--dataset_dir", dataset, "--epochs", "1"]
    settings += [part for option in options for part in option.split()]
    done = subprocess.run(
        [sys.executable, *shlex.split(command[1]), *map(str, settings)],
        cwd=bundle,
        env={**os.environ, **ENVIRON, "PYTHONPATH": str(bundle)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "train_loss" in done.stdout
    assert "no voxel spacing came" not in done.stdout
