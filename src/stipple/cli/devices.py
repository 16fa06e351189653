"""``stipple devices``: the devices of this machine."""

from __future__ import annotations

import click

from stipple.cli.terminal import Terminal
from stipple.errors import DeviceError


@click.command(short_help="List the devices of this machine.")
def devices() -> None:
    """List the devices of this machine; --device auto takes the first one."""
    from stipple.runtime import devices as names

    console = Terminal()
    for name in names():
        if name in ("cpu", "reference"):
            console.say_labelled(f"{name:<10}", "bold", describe_device(name))
    try:
        from stipple.backends.gpu import adapters, describe

        found = adapters()
        for i, info in enumerate(found):
            also = ", gpu" if i == 0 else ""
            console.say_labelled(f"{info.device + also:<10}", "bold", describe(info))
        if not found:
            console.say("no GPU was found: install its driver, and on Linux the Vulkan loader")
    except DeviceError as error:
        console.say(str(error))


def describe_device(name: str) -> str:
    """One line about a device."""
    if name == "cpu":
        from stipple.backends.cpu.simd import LANES
        from stipple.backends.cpu.threads import default_threads

        return f"SIMD kernels, {LANES} lanes of float32, {default_threads()} threads"
    if name == "reference":
        return "float64 NumPy: the specification, slow"
    from stipple.backends.gpu import describe
    from stipple.backends.gpu.adapters import choose

    return describe(choose(name)[0])
