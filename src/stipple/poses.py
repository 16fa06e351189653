"""Camera poses from plain photos, by COLMAP (Schoenberger and Frahm, "Structure-from-Motion Revisited", 2016).

Needs the extra ``poses`` (pycolmap). The result is a capture: photos, and a COLMAP model as text that holds only what
training uses.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stipple.errors import DeviceError, InputError
from stipple.files import atomic_write
from stipple.formats.captures.pixels import IMAGE_SUFFIXES, open_image, turned_upright
from stipple.formats.reading import read_bytes
from stipple.text import visible

_ORDERED_OVERLAP = 6
_EXHAUSTIVE_UP_TO = 150
_QUALITY = 92
_MILD_TRIES = 6
_ENOUGH_PHOTOS = 0.9
_ONE_THREAD_UP_TO = 100
_NOT_COLMAP = (".webp", ".avif")
_GREY_OR_RGB = ("L", "RGB")
_MODES = {  # modes that files with a suffix can hold; others are converted to RGB
    ".jpg": _GREY_OR_RGB, ".jpeg": _GREY_OR_RGB, ".bmp": _GREY_OR_RGB, ".png": (*_GREY_OR_RGB, "RGBA", "LA", "I;16"),
    ".tif": (*_GREY_OR_RGB, "RGBA", "I;16", "F"), ".tiff": (*_GREY_OR_RGB, "RGBA", "I;16", "F"),
}  # fmt: skip


@dataclass(frozen=True)
class PosedPhotos:
    """The outcome: number of photos, photos with a pose, points, mean reprojection error in pixels."""

    photos: int
    posed: int
    points: int
    error: float


def make_poses(
    photos: Path,
    out: Path,
    *,
    ordered: bool = False,
    one_camera: bool = True,
    thorough: bool = False,
    max_size: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> PosedPhotos:
    """Find the poses of a folder of photos and write a capture to ``out``.

    ``ordered`` photos (a walk, a video) are matched with their neighbours only; ``one_camera`` means that one camera
    with one focal length took them all; ``thorough`` looks for more features, which takes much longer. Photos are
    stored with their longer side at most ``max_size`` pixels; poses are computed from the originals. Up to 100 photos
    give the same poses every time; more of them are mapped by several threads, whose sums differ in their last digits.
    Raises InputError if too few photos can be matched.
    """
    pycolmap = _pycolmap()
    files = sorted(p for p in photos.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if photos.is_dir() else []
    if len(files) < 3:
        raise InputError(f"{photos}: expected a folder with at least 3 photos, found {len(files)}")
    _check_names(files)
    if (out / "sparse").exists():
        raise InputError(f"{out}: already holds a capture; choose another folder")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        upright = work / "images"
        upright.mkdir()
        for file in files:
            store_photo(file, upright / _stored_name(file), None)
        database = work / "database.db"
        say(f"looking for features in {len(files)} photos ...")
        mode = pycolmap.CameraMode.SINGLE if one_camera else pycolmap.CameraMode.AUTO
        pycolmap.Database.open(database).close()
        pycolmap.import_images(database, upright, camera_mode=mode)  # ids in the order of names
        pycolmap.extract_features(
            database, upright, camera_mode=mode, extraction_options=_extraction(pycolmap, thorough)
        )
        unread = _without_features(pycolmap, database, upright)
        if unread:
            raise InputError(f"{photos}: COLMAP could not read {', '.join(unread)}; is there enough memory and disk?")
        say("matching ...")
        _match(pycolmap, database, len(files), ordered, thorough)
        say("finding poses ...")
        model = _map(pycolmap, database, upright, work)
        if model is None or model.num_reg_images() < 3:
            raise InputError(
                f"{photos}: the photos could not be connected; take more of them, sharp, from places closer together, "
                "of something that does not move"
            )
        named = {i.name for i in model.images.values() if i.has_pose}
        (out / "images").mkdir(parents=True, exist_ok=True)
        for name in sorted(named):
            store_photo(upright / name, out / "images" / name, max_size)
    _write_model(model, out / "sparse" / "0")
    return PosedPhotos(len(files), len(named), model.num_points3D(), model.compute_mean_reprojection_error())


def _pycolmap() -> Any:
    try:
        import pycolmap
    except ImportError:
        raise DeviceError("poses need COLMAP: pip install 'stipple[poses]'") from None
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    pycolmap.set_random_seed(0)
    return pycolmap


def _check_names(files: Sequence[Path]) -> None:
    """Refuse names that a model's text files cannot hold: each is at the end of a line, in UTF-8."""
    for file in files:
        if visible(file.name) != file.name or file.name.strip() != file.name:
            raise InputError(
                f"{file}: rename this photo: its name must be UTF-8, without control characters and spaces at its ends"
            )
    stored = [_stored_name(f) for f in files]
    for i, name in enumerate(stored):
        if name in stored[:i]:
            raise InputError(f"{files[i]}: rename this photo: {name} would be stored twice")


def _stored_name(photo: Path) -> str:
    """A photo's name in the capture: unchanged, unless it is stored as JPEG because COLMAP cannot read it."""
    return photo.name if photo.suffix.lower() not in _NOT_COLMAP else photo.name + ".jpg"


