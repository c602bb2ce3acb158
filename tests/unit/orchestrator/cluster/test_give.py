"""What a kind of work is given is read alike from options and campaign files."""

import pytest

from orchestrator.cluster.give import Give, gives_of_file, parse_give, step_kind
from orchestrator.cluster.packing import Machines
from orchestrator.cluster.resources import Request, settle_kind, shares
from training.config import InputError

GPUS = {"CPU": 16.0, "GPU": 2.0, "memory": 64e9, "accelerator_type:A100": 1.0}
CPUS = {"CPU": 32.0, "memory": 64e9, "fast_disk": 1.0}


def test_a_gift_has_a_kind_and_fields():
    given = parse_give("increment: gpus=0.25, memory=8,accelerator=A100,resource.fast_disk=0.5")
    assert given == Give(
        kind="increment", gpus=0.25, memory=8, accelerator="A100", custom=("fast_disk=0.5",)
    )
    file = {"base": {"gpus": 1, "placement": "SPREAD"}, "probe": {"cpus": 2}}
    assert gives_of_file(file) == ("base:gpus=1,placement=SPREAD", "probe:cpus=2")
    assert (step_kind(0), step_kind(3)) == ("base", "increment")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("increments:gpus=1", "does not say what a kind of work is given: write increment:gpus"),
        ("base", "does not say what"),
        ("base:gpus", "'gpus' of 'base:gpus' has no value"),
        ("base:gpu=1", "gives 'gpu', which is none of workers, cpus, gpus"),
        ("increment:kind=base,cpus=1", "gives 'kind', which is none of workers"),
        ("base:custom=3", "gives 'custom', which is none of workers"),
        ("base:gpus=1,accelerator=", "'accelerator=' of .* has no value: write it as in increment"),
        ("base:gpus=1, gpus =2", "gives 'gpus' twice: write it as in increment:gpus"),
        ("base:resource.disk=1,resource.disk=2", "gives 'resource.disk' twice"),
        ("base:gpus=-1", "gpus: Input should be greater than or equal to 0"),
        ("base:placement=TIGHT", "placement: Input should be 'PACK'"),
        ("base:resource.disk=much", "is no custom resource of Ray"),
    ],
)
def test_what_is_no_gift_is_one_sentence(text: str, message: str):
    with pytest.raises(InputError, match=message):
        parse_give(text)


def test_what_is_no_dict_in_a_file_is_one_sentence():
    for wrong in (["base:gpus=1"], {"base": 1}):
        with pytest.raises(InputError, match="RESOURCES"):
            gives_of_file(wrong)


def test_each_kind_gets_what_it_is_given_and_otherwise_what_all_are():
    request = Request(
        workers=2,
        cpus_per_worker=4,
        give=("base:gpus=1", "increment:workers=1,gpus=0.25,memory=8", "increment:cpus=2"),
    )
    base, increment = request.of("base"), request.of("increment")
    assert (base.workers, base.cpus_per_worker, base.gpus_per_worker) == (2, 4, 1)
    assert (increment.workers, increment.cpus_per_worker, increment.gpus_per_worker) == (1, 2, 0.25)
    assert increment.memory_per_worker == 8
    assert request.of("evaluation").workers == 2
    twice = Request(give=("base:gpus=1", "base:gpus=0.5"))
    assert twice.of("base").gpus_per_worker == 0.5


def test_a_probe_uses_a_gpu_only_when_it_was_given_one():
    machines = Machines((GPUS, CPUS))
    assert settle_kind(Request(), "increment", machines).gpus_per_worker == 1
    probe = settle_kind(Request(workers=2), "probe", machines)
    assert (probe.workers, probe.gpus_per_worker, probe.cpus_per_worker) == (1, 0, 32)
    for asked in (Request(gpus_per_worker=0.5), Request(give=("probe:gpus=0.5",))):
        assert settle_kind(asked, "probe", machines).gpus_per_worker == 0.5


def test_machines_are_chosen_by_accelerator_and_custom_resources():
    machines = Machines((CPUS, GPUS, {"CPU": 64.0, "GPU": 8.0, "accelerator_type:T4": 1.0}))
    request = Request(accelerator="A100", give=("evaluation:gpus=0,resource.fast_disk=0.1",))
    chosen = settle_kind(request, "base", machines)
    assert chosen.cpus_per_worker == 8
    assert chosen.bundle == {"CPU": 8, "GPU": 1, "accelerator_type:A100": 0.001}
    assert shares(chosen) == "1 A100 GPU and 8 CPUs"
    plain = Request(give=("evaluation:gpus=0,resource.fast_disk=0.1",))
    evaluation = settle_kind(plain, "evaluation", machines)
    assert shares(evaluation) == "32 CPUs and 0.1 fast_disk"
    with pytest.raises(InputError, match="accelerator_type:H100': there are accelerator_type:A100"):
        settle_kind(Request(accelerator="H100"), "base", machines)


def test_what_a_kind_is_given_and_no_machine_has_names_the_kind():
    with pytest.raises(InputError, match="kind of work 'increment' is given: the cluster has room"):
        settle_kind(Request(give=("increment:cpus=65",)), "increment", Machines((GPUS, CPUS)))
    apart = Request(workers=2, cpus_per_worker=1, gpus_per_worker=1, placement="STRICT_SPREAD")
    with pytest.raises(InputError, match="2 are asked for, placed STRICT_SPREAD"):
        settle_kind(apart, "base", Machines((GPUS, CPUS)))
