"""The bar of tabs on top of Dask's dashboard, and how ours gets into it.

Bokeh's pages render the list that belongs to their scheduler (`template_variables` remembers one for each), so the tab
is added to that list. Where there is no Bokeh, there is no bar but our own.
"""

from __future__ import annotations

from typing import Any, Final

from daskpki.cluster.roles import Server

TAB: Final = "daskpki"
_WITHOUT_BOKEH: Final = ("info",)


def tabs_of(server: Any, kind: Server) -> list[str]:
    """The pages that the bar shows, ours among them."""
    if kind is not Server.SCHEDULER:
        return []
    tabs = _dasks_own(server)
    if TAB not in tabs:
        tabs.append(TAB)
    return tabs


def _dasks_own(scheduler: Any) -> list[str]:
    if not scheduler.http_application.applications:
        return list(_WITHOUT_BOKEH)
    from distributed.dashboard.scheduler import template_variables

    pages: list[str] = template_variables(scheduler)["pages"]
    return pages
