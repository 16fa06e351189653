"""A section of the configuration: typed values with ranges, and their description for the command line."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator

_INTEGERS, _NUMBERS, _MAX_DEPTH = 2**31, 1e30, 4


class Section(BaseModel):
    """Values that belong together. A new value, and its option, need nothing but a field with a description."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    option_prefix: ClassVar[str | None] = None
    """The prefix of its options' names; None: the section's own name."""

    @field_validator("*", mode="before")
    @classmethod
    def _within_limits(cls, value: Any) -> Any:
        """Only what 32-bit integers and floats can hold, and no deep nesting."""
        _check_numbers(value, _MAX_DEPTH)
        return value


def option(name: str | None = None, *, metavar: str | None = None, folder: bool = False) -> dict[str, Any]:
    """Properties of a field's option, for ``Field(json_schema_extra=...)``: its name, its value's name in the help, and
    whether it is a folder (whose full path is then stored)."""
    return {"option": name, "metavar": metavar, "folder": folder}


def _check_numbers(value: Any, depth: int) -> None:
    if isinstance(value, int) and not -_INTEGERS < value < _INTEGERS:
        raise ValueError(f"expected a whole number below {_INTEGERS}")
    if isinstance(value, float) and abs(value) > _NUMBERS:
        raise ValueError(f"expected a number no larger than {_NUMBERS:g}")
    if isinstance(value, (list, tuple)):
        if not depth:
            raise ValueError("expected fewer nested lists")
        for item in value:
            _check_numbers(item, depth - 1)
