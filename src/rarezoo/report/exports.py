"""Members of classes in the formats of other tools: CSV, FITS, VOTable, DS9 regions, a Hugging Face data set.

A members table has the columns id_str, ra, dec (deg, ICRS; null if unknown), class_id, probability, outlier_score and
any number of predicted vote fractions (0–1).
"""

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from rarezoo import tables
from rarezoo.errors import DataError, OutputError
from rarezoo.report import palette
from rarezoo.report.downloads import ascii_bytes

log = logging.getLogger(__name__)
Cutouts = Callable[[Sequence[str]], list[np.ndarray]]

# By column: unit, UCD (https://www.ivoa.net/documents/UCD1+) and what it is.
_MEANINGS = {
    tables.ID: ("", "meta.id;meta.main", "galaxy"),
    tables.RA: ("deg", "pos.eq.ra;meta.main", "right ascension, ICRS"),
    tables.DEC: ("deg", "pos.eq.dec;meta.main", "declination, ICRS"),
    tables.CLASS_ID: ("", "meta.code.class", "class; -1: in no class"),
    tables.PROBABILITY: ("", "stat.probability", "strength of membership, 0 to 1"),
    tables.OUTLIER_SCORE: ("", "stat.value", "GLOSH outlier score, 0 to 1"),
}
_FRACTION_MEANING = ("", "stat.fit.param;arith.ratio", "predicted vote fraction among those asked, 0 to 1")
# Galaxies in one file of a data set with images: some ten MB.
_SHARD = 2000


def write_csv(path: Path, members: pa.Table, *, about: Mapping[str, str]) -> Path:
    """Members as CSV (UTF-8); what is unknown is empty."""
    with tables.atomic(path) as temporary:
        pyarrow.csv.write_csv(members, temporary)
    return path


def write_fits(path: Path, members: pa.Table, *, about: Mapping[str, str]) -> Path:
    """Members as a FITS table with units; non-ASCII characters of an id are escaped as Python does."""
    table = _astropy_table(members)
    table[tables.ID] = ascii_bytes(members.column(tables.ID).to_pylist())
    # FITS keys have eight characters.
    table.meta = {key[:8].upper(): ascii_bytes([value])[0].decode() for key, value in about.items()}
    with tables.atomic(path) as temporary:
        table.write(temporary, format="fits", overwrite=True)
    return path


def write_votable(path: Path, members: pa.Table, *, about: Mapping[str, str]) -> Path:
    """Members as a VOTable with units, UCDs and the ICRS, so that TOPCAT and Aladin know the sky position."""
    from astropy.io.votable import writeto
    from astropy.io.votable.tree import CooSys, VOTableFile

    file = VOTableFile.from_table(_astropy_table(members))
    table = file.get_first_table()
    file.resources[0].coordinate_systems.append(CooSys(ID="icrs", system="ICRS"))
    table.description = "; ".join(f"{key} {value}" for key, value in about.items())
    for column in table.fields:
        column.ucd = _meaning(column.name)[1]
        column.ref = "icrs" if column.name in (tables.RA, tables.DEC) else None
    with tables.atomic(path) as temporary:
        writeto(file, str(temporary))
    return path


def write_ds9(path: Path, members: pa.Table, *, about: Mapping[str, str], radius: float = 10.0) -> Path:
    """Members as circles for DS9, in their class's colour and grouped by a tag of their class.

    Galaxies whose position is unknown are left out, and a warning says how many.

    Args:
        path: file to write.
        members: members table.
        about: written as comments.
        radius: of a circle, arcsec.

    Raises:
        DataError: no galaxy has a position.
    """
    known = members.filter(pc.and_(_is_number(members.column(tables.RA)), _is_number(members.column(tables.DEC))))
    if not known.num_rows:
        raise DataError(
            "no galaxy has a position", value=f"{members.num_rows} members",
            fix="Give a table with id_str, ra and dec: --positions FILE.",
        )  # fmt: skip
    if known.num_rows < members.num_rows:
        log.warning("%d galaxies without a position are left out", members.num_rows - known.num_rows)
    head = ["# Region file format: DS9 version 4.1", *(f"# {key}: {value}" for key, value in about.items())]
    lines = [*head, 'global dashlist=8 3 width=1 font="helvetica 10 normal"', "icrs"]
    with tables.atomic(path) as temporary:
        temporary.write_text("\n".join([*lines, *(_circle(one, radius) for one in known.to_pylist())]) + "\n")
    return path


