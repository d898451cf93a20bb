"""Fuzz one target: ``python -m tests.fuzz TARGET``, followed by arguments of libFuzzer."""

import importlib
import sys

import atheris


def main() -> None:
    target = sys.argv.pop(1)
    with atheris.instrument_imports(include=["bigfib"], enable_loader_override=False):
        module = importlib.import_module(f"tests.fuzz.{target}")
    atheris.Setup(sys.argv, module.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
