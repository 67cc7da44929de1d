"""Reading, rendering and cutting pictures; every picture is made here."""

import gzip
import io
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

from galsearch.errors import SchemaError
from galsearch.science.images import (
    Picture,
    color_map,
    contact_sheet,
    cutout,
    decode_thumbnail,
    encode_thumbnail,
    line_plot,
    model_input,
    read_picture,
    red_first,
    render,
)

GENERATOR = np.random.default_rng(7)
RGB = GENERATOR.integers(0, 256, (12, 20, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def fits_bytes(*units) -> bytes:
    stream = io.BytesIO()
    fits.HDUList(list(units)).writeto(stream)
    return stream.getvalue()


def sky_header(**changes) -> fits.Header:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 150.0, 2.0
    wcs.wcs.crpix = 8, 8
    wcs.wcs.cdelt = -0.262 / 3600, 0.262 / 3600
    header = wcs.to_header()
    header.update(changes)
    return header


def flux(*shape) -> np.ndarray:
    return GENERATOR.normal(size=shape).astype(np.float32)


def galaxy(size=64, peak=50.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return flux(size, size) + peak * np.exp(-np.hypot(x, y) / 6)


# ---- pictures for the eye


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_lossless_pictures_come_back_byte_for_byte(kind, options):
    picture = read_picture(encoded(Image.fromarray(RGB), kind, **options))
    assert picture.bands == ("R", "G", "B")
    assert picture.stretched
    assert picture.flux.dtype == np.float32
    assert picture.flux.max() <= 1
    np.testing.assert_array_equal(render(picture), RGB)


def test_a_path_is_read_by_content_whatever_its_suffix(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    picture = read_picture(path)
    assert picture.name == "a.jpg"
    np.testing.assert_array_equal(render(picture), RGB)


def test_gray_pictures_have_one_band():
    gray = RGB[:, :, 0]
    picture = read_picture(encoded(Image.fromarray(gray), "PNG"))
    assert picture.flux.shape == (12, 20, 1)
    np.testing.assert_array_equal(render(picture), np.repeat(gray[:, :, None], 3, axis=2))


def test_16_bit_gray_keeps_its_range():
    values = np.linspace(0, 65535, 240).reshape(12, 20).astype(np.uint16)
    picture = read_picture(encoded(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(picture.flux[:, :, 0], values.astype(np.float32))
    assert not picture.stretched


def test_palette_pictures_give_their_colors():
    image = Image.new("RGB", (8, 4), (200, 10, 30))
    image.putpixel((0, 0), (0, 0, 255))
    shown = render(read_picture(encoded(image.quantize(4), "PNG")))
    assert shown[0, 0].tolist() == [0, 0, 255]
    assert shown[3, 7].tolist() == [200, 10, 30]


def test_transparent_pixels_are_laid_over_black():
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[0, 0] = 250, 250, 250, 0
    shown = render(read_picture(encoded(Image.fromarray(rgba), "PNG")))
    assert shown[0, 0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(shown[1:], RGB[1:])


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to the right
    shown = render(read_picture(encoded(Image.fromarray(RGB), "PNG", exif=exif)))
    np.testing.assert_array_equal(shown, np.rot90(RGB, -1))


def test_cmyk_jpeg_becomes_rgb():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image.paste((255, 0, 0, 0), (0, 0, 8, 16))
    shown = render(read_picture(encoded(image, "JPEG", quality=95))).astype(int)
    assert np.abs(shown[8, 14] - (255, 0, 0)).max() < 12
    assert np.abs(shown[8, 2] - (0, 255, 255)).max() < 12


# ---- FITS


def test_a_2d_image_keeps_nan_and_names_its_filter():
    data = flux(10, 12)
    data[2, 3] = np.nan
    header = fits.Header({"FILTER": "r"})
    picture = read_picture(fits_bytes(fits.PrimaryHDU(data, header)))
    np.testing.assert_array_equal(picture.flux[:, :, 0], data)
    assert picture.bands == ("r",)
    assert not picture.stretched


def test_a_stack_is_split_into_its_bands():
    data = flux(3, 10, 12)
    picture = read_picture(fits_bytes(fits.PrimaryHDU(data, fits.Header({"BANDS": "grz"}))))
    assert picture.bands == ("g", "r", "z")
    np.testing.assert_array_equal(picture.flux, np.moveaxis(data, 0, 2))
    np.testing.assert_array_equal(red_first(picture), np.moveaxis(data[::-1], 0, 2))


def test_color_last_and_degenerate_axes_are_understood():
    assert read_picture(fits_bytes(fits.PrimaryHDU(flux(40, 30, 3)))).flux.shape == (40, 30, 3)
    assert read_picture(fits_bytes(fits.PrimaryHDU(flux(1, 1, 40, 30)))).flux.shape == (40, 30, 1)


def test_image_extensions_are_bands_and_weights_are_left_out():
    units = [fits.PrimaryHDU()] + [fits.ImageHDU(flux(9, 9), name=name) for name in ("F160W", "F606W", "WHT", "ERR")]
    picture = read_picture(fits_bytes(*units))
    assert picture.bands == ("F160W", "F606W")
    np.testing.assert_array_equal(red_first(picture), picture.flux)  # F160W is 1.6 micrometers


def test_compressed_and_gzipped_images_are_read():
    data = GENERATOR.integers(0, 1000, (32, 32)).astype(np.int32)
    packed = fits.CompImageHDU(data, compression_type="RICE_1")
    np.testing.assert_array_equal(read_picture(fits_bytes(fits.PrimaryHDU(), packed)).flux[:, :, 0], data)
    zipped = gzip.compress(fits_bytes(fits.PrimaryHDU(data)))
    np.testing.assert_array_equal(read_picture(zipped).flux[:, :, 0], data)


def test_the_wcs_places_pixels_on_the_sky():
    picture = read_picture(fits_bytes(fits.PrimaryHDU(flux(3, 16, 16), sky_header())))
    assert picture.pixel_arcsec == pytest.approx(0.262)
    assert picture.sky_position(7, 7) == pytest.approx((150.0, 2.0))
    assert picture.celestial_wcs().naxis == 2


def test_a_picture_without_wcs_has_no_position():
    picture = read_picture(fits_bytes(fits.PrimaryHDU(flux(8, 8))))
    assert picture.celestial_wcs() is None
    assert picture.pixel_arcsec is None
    assert picture.sky_position(1, 1) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"CRVAL1": "east"}, "CRVAL1"),
        ({"CDELT1": 0.0}, "singular"),
        ({"CTYPE2": "DEC--XYZ"}, "WCS"),
        ({"CTYPE2": ""}, ""),
    ],
)
def test_a_broken_wcs_is_an_error_only_when_asked_for(changes, named):
    picture = read_picture(fits_bytes(fits.PrimaryHDU(flux(16, 16), sky_header(**changes))), name="a.fits")
    assert render(picture).shape == (16, 16, 3)
    assert picture.pixel_arcsec is None
    if named:
        with pytest.raises(SchemaError, match=f"a.fits.*{named}.*header"):
            picture.celestial_wcs()


# ---- bad files


def truncated_jpeg() -> bytes:
    content = encoded(Image.fromarray(GENERATOR.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
    return content[: len(content) // 2]


def table() -> bytes:
    return fits_bytes(fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("ra", "D", array=[1.0])]))


BAD = {
    "empty": (b"", "empty"),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "json": (b'{"error": "quota"}', "JSON"),
    "noise": (b"\x93\x01noise" * 40, "not a picture"),
    "truncated JPEG": (truncated_jpeg(), "truncated"),
    "truncated PNG": (encoded(Image.fromarray(RGB), "PNG")[:200], "truncated"),
    "truncated FITS": (fits_bytes(fits.PrimaryHDU(flux(100, 100)))[:8640], "truncated"),
    "truncated FITS header": (fits_bytes(fits.PrimaryHDU(flux(100, 100)))[:320], "damaged"),
    "truncated gzip": (gzip.compress(fits_bytes(fits.PrimaryHDU(flux(100, 100))))[:900], "gzip"),
    "all NaN": (fits_bytes(fits.PrimaryHDU(np.full((8, 8), np.nan, np.float32))), "every pixel is NaN"),
    "constant": (encoded(Image.new("RGB", (9, 9)), "PNG"), "every pixel has the value 0"),
    "4-D cube": (fits_bytes(fits.PrimaryHDU(flux(2, 3, 8, 8))), "shape"),
    "spectral cube": (fits_bytes(fits.PrimaryHDU(flux(40, 8, 8))), "shape"),
    "1-D spectrum": (fits_bytes(fits.PrimaryHDU(flux(50))), "no image"),
    "table": (table(), "no image"),
    "header only": (fits_bytes(fits.PrimaryHDU()), "no image"),
    "only a weight": (
        fits_bytes(fits.PrimaryHDU(), fits.ImageHDU(flux(8, 8), name="WHT")),
        "none of its images is light",
    ),
}


@pytest.mark.parametrize("content", [pytest.param(case, id=name) for name, case in BAD.items()])
def test_a_bad_file_gives_one_error_with_name_reason_and_remedy(content):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SchemaError) as caught:
            read_picture(content[0], name="bad.file")
    message = str(caught.value)
    assert message.startswith("bad.file: ")
    assert content[1] in message
    assert ";" in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SchemaError, match=r"gone\.jpg.*No such file"):
        read_picture(tmp_path / "gone.jpg")


# ---- rendering


@pytest.mark.parametrize("preset", ["auto", "grey"])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e30])
def test_flux_of_any_scale_is_rendered_with_a_dark_sky_and_a_bright_galaxy(preset, scale):
    shown = render(galaxy() * np.float32(scale), preset=preset)
    assert shown.shape == (64, 64, 3)
    assert shown[32, 32].min() > 200
    assert np.median(shown[:10]) < 40


