"""Bundles in the shapes of MONAI's model zoo: what each has otherwise than `zoo_bundle`, small enough for seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zoo_bundle
from PIL import Image

BOTH = zoo_bundle.KEYS
LOAD = {"_target_": "LoadImaged", "keys": BOTH}
FIRST = {"_target_": "EnsureChannelFirstd", "keys": BOTH}
RAS = {"_target_": "Orientationd", "keys": BOTH, "axcodes": "RAS"}
TYPED = {"_target_": "EnsureTyped", "keys": BOTH}
RANGE = {
    "_target_": "ScaleIntensityRanged",
    "keys": "image",
    "a_min": 0,
    "a_max": 250,
    "b_min": 0,
    "b_max": 1,
    "clip": True,
}
TWICE = [{"_target_": "RandFlipd", "keys": BOTH, "spatial_axis": [0], "prob": 0.5}]
TURN = {"_target_": "RandRotate90d", "keys": BOTH, "max_k": 3, "prob": 0.5}
SHIFT = {"_target_": "RandShiftIntensityd", "keys": "image", "offsets": 0.1, "prob": 0.5}
CROP = {"_target_": "RandSpatialCropd", "keys": BOTH, "roi_size": [16, 16, 16], "random_size": False}
PICK = {
    "_target_": "RandCropByPosNegLabeld",
    "keys": BOTH,
    "label_key": "label",
    "spatial_size": [16, 16, 8],
    "pos": 1,
    "neg": 1,
    "num_samples": 2,
    "image_key": "image",
    "image_threshold": 0,
}
OLD_RUN = {"training": ["$monai.utils.set_determinism(seed=123)", "$@train#trainer.run()"]}
NO_RUN = ("initialize", "run")
DICE_CE = {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True}
BATCHED = {**DICE_CE, "squared_pred": True, "batch": True}
SEGRESNET = {"_target_": "SegResNet", "in_channels": 1, "out_channels": 3, "init_filters": 8}
SEGRESNET |= {"blocks_down": [1, 1], "blocks_up": [1], "dropout_prob": 0.2}
DETERMINISTIC, RANDOM = "train#deterministic_transforms", "train#random_transforms"
SIGMOID = [
    {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
    {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
]


def spaced(*pixdim: float) -> dict[str, Any]:
    """Both resampled, the label to the nearest voxel."""
    return {"_target_": "Spacingd", "keys": BOTH, "pixdim": list(pixdim), "mode": ["bilinear", "nearest"]}


ITERATION = """
import torch
from monai.engines import Trainer
from monai.engines.utils import default_prepare_batch


class MyTrainer(Trainer):
    def __init__(self, device, max_epochs, train_data_loader, network, optimizer, loss_function, inferer, train_handlers):
        super().__init__(
            device, max_epochs, train_data_loader, prepare_batch=default_prepare_batch, handlers=train_handlers
        )
        self.network, self.optimizer, self.loss_function, self.inferer = network, optimizer, loss_function, inferer

    def _iteration(self, engine, batchdata):
        image, label = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking)
        engine.network.train()
        engine.optimizer.zero_grad()
        output = engine.network(image)
        LOSS
        loss.backward()
        engine.optimizer.step()
        return {"image": image, "label": label, "loss": loss.item()}
"""
PROMPTS = "loss = sum(engine.loss_function(output[:, [k]].float(), (label == k).float()) for k in (1, 2)) / 2"
NOISE = "loss = torch.nn.functional.l1_loss(output, torch.randn_like(output))"
NETWORK = """
from monai.networks.nets import UNet


class UNesT(UNet):
    def __init__(self, in_channels, out_channels):
        super().__init__(3, in_channels, out_channels, (4, 8), (2,), norm="instance")
