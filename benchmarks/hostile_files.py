"""Makes damaged, odd and hostile files of every kind that rarezoo reads, for :mod:`benchmarks.fuzz`.

A maker writes one input into a folder and returns a function that reads it with the real reader.
"""

import gzip
import io
import itertools
import json
import os
import shutil
import struct
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml
from PIL import Image

from rarezoo import tables

Read = Callable[[], object]
Random = np.random.Generator
_IDS = [f"g{row}" for row in range(12)]
_TREE = {
    "name": "small",
    "questions": [
        {"name": "bar", "answers": ["bar_yes", "bar_no"]},
        {"name": "arms", "answers": ["arms_one", "arms_two"], "asked_after": "bar_yes"},
    ],
}
_ANSWERS = ("bar_yes", "bar_no", "arms_one", "arms_two")
_PICTURES = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
# Names of members of archives, and texts that tables hold.
_ODD_TEXTS = (
    "", " ", "nan", "NA", "None", "null", "-0", "1e999", "-1e-999", "0x1f", "12:22:54.9", "+15d49m", "١٢", "²", "1_000",
    "=1+1", "../../etc/passwd", "/etc/passwd", "a/b", "é", "\u202eabc", "\x1b[2J", "a\nb", "a,b", '"', "'", "\\", "%s",
    "${oc.env:HOME}", "<b>", "x" * 5000, "18446744073709551616", "9007199254740993", "inf", "True", "2024-01-01",
    "\ufeff",
)  # fmt: skip
_ODD_NUMBERS = (0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), float("nan"), float("inf"), -float("inf"), 1e308, 0.1)


@dataclass(frozen=True)
class Maker:
    """Makes inputs of one kind.

    Attributes
    ----------
    make
        Function of a random generator, the number of the input, the folder for it and the folder of sound inputs. It
        writes the input and returns the function that reads it.
    weight
        How often the kind comes, compared with others; 0: once, before all others.
    """

    make: Callable[[Random, int, Path, "Folder"], Read]
    weight: int = 1


@dataclass(frozen=True)
class Folder:
    """A folder of sound inputs, from which damaged ones are made."""

    path: Path

    def prepare(self) -> None:
        """Write the sound inputs."""
        from rarezoo.data.trees import QuestionTree
        from rarezoo.embeddings.store import EmbeddingStore
        from rarezoo.zoo.checkpoint import Checkpoint
        from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
        from rarezoo.zoo.network import build_network

        images = self.path / "images"
        images.mkdir(parents=True)
        for row, galaxy in enumerate(_IDS):
            Image.fromarray(np.full((24, 24, 3), 20 * row, np.uint8)).save(images / f"{galaxy}.png")
        (self.path / "tree.yaml").write_text(yaml.safe_dump(_TREE))
        (self.path / "table.csv").write_bytes(written(sound_table(), ".csv"))
        tree, encoder = QuestionTree.from_dict(_TREE), EfficientNetB0(input_size=32, bottleneck="8")
        network = build_network(encoder, tree)
        Checkpoint.save(self.path / "checkpoint", network=network, encoder=encoder, tree=tree, card={}, dtype="float16")
        vectors = np.random.default_rng(0).normal(size=(len(_IDS), 4)).astype(np.float32)
        EmbeddingStore.from_array(
            _IDS, vectors, out=self.path / "store", name="net", shard_rows=5,
            fractions={answer: np.full(len(_IDS), 0.5) for answer in _ANSWERS},
        )  # fmt: skip
        _write_search(self.path / "search", store=self.path / "store")

    def import_readers(self) -> None:
        """Import what the readers import when they are first used, before memory is limited."""
        import astropy.io.votable
        import astropy.table  # noqa: F401
        import h5py  # noqa: F401

        from rarezoo.embeddings.store import EmbeddingStore
        from rarezoo.studies import leaderboard  # noqa: F401
        from rarezoo.zoo.checkpoint import Checkpoint

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Checkpoint.open(self.path / "checkpoint")
            EmbeddingStore.open(self.path / "store").read()
            self.catalogue(self.path / "table.csv")().images.cutout(0)

    def catalogue(self, table: Path, **settings: Any) -> Callable[[], Any]:
        """Return a function that opens a table as a survey."""
        from rarezoo.data.surveys.catalogue import Catalogue

        chosen = {"images": str(self.path / "images"), "on_bad_image": "skip", **settings}
        return lambda: Catalogue(table=str(table), **chosen).open()

    @cached_property
    def sound_files(self) -> Mapping[str, bytes]:
        """The bytes of sound tables and pictures, by ending."""
        table = {ending: written(sound_table(), ending) for ending in TABLE_ENDINGS}
        pictures = {kind: picture(np.random.default_rng(1), kind) for kind in (*_PICTURES, "FITS")}
        return {**table, **pictures}


