"""Select the images of a scenario's steps from a dataset's index: by rule, by lists, by memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.planning.validation import PlanError
from training.config import flatten_groups
from training.data.shards import Index
from training.scenario import Scenario, choose_memory, keep_share, select_images

Groups = tuple[tuple[int, ...], ...]  # dataset class ids of each step


@dataclass(frozen=True)
class ImageSelection:
    """Selects from one dataset's training split.

    Attributes:
        index: The split's index.
        lists: Returns the image ids of each step by the digest that a scenario names.
    """

    index: Index
    lists: Callable[[str], Sequence[Sequence[str]]]

    def selected(self, scenario: Scenario, groups: Groups, number: int) -> np.ndarray:
        """Return the rows of the images that step `number` trains on, without kept ones.

        Raises:
            PlanError: Published lists do not fit the scenario or the dataset.
        """
        if scenario.selections:
            rows = self._listed(scenario, scenario.selections, groups, number)
        else:
            labels, ids = self.index.labels, self.index.ids
            rows = select_images(labels, groups, number, scenario.setting, ids)
        if scenario.empty_images and number == 0:
            rows = np.union1d(rows, np.flatnonzero(~self.index.labels.any(1)))
        if number == 0 or len(rows) == 0:
            return rows
        return keep_share(rows, self.index.ids, scenario.image_share)

    def memory(self, scenario: Scenario, groups: Groups, number: int) -> np.ndarray:
        """Return the images kept of earlier steps, without those this step may select itself.

        Raises:
            PlanError: None is left to keep, or published lists do not fit.
        """
        if not (number and scenario.memory):
            return np.array([], dtype=np.int64)
        selected = [self.selected(scenario, groups, before) for before in range(number)]
        earlier = np.unique(np.concatenate(selected))
        without_share = scenario.model_copy(update={"image_share": 1.0})
        candidates = np.setdiff1d(earlier, self.selected(without_share, groups, number))
        previous = flatten_groups(groups[:number])
        kept = choose_memory(
            self.index.labels, previous, candidates, self.index.ids, scenario.memory
        )
        if not len(kept):
            raise PlanError(
                f"step {number} keeps no image of earlier steps, and scenario.memory is "
                f"{scenario.memory}: its own images include all that they showed of previous "
                "classes; set scenario.memory 0, or give each image to one step "
                "(scenario.setting partitioned)"
            )
        return kept

    def _listed(self, scenario: Scenario, digest: str, groups: Groups, number: int) -> np.ndarray:
        """Return the images that published lists give a step.

        A step that learns all groups at once gets the images of all lists.
        """
        lists = self.lists(digest)
        steps = len(scenario.groups)
        if len(lists) != steps:
            raise PlanError(
                f"the scenario has {steps} steps, "
                f"and its selections list the images of {len(lists)}"
            )
        wanted = set(flatten_groups(lists) if len(groups) < steps else lists[number])
        rows = np.flatnonzero([id in wanted for id in self.index.ids])
        if len(rows) < len(wanted):
            missing = min(wanted - set(self.index.ids))
            raise PlanError(
                f"the selections name image {missing!r}, "
                f"which is not in the training list of {scenario.dataset!r}"
            )
        return rows
