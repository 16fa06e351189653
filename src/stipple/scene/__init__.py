"""The scene: trainable Gaussians, cameras, spherical harmonics (SH)."""

from stipple.scene.camera import Camera
from stipple.scene.gaussians import Gaussians
from stipple.scene.normalization import Normalization
from stipple.scene.sh import rgb_to_sh, sh_to_rgb

__all__ = ["Camera", "Gaussians", "Normalization", "rgb_to_sh", "sh_to_rgb"]
