"""Files that are almost what a reader wants: strategies that damage bytes, text, values or parts."""

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Damage = Callable[[bytes, st.DataObject], bytes]

NUMBERS = (
    *(b"NaN", b"nan", b"Infinity", b"-inf", b"1e308", b"1e400", b"-1e9", b"-1", b"0", b"0.5", b"true", b"null"),
    *(b'""', b"[]", b"{}", b"4294967296", b"-9223372036854775809", b"9" * 400, b"9" * 5000, b"1e-320", b"0x10"),
)
TEXTS = (
    *(
        "",
        " ",
        "..",
        "/",
        "../../outside",
        "/etc/passwd",
        "C:\\x",
        "a\0b",
        "\n",
        "x" * 5000,
        "\ud800",
        "𝔘",
        "=1+1",
    ),
    *("<script>", "%s", "{}", "${HOME}", "`id`", "L5", "TL", "NaN", "2024-13-45", "e\u0301", "../" * 50),
)
BYTES = (b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b'"', b"<", b"-")
DEEP = 100_000
PNG_MARK = b"\x89PNG\r\n\x1a\n"

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf")])
    | st.floats()
    | st.sampled_from(TEXTS)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def bytes_changed(content: bytes, data: st.DataObject) -> bytes:
    """A few edits anywhere."""
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        length = data.draw(st.sampled_from([1, 1, 2, 4, 16, 200, len(content)]))
        edit = data.draw(st.integers(0, 6))
        if edit == 0:
            content = content[:at]
        elif edit == 1:
            content = content[:at] + content[at + length :]
        elif edit == 2:
            content = content[:at] + content[at : at + min(length, 4000)] + content[at:]
        elif edit == 3:
            content = content[:at] + bytes(min(length, len(content) - at)) + content[at + length :]
        elif edit == 4:
            put = data.draw(st.sampled_from(BYTES) | st.binary(min_size=1, max_size=8))
            content = content[:at] + put + content[at + len(put) :]
        elif edit == 5:
            content = content[:at] + data.draw(st.sampled_from(BYTES)) + content[at:]
        elif content:
            flipped = content[at] ^ 1 << data.draw(st.integers(0, 7))
            content = content[:at] + bytes([flipped]) + content[at + 1 :]
    return content


def numbers_changed(content: bytes, data: st.DataObject) -> bytes:
    """Numbers of a text become ones that nobody writes."""
    found = list(re.finditer(rb"(?<![\w.])-?\d+\.?\d*(?:e-?\d+)?", content))
    if not found:
        return bytes_changed(content, data)
    chosen = data.draw(st.lists(st.integers(0, len(found) - 1), min_size=1, max_size=3, unique=True))
    for i in sorted(chosen, reverse=True):
        content = content[: found[i].start()] + data.draw(st.sampled_from(NUMBERS)) + content[found[i].end() :]
    return content


def words_changed(content: bytes, data: st.DataObject) -> bytes:
    """Words of a text become others, or stand twice."""
    found = list(re.finditer(rb"[A-Za-z_][\w.]*", content))
    if not found:
        return bytes_changed(content, data)
    one = found[data.draw(st.integers(0, len(found) - 1))]
    other = found[data.draw(st.integers(0, len(found) - 1))][0]
    text = data.draw(st.sampled_from([t.encode("utf-8", "surrogatepass") for t in TEXTS]) | st.just(other))
    return content[: one.start()] + text + content[one.end() :]


def lines_changed(content: bytes, data: st.DataObject) -> bytes:
    """Lines are lost, doubled, or change places."""
    lines = content.splitlines(keepends=True) or [b""]
    for _ in range(data.draw(st.integers(1, 3))):
        i, j = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        lines[i : i + 1] = data.draw(st.sampled_from([[], [lines[i]] * 2, [lines[j]], [lines[j], lines[i]]]))
        lines = lines or [b""]
    return b"".join(lines)


