"""What the devices that live in host memory share: ops in plain NumPy, generic over the float dtype."""
