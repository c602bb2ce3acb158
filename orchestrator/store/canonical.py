"""Write documents as canonical JSON, from which keys are made.

Two documents count as the same exactly when their canonical JSON is the same: ASCII, keys sorted,
no spaces, floats as Python's `repr` writes them. A document is validated again before it is
written. A field typed float therefore reads `5.0`, whether it was given 5, 5.0 or a default of 5. A
document that was altered past its checks gets no key.

A document may gain fields. A new field declares which of its values stands for the behaviour before
the field existed:

    blur: float = Field(default=0.0, json_schema_extra={"legacy": 0.0})

The canonical JSON leaves the field out at that value. Every key made before the field existed
therefore stays as it was. The legacy value must be the default, so that old records, which lack the
field, are read back as what they were.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON of a value.

    Args:
        value: A document, None, bool, int, float or str, or a list, tuple or dict of these.

    Raises:
        TypeError: The value, or one in it, is of another type, such as a set or a numpy scalar.
        ValueError: A float is NaN or infinite.
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def digest(value: Any) -> str:
    """Return the sha256 of bytes, or of another value's canonical JSON, as 64 hex digits."""
    data = value if isinstance(value, bytes) else canonical_json(value)
    return hashlib.sha256(data).hexdigest()


def _plain(value: Any) -> Any:
    """Return the value in JSON's own types.

    Only exact types pass, because a subclass such as numpy.float64 may be written differently.
    """
    if isinstance(value, BaseModel):
        return _fields(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return [_plain(item) for item in value]
    if type(value) is dict:
        return _plain_dict(value)
    raise TypeError(
        f"a {type(value).__name__} has no canonical JSON; "
        "convert it to bool, int, float, str, list or dict"
    )


def _plain_dict(value: dict[Any, Any]) -> dict[str, Any]:
    if not all(type(key) in (str, int) for key in value):
        raise TypeError(
            f"the keys of a dict must be str or int to have canonical JSON: {list(value)}"
        )
    named = {str(key): _plain(item) for key, item in value.items()}
    if len(named) < len(value):
        raise ValueError(
            "a dict with both a number and the same number as text for a key has no canonical JSON"
        )
    return named


def _fields(document: BaseModel) -> dict[str, Any]:
    """Return the fields of a document by name, without those that hold their legacy value."""
    kind = type(document)
    document = kind.model_validate(document.model_dump(warnings="none"))
    kept = {}
    for name, field in kind.model_fields.items():
        value = getattr(document, name)
        mark = field.json_schema_extra
        if isinstance(mark, dict) and "legacy" in mark:
            _check_legacy_default(f"{kind.__name__}.{name}", field, mark["legacy"])
            if value == mark["legacy"]:
                continue
        kept[name] = _plain(value)
    return kept


def _check_legacy_default(name: str, field: FieldInfo, legacy: Any) -> None:
    if field.is_required() or field.get_default(call_default_factory=True) != legacy:
        raise TypeError(
            f"{name}: the default must be the legacy value, or old records would read back wrong"
        )
