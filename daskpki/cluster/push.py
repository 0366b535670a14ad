"""Pushes a newly published trust document to schedulers, for the command line, which does not import distributed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from distributed.comm.core import CommClosedError, FatalCommClosedError

from daskpki.cluster.audit import Audit
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import issuers_of, trust_of
from daskpki.cluster.security import PkiSecurity
from daskpki.cluster.tls import key_pair
from daskpki.cluster.trust_updates import send_trust
from daskpki.confidential import Confidential
from daskpki.credentials.verified import VerifiedCredential
from daskpki.identity import Role
from daskpki.pki.trust_document import parse_trust

LIMIT: Final = 5.0
"""Seconds for all schedulers to answer."""


class PushAnswer(NamedTuple):
    """Answer of one scheduler: the epoch in force there now, else the reason of the failure.

    `taken` is true if that is the pushed epoch. `refused` is true if the scheduler refused the document, and false if
    it was not reached.
    """

    address: str
    epoch: int | None
    reason: str = ""
    taken: bool = False
    refused: bool = False


def push_trust(
    addresses: Sequence[str], held: VerifiedCredential, latest: Confidential, *, limit: float = LIMIT
) -> list[PushAnswer]:
    """Push a newly published trust document to all schedulers at once, as the client `held`, within `limit` seconds.

    Never raises. The document is public and its signature is the authority, so a scheduler has to prove only that a CA
    of this cluster issued its certificate: a CA of `latest`, or of the document that `held` came with, since a
    scheduler may not have read about a rollover yet.
    """
    document = parse_trust(latest).document
    credential, trust = held.credential, trust_of(document)
    trust = trust._replace(anchors=(*trust.anchors, *held.trust.roots), issuers=trust.issuers | issuers_of(held.trust))
    quiet = Audit(usual=logging.DEBUG)  # the command shows each scheduler's answer
    security = PkiSecurity({Role.CLIENT: Enforcement(credential.identity, key_pair(credential), trust, audit=quiet)})

    async def push_one(address: str) -> PushAnswer:
        arguments = security.get_connection_args(Role.CLIENT.value)  # new for each address: it must be a scheduler's
        try:
            epoch = await asyncio.wait_for(send_trust(address, arguments, latest), limit)
            return PushAnswer(address, epoch, taken=epoch == document.epoch)
        except PermissionError as refusal:
            return PushAnswer(address, None, str(refusal), refused=True)
        except TimeoutError:
            return PushAnswer(address, None, f"no answer within {limit:g} s")
        except FatalCommClosedError as refusal:  # with our own reason, or the other side's
            return PushAnswer(address, None, str(refusal))
        except CommClosedError:
            return PushAnswer(address, None, "it closed the connection")
        except OSError as error:
            return PushAnswer(address, None, str(error) or type(error).__name__)

    async def push_all() -> list[PushAnswer]:
        return list(await asyncio.gather(*map(push_one, addresses)))

    return asyncio.run(push_all())
