"""Everything that a training run can be told, typed, with ranges; TOML in and out; presets.

Rates, thresholds and intervals are those 3DGS and gsplat publish, unless a preset for the CPU says otherwise.
Distances are in units of the scene's extent (see :class:`stipple.scene.Normalization`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stipple.errors import FileFormatError, InputError
from stipple.formats.reading import read_bytes
from stipple.text import shown, visible
from stipple.train.strategies import STRATEGIES, Traits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_MOST_BYTES, _LONGEST_LINE = 1 << 16, 1 << 12  # reading dotted keys takes time that grows with their length squared
_INTEGERS, _NUMBERS, _DEEPEST = 2**31, 1e30, 4


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _held(cls, value: Any) -> Any:
        """What 32-bit integers and floats hold, nothing nested without end."""
        _check_numbers(value, _DEEPEST)
        return value


def _check_numbers(value: Any, depth: int) -> None:
    if isinstance(value, int) and not -_INTEGERS < value < _INTEGERS:
        raise ValueError(f"expected a whole number below {_INTEGERS}")
    if isinstance(value, float) and abs(value) > _NUMBERS:
        raise ValueError(f"expected a number no larger than {_NUMBERS:g}")
    if isinstance(value, (list, tuple)):
        if not depth:
            raise ValueError("expected fewer lists in lists")
        for item in value:
            _check_numbers(item, depth - 1)


class Data(_Section):
    """Which photos are used, and how."""

    downscale: float = Field(1.0, ge=1, le=64, description="train on photos this many times smaller")
    test_every: int = Field(8, ge=0, description="hold out every n-th view for evaluation; 0: none")
    images: str | None = Field(None, description="folder of photos inside a COLMAP capture")
    masks: str | None = Field(None, description="folder of masks; bright pixels count")
    intrinsics: tuple[float, float, float, float] | None = Field(None, description="fx, fy, cx, cy (RGB-D)")
    depth_scale: float | None = Field(None, gt=0, description="integers of depth to a world unit (RGB-D)")
    allow_outside: bool = Field(False, description="also read files that the capture names outside of its folder")
    image_memory: float = Field(4.0, gt=0, description="gigabytes of decoded photos kept; more are streamed")


class Start(_Section):
    """The Gaussians that training starts from."""

    source: Literal["auto", "points", "depth", "random"] = Field(
        "auto", description="auto: points if there are any, else depth maps, else random"
    )
    count: int = Field(50_000, ge=1, description="Gaussians of a random start, and the most taken from depth maps")
    opacity: float = Field(0.1, gt=0, lt=1, description="opacity they start with")
    scale: float = Field(1.0, gt=0, description="factor on the distance to their neighbours")


class Schedule(_Section):
    """How long, and what is learnt when."""

    steps: int = Field(7000, ge=1, description="optimiser updates, one view each")
    sh_degree: int = Field(3, ge=0, le=4, description="harmonics that colours end with")
    sh_every: int = Field(1000, ge=1, description="steps from one band of harmonics to the next")
    coarse: tuple[tuple[int, float], ...] = Field(
        ((4, 0.1), (2, 0.35)), description="(factor, share of steps): photos are this much smaller up to there"
    )

    @field_validator("coarse")
    @classmethod
    def _ascending(cls, value: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
        shares = [share for _, share in value]
        if any(not (factor >= 1 and 0 <= share <= 1) for factor, share in value) or shares != sorted(shares):
            raise ValueError("expected pairs (factor >= 1, share of steps from 0 to 1) with ascending shares")
        return value


class Rates(_Section):
    """Learning rates of Adam."""

    means: float = Field(1.6e-4, ge=0, description="at the start, in scene extents")
    means_final: float = Field(0.01, gt=0, le=1, description="share of it that is left at the end")
    scales: float = Field(5e-3, ge=0)
    quats: float = Field(1e-3, ge=0)
    opacities: float = Field(5e-2, ge=0)
    sh0: float = Field(2.5e-3, ge=0, description="of the colour that is the same from all sides")
    sh_rest: float = Field(1.25e-4, ge=0, description="of the colours that change with direction")
    exposure: float = Field(1e-3, ge=0)
    poses: float = Field(1e-5, ge=0)
    visible_only: bool = Field(False, description="update only Gaussians that the step's view sees")


class Loss(_Section):
    """What is minimised."""

    ssim: float = Field(0.2, ge=0, le=1, description="weight of 1 - SSIM; the rest is L1")
    depth: float = Field(0.0, ge=0, description="weight of the L1 of depth, where the capture has depth or tracks")
    opacity: float | None = Field(None, ge=0, description="weight of the mean opacity; else 0.01 with mcmc, or 0")
    scale: float | None = Field(None, ge=0, description="weight of the mean scale; else 0.01 with mcmc, or 0")
    background: Literal["auto", "random"] | tuple[float, float, float] = Field(
        "auto", description="auto: white behind photos with alpha, else black; random; or red, green, blue"
    )
    antialiased: bool = Field(False, description="train, and later render, with antialiasing")


class Density(_Section):
    """How the number of Gaussians changes."""

    strategy: str = Field("default", description="adaptive density control (default), mcmc, or none")
    max_count: int = Field(400_000, ge=1, description="never more Gaussians than this")
    start: int = Field(500, ge=0, description="first step at which they change")
    stop: float | None = Field(
        None, ge=0, le=1, description="share of steps after which they do not change; else 0.8 with mcmc, or 0.5"
    )
    every: int = Field(100, ge=1, description="steps between changes")
    prune_opacity: float = Field(0.005, ge=0, lt=1, description="fainter ones are removed, or relocated (mcmc)")
    # default
    grow_gradient: float = Field(2e-4, gt=0, description="2D gradient, in half image sizes, above which one divides")
    absolute: bool = Field(False, description="sum absolute 2D gradients (AbsGS); use about 8e-4 then")
    split_scale: float = Field(0.01, gt=0, description="larger ones are split, smaller ones cloned")
    prune_scale: float = Field(0.1, gt=0, description="larger ones are removed, after the first opacity reset")
    reset_every: int = Field(3000, ge=0, description="steps between resets of opacities; 0: never")
    # mcmc
    growth: float = Field(0.05, ge=0, le=1, description="share of Gaussians added each time, up to max_count")
    noise: float = Field(5e5, ge=0, description="factor of the noise on means, times their learning rate")

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise ValueError(f"expected one of {', '.join(STRATEGIES)}")
        return name

    @property
    def traits(self) -> Traits:
        """What the strategy wants of the rest of training."""
        return STRATEGIES[self.strategy].traits


class Extras(_Section):
    """What else is fitted."""

    exposure: bool = Field(False, description="fit an affine colour transform to each training photo")
    poses: bool = Field(False, description="refine the poses of training photos")


class Output(_Section):
    """What is written, and when."""

    checkpoint_every: int = Field(1000, ge=1, description="steps between checkpoints")
    evaluate_every: int = Field(0, ge=0, description="steps between evaluations of held-out views; 0: five in all")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")


class Config(_Section):
    """A whole configuration."""

    preset: str = Field("standard", description="what the other values started from")
    seed: int = Field(0, ge=0, lt=2**31)
    data: Data = Data()
    start: Start = Start()
    schedule: Schedule = Schedule()
    rates: Rates = Rates()
    loss: Loss = Loss()
    density: Density = Density()
    extras: Extras = Extras()
    output: Output = Output()

    @property
    def regularisers(self) -> tuple[float, float]:
        """Weights of the mean opacity and the mean scale; the strategy's where none are given."""
        usual = self.density.traits.regularisers
        opacity, scale = self.loss.opacity, self.loss.scale
        return usual if opacity is None else opacity, usual if scale is None else scale

    @property
    def last_change(self) -> float:
        """The step after which the number of Gaussians does not change."""
        share = self.density.traits.stop if self.density.stop is None else self.density.stop
        return share * self.schedule.steps

    def to_toml(self) -> str:
        """The configuration as TOML; values that are None are left out."""
        return tomli_w.dumps(self.model_dump(exclude_none=True, mode="json"))


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "fast": {
        "schedule": {"steps": 2000, "sh_every": 400},
        "density": {"start": 200, "stop": 0.6, "reset_every": 0, "max_count": 150_000},
        "output": {"checkpoint_every": 500},
    },
    "standard": {},
    "quality": {
        "schedule": {"steps": 30_000, "coarse": ((4, 0.01), (2, 0.05))},
        "density": {"max_count": 1_000_000},
    },
}


