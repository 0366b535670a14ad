"""IAM conditions, as much CEL as grants by name need: comparisons of `resource.*` joined by `&&` and `||`.

`resource.name` holds the project's number, and a version's name begins with its secret's, as in the real IAM; for
`secrets.create` and `secrets.list` it is the project, so a condition on a secret's prefix never grants those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.emulator.status import invalid

_TERM = re.compile(
    r"""\s*resource\.(?P<field>name|type|service)\s*
    (?:\.(?P<call>startsWith|endsWith)\(\s*(?P<arg>"[^"]*"|'[^']*')\s*\)
      |(?P<op>==|!=)\s*(?P<value>"[^"]*"|'[^']*'))\s*""",
    re.VERBOSE,
)


def holds(expression: str, resource: Mapping[str, str]) -> bool:
    """Whether a condition is true of a resource; an empty one always is.

    Args:
        expression: The CEL text.
        resource: `name`, `type` and `service`.

    Raises:
        ApiError: INVALID_ARGUMENT, if the expression is outside the subset; a test must not pass by accident.
    """
    if not expression.strip():
        return True
    alternatives = [option.split("&&") for option in expression.split("||")]
    values = [[_term(term, resource) for term in terms] for terms in alternatives]
    return any(all(option) for option in values)


def _term(text: str, resource: Mapping[str, str]) -> bool:
    match = _TERM.fullmatch(text)
    if not match:
        raise invalid(f"The condition [{text.strip()}] is not in the subset of CEL that this server knows.")
    actual = resource[match["field"]]
    if match["call"]:
        wanted = match["arg"][1:-1]
        return actual.startswith(wanted) if match["call"] == "startsWith" else actual.endswith(wanted)
    return (actual == match["value"][1:-1]) is (match["op"] == "==")
