"""A further preload of the scheduler: one of the seal's three layers, and no other."""

from __future__ import annotations

import os
from typing import Any

from daskpki.cluster.sealed import audit_hook
from daskpki.cluster.sealed.graphs import accept_checked_graphs
from daskpki.cluster.sealed.helper_pool import Helpers, Limits
from daskpki.cluster.sealed.scheduler import Seal
from daskpki.identity import Role

LAYER = "DASKPKI_TEST_LAYER"


def dask_setup(scheduler: Any) -> None:
    from daskpki.cluster.preload import NODE  # an error where nothing was handed over: not in the tests' own process

    enforcement = NODE.enforcement(Role.SCHEDULER)
    match os.environ[LAYER]:
        case "decoder":
            enforcement.sealed = True
        case "handlers":
            helpers = Helpers(Limits())
            helpers.begin()
            accept_checked_graphs()
            Seal(scheduler, enforcement, helpers).install()
        case "hook":
            audit_hook.install()
