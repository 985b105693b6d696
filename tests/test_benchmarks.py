"""A peer of the benchmarks computes our loss: its value up to a constant that is stated, and its gradient."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import monai_segloss

pytest.importorskip("monai.losses")
pytest.importorskip("nnunetv2")
sys.path.append(str(Path(__file__).resolve().parent.parent))  # last: the installed package comes before the sources
from benchmarks.peers import PEERS, case, ours


@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated:UserWarning")
@pytest.mark.parametrize("library", PEERS)
def test_peers_compute_the_same_loss(library: str) -> None:
    if library == "kornia":
        pytest.importorskip("kornia")
    peers = PEERS[library]()
    assert peers
    assert set(peers) <= {info.key for info in monai_segloss.list_losses()}
    for classes in (3, 5):
        logits, label = case(classes, 24)
        present = torch.stack([(label == c).flatten(1).any(1) for c in range(classes)])
        assert present.all(), "a class that is absent is scored differently by some"
        for key, peer in peers.items():
            loss = ours(key)
            found, expected = loss(logits, label), peer.as_ours(logits, label)
            (slope,), (other,) = (torch.autograd.grad(value, logits) for value in (found, expected))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=lambda text, k=key: f"{k}: {text}")
            assert (slope - other).norm() < 1e-3 * other.norm(), f"{key}: another gradient"
