"""Whole runs through the command line: what a new user does, what goes wrong, and what survives being killed."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import types
from contextlib import nullcontext
from html.parser import HTMLParser
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from captures import truth, write_blender, write_colmap, write_nerfstudio, write_open3d
from stipple.cli import main
from stipple.formats import load_ply
from stipple.train.checkpoint import load_checkpoint

QUICK = ["--steps", "60", "--set", "density.start=10", "--set", "density.every=10", "--set", "schedule.sh_every=15"]


def stipple(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="stipple")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "stipple", *(str(a) for a in arguments)]


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("capture")
    write_colmap(truth(), root)
    return root


@pytest.fixture(scope="module")
def run(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    result = stipple("train", capture, "-o", out, "--steps", 400, "--set", "density.start=50", "--test-every", 5)
    assert result.exit_code == 0, result.output
    assert "8 training and 2 held-out views of about 48 x 36, 60 points" in result.output
    return out


class _Page(HTMLParser):
    """Counts tags and refuses anything that a page on its own cannot show."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                assert value is not None
                assert value.startswith(("data:", "#")), f"{tag} {name} {value[:60]}"


# --- what a run leaves ------------------------------------------------------------------------------------
def test_views_that_were_not_trained_on_get_better(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [r["test_psnr"] for r in rows if "test_psnr" in r]
    assert len(curve) == 5
    assert curve[-1] > curve[0] + 3
    assert curve[-1] > 22
    final = rows[-1]
    assert final["final"]
    assert final["train_psnr"] > 24
    losses = [r["loss"] for r in rows if "loss" in r]
    assert np.mean(losses[-5:]) < 0.4 * losses[0]
    assert rows[-2]["count"] > 60, "Gaussians were added"


def test_views_are_not_judged_right_after_a_reset_of_opacities(capture: Path, tmp_path: Path) -> None:
    curves = {}
    for every in (0, 100):
        more = ["--set", f"density.reset_every={every}", "--set", "density.start=5000"]
        result = stipple("train", capture, "-o", tmp_path / str(every), "--steps", 300, "--set", "density.stop=1.0",
                         "--set", "output.evaluate_every=100", *more)  # fmt: skip
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in (tmp_path / str(every) / "metrics.jsonl").read_text().splitlines()]
        curves[every] = [r["test_psnr"] for r in rows if "test_psnr" in r]
    assert curves[100][0] == curves[0][0], "the first reset comes after the first evaluation"
    assert curves[100][1] != curves[0][1], "but it comes"


def test_the_scene_is_in_the_captures_own_units(run: Path) -> None:
    scene = load_ply(run / "scene.ply")
    assert scene.sh_degree >= 0
    middle = np.median(scene.means, axis=0)
    assert np.linalg.norm(middle) < 0.4, "the ball lies at the origin"
    assert 0.5 < np.linalg.norm(scene.means - middle, axis=1).mean() < 1.2


def test_eval_agrees_with_the_run(run: Path, tmp_path: Path) -> None:
    before = json.loads((run / "eval.json").read_text())
    result = stipple("eval", run, "--save-images", "--train")
    assert result.exit_code == 0, result.output
    after = json.loads((run / "eval.json").read_text())
    assert set(after["mean"]) == {"test", "train"}
    for split in ("test", "train"):
        assert after["mean"][split]["psnr"] == pytest.approx(before["mean"][split]["psnr"], abs=0.02)
        assert after["mean"][split]["ssim"] == pytest.approx(before["mean"][split]["ssim"], abs=0.002)
    assert len(after["views"]) == 10
    render = np.asarray(Image.open(run / "eval" / "000.render.png")).astype(float)
    photo = np.asarray(Image.open(run / "eval" / "000.photo.png")).astype(float)
    assert -10 * np.log10(((render - photo) ** 2).mean() / 255**2) == pytest.approx(after["views"][0]["psnr"], abs=0.2)


