#!/usr/bin/env python3
"""Restore a volume from a voltool repository, without voltool.

    restore.py --list REPOSITORY_DIR [VOLUME]
    restore.py [--identity FILE | --passphrase-file FILE] REPOSITORY_DIR VOLUME[@SNAPSHOT] > volume.tar

This needs Python 3.9 or later and the commands `age` (only if the repository is encrypted) and `zstd`; nothing else, and nothing of
voltool. It was written from docs/format.md alone, reads every feature of format version 1, and is one file on purpose: it lies in each
repository. REPOSITORY_DIR is a directory: copy a bucket to one first, with any S3 client. SNAPSHOT is `latest` (the default), the first
letters of a snapshot's id, or a time, which means the newest snapshot at or before it: `2026-11-20` (the whole day), `2026-11-20T03:00`,
`2026-11-20T03:00:00+01:00`; local time without an offset.

The output is a POSIX (pax) tar with everything that a volume can hold. As root, unpack it with

    tar -x --numeric-owner --acls --xattrs --xattrs-include='*' -f volume.tar -C DIRECTORY

What is damaged is named on stderr, the rest is restored, and the exit code is 1. Bytes that are lost are zeros in the tar. (Of a damaged
pack in an encrypted repository `age` yields what stands before the damage; voltool itself also reads what stands behind.) Every chunk is
checked by zstd's checksum and by its place in the pack (and by age, if encrypted); `--verify` also computes every chunk's BLAKE3 id, which
is slower. Exit codes: 0 done, 1 failed or something is damaged, 2 usage, 10 no repository, 12 wrong key or passphrase.
"""

import argparse
import base64
import collections
import functools
import hashlib
import hmac
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone

CHUNK_MAGIC, TABLE_MAGIC, ZSTD_MAGIC = 0x184D2A50, 0x184D2A5E, 0xFD2FB528
MAX_CHUNK = 8 << 20
PACKS_CACHED, CHUNKS_CACHED = 4, 64 << 20  # packs in memory, and bytes of chunks in memory


class Fail(Exception):
    """Ends the program: a message, an exit code, and what to do next."""

    def __init__(self, message, code=1, hint=None):
        super().__init__(message)
        self.code, self.hint = code, hint


class Damaged(Exception):
    """Some object, or part of one, cannot be used. The message names it."""


def note(message):
    print("restore.py: " + message, file=sys.stderr)


# ---------------------------------------------------------------------------------------------------------------- BLAKE3

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
START, END, PARENT, ROOT, KEYED = 1, 2, 4, 8, 16


@functools.lru_cache(maxsize=8)
def ones(lanes):
    return int.from_bytes(b"\1\0\0\0\0\0\0\0" * lanes, "little")


def lanes_of(words):
    return int.from_bytes(struct.pack("<%dQ" % len(words), *words), "little")


