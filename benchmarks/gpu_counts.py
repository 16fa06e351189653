"""Count what the GPU backend asks of a device in frames and training steps: dispatches, barriers, bytes, instructions.

python benchmarks/gpu_counts.py               # this version
python benchmarks/gpu_counts.py 0faa18b       # an earlier commit and this version, before and after

Nothing is timed, so software Vulkan will do. It takes the garden's points at 648x420 and 100,000 Gaussians at
1920x1080; with --quick only 10,000 Gaussians at 640x480. Needs Node.js and naga (npm ci --prefix tools/shaders), and
git for an earlier commit. Writes gpu_counts.json and gpu_counts.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from commits import ROOT, short_hash, sources_of
from counts.page import page
from counts.rows import counted
from counts.translation import check_translator

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def observed(sources: Path, device: str, quick: bool) -> dict[str, Any]:
    """What a version dispatches, in a process of its own; ends the program with its message if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(sources)}
    command = [sys.executable, "-m", "counts.workload", "--device", device, *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=HERE, env=environment, check=False, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"the kernels of {sources} could not be counted; the reason is above")
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", help="an earlier commit to compare with (0faa18b or later)")
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--quick", action="store_true", help="only 10,000 Gaussians at 640x480")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where to write")
    arguments = parser.parse_args()
    check_translator()
    commit = short_hash(arguments.commit) if arguments.commit else None
    before = None
    if commit:
        with tempfile.TemporaryDirectory() as folder:
            print(f"commit {commit}:", file=sys.stderr, flush=True)
            before = counted(observed(sources_of(commit, Path(folder)), arguments.device, arguments.quick))
        print("this version:", file=sys.stderr, flush=True)
    found = observed(ROOT / "src", arguments.device, arguments.quick)
    results = {
        "device": found["device"],
        "machine": platform.platform(),
        "command": " ".join(["python", "benchmarks/gpu_counts.py", *sys.argv[1:]]),
        "software": found["type"] == "CPU",
        "nvidia": "nvidia" in found["device"].lower(),
        "commit": commit,
        "before": before,
        "after": counted(found),
    }
    arguments.results.mkdir(exist_ok=True)
    (arguments.results / "gpu_counts.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.results / "gpu_counts.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
