"""The devices that graphs run on, one package each, and the registry that opens them by name."""
