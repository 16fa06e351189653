"""The benchmarks of GPUs: what is counted of kernels and dispatches, and what they say where something is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))  # last: the tests have modules of the same names

from backends.devices.test_shaders import workgroup_bytes  # noqa: E402
from counts import code, opcodes, page, rows, spirv, translation  # noqa: E402
from counts.watch import watching  # noqa: E402
from stipple.backends.gpu import GpuBackend  # noqa: E402
from stipple.bench.cases import frame, slam_case  # noqa: E402
from stipple.errors import DeviceError  # noqa: E402
from stipple.runtime import Session  # noqa: E402

SUM = """
struct Params { rounds: u32 };
struct Pair { weight: f32, place: vec3<f32> };
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> counted: array<atomic<u32>>;
@group(0) @binding(3) var<uniform> P: Params;
var<workgroup> shared_values: array<f32, 256>;
var<workgroup> pairs: array<Pair, 2>;
fn unused(i: u32) -> f32 { return out[i] * 7.0; }
fn value(i: u32) -> f32 { return values[i]; }
@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lid: u32) {
  shared_values[lid] = value(lid) + value(lid + 1u);
  if (lid == 0u) { pairs[1].weight = 2.0; }
  workgroupBarrier();
  var sum = 0.0;
  for (var k = 0u; k < P.rounds; k++) {
    sum += shared_values[k];
    workgroupBarrier();
    for (var j = 0u; j < 2u; j++) { sum *= pairs[j].weight; }
  }
  workgroupBarrier();
  out[lid] = sum;
  atomicAdd(&counted[0], 1u);
}
"""
EMPTY = "@compute @workgroup_size(256) fn main() { }"


def words_of(*sources: str) -> list[tuple[int, ...]]:
    """Kernels as SPIR-V; a skip, or a failure where translation is required, without naga."""
    try:
        return translation.to_spirv(sources)
    except SystemExit as stop:
        if os.environ.get("STIPPLE_REQUIRE_TRANSLATION"):
            pytest.fail(str(stop))
        pytest.skip(str(stop))


def test_a_kernel_is_counted_by_class() -> None:
    found = code.count(words_of(SUM)[0])
    assert (found.reads, found.writes) == ({1, 2}, {0, 2}), "what a function that nothing calls accesses does not count"
    assert found.instructions["buffers"] == 4, "a function that is called twice counts twice"
    assert found.instructions["constants"] == 1
    assert found.instructions["barriers"] == 1 + 3, "the first one after zeroing workgroup memory"
    assert found.in_loops["barriers"] == 1
    assert found.in_loops["buffers"] == 0
    assert found.in_loops["workgroup"] == 2
    assert found.in_loops["constants"] == 1, "a loop's condition is in it"
    assert found.workgroup_bytes == 256 * 4 + 2 * 32
    # outside: lid + 1, the sum, and two comparisons, lid == 0 and that for zeroing; naga's counters are not there
    assert found.instructions["arithmetic"] - found.in_loops["arithmetic"] == 2 + 2
    assert found.in_loops["arithmetic"] == 3 + 3, "of either loop: comparison, step, sum or product"
    assert found.instructions["branches"] == 2 + 2


def test_an_empty_kernel_has_nothing() -> None:
    found = code.count(words_of(EMPTY)[0])
    assert not found.instructions.total()
    assert found == code.Code(found.instructions, found.in_loops, frozenset(), frozenset(), 0)


def test_words_are_read_as_the_specification_says() -> None:
    header = [opcodes.MAGIC, 0x10300, 0, 9, 0]
    barrier = [4 << 16 | 224, 1, 2, 3]
    assert list(spirv.instructions([*header, *barrier, 1 << 16 | 253])) == [(224, (1, 2, 3)), (253, ())]
    for words, why in (
        ([1, 2, 3], "magic"),
        ([*header, 0], "has 0 words"),
        ([*header, *barrier[:3]], "the instruction at word 5 has 4 words"),
    ):
        with pytest.raises(ValueError, match=why):
            list(spirv.instructions(words))
    with pytest.raises(ValueError, match="instruction 99 has no class"):
        opcodes.class_of(99)


def session() -> Session:
    try:
        return Session("gpu")
    except DeviceError as error:
        if os.environ.get("STIPPLE_REQUIRE_GPU"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def test_a_frame_is_observed() -> None:
    words_of(EMPTY)
    with watching() as watch:
        opened = session()
        backend = opened.backend
        assert isinstance(backend, GpuBackend)
        run = frame(opened, slam_case(50, 32, 16, 30.0), True).run
        run()
        watch.clear()
        run()
    observed = {
        "dispatches": [d._asdict() for d in watch.dispatches], "copies": len(watch.copies),
        "copied_bytes": sum(watch.copies), "uploaded_bytes": sum(watch.uploads), "host_waits": 1,
    }  # fmt: skip
    listed = json.loads(json.dumps({"programs": watch.programs, "runs": [{"scene": "s", "workload": "w", **observed}]}))
    made = rows.counted(listed)
    kernels = made["runs"][0]["kernels"]
    assert set(kernels) == {d.kernel for d in watch.dispatches}
    project = kernels["project"]
    assert (project["dispatches"], project["workgroups"]) == (1, 1)
    assert project["read_bytes"] >= 50 * 4 * (3 + 4 + 3 + 1)
    assert project["written_bytes"] < 50 * 4 * 20
    assert project["arithmetic"] > 100
    assert not kernels["project"]["barriers"]
    assert made["runs"][0]["total"]["waits"] > len(kernels) / 2
    for source, words in zip(watch.programs, words_of(*watch.programs), strict=True):
        assert code.count(words).workgroup_bytes <= workgroup_bytes(source), "which counts what is not used too"
    assert any(k["workgroup_bytes"] > 1024 and k["barriers"] > k["barriers_in_loops"] > 0 for k in kernels.values())
    text = page.page({**PAGE, "before": made, "after": made, "commit": "0faa18b"})
    assert "→" not in text.split("## Totals")[1], "nothing has changed"


PAGE: dict[str, Any] = {"device": "d", "machine": "m", "command": "c", "software": True, "nvidia": False}


def made_of(**kernels: int) -> dict[str, Any]:
    """Counts of one run in which every figure of a kernel is the same."""
    names = (*rows.DISPATCHED, *rows.HELD, "workgroup_bytes", "programs")
    by_name = {kernel: dict.fromkeys(names, figure) for kernel, figure in kernels.items()}
    total = dict.fromkeys((*rows.DISPATCHED, *rows.RUN, "instructions_of_workgroups", "barriers_of_workgroups"), 1)
    return {"runs": [{"scene": "s", "workload": "w", "total": total, "kernels": by_name}], "code": by_name}


def test_the_page_shows_before_and_after() -> None:
    before, after = made_of(sort=4, same=7, gone=5), made_of(sort=2, same=7, new=9)
    text = page.page({**PAGE, "commit": "0faa18b", "before": before, "after": after})
    assert "| sort | 4 → 2 (0.50) |" in text
    assert "| same | 7 | 7 |" in text
    assert "| gone (only before) | 5 |" in text
    assert "| new (only after) | 9 |" in text
    assert "nothing about a GPU" in text
    assert "There was no NVIDIA GPU" in text
    alone = page.page({**PAGE, "commit": None, "before": None, "after": after})
    assert "| sort | 2 | 2 |" in alone
    assert "only after" not in alone


def script(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A benchmark that is run as a user does."""
    command: Sequence[str] = [sys.executable, str(BENCHMARKS / name), *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_missing_tools_are_named(tmp_path: Path) -> None:
    done = script("gpu_counts.py", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "Node.js was not found: install Node.js and run npm ci --prefix tools/shaders\n"
    done = script("compare/commit.py", "0faa18b", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "git was not found: it is needed to extract an earlier commit's sources\n"


def test_without_a_gpu_the_results_say_so(tmp_path: Path) -> None:
    hidden = {"STIPPLE_GPU_ADAPTER": "no such GPU", "VK_DRIVER_FILES": str(tmp_path / "none.json")}
    done = script("gpu.py", "--results", str(tmp_path), **hidden)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "gpu.md").read_text()
    assert "Nothing was measured: device 'gpu': no GPU whose name contains 'no such gpu'" in text
    there_is_none = "there was no NVIDIA GPU" if sys.platform == "linux" else ""
    assert f"gsplat was not measured: {there_is_none}" in text
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"] == []
