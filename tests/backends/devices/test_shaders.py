"""Every kernel that rendering and training compile: WebGPU's and Metal's limits, and translation to Metal's language
and HLSL.

The translation is by naga, as wgpu does it on those systems; it needs Node.js and ``npm ci --prefix tools/shaders``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends.devices.held_to_reference import run_all
from backends.devices.stepping import losses_on, stepper_on
from backends.devices.test_small_ops import CASES, results
from scenes import random_scene
from stipple.backends.gpu import GpuBackend
from stipple.runtime import Session

LIMITS = {"workgroup bytes": 16_384, "arrays": 8, "Metal's buffers": 31}
"""What WebGPU promises of every device (its table of limits), and Metal's buffers (Apple's feature set tables), which
hold the parameters and the arrays' lengths too."""

TRANSLATOR = Path(__file__).parents[3] / "tools" / "shaders"


def compiled(session: Session) -> tuple[dict[str, str], int]:
    """The kernels that scenes of all kinds, steps with every option and edits compile, and the subgroups' size."""
    for projection in ("ewa", "ray"):
        for channels in (3, 32):
            run_all(random_scene(9, count=20, projection=projection, channels=channels), session)
    for case in CASES.values():
        results(case, session)
    for strategy in ("default", "mcmc"):
        losses_on(session, strategy, 2)
    stepper, frames = stepper_on(session, "default", 4, {"exposure": True, "poses": True})
    frame, size = frames[0], frames[0].pixels.shape[:2]
    frame = replace(frame, mask=np.ones(size, bool), depth=np.ones(size, np.float32))
    stepper.run(1, 0, frame)
    stepper.edit(lambda state: state.rearrange(np.arange(9), np.arange(9) > 5))
    stepper.run(2, 0, frame)
    backend = session.backend
    assert isinstance(backend, GpuBackend)
    names = {name.split(".")[0] for name in backend.gpu.pipelines.sources}
    assert {"unpack", "gather", "matmul", "copy", "short_sum", "composite_backward"} <= names
    return backend.gpu.pipelines.sources, backend.gpu.driver.subgroup_size


def workgroup_bytes(source: str) -> int:
    constants = {n: int(v) for n, v in re.findall(r"const (\w+): u32 = (\d+)u;", source)}
    sizes = {"u32": 4, "i32": 4, "f32": 4, "vec2<f32>": 8, "vec4<f32>": 16}
    total = 0
    for kind in re.findall(r"var<workgroup> \w+: ([^;]+);", source):
        plain = re.sub(r"atomic<(\w+)>", r"\1", kind)
        array = re.fullmatch(r"array<(.+), (\w+)>", plain)
        count = 1 if array is None else int(array[2]) if array[2].isdigit() else constants[array[2]]
        total += count * sizes[array[1] if array else plain]
    return total


def test_every_shader_keeps_to_the_limits(gpu_session: Session) -> None:
    sources, subgroup_size = compiled(gpu_session)
    for name, source in sources.items():
        assert workgroup_bytes(source) <= LIMITS["workgroup bytes"], name
        arrays = len(re.findall(r"@group\(0\) @binding\(\d+\) var<storage", source))
        assert 1 <= arrays <= LIMITS["Metal's buffers"] - 2, name
        assert re.findall(r"@workgroup_size\((\d+)\)", source) == ["256"], name
        assert "enable" not in source, name
        assert not re.search(r"\bf16\b|\bf64\b|\bi64\b", source), name
        assert not re.search(r"atomic<f32>", source), name
        if subgroup_size == 0:  # the device that has no more than WebGPU promises
            assert "subgroup" not in source, name
            assert arrays <= LIMITS["arrays"], name


def translate(sources: dict[str, str]) -> dict[str, dict[str, str]]:
    """Each kernel in Metal's language and HLSL; a skip that says why where the translator is not installed."""
    node = shutil.which("node")
    if node is None or not (TRANSLATOR / "node_modules").exists():
        why = "kernels cannot be translated: install Node.js and run npm ci --prefix tools/shaders"
        if os.environ.get("STIPPLE_REQUIRE_TRANSLATION"):
            pytest.fail(why)
        pytest.skip(why)
    done = subprocess.run(
        [node, "translate.mjs"], cwd=TRANSLATOR, input=json.dumps(sources), capture_output=True, text=True, check=True
    )
    made: dict[str, dict[str, str]] = json.loads(done.stdout)
    return made


def test_every_shader_translates_to_metal_and_hlsl(gpu_session: Session) -> None:
    sources, subgroup_size = compiled(gpu_session)
    made = translate(sources)
    assert made.keys() == sources.keys()
    for name, text in made.items():
        assert "error" not in text, f"{name}: {text.get('error')}"
        assert "[[max_total_threads_per_threadgroup(256)]] kernel void" in text["msl"], name
        assert "[numthreads(256, 1, 1)]" in text["hlsl"], name
        wave = re.search(r"\bsimd_\w+\(", text["msl"]) is not None
        assert wave == ("subgroup" in sources[name]), name
        assert not (wave and subgroup_size == 0), name


def test_a_broken_shader_is_told_from_a_right_one() -> None:
    right = "@compute @workgroup_size(256) fn main() { }"
    made = translate({"right": right, "broken": right.replace("main() {", "main() { let x: f32 = 1u;")})
    assert "kernel void" in made["right"]["msl"]
    assert "error" in made["broken"]
