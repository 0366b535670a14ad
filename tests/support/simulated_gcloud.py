"""A `Run` that keeps what commands make and answers what `gcloud ... --format=json` would, for tests without gcloud.

It knows the commands that a plan runs and nothing else; that the real CLI takes them is shown in `test_gcloud.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from daskpki import secret_names
from daskpki.deploy.compute import FACTS_KEY
from daskpki.deploy.iam import Command
from daskpki.errors import NotFoundError

Json = dict[str, Any]
LISTS = {
    ("iam", "service-accounts"): "accounts",
    ("compute", "addresses"): "addresses",
    ("compute", "firewall-rules"): "rules",
    ("compute", "instances"): "machines",
    ("compute", "instance-templates"): "templates",
    ("compute", "instance-groups", "managed"): "groups",
}
SUBNET = {
    "name": "dask",
    "network": "projects/p/global/networks/default",
    "region": "regions/europe-west1",
    "privateIpGoogleAccess": True,
}


class SimulatedCloud:
    """One project. `secrets` are the ids of daskpki's secrets, which `daskpki` commands make.

    Those in `kindless` have lost the label of their kind.
    """

    def __init__(self, cluster: str, secrets: Iterable[str] = ()) -> None:
        self.cluster = cluster
        self.items: dict[str, dict[str, Json]] = {kind: {} for kind in LISTS.values()}
        self.services: set[str] = set()
        self.subnets: list[Json] = []
        self.routers: list[Json] = []
        self.secrets = set(secrets)
        self.kindless: set[str] = set()
        self.policies: dict[str, set[tuple[str, str]]] = {}
        self.commands: list[Command] = []

    def __call__(self, command: Command, files: Mapping[str, str]) -> str:
        if command[0] == "daskpki":
            self.commands.append(command)
            self._daskpki(command)
            return ""
        words = tuple(word for word in command[1:] if not word.startswith("--"))
        options = dict(word[2:].partition("=")[::2] for word in command if word.startswith("--"))
        if "format" not in options:
            self.commands.append(command)
        if "user-data" in (named := _pairs(options.get("metadata-from-file", ""))):
            assert files[named["user-data"]].startswith("#cloud-config\n")
        return json.dumps(self._gcloud(words, options, files))

    def _daskpki(self, command: Command) -> None:
        roles = next((word.partition("=")[2] for word in command if word.startswith("--with=")), "")
        made = [f"{role}_{role}" for role in roles.split(",") if role]
        if "init-ca" in command:
            made += ["trust", "records", "cakey_1"]
        if "issue" in command:
            role = command[command.index("issue") + 1]
            count = next((int(word.partition("=")[2]) for word in command if word.startswith("--count=")), 0)
            made += [f"{role}_{role}-{number}" for number in range(count)] or [f"{role}_{role}"]
        self.secrets |= {f"daskpki_{self.cluster}_{name}" for name in made}

    def _gcloud(self, words: tuple[str, ...], options: dict[str, str], files: Mapping[str, str]) -> Any:  # noqa: PLR0911 - one for each command
        if words[:2] == ("services", "enable"):
            self.services.update(words[2:])
            return None
        if words[:2] == ("services", "list"):
            return [{"config": {"name": name}} for name in sorted(self.services)]
        if words[:2] == ("secrets", "list"):
            return [self._secret(name) for name in sorted(self.secrets)]
        if any(word.endswith(("iam-policy", "iam-policy-binding")) for word in words):
            return self._policy(words[-2], words[-1], options)
        if words == ("compute", "networks", "subnets", "list"):
            return self.subnets
        if words == ("compute", "routers", "list"):
            return self.routers
        for prefix, kind in LISTS.items():
            if words[: len(prefix)] == prefix:
                return self._resource(kind, words[len(prefix) :], options, files)
        raise AssertionError(words)

    def _secret(self, name: str) -> Json:
        kind = name.split("_")[2]
        labels = secret_names.labels(self.cluster, kind)
        if name in self.kindless:
            del labels["daskpki-kind"]
        return {"name": f"projects/1/secrets/{name}", "labels": labels}

    def _policy(self, verb: str, resource: str, options: dict[str, str]) -> Json:
        if resource.startswith("daskpki_") and resource not in self.secrets:
            raise NotFoundError(resource)
        bindings = self.policies.setdefault(resource, set())
        if verb.startswith("add"):
            assert options["member"].partition(":")[2] in self.items["accounts"]
            bindings.add((options["role"], options["member"]))
        if verb.startswith("remove"):
            bindings.remove((options["role"], options["member"]))
        return {"bindings": [{"role": role, "members": [member]} for role, member in sorted(bindings)]}

    def _resource(self, kind: str, words: tuple[str, ...], options: dict[str, str], files: Mapping[str, str]) -> Any:
        items = self.items[kind]
        match words:
            case ("list",):
                return list(items.values())
            case ("create", name):
                assert name not in items
                key = f"{name}@project-one.iam.gserviceaccount.com" if kind == "accounts" else name
                items[key] = _listed(kind, name, options, files)
            case ("update", name) if kind == "machines":
                assert "clear-labels" in options
                items[name]["labels"] = _pairs(options["update-labels"])
            case ("add-metadata", name):
                items[name]["metadata"] = _metadata(options, files)
            case ("update", name):
                items[name] |= _listed(kind, name, options, files)
            case ("delete", name):
                del items[name]
            case ("rolling-action", "start-update", name):
                items[name]["instanceTemplate"] = options["version"].partition("=")[2]
            case ("resize", name):
                items[name]["targetSize"] = int(options["size"])
            case ("wait-until", name):
                assert name in items
            case _:
                raise AssertionError(words)
        return None


def simulated(secrets: Sequence[str] = ()) -> SimulatedCloud:
    """With Private Google Access in its subnet."""
    cloud = SimulatedCloud("lab", secrets)
    cloud.subnets = [SUBNET]
    return cloud


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split(",") if pair)


def _metadata(options: dict[str, str], files: Mapping[str, str]) -> Json:
    named = _pairs(options.get("metadata-from-file", ""))
    return {"items": [{"key": FACTS_KEY, "value": files[named[FACTS_KEY]]}]} if named else {}


def _listed(kind: str, name: str, options: dict[str, str], files: Mapping[str, str]) -> Json:
    """What a list shows of a resource made with these options."""
    made = {"metadata": _metadata(options, files), "machineType": f"machineTypes/{options.get('machine-type')}"}
    item: Json = {
        "name": name,
        "email": f"{name}@project-one.iam.gserviceaccount.com",
        "description": options.get("description"),
        "labels": _pairs(options.get("labels", "")),
        "network": f"https://compute/projects/p/global/networks/{options.get('network', '').rpartition('/')[2]}",
        "priority": options.get("priority"),
        "targetServiceAccounts": options.get("target-service-accounts", "").split(","),
        "instanceTemplate": f"https://compute/{options.get('template')}",
        "targetSize": options.get("size"),
        **({place: f"https://compute/{options[place]}" for place in ("zone", "region") if place in options}),
        **({"properties": made} if kind == "templates" else made if kind == "machines" else {}),
    }
    if "action" in options:
        item["allowed" if options["action"] == "ALLOW" else "denied"] = _protocols(options["rules"])
    for option, key in {"source-ranges": "sourceRanges", "source-service-accounts": "sourceServiceAccounts"}.items():
        if option in options:
            item[key] = options[option].split(",")
    unknown = (None, "https://compute/projects/p/global/networks/")
    return {key: value for key, value in item.items() if value not in unknown}


def _protocols(rules: str) -> list[Json]:
    return [{"IPProtocol": rule.partition(":")[0], "ports": [rule.partition(":")[2]]} for rule in rules.split(",")]
