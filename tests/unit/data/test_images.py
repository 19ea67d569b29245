"""Images of folders, tar shards and HDF5 files, and a message for every kind of broken file."""

import io
import os
import tarfile

import h5py
import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from rarezoo.data.images import FolderImages, Hdf5Images, TarImages, shown_cutouts
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
    with pytest.raises(DataError, match=r"uncompressed.*gunzip"):
        TarImages([tmp_path / "a.tar"], [], [])


def test_hdf5_rows_follow_ids(tmp_path):
    pixels = np.arange(3 * 8 * 8 * 3, dtype=np.uint64).reshape(3, 8, 8, 3).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["id_str"] = pixels, ["a", "b", "c"]
    np.testing.assert_array_equal(Hdf5Images(tmp_path / "a.h5", ["c", "a"]).cutout(0), pixels[2])
    with pytest.raises(DataError, match=r"no image.*galaxies z"):
        Hdf5Images(tmp_path / "a.h5", ["z"])


def tar_of(path, members):
    """Write a tar file; members are (name, bytes), or (name, type of link, target)."""
    with tarfile.open(path, "w") as archive:
        for name, *rest in members:
            about = tarfile.TarInfo(name)
            if len(rest) == 2:
                about.type, about.linkname = rest
                archive.addfile(about)
            else:
                about.size = len(rest[0])
                archive.addfile(about, io.BytesIO(rest[0]))
    return path


def flat(value, **settings):
    return encoded(Image.new("L", (8, 8), value), **settings)


def hdf5_of(path, pixels, ids, **settings):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=pixels, **settings)
        file["id_str"] = ids
    return path


def test_links_in_a_tar_file_lead_to_members_and_nowhere_else(tmp_path):
    (tmp_path / "secret.png").write_bytes(flat(99))
    shard = tar_of(
        tmp_path / "a.tar",
        [
            ("b/real.png", flat(10)),
            ("hard.png", tarfile.LNKTYPE, "b/real.png"),
            ("b/soft.png", tarfile.SYMTYPE, "real.png"),
            ("chain.png", tarfile.SYMTYPE, "b/soft.png"),
            ("loop.png", tarfile.SYMTYPE, "loop.png"),
            ("out.png", tarfile.SYMTYPE, str(tmp_path / "secret.png")),
            ("up.png", tarfile.SYMTYPE, "../secret.png"),
            ("/root.png", flat(20)),
            ("../above.png", flat(30)),
        ],
    )
    names = ["b/real.png", "hard.png", "b/soft.png", "chain.png", "root.png", "above.png"]
    images = TarImages([shard], names, names)
    assert [int(images.cutout(row).mean()) for row in range(6)] == [10, 10, 10, 10, 20, 30]
    for name in ("loop.png", "out.png", "up.png"):
        with pytest.raises(DataError, match="no image"):
            TarImages([shard], [name], [name])


@pytest.mark.parametrize("shards", [("a.tar", "b.tar"), ("a.tar",)])
def test_a_name_that_several_members_of_tar_files_have_is_refused(tmp_path, shards):
    contents = [("0.png", flat(10)), ("0.png", flat(200))]
    parts = [contents] if len(shards) == 1 else [[member] for member in contents]
    paths = [tar_of(tmp_path / name, part) for name, part in zip(shards, parts, strict=True)]
    with pytest.raises(DataError, match=r"several images.*0\.png.*J1"):
        TarImages(paths, ["0.png"], ["J1"])
    images = TarImages(paths, ["a.tar/0.png"], ["J1"])
    assert images.cutout(0).mean() == 10


@pytest.mark.parametrize("ids", [["a", "b", "a"], [b"a   ", b"b   ", b"a   "]])
def test_an_id_twice_in_hdf5_is_refused_if_it_is_wanted(tmp_path, ids):
    path = hdf5_of(tmp_path / "a.h5", np.zeros((3, 8, 8), np.uint8), ids)
    assert Hdf5Images(path, ["b"]).cutout(0).shape == (8, 8, 3)
    with pytest.raises(DataError, match=r"several images.*galaxies a"):
        Hdf5Images(path, ["a", "b"])


