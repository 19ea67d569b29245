"""Each galaxy gets the file that its name or its id means, or the survey is refused; no file from anywhere else."""

import os
import tarfile
from pathlib import PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rarezoo.data.matching import Folder, files_by_id, files_by_name
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.errors import DataError

pytestmark = pytest.mark.unit
FILES = {"ring/000.png": 10, "merger/000.png": 200, "merger/deep/001.png": 60, "002.png": 90}


@pytest.fixture
def home(tmp_path):
    for file, value in FILES.items():
        picture(tmp_path / "im" / file, value)
    return tmp_path


def picture(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), value).save(path)


def survey(home, names=None, *, ids=None, images="im", **settings):
    ids = ids or [f"J{row}" for row in range(len(names))]
    columns = {"id_str": ids} if names is None else {"id_str": ids, "image": names}
    pd.DataFrame(columns).to_csv(home / "table.csv", index=False)
    return Catalogue(str(home / "table.csv"), images=str(home / images), **settings)


def values(home, *arguments, **settings):
    galaxies = survey(home, *arguments, **settings).open()
    return [int(galaxies.images.cutout(row).mean()) for row in range(len(galaxies))]


def packed(home):
    """Pack the folder of images into two tar shards in the folder "shards"."""
    (home / "shards").mkdir()
    for shard, files in (("a", ["ring/000.png", "002.png"]), ("b", ["merger/000.png", "merger/deep/001.png"])):
        with tarfile.open(home / "shards" / f"{shard}.tar", "w") as archive:
            for file in files:
                archive.add(home / "im" / file, arcname=f"./{file}")


WAYS = {
    "relative": "{file}",
    "with a dot": "./{file}",
    "up and down": "ring/../{file}",
    "absolute": "{home}/im/{file}",
    "from the parent": "im/{file}",
    "from beside": "../im/{file}",
    "from another machine": "/old/place/{file}",
    "from Windows": "D:\\data\\im\\{windows}",
    "with doubled slashes": "im//{file}",
}


@pytest.mark.parametrize("images", ["im", "shards"])
@pytest.mark.parametrize("way", WAYS)
def test_a_path_in_any_spelling_means_its_file(home, way, images):
    packed(home)
    names = [WAYS[way].format(file=file, home=home, windows=file.replace("/", "\\")) for file in FILES]
    assert values(home, names, images=images) == list(FILES.values())


@given(
    files=st.lists(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join), min_size=1, max_size=6, unique=True
    ),
    name=st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join),
)
def test_a_name_never_gets_a_file_whose_folders_contradict_it(files, name):
    try:
        (file,) = files_by_name(files, [name], ["J1"])
    except DataError:
        # Several files end with the name, and none is it.
        assert name not in files
        assert sum(f"/{file}".endswith(f"/{name}") for file in files) > 1
        return
    if file is None:
        assert not any(f"/{file}".endswith(f"/{name}") or f"/{name}".endswith(f"/{file}") for file in files)
    else:
        assert f"/{file}".endswith(f"/{name}") or f"/{name}".endswith(f"/{file}")
        assert file == name or name not in files


@pytest.mark.parametrize("images", ["im", "shards"])
def test_names_that_stay_ambiguous_are_refused(home, images):
    packed(home)
    with pytest.raises(DataError, match=r"several images.*000.png.*galaxies J0"):
        survey(home, ["000.png", "002.png"], images=images).open()
    with pytest.raises(DataError, match="different names would get one file"):
        survey(home, ["/x/ring/002.png", "/x/merger/002.png"], images=images).open()


@pytest.mark.parametrize("name", ["edge/000.png", "{home}/im/000.png", "{home}/im/edge/002.png", "", "003.png"])
def test_an_absent_image_never_gets_that_of_another_folder(home, name):
    with pytest.raises(DataError, match="1 galaxies have no image"):
        survey(home, ["002.png", name.format(home=home)]).open()


@pytest.mark.parametrize("images", ["im", "shards"])
@pytest.mark.parametrize(
    "files", [["g/J1.png", "r/J1.png"], ["J1.png", "J1.jpg"], ["J1.g.png", "J1.r.png"], ["J1.PNG", "x/J1.tif"]]
)
def test_an_id_with_several_files_is_refused(tmp_path, files, images):
    for value, file in enumerate(files):
        picture(tmp_path / "im" / file, value)
    if images == "shards":
        (tmp_path / "shards").mkdir()
        for number, file in enumerate(files):
            with tarfile.open(tmp_path / "shards" / f"{number}.tar", "w") as archive:
                archive.add(tmp_path / "im" / file, arcname=os.path.basename(file))
    with pytest.raises(DataError, match=r"several images.*J1.*data.image_column"):
        survey(tmp_path, ids=["J1"], images=images).open()