def compress(cv, block, counter, length, flags, lanes):
    """BLAKE3's compression of many blocks at once: every value is one Python integer with a 32-bit word in each 64-bit lane."""
    one = ones(lanes)
    mask = 0xFFFFFFFF * one
    v = list(cv) + [word * one for word in IV[:4]] + [counter & mask, (counter >> 32) & mask, length * one, flags * one]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIXES):
            v[a] = (v[a] + v[b] + block[2 * i]) & mask
            x = v[d] ^ v[a]
            v[d] = (x >> 16 | x << 16) & mask
            v[c] = (v[c] + v[d]) & mask
            x = v[b] ^ v[c]
            v[b] = (x >> 12 | x << 20) & mask
            v[a] = (v[a] + v[b] + block[2 * i + 1]) & mask
            x = v[d] ^ v[a]
            v[d] = (x >> 8 | x << 24) & mask
            v[c] = (v[c] + v[d]) & mask
            x = v[b] ^ v[c]
            v[b] = (x >> 7 | x << 25) & mask
        block = [block[p] for p in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def blake3(data, key=None):
    """BLAKE3-256 of `data`, in keyed mode if there is a key of 32 bytes."""
    start_words = struct.unpack("<8I", key) if key else IV
    mode = KEYED if key else 0
    full = max(0, len(data) - 1) // 1024  # blocks of 1 KiB ("chunks" in BLAKE3's own words) before the last one
    columns = [[] for _ in range(8)]
    for first in range(0, full, 1024):
        lanes = min(1024, full - first)
        words = struct.unpack_from("<%dI" % (256 * lanes), data, first * 1024)
        cv = [word * ones(lanes) for word in start_words]
        counter = lanes_of(range(first, first + lanes))
        for b in range(16):
            flags = mode | (START if b == 0 else 0) | (END if b == 15 else 0)
            cv = compress(cv, [lanes_of(words[16 * b + k :: 256]) for k in range(16)], counter, 64, flags, lanes)
        for column, value in zip(columns, cv):
            column += struct.unpack("<%dQ" % lanes, value.to_bytes(8 * lanes, "little"))
    tail = bytes(data[full * 1024 :])
    last = max(0, len(tail) - 1) // 64
    cv = start_words
    for b in range(last + 1):
        piece = tail[64 * b : 64 * b + 64]
        flags = mode | (START if b == 0 else 0) | (END if b == last else 0) | (ROOT if b == last and not full else 0)
        cv = compress(cv, struct.unpack("<16I", piece.ljust(64, b"\0")), full, len(piece), flags, 1)
    for column, value in zip(columns, cv):
        column.append(value)
    while len(columns[0]) > 1:
        pairs = len(columns[0]) // 2
        block = [lanes_of(c[i : 2 * pairs : 2]) for i in (0, 1) for c in columns]
        flags = mode | PARENT | (ROOT if len(columns[0]) == 2 else 0)
        cv = compress([word * ones(pairs) for word in start_words], block, 0, 64, flags, pairs)
        left_over = [c[2 * pairs :] for c in columns]
        columns = [list(struct.unpack("<%dQ" % pairs, v.to_bytes(8 * pairs, "little"))) + r for v, r in zip(cv, left_over)]
    return struct.pack("<8I", *(column[0] for column in columns))


# ------------------------------------------------------------------------------------------------- the commands age and zstd


def command(arguments, data=b"", **keywords):
    """Runs a command with `data` as its input; returns (output, error text, exit code)."""
    try:
        done = subprocess.run(arguments, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **keywords)
    except FileNotFoundError:
        raise Fail("the command `%s` is not installed" % arguments[0], hint="apt-get install %s" % arguments[0]) from None
    return done.stdout, done.stderr.decode("utf-8", "replace").strip().replace("\n", "; "), done.returncode


def unzstd(frames, base=None):
    """The content of zstd frames. `base` is the raw content that a delta chunk was made against."""
    if base is None:
        output, error, code = command(["zstd", "-dcq"], frames)
    elif hasattr(os, "memfd_create"):  # keeps plain text off the disk
        fd = os.memfd_create("base")
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(base)
            output, error, code = command(["zstd", "-dcq", "--patch-from=/proc/self/fd/%d" % fd], frames, pass_fds=[fd])
        finally:
            os.close(fd)
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(base)
            file.flush()
            output, error, code = command(["zstd", "-dcq", "--patch-from=" + file.name], frames)
    if code != 0:
        raise Damaged(error or "zstd ended with code %d" % code)
    return output


def age_with_passphrase(path, passphrase):
    """Like `age -d`, which asks for a passphrase on a terminal and nowhere else: so it is given one."""
    output, write_end = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.dup2(write_end, 1)
            os.execvp("age", ["age", "-d", path])
        except OSError as error:
            os.write(2, str(error).encode())
        os._exit(127)
    os.close(write_end)
    said, answered = b"", False
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        said += piece
        if not answered and b"passphrase" in said.lower():
            # A terminal acts on control characters unless they are quoted with ^V.
            os.write(terminal, re.sub(rb"[\x00-\x1f\x7f]", lambda m: b"\x16" + m.group(), passphrase) + b"\n")
            answered, said = True, b""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with open(output, "rb") as file:
        plain = file.read()  # a few hundred bytes, which fit in the pipe's buffer
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said.decode("utf-8", "replace"))
    return plain, "; ".join(text.split("\r\n")).strip("; "), code


# ------------------------------------------------------------------------------------------------------------ the repository

Row = collections.namedtuple("Row", "id offset length raw kind flags base sure")


def frame_end(data, at):
    """(where the zstd frame at `at` ends, its content size); raises Damaged if there is no whole frame with both content size and checksum."""
    try:
        magic, descriptor = struct.unpack_from("<IB", data, at)
        if magic != ZSTD_MAGIC or not descriptor & 4:
            raise Damaged("no zstd frame with a checksum at offset %d" % at)
        single = descriptor >> 5 & 1
        at += 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
        width = (single, 2, 4, 8)[descriptor >> 6]
        size = int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)
        at += width
        last = not width
        if last:
            raise Damaged("a zstd frame without content size")
        while not last:
            header = int.from_bytes(bytes(data[at : at + 3]) or b"\7", "little")
            last, kind = header & 1, header >> 1 & 3
            if kind == 3:
                raise Damaged("a bad block in a zstd frame")
            at += 3 + (1 if kind == 1 else header >> 3)
        if at + 4 > len(data):
            raise Damaged("a zstd frame that is cut off")
        return at + 4, size
    except struct.error:
        raise Damaged("a zstd frame that is cut off") from None


def marker(data, at):
    """The Row that the skippable frame at `at` announces, with offset and length of its zstd frame still 0; raises Damaged."""
    try:
        magic, size, tag, chunk, raw, kind, flags = struct.unpack_from("<II4s32sIBB", data, at)
    except struct.error:
        raise Damaged("the pack is cut off") from None
    delta = flags & 1
    if magic != CHUNK_MAGIC or tag != b"VTC1" or size != 42 + 32 * delta or flags > 1 or raw > MAX_CHUNK:
        raise Damaged("no chunk at offset %d" % at)
    return Row(chunk, 0, 0, raw, kind, flags, bytes(data[at + 50 : at + 82]) if delta else None, True)