def test_report_is_one_page_that_needs_nothing_else(run: Path) -> None:
    text = (run / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.tags.count("img") == 3 * (2 + 3), "photo, render and error of held-out and some training views"
    assert "svg" in page.tags
    assert "http://" not in re.sub(r'xmlns[:\w]*="[^"]*"|<!DOCTYPE[^>]*>|"http://purl[^"]*"', "", text)
    for wanted in ("Held-out views", "Training views", "[schedule]", "steps = 400", "PSNR"):
        assert wanted in text
    scores = json.loads((run / "eval.json").read_text())["mean"]["test"]
    assert f"{scores['psnr']:.2f}" in text


def test_a_run_is_rendered_from_its_photos_cameras(run: Path, tmp_path: Path) -> None:
    assert stipple("render", run, "-o", tmp_path / "p.png", "--view", "003").exit_code == 0
    picture = np.asarray(Image.open(tmp_path / "p.png")).astype(int)
    assert picture.shape == (36, 48, 3)
    others = [np.abs(picture - photo).mean() for photo in truth().photos]
    assert int(np.argmin(others)) == 3, "it shows what the photo shows"
    assert stipple("render", run, "-o", f"{tmp_path}/film/", "--size", "64x48").exit_code == 0
    frames = [np.asarray(Image.open(f)).astype(int) for f in sorted((tmp_path / "film").iterdir())]
    assert len(frames) == 120
    assert frames[0].shape == (48, 64, 3)
    steps = [np.abs(a - b).mean() for a, b in pairwise(frames)]
    assert 0 < max(steps) < 12, "it moves, and never jumps"
    result = stipple("render", run, "-o", tmp_path / "q.png", "--view", "nowhere")
    assert result.exit_code == 1
    assert "has no such view; it has 000.png" in result.output
    assert stipple("render", run / "scene.ply", "-o", tmp_path / "q.png", "--view", "003").exit_code == 2


def test_cameras_are_written(run: Path) -> None:
    rows = json.loads((run / "cameras.json").read_text())
    assert sorted(r["name"] for r in rows) == [f"{i:03d}.png" for i in range(10)]
    for row in rows:
        wanted = truth().cameras[int(row["name"][:3])]
        np.testing.assert_allclose(row["viewmat"], wanted.viewmat, atol=1e-5)


def test_the_same_seed_gives_the_same_bytes(capture: Path, tmp_path: Path) -> None:
    scenes = []
    for name, seed, threads in (("a", 0, 1), ("b", 0, 2), ("c", 1, 2)):
        result = stipple("train", capture, "-o", tmp_path / name, *QUICK, "--seed", seed, "--threads", threads)
        assert result.exit_code == 0, result.output
        scenes.append((tmp_path / name / "scene.ply").read_bytes())
    assert scenes[0] == scenes[1]
    assert scenes[0] != scenes[2]


@pytest.mark.parametrize(
    ("write", "more"),
    [
        (write_blender, ["--strategy", "mcmc", "--set", "start.count=500"]),
        (write_blender, ["--background", "random", "--set", "start.count=500"]),
        (write_open3d, ["--depth-weight", "0.5"]),
        (write_nerfstudio, ["--exposure", "--refine-poses", "--antialiased"]),
        (write_nerfstudio, ["--image-memory", "1e-5", "--downscale", "1.5"]),
    ],
)
def test_every_kind_of_capture_trains(write: object, more: list[str], tmp_path: Path) -> None:
    write(truth(), tmp_path / "capture")  # type: ignore[operator]
    steps = ["--steps", "150", "--set", "density.start=20", "--set", "schedule.sh_every=50"]
    result = stipple("train", tmp_path / "capture", "-o", tmp_path / "out", *steps, *more)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    curve = [r["test_psnr"] for r in rows if "test_psnr" in r]
    assert curve[-1] > curve[0] + 1, curve
    assert stipple("eval", tmp_path / "out").exit_code == 0


# --- going on ---------------------------------------------------------------------------------------------
def test_a_run_killed_anywhere_goes_on_as_if_it_had_not_been(capture: Path, tmp_path: Path) -> None:
    """SIGKILL after random times, again and again; the final scene and checkpoint are those of an undisturbed run."""
    steps = [*QUICK, "--steps", "300", "--checkpoint-every", "7", "--set", "density.strategy=mcmc"]
    assert subprocess.run(command("train", capture, "-o", tmp_path / "whole", *steps), check=False).returncode == 0
    rng = np.random.default_rng(0)
    out, kills = tmp_path / "killed", 0
    arguments: list[object] = ["train", capture, "-o", out, *steps]
    while kills < 6:
        before = _step_of(out)
        process = subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while _step_of(out) == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.25))
        process.kill()
        finished = process.wait() == 0
        kills += 1
        arguments = ["train", "-o", out, "--resume"]
        if finished:
            break
    assert kills > 1
    assert subprocess.run(command(*arguments), check=False).returncode == 0
    assert (out / "scene.ply").read_bytes() == (tmp_path / "whole" / "scene.ply").read_bytes()
    ours, theirs = (load_checkpoint(p / "checkpoint.safetensors").arrays for p in (out, tmp_path / "whole"))
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    numbers = [r["step"] for r in logged if "loss" in r]
    assert numbers == list(range(10, 301, 10)), "every step is logged once"
    whole = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    for row in (*logged, *whole):
        row.pop("seconds", None)
    assert logged == whole, "and as if nothing had happened"


