"""The folder of the Galaxy Zoo 2 sample, as the test writes it: every mistake in it is one message."""

import io
import tarfile

import pytest
from PIL import Image

from rarezoo.data.surveys.gz2 import Gz2
from rarezoo.errors import DataError, RarezooError

pytestmark = pytest.mark.unit
ANSWERS = {1: 3, 2: 2, 3: 2, 4: 2, 5: 4, 6: 2, 7: 3, 8: 7, 9: 3, 10: 3, 11: 6}
HEADER = [
    "id_str",
    "class5",
    *(f"Class{number}.{answer + 1}" for number, count in ANSWERS.items() for answer in range(count)),
]


def picture(value):
    stream = io.BytesIO()
    Image.new("L", (8, 8), value).save(stream, format="JPEG")
    return stream.getvalue()


def sample(folder, shards, ids=("1", "2")):
    """Write catalogue.csv and one tar file for each dictionary from names to contents."""
    rows = [",".join([galaxy, "spiral", *["0.5"] * (len(HEADER) - 2)]) for galaxy in ids]
    (folder / "catalogue.csv").write_text("\n".join([",".join(HEADER), *rows]) + "\n")
    for number, members in enumerate(shards):
        with tarfile.open(folder / f"images-{number}.tar", "w") as archive:
            for name, content in members.items():
                about = tarfile.TarInfo(name)
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))
    return str(folder)


def test_an_image_that_is_in_two_shards_is_refused(tmp_path):
    folder = sample(tmp_path, [{"1.jpg": picture(10), "2.jpg": picture(20)}, {"1.jpg": picture(200)}])
    with pytest.raises(DataError, match=r"several images.*galaxies 1"):
        Gz2(folder).open()


def test_an_absent_image_is_refused_or_skipped(tmp_path):
    folder = sample(tmp_path, [{"1.jpg": picture(10)}])
    with pytest.raises(DataError, match=r"no image.*galaxies 2"):
        Gz2(folder).open()
    images = Gz2(folder, on_bad_image="skip").open().images
    assert images.cutout(0).mean() == 10
    with pytest.raises(DataError, match=r"unreadable image.*galaxies 2"):
        images.cutout(1)


def test_damaged_files_of_the_sample_are_named(tmp_path):
    folder = sample(tmp_path, [{"1.jpg": picture(10), "2.jpg": picture(20)}])
    whole = (tmp_path / "catalogue.csv").read_bytes()
    for content in (
        b"",
        whole[:-40],
        whole.replace(b"0.5", b"half", 1),
        whole.replace(b"\n2,", b"\n1,"),
        b"\xff\xfe\0",
    ):
        (tmp_path / "catalogue.csv").write_bytes(content)
        with pytest.raises(RarezooError):
            Gz2(folder).open()
    (tmp_path / "catalogue.csv").write_bytes(whole)
    (tmp_path / "images-0.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(DataError, match="unreadable tar shard"):
        Gz2(folder).open()
