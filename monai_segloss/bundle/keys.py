"""Ids of a configuration: what stands there, what refers to it, and keys that nothing uses."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

STATEMENTS = ("imports", "initialize", "run", "finalize")
REFERENCE = re.compile(r"(?<=[@%])\w+(?:(?:#|::)\w+)*")
WHOLE = re.compile(r"\$?\s*[@%](\w+(?:(?:#|::)\w+)*)\s*")
IN_EXPRESSION = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")
MISSING = object()


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


def value_at(config: Any, id: str) -> Any:
    """What stands at an id such as ``train#handlers#0``; `MISSING` where nothing does."""
    for part in re.split("#|::", id):
        if isinstance(config, Mapping):
            config = config.get(part, MISSING)
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return MISSING
    return config


def components(config: Any, id: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All components of a configuration, by id."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield id, config
        for key, value in config.items():
            yield from components(value, f"{id}#{key}" if id else str(key))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from components(value, f"{id}#{index}")


def referred_id(value: Any) -> str | None:
    """The id of a value that is one reference and no more: ``@loss``, ``$@loss`` or the macro ``%loss``."""
    found = WHOLE.fullmatch(value) if isinstance(value, str) else None
    return found[1].replace("::", "#") if found else None


def follow(config: Any, id: str) -> tuple[str, Any]:
    """Id and value at the end of a chain of references; `MISSING` where it leads nowhere, or in a circle."""
    seen = {id}
    value = value_at(config, id)
    while (next_id := referred_id(value)) is not None:
        if next_id in seen:
            return next_id, MISSING
        seen.add(next_id)
        id, value = next_id, value_at(config, next_id)
    return id, value


def resolved(config: Any, value: Any) -> Any:
    """A value with the references in it followed; expressions, of which the value is known at run time only, stay."""
    if isinstance(value, list):
        return [resolved(config, each) for each in value]
    id = referred_id(value)
    if id is None:
        return value
    found = follow(config, id)[1]
    return value if found is MISSING else resolved(config, found)


def dangling(config: Mapping[str, Any], roots: Iterable[str]) -> dict[str, str]:
    """Ids that are missing although something that runs refers to them, with the id where that stands.

    Args:
        config: a configuration.
        roots: the keys that MONAI runs.
    """
    found, seen, queue = dict[str, str](), set[str](), list(roots)
    while queue:
        id = queue.pop()
        if id in seen:
            continue
        seen.add(id)
        for place, text in _strings(value_at(config, id), id):
            whole = referred_id(text)
            ids = [whole] if whole else IN_EXPRESSION.findall(text) if text.startswith("$") else []
            for other in (each.replace("::", "#") for each in ids):
                if value_at(config, other) is not MISSING:
                    queue.append(other)
                elif not other.startswith("_meta_"):
                    found.setdefault(other, place)
    return found


def _strings(value: Any, id: str) -> Iterator[tuple[str, str]]:
    """All strings in a value, by id."""
    if isinstance(value, str):
        yield id, value
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _strings(part, f"{id}#{key}")


def is_expression(value: Any) -> bool:
    """Whether MONAI makes something else of a value when it runs."""
    return isinstance(value, str) and value.startswith(("$", "@", "%"))
