"""Configuration, schedules, starts, normalisation, the loader of photos, and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stipple
from captures import truth, write_blender, write_colmap, write_nerfstudio, write_open3d
from stipple import Camera, Gaussians
from stipple.errors import FileFormatError, InputError
from stipple.formats.captures import Frame, open_capture
from stipple.scene import Normalization
from stipple.train import Problem, initialize, make_config, schedule
from stipple.train.config import PRESETS, Config, fields
from stipple.train.config_toml import parse_setting, read_toml, to_toml
from stipple.train.evaluation import Evaluator, corrected, mean_scores, psnr, ssim
from stipple.train.loader import Loader


# --- configuration ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_file(name: str, tmp_path: Path) -> None:
    config = make_config(name)
    (tmp_path / "c.toml").write_text(to_toml(config, comments=False))
    assert make_config(None, read_toml(tmp_path / "c.toml")) == config
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert make_config(None, read_toml(tmp_path / "c.toml")) == config


def test_layers_lie_over_each_other() -> None:
    config = make_config("fast", {"schedule": {"steps": 5}}, parse_setting("density.every=7"), parse_setting("seed=3"))
    assert (config.preset, config.schedule.steps, config.density.every, config.seed) == ("fast", 5, 7, 3)
    assert parse_setting("loss.background=random") == {"loss": {"background": "random"}}
    assert parse_setting("loss.background=[0,1,0.5]") == {"loss": {"background": [0, 1, 0.5]}}


def test_every_value_says_what_it_is() -> None:
    assert {name for name, field in fields().items() if not field.description} == set()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"schedule": {"steps": 0}}, "schedule.steps: .*greater than or equal to 1, got 0"),
        ({"schedule": {"steps": "many"}}, "schedule.steps: .*integer.*'many'"),
        ({"density": {"strategy": "magic"}}, "density.strategy"),
        ({"loss": {"colour": 1}}, "there is no value loss.colour; known are loss.ssim"),
        ({"looss": {"ssim": 1}}, "there is no value looss"),
        ({"rates": {"means": float("nan")}}, "rates.means"),
        ({"schedule": {"coarse": [[2, 0.5], [4, 0.2]]}}, "ascending"),
        ({"loss": {"background": [0, 1]}}, "loss.background"),
        ({"preset": "turbo"}, "preset: expected one of"),
    ],
)
def test_wrong_values_are_named(layer: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_config(None, layer)


def test_wrong_settings_and_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"density\.every"):
        parse_setting("densitty.every=7")
    with pytest.raises(InputError, match="expected section"):
        parse_setting("density.every")
    (tmp_path / "c.toml").write_text("[schedule\nsteps = 3")
    with pytest.raises(FileFormatError, match="not valid TOML"):
        read_toml(tmp_path / "c.toml")


# --- schedule ---------------------------------------------------------------------------------------------
def test_every_view_once_a_round() -> None:
    config = make_config(None)
    rounds = [[schedule.view_at(config, r * 7 + i, 7) for i in range(1, 8)] for r in range(5)]
    assert all(sorted(r) == list(range(7)) for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1
    other = make_config(None, {"seed": 1})
    assert [schedule.view_at(other, i, 7) for i in range(1, 8)] != rounds[0]


def test_coarse_to_fine_bands_and_rates() -> None:
    config = make_config(None, {"schedule": {"steps": 100, "coarse": [[4, 0.1], [2, 0.5]], "sh_every": 30}})
    size = (640, 480)
    assert [schedule.factor_at(config, s, size) for s in (1, 10, 11, 50, 51, 100)] == [4, 4, 2, 2, 1, 1]
    assert schedule.factor_at(config, 1, (40, 70)) == 1, "small photos are not made smaller"
    assert [schedule.degree_at(config, s) for s in (1, 30, 31, 61, 91)] == [0, 0, 1, 2, 3]
    assert schedule.rates_at(config, 1)["means"] == pytest.approx(config.rates.means)
    last = schedule.rates_at(config, 101)
    assert last["means"] == pytest.approx(config.rates.means * config.rates.means_final, rel=1e-5)
    assert last["sh"].shape == (16, 3)
    assert last["sh"][0, 0] == pytest.approx(config.rates.sh0)
    assert schedule.evaluation_steps(config) == {20, 40, 60, 80, 100}


def test_backgrounds() -> None:
    assert schedule.background_at(make_config(None), 1, False).tolist() == [0, 0, 0]
    assert schedule.background_at(make_config(None), 1, True).tolist() == [1, 1, 1]
    random = make_config(None, {"loss": {"background": "random"}})
    assert not np.array_equal(schedule.background_at(random, 1, True), schedule.background_at(random, 2, True))


# --- normalisation ----------------------------------------------------------------------------------------
def test_normalising_changes_no_pixel_and_is_undone() -> None:
    made = truth()
    shifted = [Camera(c.width, c.height, c.fx, c.fy, c.cx, c.cy) for c in made.cameras]
    offset, size = np.array([100.0, -40, 7]), 13.0
    shifted = [
        c.look_at(offset + size * m.position, offset + size * (m.position + m.viewmat[2, :3]), -m.viewmat[1, :3])
        for c, m in zip(shifted, made.cameras, strict=True)
    ]
    normal = Normalization.of(shifted, offset + size * made.points)
    scene = Gaussians.from_linear(normal.points(offset + size * made.points), 0.05, 0.9, made.colors / 255)
    cameras = [normal.camera(c) for c in shifted]
    assert max(np.linalg.norm(c.position) for c in cameras) == pytest.approx(1 / 1.1)
    np.testing.assert_allclose(np.mean([c.position for c in cameras], axis=0), 0, atol=1e-9)
    whole = normal.undo(scene)
    for original, camera in zip(shifted, cameras, strict=True):
        np.testing.assert_allclose(normal.undo_camera(camera).viewmat, original.viewmat, atol=1e-9)
    a = stipple.render_view(scene, cameras[2], device="cpu").color
    b = stipple.render_view(whole, shifted[2], device="cpu").color
    assert np.abs(a - b).max() < 2e-3
    assert a.max() > 0.3


def test_a_short_walk_before_a_large_scene() -> None:
    cameras = [Camera(8, 8, 8, 8, 4, 4).look_at([0.01 * i, 0, 0], [0, 0, 50]) for i in range(3)]
    points = np.random.default_rng(0).normal(size=(100, 3)) + np.array([0, 0, 40])
    assert 1 / Normalization.of(cameras, points).scale == pytest.approx(10, rel=0.1)
    alone = Normalization.of(cameras[:1], np.zeros((0, 3)))
    assert alone.scale == 1


# --- starts -----------------------------------------------------------------------------------------------
def test_points_become_gaussians_as_large_as_their_neighbours_are_far() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    start = make_config(None).start
    scene = initialize.from_points(np.repeat(grid, 2, axis=0), np.full((128, 3), 0.25), start)
    assert scene.count == 64, "points that coincide count once"
    np.testing.assert_allclose(scene.scales, 1, rtol=1e-5)
    np.testing.assert_allclose(scene.opacities, 0.1, rtol=1e-5)
    single = initialize.from_points(np.zeros((1, 3)), np.zeros((1, 3)), start)
    assert np.isfinite(single.log_scales).all()
    with pytest.raises(InputError, match="no points"):
        initialize.from_points(np.zeros((0, 3)), np.zeros((0, 3)), start)


def test_depth_becomes_points_where_the_surface_is() -> None:
    made = truth()
    frames = [
        Frame(c, p, None, d.astype(np.float32)) for c, p, d in zip(made.cameras, made.photos, made.depths, strict=True)
    ]
    points, colors = initialize.from_depth(frames, 2000, 0)
    assert 500 < len(points) <= 2010
    nearest = np.sqrt(((points[:, None] - made.points[None]) ** 2).sum(-1)).min(axis=1)
    assert np.quantile(nearest, 0.9) < 0.35
    assert colors.max() <= 1
    with pytest.raises(InputError, match="no depth map"):
        initialize.from_depth([Frame(made.cameras[0], made.photos[0])], 10, 0)


def test_random_start_fills_what_the_cameras_look_at() -> None:
    made = truth()
    middle, radius = initialize.common_volume(made.cameras)
    np.testing.assert_allclose(middle, 0, atol=0.05)
    assert 1 < radius < 2
    points, _ = initialize.at_random(made.cameras, 500, 0)
    assert np.abs(points).max() <= radius + 0.05
    side = [Camera(48, 36, 45, 45, 24, 18).look_at([x, 0, 0], [x, 0, 5]) for x in (-1, -0.5, 0.5, 1)]
    spread, _ = initialize.at_random(side, 500, 0)
    depth = spread @ side[0].viewmat[2, :3]
    assert depth.min() > 0.2
    assert depth.max() < 4.1


@pytest.mark.parametrize(
    ("write", "source", "low", "high"),
    [(write_colmap, "points", 60, 60), (write_open3d, "depth", 300, 1000), (write_blender, "random", 1000, 1000)],
)
def test_start_takes_what_there_is(write: Any, source: str, low: int, high: int, tmp_path: Path) -> None:
    write(truth(), tmp_path)
    problem = problem_of(tmp_path, start={"count": 1000})
    assert low <= problem.start().count <= high, source
    assert problem_of(tmp_path, density={"max_count": 20}).start().count == 20
    if source == "random":
        with pytest.raises(InputError, match=r"start\.source is points, but the capture has none"):
            problem_of(tmp_path, start={"source": "points"}).start()


def problem_of(root: Path, **sections: Any) -> Problem:
    problem = Problem.open(str(root), make_config(None, sections))
    problem.load(lambda: None)
    problem.close()
    return problem


# --- loader -----------------------------------------------------------------------------------------------
def test_streamed_photos_are_those_that_are_kept(tmp_path: Path) -> None:
    write_nerfstudio(truth(), tmp_path)
    capture = open_capture(tmp_path)
    one = 48 * 36 * (3 + 1 + 4)
    counted = []
    frames = []
    for memory in (1e9, 3.5 * one, 0):
        loader = Loader(capture, capture.views, 1.0, Normalization(), memory)
        loader.load(lambda: counted.append(1))
        loader.prefetch(range(10))
        frames.append([loader.frame(i, factor) for factor in (1, 2) for i in range(10)])
        assert loader.streamed == {1e9: 0, 3.5 * one: 7, 0: 10}[memory]
        loader.close()
    assert len(counted) == 30
    for other in frames[1:]:
        for a, b in zip(frames[0], other, strict=True):
            np.testing.assert_array_equal(a.pixels, b.pixels)
            np.testing.assert_array_equal(a.depth, b.depth)
            np.testing.assert_array_equal(a.mask, b.mask)


def test_tracks_make_sparse_depth(tmp_path: Path) -> None:
    write_colmap(truth(), tmp_path)
    problem = problem_of(tmp_path, loss={"depth": 0.1})
    depth = problem.train.frame(0).depth
    assert depth is not None
    assert 10 <= np.count_nonzero(depth) <= 20
    assert problem_of(tmp_path).train.frame(0).depth is None


def test_a_broken_photo_ends_the_load(tmp_path: Path) -> None:
    write_colmap(truth(), tmp_path)
    file = tmp_path / "images" / "006.png"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match=r"006\.png: broken"):
        problem_of(tmp_path)


# --- figures ----------------------------------------------------------------------------------------------
def test_psnr_and_ssim() -> None:
    rng = np.random.default_rng(0)
    photo = rng.uniform(size=(30, 40, 3)).astype(np.float32)
    assert psnr(photo, photo) == 100
    assert psnr(np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.1)) == pytest.approx(20)
    half = np.zeros((4, 4), bool)
    half[:2] = True
    image = np.zeros((4, 4, 3))
    image[:2] = 0.01
    assert psnr(image, np.zeros((4, 4, 3)), half) == pytest.approx(40)
    assert ssim(photo, photo, "cpu") == pytest.approx(1)
    noisy = (photo + rng.normal(size=photo.shape) * 0.1).astype(np.float32)
    assert ssim(noisy, photo, "cpu") == pytest.approx(direct_ssim(noisy, photo), abs=1e-5)


def direct_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """From the definition, by SciPy's correlation with zeros outside."""
    from scipy.ndimage import correlate1d

    x = np.arange(11) - 5
    window = np.exp(-(x**2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(v: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(v, window, 0, mode="constant"), window, 1, mode="constant")

    a, b = a.astype(float), b.astype(float)
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    top, bottom = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4), (ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)
    return float((top / bottom).mean())


def test_colour_correction_undoes_an_affine_change() -> None:
    photo = np.random.default_rng(0).uniform(0.2, 0.8, (10, 12, 3))
    image = photo @ np.array([[0.8, 0.1, 0], [0, 0.9, 0], [0.1, 0, 0.7]]) + 0.05
    assert psnr(image, photo) < 30
    assert psnr(corrected(image, photo), photo) > 60


def test_evaluating_with_alpha_and_mask() -> None:
    made = truth()
    scene = Gaussians.from_linear(made.points, 0.12, 0.95, made.colors / 255)
    evaluator = Evaluator(make_config(None, {"extras": {"exposure": True}}), "cpu")
    same = evaluator.compare(scene, made.cameras[0], Frame(made.cameras[0], made.photos[0]), "a", "test")
    assert same.score.psnr > 50
    assert same.score.ssim > 0.999
    assert same.score.psnr_corrected is not None
    spoilt = made.photos[0].copy()
    spoilt[:10] = 255
    mask = np.ones((36, 48), bool)
    mask[:10] = False
    bad = evaluator.compare(scene, made.cameras[0], Frame(made.cameras[0], spoilt), "a", "test").score.psnr
    good = evaluator.compare(scene, made.cameras[0], Frame(made.cameras[0], spoilt, mask), "a", "test").score.psnr
    assert bad < 10
    assert good > 50
    assert mean_scores([same.score]) == {k: v for k, v in same.score.as_dict().items() if k not in ("name", "split")}


def test_config_is_immutable() -> None:
    config = Config()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_a_strategy_is_one_file() -> None:
    """What training does for it, it declares; the configuration finds it by its name."""
    from stipple.train.strategies import STRATEGIES, Traits
    from stipple.train.strategies.base import strategy
    from stipple.train.strategies.fixed import Fixed

    @strategy("mine")
    class Mine(Fixed):
        traits = Traits(regularisers=0.25, stop=0.125)

    try:
        config = make_config(None, {"density": {"strategy": "mine"}, "schedule": {"steps": 800}})
        assert (config.regularisers, config.last_change) == ((0.25, 0.25), 100)
    finally:
        del STRATEGIES["mine"]
    with pytest.raises(InputError, match=r"density\.strategy: expected one of default, .*mcmc.*got 'mine'"):
        make_config(None, {"density": {"strategy": "mine"}})
