"""Hostile files, each made by code, each with the end that the contract gives it."""

from __future__ import annotations

import gzip
import io
import os
import socket
import stat
import struct
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from daemon.reading.decode import FORMATS
from tests.faults.harness import chunk, png

ANSWERED, STAYS = "answered", "stays"  # the other ends are the slugs of rejections
REFUSED_DAMAGED = ("truncated", "not_an_image")
BROKEN = (*REFUSED_DAMAGED, "decoder_crashed", "unsupported_format")
CLAIMS = ("too_many_pixels", *BROKEN)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Hostile:
    """One file that means harm.

    Attributes:
        title: what it is; also the test's name.
        make: puts it at a path.
        ends: what may become of it: ANSWERED, STAYS (in the inbox), or slugs of rejections.
        name: the name to drop it under, as bytes.
        needs_root: it cannot be made otherwise.
        slow: it takes its whole time limit; left out of the short run.

    """

    title: str
    make: Callable[[Path], None]
    ends: tuple[str, ...]
    name: bytes = b"a.png"
    needs_root: bool = False
    slow: bool = False


def content(data: bytes) -> Callable[[Path], None]:
    """A plain file of these bytes."""
    return lambda path: void(path.write_bytes(data))


def void(_: object) -> None:
    """Forget what a call returned."""


def digit(side: int = 28) -> np.ndarray:
    """A one, (side, side) uint8, ink 255 on paper 0."""
    pixels = np.zeros((side, side), np.uint8)
    pixels[side // 5 : -side // 5, side // 2 - side // 14 : side // 2 + side // 14] = 255
    return pixels


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    """A picture in a format of Pillow's."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def picture(mode: str = "L", side: int = 28) -> Image.Image:
    """A one, in any mode of Pillow's."""
    return Image.fromarray(digit(side)).convert(mode)


def png_of(width: int, height: int, rows: bytes, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG from its filtered rows, with chunks of one's own before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return SIGNATURE + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def strip(width: int, height: int) -> bytes:
    """A PNG of one row or one column, with a little ink in its middle."""
    rows = bytearray((width + 1) * height)
    middle = len(rows) // 2 | 1
    rows[middle : middle + 9] = b"\xff" * 9 if height == 1 else b"\xff\0" * 4 + b"\xff"
    return png_of(width, height, bytes(rows))


def pixel_bomb() -> bytes:
    """30,000 x 30,000 pixels in about 1 MB."""
    compressor = zlib.compressobj(9)
    row = bytes(30_001)
    body = b"".join(compressor.compress(row) for _ in range(30_000)) + compressor.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0))
    return SIGNATURE + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def compressed_zeros(megabytes: int) -> bytes:
    """A zlib stream that unpacks to so much."""
    compressor = zlib.compressobj(9)
    return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(megabytes)) + compressor.flush()


def text_bomb() -> bytes:
    """A PNG whose comment unpacks to 1 GB."""
    whole = png(1)
    return whole[:33] + chunk(b"zTXt", b"Comment\0\0" + compressed_zeros(1024)) + whole[33:]


def profile_bomb() -> bytes:
    """A PNG whose colour profile unpacks to 1 GB."""
    whole = png(2)
    return whole[:33] + chunk(b"iCCP", b"profile\0\0" + compressed_zeros(1024)) + whole[33:]


