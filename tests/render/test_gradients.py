"""rasterization and its vjp: several cameras, all modes and lenses, against float64 renders and their differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import stipple
from compositor import composite
from scenes import intrinsics, random_scene, rotation
from stipple import ir
from stipple.render.graphs import RENDER_MODES
from stipple.runtime import Executable, Session

Array = np.ndarray
WIDTH, HEIGHT, CAMERAS = 18, 13, 2
LENSES = {"pinhole": 0, "distorted": 8, "radial": 8, "fisheye": 4, "ortho": 0}
GAUSSIANS = ("means", "quats", "scales", "opacities", "colors")


def model_of(lens: str) -> str:
    return "pinhole" if lens in ("distorted", "radial") else lens


def as_given(array: Array) -> Array:
    """In float64, but exact in float32, in which arguments are taken."""
    return np.asarray(array).astype(np.float32).astype(np.float64)


@lru_cache(maxsize=32)
def float64_executable(lens: str, sh_degree: int, options: tuple[tuple[str, Any], ...]) -> Executable:
    """One camera's render, and all that the independent compositor wants."""
    graph = ir.Graph("view")
    middle = [(sh_degree + 1) ** 2] if sh_degree >= 0 else []
    shapes: dict[str, list[Any]] = {
        "means": ["N", 3], "quats": ["N", 4], "scales": ["N", 3], "opacities": ["N"], "colors": ["N", *middle, 3],
        "viewmat": [4, 4], "intrinsics": [3, 3], "background": [3], "distortion": [LENSES[lens]],
    }  # fmt: skip
    values = {n: graph.input(n, s, "f64") for n, s in shapes.items()}
    attrs = {"width": WIDTH, "height": HEIGHT, "sh_degree": sh_degree, "camera_model": model_of(lens), **dict(options)}
    rgba, depth = ir.splat_render(**values, **attrs)
    graph.output("rgba", rgba)
    graph.output("depth", depth)
    del values["background"]
    for name, value in ir.splat_prepare(**values, **attrs)._asdict().items():
        graph.output(name, value)
    return Session("reference").compile(graph)


@dataclass
class Case:
    """Arguments of rasterization by the names of its gradients, and the mode."""

    lens: str
    mode: str
    sh_degree: int = -1
    options: dict[str, Any] = field(default_factory=dict)
    per_camera: bool = False
    arrays: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scene = random_scene(80, count=5, width=WIDTH, height=HEIGHT, sh_degree=self.sh_degree)
        rng = np.random.default_rng(81)
        given = {n: scene.arrays[n] for n in GAUSSIANS}
        if self.per_camera:
            given["colors"] = np.stack([given["colors"] * s for s in (1.0, 0.6)])
        turned = scene.arrays["viewmat"].copy()
        angle = 0.12
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        turned[:3] = turn @ turned[:3]
        focal = 6.0 if self.lens == "ortho" else 15.0
        given |= {
            "viewmats": np.stack([scene.arrays["viewmat"], turned]),
            "Ks": np.stack([intrinsics(focal, 1.1 * focal, 9.5, 6.1), intrinsics(1.2 * focal, focal, 8.2, 7.0)]),
            "backgrounds": rng.uniform(0, 1, (CAMERAS, 3)),
            "distortion": rng.uniform(-0.04, 0.04, (CAMERAS, LENSES[self.lens])),
        }
        if self.lens == "radial":  # k1 to k4 alone
            given["distortion"][:, 4:] = 0
        self.arrays = {n: as_given(a) for n, a in given.items()}

    def arguments(self, device: str) -> dict[str, Any]:
        given = {n: a for n, a in self.arrays.items() if n != "distortion"}
        bent = self.arrays["distortion"]
        if self.lens == "distorted":
            given |= {"radial_coeffs": bent[:, :6], "tangential_coeffs": bent[:, 6:]}
        elif self.lens in ("radial", "fisheye"):
            given["radial_coeffs"] = bent[:, :4]
        return {
            **given, **self.options, "width": WIDTH, "height": HEIGHT, "render_mode": self.mode, "device": device,
            "camera_model": model_of(self.lens), "sh_degree": None if self.sh_degree < 0 else self.sh_degree,
        }  # fmt: skip

    def views(self, **moved: Array) -> list[dict[str, Array]]:
        """The float64 results of each camera."""
        a = {**self.arrays, **moved}
        options = dict(self.options)
        if options.pop("rasterize_mode", None) == "antialiased":
            options["antialiased"] = True
        exe = float64_executable(self.lens, self.sh_degree, tuple(sorted(options.items())))
        made = []
        for c in range(CAMERAS):
            feeds = {n: a[n] for n in GAUSSIANS}
            if self.per_camera:
                feeds["colors"] = a["colors"][c]
            names = {"viewmat": "viewmats", "intrinsics": "Ks", "background": "backgrounds", "distortion": "distortion"}
            made.append(exe.run(feeds | {n: a[of][c] for n, of in names.items()}))
        return made

    def images(self, **moved: Array) -> tuple[Array, Array]:
        """Colours and alphas of all cameras, by what each mode is defined to be."""
        shown, alphas = [], []
        for out in self.views(**moved):
            alpha, depth = out["rgba"][..., 3:], out["depth"][..., None]
            parts = [out["rgba"][..., :3]] if "RGB" in self.mode else []
            if "D" in self.mode:
                parts.append(depth / np.maximum(alpha, 1e-10) if "ED" in self.mode else depth)
            shown.append(np.concatenate(parts, axis=2))
            alphas.append(alpha)
        return np.stack(shown), np.stack(alphas)

    def weights(self) -> tuple[Array, Array]:
        """Of a linear loss; 0 next to a discrete choice, and for expected depths where little is drawn."""
        safe = []
        for out, background in zip(self.views(), self.arrays["backgrounds"], strict=True):
            found = composite(out, background, {"width": WIDTH, "height": HEIGHT, **self.options}).safe
            safe.append(found & (out["rgba"][..., 3] > 0.05) if "ED" in self.mode else found)
        assert np.mean(safe) > 0.25
        rng = np.random.default_rng(82)
        features = self.images()[0].shape[-1]
        mask = np.stack(safe)[..., None]
        sizes = ((CAMERAS, HEIGHT, WIDTH, features), (CAMERAS, HEIGHT, WIDTH, 1))
        return tuple(as_given(rng.normal(size=s) * mask) for s in sizes)  # type: ignore[return-value]


