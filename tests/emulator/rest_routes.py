"""The REST routes, read from the official client's own tables so that none is invented, and their transcoding.

A route's template binds parts of the path to fields of the request, its body rule says which field the JSON body is,
and what is left comes from the query (google/api/http.proto).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from google.cloud.secretmanager_v1.services.secret_manager_service.transports import rest_base
from google.protobuf import json_format

from tests.emulator.messages import METHODS, Pb
from tests.emulator.status import ApiError, invalid

# System parameters of every Google API, which are not fields of the request.
_SYSTEM = frozenset(
    ("alt", "key", "prettyPrint", "quotaUser", "fields", "access_token", "callback", "uploadType", "oauth_token")
)
_VARIABLE = re.compile(r"\{([\w.]+)=([^}]*)\}")


@dataclass(frozen=True)
class Route:
    """One way to call one method."""

    rpc: str
    verb: str
    pattern: re.Pattern[str]
    fields: tuple[str, ...]
    body: str


@dataclass(frozen=True)
class Match:
    """A method, and the fields of its request that the path fixes."""

    route: Route
    bound: Mapping[str, str]


def _routes() -> Iterator[Route]:
    """All HTTP options of all methods of the client's transport."""
    transport = rest_base._BaseSecretManagerServiceRestTransport
    for name, member in vars(transport).items():
        if name.startswith("_Base") and hasattr(member, "_get_http_options"):
            for option in member._get_http_options():
                yield _compiled(name.removeprefix("_Base"), option)


def _compiled(rpc: str, option: Mapping[str, str]) -> Route:
    fields: list[str] = []
    pattern, position = "", 0
    for variable in _VARIABLE.finditer(option["uri"]):
        fields.append(variable[1])
        pattern += re.escape(option["uri"][position : variable.start()])
        pattern += "(" + variable[2].replace("*", "[^/:]+") + ")"
        position = variable.end()
    pattern += re.escape(option["uri"][position:])
    return Route(rpc, option["method"].upper(), re.compile(pattern), tuple(fields), option.get("body", ""))


ROUTES = tuple(_routes())


def find_route(verb: str, path: str) -> Match | None:
    """The method that a request calls, None if there is none."""
    for route in ROUTES:
        found = route.pattern.fullmatch(path) if route.verb == verb else None
        if found:
            return Match(route, dict(zip(route.fields, map(unquote, found.groups()), strict=True)))
    return None


def read_request(match: Match, query: str, body: bytes) -> Pb:
    """The protobuf request that a REST request means.

    Raises:
        ApiError: INVALID_ARGUMENT for JSON or parameters that do not fit.
    """
    request = METHODS[match.route.rpc][0]()
    _read_body(match.route, body, request)
    _read_query(query, request)
    for field, value in match.bound.items():
        owner = request
        *parents, leaf = field.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, leaf, value)
    return request


def enums_as_numbers(query: str) -> bool:
    """Whether the caller asks for enums as numbers, as the official client does."""
    return ("$alt", "json;enum-encoding=int") in parse_qsl(query)


def _read_body(route: Route, body: bytes, request: Pb) -> None:
    if not body.strip():
        return
    if not route.body:
        raise invalid("Request must not have a body.")
    target = request if route.body == "*" else getattr(request, route.body)
    try:
        json_format.Parse(body, target)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise _bad_json(error) from None
    if target is not request:
        target.SetInParent()


def _read_query(query: str, request: Pb) -> None:
    tree: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.startswith("$") or name in _SYSTEM:
            continue
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = _camel_mask(value) if leaf in ("updateMask", "update_mask") else value
    try:
        json_format.ParseDict(tree, request)
    except json_format.ParseError as error:
        raise _bad_json(error) from None


def _camel_mask(mask: str) -> str:
    """Field masks may come in either case; protobuf's JSON knows one."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), mask)


def _bad_json(error: Exception) -> ApiError:
    return invalid(f"Invalid JSON payload received. {error}")


def render(message: Pb, *, numbers: bool) -> bytes:
    """A reply's JSON."""
    text = json_format.MessageToJson(message, use_integers_for_enums=numbers, ensure_ascii=False)
    return (text + "\n").encode()


def render_error(error: ApiError) -> bytes:
    """An error's JSON (AIP-193)."""
    body: dict[str, Any] = {"code": error.http_status, "message": error.message, "status": error.status}
    details = [json_format.MessageToDict(detail) for detail in error.rpc_status().details]
    if details:
        body["details"] = details
    return (json.dumps({"error": body}, indent=2) + "\n").encode()
