"""What is the GPU backend's own: sorting and sums, training against the CPU, its errors."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import stipple
from backends.devices.held_to_reference import render_on, rounded, run_all
from backends.devices.stepping import losses_on
from captures import truth, write_colmap
from conftest import session_on
from scenes import random_scene
from stipple import ir
from stipple.backends.cpu import CpuBackend
from stipple.backends.gpu import GpuBackend, kernels, native
from stipple.backends.gpu.adapters import adapters
from stipple.backends.gpu.device import Gpu
from stipple.backends.gpu.sorting import exclusive_sum, sort_pairs
from stipple.backends.gpu.structure import upload
from stipple.bench.tables import HOST, MEASURED
from stipple.cli import main
from stipple.errors import DeviceError, InputError
from stipple.ir.dtype import DType
from stipple.runtime import Kernel, Session


@pytest.mark.parametrize("count", [1, 255, 1024, 1025, 70_000, 1_100_000])
def test_exclusive_sums(gpu: Gpu, count: int) -> None:
    values = np.random.default_rng(count).integers(0, 100, count).astype(np.int32)
    made = gpu.memory.download(exclusive_sum(gpu, gpu.memory.upload(values, DType.I32)))
    np.testing.assert_array_equal(made, np.concatenate([[0], np.cumsum(values)]))


@pytest.mark.parametrize("count", [0, 1, 2, 1023, 1024, 1025, 50_000])
@pytest.mark.parametrize("bits", [1, 7, 12, 32])
def test_the_sort_is_stable(gpu: Gpu, count: int, bits: int) -> None:
    rng = np.random.default_rng(count)
    keys = rng.integers(0, 2**bits, count, dtype=np.uint64).astype(np.uint32)
    places = np.arange(count, dtype=np.int32)
    uploaded = [gpu.memory.upload(a, DType.I32) for a in (keys.view(np.int32), places)]
    sorted_keys, values = sort_pairs(gpu, *uploaded, bits)
    order = np.argsort(keys, kind="stable")
    np.testing.assert_array_equal(gpu.memory.download(values), order)
    np.testing.assert_array_equal(gpu.memory.download(sorted_keys).view(np.uint32), keys[order])


@pytest.mark.parametrize("some", [0, 1, 1024, 1025, 2600, 3000])
@pytest.mark.parametrize("bits", [8, 12])
def test_the_sort_of_some_pairs_leaves_the_rest(gpu: Gpu, some: int, bits: int) -> None:
    """As many as a sum on the device says, but never more than there are."""
    count = min(some, 2600)
    keys = np.random.default_rng(some).integers(0, 2**bits, 2600).astype(np.int32)
    uploaded = [gpu.memory.upload(a, DType.I32) for a in (keys, np.arange(2600), np.array([7, some]))]
    sorted_keys, values = (gpu.memory.download(b) for b in sort_pairs(gpu, *uploaded[:2], bits, sums=uploaded[2]))
    order = np.argsort(keys[:count], kind="stable")
    np.testing.assert_array_equal(values[:count], order)
    np.testing.assert_array_equal(sorted_keys[:count], keys[order])
    if bits == 8:  # two passes
        np.testing.assert_array_equal(values[count:], np.arange(count, 2600))
        np.testing.assert_array_equal(sorted_keys[count:], keys[count:])


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 258, 1003, 1_000_000])
def test_bytes_and_truth_values_come_back(gpu: Gpu, count: int) -> None:
    """Large ones travel packed."""
    rng = np.random.default_rng(count)
    numbers, truths = rng.integers(0, 256, (count, 2), dtype=np.uint8), rng.random(2 * count) < 0.3
    for array, dtype in (
        (numbers, DType.U8),
        (numbers[:, 1], DType.U8),
        (truths, DType.BOOL),
        (truths[::2], DType.BOOL),
    ):
        back = gpu.memory.download(upload(gpu, array, dtype))
        np.testing.assert_array_equal(back, array)
        assert back.dtype == array.dtype


def test_lists_where_few_are_visible(gpu_session: Session) -> None:
    """The lists are the CPU's, and a culled Gaussian has no gradient."""
    scene = rounded(random_scene(12, count=3000, width=60, height=40))
    away = np.random.default_rng(12).random(3000) < 0.7
    scene.arrays["means"][away] *= -1
    given, wanted = render_on(scene, gpu_session), render_on(scene, Session("cpu"))
    visible = given["radii"][:, 0] > 0
    assert 100 < visible.sum() < 1000
    for name in ("sorted_ids", "tile_ranges", "last_ids"):
        np.testing.assert_array_equal(given[name], wanted[name])
    gradients = {n: a for n, a in run_all(scene, gpu_session).items() if n.startswith("v_") and len(a) == 3000}
    assert len(gradients) >= 5
    for name, array in gradients.items():
        assert not array[~visible].any(), name
        assert array[visible].any(), name