def _write_search(folder: Path, *, store: Path) -> None:
    """Write a finished search of the sound store."""
    from rarezoo.searches.result import Search

    labels = np.repeat([0, 1, -1], 4).astype(np.int32)
    ones = np.ones(len(_IDS), np.float32)
    row = {tables.SIZE: 4, tables.FRACTION: 1 / 3, tables.PERSISTENCE: 1.0, tables.TOP_ANSWERS: [], tables.FLAGS: []}
    rows = [
        {tables.CLASS_ID: one, tables.NODE: 13 + one, tables.EXEMPLARS: _IDS[4 * one :][:4], **row} for one in (0, 1)
    ]
    members = {tables.ID: _IDS, tables.CLASS_ID: labels, tables.PROBABILITY: ones, tables.OUTLIER_SCORE: ones}
    positions = pa.table({tables.ID: _IDS, tables.POSITION: tables.vectors(np.eye(len(_IDS), 2, dtype=np.float32))})
    tree = {tables.PARENT: [12, 12], tables.CHILD: [13, 14], tables.LAMBDA: [1.0, 1.0], tables.CHILD_SIZE: [4, 4]}
    about = {
        "survey": "imported", "survey_sha256": "a", "checkpoint": "net", "checkpoint_sha256": "b",
        "searched": len(_IDS), "unassigned": 1 / 3, "settings": {"store": str(store), "seed": 0},
    }  # fmt: skip
    found = {
        "members": pa.table(members), "map": positions, "map_2d": positions, "tree": pa.table(tree),
        "classes": pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items()))),
    }  # fmt: skip
    Search.write(folder, about, found, free_class_id=2).finish()


# ── damage ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def damaged(random: Random, content: bytes) -> bytes:
    """Return bytes with one to three faults: flipped bits, a missing end, or a piece repeated, cut out or changed."""
    for _ in range(random.integers(1, 4)):
        if not content:
            return content
        first, last = sorted(random.integers(0, len(content) + 1, 2).tolist())
        last = min(last, first + 4000)
        flipped = bytearray(content)
        for place in random.integers(0, len(content), random.integers(1, 20)):
            flipped[place] ^= 1 << random.integers(0, 8)
        faults = (
            bytes(flipped),
            content[:first],
            content[:last] + content[first:last] + content[last:],
            content[:first] + content[last:],
            content[:first] + bytes(last - first) + content[last:],
            content[:first] + random.bytes(last - first) + content[last:],
            _huge_numbers(random, content),
            content + content[:first],
        )
        content = faults[random.integers(0, len(faults))]
    return content


def _huge_numbers(random: Random, content: bytes) -> bytes:
    """Return bytes in which a number of the header, written in digits or as four bytes, claims much more."""
    places = [at for at in range(min(len(content), 3000)) if content[at : at + 1].isdigit()]
    if places and random.random() < 0.6:
        at = places[random.integers(0, len(places))]
        return content[:at] + b"99999999"[: random.integers(1, 9)] + content[at + 1 :]
    at = int(random.integers(0, min(len(content), 200)))
    return content[:at] + struct.pack(random.choice(["<I", ">I"]), random.integers(2**20, 2**32)) + content[at + 4 :]


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────

TABLE_ENDINGS = (".csv", ".tsv", ".parquet", ".fits", ".vot", ".ecsv")


def sound_table() -> pa.Table:
    """Return a catalogue with positions and votes."""
    votes = {answer: np.arange(len(_IDS)) % 7 for answer in _ANSWERS}
    return pa.table({
        "id_str": _IDS, "ra": np.linspace(0, 359, len(_IDS)), "dec": np.linspace(-80, 80, len(_IDS)),
        "mag": np.linspace(15, 19, len(_IDS)), "note": [f"note {row}" for row in range(len(_IDS))], **votes,
    })  # fmt: skip


def written(table: pa.Table, ending: str) -> bytes:
    """Return a table as the bytes of a file."""
    from astropy.table import Table

    stream = io.BytesIO()
    if ending in (".csv", ".tsv"):
        options = pa.csv.WriteOptions(delimiter="\t" if ending == ".tsv" else ",")
        pa.csv.write_csv(table, stream, options)
    elif ending == ".parquet":
        pq.write_table(table, stream)
    else:
        kind = {".fits": "fits", ".vot": "votable", ".ecsv": "ascii.ecsv"}[ending]
        whole = Table({name: table[name].to_pylist() for name in table.column_names})
        text = io.StringIO()
        whole.write(text if kind == "ascii.ecsv" else stream, format=kind)
        return text.getvalue().encode() if kind == "ascii.ecsv" else stream.getvalue()
    return stream.getvalue()


