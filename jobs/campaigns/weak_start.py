"""Can a chain be weak from end to end? VOC 15-5 overlap, no mask in any step.

Step 0 learns 15 classes from masks, or from image labels by WILSON's localizer or the offline route
without a previous model. Step 1 is WILSON's or the offline route's, from image labels in any case.

    python -m jobs.campaign run weak_start --encoder-weights PATH

9 steps instead of 12: each step 0 serves both methods of step 1.
Cost: images x epochs = 1.38 million.

The paper has the first row, masks and then WILSON: 74.2 / 41.7 / 67.2 (old / new / all). No paper's
code trains step 0 from image labels (docs/methods.md says what we do), so the others have none.
"""

from stepchain import WILSON, Chain, Expected, Offline, voc_wilson, with_field

PAPER = (Expected("WILSON Table 1", "WILSON", {"method.name": "wilson"}),)
OFFLINE = Offline(pseudo_labels="single_stage")
WEAK_STARTS = {
    "wilson": WILSON(prior="constant", encoder_distillation=0),
    "offline": OFFLINE,
}


def chains() -> tuple[Chain, ...]:
    starts = {"masks": with_field(voc_wilson(), "name", "weak_start")}
    for name, method in WEAK_STARTS.items():
        weak = with_field(starts["masks"], "scenario.base_supervision", "image")
        starts[name] = with_field(weak, "base.method", method)
    return crossed(starts, {"wilson": starts["masks"].method, "offline": OFFLINE})


def crossed(starts: dict[str, Chain], methods: dict[str, object]) -> tuple[Chain, ...]:
    """Return a chain for each step 0 and each method of step 1, named by both."""
    made = []
    for start, chain in starts.items():
        for name, method in methods.items():
            named = with_field(chain, "name", f"{chain.name} {start} then {name}")
            made.append(with_field(named, "method", method))
    return tuple(made)
