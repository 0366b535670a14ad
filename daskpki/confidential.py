"""Keys, passphrases and payloads: a type that no log, repr or pickle can show, and the protocol of a keyring."""

from __future__ import annotations

from typing import NoReturn, Protocol, final


@final
class Confidential:
    """Bytes that hide from repr, str, format, json and pickle; only `reveal` gives them out.

    Equality is decided in constant time. There is no hash, so that no set or cache keeps a copy by accident.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # unhashable on purpose

    def __init__(self, value: bytes | str) -> None:
        self._value = value.encode() if isinstance(value, str) else bytes(value)

    def reveal(self) -> bytes:
        """The bytes themselves: the one call to look for in a review."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Confidential):
            return NotImplemented
        from hmac import compare_digest  # pulls in hashlib, which a boot has no need of

        return compare_digest(self._value, other._value)

    def __repr__(self) -> str:
        return f"<confidential, {len(self._value)} bytes>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Confidential value is never pickled or copied")


class KeyringPort(Protocol):
    """A keyring whose entries are texts, named by service and username; both are readable while it is locked."""

    def get(self, service: str, username: str) -> Confidential | None:
        """The entry's secret, or None if there is none; AccessDeniedError without a usable keyring."""

    def set(self, service: str, username: str, secret: Confidential) -> None:
        """Write the entry, read it back and compare; AccessDeniedError, UsageError when over 1,280 characters."""

    def delete(self, service: str, username: str) -> None:
        """Remove the entry if there is one; AccessDeniedError."""
