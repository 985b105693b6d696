"""A stand-alone bundle for one loss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from monai_segloss import LossConfig, LossInfo
from monai_segloss.bundle.metadata import BundleMetadata
from monai_segloss.bundle.overlays import KEYS, component, infos, write_overlays
from monai_segloss.bundle.paths import bundle_path
from monai_segloss.files import atomic, write_json


def copy_bundle(folder: Path, source: Path, config: LossConfig | None = None) -> Path:
    """Copy a bundle without what its trainings wrote; with ``config`` the copy knows this one loss only.

    Without ``config`` the copy has an overlay of every loss in ``configs/losses``.  With ``config`` it is a bundle of its
    own: the loss is written out in ``train.json``, ``metadata.json`` and ``docs/README.md`` tell what it trains with and
    cite the source.

    Args:
        folder: new folder.
        source: a bundle of this installation.
        config: the loss of a stand-alone bundle.

    Raises:
        FileExistsError: ``folder`` exists.
        ValueError, TypeError: the loss cannot be built.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; name a new folder.")
    loss = None if config is None else component(config)
    left_out = shutil.ignore_patterns("*.pt", "*.ts", "eval", "predictions", "__pycache__")
    with atomic(folder) as part:
        shutil.copytree(source, part, ignore=left_out)
        if config is None:
            write_overlays(part / "configs" / "losses")
        else:
            _specialize(part, config, loss)
    return folder


def make_bundle(folder: Path, config: LossConfig, name: str | None = None) -> Path:
    """A stand-alone bundle for one loss, or one sum, see `copy_bundle`; ``name`` is the bundle it is made from.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from monai_segloss import LossConfig
        >>> from monai_segloss.bundle import make_bundle
        >>> with tempfile.TemporaryDirectory() as work:
        ...     made = make_bundle(Path(work) / "mine", LossConfig(loss="dice"))
        ...     json.loads((made / "configs" / "train.json").read_text())["loss"]["_target_"]
        'monai_segloss.DiceLoss'
    """
    return copy_bundle(folder, bundle_path() if name is None else bundle_path(name), config)


def _specialize(folder: Path, config: LossConfig, loss: dict[str, Any] | None) -> None:
    configs, named = folder / "configs", infos(config)
    train = json.loads((configs / "train.json").read_text(encoding="utf-8"))
    own = {name: value for name, value in train.items() if name not in KEYS}
    write_json(configs / "train.json", {**own, "loss": loss})
    metadata = json.loads((configs / "metadata.json").read_text(encoding="utf-8"))
    metadata = {**metadata, **_about(metadata, named)}
    BundleMetadata.model_validate(metadata)
    write_json(configs / "metadata.json", metadata)
    (folder / "docs" / "README.md").write_text(_readme(metadata, named, loss), encoding="utf-8")


def _about(metadata: dict[str, Any], named: dict[str, LossInfo]) -> dict[str, Any]:
    """What the metadata of the copy says otherwise."""
    sources = [f"{info.paper}" for info in named.values()]
    return {
        "name": f"Segmentation with {_title(named)}",
        "description": f"{metadata['task']}, trained with {_title(named)}: "
        f"{' '.join(info.summary for info in named.values())} It holds no weights: they are made by training.",
        "references": [*dict.fromkeys([*sources, *metadata.get("references", [])])],
    }


def _title(named: dict[str, LossInfo]) -> str:
    return " + ".join(named)


def _readme(metadata: dict[str, Any], named: dict[str, LossInfo], loss: dict[str, Any] | None) -> str:
    parts = [f"# {metadata['name']}", metadata["description"], "## Loss"]
    for info in named.values():
        parts += [f"**{info.key}**. {info.when}", f"$$\n{info.formula}\n$$", f"Source: {info.paper}"]
    run = "python -m monai.bundle run --config_file"
    parts += [
        "As it stands in `configs/train.json`:",
        f"```json\n{json.dumps({'loss': loss}, indent=2)}\n```",
        "## Use",
        'Needs `pip install "monai-segloss[bundle]"`. `DATA` holds a `dataset.json`: an nnU-Net raw data set or a Decathlon '
        "datalist. In this folder:",
        f"```bash\n{run} configs/train.json --dataset_dir DATA\n"
        f"{run} \"['configs/train.json','configs/evaluate.json']\" --dataset_dir DATA\n"
        f"{run} configs/inference.json --dataset_dir DATA --images_dir NEW_IMAGES\n```",
        "Training writes `models/model.pt` (best weights) and `models/last.pt` (`--resume True` goes on from it), "
        "evaluation writes tables to `eval/`, inference label maps to `predictions/`. One argument of the loss changes by, "
        f"for example, `--loss#{_argument(named)}`.",
        metadata.get("intended_use", ""),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _argument(named: dict[str, LossInfo]) -> str:
    """Some number of the loss, as on a command line."""
    if len(named) > 1:
        return f"terms#{next(iter(named))}#weight 0.5"
    (info,) = named.values()
    for name, parameter in info.parameters.items():
        if isinstance(parameter.default, float):
            return f"{name} {parameter.default:g}"
    return "reduction sum"
