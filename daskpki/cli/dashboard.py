"""`daskpki dashboard`: the scheduler's dashboard in this user's browser, by the login."""

from __future__ import annotations

import os
from functools import partial
from typing import Annotated

import typer

from daskpki.cli.invocation import Invocation
from daskpki.settings import home


def dashboard(
    invocation: Invocation,
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="tls://HOST:PORT", show_default="the first one of your login", help="Address of the scheduler."
        ),
    ] = None,
    dashboard_address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", show_default="ask the scheduler", help="Address of its dashboard."),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser, or print the file to open in one.")
    ] = True,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65_535, show_default="a free one", help="Port on 127.0.0.1.")
    ] = 0,
) -> None:
    """Show a scheduler's dashboard in your browser; the scheduler runs with --dashboard mtls.

    Example:  [bold]daskpki dashboard[/bold]

    It serves 127.0.0.1 until Ctrl-C, for you alone, and speaks to the scheduler by mutual TLS with your login.
    """
    import asyncio
    import webbrowser

    from daskpki.credentials.contexts import parse_scheduler
    from daskpki.dashboard.browser import serve
    from daskpki.dashboard.proxy import parse_location, upstream_of

    target = parse_scheduler(address) if address is not None else None
    location = parse_location(dashboard_address) if dashboard_address is not None else None
    upstream = upstream_of(target, location, invocation.environment())
    open_page = webbrowser.open if browser else lambda _url: False
    tell = partial(print, flush=True)
    asyncio.run(serve(upstream, port=port, home=home(os.environ), open_page=open_page, tell=tell))
