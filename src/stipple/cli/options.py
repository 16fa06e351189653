"""Options and parameter types that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import click

ParamType: Any = click.ParamType  # generic in some versions of click, not in others


class Size(ParamType):  # type: ignore[misc]
    """Pixels as WIDTHxHEIGHT."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", value)
        if match is None or not (int(match[1]) and int(match[2])):
            raise self.fail(f"expected pixels such as 1920x1080, got {value!r}", param, ctx)
        return int(match[1]), int(match[2])


class Vector(ParamType):  # type: ignore[misc]
    """Three numbers separated by commas."""

    name = "X,Y,Z"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float]:
        if isinstance(value, tuple):
            return (value[0], value[1], value[2])
        try:
            x, y, z = (float(v) for v in value.split(","))
        except ValueError:
            self.fail(f"expected three numbers such as 0,1.5,-2, got {value!r}", param, ctx)
        return x, y, z


def device_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --device and --threads; ``threads`` is applied before the command runs."""
    function = click.option(
        "--device",
        default="auto",
        show_default=True,
        help="cpu, gpu, metal, vulkan, dx12 or reference; auto is the CPU (see `stipple devices`).",
    )(function)
    return click.option(
        "--threads",
        type=click.IntRange(1),
        expose_value=False,
        callback=_set_threads,
        help="Threads on the CPU; by default one per core.",
    )(function)


def _set_threads(ctx: click.Context, param: click.Parameter, value: int | None) -> None:
    if value is not None:
        os.environ["STIPPLE_NUM_THREADS"] = str(value)
