"""Check which step needs most memory, how often a kind is estimated, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.cluster.packing import Machines
from orchestrator.cluster.resources import Request, settle
from orchestrator.planning.memory import MemoryNeed, check_memory, largest_need, memory_needs
from orchestrator.planning.resolver import PlannedStep
from training import memory_estimate
from training.config import Augmentation, InputError, MethodConfig, ModelConfig, Optimization, Task
from training.methods import mib, wilson
from training.step_config import StepConfig

GIGABYTE = 1e9
CPU_NODE = {"CPU": 8.0, "memory": 20 * GIGABYTE, "object_store_memory": 8 * GIGABYTE}


def planned(method: MethodConfig, classes: int = 2, seed: int = 0, crop: int = 32) -> PlannedStep:
    """Return a step of the digits encoder that adds so many classes."""
    groups = ((1, 2, 3), tuple(range(4, 4 + classes)))
    step = StepConfig(
        task=Task(
            data="d", groups=groups, selection="s", images=160, supervision=method.supervision
        ),
        method=method,
        model=ModelConfig(encoder="tiny", output_stride=4),
        optimization=Optimization(),
        augmentation=Augmentation(crop=crop),
        seed=seed,
    )
    names = tuple(f"class {number}" for number in range(3 + classes))
    return PlannedStep(1, step, "key", "parent", names, np.arange(160))


def need(crop: int) -> MemoryNeed:
    found = largest_need([planned(mib.Config(), crop=crop)], workers=1)
    assert found is not None
    return found


def test_each_kind_is_estimated_once_at_its_most_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    estimated = []
    estimate = memory_estimate.estimate_memory

    def counted(step: StepConfig, workers: int) -> memory_estimate.MemoryEstimate:
        estimated.append(sum(step.task.channels))
        return estimate(step, workers)

    monkeypatch.setattr(memory_estimate, "estimate_memory", counted)
    steps = []
    for seed in range(20):
        steps += [planned(wilson.Config(alpha=seed / 20), classes=2 + seed % 3, seed=seed)]
    steps += [planned(mib.Config(), crop=64)]
    found = largest_need(steps, workers=1)
    assert estimated == [8, 6]
    assert found is not None
    assert found.planned.step.method.name == "mib"
    gigabytes = found.estimate.needed / GIGABYTE
    assert str(found) == f"memory: about {gigabytes:.1f} GB a worker (step 1, mib)"


def test_without_steps_nothing_is_needed() -> None:
    assert largest_need([], workers=1) is None
    check_memory(None, settle(Request(), Machines((CPU_NODE,))), [CPU_NODE])


@pytest.mark.parametrize(
    ("crop", "node", "fits"),
    [
        (512, {"CPU": 8.0, "GPU": 1.0, "accelerator_type:H100": 1.0}, True),
        (4096, {"CPU": 8.0, "GPU": 1.0, "accelerator_type:H100": 1.0}, False),
        (4096, {"CPU": 8.0, "GPU": 1.0, "accelerator_type:unheard-of": 1.0}, True),
        (512, CPU_NODE, True),
        (4096, CPU_NODE, False),
        (4096, {"CPU": 8.0}, True),
    ],
)
def test_only_what_certainly_cannot_fit_is_refused(
    crop: int, node: dict[str, float], fits: bool
) -> None:
    resources = settle(Request(), Machines((node,)))
    if fits:
        check_memory(need(crop), resources, [node])
        return
    with pytest.raises(InputError, match="GB of memory on each worker, and the cluster's largest"):
        check_memory(need(crop), resources, [node])


def test_a_share_of_a_gpu_is_a_share_of_its_memory() -> None:
    gpu = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:A10G": 1.0}
    wanted = need(512)
    least = wanted.estimate.least
    assert 0.25 * 24 * GIGABYTE < least < 0.5 * 24 * GIGABYTE
    half, quarter = (
        settle(Request(gpus_per_worker=share), Machines((gpu,))) for share in (0.5, 0.25)
    )
    check_memory(wanted, half, [gpu])
    with pytest.raises(InputError, match=r"and 0\.25 of the cluster's largest GPU, A10G, has 6"):
        check_memory(wanted, quarter, [gpu])


def test_a_reservation_must_hold_the_worker() -> None:
    node = {"CPU": 8.0, "memory": 64e9}
    small = settle(Request(memory_per_worker=1), Machines((node,)))
    with pytest.raises(InputError, match=r"each worker's reservation .* has 1\.0 GB"):
        check_memory(need(512), small, [node])


def test_kinds_of_steps_that_are_given_others_have_needs_of_their_own() -> None:
    steps = [replace(planned(mib.Config()), index=0), planned(mib.Config(), crop=512)]
    (one,) = memory_needs(steps, Request())
    assert one.planned is steps[1]
    base, increment = memory_needs(steps, Request(give=("increment:gpus=0.25",)))
    assert (base.planned, increment.planned) == tuple(steps)
    assert base.share is None
    gigabytes = increment.estimate.needed / GIGABYTE
    told = f"at 0.25 of a GPU each, the GPU must have {4 * gigabytes:.1f} GB"
    assert str(increment).endswith(told)


def test_the_largest_gpu_decides() -> None:
    small = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:T4": 1.0}
    large = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:H100": 1.0}
    wanted = need(1280)
    assert 16 * GIGABYTE < wanted.estimate.least < 85 * GIGABYTE
    resources = settle(
        Request(),
        Machines(
            (
                small,
                large,
            )
        ),
    )
    check_memory(wanted, resources, [small, large])
    with pytest.raises(InputError, match="T4"):
        check_memory(wanted, resources, [small, {"CPU": 64.0}])
