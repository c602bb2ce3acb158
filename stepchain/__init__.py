"""Define campaigns, and read what they published, in a campaign file or a notebook.

    >>> from stepchain import digits_wilson, sweep
    >>> chains = sweep(digits_wilson(), {"method.alpha": (0, 0.5, 1), "seed": (42, 43)})
    >>> len(chains)
    6
    >>> chains[0].name
    'digits_wilson alpha=0 seed=42'

Every name below is public, typed and documented. A name is imported when it is first used. So
`import stepchain` takes no time, and imports PyTorch only for what needs it. It never imports Ray
or MLflow.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.planning.campaign import Campaign, sweep
    from orchestrator.planning.chain import Base, Chain
    from orchestrator.planning.fields import with_field
    from orchestrator.planning.paper_numbers import Expected
    from stepchain.encoders import library_model
    from stepchain.prediction import load_model, predict
    from stepchain.presets import (
        ade_mib,
        ade_plop,
        coco_voc_wilson,
        digits_dft,
        digits_finetuning,
        digits_lwf,
        digits_mib,
        digits_mib_swin,
        digits_ssul,
        digits_wilson,
        small_voc_wilson,
        voc_dft,
        voc_mib,
        voc_mib_15_1,
        voc_mib_dinov2,
        voc_plop,
        voc_ssul,
        voc_wilson,
        voc_wilson_swin,
    )
    from stepchain.results import (
        PublishedChain,
        PublishedStep,
        find_chain,
        find_step,
        open_store,
        start_from,
    )
    from training.backbone import Backbone
    from training.config import (
        Augmentation,
        EvaluationConfig,
        InputError,
        ModelConfig,
        Optimization,
    )
    from training.data.voc import VOC_CLASSES
    from training.methods.adopted import Config as Adopted
    from training.methods.dft import Config as DFT
    from training.methods.ewc import Config as EWC
    from training.methods.ewf import Config as EWF
    from training.methods.fine_tuning import Config as FineTuning
    from training.methods.icarl import Config as ICaRL
    from training.methods.ilt import Config as ILT
    from training.methods.joint import Config as Joint
    from training.methods.lwf import Config as LwF
    from training.methods.lwf_mc import Config as LwFMC
    from training.methods.mib import Config as MiB
    from training.methods.mib_augm import Config as MiBAugM
    from training.methods.offline import Config as Offline
    from training.methods.offline_layer import Config as OfflineLayer
    from training.methods.pi import Config as PI
    from training.methods.plop import Config as PLOP
    from training.methods.rw import Config as RW
    from training.methods.ssul import Config as SSUL
    from training.methods.wilson import Config as WILSON
    from training.scenario import Scenario, split_groups

__all__ = [
    "DFT",
    "EWC",
    "EWF",
    "ILT",
    "PI",
    "PLOP",
    "RW",
    "SSUL",
    "VOC_CLASSES",
    "WILSON",
    "Adopted",
    "Augmentation",
    "Backbone",
    "Base",
    "Campaign",
    "Chain",
    "EvaluationConfig",
    "Expected",
    "FineTuning",
    "ICaRL",
    "InputError",
    "Joint",
    "LwF",
    "LwFMC",
    "MiB",
    "MiBAugM",
    "ModelConfig",
    "Offline",
    "OfflineLayer",
    "Optimization",
    "PublishedChain",
    "PublishedStep",
    "Scenario",
    "ade_mib",
    "ade_plop",
    "coco_voc_wilson",
    "digits_dft",
    "digits_finetuning",
    "digits_lwf",
    "digits_mib",
    "digits_mib_swin",
    "digits_ssul",
    "digits_wilson",
    "find_chain",
    "find_step",
    "library_model",
    "load_model",
    "open_store",
    "predict",
    "small_voc_wilson",
    "split_groups",
    "start_from",
    "sweep",
    "voc_dft",
    "voc_mib",
    "voc_mib_15_1",
    "voc_mib_dinov2",
    "voc_plop",
    "voc_ssul",
    "voc_wilson",
    "voc_wilson_swin",
    "with_field",
]

__version__ = metadata.version("stepchain")

# Where each module's names are; a method's document is called `Config` beside its code.
_NAMES = {
    "orchestrator.planning.campaign": ("Campaign", "sweep"),
    "orchestrator.planning.chain": ("Base", "Chain"),
    "orchestrator.planning.fields": ("with_field",),
    "orchestrator.planning.paper_numbers": ("Expected",),
    "stepchain.encoders": ("library_model",),
    "stepchain.prediction": ("load_model", "predict"),
    "stepchain.presets": (
        "ade_mib",
        "ade_plop",
        "coco_voc_wilson",
        "digits_dft",
        "digits_finetuning",
        "digits_lwf",
        "digits_mib",
        "digits_mib_swin",
        "digits_ssul",
        "digits_wilson",
        "small_voc_wilson",
        "voc_dft",
        "voc_mib",
        "voc_mib_15_1",
        "voc_mib_dinov2",
        "voc_plop",
        "voc_ssul",
        "voc_wilson",
        "voc_wilson_swin",
    ),
    "stepchain.results": (
        "PublishedChain",
        "PublishedStep",
        "find_chain",
        "find_step",
        "open_store",
        "start_from",
    ),
    "training.backbone": ("Backbone",),
    "training.config": (
        "Augmentation",
        "EvaluationConfig",
        "InputError",
        "ModelConfig",
        "Optimization",
    ),
    "training.data.voc": ("VOC_CLASSES",),
    "training.scenario": ("Scenario", "split_groups"),
}
_METHODS = {
    "Adopted": "adopted",
    "DFT": "dft",
    "EWC": "ewc",
    "EWF": "ewf",
    "FineTuning": "fine_tuning",
    "ICaRL": "icarl",
    "ILT": "ilt",
    "Joint": "joint",
    "LwF": "lwf",
    "LwFMC": "lwf_mc",
    "MiB": "mib",
    "MiBAugM": "mib_augm",
    "Offline": "offline",
    "OfflineLayer": "offline_layer",
    "PI": "pi",
    "PLOP": "plop",
    "RW": "rw",
    "SSUL": "ssul",
    "WILSON": "wilson",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _METHODS:
        value = import_module(f"training.methods.{_METHODS[name]}").Config
    else:
        home = next((module for module, names in _NAMES.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
