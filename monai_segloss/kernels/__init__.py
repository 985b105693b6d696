"""Implementations for devices, behind one function each.  Importing the package registers the backends."""

from importlib.util import find_spec

import torch

from monai_segloss.core.counts import BACKENDS, OPERATORS
from monai_segloss.core.neighbors import KERNELS
from monai_segloss.kernels.neighbors_cpu import native_neighbors
from monai_segloss.kernels.statistics_cpu import native_statistics
from monai_segloss.kernels.statistics_cuda import fused_statistics

BACKENDS["cpu"] = native_statistics
KERNELS["cpu"] = native_neighbors
# The kernels need the Triton that comes with torch 2.8.
if find_spec("triton") is not None and tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 8):
    BACKENDS["cuda"] = fused_statistics
    OPERATORS.add("cuda")
