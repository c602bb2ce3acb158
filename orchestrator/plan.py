"""From a chain as a person asks for it to steps with keys: what must exist, decided before anything is spent.

A plan reads a dataset's index, never an image, and starts nothing. Each step's document gets only what decides its weights,
so chains that differ in alpha, in a later group or in how they are scored come to the same key wherever they agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np

from orchestrator.chain import Chain
from orchestrator.identity import step_key
from training.config import InputError, StepConfig, Task
from training.data.shards import Index
from training.scenario import select_images


class PlanError(InputError):
    """The chain cannot be trained as it is asked for; the message says why and what to change."""


@dataclass(frozen=True)
class PlannedStep:
    """A step that must exist."""

    index: int  # 0 for the base step
    step: StepConfig
    key: str
    parent: str | None  # key of the parent step
    class_names: tuple[str, ...]  # of step.task.classes
    rows: np.ndarray = field(repr=False, compare=False)  # the images it trains on, as rows of the training split

    @property
    def title(self) -> str:
        """The step for people: `step 1 (wilson: cow, dog, sheep)`."""
        names = self.class_names[len(self.step.task.previous_classes) :]
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        return f"step {self.index} ({self.step.method.name}: {shown})"

    @property
    def iterations(self) -> int:
        """How many optimizer steps training takes, as `training.fit` counts them."""
        return round(self.step.optimization.epochs * (len(self.rows) // self.step.optimization.batch))


def resolve(chain: Chain, classes: Sequence[str], index: Index, content: str) -> tuple[PlannedStep, ...]:
    """The chain's steps in order.

    `classes`, `index`, `content`: of the training split of the dataset that the scenario names. Raises PlanError for a class
    that the dataset does not have and for a step with too few images or epochs, ValidationError for documents that contradict
    themselves.
    """
    scenario = chain.scenario
    groups = tuple(class_ids(group, classes, scenario.dataset) for group in scenario.groups)
    planned: list[PlannedStep] = []
    for number in range(len(groups)):
        rows = select_images(index.labels, groups, number, scenario.setting)
        task = Task(
            data=content,
            groups=groups[: number + 1],
            selection=index.selection_digest(rows),
            images=len(rows),
            supervision=scenario.supervision if number else "pixel",
            labels=scenario.labels if number else "new",  # all classes are new at first
            void=scenario.void,
        )
        step = _document(chain, task)
        settings = "optimization" if number else "base.optimization"
        names = tuple(name for group in scenario.groups[: number + 1] for name in group)
        if len(rows) < step.optimization.batch:
            raise PlanError(
                f"step {number} ({', '.join(scenario.groups[number])}) finds {len(rows)} training images in "
                f"{scenario.dataset!r} under {scenario.setting}, fewer than one batch of {step.optimization.batch}: "
                f"lower {settings}.batch, or change the groups"
            )
        parent = planned[-1].key if planned else None
        planned.append(PlannedStep(number, step, step_key(step, parent), parent, names, rows))
        if planned[-1].iterations < 1:
            raise PlanError(f"step {number} would end before its first batch: raise {settings}.epochs")
    return tuple(planned)


def class_ids(names: Sequence[str], classes: Sequence[str], dataset: str) -> tuple[int, ...]:
    """Dataset ids of class names; PlanError names the class that comes nearest to an unknown one."""
    unknown = [name for name in names if name not in classes]
    if unknown:
        near = get_close_matches(unknown[0], classes, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(classes)}"
        raise PlanError(f"dataset {dataset!r} has no class {unknown[0]!r}: {advice}")
    return tuple(classes.index(name) + 1 for name in names)


def _document(chain: Chain, task: Task) -> StepConfig:
    """The document of one step: nothing in it that the step does not use."""
    first = len(task.groups) == 1
    return StepConfig(
        task=task,
        method=chain.base.method if first else chain.method,
        # Later steps start from the parent's weights; the encoder's pretrained ones are already in the parent's key.
        model=chain.model if first else chain.model.model_copy(update={"weights": None}),
        optimization=chain.base.optimization if first else chain.optimization,
        augmentation=chain.augmentation,
        seed=chain.seed,
    )
