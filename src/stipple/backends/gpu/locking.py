"""Methods that only one thread at a time executes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class Locked(Protocol):
    """An object with a reentrant lock."""

    @property
    def lock(self) -> AbstractContextManager[Any]: ...


_Owner = TypeVar("_Owner", bound=Locked)
_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def alone(method: Callable[Concatenate[_Owner, _Args], _Result]) -> Callable[Concatenate[_Owner, _Args], _Result]:
    """A method that acquires its object's lock; such methods may call each other."""

    @wraps(method)
    def locked(owner: _Owner, /, *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        with owner.lock:
            return method(owner, *args, **kwargs)

    return locked
