"""Parses `client/alice`, `client alice`, `alice` and `--name alice`, alike for every command.

A role's word is never a name where a name is expected (`login client`), and contradicting names are refused.
"""

from __future__ import annotations

from daskpki.errors import UsageError
from daskpki.identity import Role, default_name, parse_label, parse_role


def parse_role_and_name(first: str, second: str | None = None, option: str | None = None) -> tuple[Role, str]:
    """ROLE/NAME, or ROLE with the name as second word or by `--name`; scheduler and worker default to their role."""
    role_text, slash, inner = first.partition("/")
    role = parse_role(role_text)
    if second is not None and second.isdecimal():
        raise UsageError(f"{second!r} as a name looks like a number of {role.value}s", hint=f"--count {second}")
    given = {name for name in (inner if slash else None, second, option) if name is not None}
    if len(given) > 1:
        raise UsageError(
            f"the name is given as {' and as '.join(sorted(given))}", hint=f"{role.value}/NAME says it once"
        )
    return role, _name(given.pop(), role) if given else default_name(role)


def parse_client(positional: str | None, option: str | None = None) -> str | None:
    """A client's name, `alice` or `client/alice`; None where neither says one."""
    if positional is None:
        return None if option is None else parse_client(option)
    if option is not None and parse_client(option) != parse_client(positional):
        raise UsageError(f"the name is given as {positional} and as {option}", hint="say it once")
    role_text, slash, inner = positional.partition("/")
    if not slash:
        return _name(positional, Role.CLIENT)
    if parse_role(role_text) is not Role.CLIENT:
        raise UsageError(f"{positional} is no person or service", hint=f"for example client/{inner}")
    return _name(inner, Role.CLIENT)


def _name(text: str, role: Role) -> str:
    """The name; UsageError for a role's word, save where it is the default name of that role."""
    if text in set(Role) and (text != role.value or role is Role.CLIENT):
        raise UsageError(f"{text!r} is a role, and a name is expected", hint=f"for example {role.value}/NAME")
    return parse_label(text, "name")
