"""Compute the golden values: what a small training, a small store and two small searches give on fixed seeds.

``python tests/pipeline/golden/freeze.py`` prints the values that the present code computes, and
``python tests/pipeline/golden/freeze.py --write`` replaces the files beside this script with them. Renewing them is a
deliberate act: CHANGELOG must then say which number moved, and why.

The values are obtained as a user obtains them, through ``train.py``, ``embed.py`` and ``cluster.py``, and are read from
the Parquet and JSON files that these leave. Nothing of the package is imported, so that the package may be rearranged.
"""

import argparse
import csv
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent
DIGITS = 5
# Threads are fixed, because sums over several threads are added up in another order.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
LIBRARIES = ("torch", "timm", "numpy", "scipy", "scikit-learn", "numba", "umap-learn", "hdbscan", "fast-hdbscan")

SURVEY = ["data=mock", "data.n=200", "data.side=48", "data.seed=3", "data.cache=cache"]
TRAINING = [
    "model=efficientnet_b0", "model.input_size=32", "model.bottleneck=16", "model.start=none", "model.pool=last",
    "train.epochs=1", "train.batch_size=32", "train.workers=0", "logger=none", "seed=1", "out=checkpoint",
]  # fmt: skip
# The released checkpoint, because a network after one epoch gives all galaxies nearly the same embedding.
RELEASED = ROOT / "checkpoints" / "efficientnet_b0.mock_64px"
EMBEDDING = [f"checkpoint={RELEASED}", "shard_rows=80", "batch_size=64", "workers=0", "out=store"]
SEARCH = ["store=planted", "images=false", "logger=none", "seed=0", "stability.refits=2"]
MULTISCALE = [*SEARCH, "significance.surveys=10", "out=multiscale"]
PCA = [
    *SEARCH, "~preset", "compress=pca", "compress.n_components=8", "compress@drawing=pca", "drawing.n_components=2",
    "clusterer=hdbscan", "clusterer.selection=leaf", "clusterer.min_samples=10", "clusterer.min_cluster_size=20",
    "significance.surveys=12", "out=pca",
]  # fmt: skip

PLANTED_GALAXIES, PLANTED_WIDTH, LATENT = 3000, 128, 8
# Number of galaxies and latent scatter of each planted group; the bulk has a scatter of one.
PLANTED_GROUPS = ((250, 0.25), (150, 0.2), (90, 0.2), (60, 0.15), (40, 0.15))
ANSWERS = ("smooth-or-featured_smooth", "smooth-or-featured_featured-or-disk")


def all_values(folder: Path) -> dict[str, Any]:
    """Run the commands in an empty folder and return every golden value, as one mapping per golden file."""
    return {**quick_values(folder / "quick"), **default_search_values(folder / "default")}


def quick_values(folder: Path) -> dict[str, Any]:
    """Return the values of the training, the store and the PCA search, whose commands run in a new folder."""
    write_planted_store(folder / "planted")
    with ThreadPoolExecutor(2) as pool:
        trained = pool.submit(_train_and_embed, folder)
        searched = pool.submit(command, "cluster.py", *PCA, folder=folder)
        trained.result()
        searched.result()
    return {
        "machine": machine(),
        "training": training_values(folder / "checkpoint"),
        "store": store_values(folder / "store"),
        "pca": search_values(folder / "pca"),
    }


def default_search_values(folder: Path) -> dict[str, Any]:
    """Return the values of the default search, which takes a minute, in a new folder."""
    write_planted_store(folder / "planted")
    command("cluster.py", *MULTISCALE, folder=folder)
    return {"multiscale": search_values(folder / "multiscale")}


def _train_and_embed(folder: Path) -> None:
    command("train.py", *SURVEY, *TRAINING, folder=folder)
    command("embed.py", *SURVEY, *EMBEDDING, folder=folder)


def command(script: str, *arguments: str, folder: Path) -> None:
    """Run one of the three commands of the repository in a folder; an error shows what the command said."""
    environment = {**os.environ, "WANDB_MODE": "offline", "PYTHONWARNINGS": "ignore", **THREADS}
    finished = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    if finished.returncode:
        raise RuntimeError(f"{script} {' '.join(arguments)} failed:\n{finished.stdout}\n{finished.stderr}")


