"""Configurations of any content end in one short sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from stipple.errors import FileFormatError, InputError
from stipple.train.config import fields, layer_of, make_config
from stipple.train.config_toml import parse_setting, read_toml

VALUES = (10**400, 16**6000, 2**31, -(2**31), 1e31, float("inf"), [[[[[[1]]]]]], {"a": {}})


TOMLS = {
    "an integer of many digits": ("seed = " + "1" * 5000, "not valid TOML: a line is longer than"),
    "nested lists": ("x = " + "[" * 3000, "not valid TOML: it is nested too deeply"),
    "nested tables": ("\n".join(["x = " + "{a=" * 1200] * 3), "not valid TOML: it is nested too deeply"),
    "one dotted key": ("a." * 20_000 + "a = 1", "not valid TOML: a line is longer than"),
    "too large": ("# comment\n" * 10_000, "expected at most 65,536 bytes"),
    "no UTF-8": (b"\xff\xfe", "not valid TOML: "),
}


@pytest.mark.parametrize("case", TOMLS)
def test_configurations_that_are_none(case: str, tmp_path: Path) -> None:
    text, message = TOMLS[case]
    (tmp_path / "c.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileFormatError, match=rf"c\.toml: {message}"):
        read_toml(tmp_path / "c.toml")


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_values_beyond_all_bounds(value: object) -> None:
    """No value of the configuration takes them, and no sentence about them is long."""
    for name in fields():
        with pytest.raises(InputError) as message:
            make_config(None, layer_of(name, value))
        assert len(str(message.value)) < 500
        assert name.partition(".")[0] in str(message.value)


def test_a_setting_that_is_no_value() -> None:
    for text in ("[" * 3000, "1" * 5000, "a." * 9000 + "=3"):
        with pytest.raises(InputError, match=r"data\.test_every"):
            make_config(None, parse_setting(f"data.test_every={text}"))


def test_names_of_values_are_shown_harmlessly() -> None:
    with pytest.raises(InputError, match=r"there is no value a\\x1b\[31m"):
        make_config(None, {"a\x1b[31m": 1})
