"""Configuration: presets, layers, files, and values that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from stipple.errors import FileFormatError, InputError
from stipple.train import make_config
from stipple.train.config import PRESETS, Config, fields
from stipple.train.config_toml import parse_setting, read_toml, to_toml


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_file(name: str, tmp_path: Path) -> None:
    config = make_config(name)
    (tmp_path / "c.toml").write_text(to_toml(config, comments=False))
    assert make_config(None, read_toml(tmp_path / "c.toml")) == config
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert make_config(None, read_toml(tmp_path / "c.toml")) == config


def test_layers_lie_over_each_other() -> None:
    config = make_config("fast", {"schedule": {"steps": 5}}, parse_setting("density.every=7"), parse_setting("seed=3"))
    assert (config.preset, config.schedule.steps, config.density.every, config.seed) == ("fast", 5, 7, 3)
    assert parse_setting("loss.background=random") == {"loss": {"background": "random"}}
    assert parse_setting("loss.background=[0,1,0.5]") == {"loss": {"background": [0, 1, 0.5]}}


def test_every_value_says_what_it_is() -> None:
    assert {name for name, field in fields().items() if not field.description} == set()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"schedule": {"steps": 0}}, "schedule.steps: .*greater than or equal to 1, got 0"),
        ({"schedule": {"steps": "many"}}, "schedule.steps: .*integer.*'many'"),
        ({"density": {"strategy": "magic"}}, "density.strategy"),
        ({"loss": {"colour": 1}}, "there is no value loss.colour; expected one of loss.ssim"),
        ({"looss": {"ssim": 1}}, "there is no value looss"),
        ({"rates": {"means": float("nan")}}, "rates.means"),
        ({"schedule": {"coarse": [[2, 0.5], [4, 0.2]]}}, "ascending"),
        ({"loss": {"background": [0, 1]}}, "loss.background"),
        ({"preset": "turbo"}, "preset: expected one of"),
    ],
)
def test_wrong_values_are_named(layer: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_config(None, layer)


def test_wrong_settings_and_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"density\.every"):
        parse_setting("densitty.every=7")
    with pytest.raises(InputError, match="expected section"):
        parse_setting("density.every")
    (tmp_path / "c.toml").write_text("[schedule\nsteps = 3")
    with pytest.raises(FileFormatError, match="not valid TOML"):
        read_toml(tmp_path / "c.toml")


def test_config_is_immutable() -> None:
    config = Config()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_presets_are_those_that_the_field_names() -> None:
    assert get_args(Config.model_fields["preset"].annotation) == tuple(PRESETS)
