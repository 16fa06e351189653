"""What kernels ask of a device, counted from their code and their dispatches: for ``benchmarks/gpu_counts.py``."""
