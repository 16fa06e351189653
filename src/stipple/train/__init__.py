"""Training: from a capture to a scene, on one device, in one compiled graph per step."""

from stipple.train.config import Config, make_config, preset
from stipple.train.problem import Problem
from stipple.train.progress import Meter
from stipple.train.rundir import RunFolder
from stipple.train.trainer import Outcome, Trainer

__all__ = ["Config", "Meter", "Outcome", "Problem", "RunFolder", "Trainer", "make_config", "preset"]