def test_missing_pixels_become_background_and_the_input_is_not_touched():
    data = np.dstack([galaxy(), galaxy(), galaxy()]).astype(np.float32)
    data[:20] = np.nan
    before = data.copy()
    shown = render(data)
    np.testing.assert_array_equal(data, before)
    assert shown[:20].max() < 40
    assert shown[32, 32].min() > 150


def test_the_reddest_band_is_shown_red():
    red = np.stack([galaxy(peak=5), galaxy(peak=20), galaxy(peak=80)], axis=2).astype(np.float32)
    shown = render(Picture(red, ("g", "r", "z")))[28:36, 28:36].mean(axis=(0, 1))
    assert shown[0] > shown[1] > shown[2]


def test_the_legacy_preset_is_its_published_formula():
    g, r, z = (GENERATOR.normal(0.02, 0.05, (6, 6)) for _ in range(3))
    shown = render(Picture(np.dstack([g, r, z]).astype(np.float32), ("g", "r", "z")), preset="legacy")
    scaled = [np.maximum(band * scale + 0.03, 0) for band, scale in ((z, 2.2), (r, 3.4), (g, 6.0))]
    mean = np.maximum(sum(scaled) / 3, 1e-9)
    expected = [np.clip(band * np.arcsinh(20 * mean) / np.sqrt(20) / mean, 0, 1) for band in scaled]
    np.testing.assert_allclose(shown, np.dstack(expected) * 255, atol=0.51)


