"""Export a model: `python -m jobs.export STEP --format torch --out FOLDER --store URI`.

STEP is a step's key, the beginning of one, or CHAIN:INDEX with a chain's name, such as
`digits_wilson:1`. The file is checked against the published model before it gets its name. The
lines that load it without Stepchain are printed, and written beside it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jobs.errors import user_errors
from jobs.options import AtStore
from jobs.places import checked_folder

if TYPE_CHECKING:
    from orchestrator.prediction.export import About
    from orchestrator.prediction.published_model import PublishedModel


def export(
    step: tyro.conf.Positional[str],
    out: Path,
    at: AtStore,
    kind: Annotated[Literal["safetensors", "torch", "onnx"], tyro.conf.arg(name="format")],
) -> None:
    """Write the model of a published step as a file that loads without Stepchain.

    Args:
        step: Key of a step, the beginning of one, or CHAIN:INDEX.
        out: The file, named .safetensors, .pt2 or .onnx, or a folder for it.
        kind: safetensors has the weights under their names. torch (torch.export) and onnx have the
            network, too, for any number and size of photos; onnx needs `stepchain[onnx]`.
    """
    from jobs.console import open_console
    from orchestrator.prediction.export import Export
    from orchestrator.prediction.published_model import fetched, find_model
    from orchestrator.prediction.readme import lines

    model = find_model(at.open_existing(), step)
    files = Export(out.expanduser(), kind)
    checked_folder(files.path.parent)
    with fetched(model.store, model.record) as folder:
        files.write(folder, _about(model))
    console = open_console()
    console.print(f"{files.path} computes what step {model.record.key} does. To load it:\n")
    console.print(lines(kind, files.path.name))
    console.print(f"as in {files.readme}")


def _about(model: "PublishedModel") -> "About":
    """Return what the file says about itself."""
    from orchestrator.prediction.export import About

    step = model.record.step
    return About(
        step=model.record.key,
        attempt=model.record.attempt,
        classes=tuple(model.class_names.values()),
        class_ids=tuple(model.class_names),
        short_side=model.view.short_side,
        model=step.model,
        channels=step.task.channels,
    )


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.cli(export, prog="python -m jobs.export", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
