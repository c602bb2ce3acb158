"""Compute what a chain forgets and transfers from the scores after each of its steps."""

from collections.abc import Sequence

from training.config import BACKGROUND, Document
from training.metrics import Scores, mean_of_known


class Retention(Document):
    """How one quantity changed from the step that brought it to the last step.

    All values are None until a later step exists.
    """

    forgetting_first_minus_last: float | None
    forgetting_best_minus_last: float | None
    backward_transfer: float | None


class Continual(Document):
    """Scores of a whole chain. `training.score_definitions` defines each of them."""

    classes: dict[int, Retention]  # by dataset class id, background included
    groups: tuple[Retention, ...]  # of the mean IoU of each class group
    forgetting_first_minus_last: float | None
    forgetting_best_minus_last: float | None
    backward_transfer: float | None
    average_over_steps: float | None
    average_over_steps_without_background: float | None


def retention(values: Sequence[float | None]) -> Retention:
    """Return how one quantity changed over the steps of a chain.

    First minus last compares the step that brought the quantity with the last step. Best minus
    last compares its best earlier step with the last step, so it is negative when the last step
    is the best of all. Backward transfer is last minus first (Lopez-Paz and Ranzato, 2017).

    Args:
        values: The quantity after each step. None before the step that brought it, and
            everywhere when it has no ground truth.
    """
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Retention(
            forgetting_first_minus_last=None,
            forgetting_best_minus_last=None,
            backward_transfer=None,
        )
    first = known[0]
    best = max(known[:-1])
    last = known[-1]
    return Retention(
        forgetting_first_minus_last=first - last,
        forgetting_best_minus_last=best - last,
        backward_transfer=last - first,
    )


def continual(steps: Sequence[Scores]) -> Continual:
    """Return the scores of a chain from the scores after each of its steps, in order."""
    last = steps[-1]
    classes = {class_id: _class_retention(steps, class_id) for class_id in last.iou}
    groups = tuple(_group_retention(steps, group) for group in range(len(last.miou_groups)))
    learned = [kept for class_id, kept in classes.items() if class_id != BACKGROUND]
    return Continual(
        classes=classes,
        groups=groups,
        forgetting_first_minus_last=mean_of_known(
            kept.forgetting_first_minus_last for kept in learned
        ),
        forgetting_best_minus_last=mean_of_known(
            kept.forgetting_best_minus_last for kept in learned
        ),
        backward_transfer=mean_of_known(group.backward_transfer for group in groups),
        average_over_steps=mean_of_known(step.miou_all for step in steps),
        average_over_steps_without_background=mean_of_known(
            step.miou_all_without_background for step in steps
        ),
    )


def _class_retention(steps: Sequence[Scores], class_id: int) -> Retention:
    """Return how the IoU of a class changed. Early steps do not know the class yet."""
    return retention([step.iou.get(class_id) for step in steps])


def _group_retention(steps: Sequence[Scores], group: int) -> Retention:
    """Return how the mean IoU of a class group changed. Early steps do not have the group yet."""
    means = [step.miou_groups[group] if group < len(step.miou_groups) else None for step in steps]
    return retention(means)
