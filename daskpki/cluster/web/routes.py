"""Which HTTP handlers of Dask are served: an allow list by class, whatever routes are configured.

By class and not by path, since a path can be anything: a prefix, a route of the user's configuration, an application
that was added later. What a newer version adds is not served until it was reviewed; the tests start each server and
compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

HEALTH: Final = "distributed.http.health.HealthHandler"
_INFO: Final = "distributed.http.scheduler.info"
_BOKEH: Final = "bokeh.server.views"

ALLOWED: Final = frozenset(
    {
        HEALTH,
        "distributed.http.prometheus.PrometheusNotAvailableHandler",
        "distributed.http.scheduler.json.CountsJSON",
        "distributed.http.scheduler.json.IdentityJSON",
        "distributed.http.scheduler.json.IndexJSON",
        "distributed.http.scheduler.missing_bokeh.MissingBokeh",
        "distributed.http.scheduler.prometheus.core.PrometheusHandler",
        "distributed.http.worker.prometheus.core.PrometheusHandler",
        "distributed.http.utils.redirect.<locals>.Redirect",
        f"{_INFO}.EventstreamHandler",
        f"{_INFO}.Exceptions",
        f"{_INFO}.IndividualPlots",
        f"{_INFO}.Logs",
        f"{_INFO}.Task",
        f"{_INFO}.TaskCallStack",
        f"{_INFO}.Worker",
        f"{_INFO}.WorkerCallStacks",
        f"{_INFO}.WorkerLogs",
        f"{_INFO}.Workers",
        "tornado.web.ErrorHandler",
        "tornado.web.RedirectHandler",
        "tornado.web.StaticFileHandler",
        f"{_BOKEH}.autoload_js_handler.AutoloadJsHandler",
        f"{_BOKEH}.doc_handler.DocHandler",
        f"{_BOKEH}.ico_handler.IcoHandler",
        f"{_BOKEH}.metadata_handler.MetadataHandler",
        f"{_BOKEH}.multi_root_static_handler.MultiRootStaticHandler",
        f"{_BOKEH}.root_handler.RootHandler",
        f"{_BOKEH}.static_handler.StaticHandler",
        f"{_BOKEH}.ws.WSHandler",
    }
)

_API: Final = "distributed.http.scheduler.api"
DENIED: Final[Mapping[str, str]] = {
    "distributed.http.proxy.GlobalProxyHandler": "it connects to whatever address it is asked for",
    "distributed.http.routing.DirectoryHandler": "it lists the files that are served, and fails where Bokeh's are",
    f"{_API}.APIHandler": "the API retires workers for whoever reaches it",
    f"{_API}.RetireWorkersHandler": "it retires workers for whoever reaches it",
    f"{_API}.GetWorkersHandler": "it belongs to the API that retires workers",
    f"{_API}.AdaptiveTargetHandler": "it belongs to the API that retires workers",
    f"{_API}.CheckIdleHandler": "it belongs to the API that retires workers",
}
"""Known, and not served; each with its reason."""


def qualified_name(handler: type) -> str:
    """The name under which a handler class stands in these tables."""
    return f"{handler.__module__}.{handler.__qualname__}"


def why_denied(handler: type) -> str | None:
    """Why a handler is not served; None when it is."""
    name = qualified_name(handler)
    if name in ALLOWED:
        return None
    return DENIED.get(name, f"{name} is no page that daskpki knows")
