"""Adopt a model that was trained elsewhere: `python -m jobs.adopt WEIGHTS --name NAME ...`.

The model is published as a step 0, scored on the dataset, and found by NAME. Increments start from
it: `python -m jobs.train PRESET --adopted NAME`. WEIGHTS is a path or URI of safetensors or torch's
own format, with the names of Stepchain, of torchvision's DeepLabV3 on a ResNet, or of the public
code of WILSON, MiB or PLOP. No weights say how the network computes besides: a preset does, or the
options `--model.*`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jobs.adopt_options import TORCHVISION, Options
from jobs.errors import user_errors
from training.config import BACKGROUND, EvaluationConfig, InputError, ModelConfig

if TYPE_CHECKING:
    from orchestrator.planning.chain import Chain
    from orchestrator.records.schema import Adoption, StepRecord
    from orchestrator.store.base import Store
    from training.adoption import Described, Network
    from training.runtime import Runtime


def adopt(
    weights: tyro.conf.Positional[str], options: Annotated[Options, tyro.conf.arg(name="")]
) -> None:
    """Publish a model that was trained elsewhere as a step 0, and score it.

    Args:
        weights: Path or URI of the weights.
    """
    from orchestrator.datasets.pretrained import fetch_file
    from orchestrator.records.store_version import prepare_store

    if not options.name:
        raise InputError("give the model a --name, by which tables and later chains call it")
    store = options.open_existing()
    with TemporaryDirectory(prefix="stepchain-") as scratch:
        path = fetch_file(weights, Path(scratch))
        classes, fields, preset = _what_is_known(path, options)
        dataset = options.dataset or _only_dataset(store, classes)
        prepare_store(store)
        _adopt(path, options, classes, fields, preset, dataset, store)


def _what_is_known(
    path: Path, options: Options
) -> "tuple[tuple[str, ...], dict[str, Any], Chain | None]":
    """Return the classes, the fields of the model, and the preset's chain."""
    about = _about(path, options)
    if about and BACKGROUND not in about.class_ids:
        raise InputError(
            f"{path.name} is a model without a background channel (scenario.background none), "
            "which an adopted step has as its first: its first class would become background"
        )
    chain = None
    model: Mapping[str, Any] = about.model if about else {}
    if options.preset:
        chain, chosen = _preset(options.preset)
        model = chosen.model_dump()
        # These are in the weights.
        model = {k: v for k, v in model.items() if k not in ("encoder", "head", "head_channels")}
    if options.classes:
        classes = _class_names(options.classes)
        if about:
            _compare(path, about.classes[1:], classes)
    elif about:
        classes = about.classes[1:]
    else:
        raise InputError("name the model's --classes in the order of its channels: a,b,c or a file")
    return classes, {**model, **options.model.fields}, chain


def _about(path: Path, options: Options) -> "Described | None":
    """Return what the file says of itself, which need not be readable if options say as much."""
    from training.adoption import UnclearFile, read_about

    try:
        return read_about(path)
    except UnclearFile:
        if options.classes and options.preset:
            return None
        raise


