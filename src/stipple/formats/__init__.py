"""Files that come in and go out."""

from stipple.formats.scenes import load_ply, load_scene, save_ply, save_scene

__all__ = ["load_ply", "load_scene", "save_ply", "save_scene"]
