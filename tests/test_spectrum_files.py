"""Files of spectra: each layout is told by its content and read as its survey means it; all else is refused."""

from __future__ import annotations

import dataclasses
import doctest
import gzip
import io
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import spectrum_files as made
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from galsearch.errors import SchemaError
from galsearch.science import spectra
from galsearch.sources import spectra as files
from galsearch.sources.spectra import KINDS, assembly, linear, read_spectra, read_spectrum, units
from galsearch.sources.spectra.units import flux_scale, wavelength_scale

STATED = {"wavelength_unit": "Angstrom", "medium": "vacuum", "flux_unit": "relative"}
WAVE = np.arange(4000, 4200, 2.0)


def csv(**columns) -> bytes:
    """Return a table of text."""
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]).encode()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink)
    return sink.getvalue()


# ---- SDSS


def test_an_sdss_file_is_read_as_its_data_model_says():
    one = read_spectrum(made.sdss())
    assert (one.kind, one.name, one.medium, one.frame) == ("SDSS spec", "0266-51602-0013", "vacuum", "observed")
    assert one.is_calibrated and one.flux_unit == "1E-17 erg/cm^2/s/Ang" and not one.ivar_is_estimated
    assert one.z == pytest.approx(0.12) and (one.ra, one.dec) == (146.93, -0.67)
    assert one.wavelength_angstrom == pytest.approx(10**made.LOGLAM, rel=1e-12)  # not as float32 has rounded them
    good = made.ivar_of() > 0
    assert np.array_equal(one.ivar, made.ivar_of()) and np.array_equal(one.flux[good], made.flux_of()[good])
    assert not one.flux[~good].any()


def test_sdss_pixels_that_are_bad_in_every_exposure_have_no_weight():
    mask = np.zeros(made.COUNT, "i4")
    mask[10:14] = [1 << 23, 1 << 24, 1 << 16, 1 << 1]  # BRIGHTSKY, NODATA; NEARBADPIXEL, BADTRACE stay
    assert np.flatnonzero(read_spectrum(made.sdss(mask=mask)).ivar == 0).tolist() == [0, 1, 2, 10, 11]


def test_a_doubtful_redshift_of_sdss_is_noted():
    one = read_spectrum(made.sdss(zwarning=6))
    assert one.z == pytest.approx(0.12)
    assert one.notes == ("ZWARNING is 6 (LITTLE_COVERAGE, SMALL_DELTA_CHI2): its redshift is doubtful",)


def test_sdss_v_is_read_with_its_own_id():
    assert read_spectrum(made.sdss(upper=True)).name == "016170-59187-27021597918432357"


def test_an_sdss_file_in_air_is_converted():
    one = read_spectrum(made.sdss(VACUUM=False))
    assert one.medium == "air"
    assert one.wavelength_angstrom == pytest.approx(spectra.air_to_vacuum(10**made.LOGLAM))


# ---- DESI


@pytest.mark.parametrize("compressed_masks", [False, True])
def test_the_arms_of_desi_are_joined(compressed_masks):
    file = read_spectra(made.desi(compressed_masks=compressed_masks))
    assert (file.kind, file.ids) == ("DESI coadd", [str(target) for target in made.TARGETS])
    one = file.read(1)
    assert one.wavelength_angstrom == pytest.approx(3600 + 0.8 * np.arange(110))
    assert one.ivar[36] == 3 and one.ivar[30] == 1 and one.ivar[20] == 0  # overlap, B alone, masked
    b, r = (made.flux_of(40, 1) + number for number in (0, 1))
    assert one.flux[36] == pytest.approx((b[36] + 2 * r[1]) / 3, rel=1e-6)
    assert [each.name for each in file] == list(file.ids) and one.ra == 20.0 and one.z is None


