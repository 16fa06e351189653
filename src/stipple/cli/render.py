"""``stipple render``: pictures and videos of a scene."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import track

from stipple.cli.options import Size, Vector, device_options
from stipple.cli.terminal import Terminal
from stipple.errors import InputError
from stipple.scene import Camera, Gaussians
from stipple.scene.camera import USUAL_FOV

_SIZE = (1280, 720)
_VIDEO = (".mp4", ".mov", ".mkv", ".webm", ".gif")
_PICTURE = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


@click.command(short_help="Render pictures and videos of a scene.")
@click.argument("scene", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="A picture, a folder for --orbit, or a video.")
@click.option("--size", type=Size(), help="Pixels; 1280x720, or those of a run's photos.")
@click.option("--view", help="Of a run: the photo whose camera is used.")
@click.option("--fov", type=click.FloatRange(0, 180, min_open=True, max_open=True), default=USUAL_FOV,
              show_default=True, help="Vertical field of view in degrees.")  # fmt: skip
@click.option("--from", "position", type=Vector(), help="Camera position; by default one that frames the scene.")
@click.option("--look-at", "target", type=Vector(), help="Point in the middle; by default the scene's centre.")
@click.option("--up", type=Vector(), default="0,-1,0", show_default=True, help="Direction of the top of the picture.")
@click.option("--orbit", type=click.IntRange(1), help="Circle the target in this many frames (a video: 120).")
@click.option(
    "--fps", type=click.FloatRange(1, 240), default=30.0, show_default=True, help="Frames per second of a video."
)
@click.option("--background", type=Vector(), default="0,0,0", show_default=True, help="Red, green, blue from 0 to 1.")
@click.option(
    "--depth",
    "depth_file",
    type=click.Path(dir_okay=False),
    help="Also write the depth of the first frame: a 16-bit PNG, near is bright.",
)
@click.option(
    "--alpha",
    "alpha_file",
    type=click.Path(dir_okay=False),
    help="Also write the alpha of the first frame as a grey picture.",
)
@click.option("--sh-degree", type=click.IntRange(0, 4), help="Use SH up to this degree only.")
@click.option("--antialiased", is_flag=True, help="For scenes trained with antialiasing.")
@click.option("--projection", type=click.Choice(["ewa", "ray"]), default="ewa", show_default=True,
              help="ewa, which scenes are trained with, or ray, which is exact.")  # fmt: skip
@device_options
def render(scene: str, output: str, **options: Any) -> None:
    """Render SCENE, a scene file or the folder of a run, to a picture, a folder of frames, or a video.

    Pictures of a run use the cameras of its photos; videos of a run fly from one of them to the next.

    \b
    stipple render run/ -o film.mp4
    stipple render run/ -o picture.png --view IMG_0042.jpg
    stipple render scene.ply -o picture.png
    stipple render scene.ply -o picture.png --from 0,1,-3 --look-at 0,1,0 --size 1920x1080
    stipple render scene.ply -o frames/ --orbit 60
    stipple render scene.ply -o orbit.mp4
    """
    from stipple.formats import load_scene

    run = Path(scene) if Path(scene).is_dir() else None
    gaussians = load_scene(scene if run is None else run / "scene.ply")
    if not gaussians.count:
        raise InputError(f"{scene}: the scene holds no Gaussians")
    if not gaussians.finite.any():
        raise InputError(f"{scene}: nothing to draw: all {gaussians.count} Gaussians hold NaN or infinity")
    target = Path(output)
    video = target.suffix.lower() in _VIDEO
    folder = not video and (options["orbit"] is not None or output.endswith("/") or target.is_dir())
    placed = any(options[n] is not None for n in ("orbit", "position", "target"))
    flies = run is not None and not placed and options["view"] is None and (video or folder)
    frames = options["orbit"] or (120 if video or flies else 1)
    if not (video or folder or target.suffix.lower() in _PICTURE):
        raise click.BadParameter(
            f"{output}: expected a picture ({', '.join(_PICTURE)}), a video ({', '.join(_VIDEO)}), "
            "or a folder with --orbit",
            param_hint="-o",
        )
    if run is None and options["view"] is not None:
        raise click.BadParameter("needs the folder of a run, which knows its photos' cameras", param_hint="--view")
    if run is not None and not placed:
        cameras, options["antialiased"] = _of_run(run, options, frames if flies else 0)
    else:
        options["size"] = options["size"] or _SIZE
        cameras = _cameras(gaussians, options, frames)
    console = Terminal(stderr=True)
    with _writer(target, video, folder, options["fps"]) as write:
        steps: Any = range(frames)
        if frames > 1:
            steps = track(steps, description="Rendering", console=console)
        for i in steps:
            write(i, *_draw(gaussians, cameras[i], options))
        last = _draw_extras(gaussians, cameras[0], options)
    console.say(f"Wrote {output}" + (f" ({frames} frames)" if frames > 1 else "") + "".join(f", {f}" for f in last))


def _of_run(run: Path, options: dict[str, Any], frames: int) -> tuple[list[Camera], bool]:
    """Cameras of a run: a flight of ``frames`` frames, or one photo's; and whether it was trained with antialiasing."""
    from stipple.cli.run_cameras import run_flight, view_camera
    from stipple.train.rundir import RunFolder

    antialiased = options["antialiased"] or RunFolder(run).read_description()[0].loss.antialiased
    if frames:
        return run_flight(run, frames, options["size"]), antialiased
    return [view_camera(run, options["view"], options["size"])], antialiased


