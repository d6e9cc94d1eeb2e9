"""The ground both backends stand on: views of one datum, teacher folders, runs and reports. No framework."""

from bridge.errors import AipError

__all__ = ["AipError", "__version__"]
__version__ = "0.1.0"
