"""The metadata server's data and its three renderings: text, a directory listing, and recursive JSON.

https://cloud.google.com/compute/docs/metadata/querying-metadata
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Leaf: TypeAlias = str | int | list[str]
Node: TypeAlias = "Leaf | dict[str, Node]"


def instance_tree(
    *,
    project: str,
    number: str,
    instance: str,
    zone: str,
    attributes: Mapping[str, str],
    account: str | None,
    scopes: Sequence[str],
) -> dict[str, Node]:
    """What lies under `/computeMetadata/v1/`, save the tokens."""
    accounts: dict[str, Node] = {}
    if account:
        details: dict[str, Node] = {"aliases": ["default"], "email": account, "scopes": list(scopes)}
        accounts = {"default": details, account: details}
    return {
        "instance": {
            "attributes": dict(attributes),
            "hostname": f"{instance}.{zone}.c.{project}.internal",
            "id": 4_520_031_799_277_581_759,
            "machine-type": f"projects/{number}/machineTypes/n2-standard-4",
            "name": instance,
            "service-accounts": accounts,
            "zone": f"projects/{number}/zones/{zone}",
        },
        "project": {"attributes": {}, "numeric-project-id": int(number), "project-id": project},
        "universe": {"universe-domain": "googleapis.com"},
    }


def find_node(tree: Node, path: str) -> Node | None:
    """What a path names, None if nothing does."""
    node = tree
    for part in filter(None, path.split("/")):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node


def as_text(node: Leaf) -> str:
    """A value by itself; several are one a line."""
    return "".join(f"{line}\n" for line in node) if isinstance(node, list) else str(node)


def as_listing(node: Mapping[str, Node]) -> str:
    """A directory, one name a line, directories with a slash."""
    return "".join(f"{name}/\n" if isinstance(child, dict) else f"{name}\n" for name, child in node.items())


def as_json(node: Node, *, keep_names: bool) -> str:
    """A value or a whole directory; names become camelCase, save those that users chose (attributes)."""
    return json.dumps(_camel(node, keep_names=keep_names))


def _camel(node: Node, *, keep_names: bool) -> Node:
    if not isinstance(node, dict):
        return node
    return {
        name if keep_names else _camel_name(name): _camel(child, keep_names=name == "attributes")
        for name, child in node.items()
    }


def _camel_name(name: str) -> str:
    return name if "@" in name else re.sub(r"-([a-z])", lambda match: match[1].upper(), name)
