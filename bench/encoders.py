"""What it costs to encode a picture: processor time, bytes, and whether other threads may go on meanwhile.

    python -m bench.encoders [--zip cifar10-train.zip] [--rounds N] [--format png]...

Compares what the service uses with other libraries that are well kept and come as wheels. Those that the project does not need are
measured where they are installed, and named where they are not:

    pip install --target /tmp/encoders zlib-ng deflate opencv-python-headless imagecodecs 'pyvips[binary]' PyTurboJPEG
    PYTHONPATH=/tmp/encoders python -m bench.encoders
"""

import argparse
import importlib
import io
import json
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image, features
from sklearn.datasets import load_digits

from app.formats import FORMATS, format_with
from app.formats.png import COLOUR_TYPES, SIGNATURE, chunk

Pictures = NDArray[np.uint8]  # [n, H, W, C]
EncodeMany = Callable[[Pictures], list[bytes]]
Entry = tuple[str, str, EncodeMany]  # format, name, what encodes many

TOGETHER = 16  # pictures that are encoded at a time, as the service does
SAID = (
    '{"software":"ganvil 0.1.0","model":"digits:3",' + f'"sha256":"{"a" * 64}","dataset":"{"b" * 64}",' + '"seed":1234}'
)
OPTIONAL = ("zlib_ng.zlib_ng", "deflate", "cv2", "imagecodecs", "pyvips", "turbojpeg")


def digits(n: int) -> Pictures:
    """Scaled smoothly from 8 to 28 pixels, as a generator of handwritten digits makes them: gray."""
    small = load_digits().images[:n] * (255 / 16)
    scaled = [Image.fromarray(each.astype(np.uint8)).resize((28, 28), Image.Resampling.BICUBIC) for each in small]
    return np.stack([np.asarray(each) for each in scaled])[..., np.newaxis]


