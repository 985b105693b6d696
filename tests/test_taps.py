"""Taps: found in the networks that people train, handed over by hooks and trainers, missed in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from monai.networks import nets
from torch import Tensor, nn

from monai_segloss import Taps, network_shape
from monai_segloss.core.taps import TAPS, TapError


def nnunet(cls: type[nn.Module], stages: int = 4, axes: int = 3, **blocks: Any) -> nn.Module:
    """As nnU-Net builds it from its plans, with fewer channels."""
    kinds: tuple[Any, Any] = (nn.Conv3d, nn.InstanceNorm3d) if axes == 3 else (nn.Conv2d, nn.InstanceNorm2d)
    return cls(
        1,
        stages,
        [4 * 2**i for i in range(stages)],
        kinds[0],
        3,
        [1, *[2] * (stages - 1)],
        num_classes=3,
        n_conv_per_stage_decoder=[1] * (stages - 1),
        conv_bias=True,
        norm_op=kinds[1],
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **blocks,
    )


RESIDUAL = {"M": [1, 3, 4, 6], "L": [1, 3, 4, 6, 6], "XL": [1, 3, 4, 6, 6, 6]}
"""Blocks of the first stages, four to six of them, as nnU-Net's plans ResEnc M, L and XL have them."""

NETWORKS: dict[str, tuple[Any, int, dict[str, tuple[int, int]]]] = {
    # builder, edge of the patch, tap -> channels and edge of its grid
    "plain": (
        lambda: nnunet(PlainConvUNet, n_conv_per_stage=[2] * 4),
        32,
        {"decoder": (4, 32), "middle": (8, 16), "bottleneck": (32, 4), "skip_0": (4, 32), "skip_2": (16, 8)},
    ),
    "plain 2-D": (
        lambda: nnunet(PlainConvUNet, axes=2, n_conv_per_stage=[2] * 4),
        32,
        {"decoder": (4, 32), "middle": (8, 16), "bottleneck": (32, 4), "skip_0": (4, 32), "skip_2": (16, 8)},
    ),
    **{
        f"residual {size}": (
            lambda blocks=blocks: nnunet(ResidualEncoderUNet, stages=len(blocks), n_blocks_per_stage=blocks),
            64,
            {"decoder": (4, 64), "bottleneck": (4 * 2 ** (len(blocks) - 1), 2 ** (7 - len(blocks))), "skip_0": (4, 64)},
        )
        for size, blocks in RESIDUAL.items()
    },
    "UNet": (
        lambda: nets.UNet(3, 1, 3, (4, 8, 16), (2, 2), num_res_units=2),
        32,
        {"decoder": (3, 32), "middle": (8, 16), "bottleneck": (24, 8), "skip_0": (4, 16)},
    ),
    "UNet without residual units": (
        lambda: nets.UNet(3, 1, 3, (4, 8, 16), (2, 2)),
        32,
        {"decoder": (8, 16), "bottleneck": (24, 8), "skip_0": (4, 16)},
    ),
    "DynUNet": (
        lambda: nets.DynUNet(3, 1, 3, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 16], deep_supervision=True),
        32,
        {"decoder": (4, 32), "middle": (8, 16), "bottleneck": (16, 8), "skip_0": (4, 32), "skip_1": (8, 16)},
    ),
    "SegResNet": (
        lambda: nets.SegResNet(3, 8, 1, 3),
        32,
        {"decoder": (8, 32), "middle": (8, 16), "bottleneck": (32, 4), "skip_0": (8, 32), "skip_2": (32, 8)},
    ),
    "UNETR": (
        lambda: nets.UNETR(1, 3, (32, 32, 32), feature_size=8, hidden_size=48, mlp_dim=64, num_heads=4),
        32,
        {"decoder": (8, 32), "middle": (32, 8), "bottleneck": (48, 2)},
    ),
    "SwinUNETR": (
        lambda: nets.SwinUNETR(1, 3, feature_size=12),
        64,
        {"decoder": (12, 64), "middle": (24, 16), "bottleneck": (192, 2), "skip_0": (12, 32), "skip_3": (96, 4)},
    ),
    "BasicUNet": (
        lambda: nets.BasicUNet(3, 1, 3, (8, 8, 16, 32, 64, 8)),
        32,
        {"decoder": (8, 32), "middle": (16, 8), "bottleneck": (64, 2), "skip_0": (8, 32), "skip_3": (32, 4)},
    ),
    "AttentionUnet": (
        lambda: nets.AttentionUnet(3, 1, 3, (4, 8, 16), (2, 2)),
        32,
        {"decoder": (4, 32), "middle": (8, 16), "bottleneck": (16, 8), "skip_0": (4, 32), "skip_1": (8, 16)},
    ),
}