def test_redrock_redshifts_are_joined_by_target(tmp_path):
    (tmp_path / "redrock.fits").write_bytes(made.redrock())
    file = read_spectra(made.desi(), redshifts=tmp_path / "redrock.fits")
    assert [each.z for each in file] == [0.25, 0.5]
    assert file.read(1).notes == ("ZWARN is 4 (SMALL_DELTA_CHI2): its redshift is doubtful",)
    with pytest.raises(SchemaError, match="give it as redshifts, beside its coadd"):
        read_spectra(made.redrock())
    with pytest.raises(SchemaError, match="no table with TARGETID and Z"):
        read_spectra(made.desi(), redshifts=made.sdss())
    with pytest.raises(SchemaError, match="it is no DESI coadd"):
        read_spectra(made.sdss(), redshifts=made.redrock())


def test_a_file_of_several_spectra_needs_a_row():
    with pytest.raises(SchemaError, match=r"coadd: it holds 2 spectra \(39633345008634465, .*\); name one with row"):
        read_spectrum(made.desi(), name="coadd")
    assert read_spectrum(made.desi(), row=1).name == read_spectrum(made.desi(), row=str(made.TARGETS[1])).name
    for row in (2, -1, "7", "none"):
        with pytest.raises(SchemaError, match="it has no spectrum"):
            read_spectrum(made.desi(), row=row)


def test_several_exposures_of_a_target_have_ids_of_their_own():
    assert read_spectra(made.desi(targets=made.TARGETS[[0, 0]])).ids == ["39633345008634465-0", "39633345008634465-1"]


def test_a_desi_stack_is_in_the_rest_frame():
    one = read_spectrum(made.stack(), name="LRG.fits")
    assert (one.kind, one.frame, one.z, one.name, one.is_calibrated) == ("DESI stack", "rest", None, "LRG", False)
    assert len(one.notes) == 2 and spectra.to_rest_frame(one) is one


# ---- space telescopes


def test_jwst_flux_by_frequency_becomes_flux_by_wavelength():
    one = read_spectrum(made.jwst(), name="a_x1d.fits")
    wave = np.linspace(1, 2, made.COUNT) * 1e4
    assert (one.kind, one.medium, one.name) == (
        "JWST x1d",
        "vacuum",
        "a_x1d",
    ) and one.wavelength_angstrom == pytest.approx(wave)
    per_jansky = 1e-23 * 2.99792458e18 / wave**2 / 1e-17
    assert one.flux[7:] == pytest.approx(made.flux_of()[7:] * 1e-6 * per_jansky[7:], rel=1e-6)
    assert one.ivar[7:] == pytest.approx(1e12 / per_jansky[7:] ** 2)
    assert np.flatnonzero(one.ivar == 0).tolist() == [0, 1, 5]


def test_the_segments_of_hst_are_joined_and_serious_flags_count():
    one = read_spectrum(made.hst())
    assert (one.kind, one.name, len(one)) == ("HST x1d", "MRK-209", 240)
    assert one.wavelength_angstrom[[0, 120]] == pytest.approx([1100, 1300])
    assert np.flatnonzero(one.ivar == 0).tolist() == [124]
    assert one.flux[:5] == pytest.approx(made.flux_of(seed=2)[:5] * 100, rel=1e-5)


# ---- FITS images


def test_an_iraf_spectrum_has_the_unit_of_wat_and_asks_for_the_medium():
    with pytest.raises(
        SchemaError, match=r"^a.fits: it does not say whether .* in air or in vacuum; say medium='air' or"
    ):
        read_spectrum(made.image(**made.IRAF), name="a.fits")
    one = read_spectrum(made.image(**made.IRAF), medium="air")
    assert one.wavelength_angstrom == pytest.approx(spectra.air_to_vacuum(4000 + 0.8 * np.arange(made.COUNT)))
    assert one.flux == pytest.approx(made.flux_of() * 1e17, rel=1e-6) and one.ivar_is_estimated