def direction(case: Case, name: str, rng: np.random.Generator) -> Array:
    """A direction of one argument, in which it stays one."""
    made = rng.normal(size=case.arrays[name].shape)
    if name == "viewmats":
        made[:, 3] = 0
    if name == "Ks":
        made *= np.array([[1, 0, 1], [0, 1, 1], [0, 0, 0]])
    return made / max(1e-9, float(np.linalg.norm(made)))


def check(case: Case, device: str, tolerance: float) -> None:
    colors, alphas, _, vjp = stipple.rasterization_vjp(**case.arguments(device))
    wanted = case.images()
    v_colors, v_alphas = case.weights()
    scale = max(1.0, float(np.abs(wanted[0]).max()))
    for given, exact, weights in ((colors, wanted[0], v_colors), (alphas, wanted[1], v_alphas)):
        assert given.dtype == np.float32
        assert given.shape == exact.shape
        np.testing.assert_allclose(given * (weights != 0), exact * (weights != 0), atol=30 * tolerance * scale)
    gradients = vjp(v_colors, v_alphas)
    rng = np.random.default_rng(83)
    for name, array in case.arrays.items():
        assert gradients[name].shape == array.shape, name
        if not array.size or ("RGB" not in case.mode and name in ("colors", "backgrounds")):
            assert not gradients[name].any(), name
            continue
        for _ in range(2):
            along = direction(case, name, rng)
            losses = []
            for factor in (-2, -1, 1, 2):
                images = case.images(**{name: array + factor * 2e-6 * along})
                losses.append(float(np.sum(images[0] * v_colors) + np.sum(images[1] * v_alphas)))
            slope = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / 24e-6
            size = max(1.0, float(np.linalg.norm(gradients[name])))
            assert float(np.sum(gradients[name] * along)) == pytest.approx(slope, abs=tolerance * size), name


@pytest.mark.parametrize("mode", RENDER_MODES)
@pytest.mark.parametrize("lens", list(LENSES))
def test_on_the_reference(lens: str, mode: str) -> None:
    check(Case(lens, mode), "reference", 2e-6)


@pytest.mark.parametrize("mode", RENDER_MODES)
def test_on_the_cpu(mode: str) -> None:
    check(Case("pinhole", mode), "cpu", 1e-3)