class Pack:
    """A pack, decrypted, and its rows: from its table; and if that is damaged, from the skippable frames on the way."""

    def __init__(self, key, data):
        self.key, self.data, self.window = key, data, 1 << 20
        try:
            self.rows = self._table()
            wrong = [row for row in self.rows if not self._agrees(row)]
        except Damaged as error:
            note("%s: its table is damaged (%s); going through its frames" % (key, error))
            self.rows = self._scan()
        else:
            if wrong:
                # Table and frames disagree. Either may be right, so from here on the content has to show it.
                note("%s: its table and its frames disagree about %d chunks" % (key, len(wrong)))
                self.rows = [row._replace(sure=False) for row in self.rows] + self._scan()
        self.places = {}
        for place, row in enumerate(self.rows):
            self.places.setdefault(row.id, []).append(place)

    def _table(self):
        data, rows = self.data, []
        if len(data) < 24 or data[-8:] != b"VTPACK01":
            raise Damaged("no footer")
        count, size = struct.unpack_from("<II", data, len(data) - 16)
        at = len(data) - size
        if at < 8 or struct.unpack_from("<II", data, at - 8) != (TABLE_MAGIC, size):
            raise Damaged("no table where the footer says")
        try:
            for _ in range(count):
                chunk, offset, length, raw, kind, flags = struct.unpack_from("<32sIIIBB", data, at)
                at += 46
                base = bytes(data[at : at + 32]) if flags & 1 else None
                at += 32 if base else 0
                rows.append(Row(chunk, offset, length, raw, kind, flags, base, True))
        except struct.error:
            raise Damaged("more rows than fit") from None
        if at != len(data) - 16:
            raise Damaged("rows and footer do not meet")
        return rows

    def _agrees(self, row):
        try:
            announced = marker(self.data, row.offset - (82 if row.base else 50))
            end, size = frame_end(self.data, row.offset)
            return announced == row._replace(offset=0, length=0) and end - row.offset == row.length and size == row.raw
        except Damaged:
            return False

    def _scan(self):
        rows, at = [], 0
        while at < len(self.data):
            try:
                row = marker(self.data, at)
                offset = at + (82 if row.base else 50)
                at, size = frame_end(self.data, offset)
                if size == row.raw:
                    rows.append(row._replace(offset=offset, length=at - offset, sure=False))
            except Damaged:  # go on at the next thing that looks like a chunk; its content has to show that it is one
                at = self.data.find(struct.pack("<I", CHUNK_MAGIC), at + 1)
                if at < 0:
                    break
        return rows


