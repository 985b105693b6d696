"""Distance maps of a real label map with many classes: against SciPy, all of them, in bounded memory."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_segloss.maps import signed_distance_map
from monai_segloss.maps.distance import MODES
from monai_segloss.transforms import SignedDistanceMap

SCHEME = 117


@pytest.fixture(scope="module")
def label(request: pytest.FixtureRequest) -> tuple[torch.Tensor, tuple[float, ...]]:
    """The label map (1, 1, *S) of the CT and its spacing, both in array axis order."""
    nibabel = pytest.importorskip("nibabel")
    data: Path = request.getfixturevalue("data")
    path = data / "abdomen_ct" / "example_seg.nii.gz"
    if not path.is_file():
        pytest.skip(f"no label map at {path}")
    image = nibabel.load(path)
    return torch.from_numpy(np.asarray(image.dataobj).astype(np.uint8))[None, None], tuple(
        map(float, image.header.get_zooms())
    )


def present(label: torch.Tensor) -> list[int]:
    return [int(c) for c in label.unique() if c]


def peak() -> int:
    """Bytes that the process has held at most."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_signed_maps_of_every_class_that_is_there(label: tuple[torch.Tensor, tuple[float, ...]]) -> None:
    """Class by class: finite, with the sign of the class, and no more memory for many classes than for a few."""
    volume, steps = label
    classes = present(volume)
    assert len(classes) > 40
    assert max(classes) <= SCHEME
    diagonal = float(np.linalg.norm(np.array(volume.shape[2:]) * steps))
    for c in classes:
        mask = volume == c
        phi = signed_distance_map(mask, torch.tensor(steps), mode="none")
        assert phi.dtype == torch.float32
        assert phi.isfinite().all(), f"class {c}"
        assert (phi[mask] < 0).all(), f"class {c}"
        assert (phi[~mask] > 0).all(), f"class {c}"
        assert float(phi.abs().max()) <= diagonal
    before = peak()
    for c in classes:
        signed_distance_map(volume == c, torch.tensor(steps), mode="none")
    grown = (peak() - before) / (4 * volume.numel())
    assert grown < 0.25 * len(classes), f"going through {len(classes)} classes again took {grown:.0f} maps more"


def test_the_whole_scheme_in_one_transform(label: tuple[torch.Tensor, tuple[float, ...]]) -> None:
    """Classes that are not there cost a map of zeros and no transform."""
    volume, steps = label
    found = SignedDistanceMap(num_classes=SCHEME + 1, spacing=steps, include_background=False)(volume[0])
    assert found.shape == (SCHEME, *volume.shape[2:])
    there = present(volume)
    absent = [c for c in range(1, SCHEME + 1) if c not in there]
    assert not found[[c - 1 for c in absent]].any()
    assert found.isfinite().all()
    for c in there[::8]:
        torch.testing.assert_close(found[c - 1], signed_distance_map(volume == c, torch.tensor(steps))[0, 0])


@pytest.mark.parametrize("mode", MODES)
def test_some_classes_against_scipy(label: tuple[torch.Tensor, tuple[float, ...]], mode: str) -> None:
    """The largest, the smallest and one between, at the spacing of the file and at one with three different edges."""
    volume, steps = label
    sizes = {c: int((volume == c).sum()) for c in present(volume)}
    ranked = sorted(sizes, key=lambda c: sizes[c])
    for c in (ranked[0], ranked[len(ranked) // 2], ranked[-1]):
        for spacing in (steps, (0.7, 1.0, 5.0)):
            mask = (volume == c).numpy()[0, 0]
            found = signed_distance_map(volume == c, torch.tensor(spacing), mode=mode)[0, 0].numpy()
            np.testing.assert_allclose(found, by_scipy(mask, spacing, mode), rtol=1e-5, atol=1e-4, err_msg=f"class {c}")


def by_scipy(mask: np.ndarray, spacing: tuple[float, ...], mode: str) -> np.ndarray:
    """The table of modes, by SciPy's distance transform and erosion; what is beyond the image is no outside."""
    if mode == "surface":  # a grid twice as fine, on which faces are points
        fine = np.zeros([2 * n + 1 for n in mask.shape], dtype=int)
        fine[1::2, 1::2, 1::2] = 1 + mask
        boxes = [ndimage.grey_dilation(np.where(fine == side, 1, 0), size=(3, 3, 3)) for side in (1, 2)]
        interface = (boxes[0] > 0) & (boxes[1] > 0)
        distance = ndimage.distance_transform_edt(~interface, sampling=np.array(spacing) / 2)[1::2, 1::2, 1::2]
        return np.where(mask, -distance, distance)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    depth = ndimage.distance_transform_edt(mask, sampling=spacing)
    full = ndimage.generate_binary_structure(3, 3 if mode == "maurer" else 1)
    inner = mask & ~ndimage.binary_erosion(mask, full, border_value=1)
    if mode in ("inner", "maurer"):
        depth = ndimage.distance_transform_edt(~inner, sampling=spacing)
    elif mode == "kervadec":
        depth = np.maximum(depth - min(spacing), 0)
    elif mode == "literal":
        depth = depth - 1
    elif mode == "swdm":
        depth = np.where(inner, 0, depth)
    return np.where(mask, -depth, outside)