def preset(name: str) -> Config:
    """A configuration by the name of its preset."""
    if not isinstance(name, str) or name not in PRESETS:  # from a file it may be anything
        raise InputError(f"preset: expected one of {', '.join(PRESETS)}, got {shown(name)}")
    return Config.model_validate({"preset": name, **PRESETS[name]})


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises FileFormatError, naming it, where it is none."""
    try:
        return _parse_toml(read_bytes(path, _MOST_BYTES).decode())
    except FileFormatError:
        raise
    except ValueError as error:
        raise FileFormatError(f"{path}: not valid TOML: {error}") from None


def _parse_toml(text: str) -> dict[str, Any]:
    """Tables from TOML. Raises ValueError."""
    if any(len(line) > _LONGEST_LINE for line in text.split("\n")):
        raise ValueError(f"a line is longer than {_LONGEST_LINE} characters")
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return tables


def make_config(name: str | None, *layers: Mapping[str, Any]) -> Config:
    """A preset with values laid over it, later layers over earlier ones.

    Raises InputError that names the value, what it is and what was expected.
    """
    chosen = name or next((layer["preset"] for layer in reversed(layers) if "preset" in layer), "standard")
    values = preset(chosen).model_dump(exclude_none=True)
    for layer in layers:
        _lay_over(values, layer)
    values["preset"] = chosen
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError(f"config: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    """The first of a validation's errors, in one sentence."""
    first = error.errors()[0]
    where = visible(".".join(str(part)[:80] for part in first["loc"][:2])) or "values"
    if first["type"] == "extra_forbidden":
        known = ", ".join(n for n, _ in fields() if n.startswith(f"{first['loc'][0]}."))
        return f"there is no value {where}" + (f"; known are {known}" if known else "")
    return f"{where}: {first['msg'].removeprefix('Value error, ').lower()}, got {shown(first['input'])}"


