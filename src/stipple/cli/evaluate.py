"""``stipple eval``: how good a trained scene is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import track
from rich.table import Table

from stipple.cli.options import device_options
from stipple.cli.terminal import Terminal

if TYPE_CHECKING:
    from stipple.train.evaluation import Score
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
    """Evaluate in a folder that is locked."""
    from stipple.train.evaluation import evaluation_of, load_lpips
    from stipple.train.finished_run import FinishedRun, save_comparison
    from stipple.train.rundir import write_json

    run = FinishedRun(folder)
    views = run.views(with_train)
    console, notes = Terminal(), Terminal(stderr=True)
    for text in run.changes(views):
        notes.say(f"note: {text}")
    if not views:
        console.print("The run held out no views; --train evaluates the training views.")
        return
    lpips = load_lpips(network) if network else None
    scores: list[Score] = []
    for compared in track(run.compare(views, device, lpips), description="Evaluating", total=len(views), console=notes):
        scores.append(compared.score)
        if save_images:
            save_comparison(compared, folder.root / "eval")
    write_json(folder.evaluation, evaluation_of(scores))
    console.print(_table(scores))


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
