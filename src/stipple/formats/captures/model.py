"""What every capture loader returns: views with cameras, and points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stipple.errors import FileFormatError, InputError
from stipple.scene.camera import Camera
from stipple.text import shown

Array = np.ndarray
_FARTHEST = 1e15  # squares of distances, and their squares, stay well inside the range of float32 and float64
_LONGEST_SIDE = 1_000_000


@dataclass(frozen=True)
class Lens:
    """Distortion in OpenCV's terms: radial and tangential k1 k2 p1 p2 k3 k4 k5 k6, or fisheye k1 k2 k3 k4."""

    coefficients: tuple[float, ...]
    fisheye: bool = False

    @classmethod
    def of(cls, coefficients: Iterable[float], fisheye: bool = False) -> Lens | None:
        """A lens, or None without distortion (a fisheye has some even without coefficients)."""
        numbers = tuple(float(c) for c in coefficients)
        return cls(numbers, fisheye) if fisheye or any(numbers) else None

    def on(self, camera: Camera) -> Camera:
        """The camera with this lens, so that its photos stay as they are; InputError beyond k1 to k6, p1, p2."""
        if self.fisheye:
            four = (*self.coefficients, 0.0, 0.0, 0.0, 0.0)[:4]
            return replace(camera, model="fisheye", distortion=four)
        if any(self.coefficients[8:]):
            raise InputError(
                "a lens with coefficients beyond k1 to k6 and p1, p2 cannot be trained through; leave undistort at true"
            )
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.coefficients, *(0.0,) * 8)[:8]
        return replace(camera, distortion=(k1, k2, k3, k4, k5, k6, p1, p2))


@dataclass(frozen=True, eq=False)
class View:
    """One photo: its file, and the camera that took it.

    ``camera`` describes the photo as stored, before ``lens`` is undone, in the capture's world units. ``split`` is
    train or test if the capture specifies it. ``depth`` holds integers, ``depth_scale`` of them per world unit.
    ``points`` are the rows of the capture's points that this photo observes, where that is known.
    """

    name: str
    image: Path
    camera: Camera
    lens: Lens | None = None
    mask: Path | None = None
    depth: Path | None = None
    depth_scale: float = 1000.0
    split: str = ""
    points: Array | None = None


@dataclass(frozen=True, eq=False)
class Capture:
    """Posed photos, with points [M, 3] and their colors [M, 3] uint8 where there are any.

    ``notes`` are decisions of the reader that a user may want to know; ``unused`` are photos without a pose.
    """

    root: Path
    kind: str
    views: tuple[View, ...]
    points: Array = field(default_factory=lambda: np.zeros((0, 3)))
    colors: Array = field(default_factory=lambda: np.zeros((0, 3), np.uint8))
    notes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def split(self, test_every: int) -> tuple[list[int], list[int]]:
        """Indices of training and held-out views: as specified by the capture, else every ``test_every``-th view in the
        order of names, starting with the first, as is usual in the field; 0 holds none out."""
        if any(v.split for v in self.views):
            test = [i for i, v in enumerate(self.views) if v.split == "test"]
        else:
            test = list(range(0, len(self.views), test_every)) if test_every else []
        train = sorted(set(range(len(self.views))) - set(test))
        if not train:
            raise InputError(
                f"{self.root}: --test-every {test_every} holds out all {len(self.views)} views; choose a larger one, "
                "or 0 to hold out none"
            )
        return train, test

    def with_lenses(self) -> Capture:
        """The capture with each view's lens on its camera, so that no photo is undistorted."""
        views = []
        for view in self.views:
            try:
                bent = view.camera if view.lens is None else view.lens.on(view.camera)
            except InputError as error:
                raise FileFormatError(f"{view.image}: {error}") from None
            views.append(replace(view, camera=bent, lens=None))
        return replace(self, views=tuple(views))

    def with_masks(self, folder: str | Path) -> Capture:
        """The capture with masks from a folder: a file with the same stem, or the photo's name plus .png."""
        root = Path(folder)
        if not root.is_dir():
            raise InputError(f"{root}: the folder of masks does not exist")
        files = {str(p.relative_to(root)): p for p in sorted(root.rglob("*")) if p.is_file()}
        stems = {str(Path(n).with_suffix("")): p for n, p in files.items()}
        views = []
        for view in self.views:
            stem = str(Path(view.name).with_suffix(""))
            found = files.get(f"{view.name}.png") or stems.get(stem) or stems.get(Path(stem).name)
            if found is None:
                raise InputError(f"{root}: no mask for {view.name}: expected {stem}.png or {view.name}.png")
            views.append(replace(view, mask=found))
        return replace(self, views=tuple(views))


def checked_capture(
    root: Path,
    kind: str,
    views: Sequence[View],
    points: Array | None = None,
    colors: Array | None = None,
    notes: Iterable[str] = (),
    unused: Iterable[str] = (),
) -> Capture:
    """A capture with views in the order of their names and only finite points."""
    if not views:
        raise FileFormatError(f"{root}: the {kind} capture holds no view")
    names: set[str] = set()
    for view in views:
        if view.name in names:
            raise FileFormatError(f"{root}: two views are called {view.name!r}")
        names.add(view.name)
        _check_camera(root, view)
    xyz = np.zeros((0, 3)) if points is None else np.asarray(points, np.float64).reshape(-1, 3)
    rgb = np.full((len(xyz), 3), 128, np.uint8) if colors is None else np.asarray(colors, np.uint8).reshape(-1, 3)
    ordered, said = sorted(views, key=lambda v: v.name), list(notes)
    with np.errstate(invalid="ignore"):
        kept: Array = np.asarray((np.abs(xyz) <= _FARTHEST).all(axis=1))
    if not kept.all():
        said.append(
            f"{int((~kept).sum())} of {len(xyz)} points hold NaN or infinity, or are farther away than {_FARTHEST:g}, "
            "and were left out"
        )
        row = np.cumsum(kept) - 1
        ordered = [v if v.points is None else replace(v, points=row[v.points[kept[v.points]]]) for v in ordered]
    return Capture(root, kind, tuple(ordered), xyz[kept], rgb[kept], tuple(said), tuple(sorted(unused)))


def _check_camera(root: Path, view: View) -> None:
    camera = view.camera
    if max(camera.width, camera.height) > _LONGEST_SIDE:
        raise FileFormatError(
            f"{root}: the camera of {view.name!r} has {shown(camera.width)} x {shown(camera.height)} pixels; expected "
            f"at most {_LONGEST_SIDE:,} a side"
        )
    with np.errstate(all="ignore"):
        if not (np.abs(camera.position) <= _FARTHEST).all():
            raise FileFormatError(f"{root}: the camera of {view.name!r} is farther away than {_FARTHEST:g}")
