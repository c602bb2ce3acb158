"""Failures of workers are told apart: what a new team may mend, and what it would meet again."""

import errno

import pytest
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from orchestrator.cluster.failures import NeverStarted, judge
from orchestrator.cluster.ray_train import _explain
from orchestrator.datasets.stored_split import DataError, UnusableCache
from orchestrator.store.base import StoreError
from orchestrator.store.cache_folder import CacheError


@pytest.mark.parametrize(
    "failure",
    [
        CacheError("cannot keep x in the cache (No space left on device)"),
        UnusableCache("row 3 cannot be kept"),
        OSError(errno.ENOSPC, "No space left on device", "/tmp/x"),
        OSError(errno.EROFS, "Read-only file system"),
    ],
)
def test_a_disk_that_refuses_would_refuse_again(failure: Exception):
    failed = judge([ConnectionError("the other worker is gone"), failure], "traceback")
    assert failed.reason is failure
    assert str(failure) in str(failed)


@pytest.mark.parametrize("failure", [DataError("row 3"), StoreError("503"), TimeoutError("late")])
def test_lost_workers_are_tried_again_and_say_why(failure: Exception):
    failed = judge([ValueError("a sequel"), failure], "traceback")
    assert failed.reason is None
    assert str(failed) == f"workers were lost ({type(failure).__name__}: {failure})"


def test_what_code_raises_is_its_reason():
    failure = ValueError("no")
    assert judge([failure], "").reason is failure


def test_workers_for_which_ray_found_no_room_never_started():
    waited = ControllerError(WorkerGroupStartupTimeoutError(num_workers=2))
    assert isinstance(_explain(waited), NeverStarted)
    assert not isinstance(_explain(ControllerError(RuntimeError("no"))), NeverStarted)