def _odd_columns(random: Random) -> pa.Table:
    """Return a table with columns of unusual types and values, among them perhaps the ids."""
    rows = int(random.choice([0, 1, 2, 12]))
    columns: dict[str, pa.Array] = {}
    names = ["id_str", "ra", "dec", "image", "survey", "split", *_ANSWERS, "x", "é", "", " ra", "RA", "note"]
    kinds: list[Callable[[], pa.Array]] = [
        lambda: pa.array(random.choice(_ODD_TEXTS, rows).tolist(), pa.string()),
        lambda: pa.array([None] * rows, pa.null()),
        lambda: pa.array([f"g{row}".encode() for row in range(rows)], pa.binary()),
        lambda: pa.array([random.bytes(3) for _ in range(rows)], pa.binary(3)),
        lambda: pa.array(np.arange(rows), pa.int8()),
        lambda: pa.array([2**64 - 1 - row for row in range(rows)], pa.uint64()),
        lambda: pa.array([float(random.choice(_ODD_NUMBERS)) for _ in range(rows)], pa.float64()),
        lambda: pa.array(np.arange(rows), pa.float32()),
        lambda: pa.array(np.arange(rows, dtype=np.float16), pa.float16()),
        lambda: pa.array([None if row % 2 else True for row in range(rows)], pa.bool_()),
        lambda: pa.array([[row] * (row % 3) for row in range(rows)], pa.list_(pa.int32())),
        lambda: pa.array(
            [{"bytes": b"x", "path": None}] * rows, pa.struct({"bytes": pa.binary(), "path": pa.string()})
        ),
        lambda: pa.array([[("a", row)] for row in range(rows)], pa.map_(pa.string(), pa.int32())),
        lambda: pa.array(np.arange(rows), pa.timestamp("ns", tz="UTC")),
        lambda: pa.array(np.arange(rows), pa.duration("us")),
        lambda: pa.array(np.arange(rows), pa.time64("us")),
        lambda: pa.array(np.arange(rows), pa.date32()),
        lambda: pa.array(_IDS[:rows], pa.string()).dictionary_encode(),
        lambda: pa.array(_IDS[:rows], pa.large_string()),
        lambda: pa.array(_IDS[:rows], pa.string_view()),
        lambda: pa.array(np.arange(rows)).cast(pa.decimal128(38, 10)),
    ]
    for name in random.choice(names, random.integers(1, 8), replace=False).tolist():
        columns[name] = kinds[random.integers(0, len(kinds))]()
    if random.random() < 0.7:
        columns["id_str"] = pa.array(_IDS[:rows], pa.string())
    return pa.table(columns)


def _odd_text_table(random: Random, delimiter: str) -> bytes:
    """Return a CSV or TSV file with unusual cells, ends of lines, widths of rows and encodings."""
    columns = int(random.integers(1, 8))
    head = ["id_str", *random.choice([*_ANSWERS, "ra", "dec", "x", "x", "", " é "], columns).tolist()]
    lines = [head]
    for galaxy in _IDS[: random.integers(0, 13)]:
        width = columns if random.random() < 0.97 else int(random.integers(0, 12))
        lines.append([galaxy if random.random() < 0.9 else str(random.choice(_ODD_TEXTS)),
                      *map(str, random.choice(_ODD_TEXTS, width).tolist())])  # fmt: skip
    quote = random.random() < 0.6
    cells = ([f'"{cell.replace(chr(34), chr(34) * 2)}"' if quote else cell for cell in line] for line in lines)
    text = str(random.choice(["\n", "\r\n", "\r", "\n\n"])).join(delimiter.join(line) for line in cells)
    encodings = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-7", "cp037"]
    content = text.encode(str(random.choice(encodings)), errors="replace")
    return content + b"\0" * int(random.integers(0, 3) * (random.random() < 0.1))


def _table_content(random: Random, ending: str, folder: Folder) -> bytes:
    """Return the bytes of a table: damaged, odd, empty, or of another format than its name says."""
    draw = random.random()
    if draw < 0.5:
        return damaged(random, folder.sound_files[ending])
    if draw < 0.55:
        return folder.sound_files[str(random.choice(list(folder.sound_files)))]
    if draw < 0.58:
        return b""
    if draw < 0.61:
        return random.bytes(int(random.integers(1, 3000)))
    if ending in (".csv", ".tsv"):
        return _odd_text_table(random, "\t" if ending == ".tsv" else ",")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = written(_odd_columns(random), ending)
    except Exception:
        # Not every format holds every type.
        content = folder.sound_files[ending]
    return content if random.random() < 0.5 else damaged(random, content)


def _make_table(ending: str) -> Callable[[Random, int, Path, Folder], Read]:
    def make(random: Random, number: int, place: Path, folder: Folder) -> Read:
        content = _table_content(random, ending, folder)
        path = place / f"table{ending}"
        if random.random() < 0.2:
            path, content = place / f"table{ending}.gz", gzip.compress(content, 1)
            content = damaged(random, content) if random.random() < 0.5 else content
        path.write_bytes(content)
        return folder.catalogue(path)

    return make


def _make_votes(random: Random, number: int, place: Path, folder: Folder) -> Read:
    ending = str(random.choice(TABLE_ENDINGS))
    path = place / f"votes{ending}"
    path.write_bytes(_table_content(random, ending, folder))
    scale = float(random.choice([0, 1, 40]))
    tree = str(folder.path / "tree.yaml") if random.random() < 0.8 else "gz2"
    return folder.catalogue(folder.path / "table.csv", votes=tree, votes_table=str(path), votes_scale=scale)


def _make_vectors(random: Random, number: int, place: Path, folder: Folder) -> Read:
    from rarezoo.embeddings.store import EmbeddingStore

    table = sound_table().append_column("feat_0", pa.array(random.normal(size=len(_IDS))))
    table = table.append_column(
        "feat_1", pa.array(random.choice([0, -1, 0.5, 1e30, 0.1 if number % 2 else np.inf], len(_IDS)))
    )
    ending = str(random.choice(TABLE_ENDINGS))
    content = written(table, ending)
    path = place / f"vectors{ending}"
    path.write_bytes(damaged(random, content) if random.random() < 0.8 else content)
    return lambda: EmbeddingStore.from_table(path, out=place / "store").embeddings()


