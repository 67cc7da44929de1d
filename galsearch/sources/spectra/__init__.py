"""Files of spectra: what a file is by its content, and each spectrum in it as a `Spectrum`.

One module a family: `sdss`, `desi`, `space` (JWST, HST), `linear` (FITS images with an axis of wavelengths), `tables`
(columns by utype, UCD or name). `assembly` decides units, medium, masks and errors for all of them. A name of a file
decides nothing. What a file does not say is an error that tells how to say it, and never a guess.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath
from typing import Unpack

from galsearch import formats
from galsearch.errors import SchemaError
from galsearch.science.bounded import Limits, bad, content_of, inflated, wrapping_of
from galsearch.science.fits_units import Unit
from galsearch.science.spectra import Spectrum
from galsearch.sources.spectra import desi, linear, sdss, space, tables
from galsearch.sources.spectra.assembly import Options, SpectrumFile, Statements
from galsearch.sources.spectra.fits_file import Fits

__all__ = ["KINDS", "SPECTRUM", "Options", "SpectrumFile", "is_spectrum", "read_spectra", "read_spectrum"]

SPECTRUM = Limits(values=64_000_000, file_bytes=1 << 30)
KINDS = (sdss.KIND, desi.KIND, desi.STACK, space.JWST, space.HST, linear.KIND, tables.KIND, tables.NESTED)
FITS = b"SIMPLE  ="
PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"\x93NUMPY", b"PK\x03\x04", b"%PDF")
SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".tbl", ".mrt", ".cat")  # that say how a table of text is read
_SMALLER = "cut it into files of fewer spectra"


def read_spectrum(source: str | Path | bytes, *, name: str | None = None, **stated: Unpack[Statements]) -> Spectrum:
    """Return the spectrum of a file that holds one, or the one that `row` says: a number from 0, or an id.

    The keywords are those of `read_spectra`. Raises SchemaError as that does, and for a file of several spectra without
    `row`.
    """
    options = Options(**stated)
    file = read_spectra(source, name=name, **stated)
    row = options.row
    if row is None:
        if len(file) > 1:
            listed = ", ".join(file.ids[:5])
            reason = f"it holds {len(file):,} spectra ({listed}{', …' if len(file) > 5 else ''})"
            raise bad(file.source, reason, "name one with row, by its number from 0 or its id, or read them all")
        return file.read(0)
    if isinstance(row, str) and row in file.ids:
        return file.read(list(file.ids).index(row))
    number = int(row) if str(row).isdecimal() else -1
    if not 0 <= number < len(file):
        raise bad(file.source, f"it has no spectrum {row} (it has {len(file):,})", "give a number from 0, or an id")
    return file.read(number)


def read_spectra(source: str | Path | bytes, *, name: str | None = None, **stated: Unpack[Statements]) -> SpectrumFile:
    """Return the spectra of a file, each of which is read when it is looked at; `ids` names them.

    `source` is a path or the bytes of a file, plain or in gzip or bzip2; `name` is what errors call it. The keywords
    say what the file does not, and come before what it does:

    `hdu` the HDU, by name or number from 0; `wavelength`, `flux`, `error`, `ivar`, `mask` columns of a table, or HDUs
    for the errors of a FITS image; `wavelength_unit` ("Angstrom", "nm", "um", "log10(Angstrom)"), `flux_unit` (or
    "relative"), `medium` ("air" or "vacuum"), `z`, `frame` ("observed" or "rest"), `redshifts` a second file with
    the redshifts of a DESI coadd (redrock).

    Known are SDSS, BOSS, eBOSS and SDSS-V spec files, DESI coadds and stacks, JWST and HST x1d products, FITS images
    with an axis of wavelengths, and tables (FITS, VOTable, ECSV, CSV and other text, Parquet) with columns of
    wavelength and flux. Raises SchemaError with the file's name, the reason and a remedy for anything else, for what is
    damaged or beyond `SPECTRUM`, and where unit or medium are not known; for a single spectrum when it is read.
    """
    options = Options(**stated)
    called = name or (PurePath(source).name if isinstance(source, (str, Path)) else "spectrum")
    content = _content(source, called)
    if any(content.startswith(start) for start in PICTURES):
        raise bad(called, "it is a picture, an array or an archive, not a spectrum", "give FITS or a table")
    try:
        if content.startswith(FITS):
            return _of_fits(content, called, options)
        return _of_table(content, called, _suffix(source), options)
    except MemoryError as error:
        raise bad(called, "there is not enough memory to read it", _SMALLER) from error


def is_spectrum(source: str | Path | bytes, *, name: str | None = None) -> bool:
    """Say whether a file is of a layout that is read here: FITS by what is in it, tables of text by their suffix.

    Raises SchemaError for a file that cannot be read at all.
    """
    called = name or (PurePath(source).name if isinstance(source, (str, Path)) else "spectrum")
    content = _content(source, called)
    if not content.startswith(FITS):
        suffixes = [part.lower() for part in PurePath(called).suffixes]
        return any(part in (*SUFFIXES, ".ecsv", ".vot", ".xml", ".parquet", ".pq") for part in suffixes)
    file, options = Fits(content, called, SPECTRUM.values), Options()
    known = desi.arms_of(file) or desi.is_stack(file) or sdss.recognize(file) or space.recognize(file)[0]
    return bool(known or any(_is_table(file, unit, options) for unit in file.units) or linear.recognize(file, options))


def _content(source: str | Path | bytes, name: str) -> bytes:
    content = content_of(source, name, SPECTRUM, remedy=_SMALLER)
    inner = inflated(content, name, SPECTRUM, remedy=_SMALLER)
    if inner is not content and wrapping_of(inner):
        raise bad(name, "it is compressed twice", "unpack it first")
    return inner


def _suffix(source: str | Path | bytes) -> str:
    suffixes = [part.lower() for part in PurePath(source).suffixes] if isinstance(source, (str, Path)) else []
    return next((part for part in suffixes[::-1] if part in SUFFIXES), ".txt")


def _stem(name: str) -> str:
    """Return a file's name without its suffixes, but for what looks like a version or a number.

    >>> _stem("a.fits.gz"), _stem("spec-v0.7_x1d.csv")
    ('a', 'spec-v0.7_x1d')
    """
    path = PurePath(name)
    if path.suffix.lower() in (".gz", ".bz2"):
        path = path.with_suffix("")
    return path.with_suffix("").name or name


# ---- FITS


def _of_fits(content: bytes, name: str, options: Options) -> SpectrumFile:
    file, stem = Fits(content, name, SPECTRUM.values), _stem(name)
    redshifts = _redshifts(options)
    if options.hdu is None and not options.names_columns:
        result = _of_known(file, options, redshifts, stem)
        if result is not None:
            return result
    if redshifts is not None:
        raise bad(name, "redshifts are given, and it is no DESI coadd", "leave redshifts out, or give z")
    units = [file.chosen(options.hdu)] if options.hdu is not None else file.units
    wanted = [unit for unit in units if _is_table(file, unit, options)]
    if len(wanted) > 1:
        listed = ", ".join(unit.label for unit in wanted[:6])
        raise bad(name, f"{len(wanted)} of its tables have a wavelength and a flux ({listed})", "name one with hdu")
    if wanted or (options.hdu is not None and file.columns(units[0])):
        return tables.read(tables.of_fits(file, wanted[0] if wanted else units[0]), options, stem)
    image = linear.recognize(file, options)
    if image is not None and options.wavelength is None:
        return linear.read(file, image, options, stem)
    raise _no_spectrum(file, options)


def _of_known(file: Fits, options: Options, redshifts: Fits | None, stem: str) -> SpectrumFile | None:
    """Return the spectra of a file of a known survey, None for any other."""
    if desi.arms_of(file):
        return desi.read(file, options, redshifts)
    if redshifts is not None:
        return None
    if desi.is_stack(file):
        return desi.read_stack(file, options, stem)
    unit = sdss.recognize(file)
    if unit is not None:
        return sdss.read(file, unit, options, stem)
    kind, parts = space.recognize(file)
    return space.read(file, kind, parts, options, stem) if kind else None


def _is_table(file: Fits, unit: Unit, options: Options) -> bool:
    if not file.columns(unit):
        return False
    columns = tables.of_fits(file, unit)
    if options.wavelength is not None or options.flux is not None:
        names = {item.name.casefold() for item in columns.items}
        return all(each is None or each.casefold() in names for each in (options.wavelength, options.flux))
    return tables.recognize(columns, options)


def _redshifts(options: Options) -> Fits | None:
    source = options.redshifts
    if source is None:
        return None
    name = PurePath(source).name if isinstance(source, (str, Path)) else "redshifts"
    content = _content(source, name)
    if not content.startswith(FITS):
        raise bad(name, "it is no FITS file", "give the redrock file of the coadd as redshifts")
    return Fits(content, name, SPECTRUM.values)


def _no_spectrum(file: Fits, options: Options) -> SchemaError:
    """Return the error for a FITS file in which nothing is a spectrum, with what it holds."""
    if options.names_columns:
        names = [str(each) for each in (options.wavelength, options.flux, options.error, options.ivar) if each]
        there = [column.name for unit in file.units for column in file.columns(unit).values()][:20]
        reason = f"no table of it has {', '.join(names)} (its columns are {', '.join(there) or 'none'})"
        return bad(file.source, reason, "name columns that it has, or the HDU with hdu")
    if desi.is_redrock(file):
        return bad(file.source, "it has redshifts and no spectra", "give it as redshifts, beside its coadd")
    kinds = ", ".join(
        f"{unit.label} ({'table' if file.columns(unit) else 'x'.join(map(str, file.shape(unit))) or 'empty'})"
        for unit in file.units[:8]
    )
    remedy = "name its columns with wavelength and flux, or an image whose rows are spectra with hdu"
    return bad(file.source, f"it holds no spectrum that is known here: {kinds}", remedy)


# ---- tables


def _of_table(content: bytes, name: str, suffix: str, options: Options) -> SpectrumFile:
    if options.hdu is not None or options.redshifts is not None:
        raise bad(name, "hdu and redshifts are for FITS files, and it is none", "leave them out")
    table = formats.read_table_content(content, name, suffix=suffix)
    columns = tables.of_arrow(table, name)
    return replace(tables.read(columns, options, _stem(name)), source=name)
