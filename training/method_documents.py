"""Read the document of any method: the class that stands for it is found by the method's name."""

from importlib import import_module
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from training.config import InputError, MethodConfig


def read_method(value: Any) -> Any:
    """Read a method's document as the class that its name stands for.

    Args:
        value: The document as a dict, or an object, which is returned as it is.

    Raises:
        InputError: There is no method of that name.
        ValidationError: The document does not fit the method.
    """
    if not isinstance(value, dict):
        return value
    name = str(value.get("name"))
    try:
        module = import_module(f"training.methods.{name.replace('-', '_')}")
    except ModuleNotFoundError:
        raise InputError(
            f"there is no method {name!r}: training/methods has no such file"
        ) from None
    return module.Config.model_validate(value)


AnyMethod = Annotated[SerializeAsAny[MethodConfig], BeforeValidator(read_method)]