def wanted(name: str) -> list[str]:
    return [tap for tap in TAPS if tap != "skips" or name != "UNETR"]  # a transformer has no encoder at each grid


SLOW = ("SwinUNETR",)  # half a minute, for the edge of 64 that it needs


@pytest.mark.parametrize("name", [pytest.param(x, marks=pytest.mark.nightly if x in SLOW else []) for x in NETWORKS])
def test_taps_of_the_networks_that_people_train(name: str) -> None:
    build, edge, expected = NETWORKS[name]
    torch.manual_seed(0)
    network = build().train()
    axes = 2 if "2-D" in name else 3
    before = {key: value.clone() for key, value in network.state_dict().items()}
    shape = network_shape(network, torch.randn(1, 1, *[edge] * axes), wanted(name), spacing=(1.0,) * axes)
    assert (shape.classes, shape.size, shape.image_channels) == (3, (edge,) * axes, 1)
    found = {key: (tap.channels, tap.size[0]) for key, tap in shape.taps.items()}
    assert found["image"] == (1, edge)
    assert {key: found[key] for key in expected} == expected
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())

    taps = Taps(network, shape)
    network(torch.randn(2, 1, *[edge] * axes))
    features = taps.take()
    assert {key: tuple(x.shape) for key, x in features.items()} == {
        key: (2, tap.channels, *tap.size) for key, tap in shape.taps.items()
    }
    assert all(x.requires_grad for key, x in features.items() if key != "image")
    assert taps.take() == {}
    taps.remove()
    network(torch.randn(2, 1, *[edge] * axes))
    assert taps.take() == {}


def test_the_decoder_is_what_the_last_layer_turns_into_logits() -> None:
    network = nnunet(PlainConvUNet, n_conv_per_stage=[1] * 4)
    image = torch.randn(1, 1, 32, 32, 32)
    taps = Taps(network, network_shape(network, image, ["decoder"]))
    logits = network(image)[0]
    last: nn.Module = network.decoder.seg_layers[-1]  # type: ignore[index, union-attr]
    assert torch.equal(last(taps.take()["decoder"]), logits)


def test_wrapped_networks() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    for around in (nn.DataParallel(network), torch.compile(network, backend="eager")):
        shape = network_shape(around, torch.zeros(1, 1, 8, 8), ["decoder"])  # type: ignore[arg-type]
        assert shape.taps["decoder"].module == "2"


def test_a_named_module() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    image = torch.randn(1, 1, 8, 8)
    shape = network_shape(network, image, ["bottleneck"], {"bottleneck": "1"})
    taps = Taps(network, shape)
    network(image)
    assert torch.equal(taps.take()["bottleneck"], network[1](network[0](image)))
    with pytest.raises(
        TapError, match=r"no module '7' that gives features; there are 0 \(4, 8, 8\), 1 .*, 2 \(2, 8, 8\)\."
    ):
        network_shape(network, image, ["bottleneck"], {"bottleneck": "7"})


class Ragged(nn.Module):
    """The logits come of no module."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[:, :2] * 2


@pytest.mark.parametrize("tap", ["decoder", "middle", "bottleneck", "skips"])
def test_a_network_without_the_tap(tap: str) -> None:
    with pytest.raises(
        TapError, match=rf"the tap '{tap}' .* was not found .*: name a module; there are features \(4, 8, 8\)\."
    ):
        network_shape(Ragged(), torch.zeros(1, 1, 8, 8), [tap])


def test_what_is_no_tap_and_no_network_for_segmentation() -> None:
    with pytest.raises(TapError, match="no tap is called 'decodre'; there are image, decoder"):
        network_shape(Ragged(), torch.zeros(1, 1, 8, 8), ["decodre"])
    with pytest.raises(TapError, match="the network gives Tensor, expected logits"):
        network_shape(nn.Flatten(), torch.zeros(1, 1, 8, 8), ["image"])