def _make_parquet_folder(random: Random, number: int, place: Path, folder: Folder) -> Read:
    data = place / "data"
    for part in range(random.integers(0, 4)):
        path = data / str(random.choice(["", "split=train", ".hidden", "a b"])) / f"{part}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_table_content(random, ".parquet", folder))
    data.mkdir(exist_ok=True)
    return folder.catalogue(data)


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def picture(random: Random, kind: str) -> bytes:
    """Return a picture of random size, type and range of pixels."""
    from astropy.io import fits

    height, width = (int(side) for side in random.integers(1, 40, 2))
    shape = [(height, width), (height, width, 3), (height, width, 4), (3, height, width)][random.integers(0, 4)]
    scale = float(random.choice([0, 1, 1.01, 255, 65535, 1e30, np.nan, np.inf, -1]))
    stream = io.BytesIO()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = random.random(shape) * scale
        if kind == "FITS":
            if random.random() < 0.1:
                shape = (0,) if random.random() < 0.5 else (2, 2, 2, 2)
                values = np.zeros(shape)
            types = ["u1", ">i2", ">i4", ">i8", ">f4", ">f8"]
            hdus = [fits.PrimaryHDU(values.astype(str(random.choice(types))))]
            if random.random() < 0.3:
                hdus = [fits.PrimaryHDU(), fits.ImageHDU(hdus[0].data) if shape != (0,) else fits.ImageHDU()]
            # Of 64-bit integers astropy cannot compress those that 32 bits do not hold.
            if random.random() < 0.2 and values.size > 1 and hdus[-1].data.dtype.itemsize < 8:
                hdus = [fits.PrimaryHDU(), fits.CompImageHDU(hdus[-1].data)]
            fits.HDUList(hdus).writeto(stream)
            return stream.getvalue()
        modes = {
            "TIFF": ["1", "L", "RGB", "RGBA", "CMYK", "P", "F", "I", "I;16", "LA"], "JPEG": ["L", "RGB", "CMYK"],
            "PNG": ["1", "L", "RGB", "RGBA", "P", "I;16", "LA"], "GIF": ["L", "P", "RGB"], "WEBP": ["RGB", "RGBA"],
            "BMP": ["1", "L", "RGB", "P"],
        }  # fmt: skip
        mode = str(random.choice(modes[kind]))
        grey = random.random((height, width)) * (0 if not np.isfinite(scale) else min(scale, 65535))
        if mode == "F":
            image = Image.fromarray((grey / 65535 * (scale if scale else 1)).astype(np.float32))
        elif mode in ("I", "I;16"):
            image = Image.fromarray(grey.clip(0).astype(np.int32 if mode == "I" else np.uint16))
        else:
            image = Image.fromarray((random.random((height, width, 3)) * 255).astype(np.uint8)).convert(mode)
        image.save(stream, format=kind)
    return stream.getvalue()


def _picture_content(random: Random, kind: str) -> bytes:
    content = picture(random, kind)
    return content if random.random() < 0.35 else damaged(random, content)


def _make_picture(kind: str) -> Callable[[Random, int, Path, Folder], Read]:
    endings = {"JPEG": ".jpg", "TIFF": ".tif", "FITS": ".fits"}

    def make(random: Random, number: int, place: Path, folder: Folder) -> Read:
        content, ending = _picture_content(random, kind), endings.get(kind, f".{kind.lower()}")
        if kind == "FITS" and random.random() < 0.3:
            content, ending = gzip.compress(content, 1), ".fits.gz"
            content = damaged(random, content) if random.random() < 0.4 else content
        elif random.random() < 0.1:
            ending = str(random.choice([".jpg", ".png", ".fits", ".tif", ".gif"]))
        return _read_picture(place, f"p{ending}", content, folder)

    return make


def _read_picture(place: Path, name: str, content: bytes, folder: Folder) -> Read:
    """Write a picture and a table that names it, and return the function that reads its pixels."""
    (place / "images").mkdir()
    (place / "images" / name).write_bytes(content)
    (place / "table.csv").write_text(f"id_str,image\nJ1,{name}\n")
    opened = folder.catalogue(place / "table.csv", images=str(place / "images"), on_bad_image="stop")
    return lambda: _checked(opened().images.cutout(0))


def _checked(pixels: np.ndarray) -> np.ndarray:
    """Raise AssertionError unless pixels are what every reader promises."""
    if not (pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size):
        raise AssertionError(f"pixels of type {pixels.dtype} and shape {pixels.shape}")
    return pixels


