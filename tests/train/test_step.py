"""A step's graph: the CPU against the reference, with every option; what is fitted per view; sizes and degrees."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from captures import truth
from scenes import relative_error
from stipple import Gaussians
from stipple.errors import StippleError
from stipple.formats.captures import Frame
from stipple.ir.dtype import DType
from stipple.runtime import Session
from stipple.train import make_config
from stipple.train.evaluation import photo_of, psnr, ssim
from stipple.train.state import PARAMS, TrainingState
from stipple.train.step_graph import rotation_basis
from stipple.train.stepper import Stepper
from stipple.train.strategies import make_strategy
from stipple.train.trained_views import posed

BASE = {"schedule": {"steps": 100, "sh_every": 2, "sh_degree": 2, "coarse": []}}


def start(count: int = 40) -> Gaussians:
    rng = np.random.default_rng(5)
    made = truth()
    points = made.points[:count] + rng.normal(size=(count, 3)) * 0.05
    return Gaussians.from_linear(
        points, rng.uniform(0.1, 0.2, (count, 3)), 0.6, made.colors[:count] / 255, rng.normal(size=(count, 4))
    )


def frame(index: int = 1, alpha: bool = False, mask: bool = False, depth: bool = False) -> Frame:
    made = truth()
    pixels = np.dstack([made.photos[index], made.alphas[index]]) if alpha else made.photos[index]
    return Frame(
        made.cameras[index],
        pixels,
        made.alphas[index] > 40 if mask else None,
        made.depths[index].astype(np.float32) if depth else None,
    )


def run(device: str, layer: dict[str, Any], steps: int, **kind: bool) -> tuple[dict[str, np.ndarray], list[float]]:
    config = make_config(None, BASE, layer)
    stepper = Stepper(Session(device), config, 3)
    stepper.start(start())
    losses = [stepper.run(step, step % 3, frame(step % 3, **kind))["loss"] for step in range(1, steps + 1)]
    return stepper.arrays(), losses


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        ({}, {}),
        ({"loss": {"background": [0.2, 0.5, 0.9]}}, {"alpha": True}),
        ({"loss": {"background": "random", "antialiased": True}}, {"alpha": True, "mask": True}),
        ({"loss": {"depth": 0.5, "opacity": 0.1, "scale": 0.1}}, {"depth": True}),
        ({"extras": {"exposure": True, "poses": True}, "rates": {"poses": 1e-3}}, {}),
        ({"density": {"strategy": "mcmc"}}, {}),
        ({"density": {"absolute": True}, "rates": {"visible_only": True}}, {}),
    ],
)
def test_steps_on_the_cpu_are_the_references(layer: dict[str, Any], kind: dict[str, bool]) -> None:
    """Four steps, with a new SH band in between. Adam divides by the gradient's size, so where a gradient
    is nearly zero its sign, and with it a whole step, is rounding: few elements may differ."""
    wanted, wanted_losses = run("reference", layer, 4, **kind)
    given, given_losses = run("cpu", layer, 4, **kind)
    np.testing.assert_allclose(given_losses, wanted_losses, rtol=2e-4)
    assert given["sh"].shape == (40, 4, 3)
    for name in wanted:
        assert given[name].shape == wanted[name].shape
        if not np.any(wanted[name]):
            assert not np.any(given[name]), name
            continue
        apart = np.abs(given[name] - wanted[name]) > 1e-3 * np.abs(wanted[name]).max()
        assert apart.mean() < 0.02, (name, apart.mean())
        if name.startswith("m_"):
            assert relative_error(given[name], wanted[name]) < 5e-3, name


def test_every_parameter_moves() -> None:
    given, _ = run("cpu", {"extras": {"exposure": True, "poses": True}}, 3)
    first = TrainingState.start(start(), {})
    for name in PARAMS:
        assert np.abs(given[name][..., :1] - first[name][..., :1]).max() > 0, name
    assert (given["exposure"] != 0).any(axis=1).all()
    assert (given["poses"] != 0).any(axis=1).all()
    assert given["visible_steps"].max() == 3
    assert given["grad2d"].max() > 0


def test_loss_is_what_it_says() -> None:
    config = make_config(None, BASE, {"loss": {"background": [0.3, 0.3, 0.3]}})
    stepper = Stepper(Session("cpu"), config, 3)
    stepper.start(start())
    made = frame(1, alpha=True)
    out = stepper.run(1, 1, made)
    from stipple import render_view

    background = np.array([0.3, 0.3, 0.3], np.float32)
    image = render_view(start(), made.camera, background, device="cpu").color
    photo = photo_of(made, background)
    assert out["l1"] == pytest.approx(np.abs(image - photo).mean(), rel=1e-4)
    assert out["ssim"] == pytest.approx(ssim(image, photo, "cpu"), rel=1e-4)
    assert -10 * np.log10(out["mse"]) == pytest.approx(psnr(image, photo), rel=1e-4)
    assert out["loss"] == pytest.approx(0.8 * out["l1"] + 0.2 * (1 - out["ssim"]), rel=1e-5)


def test_what_a_mask_hides_changes_nothing() -> None:
    results = []
    for noise in (0, 255):
        made = frame(1, mask=True)
        assert made.mask is not None
        pixels = np.where(made.mask[:, :, None], made.pixels, noise).astype(np.uint8)
        stepper = Stepper(Session("cpu"), make_config(None, BASE), 3)
        stepper.start(start())
        stepper.run(1, 1, replace(made, pixels=pixels))
        results.append(stepper.arrays())
    for name, array in results[0].items():
        np.testing.assert_array_equal(results[1][name], array, err_msg=name)


def test_pose_correction_in_the_graph_is_that_of_the_cameras() -> None:
    """A capture with a wrong pose: rendering with the fitted correction is what the graph rendered."""
    change = np.array([0.02, -0.03, 0.01, 0.05, -0.02, 0.04], np.float32)
    config = make_config(None, BASE, {"extras": {"poses": True}})
    stepper = Stepper(Session("cpu"), config, 3)
    stepper.start(start())
    stepper.set_arrays({"poses": np.stack([change] * 3)})
    corrected = stepper.run(1, 1, frame(1))
    plain = Stepper(Session("cpu"), make_config(None, BASE), 3)
    plain.start(start())
    moved = plain.run(1, 1, replace(frame(1), camera=posed(frame(1).camera, change)))
    assert corrected["loss"] == pytest.approx(moved["loss"], rel=1e-4)
    assert abs(moved["loss"] - run("cpu", {}, 1)[1][0]) > 1e-3


def test_rotation_basis() -> None:
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(0)
    for quat in rng.normal(size=(10, 4)):
        made = (rotation_basis() @ np.outer(quat, quat).ravel()).reshape(3, 3) / (quat @ quat)
        np.testing.assert_allclose(made, Rotation.from_quat(quat[[1, 2, 3, 0]]).as_matrix(), atol=1e-12)


def test_refining_poses_brings_back_a_shifted_camera() -> None:
    """Everything but the pose is right and fixed: the correction finds the way back."""
    made = truth()
    scene = Gaussians.from_linear(made.points, 0.12, 0.95, made.colors / 255)
    off = np.array([0.01, 0.0, 0.0, 0.03, 0.0, 0.0], np.float32)
    still = dict.fromkeys(("means", "scales", "quats", "opacities", "sh0", "sh_rest"), 0.0)
    layer = {"extras": {"poses": True}, "rates": {**still, "poses": 2e-3, "means_final": 0.1}}
    stepper = Stepper(Session("cpu"), make_config(None, BASE, layer), 1)
    stepper.start(scene)
    wrong = replace(frame(1), camera=posed(frame(1).camera, off))
    losses = [stepper.run(step, 0, wrong)["loss"] for step in range(1, 101)]
    assert losses[-1] < 0.25 * losses[0]
    poses = stepper.fitted("poses")
    assert poses is not None
    back = posed(wrong.camera, poses[0]).viewmat
    np.testing.assert_allclose(back, frame(1).camera.viewmat, atol=8e-3)


def test_exposure_takes_up_a_change_of_light() -> None:
    made = truth()
    scene = Gaussians.from_linear(made.points, 0.12, 0.95, made.colors / 255)
    still = dict.fromkeys(("means", "scales", "quats", "opacities", "sh0", "sh_rest"), 0.0)
    layer = {"extras": {"exposure": True}, "rates": {**still, "exposure": 0.02, "means_final": 0.1}}
    stepper = Stepper(Session("cpu"), make_config(None, BASE, layer), 2)
    stepper.start(scene)
    dim = replace(frame(1), pixels=(frame(1).pixels * 0.7 + 10).astype(np.uint8))
    losses = [stepper.run(step, 1, dim)["l1"] for step in range(1, 101)]
    assert losses[-1] < 0.1 * losses[0]
    exposure = stepper.fitted("exposure")
    assert exposure is not None
    assert not exposure[0].any(), "the other view's stays"


def test_number_of_gaussians_and_size_of_photos_may_change_between_steps() -> None:
    stepper = Stepper(Session("cpu"), make_config(None, BASE), 3)
    stepper.start(start())
    stepper.run(1, 1, frame(1))
    state = stepper.state()
    state.rearrange(np.arange(40).repeat(2), np.arange(80) % 2 == 1)
    stepper.set_arrays(state.arrays)
    stepper.run(2, 1, frame(1).smaller(2))
    assert stepper.count == 80
    stepper.run(3, 2, frame(2))
    assert stepper.arrays()["means"].shape == (80, 3)
    assert stepper.executable is not None
    assert stepper.executable.memory.in_place >= 5, "parameters are updated in place"


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_edits_are_the_same_on_the_device(strategy: str, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Harmonics and moments are rearranged where they are: the same bits as on the host, and little travels."""
    layer = {"density": {"strategy": strategy, "start": 2, "every": 2, "stop": 0.9, "grow_gradient": 1e-5}}
    config = make_config(None, BASE, layer)
    made = make_strategy(config)
    session = Session(session.backend)  # kernels that are watched read everything
    ends, travelled = [], 0
    original = session.backend.download

    def download(buffer: Any, dtype: DType) -> np.ndarray:
        nonlocal travelled
        array = original(buffer, dtype)
        travelled += array.size
        return array

    for on_device in (False, True):
        stepper = Stepper(session, config, 3)
        stepper.start(start())
        for step in range(1, 8):
            stepper.run(step, step % 3, frame(step % 3))
            if step == 4:  # broken SH, which only the device knows
                sh = stepper.arrays(["sh"])["sh"]
                sh[3, 0, 1] = np.nan
                assert stepper.executable is not None
                stepper.executable.set_param("sh", sh)
            if step % 2:
                continue
            rng = np.random.default_rng(step)
            if on_device:
                with monkeypatch.context() as patch:
                    patch.setattr(session.backend, "download", download)
                    before, travelled = stepper.count, 0
                    stepper.edit(lambda p, step=step, rng=rng: made.apply(p, step, rng))
                assert 11 * before <= travelled <= 14 * before
            else:
                state = stepper.state()
                made.apply(state, step, rng)
                stepper.set_arrays(state.arrays)
        ends.append(stepper.arrays())
        assert stepper.count == len(ends[-1]["sh"]) != 40
    assert ends[0].keys() == ends[1].keys()
    for name, array in ends[0].items():
        np.testing.assert_array_equal(ends[1][name], array, err_msg=name)
    assert np.isfinite(ends[1]["sh"]).all(), "the broken one is gone"


