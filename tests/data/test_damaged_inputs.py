"""Damaged and hostile inputs: each ends in a clear error or in sound records, and nothing outside is touched."""

import json
import re
import resource
import shutil
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import test_format_csxa
import test_format_mendeley
from PIL import ImageFile
from scipy.io import savemat
from shared_data import field_case

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data import film_file
from vertebra_kp.data.film_file import MAX_PIXELS
from vertebra_kp.data.images import FilmError, read_film
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources import read_records
from vertebra_kp.data.sources.matlab import read_matrix
from vertebra_kp.data.writers import WRITERS

LATERAL, WHOLE = SCHEMAS["la_lumbar"], SCHEMAS["ap_whole_spine"]
SIZE = (64, 48)
LONGEST_MESSAGE = 40_000  # characters: fifty problems, each with what was found
MEMORY = 300 * 2**20  # bytes that all damaged inputs together may add to the process
TIMES = 2  # each damage is done at so many places

# --- sound folders --------------------------------------------------------------------------------------


def phantom(i, schema=LATERAL):
    return draw_film(schema, "standard", 7, i, SIZE)


def write_format(folder, name):
    films = []
    for i in range(2):
        film = phantom(i)
        cv2.imwrite(str(folder / f"film {i}.png"), film.image)
        films.append(LabelledFilm(f"film {i}.png", SIZE, LATERAL, film.points_xy_image, film.states, f"P{i}", 0.2))
    WRITERS[name](films, folder)


def write_aasce(folder):
    for part in ("data", "labels"):
        (folder / part / "training").mkdir(parents=True)
    for i in range(2):
        name = f"sunhl-1th-01-Jan-2017-{i} A AP.jpg"
        film = phantom(i, WHOLE)
        cv2.imwrite(str(folder / "data" / "training" / name), film.image)
        savemat(folder / "labels" / "training" / f"{name}.mat", {"p2": film.points_xy_image.reshape(68, 2)})


def write_buu_lspine(folder):
    (folder / "LA").mkdir()
    for i in range(2):
        film = phantom(i)
        cv2.imwrite(str(folder / "LA" / f"000{i}-F-030Y1.jpg"), film.image)
        ends = film.points_xy_image.reshape(-1, 4)[:11]
        (folder / "LA" / f"000{i}-F-030Y1.csv").write_text("".join(",".join(map(str, e)) + "\n" for e in ends))


def write_csxa(folder):
    for name in ("0001035", "0002040"):
        test_format_csxa.save(folder, test_format_csxa.document(test_format_csxa.shapes()), name)


def write_mendeley(folder):
    spine = test_format_mendeley.spine(6)
    test_format_mendeley.save(folder, test_format_mendeley.as_json(spine))
    test_format_mendeley.save(folder, test_format_mendeley.as_text(spine), "N24-a")


SOURCES = {name: (lambda folder, name=name: write_format(folder, name), LATERAL) for name in sorted(WRITERS)}
SOURCES |= {"aasce": (write_aasce, WHOLE), "buu_lspine": (write_buu_lspine, LATERAL)}
SOURCES |= {"csxa": (write_csxa, SCHEMAS["la_cervical"]), "mendeley": (write_mendeley, LATERAL)}


def marked(folder, file, content):
    """Two films in films/ with ``content`` as the entry of both."""
    (folder / "films").mkdir()
    for i in range(2):
        cv2.imwrite(str(folder / "films" / f"film {i}.png"), np.zeros(SIZE, np.uint8))
    (folder / file).write_text(json.dumps({f"film {i}.png": content for i in range(2)}))


