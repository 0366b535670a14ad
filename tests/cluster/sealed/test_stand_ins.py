"""The scheduler's stand-ins compute what the client's own objects would."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from dask._task_spec import Task
from distributed.protocol.core import dumps, loads
from distributed.shuffle._core import ShuffleId
from distributed.shuffle._rechunk import ArrayRechunkSpec
from distributed.shuffle._shuffle import DataFrameShuffleSpec

from daskpki.cluster.sealed.graphs import SealedShuffle, SealedTask
from daskpki.cluster.sealed.tables import _shuffle

WORKERS = ["a", "b", "c"]
META: Any = None
SPECS: list[Any] = [
    ArrayRechunkSpec(id=ShuffleId("x"), disk=False, new=((1, 2), (3,), (1,) * 5), old=((3,), (3,), (5,))),
    DataFrameShuffleSpec(
        id=ShuffleId("x"), disk=True, npartitions=7, column="a", meta=META, parts_out=7, drop_column=False
    ),
    DataFrameShuffleSpec(
        id=ShuffleId("x"), disk=True, npartitions=9, column="a", meta=META, parts_out=[1, 4, 8], drop_column=False
    ),
]


@pytest.mark.every_version
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_a_shuffle_goes_where_dasks_own_would(spec: Any) -> None:
    fields = _shuffle(spec)
    assert fields is not None
    kind, name, lengths, parts, pickled = fields
    stand_in = SealedShuffle(name, disk=False, kind=kind, lengths=lengths, parts=parts, pickled=pickled)
    partitions = list(spec.output_partitions)
    assert list(stand_in.output_partitions) == partitions
    assert [stand_in.pick_worker(each, WORKERS) for each in partitions] == [
        spec.pick_worker(each, WORKERS) for each in partitions
    ]
    assert type(pickle.loads(pickle.dumps(stand_in))) is type(spec)  # noqa: S301 - our own


@pytest.mark.every_version
def test_a_worker_gets_the_clients_own_task() -> None:
    task = Task("x", sum, [1, 2])
    stand_in = SealedTask("x", frozenset(), pickle.dumps(task), (), producer=False)
    assert loads(dumps({"run_spec": stand_in.for_worker()}))["run_spec"]() == 3
    assert pickle.loads(pickle.dumps(stand_in))() == 3  # noqa: S301 - our own
