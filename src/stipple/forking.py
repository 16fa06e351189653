"""What a forked process must create again.

A fork copies only the thread that calls it: other threads are gone in the child, and locks that they held stay locked.
Owners of threads, locks or a device register here what the child has to do.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

Item = TypeVar("Item")
_RENEWALS: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def in_forked_children(item: Item, renew: Callable[[Item], None]) -> None:
    """Call ``renew(item)`` at the start of every process that is forked from this one while ``item`` lives."""
    _RENEWALS[item] = renew


def hold_across_forks(lock: Any) -> None:
    """Ensure that no other thread holds a lock at the moment of a fork: the child could never acquire it."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def _renew() -> None:
    for item, renew in list(_RENEWALS.items()):
        renew(item)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_renew)
