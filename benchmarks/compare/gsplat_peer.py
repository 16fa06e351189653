"""The same work by gsplat on CUDA: frames, frames with gradients, and whole training steps as its example trainer
takes them (harmonics of degree 3, 0.8 L1 + 0.2 (1 - SSIM), fused Adam over six groups of parameters)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compare.side_by_side import Peer, Work, picture
from scenes import garden_case
from stipple.backends.gpu import GpuBackend
from stipple.bench import cases
from stipple.bench.cases import Case, frame_of, scene_of, slam_case
from stipple.cli.devices import describe_device
from stipple.runtime import Session

RATES = {"means": 1.6e-4, "scales": 5e-3, "quats": 1e-3, "opacities": 5e-2, "sh0": 2.5e-3, "shN": 2.5e-3 / 20}
Run = Callable[[], object]


def available() -> str | None:
    """Why gsplat cannot be measured here, or None."""
    try:
        import gsplat  # noqa: F401
        import torch
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except (ImportError, OSError) as error:  # installed, but not for this machine: CUDA's libraries are missing
        return f"gsplat or PyTorch cannot be loaded ({error})"
    return None if torch.version.cuda and torch.cuda.is_available() else "PyTorch finds no CUDA"


def opened(source: Path | None) -> Peer:
    """The peer beside our GPU backend. Ends the program where there is no CUDA."""
    if why := available():
        raise SystemExit(f"gsplat cannot be measured here: {why}.")
    import gsplat
    import torch

    session = Session("gpu")
    notes = [
        f"gsplat on {torch.cuda.get_device_name()}, ours on {describe_device(session.device)}; every call waited for. "
        "Its step is that of its example trainer: SH of degree 3, 0.8 L1 + 0.2 (1 - SSIM), fused Adam."
    ]
    versions = {"gsplat": gsplat.__version__, "PyTorch": torch.__version__}
    return Peer("gsplat", "gsplat", versions, notes, works(session))


def works(session: Session) -> Iterator[Work]:
    """Frames, frames with gradients, and training steps."""
    peer, backend = Gsplat(), session.backend
    assert isinstance(backend, GpuBackend)

    def finished(run: Run, wait: Callable[[], None]) -> Run:
        def whole() -> None:
            run()
            wait()

        return whole

    for case in (slam_case(100_000, 1920, 1080, 500.0), slam_case(1_000_000, 1920, 1080, 500.0), garden_case(2)):
        pictures = picture(case, "gpu"), peer.picture(case)
        forward, both = peer.frames(case)
        theirs = {"frame": forward, "frame with gradients": both, "training step": peer.step(case)}
        ours = {
            "frame": cases.frame(session, case, backward=False).run,
            "frame with gradients": cases.frame(session, case, backward=True).run,
            "training step": cases.training(session, case)[1],
        }
        for what, run in theirs.items():
            sides = finished(ours[what], backend.synchronize), finished(run, peer.wait)
            yield Work(case.name, what, *sides, pictures)


class Gsplat:
    """gsplat's rasterization on a device of PyTorch."""

    def __init__(self, device: str = "cuda") -> None:
        import torch
        from gsplat import rasterization

        self.torch, self.rasterization, self.device = torch, rasterization, device

    def wait(self) -> None:
        self.torch.cuda.synchronize()

    def tensor(self, array: np.ndarray) -> Any:
        return self.torch.tensor(array, device=self.device)

    def frames(self, case: Case) -> tuple[Run, Run]:
        """A frame, and a frame with the gradients of its mean square."""
        x = case.operands
        params = [self.tensor(a).requires_grad_() for a in (x.means, x.quats, x.scales, x.opacities, x.colors)]
        camera = self.tensor(x.viewmat)[None], self.tensor(x.intrinsics)[None]
        width, height = case.attrs["width"], case.attrs["height"]

        def image() -> Any:
            return self.rasterization(*params, *camera, width, height, packed=False)[0]

        def forward() -> None:
            with self.torch.no_grad():
                image().square().mean()

        def both() -> None:
            for p in params:
                p.grad = None
            image().square().mean().backward()

        return forward, both

    def picture(self, case: Case) -> np.ndarray:
        """The picture, [H, W, 3]."""
        x = case.operands
        tensors = [self.tensor(a) for a in (x.means, x.quats, x.scales, x.opacities, x.colors)]
        camera = self.tensor(x.viewmat)[None], self.tensor(x.intrinsics)[None]
        image = self.rasterization(*tensors, *camera, case.attrs["width"], case.attrs["height"], packed=False)[0]
        shown: np.ndarray = image[0].cpu().numpy()
        return shown

    def step(self, case: Case) -> Run:
        """A whole training step."""
        torch, scene, frame = self.torch, scene_of(case), frame_of(case)
        values = {
            "means": scene.means, "scales": scene.log_scales, "quats": scene.quats,
            "opacities": scene.logit_opacities, "sh0": scene.sh[:, :1], "shN": scene.sh[:, 1:],
        }  # fmt: skip
        p = {n: torch.nn.Parameter(self.tensor(a)) for n, a in values.items()}
        fused = self.device == "cuda"
        optimizers = [torch.optim.Adam([p[n]], lr=rate, eps=1e-15, fused=fused) for n, rate in RATES.items()]
        x = case.operands
        viewmat, intrinsics = (self.tensor(m.astype(np.float32)[None]) for m in (x.viewmat, x.intrinsics))
        ssim = self.ssim()

        def run() -> None:
            photo = self.tensor(frame.pixels).float() / 255
            image, _, info = self.rasterization(
                p["means"], p["quats"], torch.exp(p["scales"]), torch.sigmoid(p["opacities"]),
                torch.cat([p["sh0"], p["shN"]], 1), viewmat, intrinsics, frame.camera.width, frame.camera.height,
                sh_degree=3, packed=False,
            )  # fmt: skip
            info["means2d"].retain_grad()  # its strategy reads them
            loss = 0.8 * (image[0] - photo).abs().mean() + 0.2 * (1 - ssim(image[0], photo))
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            loss.item()

        return run

    def ssim(self) -> Callable[[Any, Any], Any]:
        """fused-ssim, which gsplat's trainer takes, where it is installed; else by convolution."""
        try:
            from fused_ssim import fused_ssim
        except ImportError:
            return self.plain_ssim
        return lambda a, b: fused_ssim(a.permute(2, 0, 1)[None], b.permute(2, 0, 1)[None], padding="valid")

    def plain_ssim(self, image: Any, photo: Any) -> Any:
        torch = self.torch
        line = torch.exp(-((torch.arange(11, device=self.device) - 5.0) ** 2) / (2 * 1.5**2))
        window = (line[:, None] * line[None]) / line.sum() ** 2
        a, b = image.permute(2, 0, 1), photo.permute(2, 0, 1)
        stack = torch.cat([a, b, a * a, b * b, a * b])[:, None]
        mean_a, mean_b, aa, bb, ab = torch.nn.functional.conv2d(stack, window[None, None])[:, 0].split(3)
        c1, c2 = 0.01**2, 0.03**2
        top = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
        return (top / ((mean_a**2 + mean_b**2 + c1) * (aa - mean_a**2 + bb - mean_b**2 + c2))).mean()