def _step_of(out: Path) -> int:
    file = out / "checkpoint.safetensors"
    return load_checkpoint(file).step if file.exists() else -1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_a_checkpoint_and_says_how_to_go_on(number: int, capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = command("train", capture, "-o", out, "--steps", 100_000)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").stat().st_size:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    found = re.search(r"Stopped after step (\d+); go on with: stipple train -o (\S+) --resume", text)
    assert found is not None, text
    assert load_checkpoint(out / "checkpoint.safetensors").step == int(found[1])
    assert not list(out.glob(".*"))


def test_what_resume_refuses(capture: Path, run: Path, tmp_path: Path) -> None:
    result = stipple("train", capture, "-o", run, *QUICK)
    assert result.exit_code == 1
    assert "already holds a run" in result.output
    assert "--overwrite" in result.output
    result = stipple("train", "-o", run, "--resume", "--steps", 5)
    assert result.exit_code == 2
    assert "give no other options" in result.output
    result = stipple("train", "-o", tmp_path, "--resume")
    assert result.exit_code == 1
    assert "holds no run" in result.output


def test_resume_on_other_photos_or_a_broken_checkpoint(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert stipple("train", capture, "-o", out, *QUICK).exit_code == 0
    write_colmap(truth(7), tmp_path / "other")
    result = stipple("train", tmp_path / "other", "-o", out, "--resume")
    assert result.exit_code == 1
    assert "other: 007.png is gone: these are other photos" in result.output
    file = out / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    result = stipple("train", "-o", out, "--resume")
    assert result.exit_code == 1
    assert "broken checkpoint" in result.output
    file.unlink()
    assert "no checkpoint to resume from" in stipple("train", "-o", out, "--resume").output


def test_a_finished_run_can_be_finished_again(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert stipple("train", capture, "-o", out, *QUICK).exit_code == 0
    before = (out / "scene.ply").read_bytes()
    (out / "report.html").unlink()
    assert stipple("train", "-o", out, "--resume").exit_code == 0
    assert (out / "scene.ply").read_bytes() == before
    assert (out / "report.html").exists()


# --- disks ------------------------------------------------------------------------------------------------
def test_a_folder_that_cannot_be_written_is_said_before_training(capture: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = stipple("train", capture, "-o", tmp_path / "file" / "out", *QUICK)
    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_disk_too_small_is_said_before_training(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    result = stipple("train", capture, "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 1
    assert "0 MB are free" in result.output


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(capture: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: checkpoints outgrow it while Gaussians are added."""
    out = tmp_path / "out"
    arguments = command(
        "train", capture, "-o", out, *QUICK, "--steps", 400, "--checkpoint-every", 5, "--set", "density.strategy=mcmc",
        "--set", "density.growth=0.3",
    )  # fmt: skip

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    environment = {**os.environ, "NUMBA_DISABLE_PERFORMANCE_WARNINGS": "1"}
    result = subprocess.run(
        arguments, preexec_fn=limit, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 1
    assert "could not be written" in result.stderr
    assert "training goes on and tries again" in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.stderr
    kept = load_checkpoint(out / "checkpoint.safetensors")
    assert 5 <= kept.step < 400
    assert not list(out.glob(".*.tmp"))
    again = subprocess.run(command("train", "-o", out, "--resume"), check=False, capture_output=True)
    assert again.returncode == 0
    assert load_checkpoint(out / "checkpoint.safetensors").step == 400


# --- bad input --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("empty", "not a capture"),
        ("photo gone", r"003\.png: the image is missing"),
        ("photo cut", r"003\.png: broken or truncated"),
        ("photo small", r"003\.png: .* do not have the shape"),
        ("model cut", r"images\.bin: cut short"),
    ],
)
def test_a_bad_capture_ends_in_one_sentence(spoil: str, message: str, tmp_path: Path) -> None:
    root = tmp_path / "capture"
    root.mkdir()
    if spoil != "empty":
        write_colmap(truth(), root)
        photo, model = root / "images" / "003.png", root / "sparse" / "0" / "images.bin"
        if spoil == "photo gone":
            photo.unlink()
        elif spoil == "photo cut":
            photo.write_bytes(photo.read_bytes()[:-300])
        elif spoil == "photo small":
            Image.new("RGB", (20, 36)).save(photo)
        else:
            model.write_bytes(model.read_bytes()[:-9])
    for arguments in (["train", root, "-o", tmp_path / "out"], ["inspect", root, "-o", tmp_path / "x.png"]):
        result = stipple(*arguments)
        if spoil == "photo cut" and arguments[0] == "inspect":
            continue  # inspect reads headers only
        assert result.exit_code == 1
        last = result.output.strip().splitlines()[-1]
        assert re.search(message, result.output.replace("\n", " ")), result.output
        assert "Traceback" not in last
    assert not (tmp_path / "out" / "scene.ply").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "density.evry=3"], "expected section.key=value with a known key"),
        (["--set", "density.every=soon"], "density.every"),
        (["--background", "1,2"], "loss.background"),
        (["--intrinsics", "a,b"], "expected numbers separated by commas"),
        (["--test-every", "1"], "holds out all 10 views"),
        (["--masks", "nowhere"], "folder of masks does not exist"),
        (["--images", "nowhere"], "folder of images does not exist"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_bad_options_end_in_one_sentence(more: list[str], message: str, capture: Path, tmp_path: Path) -> None:
    result = stipple("train", capture, "-o", tmp_path / "out", *more)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert not (tmp_path / "out" / "scene.ply").exists()


@pytest.mark.skipif(find_spec("lpips") is not None, reason="the extra lpips is installed")
def test_lpips_without_the_extra(run: Path) -> None:
    result = stipple("eval", run, "--lpips", "vgg")
    assert result.exit_code == 1
    assert "pip install 'stipple[lpips]'" in result.output


class _Lpips:
    """Stands in for the network: the mean absolute difference of what it is given, whose form it checks."""

    def __init__(self, net: str, verbose: bool) -> None:
        if net == "alex":
            raise OSError("no network")
        assert net == "vgg"
        assert not verbose

    def __call__(self, image: np.ndarray, photo: np.ndarray) -> float:
        for array in (image, photo):
            assert array.shape == (1, 3, 36, 48)
            assert array.dtype == np.float32
            assert array.min() >= -1
            assert array.max() <= 1
        assert photo.min() < -0.2, "from -1 to 1, as LPIPS takes colours"
        return float(np.abs(image - photo).mean())


def test_lpips_is_given_what_it_expects(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = types.SimpleNamespace(
        from_numpy=lambda array: array, no_grad=nullcontext, hub=types.SimpleNamespace(get_dir=lambda: "HUB")
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=_Lpips))
    kept = (run / "eval.json").read_bytes()
    try:
        result = stipple("eval", run, "--lpips", "vgg", "--save-images")
        assert result.exit_code == 0, result.output
        views = json.loads((run / "eval.json").read_text())["views"]
    finally:
        (run / "eval.json").write_bytes(kept)
    for view in views:
        stem = view["name"].rsplit(".", 1)[0]
        photo, image = (
            np.asarray(Image.open(run / "eval" / f"{stem}.{kind}.png"), float) / 255 for kind in ("photo", "render")
        )
        assert view["lpips"] == pytest.approx(2 * np.abs(image - photo).mean(), abs=5e-3)
    assert "LPIPS" in result.output
    refused = stipple("eval", run, "--lpips", "alex")
    assert refused.exit_code == 1
    assert "cannot be had: no network; where there is no network, put the file" in refused.output
    assert "HUB/checkpoints" in refused.output


def test_show_config_can_be_used_as_a_file(tmp_path: Path, capture: Path) -> None:
    shown = stipple("train", "--show-config", "--preset", "fast", "--steps", 20).output
    assert "steps = 20" in shown
    assert "# optimiser updates" in shown
    (tmp_path / "c.toml").write_text(shown)
    result = stipple("train", capture, "-o", tmp_path / "out", "--config", tmp_path / "c.toml")
    assert result.exit_code == 0, result.output
    assert 'preset = "fast"' in (tmp_path / "out" / "config.toml").read_text()


# --- inspect ----------------------------------------------------------------------------------------------
def test_inspect(capture: Path, tmp_path: Path) -> None:
    Image.new("RGB", (48, 36)).save(capture / "images" / "stray.png")
    try:
        result = stipple("inspect", capture, "-o", tmp_path / "c.png", "--test-every", 5)
    finally:
        (capture / "images" / "stray.png").unlink()
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    for wanted in (
        "COLMAP",
        "10: 8 to train on, 2 held out",
        "60, seen from known views",
        "48 x 36",
        "45.00",
        "stray.png",
    ):
        assert wanted in text, wanted
    assert "there are only 60 points" in text
    picture = np.asarray(Image.open(tmp_path / "c.png").convert("RGB")).astype(int)
    assert min(picture.shape[:2]) > 500
    blue = (np.abs(picture - [0x33, 0x66, 0xAA]).max(axis=2) < 40).sum()
    red = (np.abs(picture - [0xCC, 0x44, 0x33]).max(axis=2) < 40).sum()
    assert blue > 2 * red > 50, "training and held-out cameras are drawn"


def test_inspect_warns_of_photos_far_apart(tmp_path: Path) -> None:
    street = Path(__file__).parents[2] / "examples" / "data" / "lund"
    warning = "the photos lie far apart: 0.35 units from one to the next, the scene 0.37 away"
    assert warning in " ".join(stipple("inspect", street, "-o", tmp_path / "c.png").output.split())


def test_inspect_warns_of_a_camera_far_out_and_of_a_small_baseline(tmp_path: Path) -> None:
    from dataclasses import replace

    made = truth()
    far = replace(made.cameras[4], viewmat=made.cameras[4].viewmat + np.outer([0, 0, 1, 0], [0, 0, 0, 200.0]))
    write_colmap(replace(made, cameras=(*made.cameras[:4], far, *made.cameras[5:])), tmp_path / "a")
    assert "times farther out than most cameras" in " ".join(
        stipple("inspect", tmp_path / "a", "-o", tmp_path / "a.png").output.split()
    )
    near = tuple(
        replace(made.cameras[0], viewmat=made.cameras[0].viewmat + np.outer([1, 0, 0, 0], [0, 0, 0, 0.001 * i]))
        for i in range(10)
    )
    write_colmap(replace(made, cameras=near), tmp_path / "b")
    told = " ".join(stipple("inspect", tmp_path / "b", "-o", tmp_path / "b.png").output.split())
    assert "depth is hardly determined" in told
    assert "far apart" not in told