def test_a_preset_without_its_bands_is_refused():
    with pytest.raises(SchemaError, match=r"needs bands z, r, g.*auto"):
        render(RGB, preset="legacy")
    with pytest.raises(SchemaError, match="not known"):
        render(RGB, preset="hot")


def test_a_picture_of_noise_stays_dark():
    assert np.percentile(render(flux(64, 64)), 99) < 140


# ---- cutting and model input


def test_a_color_map_has_the_color_of_each_part_and_none_of_the_sky():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-20:21, -20:21]
    core, disk = 100.0 * (np.hypot(x, y) < 4), 20.0 * (np.hypot(x, y) < 12)
    blue = core * 0.5 + disk * 1.5 + 7 + rng.normal(scale=0.3, size=x.shape)
    red = core + disk + 3 + rng.normal(scale=0.3, size=x.shape)
    colors = color_map(blue, red)
    core_color = -2.5 * np.log10((50 + 30) / (100 + 20))
    assert colors[20, 20] == pytest.approx(core_color, abs=0.02)
    assert np.nanmedian(colors[(np.hypot(x, y) > 6) & (np.hypot(x, y) < 10)]) == pytest.approx(-0.44, abs=0.02)
    assert np.isnan(colors[np.hypot(x, y) > 15]).mean() > 0.97
    red[20, 20] = np.nan
    assert np.isnan(color_map(blue, red)[20, 20]) and np.isfinite(color_map(blue, red)[20, 21])
    assert np.isnan(color_map(np.zeros((9, 9)), np.zeros((9, 9)))).all()


