"""The groups of measurements that the report speaks of by name."""

from typing import Final

STEP_AND_DIGITS: Final = "one step and its digits"
STEP_ALONE: Final = "one step alone"
APPEND: Final = "append"
WITHOUT_SOCKET: Final = "one request without a socket"
DURABLE_STEP: Final = "one durable step without a socket"
STEP: Final = "one step over a socket"
STEP_OF_MANY: Final = "one step over a socket, 1000 connections"
STEP_OF_ONE: Final = "one step over a socket, 1 connection"
CURRENT: Final = "current over a socket"
PEAK_MEMORY: Final = "peak memory, 64 connections"
BESIDE_FAR_TERM: Final = "current over a socket, 16 connections, while F(100,000,000) is computed"
NEARLY_ALL: Final = f"{BESIDE_FAR_TERM}: 999 of 1,000 replies"
FAR_TERM: Final = "F(100,000,000) over a socket, from the digit cache"
HOW_FAR: Final = "one connection from 0"
FAR_DIGITS: Final = "the digits of F(n)"
