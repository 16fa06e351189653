"""What a forked process must make anew.

A fork copies only the thread that calls it: threads are gone in the child, and what they held stays held. Whoever owns
threads, locks or a device says here what to do about it in the child.
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
    """Have no other thread hold a lock at the moment of a fork: the child could never take it."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def _renew() -> None:
    for item, renew in list(_RENEWALS.items()):
        renew(item)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_renew)
