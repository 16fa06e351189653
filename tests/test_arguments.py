"""Every argument of the public functions, with values that nobody should pass: taken rightly or refused in a sentence.

``TARGETS`` lists the functions with valid arguments and the kind of each; a kind says which of the hostile values are
right for it, all others must be refused. A test fails while a public function or an argument is missing here.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest

import stipple
import stipple.compat.slam
import stipple.scene
from stipple import Camera, Gaussians, arguments, ir
from stipple.compat.slam import DiffCamera, DiffSplatRenderer, TrainableGaussians
from stipple.errors import InputError, StippleError
from stipple.runtime import Session
from stipple.scene import Normalization, rgb_to_sh, sh_to_rgb
from stipple.scene.camera import look_at, rotation_of
from stipple.selftest import run_checks


class Raises:
    """An array as other packages have them, which cannot be read here."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("it is on another device")


HOSTILE: dict[str, Any] = {
    "None": None,
    "text": "text",
    "number as text": "3",
    "bytes": b"3",
    "True": True,
    "np.True_": np.True_,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "0": 0,
    "-1": -1,
    "-0.5": -0.5,
    "0.5": 0.5,
    "3.0": 3.0,
    "huge int": 10**400,
    "large int": 2**70,
    "1e300": 1e300,
    "-1e300": -1e300,
    "1e-320": 1e-320,
    "complex": 1j,
    "Decimal": Decimal("nan"),
    "Fraction": Fraction(1, 2),
    "int8 3": np.int8(3),
    "0-d 3": np.array(3),
    "0-d 0.5": np.array(0.5),
    "[3]": np.array([3]),
    "empty list": [],
    "empty tuple": (),
    "empty dict": {},
    "set": {3},
    "range": range(7),
    "object": object(),
    "function": len,
    "class": int,
    "generator": (i for i in range(3)),
    "five dimensions": np.zeros((2,) * 5),
    "no columns": np.zeros((3, 0)),
    "ragged": [[1], [1, 2]],
    "list of None": [None, None, None],
    "texts": np.array(["a", "b"]),
    "numbers as texts": ["1", "2", "3"],
    "objects": np.array([object()] * 3),
    "complex numbers": np.zeros(3, complex),
    "truth values": np.zeros(3, bool),
    "dates": np.array(["2020-01-01"] * 3, "datetime64[D]"),
    "record": np.zeros(3, [("a", "f4")]),
    "masked": np.ma.masked_array(np.zeros(3), [1, 0, 0]),
    "unreadable": Raises(),
}

HOSTILE_ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "one more dimension": lambda a: a[None],
    "one dimension less": lambda a: a[0] if a.ndim else [a],
    "one column less": lambda a: a[..., :-1],
    "transposed": lambda a: a.T[:, None] if a.ndim < 2 else a.swapaxes(-1, -2)[..., :2],
    "as texts": lambda a: a.astype(str),
    "as objects": lambda a: a.astype(object),
    "as complex numbers": lambda a: a.astype(complex),
    "as truth values": lambda a: a.astype(bool),
    "partly masked": lambda a: np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) == 1),
    "full of nan": lambda a: np.full(a.shape, math.nan),
    "full of inf": lambda a: np.full(a.shape, math.inf),
    "full of 1e300": lambda a: np.full(a.shape, 1e300),
    "full of huge ints": lambda a: np.full(a.shape, 10**400, object),
}

_NUMBERS = {"0.5", "3.0", "Fraction", "int8 3", "0-d 3", "0-d 0.5"}
_ANY_NUMBER = _NUMBERS | {"0", "-1", "-0.5", "1e-320"}
_NOT_FINITE = {"full of nan", "full of inf"}