MARKS = {
    "centres": ("centres.json", {"centres": {"L1": [9, 8.5], "S1": [9, 60]}, "note": "faint"}, LATERAL),
    "corners": ("corners.json", {"anterior": "right", "levels": {"L1": {"SA": [9, 8.5], "IP": [3, 9]}}}, LATERAL),
    "lateral_whole": ("points.json", {"size": list(SIZE), "points": {"L1TF": [9, 8.5]}}, LATERAL),
    "spinal_ai2024": ("quads.json", {"quads": [[1, y, 9, y, 1, y + 4, 9, y + 4] for y in (1, 9, 17)]}, WHOLE),
}
for name, (file, content, schema) in MARKS.items():
    SOURCES[name] = (lambda folder, file=file, content=content: marked(folder, file, content), schema)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder of two films and their labels in every format, and the labels' files."""
    folders = {}
    for name, (write, schema) in SOURCES.items():
        folder = tmp_path_factory.mktemp(name)
        write(folder)
        assert len(read_records(name, folder, schema)) == 2, "the sound folder is read"
        folders[name] = folder
    return folders


def label_files(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".xml", ".csv", ".mat", ".txt"))


# --- damages: bytes of a label file, a random generator -> bytes ----------------------------------------


def cut_off(content, rng):
    return content[: rng.integers(1, len(content))]


def emptied(content, rng):
    return b""


def bits_flipped(content, rng):
    damaged = bytearray(content)
    for at in rng.integers(0, len(damaged), 8):
        damaged[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(damaged)


def piece_gone(content, rng):
    start = int(rng.integers(0, len(content)))
    return content[:start] + content[start + int(rng.integers(1, 200)) :]


def piece_twice(content, rng):
    start = int(rng.integers(0, len(content)))
    piece = content[start : start + int(rng.integers(20, 400))]
    return content[:start] + piece + content[start:]


def zeros_inside(content, rng):
    start = int(rng.integers(0, len(content)))
    return content[:start] + bytes(64) + content[start + 64 :]


def not_text(content, rng):
    return rng.integers(0, 256, 3000, dtype=np.uint8).tobytes()


def another_format(content, rng):
    return b"\x89PNG\r\n\x1a\n" + content


def another_encoding(content, rng):
    return b"\xff\xfe" + content.decode("latin-1").encode("utf-16-le")


def deeply_nested(content, rng):
    return b"[" * 200_000 + b"]" * 200_000


def another_number(content, rng):
    """One number of a text becomes one that no film has."""
    numbers = list(re.finditer(rb"(?<![\w.])-?\d+\.?\d*", content))
    if not numbers:
        return emptied(content, rng)
    chosen = numbers[int(rng.integers(0, len(numbers)))]
    other = [b"NaN", b"1e308", b"-1e9", b"Infinity", b"9" * 400, b"null", b'"7"', b"[]"][int(rng.integers(0, 8))]
    return content[: chosen.start()] + other + content[chosen.end() :]


def another_film(content, rng):
    """The films' names lead elsewhere."""
    names = [b"../outside/secret.png", b"/etc/passwd", b"..\\outside\\secret.png", b"link.png", b"x" * 5000]
    elsewhere = names[int(rng.integers(0, len(names)))]
    return re.sub(rb"(film \d\.png)", lambda match: elsewhere, content)


def another_value(content, rng):
    """One value of a JSON becomes one of another kind."""
    try:
        document = json.loads(content)
    except ValueError:
        return bits_flipped(content, rng)
    places = []

    def walk(value):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            places.append((value, key))
            walk(item)

    walk(document)
    holder, key = places[int(rng.integers(0, len(places)))]
    others = [None, True, -1, 1e308, "x", [], {}, "../../etc/passwd", "a\0b", [[[[1]]]], {"id": {}}]
    holder[key] = others[int(rng.integers(0, len(others)))]
    return json.dumps(document).encode()


DAMAGES = (
    cut_off, emptied, bits_flipped, piece_gone, piece_twice, zeros_inside, not_text, another_format,
    another_encoding, deeply_nested, another_number, another_film, another_value,
)  # fmt: skip


# --- what is opened meanwhile ---------------------------------------------------------------------------


class Opened:
    """Files that were opened while the block ran; an audit hook cannot be taken away, so there is one."""

    hooked = False
    current = None

    def __enter__(self):
        if not Opened.hooked:
            sys.addaudithook(Opened.hook)
            Opened.hooked = True
        self.paths = []
        Opened.current = self
        return self

    def __exit__(self, *error):
        Opened.current = None

    @staticmethod
    def hook(event, arguments):
        if Opened.current is not None and event == "open" and isinstance(arguments[0], str | bytes | Path):
            path = arguments[0]
            Opened.current.paths.append(Path(path.decode() if isinstance(path, bytes) else path))

    def outside(self, root):
        """Opened files that belong neither to ``root`` nor to Python."""
        own = (root.resolve(), Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), Path("/proc"))
        own += (Path(__file__).resolve().parents[2],)
        return [path for path in self.paths if not any(path.resolve().is_relative_to(folder) for folder in own)]


