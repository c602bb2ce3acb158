"""What causes forgetting, and what removes it? VOC 15-5 overlap, one cause taken away each.

The second step is trained in ways that each take away one cause.

    python -m jobs.campaign run interventions --encoder-weights PATH

12 steps instead of 22: all share step 0.
Cost: images x epochs = 1.00 million.

Kalb and Beyerer (ACCV 2022) name two causes: background that was, or is, another class, and a bias
towards new classes. Each way is plain cross-entropy with one change:

    cross-entropy                  both causes at work
    background ignored             no background to shift: what is left is the bias
    unbiased cross-entropy         background means "background or any previous class" (MiB, Eq. 5)
    distillation                   the previous model's outputs are kept: LwF, weight 100
    unbiased distillation          previous background means "background or any new class" (Eq. 7)
    both unbiased                  the two together
    mib                            ... and classifiers that start as background
    oracle labels                  masks name the previous classes, too: no shift, no memory
    replay                         100 images of earlier steps, with their masks
    frozen encoder                 only head and classifiers learn
    frozen statistics              batch norms keep the statistics of step 0

`python -m jobs.analyze` says of each how much of either cause is left. The papers, old / new / all
(counted as --convention mib does): cross-entropy 2.1 / 33.1 / 9.8, distillation 58.9 / 36.6 / 53.3,
mib 75.5 / 49.4 / 69.0.
"""

from typing import Any

from stepchain import Chain, Expected, FineTuning, LwF, MiB, voc_mib, with_field

MIB_PARTS = {
    "method.unbiased_cross_entropy": True,
    "method.unbiased_distillation": True,
    "method.background_initialisation": True,
}
PLAIN = {
    "method.name": "fine-tuning",
    "method.ignore_background": False,
    "optimization.frozen": "nothing",
}
PAPER = (
    Expected("MiB Table 1", "FT", PLAIN),
    Expected("MiB Table 1", "LwF", {"method.name": "lwf"}),
    Expected("MiB Table 1", "MiB", {**MIB_PARTS, "method.distillation_weight": 10}),
)
# Each variant, and the fields in which it differs from plain cross-entropy.
INTERVENTIONS: dict[str, dict[str, Any]] = {
    "cross-entropy": {},
    "background ignored": {"method": FineTuning(ignore_background=True)},
    "unbiased cross-entropy": {
        "method": MiB(distillation_weight=0, background_initialisation=False)
    },
    "distillation": {"method": LwF()},
    "unbiased distillation": {
        "method": MiB(unbiased_cross_entropy=False, background_initialisation=False)
    },
    "both unbiased": {"method": MiB(background_initialisation=False)},
    "mib": {"method": MiB()},
    "oracle labels": {"scenario.labels": "seen"},
    "replay": {"scenario.memory": 100},
    "frozen encoder": {"optimization.frozen": "encoder"},
    "frozen statistics": {"optimization.frozen": "statistics"},
}


def chains() -> tuple[Chain, ...]:
    return interventions(with_field(voc_mib(), "name", "interventions"))


def interventions(start: Chain) -> tuple[Chain, ...]:
    """Return the chain with plain cross-entropy, and with each intervention, named after it."""
    plain = with_field(start, "method", FineTuning())
    made = []
    for name, changes in INTERVENTIONS.items():
        chain = with_field(plain, "name", f"{start.name} {name}")
        for field, value in changes.items():
            chain = with_field(chain, field, value)
        made.append(chain)
    return tuple(made)
