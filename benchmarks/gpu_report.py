"""Turn the result of `benchmarks.gpu` into Markdown for docs/results.md."""

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu_steps import KINDS

SHOWN = (1, 5, 10, 20, 30, 40, 50)  # iterations of the curves
MISSING = "–"


def report(result: dict[str, Any]) -> str:
    """Return the page. Parts that failed or are missing are named."""
    lines = [*_machine(result), "", *_steps(result), "", *_checks(result), ""]
    lines += [f"- **{name} failed**: {error}" for name, error in result["failed"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _machine(result: dict[str, Any]) -> Iterator[str]:
    """Yield the machine, and the peaks that shares refer to."""
    machine = result.get("machine", {})
    yield ", ".join(f"{name} {value}" for name, value in machine.items())
    if peaks := result.get("peaks"):
        products = [
            f"{peaks[name] / 1e12:.3g} TFLOP/s in {name}" for name in peaks if name != "copy"
        ]
        yield ""
        yield f"A matrix product reaches {', '.join(products)}. "
        yield f"A copy moves {peaks['copy'] / 1e12:.3g} TB/s."


def _steps(result: dict[str, Any]) -> Iterator[str]:
    """Yield a table with a row for each variant of each step."""
    yield (
        "| step | code | precision | batch | images/s | to float32 transcription "
        "| to bfloat16 transcription | of the product's peak | of the copy's peak | peak GB "
        "| kernels | waits | model, H100 |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for kind in KINDS:
        measured = result.get(kind, {})
        for row in measured.get("variants", ()):
            yield _row(kind, row, measured, result.get("peaks"))
        if measured.get("out_of_memory"):
            yield f"| {kind} | does not fit |" + " |" * 11


def _row(
    kind: str, row: dict[str, Any], measured: dict[str, Any], peaks: dict[str, float] | None
) -> str:
    """Return the line of one variant."""
    speed = row["images_per_second"]
    seconds = measured["batch"] / speed
    product = copy = MISSING
    if peaks:
        product = f"{row['flops'] / seconds / peaks[row['precision']]:.0%}"
        copy = f"{row['bytes'] / seconds / peaks['copy']:.0%}"
    cells = [
        kind,
        row["code"],
        row["precision"],
        measured["batch"],
        f"{speed:.3g}",
        _ratio(speed, measured, "float32"),
        _ratio(speed, measured, "bfloat16"),
        product,
        copy,
        MISSING if row["peak_gigabytes"] is None else f"{row['peak_gigabytes']:.1f}",
        MISSING if row["kernels"] is None else f"{row['kernels']:,}",
        len(row["waits"]),
        f"{row['model_images_per_second']:.0f}" if row["code"] == "this code" else MISSING,
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _ratio(speed: float, measured: dict[str, Any], precision: str) -> str:
    """Return how many times the transcription's speed in this precision a speed is."""
    for row in measured["variants"]:
        if (row["code"], row["precision"]) == ("transcription", precision):
            return f"{speed / row['images_per_second']:.2f}"
    return MISSING


def _checks(result: dict[str, Any]) -> Iterator[str]:
    """Yield the comparison of two workers with one, and the loss curves."""
    if pair := result.get("two_workers"):
        yield (
            f"Two workers ({pair['backend']}) and one: the losses differ by at most "
            f"{pair['difference']:.1e} in float64."
        )
        yield ""
    if found := result.get("curves"):
        yield "| iteration | " + " | ".join(found) + " |"
        yield "|---" * (len(found) + 1) + "|"
        length = len(next(iter(found.values())))
        for iteration in SHOWN:
            if iteration <= length:
                values = [f"{curve[iteration - 1]:.4f}" for curve in found.values()]
                yield f"| {iteration} | " + " | ".join(values) + " |"
