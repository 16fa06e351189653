"""Captures: posed photos from COLMAP, nerfstudio, Blender and RGB-D sensors, all read into one representation."""

from stipple.formats.captures.frames import Frame, frame_camera, load_frame, sparse_depth
from stipple.formats.captures.layouts import CaptureOptions
from stipple.formats.captures.locate import open_capture
from stipple.formats.captures.model import Capture, Lens, View

__all__ = [
    "Capture",
    "CaptureOptions",
    "Frame",
    "Lens",
    "View",
    "frame_camera",
    "load_frame",
    "open_capture",
    "sparse_depth",
]