def test_ids_match_names_with_extensions_of_all_kinds():
    files = ["a/J1.fits.gz", "J2.rgb.jpg", "J3.5.png", "J3.PNG", "J4.tar", "J5", "b.c/J6.JPEG", "J7.9.png"]
    names = files_by_id(files, ["J1", "J2", "J3", "J3.5", "J4", "J5", "J6", "J7"])
    assert names == ["a/J1.fits.gz", "J2.rgb.jpg", "J3.PNG", "J3.5.png", None, None, "b.c/J6.JPEG", None]


@pytest.mark.parametrize("images", ["im", "shards"])
def test_a_galaxy_never_gets_the_image_of_one_whose_id_begins_like_its_own(home, images):
    files = ["J1.b.png", "J2.rgb.png"]
    assert files_by_id(files, ["J1", "J1.b", "J2"]) == [None, "J1.b.png", "J2.rgb.png"]
    packed(home)
    with tarfile.open(home / "shards" / "c.tar", "w") as archive:
        for file in files:
            picture(home / "im" / file, 5)
            archive.add(home / "im" / file, arcname=file)
    with pytest.raises(DataError, match=r"1 galaxies have no image.*galaxies J1\]"):
        survey(home, ids=["J1", "J1.b"], images=images).open()


@pytest.mark.parametrize(
    ("name", "difference"), [("002.PNG", "case"), ("ring/cafe\u0301.png", "Unicode"), (" 002.png", "")]
)
def test_a_name_that_differs_in_spelling_from_a_file_gets_a_hint(home, name, difference):
    picture(home / "im/ring/caf\u00e9.png", 30)
    if not difference:
        assert survey(home, [name]).open().images.cutout(0).mean() == 90
        return
    with pytest.raises(DataError, match=f"Names differ in .*{difference}.*on_bad_image"):
        survey(home, [name]).open()


@pytest.mark.parametrize("images", ["im", "shards", "images.h5"])
def test_absent_images_are_skipped_in_every_container(home, images):
    import h5py
    import numpy as np

    packed(home)
    with h5py.File(home / "images.h5", "w") as file:
        file["images"], file["id_str"] = np.full((2, 8, 8), 10, np.uint8), ["J0", "J9"]
    names = ["ring/000.png", "absent.png"]
    with pytest.raises(DataError, match=r"no image.*galaxies J1.*on_bad_image=skip"):
        survey(home, names, images=images).open()
    galaxies = survey(home, names, images=images, on_bad_image="skip").open()
    assert galaxies.images.cutout(0).mean() == 10
    with pytest.raises(DataError, match=r"unreadable image.*galaxies J1"):
        galaxies.images.cutout(1)
    with pytest.raises(DataError, match="no image"):
        survey(home, ["x.png"], ids=["J5"], images=images, on_bad_image="skip").open()


def test_folders_that_are_links_are_walked_once_and_without_end(home):
    (home / "im" / "best").symlink_to("merger")
    (home / "im" / "merger" / "self").symlink_to("..")
    (home / "im" / "merger" / "loop").symlink_to(".")
    (home / "im" / "nowhere").symlink_to("absent")
    (home / "im" / "itself").symlink_to("itself")
    assert Folder(home / "im").files == sorted(FILES)
    # A path through a link is a path, and an id of a file with several paths is not ambiguous.
    assert values(home, ["best/000.png", "best/deep/001.png"]) == [200, 60]
    (home / "im" / "same.png").symlink_to("002.png")
    assert values(home, ids=["002", "same"]) == [90, 90]


def test_links_out_of_the_folder_are_followed_only_if_that_is_allowed(home):
    picture(home / "elsewhere" / "009.png", 77)
    (home / "im" / "link").symlink_to(home / "elsewhere")
    (home / "im" / "010.png").symlink_to(home / "elsewhere" / "009.png")
    for names, ids in ((["link/009.png"], ["J0"]), (["010.png"], ["J0"]), (None, ["009"]), (None, ["010"])):
        with pytest.raises(DataError, match=r"outside.*link|outside.*010.*allow_outside=true"):
            survey(home, names, ids=ids).open()
        assert values(home, names, ids=ids, allow_outside=True) == [77]


