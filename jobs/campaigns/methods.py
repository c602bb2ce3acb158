"""Which method keeps the old classes and learns the new ones best? VOC 15-5 and 10-10 in both settings: WILSON's Tables 1, 2.

    python -m jobs.campaign run methods --encoder-weights PATH

24 steps instead of 32: methods that learn from masks share their step 0, and WILSON has another, trained with binary
cross-entropy. Cost: images x epochs = 4.02 million. Each method has its paper's settings, the baselines MiB's.
The papers, old / new / all (15-5 without WILSON is MiB's Table 1, without background: it compares with --convention mib):

                        15-5 disjoint         15-5 overlap          10-10 disjoint        10-10 overlap
    fine-tuning         1.1 / 33.6 /  9.2     2.1 / 33.1 /  9.8     7.7 / 60.8 / 33.0     7.8 / 58.9 / 32.1
    LwF                58.4 / 37.4 / 53.1    58.9 / 36.6 / 53.3    63.1 / 61.1 / 62.2    70.7 / 63.4 / 67.2
    MiB                71.8 / 43.3 / 64.7    75.5 / 49.4 / 69.0    66.9 / 57.5 / 62.4    70.4 / 63.7 / 67.2
    WILSON             73.6 / 43.8 / 67.3    74.2 / 41.7 / 67.2    64.5 / 54.3 / 60.8    70.4 / 57.1 / 65.0
"""

from jobs.chains import voc_mib, voc_wilson
from orchestrator.campaign import sweep, with_field
from orchestrator.chain import Chain
from orchestrator.published import Expected
from training.data.sources import VOC_CLASSES
from training.methods import fine_tuning, lwf, mib
from training.scenario import split_groups

PAPER = (
    Expected("MiB Table 1", "FT", {"method.name": "fine-tuning"}),
    Expected("WILSON Table 2", "FT", {"method.name": "fine-tuning"}),
    Expected("MiB Table 1", "LwF", {"method.name": "lwf"}),
    Expected("WILSON Table 2", "LWF", {"method.name": "lwf"}),
    Expected("MiB Table 1", "MiB", {"method.name": "mib"}),
    Expected("WILSON Table 2", "MiB", {"method.name": "mib"}),
    Expected("WILSON Table 1", "WILSON", {"method.name": "wilson"}),
    Expected("WILSON Table 2", "WILSON", {"method.name": "wilson"}),
)


def chains() -> tuple[Chain, ...]:
    scenarios = {
        "scenario.groups": tuple(split_groups(split, VOC_CLASSES) for split in ("15-5", "10-10")),
        "scenario.setting": ("disjoint", "overlap"),
    }
    from_masks = with_field(voc_mib(), "name", "methods")
    weak = with_field(voc_wilson(), "name", "methods method=wilson")
    return (
        *sweep(from_masks, {"method": (fine_tuning.Config(), lwf.Config(), mib.Config()), **scenarios}),
        *sweep(weak, scenarios),
    )
