"""What is left open is filled in from the cluster, and what can never run is refused."""

import pytest

from orchestrator.cluster.packing import Growth, Machines, NodeType
from orchestrator.cluster.resource_words import describe
from orchestrator.cluster.resources import (
    Request,
    check_batches,
    check_cluster,
    settle,
    settle_kind,
)
from training.config import InputError

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
    resources = settle(request_, Machines(tuple(nodes)))
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
    two = settle(Request(workers=2, cpus_per_worker=8), Machines((LAPTOP,)))
    check_cluster(
        two,
        Machines(
            (
                LAPTOP,
                LAPTOP,
            )
        ),
    )
    with pytest.raises(
        ValueError, match="room for 1 workers with 8 CPUs each, and 2 are asked for"
    ):
        check_cluster(two, Machines((LAPTOP,)))
    with pytest.raises(ValueError, match="room for 0 workers with 1 GPU and 8 CPUs"):
        check_cluster(settle(Request(), Machines((SERVER,))), Machines((LAPTOP,)))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(gpus_per_worker=2), "a worker uses one GPU, and --gpus-per-worker 2 asks"),
        (Request(workers=2, gpus_per_worker=0.5), "2 workers of one step cannot share a GPU"),
        (Request(gpus_per_worker=0, compile=True), "--compile is for GPUs"),
    ],
)
def test_gpus_that_workers_cannot_use_are_refused(request_: Request, message: str):
    with pytest.raises(InputError, match=message):
        settle(request_, Machines((SERVER,)))


def test_compiling_is_for_gpus():
    assert settle(Request(compile=True), Machines((SERVER,))).compile
    assert not settle(Request(), Machines((SERVER,))).compile


HEAD = {"CPU": 0.0, "orchestrator": 64.0}
SPOT = NodeType("spot-gpu", {"CPU": 13.0, "GPU": 1.0}, 8)
ON_DEMAND = NodeType("on-demand", {"CPU": 16.0}, 4)


def test_a_cluster_scaled_to_zero_is_judged_by_what_it_can_add():
    machines = Machines((HEAD,), Growth((ON_DEMAND, SPOT), 10))
    resources = settle(Request(), machines)
    assert (resources.gpus_per_worker, resources.cpus_per_worker) == (1, 8)
    check_cluster(resources, machines)
    said = describe(resources, machines)
    assert said == "each worker gets 1 GPU and 8 CPUs on spot-gpu; up to 8 steps at once"
    on_cpus = settle(Request(gpus_per_worker=0, cpus_per_worker=8), machines)
    # Four machines for two workers each, and six of the other kind for one.
    assert machines.room(on_cpus) == 4 * 2 + 6
    with pytest.raises(InputError, match="room for 0 workers with 32 CPUs each"):
        check_cluster(settle(Request(gpus_per_worker=0, cpus_per_worker=32), machines), machines)


def test_machines_that_live_and_cannot_be_added_count():
    machines = Machines((HEAD, LAPTOP), Growth((SPOT,), 8))
    on_cpus = settle(Request(gpus_per_worker=0, cpus_per_worker=13), machines)
    assert machines.room(on_cpus) == 8
    assert settle(Request(), Machines((HEAD, SERVER), Growth((SPOT,), 8))).gpus_per_worker == 1


def test_a_head_alone_trains_nothing_silently():
    with pytest.raises(InputError, match="no machine of the cluster offers a CPU, and none"):
        settle(Request(), Machines((HEAD,)))
    unseen = Machines((HEAD,), Growth((), 0, known=False))
    asked = settle(Request(cpus_per_worker=4, gpus_per_worker=1), unseen)
    check_cluster(asked, unseen)
    assert not unseen.fixed
    with pytest.raises(InputError, match="whether it can add one cannot be seen"):
        settle(Request(), Machines((HEAD, LAPTOP), Growth((), 0, known=False)))


def test_scores_and_probes_without_a_gpu_leave_cpus_to_the_gpus():
    server = Machines(({"CPU": 64.0, "GPU": 8.0},))
    request = Request(give=("evaluation:gpus=0",))
    for kind in ("evaluation", "probe"):
        given = settle_kind(request, kind, server)
        assert (given.cpus_per_worker, given.gpus_per_worker) == (8, 0)
    assert settle_kind(request, "increment", server).cpus_per_worker == 8
    assert settle_kind(Request(give=("probe:cpus=32",)), "probe", server).cpus_per_worker == 32
    # Training on CPUs was asked for, and may have them all.
    assert settle_kind(Request(gpus_per_worker=0), "base", server).cpus_per_worker == 64
    assert settle_kind(Request(), "probe", Machines((LAPTOP,))).cpus_per_worker == LAPTOP["CPU"]


def test_gpus_that_get_no_worker_are_told():
    # What many Slurm clusters give for --gpus-per-node=8 alone.
    machines = Machines(tuple({"CPU": 1.0, "GPU": 8.0} for _ in range(4)))
    said = describe(settle(Request(), machines), machines)
    assert said == (
        "each worker gets 1 GPU and 1 CPU; up to 4 steps at once; 28 of 32 GPUs stay idle, as CPUs "
        "or memory are too few beside them"
    )
    quarters = Machines(({"CPU": 16.0, "GPU": 2.0},))
    assert "idle" not in describe(settle(Request(gpus_per_worker=0.3), quarters), quarters)
    assert "idle" not in describe(settle(Request(gpus_per_worker=0), machines), machines)
    assert "idle" not in describe(settle(Request(), Machines((LAPTOP,))), Machines((LAPTOP,)))