def test_a_cutout_has_its_position_in_the_middle():
    array = np.arange(100.0).reshape(10, 10)
    np.testing.assert_array_equal(cutout(array, 5, 4, 3), array[3:6, 4:7])
    assert cutout(array, 5.4, 3.6, 4)[2, 2] == array[4, 5]


def test_a_cutout_over_the_border_is_padded():
    array = np.ones((10, 10, 3), np.float32)
    piece = cutout(array, 0, 9, 4)
    assert piece.shape == (4, 4, 3)
    assert np.isnan(piece).sum() == (16 - 6) * 3
    bytes_piece = cutout(RGB, 0, 0, 6)
    assert bytes_piece.dtype == np.uint8
    np.testing.assert_array_equal(bytes_piece[0, 0], np.median(RGB, axis=(0, 1)).astype(np.uint8))
    np.testing.assert_array_equal(bytes_piece[3:, 3:], RGB[:3, :3])


def test_a_cutout_is_a_copy():
    array = np.zeros((10, 10))
    cutout(array, 5, 5, 4)[:] = 9
    assert array.max() == 0


@pytest.mark.parametrize(("x", "y", "size"), [(50, 5, 4), (np.nan, 5, 4), (5, 5, 0)])
def test_a_cutout_off_the_picture_is_refused(x, y, size):
    with pytest.raises(SchemaError):
        cutout(np.zeros((10, 10)), x, y, size)


def test_model_input_is_the_central_square_resized_by_pil():
    wide = GENERATOR.integers(0, 256, (40, 61, 3), dtype=np.uint8)
    batch = model_input([wide, np.zeros((8, 8, 3), np.uint8)], 16)
    expected = Image.fromarray(wide[:, 10:50]).resize((16, 16), Image.Resampling.BICUBIC)
    assert batch.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(batch[0], expected)
    assert model_input([], 16).shape == (0, 16, 16, 3)


def test_model_input_wants_rendered_pixels():
    with pytest.raises(SchemaError, match="render"):
        model_input([flux(8, 8, 3)], 16)


# ---- showing


