"""Train a capture with Stipple, and again with gsplat's published recipe, and compare what held-out views come to.

The recipe is that of gsplat's example trainer (settings: gsplat 1.5, examples/simple_trainer.py): its own
``DefaultStrategy`` (installed beside, pure PyTorch), PyTorch's Adam and autograd, SSIM without padding, full
resolution from the first step, no limit of Gaussians, and no reset of opacities, which its version 1.5.3 means to do
but never does (``step % reset_every == 0 & step > 0`` is false for every step). Only the rasterizer under it is ours,
as gsplat's needs CUDA: so what differs is everything around it. Both start from the same points, train the same number
of steps in the order of their own shuffles, and are evaluated by the same code on the same views.
Needs: pip install gsplat torch

python benchmarks/recipe.py lego=standard:../shared/data/lego fern=fast:../shared/data/fern
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gsplat import DefaultStrategy
from rich.console import Console
from rich.progress import track

from scenes import named_capture
from stipple import Gaussians, rasterization_vjp
from stipple.bench.machine import machine
from stipple.formats.captures import Frame
from stipple.train import Problem, RunFolder, Trainer, make_config
from stipple.train.evaluation import Evaluator, mean_scores, photo_of
from stipple.train.schedule import evaluation_steps, fixed_background

RESULTS = Path(__file__).parent / "results"
CONSOLE = Console(stderr=True)
RATES = {"means": 1.6e-4, "scales": 5e-3, "quats": 1e-3, "opacities": 5e-2, "sh0": 2.5e-3, "shN": 2.5e-3 / 20}
SSIM_WEIGHT, SH_EVERY, STOP = 0.2, 1000, 0.5


class Rasterize(torch.autograd.Function):
    """Our rasterizer under PyTorch; ``means2d`` is a stand-in that receives the 2D means' gradient."""

    @staticmethod
    def forward(ctx: Any, means2d: Any, means: Any, quats: Any, scales: Any, opacities: Any, sh: Any, rest: Any) -> Any:
        viewmat, intrinsics, background, frame, degree = rest
        operands = [t.detach().numpy() for t in (means, quats, scales, opacities, sh)]
        camera = frame.camera
        colors, _, info, ctx.vjp = rasterization_vjp(
            *operands, viewmat[None], intrinsics[None], camera.width, camera.height,
            sh_degree=degree, backgrounds=background[None],
        )  # fmt: skip
        return torch.from_numpy(colors[0].copy()), torch.from_numpy(info["radii"])

    @staticmethod
    def backward(ctx: Any, v_colors: Any, _: Any) -> Any:
        g = ctx.vjp(v_colors.numpy()[None])
        names = ("means2d", "means", "quats", "scales", "opacities", "colors")
        return (*(torch.from_numpy(g[n]) for n in names), None)


def ssim(image: Any, photo: Any) -> Any:
    """Mean SSIM over an 11x11 Gaussian window that lies inside the image."""
    window = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = window / window.sum()

    def blur(x: Any) -> Any:
        rows = sum(window[k] * x[:, k : x.shape[1] - 10 + k] for k in range(11))  # ten times conv2d's speed on a CPU
        return sum(window[k] * rows[:, :, k : x.shape[2] - 10 + k] for k in range(11))

    a, b = image.permute(2, 0, 1), photo.permute(2, 0, 1)
    blurred = blur(torch.cat([a, b, a * a, b * b, a * b]))
    mean_a, mean_b, aa, bb, ab = blurred.split(3)
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


