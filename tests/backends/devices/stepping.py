"""Training steps on a device, as the trainer takes them."""

from __future__ import annotations

import numpy as np

from captures import truth
from stipple import Gaussians
from stipple.formats.captures import Frame
from stipple.runtime import Session
from stipple.train import make_config
from stipple.train.stepper import Stepper


def stepper_on(
    device: Session, strategy: str, steps: int, extras: dict[str, bool] | None = None
) -> tuple[Stepper, list[Frame]]:
    """A stepper at the start of a small scene's training, and the scene's photos."""
    made = truth()
    rng = np.random.default_rng(0)
    points = made.points + rng.normal(size=made.points.shape) * 0.1
    scene = Gaussians.from_linear(points, 0.2, 0.4, np.full((len(points), 3), 0.5), rng.normal(size=(len(points), 4)))
    config = make_config(
        None,
        {"schedule": {"steps": steps, "sh_every": 60, "coarse": [[2, 0.2]]}, "density": {"strategy": strategy}},
        {"extras": extras or {}, "loss": {"depth": 0.1}},
    )
    stepper = Stepper(device, config, len(made.cameras))
    stepper.start(scene)
    return stepper, [Frame(c, p) for c, p in zip(made.cameras, made.photos, strict=True)]


def losses_on(device: Session, strategy: str, steps: int) -> np.ndarray:
    """The losses of some steps, coarse to fine; on a GPU, no op of them may run on the host."""
    stepper, frames = stepper_on(device, strategy, steps)
    losses = []
    for step in range(1, steps + 1):
        i = step % len(frames)
        losses.append(stepper.run(step, i, frames[i].smaller(2 if step <= 0.2 * steps else 1))["loss"])
    report = stepper.executable
    assert report is not None
    elsewhere = [d.kernel for d in report.dispatch if ":wgsl." not in d.kernel and ":view" not in d.kernel]
    assert device.device == "cpu" or not elsewhere, "no op of a training step runs on the host"
    return np.array(losses)
