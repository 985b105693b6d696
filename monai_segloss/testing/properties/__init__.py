"""The contract: what every loss does, one function per property, of a registry entry and an input case.

A property raises `Violation` where it is false. An entry for which one is false by design names it in `LossInfo.exempt` with
the reason, and with the cases where it is false on some only; there it must really be false.
"""

from monai_segloss.testing.contract import PROPERTIES

from . import arguments, derivatives, masking, module, neighbors, reading, transforms, values

__all__ = [
    "PROPERTIES",
    "arguments",
    "derivatives",
    "masking",
    "module",
    "neighbors",
    "reading",
    "transforms",
    "values",
]