def _lay_over(values: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            values[key] = {**values[key], **value}
        else:
            values[key] = value


def parse_setting(text: str) -> dict[str, Any]:
    """``section.key=value``, the value in TOML or a bare word, as a layer."""
    name, _, value = text.partition("=")
    known = dict(fields())
    if not value or name.strip() not in known:
        near = ", ".join(n for n in known if name.strip().split(".")[-1] in n) or "see --show-config"
        raise InputError(f"--set {text}: expected section.key=value with a known key ({near})")
    try:
        parsed = _parse_toml(f"v = {value}")["v"]
    except ValueError:
        parsed = value
    return layer_of(name.strip(), parsed)


def layer_of(name: str, value: Any) -> dict[str, Any]:
    """One value, ``section.key`` or ``key``, as a layer."""
    section, _, key = name.rpartition(".")
    return {section: {key: value}} if section else {key: value}


def annotated_toml(config: Config) -> str:
    """The configuration as TOML, each value with a comment that says what it means; unset ones as comments."""
    described = dict(fields())
    given = config.model_dump(exclude_none=True, mode="json")
    lines, section = [], ""
    for line in config.to_toml().splitlines():
        if line.startswith("["):
            section = line.strip("[]") + "."
            unset = [
                n for n in described if n.startswith(section) and n.removeprefix(section) not in given[section[:-1]]
            ]
            lines += [line, *(f"# {n.removeprefix(section)} = ...".ljust(32) + f" # {described[n]}" for n in unset)]
            continue
        comment = described.get(section + line.split(" = ")[0]) if " = " in line else None
        lines.append(f"{line:<32} # {comment}" if comment else line)
    return "\n".join(lines)


def fields() -> Iterator[tuple[str, str]]:
    """Every value's name, section.key, and what it means."""
    for name, field in Config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, _Section):
            yield from ((f"{name}.{k}", f.description or "") for k, f in kind.model_fields.items())
        else:
            yield name, field.description or ""
