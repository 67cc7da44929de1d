"""Picture files in folders and archives: what is taken, what is passed over and why; no encoder runs here."""

import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image
from tiny import write
from tiny_models import picture

from galsearch.errors import SchemaError
from galsearch.sources import files, open_source

PNG = io.BytesIO()
Image.fromarray(picture(shape="ring", size_px=32)).save(PNG, "PNG")
FLUX = np.random.default_rng(2).normal(size=(20, 30)).astype(np.float32)


def taken(source, table=None, **options):
    return open_source(source, table, vectors=None, **options)


def ids(found):
    return found.table["object_id"].to_pylist()


def reasons(found):
    return {item["file"]: item["reason"] for item in found.rejected}


def place(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PNG.getvalue() if content is None else content)
    return path


def archive(path, files, **links):
    """Write a tar or zip of (name, content) pairs, and for a tar of symbolic links."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in files:
                packed.writestr(zipfile.ZipInfo(name), content, compress_type=zipfile.ZIP_DEFLATED)
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as packed:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            packed.addfile(member)
    return path


@pytest.mark.parametrize(
    "name", ["a.tif", "a.TIFF", "a.fts", "a.fit.gz", "a.fits.bz2", "a.FITS.FZ", "a.fz", "a.npy", "a.JPEG", "a.webp"]
)
def test_every_suffix_that_is_read_is_found_and_taken_off(tmp_path, name):
    place(tmp_path / "in" / name)
    assert ids(taken(tmp_path / "in")) == ["a"]


def test_what_is_passed_over_is_listed_with_its_reason(tmp_path):
    folder = tmp_path / "in"
    for name in ("g.png", "t.gif", "t.svg", "notes", ".hidden.png", ".ipynb_checkpoints/g-checkpoint.png"):
        place(folder / name)
    place(tmp_path / "elsewhere" / "h.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "file.png").symlink_to(tmp_path / "elsewhere" / "h.png")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    found = taken(folder)
    assert ids(found) == ["file", "g"]
    said = reasons(found)
    assert set(said) == {
        "t.gif",
        "t.svg",
        "notes",
        ".hidden.png",
        ".ipynb_checkpoints",
        "linked",
        "gone.png",
        "pipe.png",
    }
    assert said["t.gif"].startswith(".gif is not among .jpg")
    assert said["linked"] == "a linked folder, which is not entered"
    assert said[".ipynb_checkpoints"] == "a hidden folder"


def test_the_table_that_is_joined_may_lie_in_the_folder(tmp_path):
    place(tmp_path / "a.png")
    table = write(tmp_path / "t.csv", "id,x\na,1\n")
    found = taken(tmp_path, table)
    assert (ids(found), found.rejected) == (["a"], [])


@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("g/1.fits", "r/1.fits")])
def test_two_files_of_one_name_are_named_and_their_paths_may_be_the_ids(tmp_path, names):
    for name in names:
        place(tmp_path / "in" / name)
    with pytest.raises(SchemaError, match=f"{names[0]} and {names[1]}.*--id-from path"):
        taken(tmp_path / "in")
    assert ids(taken(tmp_path / "in", id_from="path")) == list(names)
    with pytest.raises(SchemaError, match="id_from 'stem'"):
        taken(tmp_path / "in", id_from="stem")


def test_a_row_for_which_two_files_may_be_meant_is_left_out_by_name(tmp_path):
    for name in ("g/1.png", "r/1.png", "g/2.png"):
        place(tmp_path / "in" / name)
    found = taken(tmp_path / "in", write(tmp_path / "t.csv", "id,x\n1,1\n2,2\n"))
    assert ids(found) == ["2"]
    assert "2 pictures are called so, 'g/1.png' and 'r/1.png'" in found.rejected[0]["reason"]
    named = taken(tmp_path / "in", write(tmp_path / "t.csv", "id,file\n1,r/1.png\n2,g/2.png\n"))
    assert named.table["file"].to_pylist() == ["r/1.png", "g/2.png"]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2"])
def test_cutouts_in_an_archive_are_read_as_those_of_a_folder(tmp_path, suffix):
    stream = io.BytesIO()
    fits.writeto(stream, FLUX)
    files = [("in/b.fits", stream.getvalue()), ("in/a.png", PNG.getvalue()), ("in/c.gif", b"x"), ("in/.d.png", b"x")]
    found = taken(archive(tmp_path / f"cutouts{suffix}", files), write(tmp_path / "t.csv", "id,x\na,1\nb,2\nn,3\n"))
    assert ids(found) == ["b", "a"]  # in the order of the archive
    assert found.table["x"].to_pylist() == [2, 1]
    assert found.take(0).picture.shape == (20, 30, 3)
    assert found.take(1).picture.shape == (32, 32, 3)
    assert {item["file"] for item in found.rejected} == {None, "in/c.gif", "in/.d.png"}


def test_names_that_lead_out_links_and_repeated_names_are_passed_over(tmp_path):
    red, blue = (io.BytesIO() for _ in range(2))
    Image.fromarray(picture(color="red")).save(red, "PNG")
    Image.fromarray(picture(color="blue")).save(blue, "PNG")
    files = [("../out.png", b"x"), ("/abs.png", b"x"), ("a.png", red.getvalue()), ("a.png", blue.getvalue())]
    found = taken(archive(tmp_path / "x.tar", files, **{"link.png": "/etc/passwd"}))
    assert ids(found) == ["a"]
    assert found.take(0).picture[:, :, 2].max() == 255  # the last, as unpacking has it
    said = reasons(found)
    assert said["../out.png"] == said["/abs.png"] == "its name leads out of the archive"
    assert said["link.png"] == "no regular file"


def test_a_damaged_or_empty_archive_is_refused_by_name(tmp_path):
    for name, content in (
        ("a.zip", b"PK\3\4" + b"x" * 50),
        ("a.tar", b"x" * 900),
        ("a.tgz", b"\x1f\x8b\x08" + b"x" * 50),
    ):
        with pytest.raises(SchemaError, match=f"{name}: (the archive is damaged|no pictures)"):
            taken(place(tmp_path / name, content))
    with pytest.raises(SchemaError, match=r"no pictures inside.*1 x .gif"):
        taken(archive(tmp_path / "b.zip", [("a.gif", b"x")]))


def test_a_member_that_inflates_without_bounds_is_left_out(tmp_path):
    packed = archive(tmp_path / "bomb.zip", [("bomb.fits", bytes(200_000_000)), ("a.png", PNG.getvalue())])
    found = taken(packed)
    with pytest.raises(SchemaError, match=r"bomb.fits: it inflates to more than"):
        found.take(ids(found).index("bomb"))
    assert found.take(ids(found).index("a")).picture.shape == (32, 32, 3)


def test_the_images_that_are_named_are_taken_and_choices_are_told(tmp_path):
    chips = fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(FLUX[:, : 20 + n], name="SCI", ver=n) for n in (1, 2))])
    (tmp_path / "in").mkdir()
    chips.writeto(tmp_path / "in" / "a.fits")
    found = taken(tmp_path / "in")
    assert found.take(0).picture.shape == (20, 21, 3)
    assert "1 pictures: took SCI (number 1) and left out SCI" in found.told().notes[0]
    assert taken(tmp_path / "in", ext="SCI,2").take(0).picture.shape == (20, 22, 3)
    with pytest.raises(SchemaError, match="no image 7"):
        taken(tmp_path / "in", ext=7).take(0)


def test_cutouts_and_mosaics_of_an_unknown_frame_have_no_positions_and_say_so(tmp_path):
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 15.5, "CRPIX2": 10.5}
    header = fits.Header({**cards, "CD1_1": -7e-5, "CD2_2": 7e-5, "RADESYS": "GAPPT"})
    y, x = np.mgrid[:60, :90]
    light = FLUX.mean() + 50 * np.exp(-np.hypot(x - 60, y - 20) / 3) + np.random.default_rng(1).normal(size=x.shape)
    (tmp_path / "in").mkdir()
    fits.writeto(tmp_path / "in" / "a.fits", light, header)
    cutouts, mosaic = taken(tmp_path / "in"), taken(tmp_path / "in" / "a.fits")
    assert "ra" not in cutouts.take(0).columns
    assert "GAPPT" in cutouts.told().notes[0]
    assert mosaic.table["ra"].null_count == mosaic.table.num_rows > 0
    assert "GAPPT" in mosaic.told().notes[0]
    with pytest.raises(SchemaError, match=r"no positions .*GAPPT"):
        taken(tmp_path / "in" / "a.fits", write(tmp_path / "c.csv", "id,ra,dec\na,150,2\n"))
    brightest = mosaic.table.slice(0, 1).to_pylist()[0]
    assert (brightest["x_px"], brightest["y_px"]) == pytest.approx((60, 20), abs=0.3)  # x is the column


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar.bz2"])
def test_a_small_archive_may_inflate_to_a_gibibyte_and_a_large_one_to_many_times_its_size(
    tmp_path, monkeypatch, suffix
):
    allowed = []

    class Noted(files._Bounded):
        def __init__(self, inner, most):
            allowed.append(most)
            super().__init__(inner, most)

    monkeypatch.setattr(files, "_Bounded", Noted)
    path = archive(tmp_path / f"a{suffix}", [("a.png", PNG.getvalue())])
    assert ids(taken(path)) == ["a"]
    assert set(allowed) == {2**30}
    monkeypatch.setattr(files, "LEAST_CAP", 1)
    allowed.clear()
    assert ids(taken(path)) == ["a"]
    assert set(allowed) == {path.stat().st_size * files.images.PICTURE.inflation}


@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile's, as it writes
def test_of_files_with_one_name_in_an_archive_the_last_counts_in_its_place_and_the_others_are_told(tmp_path, suffix):
    red, blue = (io.BytesIO() for _ in range(2))
    Image.fromarray(picture(color="red", shape="round", size_px=16)).save(red, "PNG")
    Image.fromarray(picture(color="blue", shape="round", size_px=16)).save(blue, "PNG")
    given = [("a.png", red.getvalue()), ("b.png", red.getvalue()), ("./a.png", blue.getvalue())]
    found = taken(archive(tmp_path / f"a{suffix}", given))
    assert ids(found) == ["b", "a"]
    assert found.home.read("a.png") == blue.getvalue()
    assert [(one["file"], one["reason"]) for one in found.rejected] == [
        ("a.png", "another file of the same name follows")
    ]