def test_one_array_as_two_operands(gpu_session: Session) -> None:
    graph = ir.Graph("t")
    scene = random_scene(13, count=40, width=30, height=20)
    names = ("quats", "opacities", "viewmat", "intrinsics", "background")
    feeds = {n: scene.arrays[n].astype(np.float32) for n in names}
    feeds["both"] = np.random.default_rng(13).uniform([0.05, 0.05, 2], [0.4, 0.4, 2.4], (40, 3)).astype(np.float32)
    quats, opacities, viewmat, intrinsics, background = (graph.input(n, feeds[n].shape) for n in names)
    both = graph.input("both", [40, 3])
    rgba, _ = ir.splat_render(both, quats, both, opacities, both, viewmat, intrinsics, background, width=30, height=20)
    graph.output("rgba", rgba)
    graph.output("v", ir.grad(graph, ir.mean(ir.square(rgba)), [both])[0])
    given, wanted = (s.compile(graph).run(feeds) for s in (gpu_session, Session("cpu")))
    assert np.abs(wanted["v"]).max() > 0
    for name, array in wanted.items():
        np.testing.assert_allclose(given[name], array, rtol=1e-3, atol=1e-4 * np.abs(array).max())


def test_one_array_as_both_operands_of_losses_and_products(gpu_session: Session) -> None:
    graph = ir.Graph("t")
    image, table = graph.input("image", [20, 17, 3]), graph.input("table", [300, 300])
    both = ir.image_l1_ssim(image, image)
    loss = both.l1 + both.ssim + ir.image_ssim(image, image) + ir.image_l1(image, image)
    graph.output("loss", loss)
    graph.output("v_image", ir.grad(graph, loss, [image])[0])
    graph.output("product", ir.matmul(table, table))
    rng = np.random.default_rng(1)
    feeds = {"image": rng.uniform(size=(20, 17, 3)), "table": rng.normal(size=(300, 300))}
    feeds = {n: a.astype(np.float32) for n, a in feeds.items()}
    given, wanted = (s.compile(graph).run(feeds) for s in (gpu_session, Session("cpu")))
    for name, array in wanted.items():
        np.testing.assert_allclose(given[name], array, rtol=1e-4, atol=1e-4 * max(1e-2, np.abs(array).max()))


def test_the_same_bits_every_time(gpu_session: Session) -> None:
    scene = random_scene(5, count=500, width=70, height=50, sh_degree=2)
    first, second = run_all(scene, gpu_session), run_all(scene, gpu_session)
    for name, array in first.items():
        assert array.tobytes() == second[name].tobytes(), name


def test_the_order_of_equal_depths_is_that_of_the_indices(gpu_session: Session) -> None:
    scene = rounded(random_scene(6, count=200, width=40, height=30))
    scene.arrays["means"][:] = scene.arrays["means"][0]
    given, wanted = render_on(scene, gpu_session), render_on(scene, Session("cpu"))
    for name in ("sorted_ids", "tile_ranges", "last_ids"):
        np.testing.assert_array_equal(given[name], wanted[name])


def test_dispatches_beyond_the_limit_of_one_dimension(gpu_session: Session) -> None:
    """More than 65535 workgroups."""
    count = 65_536 * 256 + 1000
    graph = ir.Graph("t")
    x = graph.input("x", ["N"])
    graph.output("y", x + 1.0)
    values = np.arange(count, dtype=np.float32)
    np.testing.assert_array_equal(gpu_session.compile(graph).run({"x": values})["y"], values + 1)


