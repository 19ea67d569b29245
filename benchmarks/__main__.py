"""Run a measurement: ``python -m benchmarks NAME KEY=VALUE …``."""

import sys

from rarezoo import __version__
from rarezoo.cli import JOBS, exit_status, run_command
from rarezoo.commands import Job, overview

_HEADING = "Measurements for developers"
MEASUREMENTS = {
    "throughput": Job(
        "benchmarks.throughput:Throughput", "images per second of training and embedding, as ratios", _HEADING
    ),
    "search": Job("benchmarks.search:SearchSpeed", "our seeded search against umap-learn and hdbscan", _HEADING),
    "cost": Job("benchmarks.cost:SearchCost", "what each step of the default search costs", _HEADING),
    "demo": Job(
        "benchmarks.demo:DemoSeeds", "what the demo finds on several mock skies, and how long it takes", _HEADING
    ),
    "rank": Job("benchmarks.rank:RankCost", "how long a person waits for the next galaxies after a rating", _HEADING),
    "scale": Job(
        "benchmarks.scale:Scale", "time, memory and planted groups of surveys that outgrow the memory", _HEADING
    ),
    "scale_embedding": Job(
        "benchmarks.scale_embedding:EmbeddingScale", "embedding a HATS survey by workers that are killed", _HEADING
    ),
    "scale_hats": Job(
        "benchmarks.scale_hats:HatsScale", "a HATS catalogue of vectors, from import to cross-match", _HEADING
    ),
    "paper": Job("benchmarks.paper:PaperClaims", "the claims of the paper about its own search", _HEADING),
    "atlas": Job("benchmarks.atlas:AtlasSpeed", "load time and frames per second of the atlas in a browser", _HEADING),
    "documents": Job("benchmarks.documents:Documents", "tables and figures of the documentation", _HEADING),
    "rule": Job("benchmarks.rule:RuleFigure", "how classes are chosen, as a figure of the documentation", _HEADING),
    "embeddings": Job(
        "benchmarks.embeddings:EmbeddingTables",
        "which embedding finds rare galaxies better",
        _HEADING,
        groups=("data",),
    ),
    "similar": Job(
        "benchmarks.similar:SimilarSpeed", "seconds of a search for similar galaxies, against numpy", _HEADING
    ),
    "similarity": Job(
        "benchmarks.similarity:Similarity", "how good similar galaxies are, against other ways", _HEADING
    ),
    "hidden": Job(
        "benchmarks.hidden:HiddenPopulation",
        "a population that looks ordinary but shares an offset in colour and mass",
        _HEADING,
    ),
    "fuzz": Job(
        "benchmarks.fuzz:FuzzRun", "readers on damaged and hostile files: only our own errors come out", _HEADING
    ),
    "counts": Job(
        "benchmarks.counts:Counts", "how often an estimated number of galaxies of a kind holds the truth", _HEADING
    ),
    "finetuned": Job(
        "benchmarks.finetuned:FinetunedFewLabels",
        "finetuned networks on a few labels of real galaxies",
        _HEADING,
        groups=("data",),
    ),
    "prototypes": Job(
        "benchmarks.prototypes:PrototypeNulls",
        "prototypes of planted populations, and of groups that are nothing",
        _HEADING,
        groups=("data",),
    ),
    "duplicates": Job("benchmarks.throughput:Duplicates", "how well near-identical images are recognised", _HEADING),
}


def main(words: list[str]) -> int:
    """Run the measurement that the words of the command line name, and return the exit status."""
    if not words or words[0] in ("--help", "-h"):
        print(overview(MEASUREMENTS, version=__version__).replace("rarezoo COMMAND", "python -m benchmarks NAME"))
        return 0
    name = words[0]
    if name not in MEASUREMENTS:
        print(f"rarezoo: no such measurement: {name}. Choose one of: {', '.join(MEASUREMENTS)}.", file=sys.stderr)
        return 2
    command = f"benchmarks {name}"
    JOBS[command] = MEASUREMENTS[name]
    run = lambda: run_command(command, words[1:], usage=f"python -m benchmarks {name}")  # noqa: E731
    return exit_status(run, command=command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
