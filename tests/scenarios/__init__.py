"""A package, so that the system that its tests share lives as long as they do and no longer (`scope="package"`)."""
