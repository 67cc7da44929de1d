"""Pictures that somebody made to break a reader, and odd ones that are fine, by name; nothing here is large."""

import bz2
import gzip
import io
import struct
import zlib

import numpy as np
from astropy.io import fits
from PIL import Image

GENERATOR = np.random.default_rng(11)
PIXELS = GENERATOR.integers(0, 256, (24, 40, 3), dtype=np.uint8)
FLUX = GENERATOR.normal(size=(24, 40)).astype(np.float32)


def encoded(pixels=PIXELS, kind="PNG", **options):
    """Return a picture as Pillow writes it."""
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, kind, **options)
    return stream.getvalue()


def fits_file(*units):
    """Return a FITS file as astropy writes it."""
    stream = io.BytesIO()
    fits.HDUList(list(units)).writeto(stream)
    return stream.getvalue()


def header(*cards, data=b""):
    """Return a FITS unit of raw cards."""
    text = b"".join(card.encode("latin-1").ljust(80)[:80] for card in (*cards, "END"))
    return text.ljust(-(-len(text) // 2880) * 2880) + data


def card(key, value):
    """Return a card of a number, text or logical."""
    return f"{key:8}= {value!s:>20}"


def image_header(bitpix, *axes, data=b"", **more):
    """Return a primary image by its axes, whatever they say."""
    cards = [card("SIMPLE", "T"), card("BITPIX", bitpix), card("NAXIS", len(axes))]
    cards += [card(f"NAXIS{n}", axis) for n, axis in enumerate(axes, 1)]
    return header(*cards, *(card(key, value) for key, value in more.items()), data=data)


def chunk(kind, data):
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, data=None, depth=8, color=2):
    """Return a PNG of a size whose rows are mostly zeros; `data` instead of what would be right."""
    if data is None:
        packer = zlib.compressobj(6)
        line = bytes(3 * width) + b"\x01"
        data = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    size = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def compressed(kind="RICE_1", *, change=(), data=None):
    """Return a tile-compressed FITS file with cards replaced."""
    data = GENERATOR.integers(0, 1000, (64, 64)).astype(np.int32) if data is None else data
    raw = fits_file(fits.PrimaryHDU(), fits.CompImageHDU(data, compression_type=kind, tile_shape=(16, 64)))
    cards = {raw[at : at + 8].strip().decode("latin-1"): raw[at : at + 80] for at in range(0, 12_000, 80)}
    for key, value in change:
        raw = raw.replace(cards[key], card(key, value).encode().ljust(80))
    return raw


def npy(text, data=b"\0" * 64):
    """Return a .npy file with a header of this text."""
    text = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def saved(array, **options):
    """Return an array as numpy saves it."""
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def tiff(*tags, data=b"\0" * 64):
    """Return a TIFF of raw tags (number, kind, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + data


def tiff_of(width, height, *more):
    """Return a gray TIFF of a size with further tags."""
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 200)}
    tags |= {277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, 64)} | {tag: rest for tag, *rest in more}
    return tiff(*((tag, *rest) for tag, rest in tags.items()))


def webp(width, height, *, kind=b"VP8X"):
    """Return a WebP of a size without a picture."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    data = {
        b"VP8X": b"\x02\0\0\0" + size,
        b"VP8L": b"\x2f" + struct.pack("<I", (width - 1 | height - 1 << 14) & 0xFFFFFFFF),
    }[kind]
    body = b"WEBP" + kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_of_size(width, height):
    """Return a JPEG that says it has a size."""
    raw = bytearray(encoded(kind="JPEG"))
    at = raw.index(b"\xff\xc0")
    raw[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(raw)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n(x) print quit\n%%EOF\n"
PRIMARY = header(card("SIMPLE", "T"), card("BITPIX", 8), card("NAXIS", 0), card("EXTEND", "T"))
EMPTY_UNIT = header("XTENSION= 'IMAGE   '", card("BITPIX", 8), card("NAXIS", 0), card("PCOUNT", 0), card("GCOUNT", 1))


def refused():
    """Return what must be refused, by name."""
    whole = {"jpeg": encoded(kind="JPEG"), "png": encoded(), "webp": encoded(kind="WEBP"), "tiff": encoded(kind="TIFF")}
    whole |= {"fits": fits_file(fits.PrimaryHDU(FLUX)), "rice": compressed(), "npy": saved(FLUX)}
    whole |= {"tiff lzw": encoded(kind="TIFF", compression="tiff_lzw")}
    cut = {
        f"{name} cut to {part}": raw[: len(raw) * part // 100] for name, raw in whole.items() for part in (5, 40, 70)
    }
    zipped = gzip.compress(whole["fits"])
    return {
        **cut,
        **{f"{name} cut to 9 bytes": raw[:9] for name, raw in whole.items()},
        "nothing": b"",
        "eps": EPS,
        "dos eps": b"\xc5\xd0\xd3\xc6" + struct.pack("<IIII", 30, len(EPS), 0, 0) + EPS,
        "pdf": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "gif": encoded(kind="GIF"),
        "bmp": encoded(kind="BMP"),
        "animated gif": encoded(kind="GIF", save_all=True, append_images=[Image.fromarray(PIXELS)] * 20),
        "ppm": encoded(kind="PPM"),
        "ico": encoded(kind="ICO"),
        "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 100,
        "html": b"<!DOCTYPE html><html><script>alert(1)</script>",
        "eps called png": b"\x89PNG\r\n\x1a\n" + EPS,
        "eps called jpeg": b"\xff\xd8\xff" + EPS,
        "png bomb": png(13_000, 13_000),
        "png of 2 billion squared": png(2_000_000_000, 2_000_000_000, data=b"x"),
        "png of no width": png(0, 10, data=zlib.compress(b"\0")),
        "png without data": png(64, 64, data=b""),
        "png with a chunk beyond its end": png(8, 8)[:33] + struct.pack(">I", 0x7FFFFFFF) + b"IDAT" + b"x" * 40,
        "png of depth 99": png(8, 8, depth=99),
        "png with a palette that is not there": png(8, 8, color=3),
        "webp of 16383 squared": webp(16_383, 16_383),
        "webp of 16 million squared": webp(1 << 24, 1 << 24),
        "webp lossless of 16383 squared": webp(16_383, 16_383, kind=b"VP8L"),
        "webp without a chunk": b"RIFF\x04\0\0\0WEBP",
        "jpeg of 65000 squared": jpeg_of_size(65_000, 65_000),
        "jpeg of no height": jpeg_of_size(40, 0),
        "tiff of 60000 squared": tiff_of(60_000, 60_000),
        "tiff of 4 billion squared": tiff_of(0xFFFFFFFF, 0xFFFFFFFF),
        "tiff with huge tiles": tiff_of(64, 64, (322, 4, 1, 1 << 30), (323, 4, 1, 1 << 30), (324, 4, 1, 8)),
        "tiff of old jpeg": tiff_of(64, 64, (259, 3, 1, 6)),
        "tiff of jpeg": tiff_of(64, 64, (259, 3, 1, 7)),
        "tiff of lzma": tiff_of(64, 64, (259, 3, 1, 34925)),
        "tiff with strips beyond its end": tiff_of(64, 64, (273, 4, 1, 1 << 31), (279, 4, 1, 1 << 31)),
        "tiff whose tags are a loop": b"II*\0" + struct.pack("<I", 8) + b"\0\0" + struct.pack("<I", 8),
        "tiff bomb": encoded(Image.new("L", (16_000, 11_000)), kind="TIFF", compression="tiff_adobe_deflate"),
        "gzip bomb": gzip.compress(bytes(image_header(8, 10_000, 10_000, 10, data=bytes(120_000_000))), 9),
        "bzip2 bomb": bz2.compress(image_header(8, 10_000, 12_000, data=bytes(120_000_000))),
        "gzip in gzip": gzip.compress(zipped),
        "gzip of a png": gzip.compress(encoded()),
        "gzip cut": zipped[:60],
        "gzip of nothing": gzip.compress(b""),
        "gzip with junk behind": zipped + b"junk" * 10,
        "naxis 999999999": header(card("SIMPLE", "T"), card("BITPIX", 8), card("NAXIS", 999_999_999)),
        "naxis -2": header(card("SIMPLE", "T"), card("BITPIX", 8), card("NAXIS", -2)),
        "naxis is text": header(card("SIMPLE", "T"), card("BITPIX", 8), card("NAXIS", "'two'")),
        "axes of 10 billion": image_header(8, 9_999_999_999, 9_999_999_999),
        "axes of 40 digits": image_header(8, 10**39, 10**39),
        "axes below 0": image_header(8, -10, -10, data=bytes(2880)),
        "axes of 0": image_header(8, 0, 0),
        "axes by nan": image_header(8, "NaN", 10, data=bytes(2880)),
        "bitpix 7": image_header(7, 8, 8, data=bytes(2880)),
        "bitpix is missing": header(card("SIMPLE", "T"), card("NAXIS", 2), card("NAXIS1", 8), card("NAXIS2", 8)),
        "bscale infinite": image_header(8, 8, 8, BSCALE="1E999", data=bytes(range(64)).ljust(2880)),
        "bscale is text": image_header(8, 8, 8, BSCALE="'x'", data=bytes(range(64)).ljust(2880)),
        "header without end": b"SIMPLE  =                    T".ljust(80) * 60_000,
        "header of nothing": b"SIMPLE  =" + bytes(5000),
        "header of bytes": b"SIMPLE  =                    T".ljust(80) + bytes(range(128, 256)) * 40,
        "pcount below 0": image_header(8, 8, 8, PCOUNT=-5, data=bytes(2880)),
        "pcount huge": image_header(8, 8, 8, PCOUNT=10**15, data=bytes(2880)),
        "5000 units": PRIMARY + EMPTY_UNIT * 5000,
        "no light": fits_file(fits.PrimaryHDU(), fits.ImageHDU(FLUX, name="WHT"), fits.ImageHDU(FLUX, name="MASK")),
        "a cube": fits_file(fits.PrimaryHDU(np.zeros((40, 8, 8), np.float32))),
        "only nan": fits_file(fits.PrimaryHDU(FLUX * np.nan)),
        "only infinite": fits_file(fits.PrimaryHDU(np.full((8, 8), np.inf))),
        "only zeros": fits_file(fits.PrimaryHDU(FLUX * 0)),
        "tiles of 40000 squared": compressed(change=[("ZNAXIS1", 40_000), ("ZNAXIS2", 40_000)]),
        "tiles of 4 billion": compressed(change=[("ZTILE1", 1 << 32), ("ZTILE2", 1 << 32)]),
        "tiles of 0": compressed(change=[("ZTILE1", 0)]),
        "tiles below 0": compressed(change=[("ZTILE1", -4)]),
        "tiles in blocks of 0": compressed(change=[("ZVAL1", 0)]),
        "tiles in blocks of a billion": compressed(change=[("ZVAL1", 10**9)]),
        "tiles of 3 bytes": compressed(change=[("ZVAL2", 3)]),
        "tiles of hcompress": compressed("HCOMPRESS_1"),
        "tiles of plio": compressed("PLIO_1"),
        "tiles of an unknown kind": compressed(change=[("ZCMPTYPE", "'NOPE    '")]),
        "tiles of zbitpix 7": compressed(change=[("ZBITPIX", 7)]),
        "tiles without a table": compressed(change=[("TFIELDS", 0)]),
        "tiles in a thousand columns": compressed(change=[("TFIELDS", 1000)]),
        "tiles in columns of a gigabyte": compressed(change=[("TFORM1", "'999999D '")]),
        "tiles from beyond the heap": compressed()[:-2880].replace(struct.pack(">i", 0), b"\x7f\xff\xff\xff", 40),
        "npy of objects": saved(np.array([{"a": 1}, None], dtype=object), allow_pickle=True),
        "npy that runs code": npy(
            "{'descr': '|O', 'fortran_order': False, 'shape': (2, 2), }", b"cos\nsystem\n(S'x'\ntR."
        ),
        "npy of 10 billion": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 100000), }"),
        "npy of a negative shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 4), }"),
        "npy of a shape of 60 digits": npy(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 60 + ", 2), }"
        ),
        "npy of records": saved(np.zeros(4, [("a", "f4")])),
        "npy of text": saved(np.array([["a", "b"], ["c", "d"]])),
        "npy of complex": saved(FLUX * 1j),
        "npy of one axis": saved(np.arange(9.0)),
        "npy of an unknown version": b"\x93NUMPY\x09" + saved(FLUX)[7:],
        "npy of a long header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"{" * 1000,
        "npy of brackets": npy("(" * 110),
        "npy with a header that is code": npy("__import__('os').system('true')"),
        "npy of 40 planes": saved(np.zeros((20, 8, 40))),
    }


