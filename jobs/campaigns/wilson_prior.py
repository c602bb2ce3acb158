"""What should WILSON's localizer know of the old classes? VOC 10-10, four priors.

It is Table 4 of the paper. Its code has the last row alone, so ours of the other three are
reconstructions, and no difference to the paper is shown of them (docs/methods.md).

    python -m jobs.campaign run wilson_prior --encoder-weights PATH

10 steps instead of 16: the prior is no part of step 0.
Cost: images x epochs = 2.50 million.

The paper, old / new / all:

    prior                                disjoint              overlap
    constant scores for old classes      64.8 / 49.9 / 58.8    69.4 / 52.0 / 62.0
    fixed: the previous model's scores   66.1 / 50.3 / 59.7    71.4 / 52.8 / 63.4
    learned, softmax cross-entropy       61.1 / 46.0 / 54.5    67.6 / 49.5 / 59.2
    learned, binary cross-entropy        64.5 / 54.3 / 60.8    70.4 / 57.1 / 65.0
"""

from stepchain import VOC_CLASSES, Chain, Expected, split_groups, sweep, voc_wilson, with_field

# The values of the axis, and the names of their rows in Table 4.
PRIORS = {
    "constant": "constant",
    "fixed": "fixed",
    "softmax_ce": "softmax-ce",
    "bce": "bce",
}
PAPER = tuple(
    Expected(
        "WILSON Table 4",
        f"WILSON prior={row}",
        {"method.prior": prior},
        reconstruction=prior != "bce",
    )
    for prior, row in PRIORS.items()
)


def chains() -> tuple[Chain, ...]:
    start = with_field(voc_wilson(), "name", "wilson_prior")
    start = with_field(start, "scenario.groups", split_groups("10-10", VOC_CLASSES))
    return sweep(
        start, {"scenario.setting": ("disjoint", "overlap"), "method.prior": tuple(PRIORS)}
    )
