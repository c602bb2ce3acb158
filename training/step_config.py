"""Define the document of one incremental step, which decides its weights.

Its canonical JSON, with the parent's key, is the identity of the step
(`orchestrator.store.canonical`).
"""

from pydantic import Field, model_validator

from training.binary_method import BinaryMethodConfig
from training.config import (
    Augmentation,
    Document,
    InputError,
    MethodConfig,
    ModelConfig,
    Optimization,
    Task,
)
from training.method_documents import AnyMethod


class StepConfig(Document):
    """Training one task by one method from one parent."""

    task: Task
    method: AnyMethod
    model: ModelConfig
    optimization: Optimization
    augmentation: Augmentation
    seed: int = Field(default=42, ge=0)
    # It is raised by hand when the code changes what every document trains. What changes for one
    # method raises that method's recipe.
    recipe: int = 1

    @property
    def kept_per_batch(self) -> int:
        """Return how many images of a batch are kept ones; 0 if these are drawn like all others."""
        halves = self.method.halves_batches and self.task.memory is not None
        return self.optimization.batch // 2 if halves else 0

    @property
    def iterations_per_epoch(self) -> int:
        """Return the iterations in which training sees each image once.

        Where kept images are a fixed part of each batch, only the step's own images count.
        """
        kept = self.kept_per_batch
        images = self.task.images + (0 if kept else self.task.memory_images)
        return images // (self.optimization.batch - kept)

    @model_validator(mode="after")
    def _consistent(self) -> "StepConfig":
        method, task = self.method, self.task
        _check_labels(method, task)
        if len(task.groups) == 1:
            method.check_first_step()
        else:
            method.check_later_step()
        _check_classifier(method, self.model, task)
        _check_start(method, task)
        _check_optimization(method, self.optimization, task)
        return self


def _check_labels(method: MethodConfig, task: Task) -> None:
    """Raise InputError if the method cannot learn from the task's labels or images."""
    index = len(task.groups) - 1
    if method.supervision != task.supervision:
        base = "" if index else "base_"
        raise InputError(
            f"step {index} has {task.supervision} labels and {method.name!r} learns from "
            f"{method.supervision} labels: change the method, or scenario.{base}supervision"
        )
    if task.background == "none" and method.use_of_background:
        raise InputError(
            f"step {index} has no background channel (scenario.background none), and "
            f"{method.name!r} {method.use_of_background}: take a method that does without, "
            "such as lwf, or scenario.background class, where pixels that a step's labels do "
            "not name are background"
        )
    if method.needs_memory and task.memory is None:
        raise InputError(
            f"step {index} keeps no images of earlier steps, from which {method.name!r} learns "
            "the classes they show: set scenario.memory, such as 100"
        )
    if len(task.new_classes) < method.least_new_classes and task.memory is None:
        advice = (
            "Keep images of earlier steps (scenario.memory 100), group the class with another "
            "one, or use masks (scenario.supervision pixel)"
            if index
            else "Group the class with another one, or use masks (scenario.base_supervision pixel)"
        )
        raise InputError(
            f"step {index} brings a single class and {method.name!r} learns from image labels: "
            "its localizer needs images without the new class to distinguish it from the rest. "
            f"{advice}"
        )


def _check_classifier(method: MethodConfig, model: ModelConfig, task: Task) -> None:
    """Raise InputError if the method trains other classifiers than the model has."""
    if method.classifier not in (None, model.classifier):
        raise InputError(
            f"{method.name!r} trains {method.classifier} classifiers, and those of step "
            f"{len(task.groups) - 1} are {model.classifier}: set model.classifier to "
            f"{method.classifier}"
        )


def _check_start(method: MethodConfig, task: Task) -> None:
    """Raise InputError if the classifier's start needs pixel shares that the task does not have."""
    if not isinstance(method, BinaryMethodConfig) or method.initial_probability != "shares":
        return
    if task.supervision == "image":
        raise InputError(
            f"step {len(task.groups) - 1} learns from image labels and may not know how many "
            "pixels a class has: give method.initial_probability one number, such as 0.01"
        )
    if task.pixel_shares is None or len(task.pixel_shares) != task.channels[-1]:
        raise InputError(
            "the task of a step that starts from pixel shares must name the share of each channel "
            "of its own classifier"
        )


def _check_optimization(method: MethodConfig, optimization: Optimization, task: Task) -> None:
    """Raise InputError if the method cannot train at this precision, length or learning rate."""
    index = len(task.groups) - 1
    if optimization.precision == "float16" and method.records_importance:
        raise InputError(
            f"step {index} records the importance of its weights, which a gradient that "
            "overflows in float16 would spoil: set its precision to bfloat16 or float32"
        )
    if method.epochs_before_segmentation >= optimization.epochs:
        raise InputError(
            f"step {index} ends before its segmentation model learns: {method.name!r} trains "
            f"something else for {method.epochs_before_segmentation:g} of "
            f"{optimization.epochs:g} epochs; raise optimization.epochs"
        )
    rate = max(optimization.encoder_lr, optimization.head_lr)
    momentum = optimization.momentum
    # SGD with Nesterov momentum diverges on a parabola when the learning rate times the curvature
    # exceeds this limit.
    limit = 2 * (1 + momentum) / (1 + 2 * momentum)
    if rate * method.curvature > limit:
        raise InputError(
            f"step {index} would diverge: at a learning rate of {rate:g} {method.name!r} pulls "
            "weights back further than they went; lower encoder_lr and head_lr of optimization "
            f"to {limit / method.curvature:.1g}, or method.weight"
        )