def many_scans(scans: int = 15_000, side: int = 2048) -> bytes:
    """A progressive JPEG that refines one coefficient band again and again: seconds of CPU in a few hundred KB."""
    whole = encode(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    start = whole.index(b"\xff\xda")  # the first scan; an empty one of the same kind follows the last
    scan_header = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 63, 0)
    table = b"\xff\xc4" + struct.pack(">HB", 2 + 1 + 16 + 2, 0x10) + bytes([1, 1] + [0] * 14) + bytes([0x00, 0xE0])
    blocks = (side // 8) ** 2
    body = scan_bytes(blocks)
    return whole[:start] + dc_scan(whole) + table + (scan_header + body) * scans + b"\xff\xd9"


def dc_scan(whole: bytes) -> bytes:
    """The first scan of a progressive JPEG, which holds the means of all blocks."""
    start = whole.index(b"\xff\xda")
    end = start + 2
    while not (whole[end] == 0xFF and whole[end + 1] not in (0, *range(0xD0, 0xD8))):
        end += 1
    return whole[start:end]


def scan_bytes(blocks: int) -> bytes:
    """Entropy-coded data saying "these blocks change nothing": runs of ends-of-band, of 2^14 + r blocks each."""
    bits = ""
    while blocks:
        run = min(blocks, (1 << 15) - 1)
        size = run.bit_length() - 1
        if size != 14:  # code 0: the end of one band
            bits += "0" * 1
            blocks -= 1
            continue
        bits += "10" + format(run - (1 << 14), "014b")
        blocks -= run
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def webp_bomb() -> bytes:
    """16,383 x 10,900 pixels of one colour, lossless, in about 200 bytes: built, not encoded, which would take gigabytes."""
    bits = format_bits([(0x2F, 8), (16_382, 14), (10_899, 14), (0, 1), (0, 3), (0, 1), (0, 1), (0, 1)])
    for _ in range(5):  # five prefix codes of one symbol each: no bits a pixel
        bits += format_bits([(1, 1), (0, 1), (0, 1), (0, 1)])
    bits += "0" * (-len(bits) % 8)
    body = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8)) + bytes(8)
    block = b"VP8L" + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(block)) + b"WEBP" + block


def format_bits(values: list[tuple[int, int]]) -> str:
    """Values as bits, least significant first."""
    return "".join(format(value, f"0{width}b")[::-1] for value, width in values)


def animated(kind: str, frames: int = 3) -> bytes:
    """A film of a digit."""
    pictures = [Image.fromarray(np.roll(digit(), shift, 1)) for shift in range(frames)]
    return encode(pictures[0].convert("RGB"), kind, save_all=True, append_images=[p.convert("RGB") for p in pictures[1:]])


def claiming(kind: str, box: bytes, offset: int) -> bytes:
    """A picture whose header says 40,000 x 40,000: two words of 32 bits, so far behind the name of a box."""
    whole = bytearray(encode(picture("RGB", 64), kind))
    struct.pack_into(">II", whole, whole.index(box) + len(box) + offset, 40_000, 40_000)
    return bytes(whole)


def wide_jpeg_2000() -> bytes:
    """7,000 x 7,000 pixels of one colour, which at full scale take more than a decoder's memory, in a few KB."""
    return encode(Image.new("RGB", (7000, 7000), "white"), "JPEG2000")


def looping_tiff() -> bytes:
    """A TIFF whose second page points back to its first."""
    whole = bytearray(encode(picture(), "TIFF"))
    (first,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, first)
    struct.pack_into("<I", whole, first + 2 + 12 * count, first)
    return bytes(whole)


def endless_tiff(pages: int = 200_000) -> bytes:
    """A TIFF of very many empty pages."""
    entry = struct.pack("<H", 1) + struct.pack("<HHII", 256, 3, 1, 28)
    size = len(entry) + 4
    chain = b"".join(entry + struct.pack("<I", 8 + size * (page + 1)) for page in range(pages - 1)) + entry + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + chain


def float_tiff(*values: float) -> bytes:
    """A TIFF of 32-bit floats with some values that are no numbers."""
    pixels = digit().astype(np.float32)
    pixels.flat[: len(values)] = values
    return encode(Image.fromarray(pixels), "TIFF")


