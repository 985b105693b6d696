"""Deep supervision, counted in operations and not in time: no more than the sum of its parts, nothing at weight 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import monai_segloss

pytest.importorskip("monai")
from monai_segloss.engine.deep_supervision import DeepSupervision
from nnunet_trainers.deep_supervision import NnUNetLoss

SIZES = (12, 6, 3)
KEYS = (
    "dice_ce",
    "focal_tversky",
    "cross_entropy",
    "lovasz_softmax",
    "topk_cross_entropy",
    "dice_boundary",
    "hausdorff_er",
)
GLUE = 12
"""Operations that a scale may cost beyond the loss: its weight, its place in the sum."""


class Operations(TorchDispatchMode):
    """Counts the operations of torch, forward and backward, and the elements that they touch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.names[str(func)] += 1
        self.elements += sum(x.numel() for x in (*args, out) if isinstance(x, Tensor))
        return out


def outputs() -> list[Tensor]:
    return [torch.randn(2, 3, n, n, n, requires_grad=True) for n in SIZES]


def targets() -> list[Tensor]:
    label = torch.zeros(2, 1, *3 * SIZES[:1], dtype=torch.long)
    label[:, :, 2:9, 3:8, 1:10], label[:, :, 4:6, 4:6, 4:8] = 1, 2
    return [label[..., ::k, ::k, ::k].contiguous() for k in (1, 2, 4)]


def counted(call: Callable[[], Tensor]) -> Operations:
    with Operations() as found:
        call().backward()
    return found


def ours(key: str) -> nn.Module:
    info = monai_segloss.find(key)
    loss: nn.Module = info.cls(**{**info.reading, **info.example})
    return loss


def nnunet(key: str, weights: tuple[float, ...]) -> tuple[nn.Module, Callable[[slice], tuple[Any, Any]]]:
    wrapped = NnUNetLoss(ours(key), [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (4.0, 4.0, 4.0)][: len(weights)], weights)
    return wrapped, lambda part: (outputs()[part], targets()[part])


def monai(key: str, weights: tuple[float, ...]) -> tuple[nn.Module, Callable[[slice], tuple[Any, Any]]]:
    return DeepSupervision(ours(key), weights), lambda part: (outputs()[part], targets()[0])


SIDES = (nnunet, monai)


def run(side: Callable[..., Any], key: str, weights: tuple[float, ...], part: slice) -> Operations:
    loss, inputs = side(key, weights)
    given = inputs(part)
    return counted(lambda: loss(*given))


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.__name__)
@pytest.mark.parametrize("key", KEYS)
def test_all_scales_cost_no_more_than_the_sum_of_each(key: str, side: Callable[..., Any]) -> None:
    run(side, key, (1.0,), slice(0, 1))  # whatever is made once
    parts = [run(side, key, (1.0,), slice(i, i + 1)) for i in range(len(SIZES))]
    together = run(side, key, (1.0, 0.5, 0.25), slice(None))
    assert sum(together.names.values()) <= sum(sum(each.names.values()) + GLUE for each in parts)
    glue = GLUE * len(SIZES)  # on single numbers
    assert together.elements <= sum(each.elements for each in parts) + 3 * glue


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.__name__)
@pytest.mark.parametrize("key", KEYS)
def test_a_scale_of_weight_zero_costs_nothing(key: str, side: Callable[..., Any]) -> None:
    """The same operations as without that scale: it is neither read nor sampled, and its output has no gradient."""
    run(side, key, (1.0,), slice(0, 1))
    assert run(side, key, (1.0, 0.5, 0.0), slice(None)).names == run(side, key, (1.0, 0.5), slice(0, 2)).names
    loss, inputs = side(key, (0.0, 0.5, 0.0))
    given, target = inputs(slice(None))
    for skipped in (0, 2):
        with torch.no_grad():
            given[skipped].fill_(torch.nan)
    value = loss(given, target)
    assert value.isfinite()
    value.backward()
    assert given[0].grad is None
    assert given[1].grad is not None
    assert given[1].grad.any()
    assert given[2].grad is None


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.__name__)
def test_the_counter_counts(side: Callable[..., Any]) -> None:
    """The counter sees a second reading of a scale."""
    once = run(side, "dice_ce", (1.0,), slice(0, 1))
    assert once.elements > 10 * 3 * SIZES[0] ** 3
    twice = run(side, "dice_ce", (1.0, 1.0), slice(0, 2))
    assert sum(twice.names.values()) > 1.5 * sum(once.names.values())
