"""Run a measurement: ``python -m benchmarks NAME``."""

import argparse
import sys

from benchmarks.atlas import add_atlas_benchmark
from benchmarks.paper import add_paper_benchmark
from benchmarks.search import add_search_benchmark
from benchmarks.throughput import add_bench_verb
from rarezoo.cli import exit_status


def run(arguments: list[str]) -> None:
    """Parse the words of the command line and run the measurement that they name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    kinds = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")
    for add in (add_search_benchmark, add_paper_benchmark, add_atlas_benchmark, add_bench_verb):
        add(kinds)
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: run(sys.argv[1:])))