def noise(n: int, side: int) -> Pictures:
    """Colours that change smoothly, with a little grain: what the pictures of a generator are to an encoder."""
    generator = np.random.default_rng(side)
    found = np.empty((n, side, side, 3), np.uint8)
    for picture in found:
        coarse = generator.integers(0, 256, (max(4, side // 6), max(4, side // 6), 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
        picture[:] = np.clip(smooth + generator.normal(0, 2, smooth.shape), 0, 255)
    return found


def from_archive(path: str, n: int) -> Pictures:
    """Real ones, spread over an archive of pictures of one size."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith((".png", ".jpg"))]
        files = [archive.read(name) for name in names[:: max(1, len(names) // n)][:n]]
    return np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in files])


def filtered(pictures: Pictures, kind: str) -> Pictures:
    """Rows behind their PNG filter's number, for many pictures at once."""
    n, height, width, channels = pictures.shape
    x = pictures.reshape(n, height, -1)
    rows = np.empty((n, height, 1 + width * channels), np.uint8)
    rows[:, :, 0] = ("none", "sub", "up", "average", "paeth").index(kind)
    left, above, corner = np.zeros((3, *x.shape), np.uint8)
    left[:, :, channels:], above[:, 1:], corner[:, 1:, channels:] = (
        x[:, :, :-channels],
        x[:, :-1],
        x[:, :-1, :-channels],
    )
    if kind == "none":
        guess = np.zeros_like(x)
    elif kind == "average":
        guess = (left & above) + ((left ^ above) >> 1)
    elif kind == "paeth":
        a, b, c = (each.astype(np.int16) for each in (left, above, corner))
        to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
        guess = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, above, corner))
    else:
        guess = left if kind == "sub" else above
    np.subtract(x, guess, out=rows[:, :, 1:])
    return rows


def contained(deflate: Callable[[Any], bytes], kind: str) -> EncodeMany:
    """A PNG around any library's deflate."""

    def encode(pictures: Pictures) -> list[bytes]:
        _, height, width, channels = pictures.shape
        header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
        head, end = SIGNATURE + chunk(b"IHDR", header), chunk(b"IEND", b"")
        return [head + chunk(b"IDAT", deflate(rows)) + end for rows in filtered(pictures, kind)]

    return encode


def each(encode: Callable[[NDArray[np.uint8]], bytes]) -> EncodeMany:
    return lambda pictures: [encode(picture) for picture in pictures]


def through_pillow(name: str, **options: Any) -> EncodeMany:
    def encode(picture: NDArray[np.uint8]) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(buffer, name, **options)
        return buffer.getvalue()

    return each(encode)


def installed() -> dict[str, Any]:
    """The libraries that only this bench knows. Says which are missing."""
    found = {}
    for name in OPTIONAL:
        try:
            found[name] = importlib.import_module(name)
        except (ImportError, OSError) as error:
            print(f"not measured: {name} ({error})")
    return found


def ours() -> Iterator[Entry]:
    """What the service does, by itself, together, and with provenance."""
    webp = {"webp 80": format_with("webp", quality=80)}
    for name, entry in (FORMATS | webp).items():
        if name != "raw":
            yield name, f"ours: {entry.encoder}", entry.encode_many
            yield name, "ours, one by one", each(entry.encode)
            yield name, "ours, with provenance", lambda x, entry=entry: entry.encode_many(x, [SAID] * len(x))


def others() -> Iterator[Entry]:
    """Of what the project has installed anyway."""
    for level in (0, 1, 6):
        yield "png", f"pillow level {level}", through_pillow("PNG", compress_level=level)
    for kind in ("none", "sub", "up", "average", "paeth"):
        yield "png", f"zlib level 1 {kind}", contained(lambda rows: zlib.compress(rows, 1), kind)
        yield "png", f"isal level 1 {kind}", contained(lambda rows: isal_zlib.compress(rows, 1), kind)
    for level in (0, 2):
        yield (
            "png",
            f"isal level {level} up",
            contained(lambda rows, level=level: isal_zlib.compress(rows, level), "up"),
        )
    yield "jpeg", "pillow", through_pillow("JPEG", quality=90, subsampling="4:4:4")
    for method in (0, 1, 4):
        lossless = {"lossless": True, "quality": 0, "exact": True}
        yield "webp", f"pillow method {method}", through_pillow("WEBP", method=method, **lossless)
        yield "webp 80", f"pillow method {method}", through_pillow("WEBP", method=method, quality=80)
    for speed in (10, 8, 6) if features.check("avif") else ():
        options = {"quality": 75, "subsampling": "4:4:4", "max_threads": 1}
        yield "avif", f"pillow speed {speed}", through_pillow("AVIF", speed=speed, **options)


def foreign(libraries: dict[str, Any]) -> Iterator[Entry]:
    """Of what is installed for this bench."""
    if ng := libraries.get("zlib_ng.zlib_ng"):
        for level in (1, 2):
            yield "png", f"zlib-ng level {level} up", contained(lambda x, level=level: ng.compress(x, level), "up")
    if libdeflate := libraries.get("deflate"):
        yield "png", "libdeflate level 1 up", contained(lambda x: bytes(libdeflate.zlib_compress(x.tobytes(), 1)), "up")
    if cv2 := libraries.get("cv2"):
        yield from through_opencv(cv2)
    if codecs := libraries.get("imagecodecs"):
        yield "png", "imagecodecs level 1", each(lambda x: codecs.png_encode(x.squeeze(), level=1))
        yield "jpeg", "imagecodecs", each(lambda x: codecs.jpeg8_encode(x.squeeze(), level=90, subsampling="444"))
        yield "webp", "imagecodecs method 0", each(lambda x: codecs.webp_encode(x, lossless=True, method=0, level=0))
        yield (
            "avif",
            "imagecodecs speed 10",
            each(lambda x: codecs.avif_encode(x.squeeze(), level=75, speed=10, numthreads=1)),
        )
    if vips := libraries.get("pyvips"):
        yield "png", "pyvips level 1", each(lambda x: vips.Image.new_from_array(x).pngsave_buffer(compression=1))
    if turbo := libraries.get("turbojpeg"):
        yield from through_turbojpeg(turbo)


def through_turbojpeg(turbo: Any) -> Iterator[Entry]:
    """It comes without the library that it calls."""
    try:
        library = turbo.TurboJPEG()
    except (RuntimeError, OSError) as error:
        print(f"not measured: PyTurboJPEG ({str(error).splitlines()[0]})")
        return
    formats = {1: turbo.TJPF_GRAY, 3: turbo.TJPF_RGB}
    sampling = {1: turbo.TJSAMP_GRAY, 3: turbo.TJSAMP_444}
    yield "jpeg", "PyTurboJPEG", each(lambda x: library.encode(x, 90, formats[x.shape[2]], sampling[x.shape[2]]))


def through_opencv(cv2: Any) -> Iterator[Entry]:
    """It takes BGR, which costs a copy."""

    def encode(extension: str, *options: int) -> EncodeMany:
        def one(x: NDArray[np.uint8]) -> bytes:
            swapped = x if x.shape[2] == 1 else cv2.cvtColor(x, cv2.COLOR_RGB2BGR)
            return bytes(cv2.imencode(extension, swapped, options)[1])

        return each(one)

    full = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    yield "png", "opencv level 1", encode(".png", cv2.IMWRITE_PNG_COMPRESSION, 1)
    yield "jpeg", "opencv", encode(".jpg", cv2.IMWRITE_JPEG_QUALITY, 90, *full)
    yield "webp", "opencv", encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 101)
    yield "webp 80", "opencv", encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 80)


