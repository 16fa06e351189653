"""The scene: trainable Gaussians, cameras, spherical harmonics."""

from stipple.scene.camera import Camera
from stipple.scene.gaussians import Gaussians
from stipple.scene.harmonics import rgb_to_sh, sh_to_rgb

__all__ = ["Camera", "Gaussians", "rgb_to_sh", "sh_to_rgb"]