class Repository:
    """A repository in a directory."""

    def __init__(self, root, identity=None, passphrase=None, verify=False):
        self.root, self.verify = root, verify
        self.where = {}  # chunk id -> numbers of the packs that hold it
        self.packs, self.numbers, self.tables_read = [], {}, set()
        self.loaded, self.chunks, self.chunk_bytes = collections.OrderedDict(), collections.OrderedDict(), 0
        try:
            with open(os.path.join(root, "voltool.json"), "rb") as file:
                self.about = json.loads(file.read())
        except (FileNotFoundError, NotADirectoryError):
            raise Fail("no repository in %s: there is no voltool.json" % root, 10) from None
        except ValueError as error:
            raise Fail("voltool.json in %s is damaged: %s" % (root, error)) from None
        if self.about.get("format") != 1 or self.about.get("features") != []:
            raise Fail("the repository has format %s with features %s; this program knows format 1 without any"
                       % (self.about.get("format"), self.about.get("features")), hint="use the restore.py in the repository")
        self.encrypted = self.about.get("encryption") != "none"
        self.identity, self.id_key, self.mac_key = None, None, b""
        if self.encrypted:
            self._unlock(identity, passphrase)

    def list(self, prefix, suffix):
        """The keys below a folder."""
        found = []
        for folder, _, names in os.walk(os.path.join(self.root, prefix)):
            relative = os.path.relpath(folder, self.root).replace(os.sep, "/")
            found += [relative + "/" + name for name in names if name.endswith(suffix)]
        return sorted(found)

    def _unlock(self, identity, passphrase):
        if identity is None and passphrase is None:
            raise Fail("the repository is encrypted", 12, "give --identity FILE or --passphrase-file FILE")
        errors = []
        for key in self.list("keys", ".age"):
            path = os.path.abspath(os.path.join(self.root, key))
            with open(path, "rb") as file:
                by_passphrase = b"\n-> scrypt " in file.read(1024)
            if by_passphrase != (passphrase is not None):
                errors.append("%s opens with %s" % (key, "a passphrase" if by_passphrase else "an identity"))
                continue
            if passphrase is not None:
                plain, error, code = age_with_passphrase(path, passphrase)
            else:
                plain, error, code = command(["age", "-d", "-i", identity, path])
            try:
                if code != 0:
                    raise ValueError(error or "age ended with code %d" % code)
                secrets = json.loads(plain)
                if secrets["repository"] != self.about["id"]:
                    raise ValueError("it belongs to another repository")
                self.identity = secrets["identity"].encode() + b"\n"
                self.id_key, self.mac_key = bytes.fromhex(secrets["id_key"]), bytes.fromhex(secrets["mac_key"])
                return
            except (ValueError, KeyError) as problem:
                errors.append("%s: %s" % (key, problem))
        raise Fail("no key of this repository could be opened (%s)" % ("; ".join(errors) or "keys/ is empty"), 12)

    def read(self, key, partly=False):
        """An object's plain content. With `partly`, what stands before the damage in a damaged one."""
        path = os.path.join(self.root, key)
        try:
            if not self.encrypted:
                with open(path, "rb") as file:
                    return file.read()
            if not os.path.exists(path):
                raise FileNotFoundError
            plain, error, code = command(["age", "-d", "-i", "-", os.path.abspath(path)], self.identity)
        except FileNotFoundError:
            raise Damaged("%s is missing" % key) from None
        except OSError as error:
            raise Damaged("%s cannot be read: %s" % (key, error.strerror)) from None
        if code != 0:
            if not partly:
                raise Damaged("%s is damaged: %s" % (key, error))
            note("%s is damaged: %s" % (key, error))
        return plain

    # Snapshots

    def not_counting(self):
        """The snapshots that do not count: forgotten, or rejected by a collection."""
        out = {key[len("forgotten/") : -len(".json")] for key in self.list("forgotten", ".json")}
        for key in self.list("gc", ".decided"):
            try:
                with open(os.path.join(self.root, key), "rb") as file:
                    out.update(json.loads(file.read())["rejected"])
            except (ValueError, KeyError, TypeError):
                note("%s is damaged; a snapshot that it rejects may be shown" % key)
        return out

    def record(self, key):
        lines = self.read(key).split(b"\n")
        try:
            mac = bytes.fromhex(json.loads(lines[1])["mac"])
            record = json.loads(lines[0])
        except (ValueError, KeyError, IndexError, TypeError):
            raise Damaged("%s is damaged: it does not have a record and a MAC" % key) from None
        if not hmac.compare_digest(mac, hmac.new(self.mac_key, key.encode() + b"\n" + lines[0], hashlib.sha256).digest()):
            raise Damaged("%s is damaged: its MAC is wrong, or it was written for another place" % key)
        if record.get("version") != 1:
            raise Damaged("%s has version %s, which this program does not know" % (key, record.get("version")))
        return record

    def sources(self):
        """For each source, the snapshots that count as (id, key), the oldest first."""
        skip, found = self.not_counting(), {}
        for key in self.list("snapshots", ".json"):
            folder, _, name = key.rpartition("/")
            if name[: -len(".json")] not in skip:
                found.setdefault(folder, []).append((name[: -len(".json")], key))
        return {folder: sorted(snapshots) for folder, snapshots in found.items()}

    def records(self, snapshots):
        """The records of one source as (id, key, record, damage), the oldest first."""
        for session, key in snapshots:
            try:
                yield session, key, self.record(key), None
            except Damaged as damage:
                yield session, key, None, str(damage)

    # Chunks

    def _number(self, key):
        if key not in self.numbers:
            self.numbers[key] = len(self.packs)
            self.packs.append(key)
        return self.numbers[key]

    def _add(self, chunk, number):
        held = self.where.get(chunk, ())
        if number not in held:
            self.where[chunk] = held + (number,)

    def load_indexes(self):
        for key in self.list("index", ".idx"):
            try:
                self._load_index(unzstd(self.read(key)))
            except (Damaged, struct.error, IndexError) as error:
                note("%s is damaged (%s); the packs' own tables are used instead" % (key, error))

    def _load_index(self, data):
        if data[:8] != b"VTINDEX1":
            raise Damaged("not an index")
        (count,) = struct.unpack_from("<I", data, 8)
        at, packs = 12, []
        for _ in range(count):
            high, low, n, _, header = struct.unpack_from(">QQ", data, at) + struct.unpack_from("<IQH", data, at + 16)
            packs.append(self._number("packs/%s/%d.pack" % (ulid(high << 64 | low), n)))
            at += 30 + header
        (count,) = struct.unpack_from("<I", data, at)
        for row in range(at + 4, at + 4 + 52 * count, 52):
            self._add(bytes(data[row : row + 32]), packs[struct.unpack_from("<I", data, row + 32)[0]])

    def _pack(self, number):
        pack = self.loaded.pop(number, None) or Pack(self.packs[number], self.read(self.packs[number], partly=True))
        self.loaded[number] = pack
        while len(self.loaded) > PACKS_CACHED:
            self.loaded.popitem(last=False)
        return pack

    def _read_tables(self):
        """Learns what the packs hold from the packs, those that no index named first; a generator, so that it stops when enough is known."""
        indexed = {number for held in self.where.values() for number in held}
        keys = sorted(self.list("packs", ".pack"), key=lambda key: (self.numbers.get(key) in indexed, key))
        for key in keys:
            number = self._number(key)
            if number not in self.tables_read:
                self.tables_read.add(number)
                try:
                    for chunk in self._pack(number).places:
                        self._add(chunk, number)
                except Damaged as error:
                    note(str(error))
                yield

    def chunk(self, chunk, as_base=False):
        """The raw bytes of a chunk, from whichever pack holds a good copy. The base of a delta is not itself one."""
        if chunk in self.chunks:
            self.chunks.move_to_end(chunk)
            return self.chunks[chunk]
        tried, problem, more = set(), "it is in no pack", self._read_tables()
        while True:
            for number in self.where.get(chunk, ()):
                if number not in tried:
                    tried.add(number)
                    try:
                        return self._from_pack(self._pack(number), chunk, as_base)
                    except Damaged as error:
                        problem = str(error)
            try:
                next(more)
            except StopIteration:
                raise Damaged("chunk %s is lost: %s" % (chunk.hex(), problem)) from None

    def _from_pack(self, pack, chunk, as_base):
        problem = "%s does not hold it" % pack.key
        for place in pack.places.get(chunk, ()):
            row = pack.rows[place]
            if row.base and as_base:
                continue
            try:
                if row.base is None and row.sure:
                    self._decode_window(pack, place)
                    if chunk in self.chunks:
                        return self.chunks[chunk]
                base = None if row.base is None else self.chunk(row.base, True)
                raw = unzstd(pack.data[row.offset : row.offset + row.length], base)
                self._check(row, raw)
                self._keep(chunk, raw)
                return raw
            except Damaged as error:
                problem = "%s, offset %d: %s" % (pack.key, row.offset, error)
        raise Damaged(problem)

    def _decode_window(self, pack, place):
        """Decompresses this chunk and those behind it with one command; the window grows while reading goes on in one pack."""
        group, total = [], 0
        for row in pack.rows[place:]:
            if row.base is not None or not row.sure or (group and total + row.raw > pack.window):
                break
            group.append(row)
            total += row.raw
        pack.window = min(2 * pack.window, CHUNKS_CACHED // 4)
        try:
            raw = unzstd(b"".join(pack.data[row.offset : row.offset + row.length] for row in group))
            at = 0
            for row in group:
                self._check(row, raw[at : at + row.raw])
                self._keep(row.id, raw[at : at + row.raw])
                at += row.raw
        except Damaged:  # one of them is damaged: the caller takes the one it needs alone
            pack.window = 1

    def _check(self, row, raw):
        if len(raw) != row.raw:
            raise Damaged("%d bytes where %d were expected" % (len(raw), row.raw))
        if (self.verify or not row.sure) and blake3(raw, self.id_key) != row.id:
            raise Damaged("its content does not have the id %s" % row.id.hex())

    def _keep(self, chunk, raw):
        self.chunk_bytes += len(raw) - len(self.chunks.pop(chunk, b""))
        self.chunks[chunk] = raw
        while self.chunk_bytes > CHUNKS_CACHED and len(self.chunks) > 1:
            self.chunk_bytes -= len(self.chunks.popitem(last=False)[1])


def ulid(value):
    return "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[value >> shift & 31] for shift in range(125, -1, -5))


# ------------------------------------------------------------------------------------------------------ snapshots and listings


def moments(text):
    """(first, last) nanosecond since 1970 that a time means: a day all of it, 03:00 the whole minute. Local time without an offset."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:?\d\d)?)?", text)
    if not match or (match[4] and not match[3]):
        raise ValueError(text)
    day, minute, second, fraction, zone = match.groups()
    start = datetime.strptime(day + (minute or "00:00") + (second or ":00"), "%Y-%m-%d%H:%M:%S")
    length = 1 if second else 60 if minute else 86400
    if zone:
        sign = 0 if zone in "Zz" else int(zone[0] + "1")
        start = start.replace(tzinfo=timezone(sign * timedelta(hours=int(zone[1:3] or 0), minutes=int(zone[-2:])) if sign else timedelta()))
    first, behind = int(start.timestamp()) * 10**9, int((start + timedelta(seconds=length)).timestamp()) * 10**9
    if fraction:
        first += int(fraction.ljust(9, "0"))
        behind = first + 1
    return first, behind - 1


def volumes(repository):
    """(engine, volume, snapshots of that source) for each source, known from its newest readable record."""
    for folder, snapshots in sorted(repository.sources().items()):
        for _, _, record, damage in repository.records(reversed(snapshots)):
            if record:
                yield record["engine"], record["volume"], snapshots
                break
            note(damage)


def select(repository, wanted, engine):
    """The record that VOLUME[@SNAPSHOT] means."""
    known = [v for v in volumes(repository) if engine in (None, v[0])]
    volume, at, which = (wanted, "", "") if any(wanted == v[1] for v in known) else wanted.rpartition("@")
    if not at:
        volume, which = wanted, "latest"
    found = [v for v in known if v[1] == volume]
    if not found:
        raise Fail("no snapshot of volume %r%s" % (volume, " of engine %r" % engine if engine else ""),
                   hint="there are snapshots of: " + (", ".join(sorted({v[1] for v in known})) or "nothing"))
    if len(found) > 1:
        raise Fail("volume %r was backed up from several engines" % volume, hint="add --engine with one of: " + ", ".join(sorted(v[0] for v in found)))
    snapshots, limit = found[0][2], None
    if re.match(r"\d{4}-", which):
        try:
            limit = moments(which)[1]
        except ValueError:
            raise Fail("%r is not a time" % which, 2, "write it as 2026-11-20, 2026-11-20T03:00 or 2026-11-20T03:00+01:00") from None
    elif which != "latest":
        snapshots = [snapshot for snapshot in snapshots if snapshot[0].startswith(which.upper())]
        if len(snapshots) > 1:
            raise Fail("%r begins the ids of several snapshots: %s" % (which, ", ".join(session for session, _ in snapshots)))
    fitting, damaged, first_later = [], [], "Z" * 26
    for session, _, record, damage in repository.records(snapshots):
        if damage:
            damaged.append((session, damage))
        elif limit is None or moments(record["time"])[0] <= limit:
            fitting.append((record.get("lease", 0), moments(record["time"])[0], session, record))
        else:
            first_later = min(first_later, session)
    if not fitting:
        raise Fail("; ".join(damage for _, damage in damaged) or "no snapshot of %r is meant by %r" % (volume, which),
                   hint="restore.py --list shows all of them")
    # Of a volume that several hosts used, the later lease has the newer snapshots, whatever the clocks say.
    _, _, session, record = max(fitting, key=lambda f: f[:3])
    newer = [damage for other, damage in damaged if session < other < first_later]
    if newer:
        raise Fail("a newer snapshot is damaged: %s" % "; ".join(newer), hint="to take the one before, ask for %s@%s" % (volume, session))
    return record


def json_lines(data):
    for line in data.split(b"\n"):
        if line:
            yield json.loads(line)


def text_or_64(entry, name):
    """A name in bytes, from its field or from the one with "64" behind its name."""
    if name + "64" in entry:
        return base64.b64decode(entry[name + "64"], validate=True)
    return entry[name].encode()


class Restore:
    """Writes one snapshot as a tar."""

    def __init__(self, repository, out):
        self.repository, self.out, self.damage = repository, out, 0

    def complain(self, message):
        self.damage += 1
        note(message)

    def leaves(self, record):
        try:
            leaves = list(json_lines(b"".join(self.repository.chunk(bytes.fromhex(chunk)) for chunk in record["root"])))
            return [(bytes.fromhex(leaf["leaf"]), leaf["entries"], text_or_64(leaf, "first")) for leaf in leaves]
        except (Damaged, ValueError, KeyError, TypeError) as error:
            raise Damaged("the list of leaves of snapshot %s cannot be read: %s" % (record["id"], error)) from None

    def entries(self, record):
        """The entries that may be restored, as (path, entry)."""
        last = blocked = None
        for leaf, count, first in self.leaves(record):
            try:
                entries = [(text_or_64(entry, "p"), entry) for entry in json_lines(self.repository.chunk(leaf))]
            except (Damaged, ValueError, KeyError, TypeError) as error:
                name = first.decode("utf-8", "backslashreplace")
                self.complain("%d entries from %r on are lost: a leaf of the listing is damaged: %s" % (count, name, error))
                continue
            for path, entry in entries:
                place = b"" if path == b"." else path.replace(b"/", b"\0")
                if path != b"." and (b"\0" in path or any(part in (b"", b".", b"..") for part in path.split(b"/"))):
                    self.complain("refused: %r is not a path inside a volume" % path)
                elif last is not None and place <= last:
                    self.complain("refused: %r is not in its place in the listing" % path)
                elif blocked is not None and path.startswith(blocked):
                    self.complain("refused: %r is below something that is not a directory" % path)
                else:
                    last = place
                    if entry["t"] != "d":
                        blocked = path + b"/"
                    yield path, entry

    def segments(self, entry):
        """The segments of a file as (chunk or None, length, offset); (False, length, 0) stands for a list that is lost."""
        for held in [(None, None)] if "c" in entry else entry.get("cl", []):
            try:
                segments = entry["c"] if held[0] is None else list(json_lines(self.repository.chunk(bytes.fromhex(held[0]))))
                if held[1] not in (None, sum(s[1] if isinstance(s[0], str) else s[0] for s in segments)):
                    raise Damaged("a list of segments does not cover what it should")
            except Damaged as error:
                yield error, held[1], 0
                continue
            for segment in segments:
                chunk, length, offset = [None, segment[0], 0] if len(segment) == 1 else (segment + [0])[:3]
                if length <= 0 or offset < 0:
                    raise ValueError("a segment of %d bytes at %d" % (length, offset))
                yield bytes.fromhex(chunk) if chunk else None, length, offset

    def run(self, record):
        links = {}
        for path, entry in self.entries(record):
            name = path.decode("utf-8", "backslashreplace")
            try:
                self.member(path, name, entry, links)
            except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:  # none of these comes after its header
                self.complain("%s is left out: its entry makes no sense: %r" % (name, error))
        self.out.write(bytes(1024 + -(self.out.count + 1024) % 10240))
        self.out.flush()

    def member(self, path, name, entry, links):
        if "bad" in entry:
            note("%s may be inconsistent since the backup: %s" % (name, entry["bad"]))
        kind, group = entry["t"], entry.get("hl")
        if kind == "s":
            note("%s is a socket: left out, its program makes it anew" % name)
        elif group is not None and group in links:
            self.out.write(tar_header(path, entry, b"1", link=b"./" + links[group]))
        elif kind == "f":
            if self.file(path, name, entry) and group is not None:
                links[group] = path
        else:
            self.out.write(tar_header(path, entry, TYPES[kind], link=text_or_64(entry, "l") if kind == "l" else b""))
            if group is not None:
                links[group] = path

    def file(self, path, name, entry):
        size, at, extents = entry["s"], 0, []
        for chunk, length, _ in self.segments(entry):
            if chunk is not None:
                if extents and sum(extents[-1]) == at:
                    extents[-1][1] += length
                else:
                    extents.append([at, length])
            at += length
        if at != size:
            self.complain("%s is left out: its segments add up to %d of %d bytes" % (name, at, size))
            return False
        sparse_map = b""
        if sum(length for _, length in extents) != size:  # holes: GNU tar's format 1.0 for sparse files
            if not extents or sum(extents[-1]) != size:
                extents.append([size, 0])
            sparse_map = b"%d\n" % len(extents) + b"".join(b"%d\n%d\n" % tuple(extent) for extent in extents)
            sparse_map += bytes(-len(sparse_map) % 512)
        stored = len(sparse_map) + sum(length for _, length in extents)
        self.out.write(tar_header(path, entry, b"0", size=stored, real_size=size if sparse_map else None))
        self.out.write(sparse_map)
        at = 0
        for chunk, length, offset in self.segments(entry):
            if chunk is not None:
                try:
                    if isinstance(chunk, Damaged):
                        raise chunk
                    piece = self.repository.chunk(chunk)[offset : offset + length]
                    if len(piece) != length:
                        raise Damaged("chunk %s is shorter than the listing says" % chunk.hex())
                    self.out.write(piece)
                except Damaged as error:
                    self.complain("%s is damaged: bytes %d to %d are zeros here: %s" % (name, at, at + length, error))
                    for start in range(0, length, 1 << 20):
                        self.out.write(bytes(min(1 << 20, length - start)))
            at += length
        self.out.write(bytes(-stored % 512))
        return True


# ------------------------------------------------------------------------------------------------------------------------ tar

TYPES = {"d": b"5", "l": b"2", "p": b"6", "c": b"3", "b": b"4"}


def pax_record(keyword, value):
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def acl_text(value):
    """A POSIX ACL as text, from the bytes of its extended attribute."""
    names = {1: "user:", 2: "user:%d", 4: "group:", 8: "group:%d", 16: "mask:", 32: "other:"}
    entries = [struct.unpack_from("<HHI", value, at) for at in range(4, len(value) - 7, 8)]
    said = lambda tag, who: names[tag] % who if "%" in names[tag] else names[tag]
    return ",".join(said(tag, who) + ":" + "".join(l if bits & b else "-" for l, b in (("r", 4), ("w", 2), ("x", 1)))
                    for tag, bits, who in entries).encode()


def tar_header(path, entry, kind, link=b"", size=0, real_size=None):
    """The header of one member, with a pax header before it for what the old one has no room for."""
    name = b"./" if path == b"." else b"./" + path + (b"/" if kind == b"5" else b"")
    records, seconds, nanoseconds = [], entry["mt"][0], entry["mt"][1]

    def number(keyword, value, digits):
        if 0 <= value < 8 ** (digits - 1):
            return b"%0*o\0" % (digits - 1, value)
        if keyword:
            records.append((keyword, str(value).encode()))
        return b"%0*o\0" % (digits - 1, 0)

    if real_size is not None:
        records += [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name),
                    (b"GNU.sparse.realsize", b"%d" % real_size)]
        folder, _, last = name.rpartition(b"/")
        name = folder + b"/GNUSparseFile.0/" + last
    for keyword, value in ((b"path", name), (b"linkpath", link)):
        if len(value) > 100 or not value.isascii():  # bytes as they are, like GNU tar, which does not know hdrcharset
            records.append((keyword, value))
    if nanoseconds or seconds < 0:
        total = seconds * 10**9 + nanoseconds
        records.append((b"mtime", b"%s%d.%09d" % (b"-" if total < 0 else b"", abs(total) // 10**9, abs(total) % 10**9)))
    for attribute in entry.get("x", []) if kind != b"1" else []:
        key = base64.b64decode(attribute[2], validate=True) if len(attribute) > 2 else attribute[0].encode()
        value = base64.b64decode(attribute[1], validate=True)
        for acl in ("access", "default"):
            if key == b"system.posix_acl_" + acl.encode():
                records.append((b"SCHILY.acl." + acl.encode(), acl_text(value)))
        records.append((b"SCHILY.xattr." + key.replace(b"%", b"%25").replace(b"=", b"%3D"), value))
    major, minor = entry.get("dv", (0, 0))
    fields = (number(None, entry["m"] & 0o7777, 8) + number(b"uid", entry["u"], 8) + number(b"gid", entry["g"], 8)
              + number(b"size", size, 12) + number(b"mtime" if seconds >= 0 and not nanoseconds else None, seconds, 12))
    devices = number(None, major, 8) + number(None, minor, 8)
    block = header_block(name, fields, kind, link, devices)
    if not records:
        return block
    extra = b"".join(pax_record(keyword, value) for keyword, value in records)
    plain = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % len(extra) + b"%011o\0" % 0
    return header_block(b"./PaxHeaders/" + name.rpartition(b"/")[2], plain, b"x", b"", b"0000000\0" * 2) + extra + bytes(-len(extra) % 512) + block


def header_block(name, fields, kind, link, devices):
    block = (name[:100].ljust(100, b"\0") + fields + b" " * 8 + kind + link[:100].ljust(100, b"\0") + b"ustar\0" + b"00"
             + bytes(64) + devices).ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


class Counted:
    """Output that knows how much of it there was."""

    def __init__(self, file):
        self.file, self.count = file, 0

    def write(self, data):
        self.file.write(data)
        self.count += len(data)

    def flush(self):
        self.file.flush()


# ---------------------------------------------------------------------------------------------------------------- the command


def show(repository, wanted, engine):
    """--list: every snapshot that counts, by volume, the newest last. Returns the exit code: 1 if one of them cannot be read."""
    good, rows = True, []
    for snapshots in repository.sources().values():
        for session, _, record, damage in repository.records(snapshots):
            if damage:
                note(damage)
                good = False
            elif engine in (None, record["engine"]) and wanted in (None, record["volume"]):
                rows.append((record["volume"], record["engine"], record.get("lease", 0), moments(record["time"])[0], session, record))
    print("%-26s  %-20s  %10s  %15s  %s" % ("SNAPSHOT", "TIME", "FILES", "BYTES", "VOLUME (ENGINE)"))
    for volume, name, _, _, session, record in sorted(rows, key=lambda row: row[:5]):
        print("%-26s  %-20s  %10d  %15d  %s (%s)" % (session, record["time"][:19] + "Z", record["files"], record["bytes"], volume, name))
    return 0 if good else 1


def restore(repository, wanted, engine):
    if sys.stdout.isatty():
        raise Fail("the tar would go to the terminal", 2, "add `> volume.tar`, or `| tar -x -C DIRECTORY`")
    record = select(repository, wanted, engine)
    note("restoring %s as of %s (snapshot %s, %d entries)" % (record["volume"], record["time"], record["id"], record["entries"]))
    for error in record.get("errors", []):
        note("when the backup was made: %s: %s" % (error.get("path"), error.get("error")))
    repository.load_indexes()
    out = Counted(sys.stdout.buffer)
    job = Restore(repository, out)
    job.run(record)
    if job.damage:
        raise Fail("done, but %d things are damaged or missing; they are named above" % job.damage)
    return 0


def passphrase_in(path):
    with open(path, "rb") as file:
        passphrase = file.read()
    passphrase = passphrase[:-1] if passphrase.endswith(b"\n") else passphrase
    if not passphrase or len(passphrase) > 1000 or b"\n" in passphrase:
        raise Fail("%s does not hold one line with a passphrase" % path, 12)
    return passphrase


def main():
    about = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(description=about[0], epilog="\n\n".join(about[2:]), formatter_class=argparse.RawDescriptionHelpFormatter)
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument("--identity", metavar="FILE", help="an age identity that opens the repository")
    keys.add_argument("--passphrase-file", metavar="FILE", help="a file with the passphrase that opens the repository")
    parser.add_argument("--engine", metavar="NAME", help="only snapshots of this engine's volumes")
    parser.add_argument("--list", action="store_true", help="list the snapshots instead of restoring one")
    parser.add_argument("--verify", action="store_true", help="compute the id of every chunk that is read")
    parser.add_argument("repository", metavar="REPOSITORY_DIR")
    parser.add_argument("volume", metavar="VOLUME[@SNAPSHOT]", nargs="?")
    args = parser.parse_args()
    if not args.list and args.volume is None:
        parser.error("VOLUME[@SNAPSHOT] is missing (or give --list)")
    try:
        if args.identity:
            open(args.identity, "rb").close()  # an unreadable file shall be called that, not a wrong key
        passphrase = passphrase_in(args.passphrase_file) if args.passphrase_file else None
        repository = Repository(args.repository, args.identity, passphrase, args.verify)
        return (show if args.list else restore)(repository, args.volume, args.engine)
    except Fail as error:
        note("error: %s" % error)
        if error.hint:
            print("hint: " + error.hint, file=sys.stderr)
        return error.code
    except Damaged as error:
        note("error: %s" % error)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        note("error: nobody reads the output any more")
        return 1
    except OSError as error:
        note("error: %s" % error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