"""
TRAINER_ARGUMENTS = ("max_epochs", "device", "train_data_loader", "network", "loss_function", "optimizer", "inferer")
OWN_TRAINER = {
    "_target_": "scripts.trainer.MyTrainer",
    **{name: zoo_bundle.train()["train"]["trainer"][name] for name in TRAINER_ARGUMENTS},
    "train_handlers": [
        {"_target_": "StatsHandler", "tag_name": "train_loss", "output_transform": "$lambda x: x['loss']"}
    ],
}

SEGMENTATION: Mapping[str, Mapping[str, Any]] = {
    "spleen_ct": {
        "loss": {**BATCHED, "include_background": False, "smooth_nr": 1e-05, "smooth_dr": 1e-05}
        | {"lambda_dice": 0.5, "lambda_ce": 0.5},
        DETERMINISTIC: [LOAD, FIRST, RAS, spaced(1.5, 1.5, 2.0), RANGE, TYPED],
        RANDOM: [{**PICK, "spatial_size": [8, 8, 8]}],
        "validate#inferer#roi_size": [8, 8, 8],
    },
    "swin_unetr_btcv": {
        "loss": BATCHED,
        DETERMINISTIC: [LOAD, FIRST, RAS, spaced(1.5, 1.5, 2.0), RANGE, TYPED],
        RANDOM: [{**PICK, "spatial_size": [8, 8, 8]}, *TWICE, TURN, SHIFT],
        "validate#inferer#roi_size": [8, 8, 8],
        **OLD_RUN,
    },
    "wholeBody_ct": {
        "loss": DICE_CE,
        "network_def": SEGRESNET,
        DETERMINISTIC: [
            *(LOAD, FIRST, TYPED, RAS, spaced(1.5, 1.5, 1.5)),
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True},
            {"_target_": "CropForegroundd", "keys": BOTH, "source_key": "image", "margin": 2, "k_divisible": [8, 8, 8]},
            {"_target_": "GaussianSmoothd", "keys": ["image"], "sigma": 0.4},
            {"_target_": "ScaleIntensityd", "keys": "image", "minv": -1.0, "maxv": 1.0},
        ],
        RANDOM: [{**CROP, "roi_size": [8, 8, 8]}],
        "train#dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i, 'label': l} for i, l in zip(@images[:-1], @labels[:-1])]",
            "transform": "@train#preprocessing",
        },
        "validate#inferer#roi_size": [8, 8, 8],
        **OLD_RUN,
    },
    "prostate_mri": {
        "loss": {"_target_": "DiceFocalLoss", "to_onehot_y": True, "softmax": True, "include_background": False},
        DETERMINISTIC: [
            *(LOAD, FIRST, RAS, spaced(0.5, 0.5, 0.5)),
            {"_target_": "ScaleIntensityd", "keys": "image", "minv": 0, "maxv": 1},
            {"_target_": "NormalizeIntensityd", "keys": "image"},
            TYPED,
        ],
        RANDOM: [
            {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.15, "mean": 0.1, "std": 0.25},
            {"_target_": "RandAffined", "keys": BOTH, "prob": 0.5, "rotate_range": 5, "translate_range": 5},
            {
                "_target_": "Rand3DElasticd",
                "keys": BOTH,
                "prob": 0.5,
                "magnitude_range": [0.5, 1.5],
                "sigma_range": [0.5, 1.5],
            },
            {"_target_": "RandZoomd", "keys": BOTH, "prob": 1.0, "max_zoom": 1.1, "min_zoom": 0.9},
            PICK,
        ],
        "train#dataset": {
            "_target_": "PersistentDataset",
            "data": "$[{'image': i, 'label': l} for i, l in zip(@images[:-2], @labels[:-2])]",
            "transform": "@train#preprocessing",
            "cache_dir": "$@bundle_root + '/cache'",
        },
        "validate#inferer#roi_size": [16, 16, 8],
        **OLD_RUN,
    },
    "pancreas_dints": {
        "image_key": "image",
        "label_key": "label",
        "output_classes": 3,
        "pixdim": [1, 1, 1],
        "network_def#out_channels": "@output_classes",
        "loss": {**BATCHED, "include_background": False, "smooth_nr": 1.0e-05, "smooth_dr": 1.0e-05},
        DETERMINISTIC: [
            *({**step, "keys": ["@image_key", "@label_key"]} for step in (LOAD, FIRST, RAS)),
            {**spaced(), "keys": ["@image_key", "@label_key"], "pixdim": "@pixdim"},
            {**RANGE, "keys": "@image_key"},
        ],
        RANDOM: [
            {
                "_target_": "RandCropByLabelClassesd",
                "keys": ["@image_key", "@label_key"],
                "label_key": "@label_key",
                "num_classes": "@output_classes",
                "ratios": "$[1,] * @output_classes",
                "spatial_size": [16, 16, 16],
                "num_samples": 1,
            },
            {
                "_target_": "RandRotated",
                "keys": ["@image_key", "@label_key"],
                "range_x": 0.3,
                "mode": ["bilinear", "nearest"],
                "prob": 0.5,
            },
            {
                "_target_": "RandZoomd",
                "keys": ["@image_key", "@label_key"],
                "min_zoom": 0.8,
                "max_zoom": 1.2,
                "mode": ["trilinear", "nearest"],
                "align_corners": [True, None],
                "prob": 0.5,
            },
        ],
        "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "momentum": 0.9, "lr": 0.025},
        **OLD_RUN,
    },
    "renalStructures_UNEST": {
        "network_def": {"_target_": "scripts.networks.UNesT", "in_channels": 1, "out_channels": 3},
        "loss": BATCHED,
        DETERMINISTIC: [LOAD, FIRST, RAS, spaced(1.0, 1.0, 1.0), RANGE, TYPED],
        RANDOM: [{**PICK, "spatial_size": [16, 16, 16]}, *TWICE, TURN, SHIFT],
        **OLD_RUN,
    },
    "brats_mri": {
        "data_file_base_dir": "@dataset_dir",
        "network_def": SEGRESNET,
        "loss": {"_target_": "DiceLoss", "smooth_nr": 0, "smooth_dr": 1e-05, "squared_pred": True}
        | {"to_onehot_y": False, "sigmoid": True},
        DETERMINISTIC: [
            {**LOAD, "ensure_channel_first": True},
            {"_target_": "ConvertToMultiChannelBasedOnBratsClassesd", "keys": "label"},
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
            {"_target_": "CastToTyped", "keys": "label", "dtype": "$torch.float32"},
        ],
        "train#postprocessing#transforms": SIGMOID,
        **OLD_RUN,
    },
    "endoscopic_tool": {
        "images": "$sorted(glob.glob(@dataset_dir + '/frames/*_image.png'))",
        "labels": "$[x.replace('_image', '_seg') for x in @images]",
        "network_def#spatial_dims": 2,
        "network_def#in_channels": 3,
        "network_def#out_channels": 2,
        "loss": {"_target_": "DiceFocalLoss", "include_background": False, "to_onehot_y": True}
        | {"softmax": True, "jaccard": True},
        DETERMINISTIC: [
            LOAD,
            {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": -1},
            {"_target_": "EnsureChannelFirstd", "keys": "label", "channel_dim": "no_channel"},
            {"_target_": "Resized", "keys": BOTH, "spatial_size": [24, 16], "mode": ["bilinear", "nearest"]},
            {"_target_": "ScaleIntensityd", "keys": BOTH},
        ],
        RANDOM: [
            {
                "_target_": "RandRotated",
                "keys": BOTH,
                "range_x": 3.1415926,
                "prob": 0.8,
                "mode": ["bilinear", "nearest"],
            },
            {"_target_": "RandZoomd", "keys": BOTH, "min_zoom": 0.8, "max_zoom": 1.2, "prob": 0.2}
            | {"mode": ["bilinear", "nearest"]},
        ],
        "train#postprocessing#transforms": [
            {"_target_": "AsDiscreted", "argmax": [True, False], "to_onehot": [2, 2], "keys": ["pred", "label"]}
        ],
        "validate#inferer": {"_target_": "SimpleInferer"},
    },
    "spleen_deepedit": {
        "label_names": {"ball": 1, "core": 2, "background": 0},
        "network_def": {
            "_target_": "DynUNet",
            "spatial_dims": 3,
            "in_channels": "$len(@label_names) + 1",
            "out_channels": "$len(@label_names)",
            "kernel_size": [3, 3, 3],
            "strides": [1, 2, 2],
            "upsample_kernel_size": [2, 2],
            "filters": [4, 8, 8],
            "norm_name": "instance",
        },
        "loss": DICE_CE,
        DETERMINISTIC: [
            LOAD,
            {"_target_": "NormalizeLabelsInDatasetd", "keys": "label", "label_names": "@label_names"},
            *(FIRST, RAS, RANGE),
        ],
        RANDOM: [
            *(*TWICE, TURN),
            {"_target_": "Resized", "keys": BOTH, "spatial_size": [16, 16, 16], "mode": ["area", "nearest"]},
            {"_target_": "FindAllValidSlicesMissingLabelsd", "keys": "label", "sids": "sids"},
            {"_target_": "AddInitialSeedPointMissingLabelsd", "keys": "label", "guidance": "guidance", "sids": "sids"},
            {
                "_target_": "AddGuidanceSignalDeepEditd",
                "keys": "image",
                "guidance": "guidance",
                "number_intensity_ch": 1,
            },
            {"_target_": "ToTensord", "keys": BOTH},
        ],
        "train#trainer#iteration_update": {
            "_target_": "Interaction",
            "deepgrow_probability": 0.0,
            "transforms": {"_target_": "Compose", "transforms": []},
            "click_probability_key": "probability",
            "train": True,
            "label_names": "@label_names",
        },
        "train#handlers": zoo_bundle.train()["train"]["handlers"][1:],
    },
    "wholeBrainSeg_UNEST": {
        "network_def": {"_target_": "scripts.networks.UNesT", "in_channels": 1, "out_channels": 3},
        "loss": BATCHED,
        DETERMINISTIC: [LOAD, FIRST, TYPED],
        RANDOM: [
            *(CROP, *TWICE, TURN),
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
        ],
        **OLD_RUN,
    },
    "vista3d": {
        "loss": {
            "_target_": "DiceCELoss",
            "include_background": True,
            "sigmoid": True,
            "smooth_dr": 1e-05,
            "smooth_nr": 0,
        }
        | {"squared_pred": True, "to_onehot_y": False},
        "resample_to_spacing": [1.5, 1.5, 1.5],
        DETERMINISTIC: [
            {**LOAD, "image_only": True, "ensure_channel_first": True},
            {"_target_": "CropForegroundd", "keys": BOTH, "source_key": "image", "margin": 10},
            *(RANGE, RAS, {**spaced(), "pixdim": "$@resample_to_spacing"}, TYPED),
            {"_target_": "SpatialPadd", "keys": BOTH, "spatial_size": [16, 16, 16], "mode": ["constant", "constant"]},
        ],
        RANDOM: [CROP, {"_target_": "ResizeWithPadOrCropd", "keys": BOTH, "spatial_size": [16, 16, 16]}],
        "train#trainer": OWN_TRAINER,
    },
}
"""Eleven that segment; a key of an id replaces what stands there."""

OTHER_TASKS: Mapping[str, Mapping[str, Any]] = {
    "mednist_reg": {
        "train#trainer#loss_function": {"_target_": "LocalNormalizedCrossCorrelationLoss", "spatial_dims": 3},
        "network_def": {"_target_": "LocalNet", "spatial_dims": 3, "in_channels": 2, "out_channels": 3}
        | {"num_channel_initial": 4, "extract_levels": [0, 1]},
    },
    "endoscopic_inbody_classification": {
        "network_def": {"_target_": "SEResNet50", "spatial_dims": 2, "in_channels": 3, "num_classes": 2},
        "loss": {"_target_": "torch.nn.CrossEntropyLoss", "reduction": "sum"},
        DETERMINISTIC: [{**LOAD, "keys": "image"}, {"_target_": "ToTensord", "keys": "label"}],
    },
    "maisi_ct_generative": {"loss": {"_target_": "torch.nn.L1Loss", "reduction": "none"}, "train#trainer": OWN_TRAINER},
}
"""Three that do not."""

SCRIPTS = {
    "vista3d": {"trainer.py": ITERATION.replace("LOSS", PROMPTS)},
    "maisi_ct_generative": {"trainer.py": ITERATION.replace("LOSS", NOISE)},
    "renalStructures_UNEST": {"networks.py": NETWORK},
    "wholeBrainSeg_UNEST": {"networks.py": NETWORK},
}


def config(name: str) -> dict[str, Any]:
    """The training configuration of a shape."""
    found = zoo_bundle.train()
    changes = {**SEGMENTATION, **OTHER_TASKS}[name]
    for id in NO_RUN if "training" in changes else ():
        del found[id]
    for id, value in json.loads(json.dumps(changes)).items():
        _put(found, id.split("#"), value)
    return found


def write(folder: Path, name: str) -> Path:
    """The bundle of a shape; the metadata is that of an older bundle."""
    bundle = zoo_bundle.write(folder / name)
    train, metadata = bundle / "configs" / "train.json", bundle / "configs" / "metadata.json"
    if name == "pancreas_dints":
        train.unlink()
        train.with_suffix(".yaml").write_text(yaml.safe_dump(config(name), sort_keys=False))
    else:
        train.write_text(json.dumps(config(name), indent=2))
    old = dict(zoo_bundle.METADATA)
    metadata.write_text(json.dumps({**old, "optional_packages_version": old.pop("required_packages_version")}))
    for file, text in SCRIPTS.get(name, {}).items():
        (bundle / "scripts").mkdir(exist_ok=True)
        (bundle / "scripts" / file).write_text(text)
    return bundle


def write_frames(dataset: Path) -> None:
    """Pictures of a square and their masks of 0 and 255, next to the volumes of a data set."""
    (dataset / "frames").mkdir()
    for number in range(4):
        mask = np.zeros((24, 20), np.uint8)
        mask[4 + number : 12 + number, 6:14] = 255
        Image.fromarray(np.stack([mask // 2 + 40] * 3, -1)).save(dataset / "frames" / f"{number}_image.png")
        Image.fromarray(mask).save(dataset / "frames" / f"{number}_seg.png")


def _put(config: Any, path: list[str], value: Any) -> None:
    *above, last = path
    for part in above:
        config = config[part]
    config[last] = value
