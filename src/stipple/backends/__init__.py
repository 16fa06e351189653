"""The devices that graphs run on, a folder each, and the registry that knows them by name."""