def _cameras(scene: Gaussians, options: dict[str, Any], frames: int) -> list[Camera]:
    """The camera that the options specify, or one that frames the scene; for several frames, an orbit around the
    target."""
    from stipple.scene.paths import framing, framing_camera, orbit

    target, up = options["target"], options["up"]
    first = framing_camera(scene, options["size"], options["fov"], position=options["position"], target=target, up=up)
    return orbit(first, framing(scene)[0] if target is None else target, up, frames)


def _image(scene: Gaussians, camera: Camera, options: dict[str, Any]) -> Any:
    from stipple.memory import memory_for
    from stipple.render import render_view

    with memory_for(f"{scene.count:,} Gaussians at {camera.width} x {camera.height}; a smaller --size helps"):
        return render_view(
            scene,
            camera,
            options["background"],
            sh_degree=options["sh_degree"],
            antialiased=options["antialiased"],
            projection=options["projection"],
            device=options["device"],
        )


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def _draw(scene: Gaussians, camera: Camera, options: dict[str, Any]) -> tuple[np.ndarray]:
    return (_bytes(_image(scene, camera, options).color),)


def _draw_extras(scene: Gaussians, camera: Camera, options: dict[str, Any]) -> list[str]:
    """Depth and alpha of the first frame, if requested."""
    from PIL import Image

    files = [f for f in (options["depth_file"], options["alpha_file"]) if f]
    if not files:
        return []
    image = _image(scene, camera, options)
    if options["alpha_file"]:
        Image.fromarray(_bytes(image.alpha)).save(options["alpha_file"])
    if options["depth_file"]:
        covered = image.alpha > 0.5
        shade = np.zeros(image.depth.shape)
        if covered.any():
            near, far = image.depth[covered].min(), image.depth[covered].max()
            shade[covered] = 1 - 0.95 * (image.depth[covered] - near) / max(far - near, 1e-12)
        Image.fromarray((shade * 65535 + 0.5).astype(np.uint16)).save(options["depth_file"])
    return files


@contextmanager
def _writer(target: Path, video: bool, folder: bool, fps: float) -> Iterator[Any]:
    """A function that takes a frame's number and its pixels."""
    from PIL import Image

    if video:
        import imageio.v2 as imageio

        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.stem}.tmp{target.suffix}")
        more = {} if target.suffix.lower() == ".gif" else {"macro_block_size": 2}
        try:
            open_writer: Any = imageio.get_writer
            with open_writer(temporary, fps=fps, **more) as file:
                yield lambda i, pixels: file.append_data(pixels)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    elif folder:
        target.mkdir(parents=True, exist_ok=True)
        yield lambda i, pixels: Image.fromarray(pixels).save(target / f"{i:04d}.png")
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.stem}.tmp{target.suffix}")
        try:
            yield lambda i, pixels: Image.fromarray(pixels).save(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