def machine() -> dict[str, str]:
    """Describe what decides the last bits of floating-point results: the processor and the numerical libraries."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in described.splitlines() if line.startswith("model name")]
    versions = {library: version(library) for library in LIBRARIES}
    flags = next((line for line in described.splitlines() if line.startswith("flags")), "")
    return {
        "processor": models[0] if models else platform.processor(),
        "instructions": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "python": platform.python_version(),
        **versions,
    }


def write_planted_store(folder: Path) -> None:
    """Write an embedding store of a Gaussian bulk with planted Gaussian groups, without any network."""
    random = np.random.default_rng(20240601)
    directions = random.normal(size=(LATENT, PLANTED_WIDTH)) / np.sqrt(LATENT)
    latent = random.normal(size=(PLANTED_GALAXIES, LATENT))
    start = 0
    for size, scatter in PLANTED_GROUPS:
        centre = random.normal(size=LATENT) * 1.6
        latent[start : start + size] = centre + scatter * random.normal(size=(size, LATENT))
        start += size
    latent = latent[random.permutation(PLANTED_GALAXIES)]
    noise = 0.05 * random.normal(size=(PLANTED_GALAXIES, PLANTED_WIDTH))
    embeddings = (latent @ directions + noise).astype(np.float32)
    smooth = (1 / (1 + np.exp(-latent[:, 0]))).astype(np.float32)

    hashes = {"survey_sha256": "0" * 64, "checkpoint_sha256": "1" * 64}
    manifest = {
        "survey": "mock", "survey_settings": {"option": "mock"}, "checkpoint": "planted", **hashes,
        "precision": "float32", "width": PLANTED_WIDTH, "dtype": "float32", "rows": PLANTED_GALAXIES,
        "shard_rows": PLANTED_GALAXIES, "answers": list(ANSWERS), "turns": 1,
    }  # fmt: skip
    about = {"kind": "embeddings", "schema": 1, "version": "0.1.0", **hashes, "skipped": []}
    table = pa.table(
        {
            "id_str": [f"g{row:05d}" for row in range(PLANTED_GALAXIES)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), PLANTED_WIDTH),
            f"{ANSWERS[0]}_fraction": smooth,
            f"{ANSWERS[1]}_fraction": 1 - smooth,
        }
    ).replace_schema_metadata({b"rarezoo": json.dumps(about).encode()})
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    pq.write_table(table, folder / "shard-00000.parquet")


def training_values(folder: Path) -> dict[str, Any]:
    """Return the numbers of a checkpoint's card and the losses of its training."""
    card = json.loads((folder / "card.json").read_text())
    with (folder / "metrics.csv").open(newline="") as stream:
        epochs = list(csv.DictReader(stream))
    return {
        "survey_sha256": card["data"]["sha256"],
        "galaxies": {key: value for key, value in card["data"].items() if isinstance(value, int)},
        "width": card["width"],
        "weights": card["weights"],
        "answers": [answer for question in card["tree"]["questions"] for answer in question["answers"]],
        "losses": {
            key: rounded(float(value)) for row in epochs for key, value in row.items() if "loss" in key and value
        },
        "metrics": {
            row["question"]: {key: rounded(value) for key, value in row.items() if key != "question"}
            for row in card["metrics"]
        },
        "digests": {"weights.safetensors": card["sha256"]["weights.safetensors"]},
    }


def store_values(folder: Path) -> dict[str, Any]:
    """Return a summary of an embedding store."""
    manifest = json.loads((folder / "manifest.json").read_text())
    shards = sorted(folder.glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(shard).replace_schema_metadata() for shard in shards])
    embeddings = np.asarray(table["embedding"].to_pylist(), dtype=np.float64)
    fractions = [name for name in table.column_names if name.endswith("_fraction")]
    return {
        "survey_sha256": manifest["survey_sha256"],
        "shards": len(shards),
        "ids": table["id_str"].to_pylist()[:5],
        "shape": list(embeddings.shape),
        "mean": rounded(embeddings.mean()),
        "std": rounded(embeddings.std()),
        "first_rows": rounded(embeddings[:5].tolist()),
        "mean_fractions": {name: rounded(float(np.mean(table[name].to_numpy()))) for name in fractions},
        "digests": {"embedding": digest(embeddings), "fractions": digest(table.select(fractions))},
    }


def search_values(folder: Path) -> dict[str, Any]:
    """Return what a search found: its classes but for their texts, who belongs to them, and the size of its tables."""
    tables = {name: pq.read_table(folder / f"{name}.parquet") for name in ("classes", "members", "tree", "linkage")}
    maps = {name: pq.read_table(folder / f"{name}.parquet") for name in ("map", "map_2d")}
    classes, members = tables["classes"], tables["members"]
    labels = np.asarray(members["class_id"].to_numpy())
    numbers = [field.name for field in classes.schema if pa.types.is_integer(field.type)]
    numbers += [field.name for field in classes.schema if pa.types.is_floating(field.type)]
    return {
        "classes": {name: rounded(classes[name].to_pylist()) for name in numbers},
        "exemplars": [galaxies[:5] for galaxies in classes["exemplars"].to_pylist()],
        "galaxies": members.num_rows,
        "first_ids": members["id_str"].to_pylist()[:3],
        "members": {str(label): np.flatnonzero(labels == label).tolist() for label in range(classes.num_rows)},
        "mean_probability": rounded(float(np.mean(members["probability"].to_numpy()))),
        "rows": {name: table.num_rows for name, table in {**tables, **maps}.items()},
        "digests": {
            "classes": digest(classes.select(numbers)),
            "members": digest(members.select(["class_id", "probability", "outlier_score"])),
            "tree": digest(tables["tree"]),
            "linkage": digest(tables["linkage"]),
            **{name: digest(np.asarray(table["position"].to_pylist())) for name, table in maps.items()},
        },
    }


def rounded(value: Any) -> Any:
    """Round numbers, also in lists, to five significant digits; NaN becomes None, as in JSON."""
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def digest(values: np.ndarray | pa.Table) -> str:
    """Return the first 16 characters of the sha256 of numbers, each rounded to five significant digits."""
    columns: Sequence[Any] = [values.reshape(-1)] if isinstance(values, np.ndarray) else values.columns
    state = hashlib.sha256()
    for column in columns:
        for number in column.tolist() if isinstance(column, np.ndarray) else column.to_pylist():
            state.update(f"{number:.{DIGITS}g} ".encode() if number is not None else b"null ")
    return state.hexdigest()[:16]


def read(name: str) -> Any:
    """Read one golden file."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def write(values: Mapping[str, Any]) -> None:
    """Replace the golden files."""
    for name, content in values.items():
        # The indentation of short lists is taken back, so that the files stay readable and small.
        parts = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
        (GOLDEN / f"{name}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")


def main() -> None:
    """Print the golden values, or write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the golden files with the present values")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        values = all_values(Path(folder))
    if arguments.write:
        write(values)
    else:
        print(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