OTHERS: dict[str, Case] = {
    "SH": Case("fisheye", "RGB+ED", sh_degree=2),
    "antialiased": Case("distorted", "RGB+D", options={"rasterize_mode": "antialiased"}),
    "rays": Case("pinhole", "RGB+ED", options={"projection": "ray"}),
    "parallel rays": Case("ortho", "RGB+ED", options={"projection": "ray"}, sh_degree=1),
    "colours of each camera": Case("ortho", "RGB", per_camera=True),
    "SH of each camera": Case("pinhole", "RGB+ED", sh_degree=1, per_camera=True),
    "tiles and blur": Case("radial", "RGB", options={"tile_size": 5, "eps2d": 0.1}),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_other_options_on_the_reference(name: str) -> None:
    check(OTHERS[name], "reference", 2e-6)


@pytest.mark.parametrize("name", ["rays", "SH of each camera"])
def test_other_options_on_the_cpu(name: str) -> None:
    check(OTHERS[name], "cpu", 1e-3)


def test_a_lens_changes_the_image() -> None:
    """Each camera's own coefficients arrive."""
    case = Case("distorted", "RGB")
    plain = stipple.rasterization(**case.arguments("reference"))[0]
    for name, column in (("radial_coeffs", 0), ("radial_coeffs", 5), ("tangential_coeffs", 1)):
        given = case.arguments("reference")
        given[name] = given[name].copy()
        given[name][1, column] += 0.2
        changed = stipple.rasterization(**given)[0]
        np.testing.assert_array_equal(changed[0], plain[0])
        assert np.abs(changed[1] - plain[1]).max() > 1e-4, (name, column)


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_gradients_are_of_the_arguments_at_call_time(device: str) -> None:
    """Whatever the caller does with arguments, images and gradients afterwards, and however often it asks."""
    case = Case("pinhole", "RGB+ED", sh_degree=1)
    mine = {n: a.astype(np.float32) if isinstance(a, Array) else a for n, a in case.arguments(device).items()}
    v_colors, v_alphas = case.weights()
    colors, alphas, meta, vjp = stipple.rasterization_vjp(**mine, absgrad=True)
    wanted = {n: a.copy() for n, a in vjp(v_colors, v_alphas).items()}
    for array in (*(a for a in mine.values() if isinstance(a, Array)), meta["means2d"]):
        array[...] = 0.5
    for array in (colors, alphas):  # gradients need them too
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.5
    image = colors.copy()
    stipple.rasterization(**Case("pinhole", "RGB+ED", sh_degree=1).arguments(device))
    for again in (vjp(v_colors, v_alphas), vjp(v_colors, v_alphas)):
        assert again.keys() == wanted.keys()
        for name, array in again.items():
            np.testing.assert_array_equal(array, wanted[name], err_msg=name)
            array[...] = -1
    del vjp, meta, again
    stipple.rasterization_vjp(**Case("fisheye", "RGB+ED").arguments(device))[3](v_colors)  # in memory that is free now
    np.testing.assert_array_equal(colors, image)


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_gradients_are_linear_in_what_arrives(device: str) -> None:
    case = Case("pinhole", "RGB+D")
    v_colors, v_alphas = case.weights()
    vjp = stipple.rasterization_vjp(**case.arguments(device), absgrad=True)[3]
    both, one, other = vjp(v_colors, v_alphas), vjp(v_colors), vjp(None, v_alphas)
    for name in both:
        if name != "means2d_abs":
            np.testing.assert_allclose(one[name] + other[name], both[name], rtol=1e-3, atol=2e-4, err_msg=name)
    assert all(not g.any() for g in vjp().values())
    assert "means2d_abs" in both
    assert "means2d_abs" not in stipple.rasterization_vjp(**case.arguments(device))[3]()


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_no_gaussians(device: str) -> None:
    case = Case("pinhole", "RGB+ED")
    for name in GAUSSIANS:
        case.arrays[name] = case.arrays[name][:0]
    colors, alphas, meta, vjp = stipple.rasterization_vjp(**case.arguments(device))
    np.testing.assert_allclose(colors[:, 3, 4, :3], case.arrays["backgrounds"], rtol=1e-6)
    assert not colors[..., 3].any()
    assert not alphas.any()
    assert meta["means2d"].shape == (CAMERAS, 0, 2)
    gradients = vjp(np.ones_like(colors))
    np.testing.assert_allclose(gradients["backgrounds"], WIDTH * HEIGHT, rtol=1e-6)
    assert gradients["means"].shape == (0, 3)


def test_rotated_worlds_look_the_same() -> None:
    """Turning the world and all cameras together changes nothing, and gradients turn along."""
    case, turned = Case("fisheye", "RGB+ED"), Case("fisheye", "RGB+ED")
    turn = rotation(np.random.default_rng(84))
    turned.arrays["means"] = case.arrays["means"] @ turn.T
    w, x, y, z = (1, 0, 0, 0)
    turned.arrays["viewmats"] = case.arrays["viewmats"].copy()
    turned.arrays["viewmats"][:, :3, :3] = case.arrays["viewmats"][:, :3, :3] @ turn.T
    for one in (case, turned):
        one.arrays["scales"] = np.full_like(one.arrays["scales"], 0.2)  # round ones look the same however they turn
        one.arrays["quats"] = np.tile(np.array([w, x, y, z], float), (5, 1))
    weights = case.weights()
    first, second = (stipple.rasterization_vjp(**one.arguments("reference")) for one in (case, turned))
    np.testing.assert_allclose(second[0], first[0], atol=1e-4)
    v_first, v_second = first[3](*weights)["means"], second[3](*weights)["means"]
    np.testing.assert_allclose(v_second, v_first @ turn.T, rtol=1e-3, atol=1e-3 * np.abs(v_first).max())
