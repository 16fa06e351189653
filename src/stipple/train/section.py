"""A section of the configuration: typed values with ranges, and what the command line says about each."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator

_INTEGERS, _NUMBERS, _MAX_DEPTH = 2**31, 1e30, 4


class Section(BaseModel):
    """Values that belong together. A field with a description is all that a new value and its option need."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    option_prefix: ClassVar[str | None] = None
    """What the names of its options begin with; None: the section's own name."""

    @field_validator("*", mode="before")
    @classmethod
    def _within_limits(cls, value: Any) -> Any:
        """Only what 32-bit integers and floats can hold, and no deep nesting."""
        _check_numbers(value, _MAX_DEPTH)
        return value


def option(name: str | None = None, *, metavar: str | None = None, folder: bool = False) -> dict[str, Any]:
    """What a field specifies about its option, for ``Field(json_schema_extra=...)``: a name of its own, how help shows
    its value, and whether it is a folder (whose full path is then stored)."""
    return {"option": name, "metavar": metavar, "folder": folder}


def _check_numbers(value: Any, depth: int) -> None:
    if isinstance(value, int) and not -_INTEGERS < value < _INTEGERS:
        raise ValueError(f"expected a whole number below {_INTEGERS}")
    if isinstance(value, float) and abs(value) > _NUMBERS:
        raise ValueError(f"expected a number no larger than {_NUMBERS:g}")
    if isinstance(value, (list, tuple)):
        if not depth:
            raise ValueError("expected fewer lists in lists")
        for item in value:
            _check_numbers(item, depth - 1)
