"""Measure training on a GPU, in one command: how fast, how near the chip, and is it right.

    python -m benchmarks.gpu [--out build/gpu.json]

It prints and writes one JSON document, and beside it a page of Markdown tables for docs/results.md:

    machine       names and versions
    peaks         a large matrix product in each precision, and a large copy
    steps         step 0, MiB and WILSON of 15-5 with ResNet-101 at crop 512 and batch 24: images
                  per second, share of the peaks, memory, kernels, lines that wait for the GPU, and
                  what `benchmarks.gpu_model` predicts for an H100
    two_workers   losses of two workers and of one
    curves        losses of WILSON on a CPU in float32 and on the GPU, from the same weights

The variants of a step take turns in one process: this code and a transcription of the published
one (`benchmarks.peer`), in bfloat16 and in float32 without TF32, and this code with `--compile`.
Their ratios count. Weights are random and images synthetic, so neither network nor dataset nor Ray
is needed. The batch is halved until all variants fit. A part that fails is named in the result and
the others go on. It takes about 15 minutes; `--cpu` runs tiny sizes on the CPU, which only tests
this script.
"""

import gc
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro

from benchmarks.gpu_checks import curves, two_workers
from benchmarks.gpu_measure import (
    Variant,
    allocated,
    build_run,
    count_kernels,
    describe_machine,
    find_waits,
    peak_copy,
    peak_product,
    peak_since,
    seconds_each,
)
from benchmarks.gpu_model import predict
from benchmarks.gpu_report import report
from benchmarks.gpu_steps import CURVE, KINDS, PAPER, TINY, Kind, Sizes, build_step
from training.config import Precision

VARIANTS = (
    Variant("ours", "bfloat16"),
    Variant("ours", "float32"),
    Variant("peer", "bfloat16"),
    Variant("peer", "float32"),
)
COMPILED = Variant("ours", "bfloat16", compiled=True)
PRECISIONS: tuple[Precision, ...] = ("bfloat16", "tf32", "float32")
SMALLEST_BATCH = 2


def main(out: Path = Path("build/gpu.json"), cpu: bool = False) -> None:
    """Measure.

    Args:
        out: File for the result; the page is written beside it, ending in .md.
        cpu: Run tiny sizes on the CPU, to test this script.
    """
    if not cpu and not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no GPU here; --cpu tests this script with tiny sizes")
    device = torch.device("cpu" if cpu else "cuda")
    sizes = TINY if cpu else PAPER
    parts: dict[str, Callable[[], Any]] = {
        "machine": partial(describe_machine, device),
        "peaks": partial(measure_peaks, device, sizes),
    }
    for kind in KINDS:
        parts[kind] = partial(measure_largest, kind, device, sizes)
    parts["two_workers"] = two_workers
    parts["curves"] = partial(curves, TINY if cpu else CURVE, device)
    result = run_parts(parts)
    document = json.dumps(result, indent=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(document + "\n")
    page = report(result)
    out.with_suffix(".md").write_text(page)
    print(document, page, sep="\n")
    if result["failed"]:
        sys.exit(1)


def run_parts(parts: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Return what each part measures; `failed` holds the messages of those that raised."""
    result: dict[str, Any] = {"failed": {}}
    for name, part in parts.items():
        print(f"{name} ...", flush=True)
        try:
            result[name] = part()
        except Exception as error:  # noqa: BLE001 - the other parts of a rented hour still count
            traceback.print_exc()
            result["failed"][name] = f"{type(error).__name__}: {error}"
    return result


def measure_peaks(device: torch.device, sizes: Sizes) -> dict[str, float]:
    """Return FLOP per second of products by precision, and bytes per second of a copy."""
    found = {kind: peak_product(device, kind, sizes.matrix) for kind in PRECISIONS}
    return found | {"copy": peak_copy(device, sizes.copied)}


def measure_largest(kind: Kind, device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Return what `measure_kind` returns, at the largest batch that fits."""

    def measure(batch: int) -> dict[str, Any]:
        return measure_kind(kind, device, replace(sizes, batch=batch))

    return largest_batch(measure, sizes.batch)


def measure_kind(kind: Kind, device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Return the numbers of each variant of a step; the variants take turns."""
    variants = [*VARIANTS, COMPILED] if device.type == "cuda" else [*VARIANTS]
    steps = {each: build_step(kind, sizes, each.precision) for each in variants}
    runs: dict[Variant, Callable[[], None]] = {}
    rows: list[dict[str, Any]] = []
    for each in variants:
        before = allocated(device)
        runs[each] = build_run(each, steps[each], device)
        seconds_each(runs[each], device, each.precision, sizes.warm_up)
        model = predict(kind, steps[each])
        rows.append(
            {
                "code": each.title,
                "precision": each.precision,
                "peak_gigabytes": peak_since(before, device),
                "kernels": count_kernels(runs[each], device),
                "waits": find_waits(runs[each], device),
                "flops": model.cost.flops,
                "bytes": model.cost.bytes,
                "model_images_per_second": model.images_per_second,
            }
        )
    seconds: dict[Variant, list[float]] = {each: [] for each in variants}
    for _ in range(sizes.rounds):
        for each in variants:
            taken = seconds_each(runs[each], device, each.precision, sizes.iterations)
            seconds[each].append(taken)
    for each, row in zip(variants, rows, strict=True):
        row["seconds"] = seconds[each]
        row["images_per_second"] = sizes.batch / median(seconds[each])
    return {"batch": sizes.batch, "crop": sizes.crop, "variants": rows}


def largest_batch(measure: Callable[[int], dict[str, Any]], batch: int) -> dict[str, Any]:
    """Return what `measure` returns, with the batch halved while the GPU is out of memory.

    If even SMALLEST_BATCH does not fit, `out_of_memory` is all it returns.
    """
    while batch >= SMALLEST_BATCH:
        try:
            return measure(batch)
        except torch.OutOfMemoryError:
            print(f"a batch of {batch} does not fit", flush=True)
        # The exception and its tensors are freed only after the except block.
        gc.collect()
        torch.cuda.empty_cache()
        batch //= 2
    return {"out_of_memory": True}


if __name__ == "__main__":
    tyro.cli(main)
