"""Measure what bigfib costs, compared with yardsticks.

Each ``bench_*`` function is one measurement. Measurements of a group are compared with each other:
one of them is the yardstick, ``bench_yardstick_*``; ``bench_alternative_*`` are other ways to do
the same. Only ratios to the yardstick are kept (`benchmarks.results`).
"""