def test_estimated_errors_are_near_the_true_ones():
    flux = np.random.default_rng(1).normal(100, 3, 4000)
    one = read_spectrum(made.image(flux, **made.IRAF), medium="vacuum")
    assert np.median(1 / np.sqrt(one.ivar)) == pytest.approx(3e17, rel=0.05)


STEPS = np.arange(made.COUNT)
LOG = {"CUNIT1": "Angstrom", "CRVAL1": 3.6, "CD1_1": 1e-4}
AXES = {
    "linear": ({"CTYPE1": "WAVE", "CUNIT1": "nm", "CRVAL1": 400.0, "CDELT1": 0.1}, 4000 + STEPS, "vacuum"),
    "air": ({"CTYPE1": "AWAV", "CUNIT1": "Angstrom", "CRVAL1": 4e3, "CDELT1": 1.0}, 4000 + STEPS, "air"),
    "natural logarithm": (
        {"CTYPE1": "WAVE-LOG", "CUNIT1": "Angstrom", "CRVAL1": 4e3, "CDELT1": 1.0},
        4e3 * np.exp(STEPS / 4e3),
        "vacuum",
    ),
    "log10": ({**LOG, "CTYPE1": "LOGLAM", "VACUUM": True}, 10 ** (3.6 + 1e-4 * STEPS), "vacuum"),
    "DC-FLAG": ({**LOG, "CTYPE1": "LINEAR", "DC-FLAG": 1, "AIRORVAC": "air"}, 10 ** (3.6 + 1e-4 * STEPS), "air"),
    "reference pixel": (
        {"CTYPE1": "WAVE", "CUNIT1": "um", "CRVAL1": 0.4, "CDELT1": 1e-4, "CRPIX1": 11.0},
        3990 + STEPS,
        "vacuum",
    ),
}


@pytest.mark.parametrize(("header", "expected", "medium"), AXES.values(), ids=AXES)
def test_the_axis_of_a_header(header, expected, medium):
    one = read_spectrum(made.image(**header, BUNIT="adu"))
    assert one.medium == medium and not one.is_calibrated
    vacuum = spectra.air_to_vacuum(expected) if medium == "air" else expected
    assert one.wavelength_angstrom == pytest.approx(vacuum, rel=1e-9)


def test_each_row_of_an_image_is_a_spectrum_and_iraf_bands_have_the_error():
    rows = np.stack([made.flux_of(seed=seed) for seed in range(2)])
    file = read_spectra(made.image(rows, **made.IRAF, OBJECT="IZW18"), medium="air")
    assert file.ids == ["IZW18-1", "IZW18-2"]
    assert file.read(1).flux == pytest.approx(rows[1] * 1e17, rel=1e-6)
    bands = np.stack([rows, rows, np.full_like(rows, 0.5)])
    one = read_spectrum(made.image(bands, **made.IRAF, BANDID3="sigma - x"), medium="air", row=0)
    assert one.ivar == pytest.approx(np.full(made.COUNT, 4e-34)) and not one.ivar_is_estimated


def test_an_image_of_errors_is_taken_and_noted():
    header = {"CTYPE1": "WAVE", "CUNIT1": "Angstrom", "CRVAL1": 4e3, "CDELT1": 1.0, "BUNIT": "adu"}
    one = read_spectrum(made.image(None, fits.ImageHDU(np.full(made.COUNT, 0.5), name="ERR"), **header))
    assert one.ivar == pytest.approx(4.0) and "the image ERR was taken as its error" in one.notes
    other = fits.ImageHDU(np.full(made.COUNT, 0.25), name="MINE")
    assert read_spectrum(made.image(None, other, **header), ivar="MINE").ivar == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (made.image(CTYPE1="FREQ", CRVAL1=1e9, CDELT1=1e6), "its axis is frequency"),
        (made.image(CTYPE1="WAVE", CUNIT1="nm", BUNIT="adu"), "gives no wavelengths"),
        (made.image(**{**made.IRAF, "WAT0_001": "system=multispec"}), "multispec"),
        (made.image(np.zeros((30, 30), "f4"), CTYPE1="RA---TAN", CTYPE2="DEC--TAN"), r"no spectrum .* \(30x30\)"),
        (made.image(np.zeros((30, 30), "f4")), "no spectrum"),
        (made.as_bytes(fits.PrimaryHDU()), r"no spectrum .* \(empty\)"),
        (made.as_bytes(fits.PrimaryHDU(), made.table("T", ra=np.ones(3), dec=np.ones(3))), "no spectrum"),
    ],
)  # fmt: skip
def test_images_that_are_no_spectrum_are_refused(content, message):
    with pytest.raises(SchemaError, match=message):
        read_spectrum(content)


