"""`daskpki report`: the inventory as a page for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from daskpki.cli.invocation import Invocation


def report(
    ctx: typer.Context,
    html: Annotated[Path, typer.Option("--html", metavar="FILE", help="The page to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Draw what was issued: when it ends, who holds what, what was revoked and why, the CA's chain.

    Example:  [bold]daskpki report --html certificates.html[/bold]

    One page for any browser, which loads nothing else. It holds names and serials, and no keys.
    """
    from daskpki.authority.report import gather
    from daskpki.authority.report_page import page
    from daskpki.files import write_private

    invocation: Invocation = ctx.obj
    with invocation.authority() as authority:
        found = gather(authority.session)
    write_private(html, page(found).encode(), force=force)
    document = {"file": str(html), "certificates": found.states.total(), "states": dict(found.states)}
    invocation.output.result(document, [f"wrote {html}"])
