"""All Gaussians at all pixels as PyTorch tensors: what splatting costs without tile lists, at a size it can hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compare.side_by_side import Array, Peer, Work, picture, with_gradients
from stipple import numerics as nx
from stipple.bench import cpu
from stipple.bench.cases import Case, slam_case
from stipple.runtime import Session

NAMES = ("means2d", "conics", "colors", "opacities")


def opened(source: Path | None) -> Peer:
    """The peer. Ends the program where PyTorch is not installed."""
    try:
        import torch
    except ImportError as error:
        raise SystemExit("PyTorch cannot be measured here: torch is not installed.") from error
    notes = [
        f"PyTorch, on {torch.get_num_threads()} threads, gets the projected Gaussians in the order of their depth; its "
        "times are those of compositing, and of the gradients of what it got. Ours are whole public calls: projection, "
        "sorting, compositing, and the gradients of all inputs."
    ]
    case = slam_case(2000, 160, 120, 125.0)
    return Peer("torch", "PyTorch, dense", {"PyTorch": torch.__version__}, notes, works(case))


def works(case: Case) -> Iterator[Work]:
    """A frame with gradients."""
    dense = Dense(case)
    pictures = picture(case), dense.image().detach().numpy()
    yield Work(
        case.name, "frame with gradients", with_gradients(case), lambda: dense.image().sum().backward(), pictures
    )


class Dense:
    """A case's projected Gaussians as tensors, the nearest first."""

    def __init__(self, case: Case) -> None:
        import torch

        self.torch, self.size = torch, (case.attrs["height"], case.attrs["width"])
        frame: dict[str, Array] = cpu.whole_frame(Session("cpu"), case, backward=False).run(case.operands._asdict())
        visible = np.flatnonzero(frame["radii"][:, 0] > 0)
        order = visible[np.argsort(frame["depths"][visible], kind="stable")]
        self.fields = [torch.tensor(frame[n][order], requires_grad=True) for n in NAMES]
        height, width = self.size
        self.pixels = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")

    def image(self) -> Any:
        """The composited image, [H, W, 3]."""
        torch, (v, u) = self.torch, self.pixels
        means2d, conics, colors, opacities = self.fields
        dx, dy = u.ravel()[:, None] - means2d[:, 0], v.ravel()[:, None] - means2d[:, 1]
        power = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
        alpha = (opacities * torch.exp(-power)).clamp(max=nx.MAX_ALPHA)
        alpha = torch.where(alpha < nx.ALPHA_CUTOFF, torch.zeros_like(alpha), alpha)
        light = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1]], dim=1), dim=1)
        return ((alpha * light) @ colors).reshape(*self.size, 3)