# ---- tables


@pytest.mark.parametrize("air", [False, True])
def test_an_ivoa_table_is_read_by_utype_and_ucd(air):
    stated = {} if air else {"medium": "vacuum"}
    if not air:
        with pytest.raises(SchemaError, match="air or in vacuum"):
            read_spectrum(made.ssap())
    one = read_spectrum(made.ssap(air=air), **stated)
    vacuum = spectra.air_to_vacuum(10**made.LOGLAM) if air else 10**made.LOGLAM
    assert one.wavelength_angstrom == pytest.approx(vacuum) and one.medium == ("air" if air else "vacuum")
    assert one.flux == pytest.approx(made.flux_of() * 1e17, rel=1e-6) and one.ivar == pytest.approx(4e-34)


def test_a_votable_is_read_by_ucd():
    cells = "".join(
        f"<TR><TD>{wave}</TD><TD>{value}</TD></TR>" for wave, value in zip(WAVE / 10, made.flux_of(100), strict=True)
    )
    content = f"""<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>
      <FIELD name="x" datatype="double" unit="nm" ucd="em.wl;obs.atmos"/><FIELD name="y" datatype="double" unit="Jy"
      ucd="phot.flux.density;em.wl"/><DATA><TABLEDATA>{cells}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"""
    one = read_spectrum(content.encode())
    assert one.wavelength_angstrom == pytest.approx(spectra.air_to_vacuum(WAVE)) and one.is_calibrated


def test_text_with_names_asks_for_units_and_medium_at_once():
    content = (
        b"# wave flux err_flux pixel_mask\n"
        + "\n".join(
            f"{wave:.8e} {1e-16 * value:.8e} 1e-17 {int(value > 6.5)}"
            for wave, value in zip(WAVE, made.flux_of(100), strict=True)
        ).encode()
    )
    with pytest.raises(
        SchemaError, match=r"unit of its wavelengths, whether .* vacuum and the unit of its flux; say wave"
    ):
        read_spectrum(content, name="SHOC579.txt")
    one = read_spectrum(
        content, medium="vacuum", wavelength_unit="Angstrom", flux_unit="erg/s/cm2/A", name="SHOC579.txt"
    )
    good = made.flux_of(100) <= 6.5
    assert one.name == "SHOC579" and one.flux[good] == pytest.approx(10 * made.flux_of(100)[good], rel=1e-6)
    assert np.array_equal(one.ivar > 0, good) and any("pixel_mask" in note for note in one.notes)


def test_explicit_columns_come_before_what_is_known():
    content = csv(a=WAVE, b=made.flux_of(100), c=np.ones(100), flux=np.zeros(100))
    with pytest.raises(SchemaError, match=r"no column of wavelength \(it has a, b, c, flux\); name the columns"):
        read_spectrum(content, **STATED)
    one = read_spectrum(content, wavelength="a", flux="b", error="c", **STATED)
    assert one.flux == pytest.approx(made.flux_of(100), rel=1e-6) and (one.ivar == 1).all()
    with pytest.raises(SchemaError, match="it has no column 'd'"):
        read_spectrum(content, wavelength="a", flux="d", **STATED)


