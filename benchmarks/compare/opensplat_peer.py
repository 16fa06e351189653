"""OpenSplat's CPU rasterizer, compiled from its sources (AGPL: beside this project, by whoever runs this)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compare.commit import named_scene
from compare.side_by_side import Peer, Run, Work, picture, with_gradients
from scenes import garden_case, thinned
from stipple.bench.cases import Case, frame_of, scene_of, slam_case, training
from stipple.runtime import Session

BINDING = Path(__file__).with_name("opensplat_binding.cpp")
SOURCES = (
    "project_gaussians.cpp", "rasterize_gaussians.cpp", "spherical_harmonics.cpp", "ssim.cpp",
    "rasterizer/gsplat-cpu/gsplat_cpu.cpp",
)  # fmt: skip
FLAGS = ["-O3", "-DNDEBUG"]
"""What its CMake files compile a release with."""
NEAR, FAR = 0.001, 1000.0
SSIM_WEIGHT = 0.2
RATES = {"means": 1.6e-4, "scales": 5e-3, "quats": 1e-3, "dc": 2.5e-3, "rest": 1.25e-4, "opacities": 5e-2}
"""The defaults of its trainer."""


def opened(source: Path | None, scenes: list[str]) -> Peer:
    """The peer, compiled; training steps are also measured on ``scenes``, NAME=SCENE[:CAPTURE] each. Ends the program
    where that is impossible."""
    try:
        import torch
        from torch.utils.cpp_extension import load
    except ImportError as error:
        raise SystemExit(f"OpenSplat cannot be measured here: {error.name} is not installed.") from error
    if source is None or not all((source / name).is_file() for name in SOURCES):
        raise SystemExit(
            f"OpenSplat cannot be measured: --source must be a folder with its sources, got {source} "
            "(git clone https://github.com/pierotofy/OpenSplat)."
        )
    files = [str(BINDING), *(str(source.resolve() / name) for name in SOURCES)]
    folders = [str(source.resolve()), str(source.resolve() / "rasterizer")]
    rasterizer = load("stipple_opensplat", files, extra_include_paths=folders, extra_cflags=FLAGS)
    notes = [
        f"OpenSplat projects and takes losses by PyTorch's operations on {torch.get_num_threads()} threads, and "
        f"composites by its C++ code on one, as it is written; compiled with {compiler()} and `{' '.join(FLAGS)}`, as "
        "its own build does. Its sources are unchanged; camera depths are passed to its rasterizer by "
        "`.contiguous()`, without which it sorts by other numbers. Its step consists of the operations of its "
        "trainer: SH of degree 3, 0.8 L1 + 0.2 (1 - SSIM), gradients, PyTorch's Adam on six parameters; the statistics "
        "for densification, which our step keeps too, are left out of it. A frame with gradients is our public call "
        "on one side; on the other, from tensors to the gradients of means, scales, quaternions, opacities and "
        "colours.",
        "Where the pictures differ: its depths are those of a z-buffer from 0.001 to 1000 in float32, in which distant "
        "Gaussians tie; its footprints end at three standard deviations, ours at 1/255; its alpha ends at 0.999, ours "
        "at 0.99. With a near plane at 1 and opacities of at most 0.4, both pictures of the garden agree to 6e-7 on "
        "average.",
    ]
    version = (source / "VERSION").read_text().strip() if (source / "VERSION").is_file() else "of unknown version"
    return Peer(
        "opensplat", "OpenSplat", {"OpenSplat": version, "PyTorch": torch.__version__}, notes, works(rasterizer, scenes)
    )


def compiler() -> str:
    """The C++ compiler that PyTorch calls, in its own words."""
    from torch.utils.cpp_extension import get_cxx_compiler

    done = subprocess.run([get_cxx_compiler(), "--version"], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[0]


def works(rasterizer: Any, scenes: list[str]) -> Iterator[Work]:
    """A frame with gradients of the garden, and whole training steps."""
    garden = garden_case()
    frame = Frame(rasterizer, garden)
    yield Work(
        garden.name, "frame with gradients", with_gradients(garden), frame.with_gradients(),
        (picture(garden), frame.image().detach().numpy()),
    )  # fmt: skip
    yield training_step(rasterizer, thinned(25_000, 504, 378))
    for text in scenes:
        yield training_step(rasterizer, trained(text))


def training_step(rasterizer: Any, case: Case) -> Work:
    """A whole training step on a case, whose colours become SH of degree 3."""
    scene = scene_of(case)
    x = case.operands._replace(opacities=scene.opacities, colors=scene.sh)
    step = Step(rasterizer, case)
    pictures = picture(Case(case.name, x, {**case.attrs, "sh_degree": 3})), step.image().detach().numpy()
    return Work(case.name, "training step", training(Session("cpu"), case)[1], step.run, pictures)


def trained(text: str) -> Case:
    """NAME=SCENE[:CAPTURE] as a case."""
    name, scene, frame = named_scene(text)
    camera, plain = frame.camera, slam_case(1, frame.camera.width, frame.camera.height, 1.0)
    operands = plain.operands._replace(
        means=scene.means, quats=scene.quats, scales=scene.scales, opacities=scene.opacities, colors=scene.sh,
        viewmat=camera.viewmat.astype(np.float32), intrinsics=camera.intrinsics.astype(np.float32),
    )  # fmt: skip
    return Case(name, operands, plain.attrs)


class Frame:
    """A case as OpenSplat's rasterizer takes it."""

    def __init__(self, rasterizer: Any, case: Case) -> None:
        import torch

        self.torch, self.rasterizer = torch, rasterizer
        x, self.width, self.height = case.operands, case.attrs["width"], case.attrs["height"]
        names = ("means", "scales", "quats", "colors", "opacities")
        self.fields = {n: torch.tensor(getattr(x, n), requires_grad=True) for n in names}
        self.background = torch.zeros(3)
        self.view = self._view(x.viewmat, x.intrinsics)

    def _view(self, viewmat: np.ndarray, intrinsics: np.ndarray) -> Any:
        """The camera: its matrices as OpenGL defines them, for a principal point anywhere."""
        fx, fy, cx, cy = (float(intrinsics[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
        depth = (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
        projection = np.array(
            [
                [2 * fx / self.width, 0, 2 * cx / self.width - 1, 0],
                [0, 2 * fy / self.height, 2 * cy / self.height - 1, 0],
                [0, 0, *depth],
                [0, 0, 1, 0],
            ]
        )
        matrices = (self.torch.tensor(m.astype(np.float32)) for m in (viewmat, projection @ viewmat))
        return self.rasterizer.View(*matrices, (fx, fy, cx, cy), (self.width, self.height))

    def image(self) -> Any:
        """The picture, [H, W, 3]."""
        f = self.fields
        quats = f["quats"] / f["quats"].norm(2, -1, True)
        return self.rasterizer.render(
            f["means"], f["scales"], quats, f["colors"], f["opacities"][:, None], self.background, self.view
        )

    def with_gradients(self) -> Run:
        """A frame with the gradients of all Gaussians."""
        v_image = self.torch.ones(self.height, self.width, 3)

        def run() -> None:
            for field in self.fields.values():
                field.grad = None
            self.image().backward(v_image)

        return run


class Step(Frame):
    """A training step with the operations of OpenSplat's trainer."""

    def __init__(self, rasterizer: Any, case: Case) -> None:
        super().__init__(rasterizer, case)
        torch, scene = self.torch, scene_of(case)
        values = {
            "means": scene.means, "scales": scene.log_scales, "quats": scene.quats, "dc": scene.sh[:, 0],
            "rest": scene.sh[:, 1:], "opacities": scene.logit_opacities[:, None],
        }  # fmt: skip
        self.fields = {n: torch.tensor(np.ascontiguousarray(a), requires_grad=True) for n, a in values.items()}
        self.optimizers = [torch.optim.Adam([self.fields[n]], lr=rate) for n, rate in RATES.items()]
        self.photo = torch.tensor(frame_of(case).pixels).float() / 255
        viewmat = case.operands.viewmat
        self.center = torch.tensor(-viewmat[:3, :3].T @ viewmat[:3, 3])

    def image(self) -> Any:
        f, torch = self.fields, self.torch
        directions = f["means"].detach() - self.center
        directions = directions / directions.norm(2, -1, True)
        sh = torch.cat([f["dc"][:, None], f["rest"]], 1)
        colors = torch.clamp_min(self.rasterizer.sh_colors(directions, sh, 3) + 0.5, 0)
        quats = f["quats"] / f["quats"].norm(2, -1, True)
        opacities = torch.sigmoid(f["opacities"])
        image = self.rasterizer.render(
            f["means"], torch.exp(f["scales"]), quats, colors, opacities, self.background, self.view
        )
        return torch.clamp_max(image, 1.0)

    def run(self) -> float:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        image = self.image()
        l1 = (self.photo - image).abs().mean()
        loss = (1 - SSIM_WEIGHT) * l1 + SSIM_WEIGHT * (1 - self.rasterizer.mean_ssim(image, self.photo))
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return float(loss.item())