def outcome(read):
    """(result, None), or (None, message) for an error meant for a person; any other one fails the test."""
    try:
        return read(), None
    except UserError as error:
        return None, str(error)


CASES = [(name, damage, time) for name in SOURCES for damage in DAMAGES for time in range(TIMES)]


def test_there_are_two_hundred_of_them():
    assert len(CASES) >= 200


@pytest.mark.parametrize(
    ("name", "damage", "time"), CASES, ids=[f"{name}-{damage.__name__}-{time}" for name, damage, time in CASES]
)
def test_damaged_labels_are_a_clear_error_or_sound_records(sound, tmp_path, name, damage, time):
    root, schema = tmp_path / "data", SOURCES[name][1]
    shutil.copytree(sound[name], root)
    (tmp_path / "outside").mkdir()
    secret = tmp_path / "outside" / "secret.png"
    cv2.imwrite(str(secret), np.zeros(SIZE, np.uint8))
    (root / "link.png").symlink_to(secret)
    rng = np.random.default_rng((zlib.crc32(f"{name} {damage.__name__}".encode()), time))
    files = label_files(root)
    broken = files[int(rng.integers(0, len(files)))]
    broken.write_bytes(damage(broken.read_bytes(), rng))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with Opened() as opened:
        records, message = outcome(lambda: read_records(name, root, schema))
    if records is None:
        assert len(message) < LONGEST_MESSAGE
        assert broken.stem.removesuffix(".mrk") in message or str(root) in message
    assert opened.outside(tmp_path / "data") == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    for record in records or []:
        assert record.image_path.resolve().is_relative_to(root.resolve())
        assert np.isfinite(record.points_xy_image[record.states == State.LABELLED]).all()
        assert record.unnamed_xy_image is None or np.isfinite(record.unnamed_xy_image).all()


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "aasce"])
def test_no_number_beyond_any_film_becomes_a_point(sound, tmp_path, name):
    """Finite in the file, infinite as a 32-bit coordinate; up to forty numbers of a file, one at a time."""
    root, schema = tmp_path / "data", SOURCES[name][1]
    shutil.copytree(sound[name], root)
    path = label_files(root)[0]
    whole = path.read_bytes()
    numbers = list(re.finditer(rb"(?<![\w.])-?\d+\.?\d*", whole))
    assert numbers
    for number in numbers[:: -(-len(numbers) // 40)]:
        path.write_bytes(whole[: number.start()] + b"1e39" + whole[number.end() :])
        for record in outcome(lambda: read_records(name, root, schema))[0] or []:
            labelled = record.points_xy_image[record.states == State.LABELLED]
            assert (np.abs(labelled) < 1e6 + 1).all(), whole[number.start() - 20 : number.end()]


def test_no_number_beyond_any_film_becomes_a_point_of_aasce(sound, tmp_path):
    shutil.copytree(sound["aasce"], tmp_path / "data")
    points = np.ones((68, 2))
    points[5, 1] = 1e39
    savemat(label_files(tmp_path / "data")[0], {"p2": points})
    records, message = outcome(lambda: read_records("aasce", tmp_path / "data", WHOLE))
    assert records is None
    assert "1 points that are NaN or beyond any film" in message


def png_of_size(height, width, depth=8, colour=0):
    """A PNG whose header claims a size and that holds almost nothing."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 1), (1, 2**31 - 1), (0, 10), (400_000, 400_000)])
def test_a_film_that_claims_an_absurd_size_is_refused_before_it_is_decoded(tmp_path, size):
    path = tmp_path / "film.png"
    path.write_bytes(png_of_size(*size))
    with pytest.raises(FilmError, match=re.escape("film.png")):
        read_film(path)


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB", "RGBA"])
def test_a_small_file_with_too_many_pixels_is_refused_by_its_header(tmp_path, monkeypatch, mode):
    path = tmp_path / "film.png"
    depth, colour = {"1": (1, 0), "L": (8, 0), "I;16": (16, 0), "RGB": (16, 2), "RGBA": (8, 6)}[mode]
    path.write_bytes(png_of_size(10_000, 7_000, depth, colour))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(FilmError, match=rf"film\.png: 7000 x 10000 pixels are more than {MAX_PIXELS}"):
        read_film(path)


def test_large_films_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    """Six at once would take six times the memory."""
    paths = [tmp_path / f"{name}.png" for name in "abcdef"]
    for path in paths:
        cv2.imwrite(str(path), np.zeros((30, 20), np.uint8))
    monkeypatch.setattr(film_file, "LARGE", 30 * 20 - 1)
    decoded, at_once, inside = ImageFile.ImageFile.load, [], []

    def load(image):
        inside.append(1)
        at_once.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return decoded(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with ThreadPoolExecutor(6) as pool:
        films = list(pool.map(read_film, paths))
    assert [film.shape for film in films] == [(30, 20)] * 6
    assert set(at_once) == {1}


def test_a_matlab_file_of_many_zeros_is_refused(tmp_path):
    savemat(tmp_path / "bomb.mat", {"p2": np.zeros((2**22, 2))}, do_compression=True)
    assert (tmp_path / "bomb.mat").stat().st_size < 2**20
    with pytest.raises(ValueError, match="damaged"):
        read_matrix(tmp_path / "bomb.mat", "p2")


def test_a_matlab_file_that_ends_other_readers_is_refused():
    with pytest.raises(ValueError, match="p2 is no matrix of real numbers"):
        read_matrix(field_case("red") / "segv1.mat", "p2")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_matlab_matrix_is_read_as_it_was_saved(tmp_path, dtype, compressed):
    saved = np.random.default_rng(1).uniform(0, 200, (68, 2)).astype(dtype)
    content = {"other": np.eye(3), "p": "text", "p2": saved, "p22": np.ones(4)}
    savemat(tmp_path / "a.mat", content, do_compression=compressed)
    np.testing.assert_array_equal(read_matrix(tmp_path / "a.mat", "p2"), saved)
    with pytest.raises(ValueError, match="holds no matrix p3"):
        read_matrix(tmp_path / "a.mat", "p3")


@pytest.mark.parametrize("value", ["text", 1j * np.ones(3), np.ones((2, 2, 2)), {"a": 1}])
def test_what_is_no_matrix_of_numbers_is_told(tmp_path, value):
    savemat(tmp_path / "a.mat", {"p2": value})
    with pytest.raises(ValueError, match="p2 "):
        read_matrix(tmp_path / "a.mat", "p2")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("damage", [cut_off, emptied, bits_flipped, piece_gone, not_text, another_format])
def test_a_damaged_film_is_a_clear_error_or_a_film(tmp_path, suffix, damage):
    path = tmp_path / f"film{suffix}"
    cv2.imwrite(str(path), phantom(0).image)
    path.write_bytes(damage(path.read_bytes(), np.random.default_rng(5)))
    film, message = outcome(lambda: read_film(path))
    if film is None:
        assert path.name in message
        assert len(message) < 1000
    else:
        assert film.ndim == 2


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """What all the tests of this file together add to the largest size the process ever had."""
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert after - before < MEMORY