@pytest.mark.parametrize("packed", ["parquet", "fits", "ecsv"])
def test_the_same_columns_in_other_formats(packed):
    from astropy import units
    from astropy.table import QTable

    table = QTable({"wavelength": WAVE * units.AA, "flux": made.flux_of(100), "ivar": np.ones(100)})
    sink = io.StringIO() if packed == "ecsv" else io.BytesIO()
    if packed == "parquet":
        sink.write(parquet(pa.table({"wavelength_nm": WAVE / 10, "flux": made.flux_of(100), "ivar": np.ones(100)})))
    else:
        table.write(sink, format="ascii.ecsv" if packed == "ecsv" else "fits")
    content = sink.getvalue()
    one = read_spectrum(content.encode() if packed == "ecsv" else content, medium="vacuum", flux_unit="relative")
    assert one.wavelength_angstrom == pytest.approx(WAVE) and one.flux == pytest.approx(made.flux_of(100), rel=1e-6)


def test_a_table_with_one_spectrum_a_row_has_ids_and_redshifts():
    rows = [made.flux_of(100, seed).tolist() for seed in range(3)]
    rows[1] = [np.nan] * 100
    table = pa.table(
        {
            "specid": ["a", "b", "c"],
            "wavelength": [WAVE.tolist()] * 3,
            "flux": rows,
            "ivar": [[1.0] * 100] * 3,
            "z": [0.1, None, 0.3],
        }
    )
    file = read_spectra(parquet(table), name="many.parquet", **STATED)
    assert (file.kind, file.ids, len(file)) == ("table of spectra", ["a", "b", "c"], 3)
    assert [file.read(row).z for row in (0, 2)] == [0.1, 0.3]
    assert file.read(2).flux == pytest.approx(rows[2])
    with pytest.raises(SchemaError, match=r"many.parquet: every pixel b is masked"):
        file.read(1)


def test_lists_of_different_length_in_fits_are_read():
    columns = [
        fits.Column(name, "PD()", unit=unit, array=np.array([values, values[:50]], object))
        for name, unit, values in (("wavelength", "Angstrom", WAVE), ("flux", "adu", made.flux_of(100).astype(float)))
    ]
    file = read_spectra(made.as_bytes(fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)), medium="vacuum")
    assert [len(one) for one in file] == [100, 50]


# ---- what is wrong


def broken(**changed) -> bytes:
    return csv(**{"wavelength": WAVE, "flux": made.flux_of(100), "ivar": np.ones(100), **changed})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (broken(wavelength=np.random.default_rng(0).permutation(WAVE)), "not in order .* sort the rows"),
        (broken(wavelength=np.repeat(WAVE[:50], 2)), "50 wavelengths stand twice, such as 4000"),
        (broken(wavelength=WAVE / 1000), "would run from 4 to 4.198 angstrom with the unit Angstrom"),
        (broken(wavelength=np.where(WAVE == 4100, np.nan, WAVE)), "1 pixels have flux and no wavelength"),
        (broken(ivar=-np.ones(100)), "ivar goes down to -1"),
        (broken(ivar=np.zeros(100)), "every pixel is masked, NaN or without error"),
        (broken(flux=np.full(100, np.nan)), "every pixel is masked"),
        (broken(flux=np.zeros(100)), "flux is zero throughout"),
        (csv(wavelength=WAVE[:1], flux=[1.0], ivar=[1.0]), "it has 1 pixels"),
        (broken(flux=["x"] * 100), "column flux does not hold numbers"),
        (csv(wavelength=WAVE, flux=WAVE, flam=WAVE), "its flux may be flux, flam; name one with flux='flux'"),
    ],
)  # fmt: skip
def test_a_table_that_is_no_spectrum_is_refused_with_a_remedy(content, message):
    with pytest.raises(SchemaError, match=message) as caught:
        read_spectrum(content, name="bad.csv", **STATED)
    assert str(caught.value).startswith("bad.csv: ") and "; " in str(caught.value)


