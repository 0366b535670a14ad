"""The list filter language (AIP-160) as far as Secret Manager documents it, compiled to a predicate.

`field:text` finds a substring without regard to case (`*` anything at all), `field=value` compares whole values, `<`
and `>` compare times; `labels.KEY` reaches into the map and `labels:KEY` asks for the key. AND, OR, NOT, `-` and
parentheses join them, where OR binds tighter than AND, and juxtaposition is AND.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from tests.servers.messages import STATE_NAMES, Pb, SecretVersion
from tests.servers.status import ApiError, invalid

Predicate = Callable[[Pb], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<paren>[()])"
    r"|(?P<word>(?:\"(?:[^\"\\]|\\.)*\"|[^\s()=:<>!\"])+)(?:\s*(?P<op><=|>=|!=|=|<|>|:)\s*(?P<value>\"(?:[^\"\\]|\\.)*\"|[^\s()]+))?)"
)


def parse_filter(text: str) -> Predicate:
    """Compile a filter; an empty one matches everything.

    Raises:
        ApiError: INVALID_ARGUMENT, if it cannot be read.
    """
    if not text.strip():
        return lambda _: True
    tokens = _Tokens(text)
    predicate = _conjunction(tokens)
    if tokens.peek():
        raise tokens.error()
    return predicate


class _Tokens:
    def __init__(self, text: str) -> None:
        self.text = text
        self._rest = list(self._split(text))

    def _split(self, text: str) -> Iterator[re.Match[str]]:
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if not match:
                raise self.error()
            yield match
            position = match.end()

    def peek(self) -> str:
        """The next token's text, empty at the end."""
        return self._rest[0][0].strip() if self._rest else ""

    def take(self) -> re.Match[str]:
        if not self._rest:
            raise self.error()
        return self._rest.pop(0)

    def error(self) -> ApiError:
        return invalid(f"Invalid filter: [{self.text}].")


def _conjunction(tokens: _Tokens) -> Predicate:
    terms = [_disjunction(tokens)]
    while tokens.peek() and tokens.peek() != ")":
        if tokens.peek() == "AND":
            tokens.take()
        terms.append(_disjunction(tokens))
    return lambda message: all(term(message) for term in terms)


def _disjunction(tokens: _Tokens) -> Predicate:
    terms = [_term(tokens)]
    while tokens.peek() == "OR":
        tokens.take()
        terms.append(_term(tokens))
    return lambda message: any(term(message) for term in terms)


def _term(tokens: _Tokens) -> Predicate:
    token = tokens.take()
    if token[0].strip() == "NOT":
        inner = _term(tokens)
        return lambda message: not inner(message)
    if token["paren"] == "(":
        group = _conjunction(tokens)
        if tokens.take()["paren"] != ")":
            raise tokens.error()
        return group
    if token["paren"] or token["word"] in ("AND", "OR"):
        raise tokens.error()
    word = token["word"]
    if word.startswith("-"):
        negated = _comparison(tokens, word[1:], token)
        return lambda message: not negated(message)
    return _comparison(tokens, word, token)


def _comparison(tokens: _Tokens, field: str, token: re.Match[str]) -> Predicate:
    operator, value = token["op"], _unquoted(token["value"] or "")
    if operator is None:
        operator, value, field = ":", _unquoted(field), "name"
    compare = _COMPARE[operator]
    path = re.sub(r"([a-z])([A-Z])", lambda m: f"{m[1]}_{m[2].lower()}", field) if "." not in field else field
    root = path.partition(".")[0]
    if root not in SecretVersion.DESCRIPTOR.fields_by_name and root not in _SECRET_FIELDS:
        raise tokens.error()
    return lambda message: compare(_values(message, path), value)


_SECRET_FIELDS = ("labels", "annotations", "topics", "expire_time", "rotation", "replication", "version_aliases")


def _values(message: Pb, path: str) -> list[str]:
    """A field's values as text; a map's keys, and none where the field is not set."""
    name, _, rest = path.partition(".")
    if name not in message.DESCRIPTOR.fields_by_name:
        return []
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        return [str(value[_unquoted(rest)])] if rest and _unquoted(rest) in value else [] if rest else list(value)
    if name == "state":
        return [STATE_NAMES.get(value, "")]
    repeated = list(value) if not isinstance(value, str) and hasattr(value, "append") else [value]
    if field.message_type and not rest and len(repeated) == 1 and repeated[0] is value:
        return [_text(value)] if message.HasField(name) else []
    return [text for item in repeated for text in (_values(item, rest) if rest else [_text(item)])]


def _text(value: Pb) -> str:
    return value.ToJsonString() if isinstance(value, Timestamp) else str(value)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if len(text) > 1 and text[0] == text[-1] == '"' else text


def _has(values: list[str], wanted: str) -> bool:
    pattern = re.compile(".*".join(map(re.escape, wanted.split("*"))), re.IGNORECASE)
    return any(pattern.search(value) for value in values)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise invalid(f"Invalid filter: [{text}] is not a timestamp.") from None


_COMPARE: dict[str, Callable[[list[str], str], bool]] = {
    ":": _has,
    "=": lambda values, wanted: wanted in values,
    "!=": lambda values, wanted: wanted not in values,
    "<": lambda values, wanted: any(_time(value) < _time(wanted) for value in values),
    "<=": lambda values, wanted: any(_time(value) <= _time(wanted) for value in values),
    ">": lambda values, wanted: any(_time(value) > _time(wanted) for value in values),
    ">=": lambda values, wanted: any(_time(value) >= _time(wanted) for value in values),
}
