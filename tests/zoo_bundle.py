"""A small bundle in the shape that the segmentation bundles of MONAI's model zoo share, as somebody else would write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KEYS = ["image", "label"]
ENGINE = "$monai.handlers.from_engine(['pred', 'label'])"
FIRST_LOSS = "$monai.handlers.from_engine(['loss'], first=True)"


def write(folder: Path, **changes: Any) -> Path:
    """Write the bundle; ``changes`` replace top-level keys of ``train.json``."""
    configs = folder / "configs"
    configs.mkdir(parents=True)
    (folder / "LICENSE").write_text("Apache-2.0\n")
    for name, content in {
        "train.json": {**train(), **changes},
        "multi_gpu_train.json": MULTI_GPU,
        "metadata.json": METADATA,
    }.items():
        (configs / name).write_text(json.dumps(content, indent=2))
    return folder


def train() -> dict[str, Any]:
    """One label per voxel, MONAI's trainer, everything at the customary ids."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "ckpt_dir": "$@bundle_root + '/models'",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/workspace/data",
        "images": "$sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz'))",
        "labels": "$sorted(glob.glob(@dataset_dir + '/labelsTr/*.nii.gz'))",
        "val_interval": 1,
        "epochs": 2,
        "device": "$torch.device('cpu')",
        "network_def": {
            "_target_": "UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 3,
            "channels": [4, 8],
            "strides": [2],
            "norm": "instance",
        },
        "network": "$@network_def.to(@device)",
        "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True, "squared_pred": True, "batch": True},
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.01},
        "train": {
            "deterministic_transforms": [
                {"_target_": "LoadImaged", "keys": KEYS},
                {"_target_": "EnsureChannelFirstd", "keys": KEYS},
                {"_target_": "NormalizeIntensityd", "keys": "image"},
                {"_target_": "EnsureTyped", "keys": KEYS},
            ],
            "random_transforms": [
                {"_target_": "RandSpatialCropd", "keys": KEYS, "roi_size": [16, 16, 16], "random_size": False},
                {"_target_": "RandFlipd", "keys": KEYS, "prob": 0.5, "spatial_axis": 0},
            ],
            "preprocessing": {
                "_target_": "Compose",
                "transforms": "$@train#deterministic_transforms + @train#random_transforms",
            },
            "dataset": {
                "_target_": "CacheDataset",
                "data": "$[{'image': i, 'label': l} for i, l in zip(@images[:-2], @labels[:-2])]",
                "transform": "@train#preprocessing",
                "progress": False,
                "num_workers": None,
            },
            "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 1, "shuffle": True},
            "inferer": {"_target_": "SimpleInferer"},
            "postprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                    {"_target_": "AsDiscreted", "keys": ["pred", "label"], "argmax": [True, False], "to_onehot": 3},
                ],
            },
            "handlers": [
                {
                    "_target_": "ValidationHandler",
                    "validator": "@validate#evaluator",
                    "epoch_level": True,
                    "interval": "@val_interval",
                },
                {"_target_": "StatsHandler", "tag_name": "train_loss", "output_transform": FIRST_LOSS},
                {
                    "_target_": "TensorBoardStatsHandler",
                    "log_dir": "@output_dir",
                    "tag_name": "train_loss",
                    "output_transform": FIRST_LOSS,
                },
            ],
            "key_metric": {"train_dice": {"_target_": "MeanDice", "output_transform": ENGINE}},
            "trainer": {
                "_target_": "SupervisedTrainer",
                "max_epochs": "@epochs",
                "device": "@device",
                "train_data_loader": "@train#dataloader",
                "network": "@network",
                "loss_function": "@loss",
                "optimizer": "@optimizer",
                "inferer": "@train#inferer",
                "postprocessing": "@train#postprocessing",
                "key_train_metric": "@train#key_metric",
                "train_handlers": "@train#handlers",
            },
        },
        "validate": {
            "preprocessing": {"_target_": "Compose", "transforms": "%train#deterministic_transforms"},
            "dataset": {
                "_target_": "Dataset",
                "data": "$[{'image': i, 'label': l} for i, l in zip(@images[-2:], @labels[-2:])]",
                "transform": "@validate#preprocessing",
            },
            "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset", "batch_size": 1},
            "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16]},
            "postprocessing": "%train#postprocessing",
            "handlers": [
                {"_target_": "StatsHandler", "iteration_log": False},
                {
                    "_target_": "CheckpointSaver",
                    "save_dir": "@ckpt_dir",
                    "save_dict": {"model": "@network"},
                    "save_key_metric": True,
                    "key_metric_filename": "model.pt",
                },
            ],
            "key_metric": {"val_dice": {"_target_": "MeanDice", "output_transform": ENGINE}},
            "evaluator": {
                "_target_": "SupervisedEvaluator",
                "device": "@device",
                "val_data_loader": "@validate#dataloader",
                "network": "@network",
                "inferer": "@validate#inferer",
                "postprocessing": "@validate#postprocessing",
                "key_val_metric": "@validate#key_metric",
                "val_handlers": "@validate#handlers",
            },
        },
        "initialize": ["$monai.utils.set_determinism(seed=123)"],
        "run": ["$@train#trainer.run()"],
    }


MULTI_GPU = {
    "network": {"_target_": "torch.nn.parallel.DistributedDataParallel", "module": "$@network_def.to(@device)"},
    "train#sampler": {"_target_": "DistributedSampler", "dataset": "@train#dataset", "even_divisible": True},
    "train#dataloader#sampler": "@train#sampler",
    "train#dataloader#shuffle": False,
    "train#trainer#train_handlers": "$@train#handlers[: -2 if dist.get_rank() > 0 else None]",
    "validate#sampler": {
        "_target_": "DistributedSampler",
        "dataset": "@validate#dataset",
        "even_divisible": False,
        "shuffle": False,
    },
    "validate#dataloader#sampler": "@validate#sampler",
    "validate#evaluator#val_handlers": "$None if dist.get_rank() > 0 else @validate#handlers",
    "initialize": [
        "$import torch.distributed as dist",
        "$dist.is_initialized() or dist.init_process_group(backend='gloo')",
        "$monai.utils.set_determinism(seed=123)",
    ],
    "finalize": ["$dist.is_initialized() and dist.destroy_process_group()"],
}

_SIZE: dict[str, Any] = {"spatial_shape": [16, 16, 16], "dtype": "float32", "value_range": [0, 1]}
METADATA = {
    "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
    "version": "0.1.0",
    "changelog": {"0.1.0": "first"},
    "monai_version": "1.5.0",
    "pytorch_version": "2.6.0",
    "numpy_version": "1.26.0",
    "required_packages_version": {"nibabel": "5.0.0", "pytorch-ignite": "0.5.0"},
    "task": "two shapes",
    "description": "a bundle of somebody else",
    "authors": "somebody else",
    "copyright": "somebody else",
    "network_data_format": {
        "inputs": {"image": {"type": "image", "format": "magnitude", "num_channels": 1, **_SIZE}},
        "outputs": {"pred": {"type": "image", "format": "segmentation", "num_channels": 3, **_SIZE}},
    },
}