def test_falling_wavelengths_are_turned_and_missing_pixels_have_no_weight():
    flux = made.flux_of(100).astype(float)
    flux[7] = np.nan
    one = read_spectrum(broken(wavelength=WAVE[::-1], flux=flux), **STATED)
    assert one.wavelength_angstrom == pytest.approx(WAVE) and one.ivar[92] == 0 and one.ivar.sum() == 99
    assert one.flux[0] == pytest.approx(flux[-1]) and "its wavelengths fall; they were turned around" in one.notes


def test_pixels_without_wavelength_and_data_are_left_out():
    wave, ivar = WAVE.copy(), np.ones(100)
    wave[:2], ivar[:2] = 0, 0
    one = read_spectrum(broken(wavelength=wave, ivar=ivar), **STATED)
    assert len(one) == 98 and one.notes[0] == "2 pixels without wavelength and data were left out"


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"wavelength_unit": "kg"}, "'kg' is no unit of wavelength"),
        ({"flux_unit": "kg"}, "'kg' is no unit of flux"),
        ({"medium": "water"}, "medium is 'water'"),
        ({"frame": "moving"}, "frame is 'moving'"),
        ({"error": "ivar", "ivar": "ivar"}, "both given"),
        ({"wavelength": "wavelength"}, "name both columns"),
        ({"hdu": 1}, "for FITS files"),
        ({"z": -3.0}, "redshift is -3.0"),
    ],
)
def test_what_is_stated_must_make_sense(stated, message):
    with pytest.raises(SchemaError, match=message):
        read_spectrum(broken(), **{**STATED, **stated})


def test_air_below_2000_angstrom_is_refused():
    with pytest.raises(SchemaError, match=r"^uv.csv: wavelengths from 1100 angstrom have no value in air"):
        read_spectrum(broken(wavelength=WAVE - 2900), name="uv.csv", **{**STATED, "medium": "air"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 99, "a picture"),
        (b"<!doctype html><html></html>", "web page"),
        (b"SIMPLE  =" + b" " * 100, "does not end"),
        (gzip.compress(gzip.compress(b"SIMPLE  =", mtime=0), mtime=0), "compressed twice"),
        (gzip.compress(made.sdss())[:500], "cut short"),
        (bytes(range(256)) * 20, "x: "),
    ],
)
def test_what_is_no_file_of_spectra_is_refused(content, message):
    with pytest.raises(SchemaError, match=message):
        read_spectrum(content, name="x")


def test_a_compressed_file_is_read_whatever_it_is_called(tmp_path):
    path = tmp_path / "anything.dat"
    path.write_bytes(gzip.compress(made.sdss()))
    assert read_spectrum(path).name == "0266-51602-0013"
    with pytest.raises(SchemaError, match="cannot be read"):
        read_spectrum(tmp_path / "nothing.fits")


FILES = {
    "sdss": made.sdss,
    "desi": made.desi,
    "hst": made.hst,
    "ssap": made.ssap,
    "image": lambda: made.image(**made.IRAF),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_is_refused(kind):
    content = FILES[kind]()
    for length in (1000, len(content.rstrip(b"\0")) - 4):
        with pytest.raises(SchemaError, match=r"truncated|does not end"):
            list(read_spectra(content[:length], medium="vacuum"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("NAXIS2", "999999999999"), ("NAXIS2", "-1"), ("NAXIS1", "99999999"), ("TFIELDS", "99999")),
        *(("PCOUNT", "99999999999"), ("TFORM2", "'999999999E'"), ("TFORM2", "'1Z'")),
    ],
)
def test_a_header_that_promises_too_much_is_refused(key, value):
    content = made.sdss()
    at = content.index(f"{key:8}=".encode(), content.index(b"XTENSION"))
    card = f"{key:8}= {value:>20}".ljust(80).encode()
    with pytest.raises(SchemaError, match=r"truncated|damaged"):
        read_spectrum(content[:at] + card + content[at + 80 :])


