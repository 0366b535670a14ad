"""Names of modules are words of the glossary, of the field, or of a command."""

from __future__ import annotations

import re

import pytest

from daskpki.cli.app import COMMANDS
from tests.support.paths import DOCS, ROOT, tracked

GLOSSARY = DOCS / "explanation" / "glossary.md"

FIELD = {
    "address",
    "api",
    "app",
    "apply",
    "backend",
    "backing",
    "backup",
    "browser",
    "certificate",
    "checks",
    "child",
    "claims",
    "client",
    "cloud",
    "cloudprovider",
    "cluster",
    "comm",
    "compute",
    "confidential",
    "config",
    "confinement",
    "creation",
    "dashboard",
    "dask",
    "database",
    "deletion",
    "encryption",
    "errors",
    "fetch",
    "field",
    "file",
    "files",
    "format",
    "gcloud",
    "google",
    "graphs",
    "health",
    "helper",
    "hook",
    "http",
    "iam",
    "init",
    "invocation",
    "issuance",
    "issuer",
    "json",
    "jupyter",
    "keyring",
    "keys",
    "kms",
    "launch",
    "local",
    "lookup",
    "name",
    "no",
    "observe",
    "opening",
    "operations",
    "options",
    "os",
    "output",
    "page",
    "peer",
    "pending",
    "pickle",
    "pool",
    "port",
    "process",
    "processes",
    "proxy",
    "publication",
    "quoting",
    "record",
    "renewal",
    "run",
    "saved",
    "security",
    "selection",
    "selftest",
    "server",
    "session",
    "settings",
    "socket",
    "table",
    "tables",
    "terraform",
    "tls",
    "update",
    "value",
    "values",
    "view",
}
"""Words that every reader of this field knows, and that the glossary need not explain."""

FORMS = {
    "backing": "back",
    "creation": "create",
    "deletion": "delete",
    "issuance": "issue",
    "issuer": "issue",
    "opening": "open",
    "publication": "publish",
    "renewal": "renew",
    "revocation": "revoke",
    "saved": "save",
    "selection": "select",
    "signed": "sign",
    "verified": "verify",
}
"""Nouns and participles, by the verb that they come from."""

VERBS = {"back", "create", "delete", "open", "publish", "save", "select"}


def stems() -> dict[str, str]:
    modules = [path for path in tracked("daskpki/*.py", "daskpki/**/*.py") if not path.stem.startswith("_")]
    return {path.as_posix(): path.stem for path in modules}


def terms() -> set[str]:
    """The words of the glossary's terms, which are bold, not of their explanations."""
    found = re.findall(r"\*\*(.+?)\*\*", GLOSSARY.read_text())
    return set(re.findall(r"[a-z0-9]+", " ".join(found).lower()))


def strange(modules: dict[str, str]) -> dict[str, list[str]]:
    """By module, the words of its name that neither the glossary nor the field nor a command has."""
    commands = {word for name in COMMANDS for word in name.split("-")}
    known = terms() | commands | FIELD | VERBS
    return {
        path: words
        for path, stem in modules.items()
        if (words := [word for word in stem.split("_") if not forms(word) & known])
    }


def forms(word: str) -> set[str]:
    return {word, word.removesuffix("s"), FORMS.get(word, word)}


def test_every_word_of_a_module_name_is_known() -> None:
    assert not strange(stems())


@pytest.mark.parametrize("private", ["press", "telling", "keeper", "undone", "founding", "custody", "trust_keeper"])
def test_a_private_word_is_found(private: str) -> None:
    path = f"daskpki/cluster/{private}.py"
    assert strange({path: private}) == {path: [private.rpartition("_")[2]]}


def test_the_field_has_no_word_too_many() -> None:
    used = {word for stem in stems().values() for part in stem.split("_") for word in forms(part)}
    assert not FIELD - used
    assert not FIELD & terms(), "the glossary has them"


def test_the_glossary_is_short() -> None:
    rows = re.findall(r"^\| \*\*", GLOSSARY.read_text(), re.MULTILINE)
    assert 25 <= len(rows) <= 60
    assert (ROOT / "mkdocs.yml").read_text().count("glossary.md") == 1
