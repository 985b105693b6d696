"""Keys of a configuration that nothing uses: MONAI adds a misspelled key without a word, and goes on without it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

STATEMENTS = ("imports", "initialize", "run", "finalize")
REFERENCE = re.compile(r"(?<=[@%])\w+(?:(?:#|::)\w+)*")


def references(config: Any) -> set[str]:
    """Ids that the values of a configuration refer to, as ``@train#trainer`` or by the macro ``%train#trainer``."""
    return {id.replace("::", "#") for id in REFERENCE.findall(json.dumps(config, default=str))}


def is_used(id: str, referred: Collection[str]) -> bool:
    """Whether something refers to an id or to a part of it."""
    return any(other == id or other.startswith(f"{id}#") for other in referred)


def is_statement(id: str, value: Any) -> bool:
    """Whether MONAI runs it by its name, or as an import whatever its name is."""
    return id in STATEMENTS or (isinstance(value, str) and value.startswith(("$import ", "$from ")))


def ids(config: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Ids and values of the keys of a configuration, except those inside of components and lists."""
    if isinstance(config, Mapping) and "_target_" not in config:
        for key, value in config.items():
            yield f"{above}{key}", value
            yield from ids(value, f"{above}{key}#")


def unused(config: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Keys that nothing in a parsed configuration refers to, and that are not ``known``.

    A private key (``_meta_``) may be there for itself.  A macro is gone once it is parsed: what it copied is twice there.
    """
    referred = references(config)
    found: list[str] = []
    for id, value in ids(config):
        if id in known or is_used(id, referred) or is_statement(id, value):
            continue
        private = any(part.startswith("_") for part in id.split("#"))
        part_of = any(id.startswith(f"{other}#") for other in (*referred, *found))
        copied = isinstance(value, Mapping | list) and bool(value) and _count(config, value) > 1
        if not (private or part_of or copied):
            found.append(id)
    return found


def _count(config: Any, value: Any) -> int:
    """How often a value stands in a configuration."""
    parts = config.values() if isinstance(config, Mapping) else config if isinstance(config, list) else ()
    return int(config == value) + sum(_count(part, value) for part in parts)
