"""gogate: a dual-layer L4/L7 proxy and API gateway."""

__version__ = "0.1.0"
