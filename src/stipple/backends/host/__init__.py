"""Code shared by the devices in host memory: ops in plain NumPy, generic over the float dtype."""
