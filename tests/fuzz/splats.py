SPLAT_OPS = frozenset(n for n in __import__("stipple.ir").ir.REGISTRY if n.startswith("splat"))
