"""The Fibonacci sequence as a service without a ceiling."""

__version__ = "0.1.0"
