"""Build the tables of where the time of steps went, of chains and of a campaign."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orchestrator.records.results import ChainResult
from orchestrator.records.schema import StepRecord
from orchestrator.report.table import Column, Row, Table, Value

TITLE = "Where the time went"
TRAINING = "training"  # heading above its parts
SHARE = "share"
HOUR = 3600  # seconds
# A table whose longest row takes this long is printed in hours.
LONG = 2 * HOUR
SHARED = "A step that chains share was trained once, and stands in each of them."
ONCE = "Each published step counts once, whichever campaign trained it."


class Times(NamedTuple):
    """Seconds of one step, or of several together. None is what a record does not say."""

    waiting: float | None
    starting: float | None
    training: float | None
    data: float | None  # a part of training, as are the next two
    compute: float | None
    checkpoint: float | None
    evaluation: float | None
    other: float | None
    busy: float | None  # all but waiting


COLUMNS = (
    Column("", "waiting", meaning="for another job that trained the step"),
    Column("", "starting", meaning="until the workers began; waiting for room counts"),
    Column(TRAINING, "all", meaning="all of training: data, compute and checkpoint"),
    Column(TRAINING, "data", meaning="training waited for images; a GPU may compute meanwhile"),
    Column(TRAINING, "compute", meaning="the rest of training"),
    Column(TRAINING, "checkpoint", meaning="training waited until a checkpoint was taken over"),
    Column("", "evaluation", meaning="scoring the published model"),
    Column("", "other", meaning="fetching inputs, publishing files, stopping"),
    Column(SHARE, TRAINING),
    Column(SHARE, "compute"),
)


def chain_times(chains: Sequence[ChainResult]) -> Table:
    """Return how long each step of each chain took. Each chain is a section."""
    rows = []
    for chain in chains:
        times = [step_times(step.record) for step in chain.steps]
        for step, each in zip(chain.steps, times, strict=True):
            adopted = " (adopted)" if step.record.adoption else ""
            rows.append((chain.name, f"step {step.record.index}{adopted}", each))
        if len(times) > 1:
            rows.append((chain.name, "all steps", add_times(times)))
    return _table(rows, "step", SHARED)


def campaign_times(records: Iterable[StepRecord]) -> Table | None:
    """Return how long the published steps of a campaign took together, by their number.

    Args:
        records: Of the steps, each once.

    Returns:
        The table, or None when no step is published.
    """
    by_index: dict[int, list[Times]] = {}
    for record in records:
        if record.adoption:
            continue
        by_index.setdefault(record.index, []).append(step_times(record))
    if not by_index:
        return None
    rows = []
    for index, times in sorted(by_index.items()):
        rows.append(("", f"step {index} ({len(times)} trained)", add_times(times)))
    if len(rows) > 1:
        rows.append(("", "all steps", add_times([times for _, _, times in rows])))
    return _table(rows, "step of a chain", ONCE)


def step_times(record: StepRecord) -> Times:
    """Return how long a step took by its record."""
    seconds = record.seconds
    parts = record.train_parts
    named = ("wait", "start", "train", "evaluate")
    others = [value for name, value in seconds.items() if name not in named]
    training = seconds.get("train")
    data = checkpoint = compute = None
    if parts and training is not None:
        data = parts.get("data", 0.0)
        checkpoint = parts.get("checkpoint", 0.0)
        compute = training - data - checkpoint
    return Times(
        waiting=seconds.get("wait"),
        starting=seconds.get("start"),
        training=training,
        data=data,
        compute=compute,
        checkpoint=checkpoint,
        evaluation=seconds.get("evaluate"),
        other=sum(others) if others else None,
        busy=sum(seconds.values()) - seconds.get("wait", 0.0) if seconds else None,
    )


def add_times(times: Iterable[Times]) -> Times:
    """Return the times of several steps together; what is not known of one is not of them all."""
    return Times(*map(_sum, zip(*times, strict=True)))


def _sum(values: Iterable[float | None]) -> float | None:
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _table(named: Sequence[tuple[str, str, Times]], corner: str, counted: str) -> Table:
    """Return the table of times, in seconds or hours, with their sections and names."""
    hours = max(times.busy or 0.0 for _, _, times in named) > LONG
    unit = HOUR if hours else 1
    rows = []
    for section, name, times in named:
        strong = name == "all steps"
        rows.append(Row(section, name, _values(times, unit), strong))
    caption = (
        f"{'Hours' if hours else 'Seconds'}, measured by the first worker. Shares: of all but "
        f"waiting, in per cent. “–”: the record does not say. {counted}"
    )
    return Table(TITLE, caption, corner, COLUMNS, tuple(rows))


def _values(times: Times, unit: float) -> tuple[Value, ...]:
    """Return the cells below COLUMNS. Times are text, because a number would print in per cent."""
    *durations, _ = times
    cells = [None if value is None else f"{value / unit:.1f}" for value in durations]
    return (*cells, _share(times.training, times.busy), _share(times.compute, times.busy))


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