def _preset(name: str) -> "tuple[Chain | None, ModelConfig]":
    """Return a preset's chain and model. Raise InputError if there is none."""
    from difflib import get_close_matches

    from stepchain.presets import PRESETS

    wanted = name.replace("-", "_")
    if wanted == "torchvision":
        return None, TORCHVISION
    if wanted not in PRESETS:
        names = ["torchvision", *PRESETS]
        near = get_close_matches(wanted, names, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise InputError(f"there is no preset {name!r}: {advice}")
    chain = PRESETS[wanted]()
    return chain, chain.model


def _class_names(given: str) -> tuple[str, ...]:
    """Return the names that are given, or those in the file that is given."""
    from jobs.console import open_console
    from training.data.class_names import parse_classes

    found = parse_classes([given])
    for remark in found.remarks:
        open_console().print(f"note: {remark}", markup=False)
    return found.names


def _compare(path: Path, said: Sequence[str], given: Sequence[str]) -> None:
    """Say that a file calls its classes otherwise. Raise InputError if it orders them otherwise."""
    from jobs.console import open_console

    if list(said) == list(given):
        return
    if sorted(said) == sorted(given):
        raise InputError(
            f"{path.name} says that its classes are {','.join(said)}, and --classes has them in "
            "another order, which would exchange them: leave --classes out"
        )
    open_console().print(
        f"note: {path.name} calls its classes {','.join(said)}; --classes calls them "
        f"{','.join(given)}"
    )


def _only_dataset(store: "Store", classes: Sequence[str]) -> str:
    """Return the store's only dataset with these classes. Raise InputError for none or several."""
    from orchestrator.datasets.catalog import known, resolve
    from orchestrator.store.cache import CorruptedObject

    names = list(known(store))
    fitting = []
    for name in names:
        with suppress(CorruptedObject):
            if set(classes) <= set(resolve(store, name)[1].classes):
                fitting.append(name)
    if len(fitting) == 1:
        return fitting[0]
    several = f"{', '.join(fitting)} have" if fitting else "no dataset of the store has"
    raise InputError(
        f"{several} these classes: name the --dataset whose classes the model knows "
        f"(there are {', '.join(names) or 'none'}: see python -m jobs.ingest)"
    )


def _adopt(
    path: Path,
    options: Options,
    classes: tuple[str, ...],
    fields: Mapping[str, Any],
    preset: "Chain | None",
    dataset: str,
    store: "Store",
) -> None:
    """Read, publish and score the model."""
    from orchestrator.datasets.catalog import resolve
    from orchestrator.execution.adopt import publish_adopted
    from orchestrator.planning.chain import Base, Chain
    from orchestrator.planning.resolver import adopted_step, class_ids
    from orchestrator.records.schema import DataSource
    from orchestrator.store.cache import file_sha256
    from training.adoption import read_network, write_network
    from training.methods import adopted
    from training.scenario import Scenario

    digest, manifest = resolve(store, dataset)
    ids = class_ids(classes, manifest.classes, dataset)
    network = read_network(path, fields, classes, options.norm)
    with TemporaryDirectory(prefix="stepchain-") as scratch:
        folder = Path(scratch)
        write_network(folder, network, ids)
        weights = file_sha256(folder / "model.safetensors")
        chain = Chain(
            name=options.name,
            scenario=Scenario(dataset=dataset, groups=(classes,), supervision="pixel"),
            base=Base(method=adopted.Config(weights=weights, classes=classes)),
            model=network.config,
            evaluation=_view(preset.evaluation if preset else EvaluationConfig(), options),
        )
        data = DataSource(name=dataset, manifest=digest, split="train")
        origin = _origin(path, options, network)
        record = publish_adopted(store, folder, adopted_step(chain, ids), data, origin)
    _show(record, chain, options, store)


def _origin(path: Path, options: Options, network: "Network") -> "Adoption":
    """Return what the record says about where the model came from."""
    from orchestrator.records.schema import Adoption
    from orchestrator.store.cache import file_sha256

    return Adoption(
        name=options.name,
        file=path.name,
        sha256=file_sha256(path),
        layout=network.layout,
        origin=options.origin,
    )


def _view(usual: EvaluationConfig, options: Options) -> EvaluationConfig:
    """Return how images are scored."""
    side = usual.short_side if options.short_side is None else options.short_side
    crop = usual.crop if options.crop is None else options.crop
    return EvaluationConfig(
        short_side=None if side == "original" else side, crop=None if crop == "none" else crop
    )


def _show(record: "StepRecord", chain: "Chain", options: Options, store: "Store") -> None:
    """Score the step if that is asked for, and print it."""
    from jobs.console import open_console
    from jobs.tables import print_classes
    from orchestrator.execution.adopt import score_adopted
    from orchestrator.planning.planner import plan_chain
    from orchestrator.records.results import adoption_words
    from training.metrics import wilson

    console = open_console()
    console.print(adoption_words([record]))
    start = f"python -m jobs.train PRESET --adopted {options.name if options.score else record.key}"
    if not options.score:
        console.print(f"not scored; python -m jobs.evaluate {record.key} scores it")
    else:
        result = score_adopted(
            store, record, plan_chain(chain, store, allow_overlap=True), _runtime()
        )
        print_classes([result], wilson(), console)
        if options.tracking:
            _track(result, store, options.tracking_uri)
    console.print(f"increments start from it: {start}")


def _track(result: Any, store: "Store", uri: str | None) -> None:
    """Show the chain and its step in MLflow."""
    from orchestrator.tracking.runs import build_finished_chain_run, build_step_result_run
    from orchestrator.tracking.tracker import open_tracker
    from training.metrics import wilson

    run = build_finished_chain_run(result, wilson())
    with open_tracker(store, uri) as tracker:
        tracker.report([run, build_step_result_run(result.steps[0], run, wilson())])


def _runtime() -> "Runtime":
    """Return this process, on its GPU if it has one."""
    import torch

    from training.runtime import Runtime

    return Runtime(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.cli(adopt, prog="python -m jobs.adopt", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