def _make_tar(random: Random, number: int, place: Path, folder: Folder) -> Read:
    names = [
        "g0.png",
        "a/g1.jpg",
        "./g2.tif",
        "../g3.png",
        "/g4.png",
        "g5.fits",
        "g0.png",
        "é.png",
        "g6",
        "x" * 200 + ".png",
    ]
    stream = io.BytesIO()
    kinds = [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE]
    formats = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    with tarfile.open(fileobj=stream, mode="w", format=int(random.choice(formats))) as archive:
        chosen = random.choice(names, random.integers(0, 8)).tolist() if random.random() < 0.6 else names[:6]
        sound = random.random() < 0.4
        for name in chosen:
            content = picture(random, "PNG") if sound else _picture_content(random, str(random.choice(_PICTURES)))
            try:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                if random.random() < 0.3 * (not sound):
                    member.type = kinds[random.integers(0, len(kinds))]
                    member.linkname = str(random.choice(["g0.png", "/etc/passwd", "../x", name]))
                archive.addfile(member, io.BytesIO(content))
            except ValueError:
                continue
    content = stream.getvalue() if random.random() < 0.5 else damaged(random, stream.getvalue())
    ending = str(random.choice([".tar", ".tar", ".tar", ".tar.gz"]))
    (place / "shards").mkdir()
    (place / "shards" / f"s{ending}").write_bytes(gzip.compress(content, 1) if ending.endswith("gz") else content)
    table = place / "table.csv"
    if random.random() < 0.5:
        listed = chosen if random.random() < 0.7 else names[:8]
        table.write_text("id_str,image\n" + "".join(f"J{row},{name}\n" for row, name in enumerate(listed)))
    else:
        shutil.copyfile(folder.path / "table.csv", table)
    return _read_all(folder.catalogue(table, images=str(place / "shards")))


def _read_all(opened: Callable[[], Any]) -> Read:
    """Return a function that opens a survey and reads each picture; one that cannot be read does not hide the next."""
    from rarezoo.errors import RarezooError

    def read() -> None:
        galaxies, refused = opened(), None
        for row in range(len(galaxies)):
            try:
                _checked(galaxies.images.cutout(row))
            except RarezooError as problem:
                refused = problem
        if refused is not None:
            raise refused

    return read


def _make_hdf5(random: Random, number: int, place: Path, folder: Folder) -> Read:
    import h5py

    path = place / "images.h5"
    shapes = [(12, 8, 8), (12, 8, 8, 3), (12, 3, 8, 8), (12, 8, 8, 4), (12,), (0, 8, 8), (5, 8, 8), (12, 0, 8), ()]
    types = ["u1", "u2", "i4", "i8", "f2", "f4", "f8", "bool", "complex64", "S3"]
    with h5py.File(path, "w") as file, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        name = "images" if random.random() < 0.9 else "pictures"
        shape = shapes[random.integers(0, len(shapes))] if random.random() < 0.6 else shapes[random.integers(0, 4)]
        pixels = random.random(shape) * random.choice([1, 255, 65535, 1e30])
        if random.random() < 0.1:
            file.create_group(name)
        else:
            file.create_dataset(name, data=np.asarray(pixels).astype(str(random.choice(types))))
        values: list[Any] = [
            np.array(_IDS, dtype="S5"), _IDS, np.arange(12), [galaxy.ljust(8) for galaxy in _IDS], [_IDS[0]] * 12,
        ]  # fmt: skip
        file.create_dataset("id_str", data=values[random.integers(0, len(values)) if random.random() < 0.5 else 0])
    if random.random() < 0.5:
        path.write_bytes(damaged(random, path.read_bytes()))
    return _read_all(folder.catalogue(folder.path / "table.csv", images=str(path)))


# ── settings, trees, cards, stores, searches, decisions ─────────────────────────────────────────────────────────────


def _changed(random: Random, content: Any, depth: int = 0) -> Any:
    """Return nested content as JSON and YAML hold it, in which some parts have other types or values."""
    if random.random() < (0.12 if depth else 0.02):
        odd: list[Any] = [
            None,
            True,
            [],
            {},
            "",
            [None],
            {"a": {}},
            -1,
            0.5,
            1e300,
            10**30,
            "é\0",
            list(_ODD_TEXTS[:9]),
        ]
        return odd[random.integers(0, len(odd))]
    if isinstance(content, dict):
        kept = {key: _changed(random, value, depth + 1) for key, value in content.items() if random.random() > 0.04}
        return {**kept, **({str(random.choice(_ODD_TEXTS)): 1} if random.random() < 0.05 else {})}
    if isinstance(content, list):
        parts = [_changed(random, value, depth + 1) for value in content if random.random() > 0.05]
        return parts + parts[:1] if random.random() < 0.05 else parts
    if isinstance(content, (int, float)) and not isinstance(content, bool) and random.random() < 0.15:
        number = _ODD_NUMBERS[random.integers(0, len(_ODD_NUMBERS))]
        return number
    return content


def _write_changed(random: Random, path: Path, content: Any, *, dump: Callable[[Any], str] = json.dumps) -> None:
    text = dump(_changed(random, content)).encode(errors="replace")
    path.write_bytes(damaged(random, text) if random.random() < 0.3 else text)


def _make_tree(random: Random, number: int, place: Path, folder: Folder) -> Read:
    from rarezoo.data.trees import named_tree

    path = place / "tree.yaml"
    _write_changed(random, path, _TREE, dump=lambda content: yaml.safe_dump(content, allow_unicode=True))
    return lambda: named_tree(str(path))


