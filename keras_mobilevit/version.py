"""The package's version, in one place for setup.py and for users."""

__version__ = "0.1.0"
