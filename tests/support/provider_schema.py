"""The google provider's schema, as far as an export uses it: `python -m tests.support.provider_schema [--check]`.

The npm package `@cdktf/provider-google` is generated from the provider's schema: its type declarations name every
argument of a resource, whether it is required, and its type. What is used here lies beside this file; `--check` fails
when the package says otherwise.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

PACKAGE = "@cdktf/provider-google@16.12.1"
FILE = Path(__file__).with_suffix(".json")
TYPES = (
    "google_artifact_registry_repository_iam_member",
    "google_compute_address",
    "google_compute_firewall",
    "google_compute_instance",
    "google_compute_instance_group_manager",
    "google_compute_instance_template",
    "google_compute_region_instance_group_manager",
    "google_project_iam_custom_role",
    "google_project_iam_member",
    "google_project_service",
    "google_secret_manager_regional_secret_iam_member",
    "google_secret_manager_secret_iam_member",
    "google_service_account",
)
META = {"count", "depends_on", "for_each", "lifecycle", "provider"}
"""Arguments of Terraform itself, which every resource takes."""

Schema = dict[str, Any]
_FIELD = re.compile(
    r"[/#](?P<name>[a-z0-9_]+) [A-Z]\w*#(?P=name)\}\n(?:    \*[^\n]*\n)*?    \*/\n"
    r"    readonly \w+(?P<optional>\??): (?P<type>[^;]+);"
)


def parse(text: str) -> Schema:
    """The arguments of a resource; those of a nested block are a schema of their own."""
    interfaces = {
        found[1]: {field["name"]: (not field["optional"], field["type"]) for field in _FIELD.finditer(found[2])}
        for found in re.finditer(r"^export interface (\w+)[^{]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    }
    (top,) = (
        name for name in interfaces if name.endswith("Config") and "TerraformMetaArguments" in text.split(name)[1][:60]
    )

    def described(name: str) -> Schema:
        return {
            field: {
                "required": required,
                "type": described(block) if (block := _block(kind)) in interfaces else _plain(kind),
            }
            for field, (required, kind) in interfaces[name].items()
        }

    return described(top)


def _block(kind: str) -> str:
    return kind.partition("[]")[0].partition(" ")[0]


def _plain(kind: str) -> str:
    if kind.startswith("{"):
        return "map"
    return kind.partition(" ")[0]


def judge(where: str, body: dict[str, Any], schema: Schema) -> list[str]:
    """What the provider would refuse in a block: unknown and missing arguments, and wrong types."""
    found = [f"{where}: {name} is missing" for name, one in schema.items() if one["required"] and name not in body]
    for name, value in body.items():
        if name not in schema:
            found += [] if name in META else [f"{where}: {name} is unknown"]
        elif isinstance(schema[name]["type"], dict):
            blocks = value if isinstance(value, list) else [value]
            found += [one for block in blocks for one in judge(f"{where}.{name}", block, schema[name]["type"])]
        elif not _fits(value, schema[name]["type"]):
            found.append(f"{where}: {name} is no {schema[name]['type']}: {value!r}")
    return found


def _fits(value: Any, kind: str) -> bool:
    if isinstance(value, str) and re.fullmatch(r"\$\{.*\}", value):
        return True  # an expression; Terraform knows its type
    if kind.endswith("[]"):
        return isinstance(value, list) and all(_fits(one, kind[:-2]) for one in value)
    expected = {"string": str, "number": int, "boolean": bool, "map": dict}[kind]
    return isinstance(value, expected) and (kind != "number" or not isinstance(value, bool))


def fetched() -> dict[str, Schema]:
    """The schemas of the types above, from the package."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=directory, check=True, capture_output=True)
        (archive,) = Path(directory).glob("*.tgz")
        with tarfile.open(archive) as package:
            found = {}
            for name in TYPES:
                member = package.extractfile(f"package/lib/{name.removeprefix('google_').replace('_', '-')}/index.d.ts")
                assert member is not None
                found[name] = parse(member.read().decode())
            return found


if __name__ == "__main__":
    text = json.dumps(fetched(), indent=1, sort_keys=True) + "\n"
    if "--check" in sys.argv and text != FILE.read_text():
        sys.exit(f"{FILE.name} is not what {PACKAGE} says: run python -m tests.support.provider_schema")
    if "--check" not in sys.argv:
        FILE.write_text(text)
