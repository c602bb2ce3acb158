"""Draw the figures of a page that compares chains."""

from collections.abc import Sequence

from orchestrator.records.results import ChainResult
from orchestrator.report import comparison_figures, figures
from orchestrator.report.chain_tables import BREAKDOWN_TITLE, background_of, headline_fields
from orchestrator.report.html import Drawing, draw
from training.config import flatten_groups
from training.metrics import Convention, Scores
from training.prediction_breakdown import break_down_old_classes

BREAKDOWN_CAPTION = (
    "Grey is background shift, orange the pull of new classes: the two great causes of forgetting."
)


def draw_steps(chains: Sequence[ChainResult], convention: Convention) -> Drawing:
    """Draw the means over base, new and all classes after each step."""
    _, new, both = headline_fields(convention)
    panels: dict[str, dict[str, list[float | None]]] = {
        "base: step 0's classes": {},
        "new: the step's own classes": {},
        "all": {},
    }
    for chain in chains:
        scores = chain.scores(convention)
        for panel, field in zip(panels.values(), ("miou_base", new, both), strict=True):
            panel[chain.name] = [getattr(step, field) for step in scores]
    background = "with" if convention.background_in_all else "without"
    caption = (
        "mIoU after each step: of the classes of step 0, of the classes that the step brought, "
        f"and of all classes learned so far ({background} background)."
    )
    label = f"mIoU over incremental steps of {_names(chains)}"
    return draw(comparison_figures.over_steps(panels), label, caption)


def draw_classes(chains: Sequence[ChainResult], convention: Convention) -> Drawing:
    """Draw the IoU of each class when it was learned and after the last step."""
    scores = [chain.scores(convention) for chain in chains]
    classes = list(dict.fromkeys(flatten_groups(steps[-1].iou for steps in scores)))
    pairs = {}
    for chain, steps in zip(chains, scores, strict=True):
        pairs[chain.name] = [_first_and_last(steps, class_id) for class_id in classes]
    names = [chains[0].class_name(class_id) for class_id in classes]
    caption = (
        "IoU of each class. Hollow: right after the step that brought it; "
        "full: after the last step; the line between them is what was lost or gained since."
    )
    label = f"IoU by class, first and last, of {_names(chains)}"
    return draw(figures.by_class(names, pairs), label, caption)


def _first_and_last(steps: Sequence[Scores], class_id: int) -> tuple[float | None, float | None]:
    """Return the IoU of a class after the step that learned it and after the last step."""
    known = [step.iou[class_id] for step in steps if class_id in step.iou]
    return (known[0], known[-1]) if known else (None, None)


def draw_confusion(chain: ChainResult, convention: Convention) -> Drawing:
    """Draw the confusion matrix of a chain after its last step."""
    background = background_of([chain])
    classes = (*background, *flatten_groups(chain.groups))
    bounds = [len(background)]
    for group in chain.groups[:-1]:
        bounds.append(bounds[-1] + len(group))
    names = [chain.class_name(class_id) for class_id in classes]
    # Without background, its row and column are there and empty.
    matrix = chain.steps[-1].matrix(convention)[-len(classes) :, -len(classes) :]
    figure = figures.confusion(matrix, names, bounds)
    return draw(figure, f"Confusion matrix of {chain.name} after the last step", chain.name)


def draw_breakdowns(chains: Sequence[ChainResult], convention: Convention) -> Drawing:
    """Draw what the pixels of old classes were predicted as after the last step."""
    bars = {}
    for chain in chains:
        old = break_down_old_classes(chain.steps[-1].matrix(convention), chain.groups)
        bars[chain.name] = {"all old classes": old.pooled} if old.by_class else {}
        for class_id, shares in old.by_class.items():
            bars[chain.name][chain.class_name(class_id)] = shares
    caption = f"{BREAKDOWN_TITLE} after the last step. {BREAKDOWN_CAPTION}"
    return draw(figures.breakdowns(bars), f"{BREAKDOWN_TITLE}, by {_names(chains)}", caption)


def draw_curves(chain: ChainResult) -> Drawing:
    """Draw the training curves of all steps of a chain."""
    figure = figures.curves([step.curves for step in chain.steps])
    adopted = any(step.record.adoption for step in chain.steps)
    caption = f"{chain.name} (step 0 was adopted and has no curves)" if adopted else chain.name
    return draw(figure, f"Training curves of {chain.name}", caption)


def _names(chains: Sequence[ChainResult]) -> str:
    return ", ".join(chain.name for chain in chains)
