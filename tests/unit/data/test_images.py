"""One rule for every kind of pixel, and a message for every kind of broken file."""

import io
import tarfile

import h5py
import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from rarezoo.data.images import FolderImages, Hdf5Images, TarImages
from rarezoo.data.pixels import decoded, rgb
from rarezoo.errors import DataError

pytestmark = pytest.mark.unit

RAMP = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))


def encoded(image, **settings):
    stream = io.BytesIO()
    image.save(stream, **{"format": "PNG", **settings})
    return stream.getvalue()


def fits_bytes(pixels):
    stream = io.BytesIO()
    fits.PrimaryHDU(pixels).writeto(stream)
    return stream.getvalue()


def test_greyscale_is_repeated():
    pixels = decoded(encoded(Image.fromarray(RAMP)))
    assert pixels.shape == (32, 32, 3)
    np.testing.assert_array_equal(pixels[:, :, 1], RAMP)


def test_sixteen_bit_png_is_divided_by_257():
    wide = (RAMP.astype(np.uint16) * 257)[:, :, None].squeeze()
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(wide)))[:, :, 0], RAMP)


def test_transparency_lies_on_black():
    layered = np.dstack([np.full((8, 8, 3), 200, np.uint8), np.zeros((8, 8), np.uint8)])
    assert decoded(encoded(Image.fromarray(layered, "RGBA"))).max() == 0


@pytest.mark.parametrize("mode", ["P", "CMYK", "1"])
def test_other_modes_become_rgb(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert decoded(encoded(Image.fromarray(RAMP).convert("RGB").convert(mode), format=kind)).shape == (
        32,
        32,
        3,
    )


@pytest.mark.parametrize("shape", [(16, 16), (3, 16, 16), (1, 16, 16)])
def test_fits_with_nan_is_black_there(shape):
    planes = np.random.default_rng(0).normal(100, 5, shape).astype(np.float32)
    planes[..., 4, 4] = np.nan
    planes[..., 8, 8] = 1000
    pixels = decoded(fits_bytes(planes))
    assert pixels.dtype == np.uint8
    assert pixels[4, 4].max() <= pixels[8, 8].min()


def test_a_fits_file_of_nan_alone_is_an_error():
    with pytest.raises(ValueError, match="no finite value"):
        decoded(fits_bytes(np.full((8, 8), np.nan)))


def test_rgb_takes_channels_first_and_refuses_the_rest():
    assert rgb(np.zeros((3, 20, 21), np.uint8)).shape == (20, 21, 3)
    assert rgb(np.ones((4, 5), np.float32)).max() == 255
    with pytest.raises(ValueError, match="channels"):
        rgb(np.zeros((5, 20, 20, 2), np.uint8))


@pytest.fixture
def broken_folder(tmp_path):
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), format="JPEG")
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "whole.JPG").write_bytes(whole)
    return tmp_path


@pytest.mark.parametrize("name", ["truncated.jpg", "empty.jpg", "text.jpg", "absent.jpg"])
def test_broken_files_name_galaxy_file_and_way_out(broken_folder, name):
    images = FolderImages(broken_folder, [name], ["NGC 1"])
    with pytest.raises(DataError, match=r"unreadable image") as caught:
        images.cutout(0)
    assert caught.value.ids == ("NGC 1",)
    assert name in str(caught.value)
    assert "data.on_bad_image=skip" in str(caught.value)


def test_tar_members_are_read_in_place(broken_folder, tmp_path):
    shard = tmp_path / "images-00.tar"
    with tarfile.open(shard, "w") as archive:
        archive.add(broken_folder / "whole.JPG", arcname="./g1.jpg")
    images = TarImages([shard], ["g1.jpg"], ["g1"])
    expected = FolderImages(broken_folder, ["whole.JPG"], ["g1"]).cutout(0)
    np.testing.assert_array_equal(images.cutout(0), expected)
    with pytest.raises(DataError, match="1 galaxies have no image"):
        TarImages([shard], ["g2.jpg"], ["g2"])


def test_compressed_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match="uncompressed"):
        TarImages([tmp_path / "a.tar"], [], [])


def test_hdf5_rows_follow_ids(tmp_path):
    pixels = np.arange(3 * 8 * 8 * 3, dtype=np.uint64).reshape(3, 8, 8, 3).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["id_str"] = pixels, ["a", "b", "c"]
    np.testing.assert_array_equal(Hdf5Images(tmp_path / "a.h5", ["c", "a"]).cutout(0), pixels[2])
    with pytest.raises(DataError, match=r"no image.*galaxies z"):
        Hdf5Images(tmp_path / "a.h5", ["z"])