KINDS: dict[str, set[str]] = {
    "int >= 1": {"int8 3", "0-d 3"},
    "int >= 0": {"0", "int8 3", "0-d 3"},
    "number > 0": _NUMBERS | {"large int"},
    "number >= 0": _NUMBERS | {"0", "1e-320", "large int"},
    "number": _ANY_NUMBER | {"large int"},
    "share": {"0", "0.5", "Fraction", "0-d 0.5", "1e-320"},
    "degrees": _NUMBERS,
    "only 0": {"0"},
    "flag": {"True", "np.True_"},
    "only False": set(),
    "choice": set(),
    "object": set(),
    "finite array": set(),
    "float64 array": {"full of 1e300"},
    "array": _NOT_FINITE,
    "scales": _NUMBERS - {"Fraction"},
    "opacities": {"0.5", "0-d 0.5", "one dimension less"},
    "numbers": {
        *(_ANY_NUMBER - {"Fraction"}), *_NOT_FINITE, "nan", "inf", "-inf", "1e300", "-1e300", "[3]", "empty list",
        "empty tuple",
        "range", "five dimensions", "no columns", "one more dimension", "one dimension less", "one column less",
        "transposed", "full of 1e300",
    },
    "coefficients": {"empty list", "empty tuple"},
    "names": {"empty list", "empty tuple"},
    "indices": {"[3]", "one column less", "empty list", "empty tuple"},
    "passes": {"None", "empty list", "empty tuple"},
    "feed": set(),
}  # fmt: skip
"""Which hostile values each kind takes. "?" after a kind takes None too."""


@dataclass(frozen=True)
class Target:
    """A function, valid arguments, the kind of each, and (a pattern) what messages call it where not by its name."""

    call: Callable[..., Any]
    valid: Mapping[str, Any]
    kinds: Mapping[str, str]
    called: Mapping[str, str]


TARGETS: dict[str, Target] = {}


def target(
    name: str, call: Callable[..., Any], called: Mapping[str, str] | None = None, /, **given: tuple[Any, str]
) -> None:  # fmt: skip
    valid = {n: value for n, (value, _) in given.items()}
    TARGETS[name] = Target(call, valid, {n: kind for n, (_, kind) in given.items()}, called or {})


_RNG = np.random.default_rng(0)
_COUNT = 4
MEANS = _RNG.normal(size=(_COUNT, 3))
CAMERA = Camera.from_fov(12, 10, 50).look_at([0, 0, -6], [0, 0, 0])
SCENE = Gaussians.from_linear(MEANS, 0.3, 0.5, _RNG.uniform(size=(_COUNT, 3)), _RNG.normal(size=(_COUNT, 4)))
SLAM_CAMERA = DiffCamera(20, 20, 6, 5, 12, 10, np.eye(3), np.array([0, 0, 6.0]))
NORMALIZATION = Normalization((1.0, 2.0, 3.0), 0.5)
POINT = np.array([0.5, 1.0, -6.0])
GRAPH = ir.Graph("t")
_PARAM = GRAPH.param("p", ["N", 3], "f32", np.zeros((_COUNT, 3), np.float32))
GRAPH.output("y", _PARAM + GRAPH.input("x", [3]))
SESSION = Session("reference")
EXECUTABLE = SESSION.compile(GRAPH)

