"""Keys of maps: derived from function and settings, the same in losses, sums and transforms."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from test_monai_engine import SIZE, trainer

import monai_segloss
from monai_segloss.core.maps import MapSpec, map_key
from monai_segloss.core.module import READING
from monai_segloss.engine import DeepSupervision
from monai_segloss.losses.boundary.distances import signed_distance, target_field
from monai_segloss.maps import class_masks, distance_field, signed_distance_map
from monai_segloss.testing import cases
from monai_segloss.testing.properties.arguments import another
from monai_segloss.testing.stand_in import prepared
from monai_segloss.transforms import ContourMapd, DistanceFieldd, SignedDistanceMapd, map_transforms

READS: dict[str, Any] = {"softmax": True, "to_onehot_y": True}
STEPS = (3.0, 1.0, 0.5)
NEEDY = [info for info in monai_segloss.list_losses() if info.needs]
TWO = {"boundary": 1.0, "rough": {"loss": "boundary", "mode": "surface", "clip": 2.5, "weight": 0.5}}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, "sdm"),
        ({"mode": "kervadec", "empty": "zero", "clip": None, "normalize": False}, "sdm"),
        ({"mode": "maurer"}, "sdm_maurer"),
        ({"normalize": True, "mode": "surface"}, "sdm_surface_normalize"),
        ({"normalize": 1}, "sdm_normalize"),
        ({"empty": "diagonal"}, "sdm_empty_diagonal"),
        ({"full": "diagonal"}, "sdm_full_diagonal"),
        ({"clip": 5}, "sdm_clip_5"),
        ({"clip": 5.0}, "sdm_clip_5"),
        ({"clip": [0.25, 12]}, "sdm_clip_0p25_12"),
        ({"clip": 1e-7}, "sdm_clip_1em07"),
    ],
)
def test_the_key_of_a_signed_map(settings: dict[str, Any], key: str) -> None:
    spec = signed_distance(**settings)
    assert spec.key == key
    assert spec.key.isidentifier(), "it is a keyword of the call"
    assert SignedDistanceMapd("label", **settings).output_keys == (key,)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert len({spec, signed_distance(**settings)}) == 1


def test_how_a_map_is_made_quickly_is_no_setting() -> None:
    assert map_key("field", distance_field, {"exclusive": True}) == "field"
    assert target_field("both").key == "target_field"
    assert DistanceFieldd(["a", "b"], side="inside").output_keys == ("a_target_field_inside", "b_target_field_inside")
    assert ContourMapd("label", width=2).output_keys == ("contour_width_2",)


@pytest.mark.parametrize("info", NEEDY, ids=lambda info: info.key)
def test_one_key_is_one_map(info: monai_segloss.LossInfo) -> None:
    """Whatever the arguments, and whatever the other losses need."""
    case = cases.get("five_classes")
    found: dict[str, MapSpec] = {spec.key: spec for other in NEEDY for spec in other.needs}
    for name, parameter in info.parameters.items():
        if name in READING:
            continue
        changed = {**info.example, name: another(name, parameter.default, case)}
        try:
            loss = info.cls(**changed)
        except ValueError:  # arguments that exclude each other
            continue
        for spec in loss.needs:
            assert found.setdefault(spec.key, spec) == spec, f"{spec.key} is two maps"


def sent(total: monai_segloss.WeightedSum, labels: torch.Tensor, *keys: str) -> dict[str, torch.Tensor]:
    """Maps of labels (B, 1, *S) under the keys of a sum, each made by its own transform."""
    made = [each for each in map_transforms(total, num_classes=3) if set(each.output_keys) & set(keys)]
    affine = torch.diag(torch.tensor([*STEPS, 1.0]))
    rows = []
    for label in labels:
        data: Any = {"label": MetaTensor(label, affine=affine)}
        for each in made:
            data = each(data)
        rows.append(data)
    return {key: torch.stack([row[key].as_tensor() for row in rows]) for key in keys}


def test_terms_of_two_modes_take_their_own_maps() -> None:
    case = cases.get("labels_3d")
    total = monai_segloss.WeightedSum(TWO, **READS)
    keys = [spec.key for spec in total.needs]
    assert keys == ["sdm", "sdm_surface_clip_2p5"]
    expected = total(case.input, case.target, spacing=STEPS)
    for chosen in ([], keys[:1], keys[1:], keys):
        maps = sent(total, case.target, *chosen)
        torch.testing.assert_close(total(case.input, {"label": case.target, **maps}, spacing=STEPS), expected)
    maps = sent(total, case.target, *keys)
    swapped = dict(zip(keys, reversed(list(maps.values())), strict=True))
    assert not torch.isclose(total(case.input, case.target, spacing=STEPS, **swapped), expected)
    total(case.input, case.target, spacing=STEPS)
    for name, arguments in (("boundary", {}), ("rough", {"mode": "surface", "clip": 2.5})):
        alone = monai_segloss.create("boundary", **READS, **arguments)
        torch.testing.assert_close(total.last[name], alone(case.input, case.target, spacing=STEPS))


def test_a_map_of_other_settings_is_refused_by_name() -> None:
    case = cases.get("labels_3d")
    phi = signed_distance_map(class_masks(case.target, 3))
    plain, surface = (monai_segloss.create("boundary", mode=mode, **READS) for mode in ("kervadec", "surface"))
    plain(case.input, case.target, sdm=phi, spacing=(1, 1, 1))
    surface(case.input, case.target, sdm_surface=phi, spacing=(1, 1, 1))
    with pytest.raises(TypeError, match=r"does not know the map 'sdm'; it takes sdm_surface: a key holds the settings"):
        surface(case.input, case.target, sdm=phi)
    with pytest.raises(TypeError, match=r"does not know the map 'sdm_surface'; it takes sdm: a key holds the settings"):
        plain(case.input, {"label": case.target, "sdm_surface": phi})
    with pytest.raises(TypeError, match=r"does not know the map 'cells'; it takes sdm\.$"):
        plain(case.input, case.target, cells=phi)
    with pytest.raises(TypeError, match=r"does not know the map 'sdm'; it takes none\.$"):
        monai_segloss.create("dice", **READS)(case.input, case.target, sdm=phi)


@pytest.mark.parametrize("info", NEEDY, ids=lambda info: info.key)
def test_voxels_without_a_place_are_refused_and_a_map_of_nan_shows(info: monai_segloss.LossInfo) -> None:
    case = cases.get("labels_3d")
    loss = prepared(info.cls(**{**info.example, **info.reading}), case.input)
    if any(spec.on_cpu for spec in loss.needs):
        return  # maps of ids, which have their own checks
    with pytest.raises(ValueError, match=r"input has shape \(4, 3\); .* needs spatial axes"):
        loss(torch.randn(4, 3), torch.zeros(4, 1, dtype=torch.int64))
    for spec in loss.needs:
        bad = torch.full_like(case.input, torch.nan)
        assert loss(case.input, case.target, spacing=STEPS, **{spec.key: bad}).isnan()


@pytest.mark.parametrize("info", NEEDY, ids=lambda info: info.key)
def test_every_map_that_a_loss_needs_has_a_transform(info: monai_segloss.LossInfo) -> None:
    loss = info.cls(**info.example)
    assert [each.output_keys for each in map_transforms(loss, "seg", num_classes=3)] == [
        (spec.key,) for spec in loss.needs
    ]


def test_a_map_without_a_transform_is_named() -> None:
    class Needy:
        needs = (MapSpec("halves", class_masks),)

    with pytest.raises(ValueError, match="no transform makes the map 'halves'"):
        map_transforms(Needy())
    assert map_transforms(monai_segloss.create("dice")) == []


def test_monai_trains_with_the_maps_of_the_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps arrive, so that the loss makes none, and the weights end where they end without them."""
    affine = torch.diag(torch.tensor([*STEPS, 1.0]))
    labels = [torch.randint(0, 2, (1, *SIZE)) for _ in range(4)]
    data = [
        {"image": torch.randn(1, *SIZE), "label": MetaTensor(label, affine=affine), "index": i}
        for i, label in enumerate(labels)
    ]
    loss = monai_segloss.WeightedSum(TWO, **READS)
    with_maps = []
    for item in data:
        for each in map_transforms(loss, num_classes=2):
            item = each(item)
        with_maps.append(item)
    plain = trainer(copy.deepcopy(loss), data)
    plain.run()
    monkeypatch.setattr(MapSpec, "make", None)
    served = trainer(loss, with_maps)
    served.run()
    for a, b in zip(plain.network.parameters(), served.network.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions of maps that were called, by name."""
    calls: list[str] = []
    make = MapSpec.make

    def counted(self: MapSpec, *masks: Any, **more: Any) -> torch.Tensor:
        calls.append(self.function.__name__)
        return make(self, *masks, **more)

    monkeypatch.setattr(MapSpec, "make", counted)
    return calls


SUMS: dict[str, tuple[dict[str, Any], int]] = {
    "a compound and a loss": ({"dice_boundary": 1, "more": {"loss": "boundary", "weight": 0.5}}, 1),
    "other settings": ({**TWO, "again": {"loss": "boundary", "mode": "surface", "clip": [2.5, 2.5]}}, 3),
    "the same settings": ({**TWO, "again": {"loss": "boundary", "mode": "surface", "clip": 2.5, "offset": True}}, 2),
    "other channels": ({"boundary": 1, "more": {"loss": "boundary", "include_background": False}}, 2),
    "no weight": ({"boundary": 1, "off": {"loss": "dice_boundary", "weight": 0}}, 1),
    "components": ({"blob": 1, "inverse_weighted_dice": 1, "inverse_weighted_cross_entropy": 1}, 1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("terms", "count"), SUMS.values(), ids=SUMS)
def test_terms_of_a_sum_share_the_maps_of_a_call(
    terms: dict[str, Any], count: int, dtype: torch.dtype, made: list[str]
) -> None:
    case = cases.get("labels_3d")
    logits = case.input.to(dtype).requires_grad_()
    total = monai_segloss.WeightedSum(terms, **READS)
    value = total(logits, case.target, spacing=STEPS)
    assert len(made) == count
    (found,) = torch.autograd.grad(value, logits)
    made.clear()
    parts = []
    for name, term in terms.items():
        settings = dict(term) if isinstance(term, dict) else {"weight": term}
        if weight := settings.pop("weight", 1):
            alone = monai_segloss.create(settings.pop("loss", name), **READS, **settings)
            parts.append(weight * alone(logits, case.target, spacing=STEPS))
    assert len(made) == len(parts), "each alone makes its own"
    expected = torch.stack(parts).sum()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(found, *torch.autograd.grad(expected, logits), rtol=1e-3, atol=1e-6)
    # nothing outlives the call
    other = case.target.flip(2)
    made.clear()
    torch.testing.assert_close(
        total(logits, other, spacing=STEPS), monai_segloss.WeightedSum(terms, **READS)(logits, other, spacing=STEPS)
    )
    assert len(made) == 2 * count


def test_shared_maps_in_a_compiled_sum_and_at_each_scale(made: list[str]) -> None:
    case, (terms, _) = cases.get("labels_3d"), SUMS["a compound and a loss"]
    total = monai_segloss.WeightedSum(terms, **READS)
    value = total(case.input, case.target, spacing=STEPS)
    compiled = torch.compile(total, fullgraph=True, backend="eager", dynamic=False)
    torch.testing.assert_close(compiled(case.input, case.target, spacing=STEPS), value)
    made.clear()
    label = MetaTensor(case.target, affine=torch.diag(torch.tensor([*STEPS, 1.0])))
    coarse = case.input[..., ::2, ::2, ::2]
    wrapped = DeepSupervision(total, (1, 0.5))([case.input, coarse], {"label": label})
    assert len(made) == 2
    smaller = DeepSupervision(total, (1,))([coarse], DeepSupervision(total)._at({"label": label}, coarse.shape[2:]))
    torch.testing.assert_close(wrapped, value + 0.5 * smaller)