def test_outgrown_graphs_are_let_go() -> None:
    """They would keep a copy of all parameters on the device."""
    stepper = Stepper(Session("cpu"), make_config(None, BASE), 3)
    stepper.start(start())
    stepper.run(1, 0, frame(0))
    outgrown = weakref.ref(stepper.executable)
    stepper.run(2, 0, frame(0).smaller(2))
    assert outgrown() is not None, "photos of that size may come again"
    stepper.run(4, 0, frame(0))
    gc.collect()
    assert outgrown() is None
    assert stepper.arrays()["sh"].shape[1] > 1


def test_an_edit_before_the_first_step() -> None:
    stepper = Stepper(Session("cpu"), make_config(None, BASE), 3)
    stepper.start(start())
    stepper.edit(lambda p: p.rearrange(np.arange(10), np.zeros(10, bool)))
    assert stepper.count == 10
    stepper.run(1, 0, frame(0))
    assert stepper.scene().count == 10


def test_an_edit_that_fails_changes_nothing() -> None:
    stepper = Stepper(Session("cpu"), make_config(None, BASE), 3)
    stepper.start(start())
    stepper.run(1, 0, frame(0))
    before = stepper.arrays()

    def change(state: TrainingState) -> None:
        state.rearrange(np.arange(10), np.zeros(10, bool))
        raise StippleError("on the way")

    with pytest.raises(StippleError, match="on the way"):
        stepper.edit(change)
    assert stepper.count == 40
    for name, array in stepper.arrays().items():
        np.testing.assert_array_equal(array, before[name])
    stepper.run(2, 1, frame(1))


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("STIPPLE_NUM_THREADS", threads)
        results.append(run("cpu", {"density": {"strategy": "mcmc"}}, 3)[0])
    for other in results[1:]:
        for name, array in results[0].items():
            np.testing.assert_array_equal(other[name], array)