@given(data=st.data(), kind=st.sampled_from(sorted(FILES)))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(data, kind):
    content = bytearray(FILES[kind]())
    header = data.draw(st.booleans())
    for _ in range(data.draw(st.integers(1, 6))):
        start = content.index(b"XTENSION") if header and b"XTENSION" in content else 0
        at = data.draw(st.integers(start, min(len(content), start + 2880) - 1 if header else len(content) - 1))
        content[at] = data.draw(st.integers(32, 126) if header else st.integers(0, 255))
    try:
        for one in read_spectra(bytes(content), medium="vacuum"):
            assert np.isfinite(one.flux).all() and (one.ivar >= 0).all()
    except SchemaError as error:
        assert "; " in str(error)


@given(
    values=st.lists(st.tuples(*[st.floats(allow_subnormal=True)] * 3), min_size=1, max_size=30),
    medium=st.sampled_from(["air", "vacuum"]),
    role=st.sampled_from(["error", "ivar"]),
)
def test_any_numbers_are_a_spectrum_or_refused(values, medium, role):
    wavelength, flux, third = (pa.array(column) for column in zip(*values, strict=True))
    content = parquet(pa.table({"wavelength": wavelength, "flux": flux, role: third}))
    try:
        one = read_spectrum(content, wavelength_unit="Angstrom", flux_unit="Jy", medium=medium)
    except SchemaError:
        return
    result = spectra.resample(one, spectra.log_grid(4000, 4100))
    assert np.isfinite(result.flux).all() and np.isfinite(result.ivar).all()


@pytest.mark.parametrize("module", [files, assembly, linear, units], ids=lambda module: module.__name__)
def test_the_examples_of_the_docstrings_run(module):
    assert doctest.testmod(module).failed == 0


def test_every_keyword_is_one_of_the_options():
    fields = {field.name: field.type for field in dataclasses.fields(assembly.Options)}
    assert fields == {key: each.__forward_arg__ for key, each in assembly.Statements.__annotations__.items()}


def test_every_kind_is_in_the_document():
    document = (Path(__file__).parent.parent / "docs" / "spectra.md").read_text()
    assert [kind for kind in KINDS if f"`{kind}`" not in document] == []


# ---- units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Angstrom", (1, False)), ("A", (1, False)), ("AA", (1, False)), ("Angstroms", (1, False)), ("nm", (10, False)),
        ("um", (1e4, False)), ("micron", (1e4, False)), ("m", (1e10, False)), ("log10(Angstrom)", (1, True)),
        ("log(um)", (1e4, True)), ("kg", None), ("", None), ("pixel", None), ("Hz", None),
    ],
)  # fmt: skip
def test_units_of_wavelength(text, expected):
    assert wavelength_scale(text) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        ("10**-17 erg/(s cm2 Angstrom)", 1), ("1E-17 erg/cm^2/s/Ang", 1), ("erg/cm2/s/A", 1e17), ("W m-2 um-1", 1e16),
        ("erg /s /cm**2 /angstrom", 1e17), ("10**(-16)erg.cm**(-2).s**(-1).angstrom**(-1)", 10),
        ("1E-17 erg/s/cm^2/Ang/spaxel", 1), ("Jy", 119916.9832), ("MJy sr-1", 119916.9832e6),
        ("ph/s/cm2/A", 1e17 * 3.97289171e-12),
        ("adu", None), ("counts", None), ("electron/s", None), ("relative", None),
    ],
)  # fmt: skip
def test_units_of_flux_at_5000_angstrom(text, factor):
    scale, is_calibrated = flux_scale(text, np.array([5000.0]))
    assert is_calibrated == (factor is not None)
    assert np.ravel(scale)[0] == pytest.approx(factor or 1, rel=1e-7)


