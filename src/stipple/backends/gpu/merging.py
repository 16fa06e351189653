"""Kernels with more arrays than a device binds to one: arrays of one type share a binding.

WebGPU promises 8 storage buffers to a kernel, and some devices have no more than that or 10. There arrays are copied
one behind another into one buffer before the kernel runs, and those it writes back into their own after it; the
smallest first, and only as many as must be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from stipple.backends.gpu.buffers import GpuBuffer


class Bound(NamedTuple):
    """An array as a kernel sees it; ``writes`` is whether it may write it."""

    name: str
    buffer: GpuBuffer
    writes: bool

    @property
    def kind(self) -> str:
        """What arrays must have in common to share a binding; part of a name."""
        return f"{self.buffer.wgsl}_{'written' if self.writes else 'read'}"


def to_merge(bound: Sequence[Bound], most: int) -> list[list[Bound]]:
    """Which arrays share bindings, so that there are at most ``most``; the fewest bytes are copied."""
    groups: dict[str, list[Bound]] = {}
    left = len(bound)
    for array in sorted(bound, key=lambda b: b.buffer.size * (2 if b.writes else 1)):
        if left <= most:
            break
        group = groups.setdefault(array.kind, [])
        left -= bool(group)
        group.append(array)
    return [group for group in groups.values() if len(group) > 1]


@lru_cache(maxsize=512)
def redirected(code: str, name: str, shared: str, start: str) -> str:
    """WGSL whose accesses to the array ``name`` go to ``shared``, ``start`` further."""
    parts, at = [], 0
    for found in re.finditer(rf"\b{name}\[", code):
        if found.start() < at:
            raise AssertionError(f"kernel: {name} stands in its own index")
        end = _closing(code, found.end())
        parts += [code[at : found.start()], f"{shared}[{start} + u32({code[found.end() : end]})]"]
        at = end + 1
    return "".join(parts) + code[at:]


def _closing(code: str, at: int) -> int:
    """Where the bracket closes that was opened before ``at``."""
    depth = 1
    while depth:
        depth += {"[": 1, "]": -1}.get(code[at], 0)
        at += 1
    return at - 1
