"""Names of classes and trainers from the keys of losses."""

from __future__ import annotations

ACRONYMS = {
    "ce": "CE", "bce": "BCE", "dt": "DT", "er": "ER", "mcc": "MCC", "iou": "IoU", "topk": "TopK", "dou": "DoU",
    "f1": "F1", "cc": "CC", "sdm": "SDM", "cldice": "clDice", "mcd": "MCD", "dmtn": "DMTN", "besnet": "BESNet",
    "ace": "ACE", "nacl": "NACL", "vmf": "vMF", "mil": "MIL",
}  # fmt: skip
"""Parts of a key that Camel case spells in their own way."""


def camel(key: str) -> str:
    """Camel case of a key: ``focal_tversky`` -> ``FocalTversky``, ``dice_ce`` -> ``DiceCE``."""
    return "".join(ACRONYMS.get(part, part[:1].upper() + part[1:]) for part in key.split("_"))