@pytest.mark.parametrize(
    "ids",
    [
        [b"7 ", b"12"],
        np.array([b"7", b"12"], dtype="S8"),
        np.array([b"7       ", b"12      "], dtype="S8"),
        ["7", "12"],
        np.array([7, 12]),
        np.array([7.0, 12.0]),
    ],
)
def test_ids_of_hdf5_are_texts_without_spaces(tmp_path, ids):
    pixels = np.zeros((2, 8, 8), np.uint8)
    pixels[1] = 50
    images = Hdf5Images(hdf5_of(tmp_path / "a.h5", pixels, ids), ["12", "7"])
    assert [images.cutout(row).mean() for row in range(2)] == [50, 0]


def test_long_ids_that_were_rounded_in_hdf5_are_refused(tmp_path):
    path = hdf5_of(tmp_path / "a.h5", np.zeros((1, 8, 8), np.uint8), np.array([588017702939984047.0]))
    with pytest.raises(DataError, match="floating-point"):
        Hdf5Images(path, ["588017702939984047"])


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 8), "cannot be used"), ((2, 8, 8, 2), "channels"), ((2, 0, 8), "without pixels"), ((1, 8, 8), "one id per")],
)
def test_hdf5_of_another_shape_is_refused_when_it_is_opened(tmp_path, shape, message):
    with pytest.raises(DataError, match=message):
        Hdf5Images(hdf5_of(tmp_path / "a.h5", np.zeros(shape, np.uint8), ["a", "b"]), ["a"])


@pytest.mark.parametrize("content", [b"", b"no HDF5 file", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_a_foreign_file_called_h5_is_refused(tmp_path, content):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(DataError, match="unreadable HDF5"):
        Hdf5Images(tmp_path / "a.h5", ["a"])


@pytest.mark.parametrize("kind", ["group", "number", "nothing", "link"])
@pytest.mark.parametrize("name", ["images", "id_str"])
def test_hdf5_in_which_a_data_set_is_no_array_is_refused(tmp_path, name, kind):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["id_str"] = np.zeros((2, 8, 8), np.uint8), ["a", "b"]
        del file[name]
        if kind == "group":
            file.create_group(name)
        else:
            file[name] = {"number": 5, "nothing": h5py.Empty("u1"), "link": h5py.SoftLink("/absent")}[kind]
    with pytest.raises(DataError, match=rf"{name} of .*a.h5 is not an array: \w+\."):
        Hdf5Images(tmp_path / "a.h5", ["a", "b"])


def test_galaxies_whose_ids_differ_only_in_spaces_do_not_share_an_image_of_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["id_str"] = np.zeros((2, 8, 8), np.uint8), ["a", "1"]
    with pytest.raises(DataError, match=r"differ only in spaces.*galaxies a\]"):
        Hdf5Images(tmp_path / "a.h5", ["a", " a"])
    with pytest.raises(DataError, match=r"no image.*Ids differ in zeros"):
        Hdf5Images(tmp_path / "a.h5", ["a", "001"])


def test_hdf5_that_leads_to_another_file_is_refused_unless_allowed(tmp_path):
    hdf5_of(tmp_path / "other.h5", np.zeros((1, 8, 8), np.uint8), ["a"])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["id_str"] = h5py.ExternalLink("other.h5", "images"), ["a"]
    with pytest.raises(DataError, match=r"another file.*allow_outside=true"):
        Hdf5Images(tmp_path / "a.h5", ["a"])
    assert Hdf5Images(tmp_path / "a.h5", ["a"], allow_outside=True).cutout(0).shape == (8, 8, 3)


def test_a_damaged_chunk_of_hdf5_is_an_unreadable_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 32, 32), np.uint8)
    path = hdf5_of(tmp_path / "a.h5", pixels, list("abcd"), chunks=(1, 32, 32), compression="gzip")
    with h5py.File(path) as file:
        place = file["images"].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(content)
    images = Hdf5Images(path, list("abcd"))
    np.testing.assert_array_equal(images.cutout(1)[:, :, 0], pixels[1])
    with pytest.raises(DataError, match=r"unreadable image.*galaxies c"):
        images.cutout(2)


