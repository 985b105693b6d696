"""Short hashes of what trainings that are compared must share."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import torch
from torch import nn

DIGITS = 12


def content_hash(content: Any) -> str:
    """Of plain data, whatever the order of its keys; of anything else in it what it looks like as text."""
    return sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:DIGITS]


def weights_hash(network: nn.Module) -> str:
    """Of parameters and buffers; two networks with the same ones have the same."""
    found = sha256()
    for each in network.state_dict().values():
        found.update(each.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:DIGITS]