def sparse(size: int) -> Callable[[Path], None]:
    """A file that claims to be large and is nothing but holes."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.write(SIGNATURE)
            file.truncate(size)

    return make


def named_socket(path: Path) -> None:
    """A socket that nobody listens on; its path is too long for bind(2), so it is made beside and moved."""
    short = Path("/tmp") / f"s{os.getpid()}"  # noqa: S108 -- moved away in the next line
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(short))
    subprocess.run(["mv", str(short), str(path)], check=True)


def device(path: Path) -> None:
    """An endless source of bytes."""
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero


def unreadable(path: Path) -> None:
    """A good image that its owner alone may read, and not even that."""
    path.write_bytes(png(3))
    path.chmod(0)


def immutable(path: Path) -> None:
    """A good image that not even root may move."""
    path.write_bytes(png(4))
    subprocess.run(["chattr", "+i", str(path)], check=True)


def folder_like_a_file(path: Path) -> None:
    """A folder with the name of an image."""
    path.mkdir()


def deep_folders(path: Path) -> None:
    """An image below 1,500 nested folders, which no path can name in one piece."""
    here = os.open(path.parent, os.O_RDONLY)
    name = path.name
    for _ in range(1500):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, name = below, "d"
    with open("a.png", "wb", opener=lambda file, flags: os.open(file, flags, dir_fd=here)) as file:
        file.write(png(5))
    os.close(here)


def link_to(target: str) -> Callable[[Path], None]:
    """A symlink."""
    return lambda path: path.symlink_to(target)


def truncated_at_every_place(kind: str) -> list[Hostile]:
    """One file cut at its signature, in its header, in its middle, and just before its end."""
    side = 64
    whole = encode(picture("RGB", side), kind)
    places = {"signature": 6, "header": 20, "middle": len(whole) // 2, "tail": len(whole) - 14}
    return [
        Hostile(f"{kind} cut in its {where}", content(whole[:at]), (*BROKEN, ANSWERED) if where == "tail" else BROKEN)
        for where, at in places.items()
    ]


def all_hostile() -> list[Hostile]:
    """Every file of the suite."""
    html = b"<!DOCTYPE html><html><body>Not Found</body></html>"
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n(/etc/passwd) (r) file\n"
    damaged = [hostile for kind in FORMATS for hostile in truncated_at_every_place(kind)]
    return [
        *damaged,
        Hostile("empty file", content(b""), ("not_an_image",)),
        Hostile("JPEG named .png", content(encode(picture(), "JPEG")), (ANSWERED,)),
        Hostile("no ending", content(png(6)), (ANSWERED,), b"image"),
        Hostile("EPS", content(eps), ("not_an_image",)),
        Hostile("SVG", content(svg), ("not_an_image",)),
        Hostile("PDF", content(b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"), ("not_an_image",)),
        Hostile("HTML", content(html), ("not_an_image",)),
        Hostile("gzip", content(gzip.compress(png(7))), ("not_an_image",)),
        Hostile("random bytes", content(bytes(range(256)) * 64), ("not_an_image",)),
        Hostile("pixel bomb", lambda path: void(path.write_bytes(pixel_bomb())), ("too_many_pixels",), slow=True),
        Hostile("pixel bomb by header alone", content(png_of(100_000, 100_000, b"")), ("too_many_pixels",)),
        Hostile("pixels just within the limit", content(png_of(7000, 7000, bytes(7001) * 7000)), ("blank",)),
        Hostile("zTXt bomb", lambda path: void(path.write_bytes(text_bomb())), ("truncated", "decoder_crashed"), slow=True),
        Hostile("iCCP bomb", lambda path: void(path.write_bytes(profile_bomb())), ("truncated", ANSWERED), slow=True),
        Hostile("JPEG of 15,000 scans", lambda path: void(path.write_bytes(many_scans())), ("too_slow",), slow=True),
        Hostile("WebP of 16383 x 10900", content(webp_bomb()), ("too_many_pixels", "truncated", "not_an_image")),
        Hostile("APNG", content(animated("PNG")), ("animated",)),
        Hostile("animated GIF", content(animated("GIF")), ("animated",)),
        Hostile("animated WebP", content(animated("WEBP")), ("animated",)),
        Hostile("animated AVIF", content(animated("AVIF")), ("animated",)),
        Hostile("HEIC of three pictures", content(animated("HEIF")), ("animated",)),
        Hostile("HEIC that claims 40,000 x 40,000", content(claiming("HEIF", b"ispe", 4)), CLAIMS),
        Hostile("AVIF that claims 40,000 x 40,000", content(claiming("AVIF", b"ispe", 4)), CLAIMS),
        Hostile(
            "JPEG 2000 that claims 40,000 x 40,000", content(claiming("JPEG2000", b"ihdr", 0)), ("too_many_pixels", *BROKEN)
        ),
        Hostile("JPEG 2000 with pixels just within the limit", content(wide_jpeg_2000()), ("blank", *BROKEN)),
        Hostile("PNM by header alone", content(b"P5 100000 100000 255\n"), ("too_many_pixels",)),
        Hostile("PNM without pixels", content(b"P6 7000 7000 255\n"), ("truncated",)),
        Hostile("PNM in words", content(b"P2 28 28 255 " + b"zero " * 784), ("truncated",)),
        Hostile("film named .heic", content(b"\0\0\0\x18ftypisom\0\0\2\0isommp42" + bytes(64)), ("not_an_image",)),
        Hostile("TIFF of three pages", content(animated("TIFF")), ("animated",)),
        Hostile("TIFF whose pages loop", content(looping_tiff()), ("animated", ANSWERED, *BROKEN)),
        Hostile("TIFF of 200,000 pages", content(endless_tiff()), ("animated", "too_slow", *BROKEN), slow=True),
        Hostile("16-bit PNG", content(encode(Image.fromarray(digit().astype(np.uint16) * 257), "PNG")), (ANSWERED,)),
        Hostile("CMYK JPEG", content(encode(picture("CMYK"), "JPEG")), (ANSWERED,)),
        Hostile("float TIFF", content(float_tiff()), (ANSWERED,)),
        Hostile("float TIFF with NaN", content(float_tiff(np.nan, np.nan)), (ANSWERED, "blank", *BROKEN)),
        Hostile("float TIFF with infinities", content(float_tiff(np.inf, -np.inf)), (ANSWERED, "blank", *BROKEN)),
        Hostile("palette with alpha", content(encode(picture("P"), "PNG", transparency=0)), (ANSWERED, "blank")),
        Hostile("one pixel", content(png_of(1, 1, b"\0\xff")), ("blank",)),
        Hostile("one row of 65,535", content(strip(65_535, 1)), (ANSWERED, "blank")),
        Hostile("one column of 65,535", content(strip(1, 65_535)), (ANSWERED, "blank")),
        Hostile("blank page", content(encode(Image.new("L", (600, 800), 255), "PNG")), ("blank",)),
        Hostile("FIFO", os.mkfifo, ("not_a_regular_file",)),
        Hostile("socket", named_socket, ("not_a_regular_file",)),
        Hostile("device", device, ("not_a_regular_file",), needs_root=True),
        Hostile("link to /etc/passwd", link_to("/etc/passwd"), ("not_a_regular_file",)),
        Hostile("link to itself", link_to("a.png"), ("not_a_regular_file",)),
        Hostile("link to a folder", link_to("/etc"), ("not_a_regular_file",)),
        Hostile("link to nothing", link_to("/nonexistent"), ("not_a_regular_file",)),
        Hostile("folder named a.png", folder_like_a_file, (STAYS,)),
        Hostile("1,500 nested folders", deep_folders, (STAYS,)),
        Hostile("immutable file", immutable, (STAYS,), needs_root=True),
        Hostile("100 GB of holes", sparse(100 << 30), ("too_large",)),
        Hostile("name of 255 bytes", content(png(8)), (ANSWERED,), b"n" * 251 + b".png"),
        Hostile("name of 255 bytes without ending", content(png(9)), (ANSWERED,), "ß".encode() * 127),
        Hostile("name of one long ending", content(png(10)), (ANSWERED,), b"a." + b"e" * 253),
        Hostile("name with a newline", content(png(11)), (ANSWERED,), b"a\nb.png"),
        Hostile("name with quotes", content(png(12)), (ANSWERED,), b"a\"';$(id)`.png"),
        Hostile("name that is not UTF-8", content(png(13)), (ANSWERED,), b"\xff\xfe\x80.png"),
        Hostile("name of control characters", content(png(14)), (ANSWERED,), b"\x01\x1b[2J\x7f.png"),
        Hostile("name like an option", content(png(15)), (ANSWERED,), b"--help.png"),
        Hostile("name like a result", content(png(16)), (ANSWERED,), b"a.png.json"),
    ]
