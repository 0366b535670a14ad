"""What a new CA is to be: the options of `daskpki rotate-ca` that say so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.offline import offline_root

if TYPE_CHECKING:
    from daskpki.authority.rollover import Successor
    from daskpki.cli.invocation import Invocation

KeyTypeOption = Annotated[str, typer.Option("--key-type", metavar="K", help="The new CA's: p256, p384 or rsa3072.")]
CaKeyOption = Annotated[
    str | None, typer.Option("--ca-key", metavar="URI", help="Where its key is kept [default: beside the old one's].")
]
RootOption = Annotated[
    Path | None, typer.Option("--offline-root", metavar="FILE", help="Two tiers: the new root's key goes there.")
]
RootPassphraseOption = Annotated[
    Path | None, typer.Option("--root-passphrase-file", metavar="FILE", help="The passphrase of that file.")
]
SealOption = Annotated[
    bool, typer.Option("--ca-passphrase", help="Seal the new key by a passphrase of its own, and ask for it.")
]
LowerOption = Annotated[
    bool,
    typer.Option("--lower-sealing", help="Allow a new key that is less sealed than the old one."),
]


def successor_of(
    invocation: Invocation,
    key_type: str,
    ca_key: str | None,
    offline: Path | None,
    passphrase_file: Path | None,
    permit_dns: Sequence[str] = (),
    *,
    lower_sealing: bool = False,
) -> Successor:
    """What the options say; PolicyError or UsageError for what a CA cannot be."""
    from daskpki.authority.key_types import parse_ca_key_type
    from daskpki.authority.rollover import Successor

    root = offline_root(invocation, offline, passphrase_file)
    return Successor(parse_ca_key_type(key_type), ca_key, root, tuple(permit_dns), lower_sealing)


def seals(invocation: Invocation, asked: bool) -> bool:
    """Whether the new key is sealed because the options say so; it is anyhow when the old one's is."""
    return asked or invocation.ca_passphrase_file is not None
