"""Resolve a chain as a person asks for it to steps with keys, before anything is spent.

A plan reads a dataset's index and never an image. Each step's document holds only what decides its
weights. So chains that differ in alpha, in a later group or in how they are scored have equal keys
wherever they agree.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np

from orchestrator.planning.chain import Chain
from orchestrator.records.keys import step_key
from training.config import InputError, StepConfig, Task, flatten_groups
from training.data.shards import Index
from training.scenario import Scenario, choose_memory, keep_share, select_images


class PlanError(InputError):
    """The chain cannot be trained as requested. The message says why and what to change."""


@dataclass(frozen=True)
class PlannedStep:
    """A step that must exist."""

    index: int  # 0 for the base step
    step: StepConfig
    key: str
    parent: str | None  # key of the parent step
    class_names: tuple[str, ...]  # of step.task.classes
    rows: np.ndarray = field(repr=False, compare=False)
    """The images the step trains on, as rows of the training split."""

    @property
    def title(self) -> str:
        """Return the step's name for people: `step 1 (wilson: cow, dog, sheep)`."""
        names = self.new_class_names
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        return f"step {self.index} ({self.step.method.name}: {shown})"

    @property
    def new_class_names(self) -> tuple[str, ...]:
        """Return the names of the classes that this step adds."""
        return self.class_names[len(self.step.task.previous_classes) :]

    @property
    def iterations(self) -> int:
        """Return how many optimizer steps training takes, as `training.fit` counts them."""
        optimization = self.step.optimization
        return round(optimization.epochs * (len(self.rows) // optimization.batch))


class Resolver:
    """Resolves chains over one dataset to steps, and remembers what the chains share.

    Args:
        classes: Class names of the dataset, in order.
        index: Index of its training split.
        content: Content digest of its training split.
        lists: Returns the image ids of each step by the digest that a scenario names.
    """

    def __init__(
        self,
        classes: Sequence[str],
        index: Index,
        content: str,
        lists: Callable[[str], Sequence[Sequence[str]]] = lambda digest: (),
    ) -> None:
        self.classes = classes
        self.index = index
        self.content = content
        self.lists = lists
        self._tasks: dict[Hashable, tuple[Task, np.ndarray]] = {}
        self._steps: dict[Hashable, PlannedStep] = {}

    def resolve(self, chain: Chain) -> tuple[PlannedStep, ...]:
        """Return the chain's steps in order.

        Raises:
            PlanError: The dataset lacks a class, a step has too few images or epochs, or the method
                needs something that step 0 does not publish.
            ValidationError: The documents contradict themselves.
        """
        names = chain.scenario.groups
        if chain.method.all_at_once:
            names = (flatten_groups(names),)
        if len(names) > 1:
            _check_importance(chain)
        groups = tuple(class_ids(group, self.classes, chain.scenario.dataset) for group in names)
        planned: list[PlannedStep] = []
        for number in range(len(groups)):
            task, rows = self._task(chain.scenario, groups, number)
            parent = planned[-1].key if planned else None
            step = _document(chain, task)
            if (step, parent) not in self._steps:
                learned = flatten_groups(names[: number + 1])
                made = PlannedStep(number, step, step_key(step, parent), parent, learned, rows)
                _check_size(made, chain.scenario)
                self._steps[step, parent] = made
            planned.append(self._steps[step, parent])
        return tuple(planned)

    def _task(
        self, scenario: Scenario, groups: tuple[tuple[int, ...], ...], number: int
    ) -> tuple[Task, np.ndarray]:
        """Return what step `number` sees, and the rows of the images it trains on.

        The images that the step selects come first, then those that are kept of earlier steps.
        """
        asked = (scenario.model_copy(update={"groups": ()}), groups, number)
        if asked not in self._tasks:
            rows = self._selected(scenario, groups, number)
            memory = self._memory(scenario, groups, number)
            task = Task(
                data=self.content,
                groups=groups[: number + 1],
                selection=self.index.selection_digest(rows),
                images=len(rows),
                supervision=scenario.supervision if number else "pixel",
                # All classes of step 0 are new.
                labels=scenario.labels if number else "new",
                void=scenario.void,
                memory=self.index.selection_digest(memory) if len(memory) else None,
                memory_images=len(memory),
            )
            self._tasks[asked] = task, np.concatenate([rows, memory])
        return self._tasks[asked]

    def _selected(
        self, scenario: Scenario, groups: tuple[tuple[int, ...], ...], number: int
    ) -> np.ndarray:
        if scenario.selections:
            rows = self._listed(scenario, scenario.selections, groups, number)
        else:
            rows = select_images(self.index.labels, groups, number, scenario.setting)
        if scenario.empty_images and number == 0:
            rows = np.union1d(rows, np.flatnonzero(~self.index.labels.any(1)))
        if number == 0 or len(rows) == 0:
            return rows
        return keep_share(rows, self.index.ids, scenario.image_share)

    def _listed(
        self, scenario: Scenario, digest: str, groups: tuple[tuple[int, ...], ...], number: int
    ) -> np.ndarray:
        """Return the images that published lists give a step.

        A step that learns all groups at once gets the images of all lists.
        """
        lists = self.lists(digest)
        steps = len(scenario.groups)
        if len(lists) != steps:
            raise PlanError(
                f"the scenario has {steps} steps, "
                f"and its selections list the images of {len(lists)}"
            )
        wanted = set(flatten_groups(lists) if len(groups) < steps else lists[number])
        rows = np.flatnonzero([id in wanted for id in self.index.ids])
        if len(rows) < len(wanted):
            missing = min(wanted - set(self.index.ids))
            raise PlanError(
                f"the selections name image {missing!r}, "
                f"which is not in the training list of {scenario.dataset!r}"
            )
        return rows

    def _memory(
        self, scenario: Scenario, groups: tuple[tuple[int, ...], ...], number: int
    ) -> np.ndarray:
        """Return the images kept of earlier steps, without those this step may select itself."""
        if not (number and scenario.memory):
            return np.array([], dtype=np.int64)
        selected = [self._selected(scenario, groups, before) for before in range(number)]
        earlier = np.unique(np.concatenate(selected))
        without_share = scenario.model_copy(update={"image_share": 1.0})
        candidates = np.setdiff1d(earlier, self._selected(without_share, groups, number))
        previous = flatten_groups(groups[:number])
        return choose_memory(
            self.index.labels, previous, candidates, self.index.ids, scenario.memory
        )


def _check_importance(chain: Chain) -> None:
    """Raise PlanError if the method needs importance weights that step 0 does not record."""
    if chain.method.needs_importance and not chain.base.method.records_importance:
        raise PlanError(
            f"{chain.method.name!r} holds on to the weights that mattered before, and step 0 does "
            "not record which they are: set base.method.importance, which changes nothing else "
            "of step 0"
        )


def _check_size(planned: PlannedStep, scenario: Scenario) -> None:
    """Raise PlanError for a step with fewer images than a batch, or without an iteration."""
    number = planned.index
    optimization = planned.step.optimization
    settings = "optimization" if number else "base.optimization"
    if len(planned.rows) < optimization.batch:
        raise PlanError(
            f"step {number} ({', '.join(planned.new_class_names)}) finds {len(planned.rows)} "
            f"training images in {scenario.dataset!r} under {scenario.setting}, fewer than one "
            f"batch of {optimization.batch}: lower {settings}.batch, or change the groups"
        )
    if planned.iterations < 1:
        raise PlanError(f"step {number} would end before its first batch: raise {settings}.epochs")


def class_ids(names: Sequence[str], classes: Sequence[str], dataset: str) -> tuple[int, ...]:
    """Return the dataset's ids of class names.

    Raise PlanError for an unknown class; the message names the one that comes nearest.
    """
    unknown = [name for name in names if name not in classes]
    if unknown:
        near = get_close_matches(unknown[0], classes, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(classes)}"
        raise PlanError(f"dataset {dataset!r} has no class {unknown[0]!r}: {advice}")
    return tuple(classes.index(name) + 1 for name in names)


def _document(chain: Chain, task: Task) -> StepConfig:
    """Return the document of one step. It holds nothing that the step does not use."""
    first = len(task.groups) == 1
    return StepConfig(
        task=task,
        method=chain.base.method if first and not chain.method.all_at_once else chain.method,
        # Later steps start from the parent's weights. The pretrained weights of the encoder are
        # already part of the parent's key.
        model=chain.model if first else chain.model.model_copy(update={"weights": None}),
        optimization=chain.base.optimization if first else chain.optimization,
        augmentation=chain.augmentation,
        seed=chain.seed,
    )