def read():
    """Return odd pictures that must be read, by name."""
    exif = Image.Exif()
    exif[0x0112] = 6
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(30_000_000), 9))
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(30_000_000), 9))
    rgba = np.dstack([PIXELS, PIXELS[:, :, 0]])
    return {
        "cmyk": encoded(Image.fromarray(PIXELS).convert("CMYK"), kind="JPEG"),
        "16 bit": encoded(GENERATOR.integers(0, 65_535, (24, 40), dtype=np.uint16)),
        "palette": encoded(Image.fromarray(PIXELS).quantize(8)),
        "one bit": encoded(Image.fromarray(PIXELS).convert("1")),
        "transparent": encoded(rgba, kind="WEBP", lossless=True),
        "turned": encoded(kind="JPEG", exif=exif),
        "exif of junk": encoded(kind="JPEG", exif=b"Exif\0\0" + b"II*\0" + b"\xff" * 4000),
        "profile of junk": encoded(kind="JPEG", icc_profile=b"\xff" * 60_000),
        "xmp of junk": encoded(kind="JPEG", xmp=b"<x " * 20_000),
        "png with a text of 30 MB": png(24, 24, text),
        "png with a profile of 30 MB": png(24, 24, profile),
        "png with a thousand texts": png(24, 24, *[chunk(b"tEXt", b"k\0" + b"x" * 1000)] * 1000),
        "png with junk behind": png(24, 24) + EPS,
        "jpeg with junk behind": encoded(kind="JPEG") + EPS,
        "animated webp": encoded(kind="WEBP", save_all=True, append_images=[Image.fromarray(PIXELS[::-1])] * 30),
        "animated png": encoded(save_all=True, append_images=[Image.fromarray(PIXELS[::-1])] * 30),
        "tiff of two pages": encoded(kind="TIFF", save_all=True, append_images=[Image.fromarray(PIXELS[::-1])]),
        "some nan and infinite": fits_file(
            fits.PrimaryHDU(np.where(FLUX > 1, np.inf, np.where(FLUX < -1, np.nan, FLUX)))
        ),
        "values beyond float32": fits_file(fits.PrimaryHDU(np.where(FLUX > 1, 1e300, FLUX.astype(float)))),
        "fits with junk behind": fits_file(fits.PrimaryHDU(FLUX)) + b"junk" * 999,
        "fits with a wcs of junk": fits_file(
            fits.PrimaryHDU(FLUX, fits.Header({"CTYPE1": "RA---SIP", "A_ORDER": 10**9}))
        ),
        "900 units": PRIMARY + EMPTY_UNIT * 900 + fits_file(fits.PrimaryHDU(), fits.ImageHDU(FLUX))[2880:],
        "gzip tiles": compressed("GZIP_1"),
        "npy of bytes": saved(PIXELS),
        "npy by columns": saved(np.asfortranarray(FLUX)),
        "gzip in two members": gzip.compress(fits_file(fits.PrimaryHDU(FLUX))[:2880])
        + gzip.compress(fits_file(fits.PrimaryHDU(FLUX))[2880:]),
    }