def test_a_thumbnail_is_a_small_square_webp_that_looks_the_same():
    smooth = np.dstack([np.add.outer(np.arange(200), np.arange(240)) // 2] * 3).astype(np.uint8)
    content = encode_thumbnail(smooth, size_px=96)
    assert content[8:12] == b"WEBP"
    shown = decode_thumbnail(content).astype(int)
    assert shown.shape == (96, 96, 3)
    expected = np.asarray(Image.fromarray(smooth[:, 20:220]).resize((96, 96), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(shown - expected).mean() < 3


def test_a_small_picture_is_not_blown_up():
    assert decode_thumbnail(encode_thumbnail(RGB, size_px=96)).shape == (12, 12, 3)


def test_a_damaged_thumbnail_is_a_schema_error():
    with pytest.raises(SchemaError, match="thumbnail"):
        decode_thumbnail(encode_thumbnail(RGB)[:40])


def test_a_contact_sheet_shows_every_tile_of_every_section():
    red, blue = (np.full((30, 30, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    sections = [("edge-on galaxy", [(red, "a " * 60), (red, "b\n0.31"), (blue, "c")]), ("like this one", [])]
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(sections, columns=2, tile_px=64))))
    assert sheet.shape[1] == 10 + 2 * 74
    assert (sheet == (255, 0, 0)).all(axis=2).sum() == 2 * 64 * 64
    assert (sheet == (0, 0, 255)).all(axis=2).sum() == 64 * 64
    assert sheet[0, 0].max() < 40


# ---- which image of a FITS file is light


LIGHT = galaxy()


def unit(data, name=None, **cards):
    found = fits.ImageHDU(np.asarray(data), name=name)
    found.header.update(cards)
    return found


def aside(names):
    """Return images that are no light, called so, each of another size or dimension."""
    shapes = {"CON": (3, 64, 64), "WCSDVARR": (32, 32)}
    return [unit(GENERATOR.integers(0, 9, shapes.get(name, (64, 64))).astype("i4"), name) for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ["MSK", "WGT"],
        ["ERR", "DQ", "WCSDVARR", "D2IMARR"],
        ["ERR", "CON", "WHT", "VAR_POISSON", "VAR_RNOISE", "AREA"],
        ["MASK", "UNCERT"],
        ["WTMAP", "EXPMAP"],
        ["EXP", "SIGMA", "FLAGS"],
        ["SEGMENTATION", "MODEL", "BKG"],
        ["FOOTPRINT"],
        ["IVAR", "INVVAR", "PSF_MODEL", "CHI2", "RESIDUALS"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("place", ["primary", "SCI", "IMAGE", "unnamed", "compressed"])
def test_light_is_taken_alone_whatever_stands_beside_it(names, place):
    first = {
        "primary": [fits.PrimaryHDU(LIGHT)],
        "unnamed": [fits.PrimaryHDU(), unit(LIGHT)],
        "compressed": [fits.PrimaryHDU(), fits.CompImageHDU(LIGHT, compression_type="GZIP_2", quantize_level=0)],
    }.get(place, [fits.PrimaryHDU(), unit(LIGHT, place)])
    picture = read_picture(fits_bytes(*first, *aside(names)))
    np.testing.assert_array_equal(picture.flux[:, :, 0], LIGHT.astype(np.float32))
    assert picture.flux.shape[2] == 1
    assert picture.notes == ()


def test_light_is_found_behind_what_is_none():
    hidden = [fits.PrimaryHDU(), *aside(["MASK", "WHT"]), unit(LIGHT, "SCI")]
    np.testing.assert_array_equal(read_picture(fits_bytes(*hidden)).flux[:, :, 0], LIGHT.astype(np.float32))
    weight = fits.PrimaryHDU(flux(64, 64), fits.Header({"IMTYPE": "invvar"}))
    assert read_picture(fits_bytes(weight, unit(LIGHT, IMTYPE="image"))).flux[32, 32, 0] == np.float32(LIGHT[32, 32])


def test_of_several_images_without_a_band_the_first_is_taken_and_it_is_said():
    chips = fits_bytes(
        fits.PrimaryHDU(), unit(LIGHT, "SCI"), unit(flux(9, 9), "ERR"), unit(flux(32, 48), "SCI", EXTVER=2)
    )
    assert read_picture(chips).flux.shape == (64, 64, 1)
    assert "took SCI (number 1) and left out SCI" in read_picture(chips).notes[0]
    assert read_picture(chips, ext="SCI,2").flux.shape == (32, 48, 1)
    assert read_picture(chips, ext=3).flux.shape == (32, 48, 1)
    assert read_picture(chips, ext="err").flux.shape == (9, 9, 1)
    galfit = read_picture(fits_bytes(fits.PrimaryHDU(), unit(LIGHT), unit(flux(64, 64)), unit(flux(64, 64))))
    np.testing.assert_array_equal(galfit.flux[:, :, 0], LIGHT.astype(np.float32))
    assert "extension 2, extension 3" in galfit.notes[0]


def test_images_that_name_their_bands_are_bands_of_one_picture():
    named = [fits.PrimaryHDU(), *(unit(flux(8, 12), name) for name in ("g", "r", "z")), *aside(["MASK"])]
    assert read_picture(fits_bytes(*named)).bands == ("G", "R", "Z")
    filters = [fits.PrimaryHDU(), *(unit(flux(8, 12), "SCI", FILTER=name) for name in ("F606W", "F814W"))]
    assert read_picture(fits_bytes(*filters)).bands == ("F606W", "F814W")
    alike = [fits.PrimaryHDU(), *(unit(flux(8, 12), "SCI", FILTER="F606W") for _ in range(2))]
    assert read_picture(fits_bytes(*alike)).flux.shape == (8, 12, 1)


def test_bands_are_chosen_by_name_by_number_and_out_of_a_stack():
    planes = [flux(8, 12) for _ in range(3)]
    several = fits_bytes(fits.PrimaryHDU(), *(unit(plane, name) for plane, name in zip(planes, "grz", strict=True)))
    for bands in (("z", "g"), ("3", "1")):
        picture = read_picture(several, bands=bands)
        assert picture.bands == bands
        np.testing.assert_array_equal(picture.flux, np.dstack([planes[2], planes[0]]))
    stack = fits_bytes(fits.PrimaryHDU(np.array(planes), fits.Header({"BANDS": "grz"})))
    np.testing.assert_array_equal(read_picture(stack, bands=["r"]).flux[:, :, 0], planes[1])
    nameless = read_picture(fits_bytes(fits.PrimaryHDU(np.array(planes))), bands=["z", "r", "g"])
    assert nameless.bands == ("z", "r", "g")
    np.testing.assert_array_equal(red_first(nameless), np.dstack(planes))
    for content in (several, stack):
        with pytest.raises(SchemaError, match="u"):
            read_picture(content, bands=["u", "g"])
    with pytest.raises(SchemaError, match=r"no image SKY .it has"):
        read_picture(several, ext="SKY")


def test_scaled_integers_and_blanks_are_physical_values():
    data = np.arange(96, dtype=np.int16).reshape(8, 12)
    content = fits_bytes(fits.PrimaryHDU(data))
    cards = b"".join(text.ljust(80) for text in (b"BSCALE  = 0.5", b"BZERO   = 100.0", b"BLANK   = 7"))
    scaled = content[:2880].replace(b"END".ljust(80) + b" " * 240, cards + b"END".ljust(80)) + content[2880:]
    picture = read_picture(scaled)
    expected = 100 + 0.5 * data.astype(np.float32)
    expected[0, 7] = np.nan
    np.testing.assert_array_equal(picture.flux[:, :, 0], expected)
    unsigned = read_picture(fits_bytes(fits.PrimaryHDU(data.astype(np.uint16) + 60_000)))
    np.testing.assert_array_equal(unsigned.flux[:, :, 0], data + np.float32(60_000))


# ---- frames


@pytest.mark.parametrize("radesys", ["icrs", "ICRS", "fk5", "J2000", "FK5"])
def test_radesys_is_read_in_any_spelling(radesys):
    picture = read_picture(fits_bytes(fits.PrimaryHDU(flux(16, 16), sky_header(RADESYS=radesys))))
    assert picture.sky_position(7, 7) == pytest.approx((150.0, 2.0), abs=2e-5)
    assert picture.position_problem is None


def test_other_frames_are_taken_to_icrs_and_back():
    from astropy.coordinates import SkyCoord

    b1950 = read_picture(fits_bytes(fits.PrimaryHDU(flux(16, 24), sky_header(RADESYS="FK4", EQUINOX=1950.0))))
    truth = SkyCoord(150.0, 2.0, unit="deg", frame="fk4").icrs
    assert b1950.sky_position(7, 7) == pytest.approx((truth.ra.deg, truth.dec.deg), abs=1e-6)
    galactic = sky_header(CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN")
    picture = read_picture(fits_bytes(fits.PrimaryHDU(flux(16, 24), galactic)))
    truth = SkyCoord(150.0, 2.0, unit="deg", frame="galactic").icrs
    assert picture.sky_position(7, 7) == pytest.approx((truth.ra.deg, truth.dec.deg), abs=1e-6)
    x, y = picture.pixel_positions(*picture.sky_positions(np.array([3.0, 20.0]), np.array([1.0, 11.0])))
    np.testing.assert_allclose((x, y), ([3, 20], [1, 11]), atol=1e-6)


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ({"RADESYS": "GAPPT"}, "GAPPT"),
        ({"RADESYS": "nonsense"}, "NONSENSE"),
        ({"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN"}, "HPLN"),
        ({"EQUINOX": 1e9, "RADESYS": "FK5"}, "EQUINOX"),
    ],
)
def test_a_frame_that_is_not_known_gives_no_position_and_says_so(cards, said):
    picture = read_picture(fits_bytes(fits.PrimaryHDU(flux(16, 16), sky_header(**cards))))
    assert picture.sky_position(7, 7) is None
    assert said in picture.position_problem
    assert picture.pixel_arcsec == pytest.approx(0.262)


def test_distortions_are_used_without_a_word_on_stdout(capsys):
    sip = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-3, "B_0_2": 1e-3}
    plain = read_picture(fits_bytes(fits.PrimaryHDU(flux(64, 64), sky_header())))
    bent = read_picture(fits_bytes(fits.PrimaryHDU(flux(64, 64), sky_header(**sip))))
    lookup = read_picture(fits_bytes(fits.PrimaryHDU(flux(64, 64), sky_header(CPDIS1="LOOKUP", CPDIS2="LOOKUP"))))
    assert abs(bent.sky_position(60, 60)[1] - plain.sky_position(60, 60)[1]) > 1e-4
    assert lookup.sky_position(60, 60) == plain.sky_position(60, 60)
    assert capsys.readouterr().out == ""
    with pytest.raises(SchemaError, match="A_ORDER is 1000000"):
        read_picture(fits_bytes(fits.PrimaryHDU(flux(64, 64), sky_header(A_ORDER=10**6)))).celestial_wcs()


# ---- arrays


def test_arrays_are_read_by_shape_and_type():
    def saved(array):
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()

    stack = flux(3, 8, 12)
    np.testing.assert_array_equal(read_picture(saved(stack)).flux, np.moveaxis(stack, 0, 2))
    np.testing.assert_array_equal(read_picture(saved(np.asfortranarray(stack[0]))).flux[:, :, 0], stack[0])
    assert read_picture(saved(stack), bands=["g", "r", "z"]).bands == ("g", "r", "z")
    rgb = read_picture(saved(np.repeat(RGB, 2, axis=0)))
    assert rgb.stretched
    np.testing.assert_array_equal(render(rgb), np.repeat(RGB, 2, axis=0))


@pytest.mark.parametrize("bands", [(), ("",), ("g", " ")])
def test_bands_without_a_name_are_refused(tmp_path, bands):
    path = tmp_path / "one.fits"
    fits.writeto(path, np.arange(64, dtype=np.float32).reshape(8, 8))
    with pytest.raises(SchemaError, match="name images or planes"):
        read_picture(path, bands=bands)


# ---- a plot of one line


def plotted(x, y, **more) -> np.ndarray:
    """Return where the line of a plot is drawn, `(h, w) bool`."""
    png = line_plot(x, y, title="t", x_title="Å", y_title="y", **more)
    return (np.asarray(Image.open(io.BytesIO(png))) == np.array([30, 60, 120])).all(axis=2)


def test_a_plot_keeps_a_line_that_is_narrower_than_a_column_of_pixels():
    x, y = np.linspace(3800, 9200, 20_000), np.zeros(20_000)
    y[12_000:12_003] = 10.0
    drawn = plotted(x, y)
    heights = drawn.sum(axis=0)
    assert heights.max() > 280 and (heights > 20).sum() <= 3
    assert abs(int(heights.argmax()) - (70 + 0.6 * (900 - 16 - 70))) < 3


def test_a_plot_is_interrupted_where_there_is_no_data_and_needs_two_points():
    x, y = np.linspace(0, 1, 2000), np.sin(np.linspace(0, 9, 2000))
    y[800:1200] = np.nan
    drawn = plotted(x, y, names=[(0.5, "Hα"), (0.5001, "Hβ"), (7.0, "outside")])
    assert drawn[:, 70 + 340 : 70 + 470].sum() == 0 and drawn.sum() > 500
    for bad in (np.full(3, np.nan), np.array([np.nan, 1.0, np.inf])):
        with pytest.raises(SchemaError, match="no two points"):
            plotted(np.arange(3.0), bad)
