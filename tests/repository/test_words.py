"""Names of modules are words of the glossary, of the field, or of a command."""

from __future__ import annotations

import re

from daskpki.cli.app import COMMANDS
from tests.support.paths import DOCS, ROOT, tracked

GLOSSARY = DOCS / "explanation" / "glossary.md"

FIELD = {
    "address",
    "alice",
    "api",
    "app",
    "apply",
    "audit",
    "backend",
    "backing",
    "backup",
    "blueprint",
    "browser",
    "checks",
    "child",
    "claim",
    "claims",
    "client",
    "cloud",
    "cloudprovider",
    "cluster",
    "comm",
    "completion",
    "compute",
    "confidential",
    "config",
    "confinement",
    "creation",
    "dashboard",
    "database",
    "deletion",
    "encryption",
    "errors",
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
    "key",
    "keyring",
    "keys",
    "kms",
    "local",
    "log",
    "login",
    "lookup",
    "mount",
    "name",
    "no",
    "observe",
    "opening",
    "operations",
    "options",
    "os",
    "output",
    "page",
    "pending",
    "pickle",
    "pool",
    "port",
    "process",
    "processes",
    "proxy",
    "publication",
    "quoting",
    "renewal",
    "resource",
    "run",
    "saved",
    "seal",
    "security",
    "selection",
    "selftest",
    "server",
    "session",
    "settings",
    "slot",
    "snapshot",
    "socket",
    "stage",
    "story",
    "tables",
    "terraform",
    "tls",
    "trust",
    "update",
    "user",
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
    "saved": "save",
    "selection": "select",
    "verification": "verify",
}
"""Nouns and participles, by the verb that they come from."""

VERBS = {"back", "create", "delete", "open", "publish", "save", "select"}


def stems() -> dict[str, str]:
    modules = [path for path in tracked("daskpki/*.py", "daskpki/**/*.py") if not path.stem.startswith("_")]
    return {path.as_posix(): path.stem for path in modules}


def test_every_word_of_a_module_name_is_known() -> None:
    glossary = set(re.findall(r"[a-z0-9]+", GLOSSARY.read_text().lower()))
    commands = {word for name in COMMANDS for word in name.split("-")}
    known = glossary | commands | FIELD | VERBS
    strange = {
        path: words
        for path, stem in stems().items()
        if (words := [word for word in stem.split("_") if not {word, word.removesuffix("s"), FORMS.get(word)} & known])
    }
    assert not strange


def test_a_private_word_would_be_found() -> None:
    assert "tests" not in {path.split("/")[0] for path in stems()}
    glossary = set(re.findall(r"[a-z0-9]+", GLOSSARY.read_text().lower()))
    assert not glossary & {"press", "telling", "keeper", "undone", "founding", "custody"}


def test_the_glossary_is_short() -> None:
    rows = re.findall(r"^\| \*\*", GLOSSARY.read_text(), re.MULTILINE)
    assert 25 <= len(rows) <= 60
    assert (ROOT / "mkdocs.yml").read_text().count("glossary.md") == 1
