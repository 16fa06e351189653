"""Functions of wgpu's native library that its Python interface lacks."""

from __future__ import annotations

from typing import Any


def tick_seconds(device: Any) -> float:
    """Seconds per timestamp tick; wgpu passes on the device's ticks, and reports their length in nanoseconds."""
    from wgpu.backends.wgpu_native import lib

    return 1e-9 * float(lib.wgpuQueueGetTimestampPeriod(device.queue._internal))


def shader_module(device: Any, label: str, code: str) -> Any:
    """A compiled module with bounds checks, but without counters in its loops.

    wgpu counts the iterations of every loop, so that an endless one cannot hang the device. Ours all end, and the
    counters would be in the innermost loops. wgpu before 0.32 cannot omit them, and later versions may change how: then
    they stay.
    """
    try:
        return trusted_module(device, label, code)
    except (AttributeError, TypeError):
        return device.create_shader_module(label=label, code=code)


def trusted_module(device: Any, label: str, code: str) -> Any:
    from wgpu.backends.wgpu_native import GPUShaderModule, _api, ffi, lib

    create = _api.libf.wgpuDeviceCreateShaderModuleTrusted  # raises the device's errors, like all functions of libf
    texts = {name: ffi.new("char[]", text.encode()) for name, text in (("code", code), ("label", label))}
    source = ffi.new("WGPUShaderSourceWGSL *")
    source.chain.sType = lib.WGPUSType_ShaderSourceWGSL
    description = ffi.new("WGPUShaderModuleDescriptor *")
    description.nextInChain = ffi.cast("WGPUChainedStruct *", source)
    for view, name in ((source.code, "code"), (description.label, "label")):
        view.data = texts[name]
        view.length = len(texts[name]) - 1
    handle = create(device._internal, description, lib.WGPUShaderRuntimeChecks_BoundsChecks)
    return GPUShaderModule(label, handle, device)
