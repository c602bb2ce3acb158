"""Say what is wrong with a chain or a document in a sentence."""

from typing import Any

from pydantic import BaseModel, ValidationError

from training.config import InputError


class PlanError(InputError):
    """The chain cannot be trained as requested. The message says why and what to change."""


def describe_validation_error(error: ValidationError) -> str:
    """Return all problems of a document as one line, separated by semicolons."""
    return "; ".join(_describe_problem(problem) for problem in error.errors())


def problem_message(problem: Any) -> str:
    """Return what is wrong, without pydantic's prefix."""
    return problem["msg"].removeprefix("Value error, ")


def _describe_problem(problem: Any) -> str:
    """Return where in the document the problem is, what is wrong and what was given."""
    path = ".".join(map(str, problem["loc"]))
    given = problem["input"]
    # A whole document would be too long for a message.
    shown = "" if isinstance(given, dict | BaseModel) else f" (given: {given!r})"
    message = problem_message(problem)
    return f"{path}: {message}{shown}" if path else message
