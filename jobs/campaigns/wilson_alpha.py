"""How hard should WILSON's pseudo-supervision be? VOC 10-10, Figure 4 of the paper.

Alpha goes from 0 (soft) to 1 (hard).

    python -m jobs.campaign run wilson_alpha --encoder-weights PATH

12 steps instead of 20: alpha is no part of step 0, so each setting trains that once.
Cost: images x epochs = 3.05 million.

The paper, all, disjoint then overlap (read off the figure, to about 0.1):

    alpha      0     0.3   0.5   0.7   1
    disjoint   60.0  60.6  60.8  60.5  57.1
    overlap    64.3  64.8  64.4  64.3  58.1
"""

from stepchain import VOC_CLASSES, Chain, Expected, split_groups, sweep, voc_wilson, with_field

ALPHAS = (0, 0.3, 0.5, 0.7, 1)
PAPER = tuple(
    Expected("WILSON Figure 4", f"WILSON alpha={alpha}", {"method.alpha": alpha})
    for alpha in ALPHAS
)


def chains() -> tuple[Chain, ...]:
    start = with_field(voc_wilson(), "name", "wilson_alpha")
    start = with_field(start, "scenario.groups", split_groups("10-10", VOC_CLASSES))
    return sweep(start, {"scenario.setting": ("disjoint", "overlap"), "method.alpha": ALPHAS})
