"""Earlier commits' sources, for benchmarks that compare them with these."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _git(*command: str) -> bytes | None:
    """What git prints; None if it fails."""
    if shutil.which("git") is None:
        sys.exit("git was not found: it is needed to extract an earlier commit's sources")
    done = subprocess.run(["git", *command], cwd=ROOT, check=False, capture_output=True)
    return done.stdout if done.returncode == 0 else None


def short_hash(commit: str) -> str:
    """A commit's short hash; ends the program with a sentence if there is no such commit."""
    found = _git("rev-parse", "--short=7", f"{commit}^{{commit}}")
    if found is None:
        sys.exit(f"{commit!r} is not a commit of the repository in {ROOT}")
    return found.decode().strip()


def sources_of(commit: str, folder: Path) -> Path:
    """The package as it was at a commit."""
    archive = _git("archive", commit, "src")
    if archive is None:
        sys.exit(f"commit {commit} has no folder src that git can extract")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder / "src"
