"""``stipple train``: from a capture to a scene."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stipple.cli.config_options import ConfigCommand, given_layers
from stipple.cli.lasting import lasting
from stipple.cli.options import device_options
from stipple.cli.terminal import Terminal
from stipple.errors import InputError, StippleError

if TYPE_CHECKING:
    from stipple.train import Config, Outcome, Problem, RunFolder


@click.command(cls=ConfigCommand, short_help="Train a scene from posed photos.")
@click.argument("capture", required=False, type=click.Path())
@click.option(
    "-o", "--output", type=click.Path(file_okay=False), help="Folder for the scene, the report and checkpoints."
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False),
    help="A TOML file with values, as --show-config prints them.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="One value by its name in such a file, such as density.every=200.",
)
@click.option("--resume", is_flag=True, help="Continue the run in OUTPUT from its last checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace a run that OUTPUT already holds.")
@click.option("--show-config", is_flag=True, help="Print the configuration and what each value means, and stop.")
@device_options
def train(
    capture: str | None,
    output: str | None,
    config_file: str | None,
    settings: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    show_config: bool,
    device: str,
    **flags: Any,
) -> None:
    """Train a scene from CAPTURE, a folder of photos with camera poses, into OUTPUT.

    CAPTURE is a COLMAP model with its images, a nerfstudio transforms.json, a Blender synthetic scene, or RGB-D
    frames (TUM, 7-Scenes, Open3D). Training writes OUTPUT/scene.ply, which any splat viewer opens, and report.html.

    Every value of the configuration is an option below; presets and files set several at once.

    \b
    stipple train photos/ -o run/
    stipple train photos/ -o run/ --preset fast --downscale 2
    stipple train -o run/ --resume
    """
    layers = [_file_layer(config_file), *given_layers(flags, settings)]
    if show_config:
        _show(layers)
        return
    if output is None:
        raise click.UsageError("name the folder for the result: -o FOLDER")
    from stipple.train import Problem, RunFolder, make_config

    if resume and (config_file or any(v is not None for v in flags.values()) or settings):
        raise click.UsageError("--resume continues with the run's own configuration; remove the other options")
    if not resume and capture is None:
        raise click.UsageError("name the capture: stipple train CAPTURE -o OUTPUT")
    folder = RunFolder(Path(output))
    # hours of training must not end because a pipe or a terminal is closed
    console = Terminal(file=lasting(sys.stderr))
    if resume:
        folder.read_description()  # a folder without a run is left alone
    with folder.held() as note:
        if note is not None:
            console.say(f"note: {note}")
        if resume:
            config, described = folder.read_description()
            capture = capture or described["capture"]
        else:
            _refuse_existing(folder, overwrite)
            config = make_config(None, *layers)
        assert capture is not None
        problem = Problem.open(capture, config)
        console.print(_headline(problem), highlight=False, markup=False, soft_wrap=True)
        _train(problem, folder, capture, device, resume, console)


def _train(problem: Problem, folder: RunFolder, capture: str, device: str, resume: bool, console: Terminal) -> None:
    """Train in a folder that is locked, and report."""
    from stipple.cli.progress import TerminalMeter
    from stipple.train import Trainer

    meter = TerminalMeter(console)
    started = time.perf_counter()
    try:
        outcome = Trainer(problem, folder, capture, device, meter).run(resume)
    finally:
        meter.close()
        problem.close()
    if outcome.signal is not None:
        console.print(
            f"Stopped after step {outcome.step}; continue with: stipple train -o {folder.root} --resume",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        raise SystemExit(128 + outcome.signal)
    _report(problem, folder, outcome, capture, time.perf_counter() - started, console)


def _file_layer(path: str | None) -> dict[str, Any]:
    from stipple.train.config_toml import read_toml

    return read_toml(Path(path)) if path else {}


def _show(layers: list[dict[str, Any]]) -> None:
    """The configuration as TOML, each value with its meaning."""
    from stipple.train.config import make_config
    from stipple.train.config_toml import to_toml

    click.echo(to_toml(make_config(None, *layers)), nl=False)


def _refuse_existing(folder: RunFolder, overwrite: bool) -> None:
    if folder.run.exists() and not overwrite:
        raise InputError(
            f"{folder.root}: already holds a run; continue it with stipple train -o {folder.root} --resume, or "
            "replace it with --overwrite"
        )


def _headline(problem: Problem) -> str:
    capture, config = problem.capture, problem.config
    size = problem.train.camera(0)
    lines = [
        f"{capture.kind}: {len(problem.train)} training and {len(problem.test)} held-out views of about "
        f"{size.width} x {size.height}, {len(capture.points):,} points; preset {config.preset}, "
        f"{config.schedule.steps} steps"
    ]
    lines += [f"note: {n}" for n in capture.notes]
    if capture.unused:
        lines.append(f"note: {len(capture.unused)} photos have no pose and are not used, such as {capture.unused[0]}")
    return "\n".join(lines)


def _report(
    problem: Problem, folder: RunFolder, outcome: Outcome, capture: str, seconds: float, console: Terminal
) -> None:
    from stipple.train.config_toml import to_toml
    from stipple.train.evaluation import mean_scores
    from stipple.train.report import write_report

    config: Config = problem.config
    count = sum(1 for _ in problem.train.views)
    facts = {
        "capture": f"{problem.capture.kind}, {count} training and {len(problem.test)} held-out views",
        "steps": f"{outcome.step:,} ({config.preset})",
        "training time": f"{outcome.seconds:.0f} s",
        "scene": f"scene.ply, {folder.scene.stat().st_size / 1e6:.1f} MB",
    }
    try:
        write_report(folder, outcome, Path(capture).resolve().name, facts, to_toml(config, comments=False))
    except OSError as error:
        raise StippleError(f"{folder.report}: not written: {error.strerror or error}; the scene is there") from None
    for split, name in (("test", "held-out"), ("train", "training")):
        means = mean_scores([s for s in outcome.scores if s.split == split])
        if means:
            console.print(
                f"{name} views: " + ", ".join(f"{k} {v:.4g}" for k, v in means.items()), highlight=False, soft_wrap=True
            )
    console.print(
        f"Wrote {folder.scene} and {folder.report} in {seconds:.0f} s. Look at the scene: "
        f"stipple render {folder.root} -o film.mp4, or drop it into a viewer such as https://superspl.at/editor",
        highlight=False,
        soft_wrap=True,
    )