target(
    "Camera", Camera, {},
    width=(12, "int >= 1"), height=(10, "int >= 1"), fx=(9.0, "number > 0"), fy=(9.0, "number > 0"),
    cx=(6.0, "number"), cy=(5.0, "number"), viewmat=(np.eye(4), "finite array"), near=(0.01, "number > 0"),
    far=(1e25, "number > 0"), model=("pinhole", "choice"), distortion=(np.zeros(8), "coefficients"),
)  # fmt: skip
target(
    "Camera.from_fov", Camera.from_fov, width=(12, "int >= 1"), height=(10, "int >= 1"),
    fov_y_degrees=(50, "degrees"), viewmat=(np.eye(4), "finite array?"), near=(0.01, "number > 0"),
    far=(1e25, "number > 0"),
)  # fmt: skip
target(
    "Camera.from_colmap", Camera.from_colmap, {"qvec": "quaternion"}, width=(12, "int >= 1"), height=(10, "int >= 1"),
    params=(np.array([9, 6.0, 5.0]), "finite array"), qvec=(np.array([1, 0, 0.1, 0]), "float64 array"),
    tvec=(POINT, "float64 array"),
)  # fmt: skip
_LOOK = {
    "position": (POINT, "finite array"),
    "target": (POINT + 1, "finite array"),
    "up": (-POINT[::-1], "finite array"),
}
target("Camera.look_at", CAMERA.look_at, **_LOOK)
target("look_at", look_at, **_LOOK)
target("rotation_of", rotation_of, {"quat": "quaternion"}, quat=(np.array([1, 0, 0.1, 0]), "float64 array"))
target("Camera.resized", CAMERA.resized, width=(6, "int >= 1"), height=(5, "int >= 1"))
for _name, _class in (("Gaussians", Gaussians), ("TrainableGaussians", TrainableGaussians)):
    target(
        _name, _class, means=(SCENE.means, "array"), log_scales=(SCENE.log_scales, "array"),
        quats=(SCENE.quats, "array"), logit_opacities=(SCENE.logit_opacities, "array"), sh=(SCENE.sh, "array"),
    )  # fmt: skip
target(
    "Gaussians.from_linear", Gaussians.from_linear, means=(MEANS, "array"),
    scales=(np.full((_COUNT, 3), 0.3), "scales"),
    opacities=(np.full(_COUNT, 0.5), "opacities"), colors=(np.full((_COUNT, 3), 0.5), "finite array"),
    quats=(np.ones((_COUNT, 4)), "array?"),
)  # fmt: skip
target("Gaussians.bounds", SCENE.bounds, share=(1.0, "share"))
target("Gaussians.select", SCENE.select, ids=(np.array([0, 2]), "indices"))
target("Gaussians.with_sh_degree", SCENE.with_sh_degree, degree=(2, "int >= 0"))
target("rgb_to_sh", rgb_to_sh, rgb=(MEANS, "numbers"))
target("sh_to_rgb", sh_to_rgb, sh=(MEANS, "numbers"))
target("Normalization", Normalization, center=(POINT, "finite array"), scale=(0.5, "number > 0"))
target("Normalization.of", Normalization.of, cameras=([CAMERA], "object"), points=(MEANS, "array"))
target("Normalization.points", NORMALIZATION.points, points=(MEANS, "array"))
target("Normalization.camera", NORMALIZATION.camera, camera=(CAMERA, "object"))
target("Normalization.undo_camera", NORMALIZATION.undo_camera, camera=(CAMERA, "object"))
target("Normalization.undo", NORMALIZATION.undo, scene=(SCENE, "object"))
target(
    "render_view", stipple.render_view, scene=(SCENE, "object"), camera=(CAMERA, "object"),
    background=(np.zeros(3), "finite array"), sh_degree=(0, "int >= 0?"), antialiased=(False, "flag"),
    projection=("ewa", "choice"), device=("cpu", "choice"),
)  # fmt: skip
_RASTERIZATION = {
    "means": (SCENE.means, "array"), "quats": (SCENE.quats, "array"), "scales": (SCENE.scales, "array"),
    "opacities": (SCENE.opacities, "array"), "colors": (SCENE.sh[:, 0], "array"),
    "viewmats": (np.stack([CAMERA.viewmat] * 3), "finite array"),
    "Ks": (np.stack([CAMERA.intrinsics] * 3), "finite array"),
    "width": (12, "int >= 1"), "height": (10, "int >= 1"), "near_plane": (0.01, "number > 0"),
    "far_plane": (1e25, "number > 0"), "radius_clip": (0.0, "only 0"), "eps2d": (0.3, "number >= 0"),
    "sh_degree": (None, "choice?"), "packed": (False, "only False"), "tile_size": (16, "int >= 1"),
    "backgrounds": (np.zeros((3, 3)), "finite array?"), "render_mode": ("RGB", "choice"),
    "sparse_grad": (False, "only False"), "absgrad": (False, "flag"), "rasterize_mode": ("classic", "choice"),
    "projection": ("ewa", "choice"), "device": ("cpu", "choice"), "camera_model": ("pinhole", "choice"),
    "radial_coeffs": (np.zeros((3, 6)), "finite array?"), "tangential_coeffs": (np.zeros((3, 2)), "finite array?"),
}  # fmt: skip
target("rasterization", stipple.rasterization, {"colors": "colors|backgrounds"}, **_RASTERIZATION)
target("rasterization_vjp", stipple.rasterization_vjp, {"colors": "colors|backgrounds"}, **_RASTERIZATION)
_COLORS, _ALPHAS, _, VJP = stipple.rasterization_vjp(**{n: v for n, (v, _) in _RASTERIZATION.items()})
target("vjp", VJP, v_colors=(_COLORS, "array?"), v_alphas=(_ALPHAS[..., :1], "array?"))
target(
    "DiffCamera", DiffCamera, fx=(9.0, "number > 0"), fy=(9.0, "number > 0"), cx=(6.0, "number"), cy=(5.0, "number"),
    width=(12, "int >= 1"), height=(10, "int >= 1"), R=(np.eye(3), "finite array"), t=(POINT, "finite array"),
)  # fmt: skip
target("DiffSplatRenderer", DiffSplatRenderer, background=(np.zeros(3), "finite array"), device=("cpu", "object"))
_RENDERER = DiffSplatRenderer(device="cpu")
_SLAM = {"gaussians": (SCENE, "object"), "camera": (SLAM_CAMERA, "object")}
target("DiffSplatRenderer.render", _RENDERER.render, **_SLAM)
target("DiffSplatRenderer.render_inference", _RENDERER.render_inference, **_SLAM)
target(
    "DiffSplatRenderer.render_with_intermediates", _RENDERER.render_with_intermediates, **_SLAM, records=(True, "flag")
)
target("Session", Session, device=("reference", "object"), debug=(False, "flag"))
target("Session.compile", SESSION.compile, graph=(GRAPH, "object"), passes=(None, "passes"), params=(None, "object?"))
_P = SCENE.means
target(
    "Executable.set_param",
    EXECUTABLE.set_param,
    {"name": "parameter", "value": "'p'"},
    name=("p", "object"),
    value=(_P, "feed"),
)
target("Executable.get_param", EXECUTABLE.get_param, {"name": "parameter"}, name=("p", "object"))
target(
    "Executable.run",
    EXECUTABLE.run,
    feeds=({"x": np.zeros(3, np.float32)}, "object"),
    timings=(False, "flag"),
    keep=((), "names"),
)


