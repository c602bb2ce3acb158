"""Canonical JSON and the keys made of it: what counts as the same result, and what does not.

Two documents are the same exactly when their canonical JSON is: ASCII, keys sorted, no spaces, floats as Python's `repr`
writes them. A document is validated again before it is written, so a field typed float reads `5.0` whether it was given
5, 5.0 or a default of 5, and a document altered past its checks gets no key.

A document may grow. A field that is new says at which value it means what was always done,

    blur: float = Field(default=0.0, json_schema_extra={"legacy": 0.0})

and is left out of the canonical JSON at that value, so that every key made before the field existed stays as it was. The
legacy value must be the default: then old records, which lack the field, read back as what they were.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel


def canonical_json(value: Any) -> bytes:
    """The one way to write `value`: documents, None, bool, int, float, str, and lists, tuples and dicts of them.

    Raises TypeError for any other type (numpy scalars and sets included), ValueError for NaN and infinities.
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def digest(value: Any) -> str:
    """sha256 of bytes as they are, or of any other value's canonical JSON, as 64 hex digits."""
    data = value if isinstance(value, bytes) else canonical_json(value)
    return hashlib.sha256(data).hexdigest()


def _plain(value: Any) -> Any:
    """`value` in JSON's own types; exact types only, since a subclass (numpy.float64, an enum) need not write itself alike."""
    if isinstance(value, BaseModel):
        return _fields(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return [_plain(item) for item in value]
    if type(value) is dict:
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
    raise TypeError(
        f"a {type(value).__name__} has no canonical JSON; convert it to bool, int, float, str, list or dict"
    )


def _fields(document: BaseModel) -> dict[str, Any]:
    """Fields of a document by name, without the new ones that hold their legacy value."""
    kind = type(document)
    document = kind.model_validate(document.model_dump(warnings="none"))
    kept = {}
    for name, field in kind.model_fields.items():
        value = getattr(document, name)
        mark = field.json_schema_extra
        if isinstance(mark, dict) and "legacy" in mark:
            if (
                field.is_required()
                or field.get_default(call_default_factory=True, validated_data={}) != mark["legacy"]
            ):
                raise TypeError(
                    f"{kind.__name__}.{name}: the default must be the legacy value, or old records would read back wrong"
                )
            if value == mark["legacy"]:
                continue
        kept[name] = _plain(value)
    return kept