def _make_decisions(random: Random, number: int, place: Path, folder: Folder) -> Read:
    from rarezoo.searches.decisions import Decisions

    row = {"class_id": 0, "decision": "merge", "name": "rings", "merge_into": 1, "size": 4}
    if random.random() < 0.5:
        path = place / "decisions.json"
        content = {"rarezoo": "decisions", "schema": 1, "search": "", "classes": [row, {**row, "class_id": 1}]}
        _write_changed(random, path, content)
    else:
        path = place / "decisions.csv"
        head = "search,class_id,size,decision,name,merge_into\n"
        cells = [",".join(random.choice(["", "0", "1", "keep", "merge", *_ODD_TEXTS], 6)) for _ in range(3)]
        text = (head + "\n".join(cells)).encode(errors="replace")
        path.write_bytes(damaged(random, text) if random.random() < 0.4 else text)
    return lambda: Decisions.read(path).targets([0, 1])


def _make_checkpoint(random: Random, number: int, place: Path, folder: Folder) -> Read:
    from rarezoo.runs import file_sha256
    from rarezoo.zoo.checkpoint import Checkpoint
    from rarezoo.zoo.commands import ListCheckpoints, ShowCheckpoints

    root = place / "checkpoints"
    copy = root / "checkpoint"
    copy.mkdir(parents=True)
    for file in (folder.path / "checkpoint").iterdir():
        os.link(file, copy / file.name)
    card = json.loads((copy / "card.json").read_text())
    name = str(random.choice(["weights.safetensors", "golden.safetensors"]))
    if random.random() < 0.5:
        content = damaged(random, (copy / name).read_bytes())
        (copy / name).unlink()
        (copy / name).write_bytes(content)
        card["sha256"][name] = file_sha256(copy / name)
    (copy / "card.json").unlink()
    _write_changed(random, copy / "card.json", card)

    def read() -> None:
        if number % 3 == 0:
            Checkpoint.open(copy)
        elif number % 3 == 1:
            ShowCheckpoints(names=[str(copy)]).run()
            ShowCheckpoints(names=[str(copy), str(folder.path / "checkpoint")]).run()
        else:
            ListCheckpoints(root=str(root)).run()

    return read


def _make_store(random: Random, number: int, place: Path, folder: Folder) -> Read:
    from rarezoo.embeddings.store import EmbeddingStore

    copy = shutil.copytree(folder.path / "store", place / "store")
    manifest = json.loads((copy / "manifest.json").read_text())
    if random.random() < 0.5:
        _write_changed(random, copy / "manifest.json", manifest)
    else:
        shard = sorted(copy.glob("shard-*.parquet"))[random.integers(0, 3)]
        draw = random.random()
        other = folder.sound_files[".parquet"] if draw < 0.2 else damaged(random, shard.read_bytes())
        shard.write_bytes(other)

    def read() -> None:
        store = EmbeddingStore.open(copy)
        store.read()
        store.embeddings()
        store.skipped()

    return read


def _make_search(random: Random, number: int, place: Path, folder: Folder) -> Read:
    from rarezoo.searches.listing import classes_table
    from rarezoo.searches.result import Search
    from rarezoo.studies.leaderboard import write_leaderboard

    copy = shutil.copytree(folder.path / "search", place / "runs" / "search")
    about = json.loads((copy / "run.json").read_text())
    (copy / "settings.json").write_text(json.dumps({"verb": "cluster", "settings": about["settings"]}))
    draw = random.random()
    if draw < 0.4:
        _write_changed(random, copy / "run.json", about)
    elif draw < 0.6:
        _write_changed(random, copy / "settings.json", {"verb": "cluster", "settings": about["settings"]})
    else:
        table = sorted(copy.glob("*.parquet"))[random.integers(0, 5)]
        table.write_bytes(damaged(random, table.read_bytes()) if draw < 0.9 else folder.sound_files[".parquet"])

    def read() -> None:
        if number % 3 == 0:
            write_leaderboard(place / "runs")
            return
        search = Search.open(copy)
        for name in ("classes", "members", "map", "map_2d", "tree"):
            search.table(name)
        classes_table(search)
        search.store.read()
        search.export(place / "members.csv")

    return read


def _make_settings(random: Random, number: int, place: Path, folder: Folder) -> Read:
    from rarezoo.runs import claim

    settings = {"seed": 1, "store": {"width": 8, "names": ["a"]}}
    _write_changed(random, place / "settings.json", {"verb": "train", "settings": settings})
    return lambda: claim(place, verb="train", settings=settings)


# ── single hostile files ────────────────────────────────────────────────────────────────────────────────────────────