def first_check(device: Any) -> Any:
    """Begin the generator."""
    return next(run_checks(device))


target("run_checks", first_check, device=("reference", "object"))


def cases() -> list[tuple[str, str, str]]:
    return [(name, argument, kind) for name, made in TARGETS.items() for argument, kind in made.kinds.items()]


def hostile_values(valid: Any) -> dict[str, Any]:
    """The hostile values for an argument; those made from the valid one where it is an array."""
    made = dict(HOSTILE)
    if isinstance(valid, np.ndarray):
        made |= {n: change(valid) for n, change in HOSTILE_ARRAYS.items()}
    return made


@pytest.mark.parametrize(("function", "argument", "kind"), cases(), ids=str)
def test_an_argument_is_taken_rightly_or_refused_by_name(function: str, argument: str, kind: str) -> None:
    made = TARGETS[function]
    allowed = KINDS[kind.removesuffix("?")] | ({"None"} if kind.endswith("?") else set())
    if function == "DiffSplatRenderer" and argument == "device":
        allowed = {"text", "number as text"}  # a name; whether there is such a device is found when it renders
    wrong = []
    for name, value in hostile_values(made.valid[argument]).items():
        try:
            made.call(**{**made.valid, argument: value})
        except StippleError as error:
            text = str(error)
            if name in allowed:
                wrong.append(f"{name}: refused: {text}")
            elif not re.search(made.called.get(argument, argument), text) or "\n" in text or len(text) > 400:
                wrong.append(f"{name}: not one sentence that names it: {text}")
        except Exception as error:  # what must not happen, collected
            wrong.append(f"{name}: {type(error).__name__}: {error}")
        else:
            if name not in allowed:
                wrong.append(f"{name}: taken")
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_public_function_and_argument_is_listed() -> None:
    public = {
        n: getattr(m, n) for m in (stipple, stipple.scene, stipple.compat.slam) for n in getattr(m, "__all__", dir(m))
    }
    data = {"Image", "SplatOutput", "SplatRecord"}  # results
    for name, thing in public.items():
        own = callable(thing) and getattr(thing, "__module__", "").startswith("stipple") and not name.startswith("_")
        assert not own or name in data or name in TARGETS, name
    for thing in (Camera, Gaussians, Normalization, DiffSplatRenderer):
        for name, method in inspect.getmembers(thing, callable):
            takes = not name.startswith("_") and len(inspect.signature(method).parameters) > inspect.isfunction(method)
            assert not takes or f"{thing.__name__}.{name}" in TARGETS, name
    for name, made in TARGETS.items():
        if name != "rasterization_vjp":  # takes what rasterization takes
            declared = inspect.signature(made.call).parameters.values()
            wanted = {p.name for p in declared if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
            assert wanted <= made.kinds.keys(), (name, wanted - made.kinds.keys())


# --- what is right is taken in every form -------------------------------------------------------------------
@dataclass
class ArrayLike:
    """Other packages' arrays: read through ``__array__``."""

    held: np.ndarray

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.held, dtype)


