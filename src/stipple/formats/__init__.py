"""Files that come in and go out."""

from stipple.formats.splat_ply import load_ply, save_ply

__all__ = ["load_ply", "save_ply"]
