"""What a scheduler asks of a helper, and what an honest helper answers."""

from __future__ import annotations

from typing import Any

import msgpack
from dask._expr import LLGExpr
from distributed.protocol import core
from distributed.protocol.serialize import Serialized, ToPickle, serialize, to_serialize

MOST = 1000


def request(tasks: dict[str, Any], **fields: Any) -> list[Any]:
    """What a scheduler asks of a helper about a graph."""
    expression = Serialized(*serialize(to_serialize(LLGExpr(tasks)), on_error="raise"))
    usual: dict[str, Any] = {
        "keys": list(tasks),
        "internal_priority": None,
        "code": (),
        "annotations": {},
        "span_metadata": {},
    }
    opened = {"code", "annotations", "span_metadata"}
    wrapped = {name: ToPickle(value) if name in opened else value for name, value in (usual | fields).items()}
    return core.dumps({"expr_ser": expression, "validate": False, "config": {}} | wrapped)


def table(**fields: Any) -> list[bytes]:
    """A helper's answer about two tasks, the second after the first, and a key of somebody else's."""
    usual = {
        "keys": ["other", "a", "b"],
        "dependencies": [[0], [1]],
        "nodes": [b"1", b"2"],
        "producers": [True, False],
        "priorities": [0, 1],
        "blobs": [b"x"],
        "buffers": {1: [0]},
        "shuffles": {1: ["array", "id", [2, 3], [], b"spec"]},
        "annotations": {"retries": [[0, 2]]},
        "for_all": {"priority": 3},
        "code": [["x = 1", 1, 1, "f"]],
        "span_metadata": {"collections": [{"type": "x"}]},
    }
    return [msgpack.packb(usual | fields)]
