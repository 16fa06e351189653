"""``stipple eval``: how good a trained scene is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import track
from rich.table import Table

from stipple.cli.options import device_options
from stipple.cli.terminal import Terminal
from stipple.errors import FileFormatError, StippleError

if TYPE_CHECKING:
    from stipple.formats.captures import Capture, View
    from stipple.train.evaluation import Comparison, Score
    from stipple.train.rundir import RunFolder


@click.command("eval", short_help="Score a run: PSNR and SSIM of its views.")
@click.argument("run", type=click.Path(file_okay=False))
@click.option("--train/--no-train", "with_train", default=False, help="Also evaluate the training views.")
@click.option("--lpips", "network", type=click.Choice(["vgg", "alex"]), help="Also LPIPS; needs the extra lpips.")
@click.option("--save-images", is_flag=True, help="Write each view's photo, render and error to RUN/eval.")
@device_options
def evaluate(run: str, with_train: bool, network: str | None, save_images: bool, device: str) -> None:
    """Evaluate RUN, a folder that `stipple train` wrote: PSNR and SSIM of the held-out views.

    PSNR and SSIM (11x11 Gaussian window, zeros beyond the border) are computed as in 3DGS: for each full image, then
    averaged over the views. The results are also written to RUN/eval.json.
    """
    from stipple.train.rundir import RunFolder

    folder = RunFolder(Path(run))
    folder.read_description()  # a folder without a run is left alone
    with folder.held() as note:
        if note is not None:
            Terminal(stderr=True).say(f"note: {note}")
        _evaluate(folder, with_train, network, save_images, device)


def _evaluate(folder: RunFolder, with_train: bool, network: str | None, save_images: bool, device: str) -> None:
    """Evaluate in a folder that is held."""
    from stipple.formats import load_scene
    from stipple.formats.captures import load_frame, open_capture
    from stipple.memory import memory_for
    from stipple.train.evaluation import Evaluator, evaluation_of, load_lpips
    from stipple.train.problem import capture_options
    from stipple.train.rundir import write_json

    config, described = folder.read_description()
    cameras, scene = folder.read_cameras(), load_scene(folder.scene)
    capture = open_capture(described["capture"], capture_options(config.data))
    train, test = capture.split(config.data.test_every)
    views = [(capture.views[i], "test") for i in test] + (
        [(capture.views[i], "train") for i in train] if with_train else []
    )
    console, notes = Terminal(), Terminal(stderr=True)
    for text in _changes(capture, [view for view, _ in views], described):
        notes.say(f"note: {text}")
    if not views:
        console.print("The run held out no views; --train evaluates those it was trained on.")
        return
    evaluator = Evaluator(config, device, load_lpips(network) if network else None)
    scores: list[Score] = []
    for view, split in track(views, description="Evaluating", console=notes):
        size = f"{view.camera.width} x {view.camera.height}"
        with memory_for(f"{view.name}, {size} pixels, and {scene.count:,} Gaussians"):
            frame = load_frame(view, config.data.downscale)
            camera, exposure = cameras.get(view.name, (frame.camera, None))
            compared = evaluator.compare(scene, camera, frame, view.name, split, exposure)
        scores.append(compared.score)
        if save_images:
            _save(folder.root / "eval", compared)
    write_json(folder.evaluation, evaluation_of(scores))
    console.print(_table(scores))


def _changes(capture: Capture, views: list[View], described: dict[str, Any]) -> list[str]:
    """What differs between the capture and what the run was trained on, so far as these views go."""
    from stipple.train.fingerprint import Contents, compare

    contents, found = Contents(), []
    try:
        for name, digests in compare(capture, capture.views, described.get("contents", {})).items():
            contents.expect(name, digests)
    except StippleError as error:
        found.append(str(error))
    for view in views:
        try:
            contents.check(view)
        except FileFormatError as error:
            found.append(str(error))
    return found


def _save(folder: Path, compared: Comparison) -> None:
    import numpy as np
    from PIL import Image

    from stipple.train.report import error_colors

    folder.mkdir(parents=True, exist_ok=True)
    stem = compared.score.name.replace("/", "_").rsplit(".", 1)[0]
    error = error_colors(np.abs(compared.image - compared.photo).mean(axis=2))
    for kind, pixels in (("photo", compared.photo), ("render", compared.image), ("error", error)):
        byte = pixels if pixels.dtype == np.uint8 else (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
        Image.fromarray(byte).save(folder / f"{stem}.{kind}.png")


def _table(scores: list[Score]) -> Table:
    from stipple.train.evaluation import mean_scores

    names = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS", "psnr_corrected": "PSNR, colour-corrected"}
    shown = mean_scores(scores)
    table = Table()
    table.add_column("view")
    table.add_column("split")
    for key in shown:
        table.add_column(names[key], justify="right")
    for s in scores:
        table.add_row(s.name, s.split, *(f"{getattr(s, k):.4f}" for k in shown))
    for split in dict.fromkeys(s.split for s in scores):
        means = mean_scores([s for s in scores if s.split == split])
        table.add_section()
        table.add_row("mean", split, *(f"{means[k]:.4f}" for k in shown), style="bold")
    return table