_CLAIMED = 60_000


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _giant_png() -> bytes:
    head = struct.pack(">IIBBBBB", _CLAIMED, _CLAIMED, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _giant(kind: str) -> bytes:
    """Return a small picture whose header claims 60,000 × 60,000 pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, format=kind)
    content = bytearray(stream.getvalue())
    if kind == "JPEG":
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", _CLAIMED, _CLAIMED)
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", _CLAIMED, _CLAIMED)
    elif kind == "GIF":
        content[6:10] = struct.pack("<HH", _CLAIMED, _CLAIMED)
    elif kind == "TIFF":
        for tag in (256, 257):
            at = content.index(struct.pack("<HH", tag, 3)) if struct.pack("<HH", tag, 3) in content else -1
            if at >= 0:
                content[at + 2 : at + 12] = struct.pack("<HII", 4, 1, _CLAIMED)
    return bytes(content)


def _fits_header(**cards: object) -> bytes:
    lines = [f"{key:<8}= {value!s:>20}" for key, value in {"SIMPLE": "T", **cards}.items()]
    return "".join(line.ljust(80) for line in [*lines, "END"]).ljust(2880 * (1 + len(lines) // 35)).encode()


def _bomb(block: bytes, *, size: int) -> bytes:
    """Return a small .gz file that expands to ``size`` bytes: one compressed block, again and again."""
    block = block * (2**24 // len(block))
    return gzip.compress(block, 9) * (size // len(block))


def _wide_parquet(columns: int) -> bytes:
    """Return a Parquet file without rows that describes many columns, as Thrift's compact protocol writes them."""

    def number(value: int) -> bytes:
        parts = []
        while value > 0x7F:
            parts.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*parts, value])

    def column(name: bytes) -> bytes:
        return b"\x15\x02\x25\x02\x18" + number(len(name)) + name + b"\0"

    root = b"\x48\x06schema\x15" + number(2 * columns) + b"\0"
    schema = b"".join([root, *(column(f"c{place}".encode()) for place in range(columns))])
    footer = b"\x15\x02\x19\xfc" + number(columns + 1) + schema + b"\x16\0\x19\x0c\0"
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"


def _laughing_votable() -> bytes:
    """Return a VOTable whose only cell expands to 10^9 words and to the content of a file."""
    entities = "".join(f'<!ENTITY a{level} "{f"&a{level - 1};" * 10}">' for level in range(1, 10))
    return f"""<?xml version="1.0"?><!DOCTYPE VOTABLE [<!ENTITY a0 "lol">{entities}
        <!ENTITY file SYSTEM "file:///etc/hostname">]><VOTABLE version="1.3"><RESOURCE><TABLE>
        <FIELD name="id_str" datatype="char" arraysize="*"/><DATA><TABLEDATA><TR><TD>&a9;&file;</TD></TR></TABLEDATA>
        </DATA></TABLE></RESOURCE></VOTABLE>""".encode()


def _single_pictures() -> dict[str, Callable[[Path, Folder], Read]]:
    """Return the makers of pictures that claim to be huge."""
    head = _fits_header(BITPIX=-32, NAXIS=2, NAXIS1=_CLAIMED, NAXIS2=_CLAIMED)

    def claims(name: str, content: Callable[[], bytes]) -> Callable[[Path, Folder], Read]:
        return lambda place, folder: _read_picture(place, name, content(), folder)

    return {
        "claims-PNG": claims("p.png", _giant_png),
        **{f"claims-{kind}": claims(f"p.{kind.lower()}", lambda kind=kind: _giant(kind))  # type: ignore[misc]
           for kind in ("JPEG", "BMP", "GIF", "TIFF")},
        "claims-FITS": claims("p.fits", lambda: head + bytes(2880)),
        "bomb-FITS-image": claims("p.fits.gz", lambda: gzip.compress(head) + _bomb(b"\0", size=2**33)),
        "bomb-FITS-tile": claims("p.fits", _fits_of_a_tile),
    }  # fmt: skip


def _fits_of_a_tile() -> bytes:
    """Return a FITS image of 8 x 8 pixels, whose compressed tile expands to 8 GiB."""
    from astropy.io import fits

    tiles = np.empty(1, dtype=object)
    tiles[0] = np.frombuffer(_bomb(b"\0", size=2**33), dtype=np.uint8)
    table = fits.BinTableHDU.from_columns([fits.Column("COMPRESSED_DATA", "1PB()", array=tiles)])
    claims = {"ZNAXIS": 2, "ZNAXIS1": 8, "ZNAXIS2": 8, "ZTILE1": 8, "ZTILE2": 8, "ZPCOUNT": 0, "ZGCOUNT": 1}
    table.header.update({"ZIMAGE": True, "ZTENSION": "IMAGE", "ZBITPIX": 16, "ZCMPTYPE": "GZIP_1", **claims})
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(stream)
    return stream.getvalue()


def _single_tables() -> dict[str, Callable[[Path, Folder], Read]]:
    """Return the makers of tables that claim to be huge, or expand to something huge."""

    def table(name: str, content: Callable[[], bytes]) -> Callable[[Path, Folder], Read]:
        def make(place: Path, folder: Folder) -> Read:
            (place / name).write_bytes(content())
            return folder.catalogue(place / name)

        return make

    head = _fits_header(BITPIX=-32, NAXIS=2, NAXIS1=_CLAIMED, NAXIS2=_CLAIMED)
    rows = _fits_header(
        XTENSION="'BINTABLE'", BITPIX=8, NAXIS=2, NAXIS1=8, NAXIS2=10**12, PCOUNT=0, GCOUNT=1, TFIELDS=1,
        TTYPE1="'id_str'", TFORM1="'8A'",
    )[80:] + b" " * 80  # fmt: skip
    return {
        "claims-FITS-table": table("t.fits", lambda: _fits_header(BITPIX=8, NAXIS=0) + rows + bytes(2880)),
        "bomb-FITS-table": table("t.fits.gz", lambda: gzip.compress(head) + _bomb(b"\0", size=2**33)),
        "bomb-CSV": table("t.csv.gz", lambda: gzip.compress(b"id_str,x\n") + _bomb(b"g0,1\n", size=2**33)),
        "bomb-VOTable": table("t.vot.gz", lambda: _bomb(b" ", size=2**33)),
        "bomb-ECSV": table("t.ecsv.gz", lambda: _bomb(b"# x\n", size=2**33)),
        "entities-VOTable": table("t.vot", _laughing_votable),
        "columns-Parquet": table("t.parquet", lambda: _wide_parquet(1_000_000)),
        "columns-CSV": table("t.csv", lambda: b"id_str," + b",".join([b"x"] * 1_000_000) + b"\n"),
        "cell-CSV": table("t.csv", lambda: b"id_str,x\ng0," + b"x" * 2**27 + b"\n"),
    }


