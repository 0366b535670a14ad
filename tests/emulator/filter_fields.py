"""A message's fields as the filter language compares them: paths of names, values as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from tests.emulator.messages import STATE_NAMES, Pb, Secret, SecretVersion

KNOWN_FIELDS = frozenset((*Secret.DESCRIPTOR.fields_by_name, *SecretVersion.DESCRIPTOR.fields_by_name))


def values_of(message: Pb, path: Sequence[str]) -> list[str]:
    """All values that a path leads to, several through repeated fields, none where nothing is set.

    A path that ends at a map leads to its keys, one step further to that key's value.
    """
    name, rest = path[0], path[1:]
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        return []
    value = getattr(message, name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        return _from_map(value, rest)
    unset = field.has_presence and not message.HasField(name)
    items = list(value) if field.is_repeated else [value] * (not unset)
    if rest:
        return [text for item in items for text in values_of(item, rest)]
    return [STATE_NAMES.get(item, "") if name == "state" else _text(item) for item in items]


def _from_map(entries: Mapping[str, object], rest: Sequence[str]) -> list[str]:
    if not rest:
        return list(entries)
    key = ".".join(rest)
    return [str(entries[key])] if key in entries else []


def _text(value: Pb) -> str:
    return value.ToJsonString() if isinstance(value, Timestamp) else str(value)
