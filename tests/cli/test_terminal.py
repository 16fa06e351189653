"""The commands on terminals of every encoding, with names that hold everything a name can."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import stipple
from captures import truth, write_colmap
from stipple.cli import main
from stipple.cli.terminal import Terminal
from stipple.formats import save_ply
from stipple.text import shown, visible

NAMES = ("[red]x[bold]", "$x^{", ":smile: $\\frac$", "日本 é", "a\x1b[31mb\x07", "two\nlines", os.fsdecode(b"caf\xe9"))


def named(folder: Path, name: str) -> Path:
    try:
        os.lstat(folder / name)
    except FileNotFoundError:
        return folder / name
    except (OSError, ValueError, UnicodeError):
        pytest.skip("this file system stores no such name")
    return folder / name


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="stipple")
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", result.output), "only what a terminal shows"
    return result


def ball(path: Path) -> Path:
    rng = np.random.default_rng(0)
    save_ply(stipple.Gaussians.from_linear(rng.normal(size=(40, 3)), 0.15, 0.8, rng.uniform(size=(40, 3))), path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str, tmp_path: Path) -> None:
    scene = ball(named(tmp_path, f"{name}.ply"))
    written = tmp_path / f"{name}.png"
    for command in (("info", scene), ("render", scene, "-o", written, "--size", "32x24")):
        result = run(*command)
        assert result.exit_code == 0, result.output
        flat = re.sub(r"\s+", "", result.output)
        assert re.sub(r"\s+", "", visible(name)) in flat
    missing = run("info", tmp_path / f"{name}.missing")
    assert missing.exit_code == 1
    assert missing.output == f"Error: {visible(str(tmp_path / name))}.missing: No such file or directory\n"


@pytest.mark.parametrize("name", NAMES)
def test_captures_and_photos_of_every_name(name: str, tmp_path: Path) -> None:
    capture = named(tmp_path, name)
    write_colmap(truth(), capture)
    (capture / "images/stray.png").write_bytes((capture / "images/000.png").read_bytes())
    (capture / "images/stray.png").rename(capture / "images" / f"{name}.png")
    result = run("inspect", capture, "-o", tmp_path / f"{name}.picture")
    assert (result.exit_code, "expected a picture" in result.output) == (1, True)
    result = run("inspect", capture, "-o", tmp_path / f"{name}.png")
    assert result.exit_code == 0, result.output
    assert f"1 photos have no pose and are not used: {visible(name)}.png" in result.output
    run_folder = tmp_path / f"run {name}"
    result = run("train", capture, "-o", run_folder, "--steps", 2, "--preset", "fast")
    assert result.exit_code == 0, result.output
    result = run("eval", run_folder, "--save-images")
    assert result.exit_code == 0, result.output
    assert "000.png" in result.output


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_command_on_every_encoding(encoding: str, tmp_path: Path) -> None:
    """In processes of their own, as the encoding belongs to a process."""
    scene = ball(named(tmp_path, "日本 é.ply"))
    capture = tmp_path / "é日"
    write_colmap(truth(), capture)
    commands = {
        ("--help",): 0,
        ("info", scene): 0,
        ("render", scene, "-o", tmp_path / "日.png", "--size", "32x24"): 0,
        ("devices",): 0,
        ("inspect", capture, "-o", tmp_path / "日 2.png"): 0,
        ("train", capture, "-o", tmp_path / "日", "--steps", 2, "--preset", "fast"): 0,
        ("eval", tmp_path / "日"): 0,
        ("train", "--show-config"): 0,
        ("info", tmp_path / "日 3.ply"): 1,
        ("poses", tmp_path, "-o", tmp_path / "é"): 1,
        ("render", scene, "-o", "日.xyz"): 2,
    }
    code = "import sys; from stipple.cli import main\nfor line in sys.stdin.buffer.read().decode().split('\\n'):\n"
    code += "    try: main(line.split('\\t'))\n    except SystemExit as end: print('STATUS', end.code)\n"
    given = "\n".join("\t".join(map(str, c)) for c in commands)
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=given.encode(),
        capture_output=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"},
    )
    said = done.stdout.decode(encoding)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in said + done.stderr.decode("utf-8", "replace")
    assert [int(s) for s in re.findall(r"STATUS (\d)", said)] == list(commands.values()), said
    assert ("█" if encoding == "utf-8" else "####") in said


# --- the parts --------------------------------------------------------------------------------------------
def test_visible() -> None:
    assert visible("plain é 日本 [x] :smile:　") == "plain é 日本 [x] :smile:　"
    assert visible("a\nb\tc\x1b[0m\x7f\x9b") == r"a\nb\tc\x1b[0m\x7f\x9b"
    assert visible(os.fsdecode(b"caf\xe9")) == ("caf\\xe9" if os.name != "nt" else visible("café"))
    assert visible("\u202etxt.exe\u2028\ud800") == r"\u202etxt.exe\u2028\ud800"


def test_shown_is_short_whatever_the_value() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    values: tuple[object, ...] = (deep, 16**6000, "x" * 10**6, {str(i): deep for i in range(1000)}, float("nan"), None)
    for value in values:
        text = shown(value)
        assert len(text) < 600
        assert "\n" not in text
    assert shown(16**6000) == "a whole number of 24001 bits"
    assert shown("a\x1bb") == r"'a\x1bb'"


def test_cells_of_tables_are_text_too(capsys: pytest.CaptureFixture[str]) -> None:
    from stipple.cli.terminal import facts

    Terminal().print(facts({"[b]name": "[/red] :smile: \x1b[1m"}))
    assert capsys.readouterr().out.split() == ["[b]name", "[/red]", ":smile:", r"\x1b[1m"]


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "stipple", "info", str(ball(tmp_path / "s.ply"))]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=100, check=False)
    os.close(writing)
    assert b"Traceback" not in done.stderr
    assert b"Error" not in done.stderr
