"""The list filter language (AIP-160) as far as Secret Manager documents it, compiled to a predicate.

`field:text` finds a substring without regard to case (`*` anything at all), `field=value` compares whole values, `<`
and `>` compare times; `labels.KEY` reaches into the map and `labels:KEY` asks for the key; a word by itself is part
of the name. AND, OR, NOT, `-` and parentheses join them; OR binds tighter than AND, and juxtaposition is AND.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from tests.emulator.filter_fields import KNOWN_FIELDS, values_of
from tests.emulator.messages import Pb
from tests.emulator.status import ApiError, invalid

Predicate = Callable[[Pb], bool]
Token = re.Match[str]

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<paren>[()])
    | (?P<word>(?:"(?:[^"\\]|\\.)*"|[^\s()=:<>!"])+)
      (?:\s*(?P<op><=|>=|!=|[=<>:])\s*(?P<value>"(?:[^"\\]|\\.)*"|[^\s()]+))?
    )""",
    re.VERBOSE,
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
    """The tokens of a filter, taken one by one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._rest = list(self._split(text.rstrip()))

    def _split(self, text: str) -> Iterator[Token]:
        position = 0
        while position < len(text):
            token = _TOKEN.match(text, position)
            if not token:
                raise self.error()
            yield token
            position = token.end()

    def peek(self) -> str:
        """The next token's text, empty at the end."""
        return self._rest[0][0].strip() if self._rest else ""

    def take(self) -> Token:
        """The next token, which has to be there."""
        if not self._rest:
            raise self.error()
        return self._rest.pop(0)

    def error(self) -> ApiError:
        """The refusal of this filter."""
        return invalid(f"Invalid filter: [{self._text}].")


def _conjunction(tokens: _Tokens) -> Predicate:
    terms = [_disjunction(tokens)]
    while tokens.peek() not in ("", ")"):
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
    text = token[0].strip()
    if text == "NOT":
        return _negation(_term(tokens))
    if text == "(":
        group = _conjunction(tokens)
        if tokens.take()[0].strip() != ")":
            raise tokens.error()
        return group
    if text in (")", "AND", "OR"):
        raise tokens.error()
    if text.startswith("-"):
        return _negation(_comparison(tokens, token, token["word"][1:]))
    return _comparison(tokens, token, token["word"])


def _negation(predicate: Predicate) -> Predicate:
    return lambda message: not predicate(message)


def _comparison(tokens: _Tokens, token: Token, word: str) -> Predicate:
    if token["op"] is None:
        return lambda message: _contains(values_of(message, ["name"]), _unquoted(word))
    compare, wanted = _COMPARE[token["op"]], _unquoted(token["value"])
    path = [_unquoted(step) for step in word.split(".")]
    if path[0] not in KNOWN_FIELDS:
        raise tokens.error()
    return lambda message: compare(values_of(message, path), wanted)


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if quoted else text


def _contains(values: list[str], wanted: str) -> bool:
    pattern = re.compile(".*".join(map(re.escape, wanted.split("*"))), re.IGNORECASE)
    return any(pattern.search(value) for value in values)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(f"Invalid filter: [{text}] is not a timestamp.") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


_COMPARE: dict[str, Callable[[list[str], str], bool]] = {
    ":": _contains,
    "=": lambda values, wanted: wanted in values,
    "!=": lambda values, wanted: wanted not in values,
    "<": lambda values, wanted: any(_time(value) < _time(wanted) for value in values),
    "<=": lambda values, wanted: any(_time(value) <= _time(wanted) for value in values),
    ">": lambda values, wanted: any(_time(value) > _time(wanted) for value in values),
    ">=": lambda values, wanted: any(_time(value) >= _time(wanted) for value in values),
}