def nested(content: bytes, data: st.DataObject) -> bytes:
    """Too deep for a recursive parser."""
    open_, close = data.draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}"), (b"<a>", b"</a>"), (b"- ", b"")]))
    depth = data.draw(st.sampled_from([200, 1000, 20_000, DEEP]))
    return open_ * depth + b"1" + close * depth


def values_changed(content: bytes, data: st.DataObject) -> bytes:
    """Values of a JSON become of another kind, or are lost; keys too."""
    try:
        document = json.loads(content)
    except ValueError:
        return bytes_changed(content, data)
    for _ in range(data.draw(st.integers(1, 3))):
        if places := list(_places(document)):
            holder, key = places[data.draw(st.integers(0, len(places) - 1))]
            if data.draw(st.integers(0, 4)) == 0:
                del holder[key]
            else:
                holder[key] = data.draw(_values)
        else:
            document = data.draw(_values)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _places(value: Any):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)


def json_lines_changed(content: bytes, data: st.DataObject) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    i = data.draw(st.integers(0, len(lines) - 1))
    lines[i] = values_changed(lines[i], data) + b"\n"
    return b"".join(lines)


def png_changed(content: bytes, data: st.DataObject) -> bytes:
    """Chunks with right checksums: what lies behind the first check is reached."""
    chunks, at = [], len(PNG_MARK)
    while at + 8 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append([content[at + 4 : at + 8], content[at + 8 : at + 8 + length]])
        at += 12 + length
    i = data.draw(st.integers(0, len(chunks) - 1))
    edit = data.draw(st.integers(0, 3))
    if edit == 0:
        chunks.insert(i, chunks[data.draw(st.integers(0, len(chunks) - 1))])
    elif edit == 1 and len(chunks) > 1:
        del chunks[i]
    elif edit == 2 and chunks[0][0] == b"IHDR":
        side = st.sampled_from([0, 1, 7, 3000, 60_000, 2**31 - 1, 2**32 - 1]) | st.integers(0, 2**32 - 1)
        depth, colour = data.draw(st.integers(0, 17)), data.draw(st.integers(0, 7))
        rest = bytes([depth, colour, *data.draw(st.binary(min_size=3, max_size=3))])
        chunks[0] = [b"IHDR", struct.pack(">II", data.draw(side), data.draw(side)) + rest]
    else:
        chunks[i] = [chunks[i][0], bytes_changed(chunks[i][1], data)]
    out = PNG_MARK
    for kind, body in chunks:
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


def zip_changed(content: bytes, data: st.DataObject) -> bytes:
    """Members with right checksums: a checkpoint's pickle, an array's header."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    small = [name for name, body in members.items() if len(body) < 50_000]
    pickles = [name for name in members if name.endswith("data.pkl")]
    name = data.draw(st.sampled_from(small) | st.sampled_from(pickles or small))
    edit = data.draw(st.integers(0, 4))
    if edit == 0:
        del members[name]
    elif edit == 1:
        members[name] = words_changed(members[name], data)
    else:
        members[name] = bytes_changed(members[name], data)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for one, body in members.items():
            archive.writestr(one, body)
    return out.getvalue()


def safetensors_changed(content: bytes, data: st.DataObject) -> bytes:
    """A header of the right length: its values, and the config that is a text in it."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    if data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(header["__metadata__"])))
        header["__metadata__"][key] = values_changed(header["__metadata__"][key].encode(), data).decode(
            "utf-8", "replace"
        )
        changed = json.dumps(header).encode()
    else:
        changed = values_changed(json.dumps(header).encode(), data)
    return struct.pack("<Q", len(changed)) + changed + content[8 + length :]


def one_of(*damages: Damage) -> Damage:
    """Each as often as it is named."""

    def damage(content: bytes, data: st.DataObject) -> bytes:
        return data.draw(st.sampled_from(damages))(content, data)

    return damage


TEXT = one_of(bytes_changed, numbers_changed, numbers_changed, words_changed, lines_changed, nested)
JSON = one_of(
    bytes_changed, numbers_changed, words_changed, values_changed, values_changed, values_changed, nested
)
BINARY = bytes_changed
