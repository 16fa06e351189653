"""Everything that can be set about a training run, typed, with ranges and descriptions; presets.

Every field is also an option of ``stipple train`` (:mod:`stipple.cli.config_options`) and a line of ``config.toml``
(:mod:`stipple.train.config_toml`); both are derived from these definitions.

Learning rates, thresholds and intervals are those published by 3DGS and gsplat, unless a preset for the CPU changes
them. Distances are in units of the scene's extent (see :class:`stipple.scene.Normalization`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, create_model, field_validator
from pydantic.fields import FieldInfo

from stipple.errors import InputError
from stipple.text import shown, visible
from stipple.train.section import Section, option
from stipple.train.strategies import STRATEGIES, Traits, by_default, settings_of_strategies


class Data(Section):
    """Photos: which are used, and how."""

    option_prefix = ""

    downscale: float = Field(1.0, ge=1, le=64, description="use photos this many times smaller")
    test_every: int = Field(8, ge=0, description="hold out every n-th view for evaluation; 0: none")
    images: str | None = Field(None, description="folder of photos inside a COLMAP capture; by default images")
    masks: str | None = Field(
        None, description="folder of masks; bright pixels are used", json_schema_extra=option(folder=True)
    )
    intrinsics: tuple[float, float, float, float] | None = Field(
        None, description="of an RGB-D camera, in pixels", json_schema_extra=option(metavar="FX,FY,CX,CY")
    )
    depth_scale: float | None = Field(None, gt=0, description="depth map integers per world unit (RGB-D)")
    undistort: bool = Field(
        True, description="undo lens distortion in the photos; false: keep them, and render through the same lens"
    )
    allow_outside: bool = Field(
        False, description="also read files that the capture names outside its folder; for captures that you trust"
    )
    image_memory: float = Field(4.0, gt=0, description="gigabytes of decoded photos to keep; the others are streamed")


class Start(Section):
    """The Gaussians that training starts from."""

    source: Literal["auto", "points", "depth", "random"] = Field(
        "auto", description="auto: points if there are any, else depth maps, else random"
    )
    count: int = Field(50_000, ge=1, description="Gaussians of a random start, and the maximum taken from depth maps")
    opacity: float = Field(0.1, gt=0, lt=1, description="opacity at the start")
    scale: float = Field(1.0, gt=0, description="initial size, relative to the distance to the nearest neighbours")


class Schedule(Section):
    """How long training takes, and what is trained when."""

    option_prefix = ""

    steps: int = Field(7000, ge=1, description="optimiser updates, one view each")
    sh_degree: int = Field(3, ge=0, le=4, description="degree of the spherical harmonics (SH) at the end")
    sh_every: int = Field(1000, ge=1, description="steps from one SH band to the next")
    coarse: tuple[tuple[int, float], ...] = Field(
        ((4, 0.1), (2, 0.35)),
        description="pairs (factor, share of steps): photos are that many times smaller up to there",
        json_schema_extra=option(metavar="[[FACTOR, SHARE], ...]"),
    )

    @field_validator("coarse")
    @classmethod
    def _ascending(cls, value: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
        shares = [share for _, share in value]
        if any(not (factor >= 1 and 0 <= share <= 1) for factor, share in value) or shares != sorted(shares):
            raise ValueError("expected pairs (factor >= 1, share of steps from 0 to 1) with ascending shares")
        return value


class Rates(Section):
    """Learning rates of Adam."""

    means: float = Field(1.6e-4, ge=0, description="of the means at the start, in scene extents")
    means_final: float = Field(0.01, gt=0, le=1, description="share of it that is left at the end")
    scales: float = Field(5e-3, ge=0, description="of the logarithms of the scales")
    quats: float = Field(1e-3, ge=0, description="of the rotations")
    opacities: float = Field(5e-2, ge=0, description="of the opacities' logits")
    sh0: float = Field(2.5e-3, ge=0, description="of the colour that does not depend on direction")
    sh_rest: float = Field(1.25e-4, ge=0, description="of the SH bands above it")
    exposure: float = Field(1e-3, ge=0, description="of the photos' colour transforms")
    poses: float = Field(1e-5, ge=0, description="of the photos' poses")
    visible_only: bool = Field(False, description="update only the Gaussians visible in the step's view")


class Loss(Section):
    """What is minimised."""

    ssim: float = Field(0.2, ge=0, le=1, description="weight of 1 - SSIM; the rest is L1")
    depth: float = Field(
        0.0,
        ge=0,
        description="weight of the L1 of depth, where the capture has depth maps or tracks",
        json_schema_extra=option("depth-weight"),
    )
    opacity: float | None = Field(
        None, ge=0, description=f"weight of the mean opacity; by default {by_default('regularisers')}"
    )
    scale: float | None = Field(
        None, ge=0, description=f"weight of the mean scale; by default {by_default('regularisers')}"
    )
    background: Literal["auto", "random"] | tuple[float, float, float] = Field(
        "auto",
        description="auto: white behind photos with alpha, else black; random; or red,green,blue from 0 to 1",
        json_schema_extra=option("background", metavar="COLOUR"),
    )
    antialiased: bool = Field(
        False, description="train, and later render, with antialiasing", json_schema_extra=option("antialiased")
    )


class CommonDensity(Section):
    """How the number of Gaussians changes."""

    strategy: str = Field(
        "default",
        description=f"how the number changes: {', '.join(STRATEGIES)}",
        json_schema_extra=option("strategy", metavar="NAME"),
    )
    max_count: int = Field(
        400_000, ge=1, description="maximum number of Gaussians", json_schema_extra=option("max-gaussians")
    )
    start: int = Field(500, ge=0, description="first step at which the number changes")
    stop: float | None = Field(
        None,
        ge=0,
        le=1,
        description=f"share of steps after which the number is fixed; by default {by_default('stop')}",
    )
    every: int = Field(100, ge=1, description="steps between changes")
    prune_opacity: float = Field(
        0.005, ge=0, lt=1, description="Gaussians with a lower opacity are removed, or relocated (mcmc)"
    )

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise ValueError(f"expected one of {', '.join(STRATEGIES)}")
        return name

    @property
    def traits(self) -> Traits:
        """What the strategy declares to the rest of training."""
        return STRATEGIES[self.strategy].traits


if TYPE_CHECKING:

    class Density(CommonDensity):  # noqa: D101
        def __getattr__(self, name: str) -> Any: ...

else:  # values that strategies declare in their own files belong to this section too
    Density = create_model("Density", __base__=(*settings_of_strategies(CommonDensity), CommonDensity))
    Density.__doc__ = CommonDensity.__doc__


class Extras(Section):
    """What else is fitted."""

    exposure: bool = Field(
        False, description="fit an affine colour transform to each training photo", json_schema_extra=option("exposure")
    )
    poses: bool = Field(
        False, description="refine the poses of training photos", json_schema_extra=option("refine-poses")
    )


class Output(Section):
    """What is written, and when."""

    option_prefix = ""

    checkpoint_every: int = Field(1000, ge=1, description="steps between checkpoints")
    evaluate_every: int = Field(0, ge=0, description="steps between evaluations of held-out views; 0: five in all")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")


class Config(Section):
    """A whole configuration."""

    option_prefix = ""

    preset: Literal["fast", "standard", "quality"] = Field(
        "standard", description="preset that the other values start from; fast takes minutes"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything random")
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


def make_config(name: str | None, *layers: Mapping[str, Any]) -> Config:
    """A preset with values that override it, later layers overriding earlier ones.

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
        known = ", ".join(n for n in fields() if n.startswith(f"{first['loc'][0]}."))
        return f"there is no value {where}" + (f"; expected one of {known}" if known else "")
    return f"{where}: {first['msg'].removeprefix('Value error, ').lower()}, got {shown(first['input'])}"


def _lay_over(values: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            values[key] = {**values[key], **value}
        else:
            values[key] = value


def layer_of(name: str, value: Any) -> dict[str, Any]:
    """One value, ``section.key`` or ``key``, as a layer."""
    section, _, key = name.rpartition(".")
    return {section: {key: value}} if section else {key: value}


def sections() -> dict[str, type[Section]]:
    """The sections by name; the values that belong to none are in Config itself, under the name ""."""
    kinds = {name: field.annotation for name, field in Config.model_fields.items()}
    return {"": Config, **{n: k for n, k in kinds.items() if isinstance(k, type) and issubclass(k, Section)}}


def fields() -> dict[str, FieldInfo]:
    """Every value's declaration, by its name: ``key`` or ``section.key``."""
    kinds = sections()
    return {
        f"{section}.{name}" if section else name: field
        for section, kind in kinds.items()
        for name, field in kind.model_fields.items()
        if section or name not in kinds
    }