@dataclass
class Exchanged:
    """Other packages' arrays: read through DLPack only."""

    held: np.ndarray

    def __dlpack__(self, **more: Any) -> Any:
        return self.held.__dlpack__(**more)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.held.__dlpack_device__()


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda a: a.astype(np.float64),
    "long double": lambda a: a.astype(np.longdouble),
    "big endian": lambda a: a.astype(">f4"),
    "list": lambda a: a.tolist(),
    "list of arrays": list,
    "Fortran order": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "read-only": lambda a: np.frombuffer(a.tobytes(), np.float32).reshape(a.shape),
    "nothing masked": np.ma.masked_array,
    "__array__": ArrayLike,
    "DLPack": Exchanged,
}


@pytest.mark.parametrize("form", list(FORMS))
def test_arrays_are_taken_in_every_form(form: str) -> None:
    plain = {n: v for n, (v, _) in _RASTERIZATION.items()}
    arrays = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")
    formed = {n: FORMS[form](plain[n].astype(np.float32)) for n in arrays}
    wanted = stipple.rasterization(**plain)[0]
    np.testing.assert_array_equal(stipple.rasterization(**{**plain, **formed})[0], wanted)
    fields = {n: getattr(SCENE, n) for n in ("means", "log_scales", "quats", "logit_opacities", "sh")}
    scene = Gaussians(**{n: FORMS[form](a) for n, a in fields.items()})
    for name, array in fields.items():
        made = getattr(scene, name)
        assert (made.dtype, made.flags.c_contiguous) == (np.float32, True)
        np.testing.assert_array_equal(made, array)


def test_numbers_are_taken_in_every_form() -> None:
    for four in (4, np.int64(4), np.uint8(4), np.array(4)):
        assert type(arguments.integer("n", four)) is int
        assert arguments.number("x", four) == 4.0
    for half in (0.5, np.float16(0.5), np.longdouble(0.5), np.array(0.5), Fraction(1, 2)):
        assert type(arguments.number("x", half)) is float
    camera = Camera(np.int32(12), np.array(10), np.float32(9), 9, 6, 5)
    assert [type(v) for v in (camera.width, camera.height, camera.fx, camera.fy)] == [int, int, float, float]


