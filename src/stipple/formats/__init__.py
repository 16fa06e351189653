"""Input and output files: scenes and captures."""

from stipple.formats.scenes import load_ply, load_scene, save_ply, save_scene

__all__ = ["load_ply", "load_scene", "save_ply", "save_scene"]
