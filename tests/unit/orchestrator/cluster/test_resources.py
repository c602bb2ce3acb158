"""What is left open is filled in from the cluster, and what can never run is refused."""

import pytest

from orchestrator.cluster.resources import Request, check_batches, check_cluster, settle

LAPTOP = {"CPU": 8.0, "memory": 1e9}
SERVER = {"CPU": 64.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("request_", "nodes", "expected"),
    [
        (Request(), [LAPTOP], (8, 0, 0)),
        (Request(workers=2), [LAPTOP], (4, 0, 0)),
        (Request(workers=2, cpus_per_worker=1, loader_workers=1), [LAPTOP], (1, 0, 1)),
        (Request(), [LAPTOP, SERVER], (8, 1, 7)),
        (Request(gpus_per_worker=0), [SERVER], (64, 0, 0)),
        (Request(gpus_per_worker=0.125), [SERVER], (2, 0.125, 1)),
    ],
)
def test_settle(request_: Request, nodes: list, expected: tuple):
    resources = settle(request_, nodes)
    assert (
        resources.cpus_per_worker,
        resources.gpus_per_worker,
        resources.loader_workers,
    ) == expected
    assert resources.workers == request_.workers


def test_workers_must_divide_the_batch():
    check_batches(4, [24, 16])
    with pytest.raises(
        ValueError, match="5 workers cannot share a batch of 24 images evenly: use 4 workers"
    ):
        check_batches(5, [24])


def test_a_cluster_too_small_is_refused():
    two = settle(Request(workers=2, cpus_per_worker=8), [LAPTOP])
    check_cluster(two, [LAPTOP, LAPTOP])
    with pytest.raises(ValueError, match="room for 1 workers with 8 CPU each, and 2 are asked for"):
        check_cluster(two, [LAPTOP])
    with pytest.raises(ValueError, match="room for 0 workers with 8 CPU and 1 GPU"):
        check_cluster(settle(Request(), [SERVER]), [LAPTOP])
