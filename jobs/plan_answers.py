"""Answer what a plan is asked besides: why a step is not there, and whether files still are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.options import Questions
from orchestrator.store.base import Store

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.planning.nearest_step import Nearest
    from orchestrator.planning.step_tree import StepTree
    from orchestrator.planning.store_state import StoredStep
    from orchestrator.records.published_files import Verification


@dataclass(frozen=True)
class Answers:
    """What was found. Nothing that was not asked for."""

    nearest: "Mapping[str, Nearest | None]"  # by key, of steps without a record
    verification: "Verification | None"

    @property
    def damaged(self) -> bool:
        """Return whether a published file is gone or damaged."""
        return bool(self.verification and self.verification.problems)

    def print_verification(self, console: "Console") -> None:
        """Print which files are gone or damaged, if that was asked."""
        if self.verification:
            for problem in (*self.verification.problems, str(self.verification)):
                console.print(problem, markup=False, highlight=False, soft_wrap=True)

    def within(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Return the document of a plan with the answers."""
        from orchestrator.planning.nearest_step import nearest_document

        for step in plan["steps"]:
            if step["key"] in self.nearest:
                step["nearest"] = nearest_document(self.nearest[step["key"]])
        if self.verification:
            plan["verification"] = self.verification._asdict()
        return plan


def answer(
    questions: Questions, tree: "StepTree", stored: "Mapping[str, StoredStep]", store: Store
) -> Answers:
    """Look for the answers in the store. Write nothing."""
    from orchestrator.planning.nearest_step import nearest_steps
    from orchestrator.planning.store_state import published_files
    from orchestrator.records.published_files import verify
    from orchestrator.records.repository import Repository

    repository = Repository(store)
    return Answers(
        nearest_steps(tree, stored, repository) if questions.why else {},
        verify(store, published_files(tree, stored, repository)) if questions.verify else None,
    )