def store_photo(source: Path, target: Path, max_size: int | None) -> None:
    """Store a photo, rotated upright and reduced to ``max_size``; copied unchanged if neither is needed.

    Raises FileFormatError, naming a photo that cannot be decoded.
    """
    with open_image(source) as image:
        image.load()
        photo = turned_upright(image)
        if max_size is not None and max(photo.size) > max_size:
            width, height = (max(1, round(n * max_size / max(photo.size))) for n in photo.size)
            photo = photo.resize((width, height), Image.Resampling.LANCZOS)
        same = photo is image and source.suffix == target.suffix
        modes = _MODES.get(target.suffix.lower(), ("RGB",))
        clean = photo if same or photo.mode in modes else photo.convert("RGB")
        if not same:
            clean = clean.copy()
    if same:
        target.write_bytes(read_bytes(source))
        return
    clean.info = {}  # comments and colour profiles may be broken, and nothing uses them
    clean.save(target, quality=_QUALITY)


def _extraction(pycolmap: Any, thorough: bool) -> Any:
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = os.cpu_count() or 1
    if thorough:
        options.sift.max_num_features = 16384
        options.sift.peak_threshold = 0.003
        options.sift.estimate_affine_shape = True
        options.sift.domain_size_pooling = True
    return options


def _without_features(pycolmap: Any, database: Path, images: Path) -> list[str]:
    """The photos that COLMAP has left out. It continues without them, so poses would belong to the wrong photos."""
    with pycolmap.Database.open(database) as opened:
        read = {i.name for i in opened.read_all_images() if opened.exists_keypoints(i.image_id)}
    return sorted(p.name for p in images.iterdir() if p.name not in read)


def _match(pycolmap: Any, database: Path, count: int, ordered: bool, thorough: bool) -> None:
    matching = pycolmap.FeatureMatchingOptions()
    matching.guided_matching = thorough
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = 0
    if ordered or count > _EXHAUSTIVE_UP_TO:
        pairing = pycolmap.SequentialPairingOptions()
        pairing.overlap = _ORDERED_OVERLAP
        pairing.quadratic_overlap = False
        pycolmap.match_sequential(
            database, matching_options=matching, pairing_options=pairing, verification_options=verification
        )
    else:
        pycolmap.match_exhaustive(database, matching_options=matching, verification_options=verification)


def _map(pycolmap: Any, database: Path, images: Path, work: Path) -> Any:
    """The largest model of several attempts, which end when it contains most photos."""
    best, count = None, len(list(images.iterdir()))
    for i, options in enumerate(_mapping(pycolmap, count)):
        folder = work / f"model{i}"
        folder.mkdir()
        models = pycolmap.incremental_mapping(database, images, folder, options=options)
        for model in models.values():
            if best is None or model.num_reg_images() > best.num_reg_images():
                best = model
        if best is not None and best.num_reg_images() >= _ENOUGH_PHOTOS * count:
            break
    return best


def _mapping(pycolmap: Any, count: int) -> Sequence[Any]:
    """COLMAP's usual thresholds, then milder ones with several seeds: the initial pair of photos is random."""

    def seeded(seed: int) -> Any:
        options = pycolmap.IncrementalPipelineOptions()
        options.random_seed = options.mapper.random_seed = seed
        if count <= _ONE_THREAD_UP_TO:
            options.num_threads = options.mapper.num_threads = 1
        return options

    tries = [seeded(0)]
    for seed in range(_MILD_TRIES):
        # photos of a walk along a street look almost in the direction of motion: small angles between them
        mild = seeded(seed)
        mild.min_model_size = 3
        mild.mapper.init_min_tri_angle = 4
        mild.mapper.init_min_num_inliers = 50
        mild.mapper.init_max_forward_motion = 0.99
        mild.mapper.abs_pose_min_num_inliers = 15
        mild.triangulation.min_angle = 0.7
        mild.mapper.filter_min_tri_angle = 0.7
        tries.append(mild)
    return tries


def _write_model(model: Any, folder: Path) -> None:
    """Write a COLMAP model as text, with only those observations that belong to points."""
    folder.mkdir(parents=True, exist_ok=True)
    cameras = [
        f"{c.camera_id} {c.model.name} {c.width} {c.height} {' '.join(f'{p:.6f}' for p in c.params)}"
        for c in model.cameras.values()
    ]
    images = []
    for image in sorted(model.images.values(), key=lambda i: i.name):
        if image.has_pose:
            pose = image.cam_from_world()
            x, y, z, w = pose.rotation.quat
            numbers = " ".join(f"{v:.9f}" for v in (w, x, y, z, *pose.translation))
            images.append(f"{image.image_id} {numbers} {image.camera_id} {image.name}")
            observed = [p for p in image.points2D if p.has_point3D()]
            images.append(" ".join(f"{p.xy[0]:.1f} {p.xy[1]:.1f} {p.point3D_id}" for p in observed))
    points = [
        f"{number} {' '.join(f'{v:.5f}' for v in p.xyz)} {' '.join(str(int(c)) for c in p.color)} {p.error:.3f}"
        for number, p in sorted(model.points3D.items())
    ]
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
        with atomic_write(folder / f"{name}.txt") as file:
            file.write(("\n".join(lines) + "\n").encode())
