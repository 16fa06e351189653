"""Measure another program beside Stipple: the same work in turns in one run, and the ratio of their times.

python benchmarks/compare/peer.py opensplat --source ../OpenSplat          # OpenSplat's CPU rasterizer, compiled here
python benchmarks/compare/peer.py opensplat --source ../OpenSplat fern=fern/scene.ply:data/fern
python benchmarks/compare/peer.py torch                                    # all Gaussians at all pixels as tensors
python benchmarks/compare/peer.py prototype --source ../shared/prototypes  # the prototype of the CPU kernels
python benchmarks/compare/peer.py gsplat                                   # gsplat, where there is CUDA

With NAME=SCENE[:CAPTURE], a training step on a trained scene is measured too, seen from the capture's first training
view or, without a capture, from the camera that ``stipple render`` starts with. Each writes results/peer_NAME.json and
results/peer_NAME.md. All but the prototype need PyTorch (pip install torch), OpenSplat also ninja and a C++ compiler,
gsplat also gsplat.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the scenes that all benchmarks share, and for compare itself

from compare import gsplat_peer, opensplat_peer, prototype_peer, torch_peer
from compare.side_by_side import Peer, results_of, write

PEERS: dict[str, Callable[[Path | None], Peer]] = {
    "torch": torch_peer.opened,
    "prototype": prototype_peer.opened,
    "gsplat": gsplat_peer.opened,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=("opensplat", *PEERS))
    parser.add_argument("scenes", nargs="*", metavar="NAME=SCENE[:CAPTURE]", help="trained scenes (opensplat)")
    parser.add_argument("--source", type=Path, help="the folder of its sources (opensplat, prototype)")
    parser.add_argument("--rounds", type=int, default=5, help="how often both sides take turns")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a turn takes, at least one call")
    arguments = parser.parse_intermixed_args()
    if arguments.peer == "opensplat":
        peer = opensplat_peer.opened(arguments.source, arguments.scenes)
    elif arguments.scenes:
        parser.error(f"{arguments.peer} takes no scenes")
    else:
        peer = PEERS[arguments.peer](arguments.source)
    write(peer.name, results_of(peer, arguments.rounds, arguments.seconds))


if __name__ == "__main__":
    main()
