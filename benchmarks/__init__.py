"""Measurements for developers: speed, memory, and what the paper says of its own search. Not installed with rarezoo.

Run one with ``python -m benchmarks NAME``; ``python -m benchmarks --help`` lists them.
"""