def write_huggingface(
    folder: Path, members: pa.Table, *, about: Mapping[str, str], cutouts: Cutouts | None = None
) -> Path:
    """Members as a data set folder that ``datasets.load_dataset(folder)`` reads, and ``data=huggingface`` too.

    Args:
        folder: absent, empty, or left behind by a write that was killed.
        members: members table.
        about: told in the data set's card.
        cutouts: ids → uint8 (H, W, 3) each, kept as PNG in a column ``image``; None leaves images out.

    Raises:
        OutputError: the folder holds something, or cannot be written.
    """
    if (folder / "README.md").exists() or (folder.is_dir() and {one.name for one in folder.iterdir()} - {"data"}):
        raise OutputError("the folder is not empty", value=folder, fix="Choose another --out DIR.")
    schema = _features(members, images=cutouts is not None).arrow_schema
    shards = max(1, -(-members.num_rows // _SHARD))
    for old in folder.glob("data/*.parquet"):
        old.unlink()
    for at in tqdm(range(shards), desc="data set", unit="file", mininterval=1.0):
        rows = members.slice(at * _SHARD, _SHARD)
        with tables.atomic(folder / "data" / f"train-{at:05d}-of-{shards:05d}.parquet") as temporary:
            pq.write_table(_with_images(rows, cutouts).cast(schema), temporary)
    with tables.atomic(folder / "README.md") as temporary:
        temporary.write_text(_card(members, about), encoding="utf-8")
    return folder


def _is_number(column: pa.ChunkedArray) -> Any:
    return pc.fill_null(pc.is_finite(column), False)


def _meaning(column: str) -> tuple[str, str, str]:
    return _MEANINGS.get(column, _FRACTION_MEANING)


def _astropy_table(members: pa.Table) -> Any:
    """Members with units and descriptions; an unknown position is NaN."""
    from astropy.table import Column, Table

    columns = []
    for name in members.column_names:
        unit, _, about = _meaning(name)
        values = members.column(name).to_numpy()
        values = values.astype(str) if values.dtype == object else values
        columns.append(Column(values, name=name, unit=unit or None, description=about))
    return Table(columns)


def _circle(one: Mapping[str, Any], radius: float) -> str:
    class_id = one[tables.CLASS_ID]
    colour = palette.LIGHT[palette.mark(class_id).colour] if class_id != tables.NO_CLASS else "#8d929b"
    # Braces and ends of line would end the text.
    text = "".join(" " if letter in "{}\r\n" else letter for letter in one[tables.ID])
    tag = f"class {class_id}" if class_id != tables.NO_CLASS else "no class"
    place = f'{one[tables.RA]:.7f},{one[tables.DEC]:.7f},{radius:g}"'
    return f"circle({place}) # color={colour} text={{{text}}} tag={{{tag}}}"


def _features(members: pa.Table, *, images: bool) -> Any:
    import datasets

    kinds = {field.name: datasets.Value(_value_name(field.type)) for field in members.schema}
    return datasets.Features({**({"image": datasets.Image()} if images else {}), **kinds})


def _value_name(kind: pa.DataType) -> str:
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


def _with_images(rows: pa.Table, cutouts: Cutouts | None) -> pa.Table:
    if cutouts is None:
        return rows
    ids = rows.column(tables.ID).to_pylist()
    images = [{"bytes": content, "path": None} for content in _pngs(ids, cutouts)]
    return rows.add_column(0, "image", pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})))


def _pngs(ids: Sequence[str], cutouts: Cutouts) -> Iterator[bytes]:
    for one in ids:
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(cutouts([one])[0])).save(stream, format="PNG")
        yield stream.getvalue()


def _card(members: pa.Table, about: Mapping[str, str]) -> str:
    head = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*.parquet"
    told = "\n".join(f"- {key}: {value}" for key, value in about.items())
    columns = "\n".join(f"- `{name}`: {_meaning(name)[2]}" for name in members.column_names)
    title = f"{members.num_rows:,} galaxies in classes found by rarezoo"
    return f"---\n{head}\n---\n\n# {title}\n\n{told}\n\nColumns:\n\n{columns}\n"
