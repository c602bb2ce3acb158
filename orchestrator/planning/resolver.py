"""Resolve a chain as a person asks for it to steps with keys, before anything is spent.

A plan reads a dataset's index and never an image. Each step's document holds only what decides its
weights. So chains that differ in alpha, in a later group or in how they are scored have equal keys
wherever they agree.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.planning.chain import Chain
from orchestrator.planning.image_selection import ImageSelection
from orchestrator.planning.refusals import check_fields, check_later_steps
from orchestrator.planning.step_layers import OpenLayer, PlannedLayer, no_layer, read_layers
from orchestrator.planning.validation import PlanError
from orchestrator.records.keys import step_key
from training.binary_method import BinaryMethodConfig
from training.config import Augmentation, MethodConfig, Optimization, Task, flatten_groups
from training.data.shards import Index
from training.methods import adopted
from training.nearest import nearest
from training.scenario import Scenario, pixel_shares
from training.step_config import StepConfig


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
    layers: Mapping[str, PlannedLayer] = field(default_factory=dict, repr=False, compare=False)
    """The companion layers that it reads, by the digests in its document."""

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
        return round(self.step.optimization.epochs * self.step.iterations_per_epoch)


class Resolver:
    """Resolves chains over one dataset to steps, and remembers what the chains share.

    Args:
        classes: Class names of the dataset, in order.
        index: Index of its training split.
        content: Content digest of its training split.
        lists: Returns the image ids of each step by the digest that a scenario names.
        open_layer: Finds a companion layer of the split by its name.
    """

    def __init__(
        self,
        classes: Sequence[str],
        index: Index,
        content: str,
        lists: Callable[[str], Sequence[Sequence[str]]] = lambda digest: (),
        open_layer: OpenLayer = no_layer,
    ) -> None:
        self.classes = classes
        self.index = index
        self.content = content
        self.images = ImageSelection(index, lists)
        self.open_layer = open_layer
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
            check_later_steps(chain)
        groups = tuple(class_ids(group, self.classes, chain.scenario.dataset) for group in names)
        planned: list[PlannedStep] = []
        for number in range(len(groups)):
            if not _method(chain, number).trains:
                planned.append(adopted_step(chain, groups[number]))
                continue
            check_fields(_method(chain, number), "method" if number else "base.method")
            task, rows = self._task(chain.scenario, groups, number)
            parent = planned[-1].key if planned else None
            method = _method(chain, number)
            if _starts_from_shares(method) and task.supervision == "pixel":
                shares = pixel_shares(task, self.index.pixels[rows])
                task = task.model_copy(update={"pixel_shares": shares})
            method, layers = read_layers(method, number, self.index, rows, self.open_layer)
            step = _document(chain, task, method)
            if (step, parent) not in self._steps:
                learned = flatten_groups(names[: number + 1])
                key = step_key(step, parent)
                made = PlannedStep(number, step, key, parent, learned, rows, layers)
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
            rows = self.images.selected(scenario, groups, number)
            memory = self.images.memory(scenario, groups, number)
            task = Task(
                data=self.content,
                groups=groups[: number + 1],
                selection=self.index.selection_digest(rows),
                images=len(rows),
                supervision=scenario.supervision if number else scenario.base_supervision,
                # All classes of step 0 are new.
                labels=scenario.labels if number else "new",
                void=scenario.void,
                background=scenario.background,
                memory=self.index.selection_digest(memory) if len(memory) else None,
                memory_images=len(memory),
            )
            self._tasks[asked] = task, np.concatenate([rows, memory])
        return self._tasks[asked]


def adopted_step(chain: Chain, class_ids: tuple[int, ...]) -> PlannedStep:
    """Return step 0 of a chain whose base was adopted. Its document holds nothing of a training.

    Raise PlanError if the chain's first group is not what the model knows.
    """
    method = chain.base.method
    group = chain.scenario.groups[0]
    if chain.scenario.background == "none":
        raise PlanError(
            "an adopted step has a background channel, and the scenario none: set "
            "scenario.background to class, or train step 0"
        )
    if not isinstance(method, adopted.Config) or method.classes != group:
        known = ", ".join(getattr(method, "classes", ()))
        raise PlanError(
            f"the adopted step knows {known}, in this order, and the first group of the scenario "
            f"is {', '.join(group)}: begin --groups with what it knows"
        )
    step = StepConfig(
        task=Task(data="", groups=(class_ids,), selection="", images=0, supervision="pixel"),
        method=method,
        model=chain.model,
        optimization=Optimization(),
        augmentation=Augmentation(),
    )
    return PlannedStep(0, step, step_key(step, None), None, group, np.empty(0, np.int64))


def _check_size(planned: PlannedStep, scenario: Scenario) -> None:
    """Raise PlanError for a step with fewer images than a batch, or without an iteration."""
    number = planned.index
    optimization = planned.step.optimization
    settings = "optimization" if number else "base.optimization"
    kept = planned.step.kept_per_batch
    images = planned.step.task.images if kept else len(planned.rows)
    if images < optimization.batch - kept:
        raise PlanError(
            f"step {number} ({', '.join(planned.new_class_names)}) finds {images} "
            f"training images in {scenario.dataset!r} under {scenario.setting}, fewer than one "
            f"batch of {optimization.batch - kept}: lower {settings}.batch, or change the groups"
        )
    if planned.iterations < 1:
        raise PlanError(f"step {number} would end before its first batch: raise {settings}.epochs")


def class_ids(names: Sequence[str], classes: Sequence[str], dataset: str) -> tuple[int, ...]:
    """Return the dataset's ids of class names.

    Raise PlanError for an unknown class; the message names the one that comes nearest.
    """
    unknown = [name for name in names if name not in classes]
    if unknown:
        near = nearest(unknown[0], classes)
        advice = f"did you mean {near!r}?" if near else f"it has {', '.join(classes)}"
        raise PlanError(f"dataset {dataset!r} has no class {unknown[0]!r}: {advice}")
    return tuple(classes.index(name) + 1 for name in names)


def _method(chain: Chain, number: int) -> MethodConfig:
    """Return the method that trains a step."""
    return chain.method if number or chain.method.all_at_once else chain.base.method


def _starts_from_shares(method: MethodConfig) -> bool:
    return isinstance(method, BinaryMethodConfig) and method.initial_probability == "shares"


def _document(chain: Chain, task: Task, method: MethodConfig) -> StepConfig:
    """Return the document of one step. It holds nothing that the step does not use."""
    first = len(task.groups) == 1
    return StepConfig(
        task=task,
        method=method,
        # Later steps start from the parent's weights. The pretrained weights of the encoder are
        # already part of the parent's key.
        model=chain.model if first else chain.model.model_copy(update={"weights": None}),
        optimization=chain.base.optimization if first else chain.optimization,
        augmentation=chain.augmentation,
        seed=chain.seed,
    )
