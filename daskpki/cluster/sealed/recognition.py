"""In a helper: which of distributed's own closures and plugins a client sent, as a name and plain arguments.

A code object is one of distributed's when it equals what this distributed compiles; everything else is nobody's.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any

from dask.utils import key_split
from distributed.client import performance_report
from distributed.diagnostics import plugin as plugins
from distributed.diagnostics.progressbar import MultiProgressBar, ProgressBar
from distributed.protocol import pickle as dask_pickle


def recognise(operation: str, fields: Mapping[str, bytes]) -> dict[str, Any]:
    """What is asked for, or `{}`."""
    opened = {name: pickle.loads(data) for name, data in fields.items()}  # noqa: S301 - in a helper
    match operation:
        case "feed":
            return _progress(opened.get("setup"), opened.get("function"))
        case "run_function":
            return _count(opened.get("function"))
        case "register_scheduler_plugin":
            return _plugin(opened.get("plugin"))
    return {}


def _is(function: Any, method: Callable[..., Any], name: str) -> bool:
    """Whether it is the function of that name within a method."""
    (own,) = (each for each in method.__code__.co_consts if isinstance(each, CodeType) and each.co_name == name)
    return isinstance(function, FunctionType) and function.__code__ == own


def _progress(setup: Any, function: Any) -> dict[str, Any]:
    for bar in (ProgressBar, MultiProgressBar):
        if _is(setup, bar.listen, "setup") and _is(function, bar.listen, "function"):
            cells = setup.__closure__ or ()
            enclosed = dict(zip(setup.__code__.co_freevars, (cell.cell_contents for cell in cells), strict=True))
            grouped = bar is MultiProgressBar
            if grouped and enclosed["group_by"] is not key_split:
                return {}
            keys, complete = list(enclosed["keys"]), bool(enclosed["complete"])
            return {"named": "progress", "keys": keys, "complete": complete, "grouped": grouped}
    return {}


def _count(function: Any) -> dict[str, Any]:
    return {"named": "count"} if _is(function, performance_report.__aenter__, "<lambda>") else {}


def _plugin(plugin: Any) -> dict[str, Any]:
    if type(plugin) is plugins.SchedulerUploadFile:
        return {"named": "upload", "filename": str(plugin.filename), "data": bytes(plugin.data)}
    if isinstance(plugin, plugins.InstallPlugin):
        kind = plugins._InstallNannyPlugin if plugin.restart_workers else plugins._InstallWorkerPlugin  # noqa: SLF001
        pickled = dask_pickle.dumps(kind(plugin._install_fn, plugin.name))  # noqa: SLF001 - as InstallPlugin.start
        restarts = bool(plugin.restart_workers)
        return {"named": "install", "name": str(plugin.name), "restarts": restarts, "plugin": pickled}
    return {}