# ---- real files


KNOWN = {  # what the files of the shared data do not say themselves
    r"indous-.*": {"wavelength_unit": "Angstrom", "medium": "air", "flux_unit": "relative"},
    r"IZW18_isis|gp121903_osiris": {"medium": "air"},
    r"SHOC579.*": {"wavelength_unit": "Angstrom", "medium": "vacuum", "flux_unit": "erg/s/cm2/Angstrom"},
}


ALIASES = {"SDSS_J121903.98+152608.5": "GP121903-OSIRIS", "SHOC579_MANGA38-35": "SHOC579-MaNGA-38-35"}


def real_files() -> list[Path]:
    data = os.environ.get("GALSEARCH_DATA")
    if not data:
        pytest.skip("GALSEARCH_DATA is not set")
    return sorted(path for path in (Path(data) / "spectra" / "fits").iterdir() if path.is_file())


def read_real(path: Path):
    """Return the spectra of a real file, first as it is, then with what is known of it; or why it is refused."""
    stated = next((each for pattern, each in KNOWN.items() if re.match(pattern, path.name)), {})
    if stated:
        with pytest.raises(SchemaError, match="it does not say"):
            list(read_spectra(path))
    coadd = re.sub("desi-coadd", "desi-redrock", path.name)
    if coadd != path.name:
        stated = {"redshifts": path.with_name(coadd)}
    try:
        return list(read_spectra(path, **stated))
    except SchemaError as error:
        return str(error)


def tables_of_truth() -> dict[str, tuple[dict, np.ndarray, np.ndarray]]:
    """Return the rows of the shared tables with their flux and ivar on the grid, by name."""
    folder, result = Path(os.environ["GALSEARCH_DATA"]) / "spectra", {}
    for name in ("spectra", "spectra_more"):
        rows = pyarrow.parquet.read_table(folder / f"{name}.parquet").to_pylist()
        arrays = np.load(folder / f"{name}.npz")
        flux, ivar = arrays["flux"], arrays["ivar"]
        result |= {row["name"]: (row, flux[index], ivar[index]) for index, row in enumerate(rows)}
    return result


@pytest.mark.slow
def test_every_real_file_is_read_or_refused_in_one_sentence():
    kinds, truth, compared = Counter(), tables_of_truth() if real_files() else {}, Counter()
    grid = spectra.LogGrid(3.55, 1e-4, 4702)
    for path in real_files():
        result = read_real(path)
        if isinstance(result, str):
            kinds["refused"] += 1
            assert result.startswith(path.name) and "\n" not in result
            assert "redrock" in path.name or "0269-51581-0003" in path.name, result
            continue
        kinds[result[0].kind] += len(result)
        for one in result:
            name = f"DESI-{one.name}" if one.kind == "DESI coadd" else ALIASES.get(one.name, one.name)
            if name in truth:
                row, flux, ivar = truth[name]
                compared[one.kind] += 1
                assert one.z is None or one.z == pytest.approx(row["z"], abs=1e-5), name
                ours = spectra.resample(one, grid)
                both = (ours.ivar > 0) & (ivar > 0)
                assert both.sum() > 0.9 * min((ours.ivar > 0).sum(), (ivar > 0).sum()), name
                off = np.abs(ours.flux[both] - flux[both]) * np.sqrt(ivar[both])  # in standard deviations
                assert np.median(off) < 1e-3 and np.percentile(off, 99) < 0.05, name
    print(dict(kinds), dict(compared))  # noqa: T201  # pytest -s shows the counts
    assert kinds["SDSS spec"] == 43 and kinds["refused"] == 3
    assert compared["SDSS spec"] >= 35 and compared["FITS image"] >= 26 and compared["DESI coadd"] == 2
    assert all(one.z is not None for one in map(read_spectrum, real_files()[-5:]))
