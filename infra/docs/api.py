"""Write docs/api.md from the docstrings of the public face: `python -m infra.docs.api`."""

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import stepchain

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
SECTIONS = {
    "Chains and campaigns": (
        "Chain",
        "Base",
        "Scenario",
        "ModelConfig",
        "Backbone",
        "library_model",
        "Optimization",
        "Augmentation",
        "EvaluationConfig",
        "sweep",
        "with_field",
        "split_groups",
        "Expected",
        "Campaign",
        "VOC_CLASSES",
    ),
    "Presets": (
        "digits_wilson",
        "digits_mib",
        "digits_lwf",
        "digits_finetuning",
        "digits_mib_swin",
        "digits_dft",
        "digits_ssul",
        "voc_wilson",
        "voc_mib",
        "voc_mib_15_1",
        "voc_plop",
        "voc_wilson_swin",
        "voc_mib_dinov2",
        "voc_dft",
        "voc_ssul",
        "coco_voc_wilson",
        "ade_mib",
        "ade_plop",
        "small_voc_wilson",
    ),
    "Methods": (
        "FineTuning",
        "Joint",
        "LwF",
        "LwFMC",
        "ICaRL",
        "ILT",
        "EWC",
        "PI",
        "RW",
        "MiB",
        "MiBAugM",
        "PLOP",
        "EWF",
        "DFT",
        "SSUL",
        "WILSON",
        "Offline",
        "OfflineLayer",
        "Adopted",
    ),
    "Results": (
        "open_store",
        "find_chain",
        "find_step",
        "start_from",
        "PublishedChain",
        "PublishedStep",
    ),
    "Predictions": ("load_model", "predict"),
    "Errors": ("InputError",),
}


def api_page() -> str:
    """Return the text of docs/api.md."""
    lines = ["# The package `stepchain`", "", *markdown(stepchain.__doc__ or "")]
    for title, names in SECTIONS.items():
        lines += ["", f"## {title}"]
        for name in names:
            lines += ["", f"### `{name}`", "", *_describe(name, getattr(stepchain, name))]
    return "\n".join(lines) + "\n"


def _describe(name: str, value: Any) -> Iterator[str]:
    """Return the signature and the documentation of a public name."""
    if not callable(value):
        yield f"`{name} = {value!r}`"
        return
    yield from _code(_signature(name, value))
    yield ""
    yield from markdown(inspect.getdoc(value) or "")
    if inspect.isclass(value) and value.__module__.startswith("stepchain"):
        for member, attribute in vars(value).items():
            if not member.startswith("_") and isinstance(attribute, property):
                yield from (
                    "",
                    f"`{name}.{member}`",
                    "",
                    *markdown(inspect.getdoc(attribute) or ""),
                )
            elif not member.startswith("_") and inspect.isfunction(attribute):
                yield from ("", *_code(_signature(f"{name}.{member}", attribute)), "")
                yield from markdown(inspect.getdoc(attribute) or "")


def _signature(name: str, value: Any) -> str:
    """Return the call as Python writes it; a document shows its fields, one a line."""
    if inspect.isclass(value) and issubclass(value, BaseModel):
        fields = [f"    {_field(field, info)}," for field, info in value.model_fields.items()]
        return "\n".join([f"{name}(", *fields, ")"]) if fields else f"{name}()"
    if inspect.isclass(value) and issubclass(value, Exception):
        return f"{name}(message)"
    signature = inspect.signature(value)
    shown = [_parameter(each) for each in signature.parameters.values() if each.name != "self"]
    returned = signature.return_annotation
    arrow = "" if returned is inspect.Signature.empty else f" -> {_type(returned)}"
    return f"{name}({', '.join(shown)}){arrow}"


def _field(name: str, info: Any) -> str:
    """Return a field of a document with its type and default."""
    if info.is_required():
        return f"{name}: {_type(info.annotation)}"
    default = info.get_default(call_default_factory=True)
    shown = "..." if isinstance(default, BaseModel) else repr(default)
    return f"{name}: {_type(info.annotation)} = {shown}"


def _parameter(parameter: inspect.Parameter) -> str:
    """Return a parameter with its type and default."""
    shown = f"{parameter.name}: {_type(parameter.annotation)}"
    if parameter.default is inspect.Parameter.empty:
        return shown
    return f"{shown} = {parameter.default!r}"


def _type(annotation: Any) -> str:
    """Return a type without the modules that its parts come from."""
    shown = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    bare = re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", shown).replace("~", "")
    return bare if "Literal[" in bare else bare.replace("'", "")


def markdown(docstring: str) -> Iterator[str]:
    """Return a docstring as Markdown: its sections as lists, its examples as code."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(docstring))
    for number, block in enumerate(blocks):
        if number:
            yield ""
        lines = block.splitlines()
        heading = re.fullmatch(r"(Args|Returns|Raises|Examples):", lines[0])
        if heading:
            yield from (f"**{heading[1]}**", "")
            lines = inspect.cleandoc("\n" + "\n".join(lines[1:])).splitlines()
        if lines[0].lstrip().startswith(">>>"):
            yield from _code(inspect.cleandoc("\n" + "\n".join(lines)), "python")
        elif heading and heading[1] != "Returns":
            yield from _items(lines)
        else:
            yield from lines


def _items(lines: Iterable[str]) -> Iterator[str]:
    """Return `name: words` with continued lines as a list."""
    for line in lines:
        name, colon, words = line.partition(":")
        begins = colon and not line.startswith(" ")
        yield f"- `{name}`:{words}" if begins else f"  {line.strip()}"


def _code(text: str, language: str = "python") -> Iterator[str]:
    yield from (f"```{language}", text, "```")


if __name__ == "__main__":
    PAGE.write_text(api_page(), encoding="utf-8")