class Recipe:
    """gsplat's example trainer, as far as it says how to train."""

    def __init__(self, problem: Problem, steps: int) -> None:
        self.problem, self.steps = problem, steps
        self.background = fixed_background(problem.config, problem.train.frame(0).transparent)
        scene = problem.start().with_sh_degree(3)
        values = {
            "means": scene.means, "scales": scene.log_scales, "quats": scene.quats,
            "opacities": scene.logit_opacities, "sh0": scene.sh[:, :1], "shN": scene.sh[:, 1:],
        }  # fmt: skip
        self.params = torch.nn.ParameterDict(
            {n: torch.nn.Parameter(torch.from_numpy(np.array(a, np.float32))) for n, a in values.items()}
        )
        self.optimizers = {
            n: torch.optim.Adam([{"params": self.params[n], "lr": rate, "name": n}], eps=1e-15)
            for n, rate in RATES.items()
        }
        self.decay = torch.optim.lr_scheduler.ExponentialLR(self.optimizers["means"], 0.01 ** (1 / steps))
        share = steps / 30_000  # the trainer's steps_scaler
        self.strategy = DefaultStrategy(
            refine_start_iter=int(500 * max(share, 0.25)), refine_stop_iter=int(STOP * steps)
        )
        self.strategy.check_sanity(self.params, self.optimizers)
        self.state = self.strategy.initialize_state(scene_scale=1.0)
        self.curve: list[float] = []

    def step(self, number: int, frame: Frame) -> None:
        camera, p = frame.camera, self.params
        means2d = torch.zeros((1, len(p["means"]), 2), requires_grad=True)
        rest = (
            camera.viewmat.astype(np.float32), camera.intrinsics.astype(np.float32), self.background, frame,
            min(number // SH_EVERY, 3),
        )  # fmt: skip
        image, radii = Rasterize.apply(
            means2d, p["means"], p["quats"], torch.exp(p["scales"]), torch.sigmoid(p["opacities"]),
            torch.cat([p["sh0"], p["shN"]], 1), rest,
        )  # fmt: skip
        info = {"means2d": means2d, "radii": radii, "gaussian_ids": None, "n_cameras": 1}
        info.update(width=camera.width, height=camera.height)
        self.strategy.step_pre_backward(p, self.optimizers, self.state, number, info)
        photo = torch.from_numpy(photo_of(frame, self.background))
        loss = (1 - SSIM_WEIGHT) * (image - photo).abs().mean() + SSIM_WEIGHT * (1 - ssim(image, photo))
        loss.backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.decay.step()
        self.strategy.step_post_backward(p, self.optimizers, self.state, number, info, packed=False)

    def scene(self) -> Gaussians:
        a = {n: t.detach().numpy() for n, t in self.params.items()}
        sh = np.concatenate([a["sh0"], a["shN"]], 1)
        return Gaussians(a["means"], a["scales"], a["quats"], a["opacities"], sh)

    def train(self) -> None:
        loader = self.problem.train
        order = shuffled(len(loader))
        torch.manual_seed(0)
        torch.set_num_threads(1)  # its threads and ours would wait for each other
        watched = evaluation_steps(self.problem.config)
        for number in track(range(self.steps), "gsplat's recipe", console=CONSOLE):
            self.step(number, loader.frame(next(order)))
            if number + 1 in watched:
                self.curve.append(evaluated(self.problem, self.scene())["psnr"])


def shuffled(count: int) -> Iterator[int]:
    rng = np.random.default_rng(0)
    while True:
        yield from (int(i) for i in rng.permutation(count))


def evaluated(problem: Problem, scene: Gaussians) -> dict[str, float]:
    evaluator = Evaluator(problem.config)
    test = problem.test
    scores = [
        evaluator.compare(scene, test.camera(i), test.frame(i), test.views[i].name, "test").score
        for i in range(len(test))
    ]
    return {k: round(v, 4) for k, v in mean_scores(scores).items()}


def ours(problem: Problem, capture: str) -> dict[str, Any]:
    """A run as ``stipple train`` makes it."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        trainer = Trainer(problem, run, capture)
        outcome = trainer.run()
        rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    scene = trainer.stepper.scene()
    return {
        **evaluated(problem, scene),
        "gaussians": scene.count,
        "seconds": round(outcome.seconds),
        "curve": [r["test_psnr"] for r in rows if "test_psnr" in r],
    }


def compare(name: str, preset: str, capture: str, settings: list[str]) -> dict[str, Any]:
    from stipple.train.config_toml import parse_setting

    config = make_config(preset, *(parse_setting(s) for s in settings))
    problem = Problem.open(capture, config)
    problem.load(lambda: None)
    row: dict[str, Any] = {"capture": name, "preset": " ".join([preset, *settings]), "steps": config.schedule.steps}
    recipe = Recipe(problem, config.schedule.steps)
    started = time.perf_counter()
    recipe.train()
    row["recipe"] = {
        **evaluated(problem, recipe.scene()),
        "gaussians": recipe.scene().count,
        "seconds": round(time.perf_counter() - started),
        "curve": recipe.curve,
    }
    CONSOLE.print(name, row["recipe"])
    row["ours"] = ours(problem, capture)
    CONSOLE.print(name, row["ours"])
    problem.close()
    return row


def markdown(results: dict[str, Any]) -> str:
    m = results["machine"]
    lines = [
        "# Beside gsplat's recipe",
        "",
        f"{m['processor']}, {m['threads']} threads; `{results['command']}`",
        "",
        "Held-out views, in brackets on the way where it was written down. gsplat's recipe: its strategy "
        "and settings over our rasterizer (gsplat's own needs CUDA).",
        "",
        "| capture | preset | steps | gsplat's recipe | Gaussians | ours | Gaussians | difference |",
        "| --- | --- | ---: | --- | ---: | --- | ---: | ---: |",
    ]
    for r in results["rows"]:
        cells = []
        for side in (r["recipe"], r["ours"]):
            way = f" ({', '.join(f'{v:.1f}' for v in side['curve'])})" if side["curve"] else ""
            cells += [f"{side['psnr']:.2f} dB, SSIM {side['ssim']:.4f}{way}", f"{side['gaussians']:,}"]
        difference = r["ours"]["psnr"] - r["recipe"]["psnr"]
        lines.append(
            f"| {r['capture']} | {r['preset']} | {r['steps']:,} | " + " | ".join(cells) + f" | {difference:+.2f} dB |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", nargs="+", metavar="NAME=PRESET:PATH[,KEY=VALUE...]")
    parser.add_argument("--name", default="recipe", help="name of the results' files")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "machine": machine(),
        "command": " ".join(["python", "benchmarks/recipe.py", *sys.argv[1:]]),
        "rows": [],
    }
    for text in arguments.captures:
        results["rows"].append(compare(*named_capture(text)))
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{arguments.name}.json").write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / f"{arguments.name}.md").write_text(markdown(results))
    CONSOLE.print(markdown(results), highlight=False, markup=False)


if __name__ == "__main__":
    main()
