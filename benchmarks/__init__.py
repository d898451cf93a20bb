"""What bigfib costs, compared with yardsticks.

Each ``bench_*`` function is one measurement. Its group says what is compared; in each group one
measurement is the yardstick, ``bench_yardstick_*``, and ``bench_alternative_*`` are the ways not
taken. Only ratios to the yardstick are kept (`benchmarks.results`).
"""
