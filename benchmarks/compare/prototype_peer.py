"""The prototype behind the CPU kernels: two files, which project, sort, composite, and take gradients down to 2D."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from compare.side_by_side import Array, Peer, Work
from scenes import garden_case
from stipple import ir
from stipple import numerics as nx
from stipple.backends.cpu import CpuBackend
from stipple.backends.cpu.threads import default_threads
from stipple.bench.cases import Case, slam_case
from stipple.ir.ops import splat
from stipple.runtime import Executable, Session

FILES = ("kernels.py", "simd.py")
NOTES = [
    "Whole frames, from Gaussians to an image of colours, depth and alpha; gradients from there down to means, conics, "
    "opacities, colours and depths in the image, where the prototype's end. It checks nothing, works in arrays that "
    "are there already, and handles one camera model and vectors of 16 lanes."
]


def opened(source: Path | None) -> Peer:
    """The peer. Ends the program where its files are not."""
    if source is None or not all((source / name).is_file() for name in FILES):
        raise SystemExit(
            f"The prototype cannot be measured: --source must be a folder with {' and '.join(FILES)}, got {source}."
        )
    digest = hashlib.sha256(b"".join((source / name).read_bytes() for name in FILES)).hexdigest()
    versions = {f"{' + '.join(FILES)} of SHA-256": digest[:12]}
    return Peer("prototype", "the prototype", versions, NOTES, works(source.resolve()))


def works(source: Path) -> Iterator[Work]:
    """Frames without and with gradients, with one thread and with all."""
    for threads in sorted({1, default_threads()}):
        kernels = loaded(source, threads)
        named = "1 thread" if threads == 1 else f"{threads} threads"
        for case in (garden_case(), slam_case(100_000, 1920, 1080, 500.0)):
            theirs, ours = Prototype(kernels, case, threads), Ours(case, threads)
            pictures = ours.picture(), theirs.picture()
            yield Work(case.name, f"frame, {named}", ours.forward, theirs.forward, pictures)
            yield Work(case.name, f"frame with gradients, {named}", ours.both, theirs.both, pictures)


def loaded(source: Path, threads: int) -> ModuleType:
    """The kernels; whether they use several threads is fixed while they are loaded."""
    sys.path.insert(0, str(source))
    os.environ["NBPAR"] = "0" if threads == 1 else "1"
    spec = importlib.util.spec_from_file_location(f"prototype_kernels_{threads}", source / "kernels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(source))
    return module


class Prototype:
    """A case as the prototype takes it, with its arrays."""

    def __init__(self, kernels: ModuleType, case: Case, threads: int) -> None:
        self.kernels, self.x, self.threads = kernels, case.operands, threads
        self.size = self.width, self.height = case.attrs["width"], case.attrs["height"]
        count, f4 = len(self.x.means), np.float32
        self.records, self.depths = np.zeros((count, 16), f4), np.zeros(count, f4)
        self.tiles, self.counts = np.zeros((count, 4), np.int16), np.zeros(count, np.int32)
        self.image = np.empty((self.height, self.width, 5), f4)
        self.gradient = np.ones_like(self.image)
        self.lists = self._lists()
        records, ids, *_ = self.lists
        self.slots, self.gradients = np.empty((len(ids), 16), f4), np.empty((len(records), 10), f4)

    def _lists(self) -> tuple[Array, ...]:
        x, f4, size = self.x, np.float32, nx.TILE_SIZE
        self.kernels.project(
            x.means, x.quats, x.scales, x.opacities, x.colors, x.viewmat, x.intrinsics, *self.size, size, size,
            f4(nx.EPS2D), f4(nx.NEAR), self.records, self.depths, self.tiles, self.counts,
        )  # fmt: skip
        lists: tuple[Array, ...] = self.kernels.bin_a(
            self.counts, self.depths, self.records, self.tiles, *self.size, size, size, self.threads
        )
        return lists

    def forward(self) -> None:
        self.lists = self._lists()
        records, ids, ranges, *_ = self.lists
        self.kernels.fwd_simd(records, ids, ranges, *self.size, self.image)

    def both(self) -> None:
        self.forward()
        records, ids, ranges, first, inverse, _ = self.lists
        self.kernels.bwd_simd(records, ids, ranges, *self.size, self.image, self.gradient, self.slots)
        self.kernels.slot_reduce(self.slots, first, inverse, records, self.gradients)

    def picture(self) -> Array:
        self.forward()
        return self.image[..., :3].copy()


class Ours:
    """The same work as graphs of ours; everything stays on the device."""

    def __init__(self, case: Case, threads: int) -> None:
        self.session = Session(CpuBackend(threads))
        self.frame, self.frame_with_gradients = (self._compiled(case, backward) for backward in (False, True))
        self.feeds: dict[str, Any] = {n: self.session.upload(a) for n, a in case.operands._asdict().items()}
        size = case.attrs["height"], case.attrs["width"]
        seeds = {"v_image": np.ones((*size, 4), np.float32), "v_alpha": np.ones(size, np.float32)}
        self.seeds = {n: self.session.upload(a) for n, a in seeds.items()}

    def _compiled(self, case: Case, backward: bool) -> Executable:
        graph = ir.Graph("frame")
        x = splat.PrepareOperands(*(graph.input(n, a.shape) for n, a in case.operands._asdict().items()))
        p = splat.PrepareResults(*graph.add("splat_prepare", x, case.attrs).outputs)
        features = ir.concat([p.colors, ir.reshape(p.depths, [len(case.operands.means), 1])], 1)
        background = graph.constant(np.zeros(4, np.float32))
        size = {n: case.attrs[n] for n in ("width", "height")}
        r = ir.splat_rasterize(
            p.means2d, p.conics, p.opacities, features, background, p.tile_ranges, p.sorted_ids, **size
        )
        graph.output("image", r.image)
        graph.output("alpha", r.alpha)
        if backward:
            seeds = [(r.image, graph.input("v_image", r.image.shape)), (r.alpha, graph.input("v_alpha", r.alpha.shape))]
            for i, value in enumerate(ir.pullback(seeds, [p.means2d, p.conics, p.opacities, features])):
                graph.output(f"gradient{i}", value)
        return self.session.compile(graph)

    def forward(self) -> None:
        self.frame.run(self.feeds, keep=list(self.frame.graph.outputs))

    def both(self) -> None:
        executable = self.frame_with_gradients
        executable.run(self.feeds | self.seeds, keep=list(executable.graph.outputs))

    def picture(self) -> Array:
        return self.frame.run(self.feeds)["image"][..., :3].copy()
