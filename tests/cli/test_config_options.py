"""Options of the commands that take configurations: one for every field, with its range and help."""

from __future__ import annotations

import re

import click
import pytest

from running import stipple
from stipple.cli.config_options import ConfigCommand, given_layers
from stipple.cli.train import train
from stipple.train.config import fields, make_config

BEFORE = {  # what users have in their scripts
    "--steps": "schedule.steps", "--downscale": "data.downscale", "--test-every": "data.test_every",
    "--images": "data.images", "--masks": "data.masks", "--intrinsics": "data.intrinsics",
    "--depth-scale": "data.depth_scale", "--allow-outside": "data.allow_outside",
    "--image-memory": "data.image_memory", "--max-gaussians": "density.max_count", "--strategy": "density.strategy",
    "--sh-degree": "schedule.sh_degree", "--depth-weight": "loss.depth", "--background": "loss.background",
    "--antialiased": "loss.antialiased", "--exposure": "extras.exposure", "--refine-poses": "extras.poses",
    "--checkpoint-every": "output.checkpoint_every", "--seed": "seed",
}  # fmt: skip


def options() -> dict[str, click.Option]:
    """The options of ``train`` by every name they have."""
    context = click.Context(train)
    return {
        n: p for p in train.get_params(context) if isinstance(p, click.Option) for n in (*p.opts, *p.secondary_opts)
    }


def test_every_field_is_an_option_and_names_stay() -> None:
    found = options()
    paths = [o.name.replace("__", ".") for o in found.values() if o.name]
    assert set(fields()) - set(paths) == set()
    for name, field in BEFORE.items():
        assert found[name].name == field.replace(".", "__")


def test_help_lists_them_by_section() -> None:
    text = stipple("train", "--help").output
    for name in options():
        assert re.search(rf"{name}\b", text), name
    assert "What is minimised:" in text
    assert "[x>=1]" in text


def test_given_options_are_in_the_configuration() -> None:
    given = ["--no-antialiased", "--intrinsics", "1,2,3,4", "--start-source", "random", "--coarse", "[[2, 0.5]]"]
    given += ["--background", "random", "--density-growth", "0.5", "--rates-visible-only", "--density-stop", "0.25"]
    with train.make_context("train", ["capture", "-o", "out", *given]) as context:
        flags = {k: v for k, v in context.params.items() if "__" in k or k == "seed"}
    config = make_config(None, {"loss": {"antialiased": True}}, *given_layers(flags, ("seed=5",)))
    assert not config.loss.antialiased
    assert config.data.intrinsics == (1, 2, 3, 4)
    assert (config.start.source, config.schedule.coarse, config.loss.background) == ("random", ((2, 0.5),), "random")
    assert (config.density.growth, config.rates.visible_only, config.last_change) == (0.5, True, 1750)
    assert (config.seed, config.schedule.steps) == (5, 7000), "what is not given stays"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--steps", "0"], "0 is not in the range x>=1"),
        (["--start-opacity", "1"], "1.0 is not in the range 0<x<1"),
        (["--start-source", "air"], "'air' is not one of 'auto', 'points', 'depth', 'random'"),
        (["--density-every", "x"], "'x' is not a valid integer"),
        (["--intrinsics", "1,2,x,4"], "--intrinsics: expected numbers separated by commas, got '1,2,x,4'"),
        (["--intrinsics", "1,2"], "config: data.intrinsics"),
        (["--coarse", "[[2, 0.5], [1, 0.2]]"], "with ascending shares"),
        (["--strategy", "magic"], "density.strategy: expected one of default"),
        (["--preset", "magic"], "'magic' is not one of"),
    ],
)
def test_what_is_wrong_is_named(given: list[str], message: str) -> None:
    result = stipple("train", "--show-config", *given)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())


def test_a_command_may_take_some() -> None:
    text = stipple("inspect", "--help").output
    assert "--test-every" in text
    assert "--image-memory" not in text, "nothing that inspect has no use for"
    assert "--steps" not in text
    assert isinstance(train, ConfigCommand)