def test_small_scenes_and_images() -> None:
    """No Gaussians, one pixel: small, and right."""
    none = Gaussians.from_linear(np.zeros((0, 3)), 0.1, 0.5, np.zeros((0, 3)))
    image = stipple.render_view(none, CAMERA, (0.1, 0.2, 0.3), device="cpu")
    assert np.abs(image.color - np.float32([0.1, 0.2, 0.3])).max() == 0
    assert stipple.render_view(SCENE, CAMERA.resized(1, 1), device="cpu").color.shape == (1, 1, 3)
    assert (none.select([]).count, SCENE.select(np.zeros(4, bool)).count, SCENE.select([-1]).count) == (0, 0, 1)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "colours as [3, N]": (
        lambda: Gaussians.from_linear(MEANS, 0.1, 0.5, np.zeros((3, 4))),
        r"^colors: expected shape \[4, 3\], got \[3, 4\]$"
    ),
    "tile_size None": (
        lambda: _rasterize(tile_size=None), r"^tile_size: expected an int >= 1 and <= 1024, got None$"
    ),
    "width 64.0": (lambda: _rasterize(width=64.0), r"^width: expected an int >= 1 and <= 1048576, got 64.0$"),
    "no cameras": (
        lambda: _rasterize(viewmats=np.zeros((0, 4, 4)), Ks=np.zeros((0, 3, 3))),
        "^viewmats: expected at least one camera"
    ),
    "width nan": (lambda: Camera(math.nan, 3, 5, 5, 2, 2), "^width: expected an int .*, got nan$"),
    "a huge image": (
        lambda: stipple.render_view(SCENE, CAMERA.resized(100_000, 100_000), device="cpu"),
        "^width, height: an image of 100000 x 100000 pixels with 3 channels",
    ),
    "a huge image, rasterized": (lambda: _rasterize(width=100_000, height=100_000), "^width, height: an image"),
    "near beyond far": (lambda: _rasterize(near_plane=2.0, far_plane=1.0), "^near_plane, far_plane: expected 0 < near"),
    "a camera far out": (
        lambda: stipple.render_view(SCENE, Camera.from_colmap(4, 3, [5, 2, 1], [1, 0, 0, 0], [0, 0, 1e300])),
        r"^camera: expected finite numbers that float32 holds; element \[2, 3\] is 1e\+300$",
    ),
    "skew": (lambda: _rasterize(Ks=np.stack([np.eye(3) + 1] * 3)), "^Ks: expected fx 0 cx"),
    "too few SH coefficients": (
        lambda: _rasterize(colors=SCENE.sh, sh_degree=2), "^colors: sh_degree = 2 needs K >= 9, got 1$"
    ),
    "a mask of another length": (lambda: SCENE.select(np.zeros(5, bool)), r"^ids: expected indices .* mask \[4\]"),
    "an index beyond the end": (lambda: SCENE.select([1, 4]), "^ids: expected indices below 4, got 1 to 4$"),
    "scales of another length": (
        lambda: Gaussians.from_linear(MEANS, [0.1, 0.2, 0.3], 0.5, np.zeros((4, 3))),
        r"^scales: expected one number or \[4\] or \[4, 3\], got shape \[3\]$",
    ),
    "beyond float32": (
        lambda: Gaussians(**{**TARGETS["Gaussians"].valid, "means": np.full((4, 3), 1e39)}),
        r"^means: expected numbers that float32 holds; element \[0, 0\] is 1e\+39$",
    ),
    "no cameras to normalise": (lambda: Normalization.of([], MEANS), "^cameras: expected a list of at least"),
}  # fmt: skip


def _rasterize(**changes: Any) -> Any:
    return stipple.rasterization(**{**{n: v for n, (v, _) in _RASTERIZATION.items()}, **changes})


@pytest.mark.parametrize("case", list(REFUSED))
def test_messages(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        call()


def test_messages_show_any_value_briefly() -> None:
    for value in HOSTILE.values():
        assert len(arguments.shown(value)) < 100
    assert arguments.shown(10**5000) == "an int of 16610 bits"


def test_arguments_that_are_missing_or_unknown() -> None:
    for call in (partial(Camera.from_fov, 3, 3), partial(_rasterize, color=1), stipple.rasterization_vjp):
        with pytest.raises(TypeError):
            call()