def measure(encode: EncodeMany, pictures: Pictures, rounds: int) -> dict[str, float]:
    """Best of the rounds, after one that warms up: others may use this machine."""
    parts = [pictures[start : start + TOGETHER] for start in range(0, len(pictures), TOGETHER)]

    def work() -> int:
        return sum(len(data) for part in parts for data in encode(part))

    def timed() -> float:
        begun = time.thread_time()
        work()
        return time.thread_time() - begun

    size = work()
    busy = min(timed() for _ in range(rounds))
    return {"microseconds": round(busy / len(pictures) * 1e6, 1), "bytes": round(size / len(pictures))}


def silence(encode: EncodeMany) -> float:
    """The longest time that another thread gets no turn while one large picture is encoded, as a share of the encoding: near 1
    where the interpreter's lock is held all the while, near 0 where it is released. The best of three, for others may use this machine.
    """
    large = noise(1, 1536)
    found = []
    for _ in range(3):
        turns, ended = [time.perf_counter()], threading.Event()

        def take(turns: list[float] = turns, ended: threading.Event = ended) -> None:
            while not ended.wait(0.0005):
                turns.append(time.perf_counter())

        other = threading.Thread(target=take)
        other.start()
        begun = time.perf_counter()
        encode(large)
        end = time.perf_counter()
        ended.set()
        other.join()
        during = [begun, *(turn for turn in turns if begun < turn < end), end]
        found.append(max(after - before for before, after in pairwise(during)) / (end - begun))
    return round(min(found), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--zip", help="an archive of small pictures of one size, beside those that are made up")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--format", action="append", help="png, jpeg, webp, 'webp 80' or avif; may be repeated")
    options = parser.parse_args()
    sets = {"28 gray": digits(128), "32 RGB": noise(128, 32), "64 RGB": noise(64, 64), "256 RGB": noise(8, 256)}
    if options.zip:
        sets[options.zip.rpartition("/")[2]] = from_archive(options.zip, 128)
    entries = [*ours(), *others(), *foreign(installed())]
    names = list(dict.fromkeys(name for name, _, _ in entries))
    rows = []
    for name, label, encode in entries:
        if name not in (options.format or names):
            continue
        print(f"\n{name}, {label}; longest silence of another thread: {(silent := silence(encode))}")
        for source, pictures in sets.items():
            if source == "28 gray" and label == "imagecodecs method 0":  # it takes no gray
                continue
            found = measure(encode, pictures[:16] if name == "avif" else pictures, options.rounds)
            rows.append({"format": name, "encoder": label, "pictures": source} | found | {"silence": silent})
            print(f"  {source:<24}{found['microseconds']:>10} microseconds{found['bytes']:>9} bytes", flush=True)
    print(json.dumps({"bench": "encoders", "rounds": options.rounds, "rows": rows}))


if __name__ == "__main__":
    main()
