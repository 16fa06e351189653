"""Other programs' interfaces over Stipple: ``rlx`` (the rlx-ir splat builders), ``slam`` (a SLAM-style renderer)."""
