"""Methods that one thread at a time is in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class Locked(Protocol):
    """An object with a lock that may be taken again by the thread that holds it."""

    @property
    def lock(self) -> AbstractContextManager[Any]: ...


_Owner = TypeVar("_Owner", bound=Locked)
_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def alone(method: Callable[Concatenate[_Owner, _Args], _Result]) -> Callable[Concatenate[_Owner, _Args], _Result]:
    """A method that waits for its object's lock; what one calls, another may call."""

    @wraps(method)
    def locked(owner: _Owner, /, *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        with owner.lock:
            return method(owner, *args, **kwargs)

    return locked