def test_an_array_too_large_for_the_device_is_refused(gpu: Gpu) -> None:
    with pytest.raises(DeviceError, match=r"one array would take .* MB, the device allows .* MB; use fewer"):
        gpu.memory.allocate((gpu.memory.largest // 4 + 1,), DType.F32)


def test_a_float64_graph_is_refused_by_name(gpu_session: Session) -> None:
    graph = ir.Graph("t")
    graph.output("y", ir.splat_noise(*(graph.input(n, s, "f64") for n, s in
                                       (("m", [4, 3]), ("q", [4, 4]), ("s", [4, 3]), ("o", [4]))),
                                     1.0, graph.input("k", [2], "i32")))  # fmt: skip
    with pytest.raises(Exception, match="has no f64"):
        gpu_session.compile(graph)


def test_bad_cameras_and_indices_are_refused(gpu_session: Session) -> None:
    scene = random_scene(7)
    scene.arrays["intrinsics"][0, 0] = -9
    with pytest.raises(InputError, match="focal"):
        render_on(scene, gpu_session)
    graph = ir.Graph("t")
    table, ids = graph.input("table", [4, 3]), graph.input("ids", [2], "i32")
    graph.output("rows", ir.gather(table, ids))
    with pytest.raises(InputError, match="ids must be between 0 and 3"):
        gpu_session.compile(graph).run({"table": np.zeros((4, 3), np.float32), "ids": np.array([0, 4], np.int32)})


def test_kernels_are_timed_by_the_device(gpu: Gpu) -> None:
    values = np.random.default_rng(0).integers(0, 2**31, 200_000).astype(np.int32)
    keys, places = (gpu.memory.upload(v, DType.I32) for v in (values, np.arange(len(values), dtype=np.int32)))
    started = time.perf_counter()
    with gpu.timed() as times:
        for _ in range(20):  # more dispatches than one submission holds
            sorted_keys, _ = sort_pairs(gpu, keys, places, 32)
            keys, places = (gpu.memory.upload(values, DType.I32) for _ in range(2))
    elapsed = time.perf_counter() - started
    np.testing.assert_array_equal(gpu.memory.download(sorted_keys), np.sort(values))
    assert len(times) > 400
    moves = [t for t in times if t.name == "radix_move"]
    assert len(moves) == 20 * 8
    assert all(t.bytes >= 4 * 4 * len(values) for t in moves)
    assert all(t.seconds > 0 for t in moves)
    assert sum(t.seconds for t in times) < elapsed


def test_a_device_without_timestamps_says_so(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "info", replace(gpu.info, timestamps=False))
    with pytest.raises(DeviceError, match="has no timestamps, so kernels cannot be timed"), gpu.timed():
        pass


def test_rasterizing_lists_that_another_device_made(gpu_session: Session) -> None:
    """Gradients where the lists of entries were fed: the device finds each Gaussian's entries itself."""
    rng = np.random.default_rng(8)
    count = 80
    arguments = (
        rng.normal(size=(count, 3)), rng.normal(size=(count, 4)), rng.uniform(0.05, 0.3, (count, 3)),
        rng.uniform(0.1, 1, count), rng.uniform(size=(count, 3)), np.array([np.diag([1.0, 1, 1, 1])]),
        np.array([[[40.0, 0, 24], [0, 40, 18], [0, 0, 1]]]), 48, 36,
    )  # fmt: skip
    arguments[5][0, 2, 3] = 4
    results = []
    for device in ("cpu", gpu_session.device):
        colors, _, _, vjp = stipple.rasterization_vjp(*arguments, absgrad=True, device=device)
        results.append({"image": colors, **vjp(colors)})
    for name, wanted in results[0].items():
        assert np.linalg.norm(results[1][name] - wanted) <= 1e-4 * np.linalg.norm(wanted) + 1e-7, name


# --- training ---------------------------------------------------------------------------------------------
def test_a_lost_device_is_one_sentence() -> None:
    """Whatever is done with it next: new memory, work, results."""
    session_on("gpu")
    for minimal in (False, True):
        lost = GpuBackend("gpu", minimal=minimal).gpu
        memory = lost.memory
        held = memory.upload(np.arange(5, dtype=np.float32), DType.F32)
        out = memory.allocate((5,), DType.F32)
        lost.each(kernels.Kernel("t", "  out[i] = x(i);"), {"x": held}, {"out": out}, 5)
        memory.download(out)
        lost.driver.device.destroy()
        ways = [
            lambda memory=memory: memory.allocate((1_000_000,), DType.F32),
            lambda memory=memory, out=out: memory.download(out),
            lambda memory=memory: memory.upload(np.zeros(1_000_000, np.float32), DType.F32),
        ]
        for way in ways:
            with pytest.raises(DeviceError, match=r"the device was lost: .*start again.*--device cpu"):
                way()


def test_a_refused_kernel_is_one_sentence(gpu: Gpu) -> None:
    made = gpu.memory.allocate((4,), DType.F32)
    with pytest.raises(DeviceError, match=r"kernel broken was refused: .*`nonsense`; report it .*--device cpu"):
        gpu.each(kernels.Kernel("broken", "  out[i] = nonsense;"), {}, {"out": made}, 4)


def test_loops_are_not_counted_where_wgpu_can_leave_it_out(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "@compute @workgroup_size(1) fn main() { }"
    asked = []
    device = gpu.driver.device
    plain = device.create_shader_module
    monkeypatch.setattr(device, "create_shader_module", lambda **more: asked.append(more) or plain(**more))
    native.shader_module(device, "k", code)
    new = tuple(int(n) for n in gpu.driver.wgpu.__version__.split(".")[:2]) >= (0, 32)
    assert len(asked) == (0 if new else 1)
    monkeypatch.setattr(native, "trusted_module", lambda *_: gpu.nothing_of_that_name)
    native.shader_module(device, "k", code)
    assert asked[-1] == {"label": "k", "code": code}, "the usual way where there is no other"


def test_the_shipped_capture_trains(gpu_session: Session, tmp_path: Path) -> None:
    capture = Path(__file__).parents[3] / "examples" / "data" / "room"
    small = ["--downscale", "8", "--steps", "40", "--set", "start.count=2000", "--set", "density.start=20"]
    arguments = ["train", capture, "-o", tmp_path / "out", *small, "--depth-weight", "0.1", "--device", "gpu"]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["mean"]["test"]["psnr"] > 15


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_two_hundred_steps_follow_the_cpu(gpu_session: Session, strategy: str) -> None:
    wanted, given = losses_on(Session("cpu"), strategy, 200), losses_on(gpu_session, strategy, 200)
    assert wanted[-20:].mean() < 0.7 * wanted[:20].mean(), "it learns"
    np.testing.assert_allclose(given, wanted, rtol=0.01)


def test_train_render_eval_from_the_command_line(gpu_session: Session, tmp_path: Path) -> None:
    write_colmap(truth(), tmp_path / "capture")
    out = tmp_path / "out"
    steps = [
        "--steps",
        "120",
        "--set",
        "density.start=20",
        "--set",
        "density.every=20",
        "--set",
        "schedule.sh_every=40",
    ]

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    run("train", tmp_path / "capture", "-o", out, *steps, "--device", "gpu", "--exposure", "--refine-poses")
    curve = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    scores = [r["test_psnr"] for r in curve if "test_psnr" in r]
    assert scores[-1] > scores[0] + 1
    run("eval", out, "--device", "gpu")
    on_gpu = json.loads((out / "eval.json").read_text())["mean"]["test"]["psnr"]
    run("eval", out, "--device", "cpu")
    assert json.loads((out / "eval.json").read_text())["mean"]["test"]["psnr"] == pytest.approx(on_gpu, abs=0.01)
    run("render", out / "scene.ply", "-o", tmp_path / "p.png", "--size", "64x48", "--device", "gpu")


def test_selftest_and_devices(gpu_session: Session, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["selftest", "--device", "gpu", "--json", str(tmp_path / "s.json")])
    assert result.exit_code == 0, result.output
    assert "checks passed" in result.output
    checks = json.loads((tmp_path / "s.json").read_text())["checks"]
    assert len(checks) >= 15
    assert all(c["passed"] and c["error"] <= c["allowed"] for c in checks)
    listed = CliRunner().invoke(main, ["devices"]).output
    assert adapters()[0].name in listed


def test_bench_times_kernels(tmp_path: Path) -> None:
    session_on("gpu")
    result = CliRunner().invoke(main, ["bench", "--quick", "--device", "gpu", "--json", str(tmp_path / "b.json")])
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert all(row[name] > 0 for name in (*MEASURED, *HOST))
    kernels = {k["kernel"]: k for k in row["kernels"]}
    assert {"project", "radix_move", "composite", "composite_backward", "adam"} <= kernels.keys()
    assert all(k["ms"] > 0 and k["bytes"] > 0 for k in kernels.values())
    assert "kernels of a training step" in " ".join(result.output.split())


@dataclass(frozen=True)
class Scaled:
    """A kernel whose first result is one per cent too large."""

    kernel: Kernel

    @property
    def name(self) -> str:
        return self.kernel.name

    @property
    def owns_outputs(self) -> bool:
        return self.kernel.owns_outputs

    def check(self, inputs: Sequence[Any], dims: Mapping[str, int]) -> None:
        self.kernel.check(inputs, dims)

    def __call__(self, inputs: Sequence[Any], outputs: Sequence[Any], dims: Mapping[str, int]) -> Sequence[Any]:
        first, *others = self.kernel(inputs, outputs, dims)
        first *= np.float32(1.01)
        return [first, *others]


def test_selftest_finds_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CpuBackend.kernel

    def kernel(backend: CpuBackend, node: ir.Node) -> Kernel | None:
        found = right(backend, node)
        return Scaled(found) if node.op == "image_l1_ssim" and found is not None else found

    monkeypatch.setattr(CpuBackend, "kernel", kernel)
    result = CliRunner().invoke(main, ["selftest", "--device", "cpu"])
    assert result.exit_code == 1
    assert "checks failed: L1 + SSIM" in result.output
