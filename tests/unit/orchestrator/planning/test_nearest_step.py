"""Test that a plan says in which fields a step differs from what is published."""

from typing import Any

import numpy as np
import pytest

from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.nearest_step import PublishedSteps
from orchestrator.planning.resolver import PlannedStep, Resolver
from orchestrator.records.schema import StepRecord
from tests.support.datasets import make_index
from tests.support.records import DATA, PROVENANCE
from training.config import Optimization
from training.methods import mib, wilson
from training.scenario import Scenario

CLASSES = ("cat", "cow", "dog", "horse")
LABELS = np.random.default_rng(0).random((60, 4)) < 0.4
LABELS[LABELS.sum(1) == 0, 0] = True
SMALL = Optimization(batch=4, epochs=2)


def steps(content: str = "1" * 64, labels: np.ndarray = LABELS, **fields: Any) -> list[PlannedStep]:
    """Plan two steps of a chain with these fields over data with this content."""
    supervision = fields.pop("supervision", "pixel")
    groups = (("cat", "cow"), ("dog", "horse"))
    scenario = Scenario(dataset="pets", groups=groups, supervision=supervision)
    start: dict[str, Any] = {"base": Base(optimization=SMALL), "optimization": SMALL}
    start |= {"name": "test", "scenario": scenario, "method": mib.Config()}
    return [*Resolver(CLASSES, make_index(labels), content).resolve(Chain(**start | fields))]


def published(planned: PlannedStep, created: str = "2026-01-02T03:04:05Z") -> StepRecord:
    return StepRecord(
        key=planned.key,
        step=planned.step,
        index=planned.index,
        parent=planned.parent,
        parent_attempt=None,
        attempt="a1",
        files={},
        class_names=planned.class_names,
        data=DATA,
        iterations=planned.iterations,
        seconds={},
        images_per_second=None,
        resources={},
        provenance=PROVENANCE.model_copy(update={"created": created}),
    )


def why(wanted: PlannedStep, *there: PlannedStep) -> list[str]:
    """Return in which fields the step differs from the nearest of those that are there."""
    nearest = PublishedSteps(map(published, there)).nearest(wanted)
    assert nearest is not None
    return [str(each) for each in nearest.differences]


def test_another_seed_reaches_the_next_step_through_its_parent():
    first, second = steps(seed=2)
    there = steps(seed=1)
    assert why(first, *there) == ["seed 2 (there 1)"]
    assert why(second, *there) == ["seed 2 (there 1)", f"another parent (there {there[0].key})"]


def test_a_default_that_changed_is_said_to_be_one():
    old = steps(method=mib.Config(distillation_weight=3))[1]
    default = mib.Config().distillation_weight
    (said,) = why(steps()[1], old)
    assert said == f"method.distillation_weight {default}, the default (there 3.0)"
    assert why(old, steps()[1]) == [f"method.distillation_weight 3.0 (there {default})"]


def test_other_data_is_one_difference_whatever_follows_from_it():
    here = steps(content="2" * 64, labels=LABELS[:50])[0]
    assert why(here, steps()[0]) == ["another digest of the data"]


def test_other_images_of_the_same_data():
    scenario = Scenario(
        dataset="pets",
        groups=(("cat", "cow"), ("dog", "horse")),
        supervision="pixel",
        empty_images=True,
    )
    labels = LABELS.copy()
    labels[:3] = False
    base = steps(labels=labels, scenario=scenario)[0]
    before = steps(labels=labels)[0]
    number = before.step.task.images
    assert why(base, before) == [
        "other images of the same data",
        f"task.images {number + 3} (there {number})",
    ]


def test_another_method_says_nothing_of_its_fields():
    weak = steps(supervision="image", method=wilson.Config())[1]
    assert "method.name wilson (there mib)" in why(weak, steps()[1])
    assert not any("alpha" in each for each in why(weak, steps()[1]))


def test_the_nearest_differs_least_and_is_the_newest_of_equals():
    wanted = steps(seed=3)[0]
    far = steps(seed=1, base=Base(optimization=SMALL.model_copy(update={"epochs": 5})))[0]
    near, newer = steps(seed=1)[0], steps(seed=2)[0]
    records = [published(far, "2026-03-01"), published(newer, "2026-02-01"), published(near)]
    nearest = PublishedSteps(records).nearest(wanted)
    assert nearest is not None
    assert nearest.record.key == newer.key
    assert str(nearest) == f"nearest is {newer.key} of 2026-02-01 by ada@node: seed 3 (there 2)"


def test_a_published_step_whose_files_are_gone_is_its_own_nearest():
    step = steps()[1]
    nearest = PublishedSteps([published(step)]).nearest(step)
    assert str(nearest).startswith("it was published on 2026-01-02 by ")
    assert str(nearest).endswith(", and its files are gone")


def test_an_empty_store_has_nothing_to_compare_with():
    assert PublishedSteps([]).nearest(steps()[0]) is None


@pytest.mark.parametrize("field", ["encoder_lr", "head_lr"])
def test_every_field_of_the_document_is_compared(field: str):
    other = SMALL.model_copy(update={field: 0.123})
    assert why(steps(optimization=other)[1], steps()[1])[0].startswith(f"optimization.{field} 0.12")
