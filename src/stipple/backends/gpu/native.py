"""What wgpu's native library offers and its Python interface does not."""

from __future__ import annotations

from typing import Any


def tick_seconds(device: Any) -> float:
    """Seconds of a timestamp's unit; wgpu passes on the device's own, and says how many nanoseconds it has."""
    from wgpu.backends.wgpu_native import lib

    return 1e-9 * float(lib.wgpuQueueGetTimestampPeriod(device.queue._internal))


def shader_module(device: Any, label: str, code: str) -> Any:
    """A compiled module whose accesses are checked against the buffers' ends, but whose loops are not counted.

    wgpu counts every loop's rounds, so that one without end cannot hang the device. Ours end, and the counters stand
    in the innermost loops. wgpu before 0.32 cannot leave them out, and a later one may do it otherwise: then they stay.
    """
    try:
        return trusted_module(device, label, code)
    except (AttributeError, TypeError):
        return device.create_shader_module(label=label, code=code)


def trusted_module(device: Any, label: str, code: str) -> Any:
    from wgpu.backends.wgpu_native import GPUShaderModule, _api, ffi, lib

    create = _api.libf.wgpuDeviceCreateShaderModuleTrusted  # raises what the device reports, as all of libf does
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
