"""Which column of a table is what: positions, redshifts, ids, files and pixels as real tables have them."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from galsearch import columns, formats, schema
from galsearch.errors import SchemaError
from galsearch.sources import Reading, normalize

POSITIONS = [10.684708, 202.469575], [41.26875, 47.195258]  # M 31 and M 51, degrees ICRS


def table(units=None, ucds=None, **values):
    fields = []
    for name, column in values.items():
        field = pa.field(name, pa.array(column).type)
        fields.append(formats.describe(field, unit=(units or {}).get(name), ucd=(ucds or {}).get(name)))
    return pa.table([pa.array(column) for column in values.values()], schema=pa.schema(fields))


def positions(one, **given):
    return columns.positions(one, given, name="t")


def redshift(one, **given):
    return columns.redshift(one, given, name="t")


# ---- positions


@pytest.mark.parametrize(
    ("ra", "dec"),
    [
        *(("RA", "DEC"), ("RAdeg", "DEdeg"), ("_RA", "_DE"), ("RAJ2000", "DEJ2000"), ("_RAJ2000", "_DEJ2000")),
        *(("TARGET_RA", "TARGET_DEC"), ("right_ascension", "declination"), ("ALPHA_J2000", "DELTA_J2000")),
        *(("RA_ICRS", "DE_ICRS"), ("coord_ra", "coord_dec"), ("raMean", "decMean"), ("ra_deg", "dec_deg")),
        *(("sky_centroid.ra", "sky_centroid.dec"), ("host_ra", "host_dec"), ("ra_1", "dec_1")),
    ],
)
def test_positions_are_found_by_the_names_of_archives(ra, dec):
    errors = {"e_RAdeg": [0.1, 0.1], "ra_error": [1.0, 1], "dec_error": [1.0, 1], "pmra": [3.0, 3], "pmdec": [3.0, 3]}
    found = positions(table(name=["a", "b"], **errors, **{ra: POSITIONS[0], dec: POSITIONS[1]}))
    assert found.columns == (ra, dec)
    assert (found.ra.tolist(), found.dec.tolist()) == POSITIONS
    assert found.notes == ()


def test_an_axis_by_its_name_goes_with_the_other_by_its_ucd():
    found = positions(table(ucds={"delta": "pos.eq.dec"}, ra=POSITIONS[0], delta=POSITIONS[1], x=[1.0, 2.0]))
    assert found.columns == ("ra", "delta")
    found = positions(table(ucds={"delta": "pos.eq.dec"}, x=POSITIONS[0], delta=POSITIONS[1]), ra="x")
    assert found.columns == ("x", "delta")


def test_two_pairs_that_differ_as_ra_and_dec_do_are_no_position():
    pairs = {f"{name}_{axis}": [1.0, 2.0] for name in ("host", "jet") for axis in ("ra", "dec")}
    assert positions(table(name=["a", "b"], **pairs)) is None


def test_positions_are_found_by_ucd_alone_and_the_main_ones_first():
    ucds = {"a": "pos.eq.ra", "b": "pos.eq.dec", "c": "pos.eq.ra;meta.main", "d": "pos.eq.dec;meta.main"}
    found = positions(table(ucds=ucds, a=[1.0], b=[2.0], c=[3.0], d=[4.0]))
    assert found.columns == ("c", "d")
    assert positions(table(ucds=ucds, a=[1.0], b=[2.0])).columns == ("a", "b")


def test_degrees_win_over_sexagesimal_text_whatever_they_are_called():
    text = {"RAJ2000": ["00 42 44.33", "13 29 52.698"], "DEJ2000": ["+41 16 07.5", "+47 11 42.93"]}
    main = {"RAJ2000": "pos.eq.ra;meta.main", "DEJ2000": "pos.eq.dec;meta.main"}
    both = table(
        ucds=main, units={"RAJ2000": "h:m:s", "_RAJ2000": "deg"}, **text, _RAJ2000=POSITIONS[0], _DEJ2000=POSITIONS[1]
    )
    assert positions(both).columns == ("_RAJ2000", "_DEJ2000")
    alone = positions(table(units={"RAJ2000": "h:m:s"}, **text))
    np.testing.assert_allclose([alone.ra, alone.dec], POSITIONS, atol=2e-6)
    assert alone.converted
    assert "read as text" in alone.notes[0]


def test_times_of_day_are_right_ascensions_and_a_text_that_is_no_position_costs_its_row():
    times = [datetime.time(0, 42, 44), datetime.time(13, 29, 52), datetime.time(1)]
    found = positions(table(ra=times, dec=["+41:16:08", "+47:11:43", "north"]))
    np.testing.assert_allclose(found.ra[:2], [10.6833, 202.4667], atol=1e-3)
    assert list(found.unreadable) == [2]
    assert "north" in found.unreadable[2]


@pytest.mark.parametrize(
    ("unit", "ra", "dec"),
    [("rad", np.radians(POSITIONS[0]), np.radians(POSITIONS[1])), ("h", np.array(POSITIONS[0]) / 15, POSITIONS[1])],
    ids=["radians", "hours"],
)
def test_radians_and_hours_are_converted_by_their_unit(unit, ra, dec):
    units = {"coord_ra": unit, "coord_dec": "deg" if unit == "h" else unit}
    found = positions(table(units=units, coord_ra=ra, coord_dec=dec))
    np.testing.assert_allclose([found.ra, found.dec], POSITIONS, atol=1e-12)
    assert any(f"from {unit} to degrees" in note for note in found.notes)


def test_right_ascensions_below_zero_have_360_added_and_it_is_said():
    found = positions(table(ra=[-0.02, 0.02, -180.0, 180.0, None], dec=[1.0, 1, 1, 1, 1]))
    np.testing.assert_allclose(found.ra, [359.98, 0.02, 180, 180, np.nan])
    assert found.notes == ("360 is added to 2 right ascensions below 0 in ra",)


def test_minus_9999_is_no_position_and_360_is_0():
    found = positions(table(ra=[-9999.0, 360.0], dec=[-9999.0, 5.0]))
    np.testing.assert_array_equal(found.ra, [np.nan, 0.0])


@pytest.mark.parametrize(
    ("ra", "dec", "unit", "warned"),
    [
        ([1.1, 6.2], [0.1, -1.5], None, "radians"),
        ([1.1, 23.9], [10.0, -80], None, "hours"),
        ([1.1, 24.1], [10.0, -80], None, None),
        ([1.1, 6.2], [0.1, -1.5], "deg", None),
    ],
)
def test_what_looks_like_hours_or_radians_is_warned_of_where_no_unit_says_degrees(ra, dec, unit, warned):
    notes = positions(table(units={"ra": unit, "dec": unit}, ra=ra, dec=dec)).notes
    assert [warned in note for note in notes] == ([True] if warned else [])


def test_a_table_without_positions_has_none():
    assert positions(table(ra=[1.0], z=[0.1])) is None
    assert positions(table(pmra=[1.0], pmdec=[2.0], ra_error=[1.0], dec_error=[1.0])) is None
    assert positions(table(GLON=[1.0], GLAT=[2.0])) is None
    with pytest.raises(SchemaError, match=r"no positions found; column ra is bool, .*There are: ra, dec"):
        columns.positions(table(ra=[True], dec=[1.0]), {}, name="t", required=True)


def test_columns_of_positions_without_any_value_are_found_last():
    empty = {"ra": pa.nulls(2), "dec": pa.nulls(2, pa.float64())}
    assert np.isnan(positions(table(**empty)).ra).all()
    assert positions(table(**empty, RAdeg=[1.0, 2.0], DEdeg=[3.0, 4.0])).columns == ("RAdeg", "DEdeg")


def test_the_user_says_which_columns_are_positions():
    two = table(ra=[1.0], dec=[2.0], A=[3.0], D=[4.0])
    assert positions(two, ra="A", dec="d").columns == ("A", "D")
    assert positions(two, ra="A").columns == ("A", "dec")
    assert positions(two, dec="D").columns == ("ra", "D")
    with pytest.raises(SchemaError, match="no column 'B' for ra; there are: ra, dec, A, D"):
        positions(two, ra="B")
    with pytest.raises(SchemaError, match=r"no positions found.*There are: A"):
        positions(table(A=[3.0]), ra="A")
    with pytest.raises(SchemaError, match="column A is in mm"):
        positions(table(units={"A": "mm"}, A=[3.0], D=[4.0]), ra="A", dec="D")


# ---- redshifts

BANDS = {"u": [23.8, 24.7, 18.2], "g": [22.2, 22.8, 17.6], "r": [20.3, 22.5, 16.6], "i": [19.1, 21.1, 16.3]}


def test_z_beside_u_g_r_i_is_the_band_and_another_column_the_redshift():
    found = redshift(table(**BANDS, z=[18.7, 21.6, 16.0], redshift=[0.634, 0.779, 0.0443]))
    assert (found.column, found.band) == ("redshift", "z")
    assert redshift(table(**BANDS, z=[18.7, 21.6, 16.0])) == columns.Redshift(None, band="z")
    flux = {name: [1.5, 2.5, 3.5] for name in "ugriz"}
    assert redshift(table(**flux)).band == "z"


def test_z_beside_magnitudes_is_the_redshift_where_its_values_say_so():
    assert redshift(table(**BANDS, z=[0.634, 0.779, 0.0443])).column == "z"


@pytest.mark.parametrize(
    ("unit", "ucd", "values", "meant"),
    [
        (None, None, [0.1, 2.0], "redshift"),
        (None, "src.redshift", [0.1, 2.0], "redshift"),
        ("mag", None, [0.1, 2.0], "band"),
        (None, "phot.mag;em.opt.I", [17.0, 18.0], "band"),
        ("kpc", None, [0.1, 2.0], "other"),
        (None, None, [17.0, 18.0], "other"),
        (None, None, ["a", "b"], "other"),
    ],
)
def test_unit_ucd_and_values_say_what_z_is(unit, ucd, values, meant):
    found = redshift(table(units={"z": unit}, ucds={"z": ucd}, name=["a", "b"], z=values))
    assert {"redshift": found.column, "band": found.band, "other": found.other}[meant] == "z"


def test_a_coordinate_in_space_is_no_redshift():
    assert redshift(table(x=[1.0], y=[2.0], z=[3.0])).other == "z"
    assert redshift(table(x=[1.0], y=[2.0], z=[3.0], ra=[1.0], dec=[1.0])).column == "z"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["photoz", "z_spec"], "z_spec"),
        (["Redshift", "zphot"], "Redshift"),
        (["zphot"], "zphot"),
        (["Z", "ZERR", "ZWARN"], "Z"),
        (["z_err"], None),
    ],
)
def test_a_spectroscopic_redshift_is_chosen_before_a_photometric_one(names, expected):
    found = redshift(table(**{name: [0.1] for name in names}))
    assert found.column == expected
    assert ("photometric" in found.why) == (expected == "zphot")


def test_the_user_says_which_column_is_the_redshift():
    found = redshift(table(z=[0.1], z_cmb=[0.2]), z="z_cmb")
    assert (found.column, found.other) == ("z_cmb", "z")
    with pytest.raises(SchemaError, match="column class is string, expected numbers"):
        redshift(table(**{"class": ["a"]}), z="class")


# ---- ids, pixels, names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["objID", "id"], "objID"),
        (["id", "diaObjectId"], "diaObjectId"),
        (["name", "coadd_object_id"], "coadd_object_id"),
        (["id_str"], "id_str"),
        (["designation"], "designation"),
        (["TARGETID", "OBJECT_ID"], "OBJECT_ID"),
        (["NUMBER"], "NUMBER"),
        (["nothing"], None),
    ],
)
def test_ids_are_found_by_the_names_of_surveys(names, expected):
    assert columns.identifier(table(**{name: ["1", "2"] for name in names}), {}, name="t") == expected


def test_a_label_that_repeats_is_a_class_and_no_id():
    assert columns.identifier(table(label=[0, 1, 1]), {}, name="t") is None
    assert columns.identifier(table(label=[1, 2, 3]), {}, name="t") == "label"
    assert columns.identifier(table(name=pa.nulls(2, pa.string()), id=["a", "b"]), {}, name="t") == "id"


@pytest.mark.parametrize(
    ("x", "y", "first"),
    [
        *(("x_px", "y_px", 0), ("x", "y", 0)),
        *(("xcentroid", "ycentroid", 0), ("x_centroid", "y_centroid", 0)),  # photutils counts from 0
        *(("X_IMAGE", "Y_IMAGE", 1), ("XWIN_IMAGE", "YWIN_IMAGE", 1), ("XPEAK_IMAGE", "YPEAK_IMAGE", 1)),  # as FITS
        *(("x_fit", "y_fit", 0), ("xcen", "ycen", 0), ("x_pix", "y_pix", 0), ("xpix", "ypix", 0)),
    ],
)
def test_pixels_are_found_and_counted_from_zero(x, y, first):
    found = columns.pixels(table(**{x: [5.0, 7.0], y: [6.0, 8.0]}), {}, name="t")
    assert found.x.tolist() == [5.0 - first, 7.0 - first]
    assert found.y.tolist() == [6.0 - first, 8.0 - first]
    assert found.first == first


def test_pixels_in_millimeters_are_none():
    assert columns.pixels(table(units={"x": "mm", "y": "mm"}, x=[1.0], y=[1.0]), {}, name="t") is None


def test_roles_are_read_from_text():
    assert columns.parse_roles(["z=zphot", "ra = A ,dec=D"]) == {"z": "zphot", "ra": "A", "dec": "D"}
    with pytest.raises(SchemaError, match="no role 'zz'; there are: object_id, ra"):
        columns.parse_roles(["zz=a"])
    with pytest.raises(SchemaError, match="ROLE=COLUMN"):
        columns.parse_roles(["z"])


# ---- names that mean something else in an atlas

ENGINE = [*schema.ENGINE_NAMES, "RowID", "SCORE", "Cut"]


@pytest.mark.parametrize("name", ENGINE)
def test_a_column_with_a_name_of_the_engine_gets_another_and_keeps_its_values(name):
    found = normalize(table(id=["a", "b"], **{name: [2.0, 1.0]}), name="t")
    assert found.table[f"{name}_in_table"].to_pylist() == [2.0, 1.0]
    assert name.casefold() not in {each.casefold() for each in found.table.column_names}
    assert found.summary.renamed == {name: f"{name}_in_table"}
    assert schema.ENGINE_NAMES[name.casefold()] in "\n".join(found.summary.lines())


def test_columns_that_differ_only_in_case_are_told_apart():
    found = normalize(table(id=["a"], Mass=[1.0], mass=[2.0], MASS_in_table=[3.0]), name="t").table
    assert found["Mass"].to_pylist() == [1.0]
    assert found["mass_in_table2"].to_pylist() == [2.0]
    assert found["MASS_in_table"].to_pylist() == [3.0]


def test_names_without_letters_too_long_or_with_control_characters_become_plain():
    odd = {" flux\x00r\n": [1.0], "": [2.0], "x" * 300: [3.0], "galsearch:image": [4.0], "a \"b\" 'c'; --": [5.0]}
    found = normalize(table(id=["a"], **odd), name="t").table
    names = found.column_names[3:]
    assert names == ["flux_r", "column_3", "x" * schema.MAX_NAME, "galsearch_image", "a \"b\" 'c'; --"]
    assert [found[name][0].as_py() for name in names] == [1, 2, 3, 4, 5]


def test_a_column_called_like_a_measure_keeps_name_unit_and_description_and_ours_gets_another():
    mine = table(units={"SNR": "dB"}, id=["a"], SNR=[99.0], Arm_Strength=[-1.0])
    found = normalize(mine, name="t")
    assert found.table["SNR"].to_pylist() == [99.0]
    assert formats.facts_of(found.table.field("SNR"))["unit"] == "dB"
    assert formats.facts_of(found.table.field("Arm_Strength")) == {"unit": "", "ucd": "", "description": ""}
    assert (found.measures["snr"], found.measures["arm_strength"]) == ("snr_measured", "arm_strength_measured")
    assert found.measures["gini"] == "gini"


def test_what_is_added_follows_the_atlas_in_what_measures_are_called():
    held = {"snr": "snr", "gini": "gini_measured"}
    found = normalize(table(id=["a"], SNR=[99.0]), name="t", reading=Reading(measures=held))
    assert found.measures["snr"] == "snr"
    assert found.measures["gini"] == "gini_measured"
    assert found.table["SNR_in_table"].to_pylist() == [99.0]


def test_the_redshift_is_there_as_z_and_under_its_own_name():
    mine = table(id=["a", "b", "c"], **BANDS, z=[18.7, 21.6, 16.0], redshift=[0.634, 0.779, 0.0443])
    found = normalize(mine, name="t")
    assert found.table["z"].to_pylist() == found.table["redshift"].to_pylist() == [0.634, 0.779, 0.0443]
    assert found.table["mag_z"].to_pylist() == [18.7, 21.6, 16.0]
    facts = formats.facts_of(found.table.field("z"))
    assert facts["ucd"] == "src.redshift"
    assert "copy of column redshift" in facts["description"]
    assert formats.facts_of(found.table.field("mag_z"))["description"] == schema.GALAXIES["mag_z"].description
    assert found.summary.redshift == "redshift (by its name)"


def test_the_summary_says_what_was_found_and_what_was_not():
    told = "\n".join(normalize(table(objID=["a"], rowid=[1], mass=[2.0]), name="t").summary.lines())
    assert "ids: objID" in told
    assert "no positions found; columns are: objID, rowid, mass" in told
    assert "redshift: none found" in told
    assert "'rowid' is called 'rowid_in_table'" in told


def test_the_one_main_identifier_by_ucd_is_the_id_and_two_are_none():
    ucds = {"survey": "meta.id;meta.main", "other": "meta.id;meta.main"}
    one = table(ucds=ucds, name=["a", "b"], survey=["s1", "s2"])
    assert columns.identifier(one, {}, name="t") == "survey"
    two = table(ucds=ucds, name=["a", "b"], survey=["s1", "s2"], other=["o1", "o2"])
    assert columns.identifier(two, {}, name="t") == "name"


def test_numbers_too_long_for_a_double_are_the_nearest_one():
    column = pa.chunked_array([[2**63 - 1, None, 99]])
    np.testing.assert_array_equal(columns.numbers(column), [2.0**63, np.nan, 99])


@pytest.mark.parametrize("lacking", ["ra", "dec"])
def test_columns_of_positions_with_one_axis_alone_are_still_those(lacking):
    """Their rows are left out, one by one; another pair, without any value, is not taken in their place."""
    values = {"ra": [10.0, 20.0], "dec": [-5.0, 5.0], lacking: [None, None]}
    found = positions(table(**{name: pa.array(one, pa.float64()) for name, one in values.items()}))
    assert found.columns == ("ra", "dec")
    assert np.isnan(getattr(found, lacking)).all()
    assert np.isfinite(found.dec if lacking == "ra" else found.ra).all()