def test_a_link_to_a_tar_file_outside_is_read_only_if_that_is_allowed(home):
    packed(home)
    (home / "linked").mkdir()
    (home / "linked" / "a.tar").symlink_to(home / "shards" / "a.tar")
    with pytest.raises(DataError, match=r"leads out of data.images: .*a\.tar.*allow_outside=true"):
        survey(home, ["002.png"], images="linked").open()
    assert values(home, ["002.png"], images="linked", allow_outside=True) == [90]


@pytest.mark.parametrize("name", ["{home}/out.png", "../out.png", "ring/../../out.png", "/{home}/im/../out.png"])
def test_names_of_files_outside_are_refused_with_the_way_out(home, name):
    picture(home / "out.png", 33)
    name = name.format(home=home)
    with pytest.raises(DataError, match=r"no image.*outside.*allow_outside=true"):
        survey(home, [name]).open()
    skipping = survey(home, [name, "002.png"], on_bad_image="skip").open()
    with pytest.raises(DataError, match="unreadable"):
        skipping.images.cutout(0)
    assert values(home, [name], allow_outside=True) == [33]


@pytest.mark.parametrize("name", ["x" * 300, "/" * 50, "..", ".", "ring", "~/x.png", "$HOME/x.png", "*", "nan"])
def test_odd_names_are_absent_images(home, name):
    with pytest.raises(DataError, match="no image"):
        survey(home, ["002.png", name]).open()


def test_compressed_archives_are_named_with_the_way_out(home):
    packed(home)
    (home / "packed").mkdir()
    for name in ("a.tar.gz", "a.zip"):
        (home / name).write_bytes(b"anything")
        with pytest.raises(DataError, match=r"no folder, no \.tar.*Unpack"):
            survey(home, ["002.png"], images=name).open()
        (home / "packed" / name).write_bytes(b"anything")
        with pytest.raises(DataError, match=r"no image.*unpack"):
            survey(home, ["002.png"], images="packed").open()


@pytest.mark.parametrize(
    "column",
    [pa.array([{"bytes": b"x", "path": None}]), pa.array([b"x"]), pa.array([[1, 2]])],
    ids=["struct", "bytes", "list"],
)
def test_images_inside_a_table_lead_to_the_survey_that_reads_them(home, column):
    pq.write_table(pa.table({"id_str": ["J1"], "image": column}), home / "t.parquet")
    with pytest.raises(DataError, match=r"images themselves.*data=huggingface data.name="):
        Catalogue(str(home / "t.parquet"), images=str(home / "im")).open()


def test_names_of_fixed_width_are_names(home):
    names = pa.array([b"ring/000.png", b"002.png     ", b"002.png\0\0\0\0\0"], pa.binary(12))
    pq.write_table(pa.table({"id_str": ["J1", "J2", "J3"], "image": names}), home / "t.parquet")
    galaxies = Catalogue(str(home / "t.parquet"), images=str(home / "im")).open()
    assert [int(galaxies.images.cutout(row).mean()) for row in range(3)] == [10, 90, 90]
    latin = pa.array([b"caf\xe9.png"], pa.binary(8))
    pq.write_table(pa.table({"id_str": ["J1"], "image": latin}), home / "t.parquet")
    with pytest.raises(DataError, match="names that are not UTF-8"):
        Catalogue(str(home / "t.parquet"), images=str(home / "im")).open()


@pytest.mark.parametrize(("names", "ids", "named"), [(["x 7.png"], ["J1"], "x 7.png"), (None, ["J1"], "J1")])
def test_the_name_that_no_image_has_is_in_the_message(home, names, ids, named):
    with pytest.raises(DataError, match=f"no image: .*im \\(such as '{named}'\\) .galaxies J1"):
        survey(home, names, ids=ids).open()


def test_the_order_in_which_files_are_listed_does_not_matter(home):
    files = [f"{folder}/{name}.png" for folder in "cab" for name in "132"]
    names = [f"/x/{file}" for file in files]
    forward, backward = (files_by_name(order, names, names) for order in (files, files[::-1]))
    assert forward == backward == files
    assert all(PurePosixPath(name).match(file) for name, file in zip(names, forward, strict=True))


def test_images_beside_tar_files_are_named(home):
    packed(home)
    picture(home / "shards/J9.png", 9)
    with pytest.raises(DataError, match=r"no image.*Only the \.tar files.*on_bad_image"):
        survey(home, ids=["J9"], images="shards").open()
