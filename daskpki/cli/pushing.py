"""After a publication: the cluster's schedulers are told at once, instead of when they look themselves.

It is a courtesy. The document is in the store by then, and nodes look there every minute, so that whatever goes wrong
here is said and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from daskpki.errors import DaskpkiError, NotFoundError

if TYPE_CHECKING:
    from daskpki.authority import CertificateAuthority
    from daskpki.cli.invocation import Invocation
    from daskpki.cluster.telling import Answer

PushOption = Annotated[
    bool, typer.Option("--push/--no-push", help="Tell the scheduler at once, by your own client credential.")
]
SchedulerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scheduler",
        envvar="DASKPKI_SCHEDULER",
        metavar="ADDRESS",
        help="Which one; without it, those that your login and the trust document know.",
    ),
]
IN_TIME: Final = "nodes learn of it within a minute"


class Tell(NamedTuple):
    """What the two options say: whether to tell, and whom (None: all that are known)."""

    asked: bool
    schedulers: Sequence[str] | None


def push_news(invocation: Invocation, authority: CertificateAuthority, tell: Tell, *, expected: bool = True) -> None:
    """Take the newest trust document to the schedulers, and say what became of it; nothing is raised.

    Unless it is `expected`, that there is nobody to tell, or nobody to tell it as, goes without saying.
    """
    try:
        answers = _tell(invocation, authority, tell.schedulers) if tell.asked else []
    except DaskpkiError as error:
        if expected or not isinstance(error, NotFoundError):
            invocation.output.hint(f"{IN_TIME} (no scheduler was told at once: {error})")
        return
    for answer in answers:
        _say(invocation, answer)
    if expected and not answers:
        invocation.output.hint(IN_TIME)


def _tell(invocation: Invocation, authority: CertificateAuthority, given: Sequence[str] | None) -> list[Answer]:
    from daskpki.cli.people import surroundings
    from daskpki.credentials.addresses import parse_scheduler
    from daskpki.credentials.choice import Wanted
    from daskpki.credentials.sources import obtain

    found = obtain(Wanted(cluster=invocation.cluster), surroundings(invocation))
    head = authority.session.anchor.chain.head()
    assert head is not None, "published a moment ago"
    latest = head.payload
    known = dict.fromkeys((*found.schedulers, *latest.signed.document.schedulers))
    addresses = [parse_scheduler(address) for address in given or known]
    if not addresses:
        raise NotFoundError("no address is known, --scheduler tls://HOST:PORT gives one")
    from daskpki.cluster.telling import tell  # distributed takes a quarter of a second

    return tell(addresses, found.held, latest.data)


def _say(invocation: Invocation, answer: Answer) -> None:
    if answer.epoch is not None:
        then = "and tells the others" if answer.taken else "which is later than this one, and was not changed"
        invocation.output.hint(f"{answer.address} goes by trust epoch {answer.epoch} now, {then}")
    elif answer.refused:
        invocation.output.warn(f"{answer.address} did not accept the trust document: {answer.reason}")
    else:
        invocation.output.hint(f"{answer.address} was not told ({answer.reason}); {IN_TIME}")
