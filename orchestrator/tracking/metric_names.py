"""Name what is measured as MLflow shows it."""

import re
from collections.abc import Mapping

from training.metrics import Scores

# MLflow draws metrics of these names on its page of system metrics.
SYSTEM_METRICS = {
    "usage/cpu_percent": "system/cpu_utilization_percentage",
    "usage/process_megabytes": "system/process_memory_megabytes",
    "usage/gpu_megabytes": "system/gpu_memory_megabytes",
}


def score_metrics(scores: Scores, class_names: Mapping[int, str]) -> dict[str, float]:
    """Return the scores that exist by name: `miou/all`, `iou/dog`, `pixel_accuracy`.

    Args:
        scores: How a step scored.
        class_names: Names of all classes by dataset class id.
    """
    metrics = {
        name.replace("miou_", "miou/", 1): value
        for name, value in scores
        if isinstance(value, float)
    }
    for class_id, value in scores.iou.items():
        if value is not None:
            metrics[class_metric(class_names[class_id])] = value
    return metrics


def class_metric(class_name: str) -> str:
    """Return the name of a class's IoU, in the few characters that MLflow accepts."""
    return "iou/" + re.sub(r"[^\w. -]", "_", class_name)


def curve_metric(name: str) -> str:
    """Return the name of a field of a training curve.

    Older curves already have MLflow's names of system metrics.
    """
    return SYSTEM_METRICS.get(name, name)