def test_names_and_links_out_of_the_folder_are_unreadable_unless_allowed(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out.png"
    (inside / "sub").mkdir(parents=True)
    outside.write_bytes(flat(70))
    (inside / "own.png").write_bytes(flat(30))
    (inside / "link.png").symlink_to(outside)
    (inside / "sub" / "own-link.png").symlink_to(inside / "own.png")
    (inside / "folder").symlink_to(tmp_path)
    leaving = ["../out.png", str(outside), "link.png", "folder/out.png", "sub/../../out.png"]
    staying = ["own.png", str(inside / "own.png"), "sub/own-link.png", "sub/../own.png"]
    strict = FolderImages(inside, [*leaving, *staying], [*leaving, *staying])
    for row in range(len(leaving)):
        with pytest.raises(DataError, match="allow_outside=true"):
            strict.cutout(row)
    assert [strict.cutout(row + len(leaving)).mean() for row in range(len(staying))] == [30] * len(staying)
    open_to_all = FolderImages(inside, leaving, leaving, allow_outside=True)
    assert [open_to_all.cutout(row).mean() for row in range(len(leaving))] == [70] * len(leaving)


def test_a_pipe_or_a_folder_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png", "nothing.png", "a\0b.png", "n" * 300 + ".png"):
        with pytest.raises(DataError, match="unreadable image"):
            FolderImages(tmp_path, [name], ["J1"]).cutout(0)


def test_a_file_larger_than_any_cutout_is_not_read(tmp_path):
    with (tmp_path / "large.png").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(DataError, match="larger than 256 MiB"):
        FolderImages(tmp_path, ["large.png"], ["J1"]).cutout(0)


def test_a_crossed_square_stands_for_an_image_that_cannot_be_shown(broken_folder, caplog):
    images = FolderImages(broken_folder, ["whole.JPG", "truncated.jpg"], ["J1", "J2"])
    named = set()
    shown = shown_cutouts(images, [0, 1, 0], named=named)
    np.testing.assert_array_equal(shown[0], images.cutout(0))
    np.testing.assert_array_equal(shown[2], images.cutout(0))
    assert shown[1].std() > 0
    shown_cutouts(images, [1, 1], named=named)
    assert caplog.text.count("J2") == 1
    assert "J1" not in caplog.text


@pytest.mark.parametrize("chunks", [(1, 8, 8), (1, 4, 8), None])
def test_images_of_hdf5_that_were_never_written_are_unreadable_and_not_black(tmp_path, chunks):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (3, 8, 8), "u1", chunks=chunks)
        file["id_str"] = ["a", "b", "c"]
        if chunks:
            file["images"][1] = 0
    images = Hdf5Images(tmp_path / "a.h5", ["a", "b"])
    with pytest.raises(DataError, match=r"nothing was written.*galaxies a"):
        images.cutout(0)
    if chunks:
        assert not images.cutout(1).any(), "a black picture that was written is a picture"


def test_a_virtual_data_set_whose_file_is_gone_is_refused(tmp_path):
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["pixels"] = np.full((2, 8, 8), 9, "u1")
    layout = h5py.VirtualLayout((2, 8, 8), "u1")
    layout[:] = h5py.VirtualSource("part.h5", "pixels", (2, 8, 8))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("images", layout)
        file["id_str"] = ["a", "b"]
    assert Hdf5Images(tmp_path / "a.h5", ["a"], allow_outside=True).cutout(0).mean() == 9
    (tmp_path / "part.h5").unlink()
    with pytest.raises(DataError, match=r"does not exist: part\.h5"):
        Hdf5Images(tmp_path / "a.h5", ["a"], allow_outside=True)