def _outside(kind: str) -> Callable[[Path, Folder], Read]:
    """Return the maker of a catalogue that names an image outside the folder of images."""

    def make(place: Path, folder: Folder) -> Read:
        (place / "inside").mkdir()
        Image.new("L", (8, 8), 77).save(place / "outside.png")
        name = {"parent": "../outside.png", "absolute": str(place / "outside.png"), "link": "link.png"}[kind]
        if kind == "link":
            (place / "inside" / name).symlink_to(place / "outside.png")
        (place / "table.csv").write_text(f"id_str,image\nJ1,{name}\n")
        opened = folder.catalogue(place / "table.csv", images=str(place / "inside"), on_bad_image="stop")

        def read() -> None:
            opened().images.cutout(0)
            raise AssertionError(f"an image outside the folder of images was read: {name}")

        return read

    return make


def _hdf5_outside(place: Path, folder: Folder) -> Read:
    """Make an HDF5 file whose pixels are the bytes of another file."""
    import h5py

    (place / "secret.bin").write_bytes(bytes(range(256)) * 3)
    with h5py.File(place / "images.h5", "w") as file:
        file.create_dataset("images", (12, 8, 8), "u1", external=[(str(place / "secret.bin"), 0, 768)])
        file["id_str"] = _IDS
    opened = folder.catalogue(folder.path / "table.csv", images=str(place / "images.h5"))

    def read() -> None:
        pixels = opened().images.cutout(1)
        raise AssertionError(f"the content of another file was read as an image: {pixels[0, :4, 0].tolist()}")

    return read


def _single_texts() -> dict[str, Callable[[Path, Folder], Read]]:
    """Return the makers of JSON and YAML files that are nested without end, expand, or name Python objects."""
    from rarezoo.data.trees import named_tree
    from rarezoo.searches.decisions import Decisions
    from rarezoo.searches.result import Search
    from rarezoo.zoo.cards import read_card

    def file(name: str, content: bytes, read: Callable[[Path], object]) -> Callable[[Path, Folder], Read]:
        def make(place: Path, folder: Folder) -> Read:
            (place / name).write_bytes(content)
            return lambda: read(place / name)

        return make

    deep, tree = b"[" * 200_000, lambda path: named_tree(str(path))
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
    aliases = "\n".join(["a0: &a0 [x, x, x]", *levels, "name: *a9"]).encode()
    return {
        "deep-YAML": file("tree.yaml", deep, tree),
        "aliases-YAML": file("tree.yaml", aliases, tree),
        "python-YAML": file("tree.yaml", b"!!python/object/apply:os.system [id]", tree),
        "deep-decisions": file("d.json", deep, Decisions.read),
        "deep-run": file("run.json", deep, lambda path: Search.open(path.parent)),
        "deep-card": file("card.json", deep, lambda path: read_card(path.parent)),
    }


def makers() -> dict[str, Maker]:
    """Return the makers of all kinds of input by name."""

    def single(make: Callable[[Path, Folder], Read]) -> Maker:
        return Maker(lambda random, number, place, folder: make(place, folder), weight=0)

    return {
        **{name: single(make) for name, make in (_single_pictures() | _single_tables() | _single_texts()).items()},
        "external-HDF5": single(_hdf5_outside),
        **{f"outside-{kind}": single(_outside(kind)) for kind in ("parent", "absolute", "link")},
        **{f"table{ending}": Maker(_make_table(ending), 3) for ending in TABLE_ENDINGS},
        **{f"image-{kind}": Maker(_make_picture(kind), 3) for kind in (*_PICTURES, "FITS")},
        "votes": Maker(_make_votes, 3), "vectors": Maker(_make_vectors, 2), "folder": Maker(_make_parquet_folder, 1),
        "tar": Maker(_make_tar, 3), "hdf5": Maker(_make_hdf5, 3), "tree": Maker(_make_tree, 3),
        "decisions": Maker(_make_decisions, 4), "checkpoint": Maker(_make_checkpoint, 2),
        "store": Maker(_make_store, 3), "search": Maker(_make_search, 3), "settings": Maker(_make_settings, 3),
    }  # fmt: skip


def one_by_one(number: int, kinds: Sequence[str], known: Mapping[str, Maker]) -> Iterator[tuple[int, str]]:
    """Yield the number and kind of every input, from a number on: first the single files, then all others in turn."""
    single = [kind for kind in kinds if not known[kind].weight]
    turn = [kind for kind in kinds for _ in range(known[kind].weight)]
    for at in itertools.count(number) if turn else range(number, len(single)):
        yield at, single[at] if at < len(single) else turn[(at - len(single)) % len(turn)]
