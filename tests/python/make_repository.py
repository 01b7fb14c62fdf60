#!/usr/bin/env python3
"""Write a repository in format version 1 (docs/format.md): an independent writer, to test readers with.

    make_repository.py --encrypt none --out DIR --source TREE
    make_repository.py --encrypt identity --identity FILE --out DIR --source TREE      (FILE is made if it is not there)
    make_repository.py --encrypt passphrase --passphrase-file FILE --out DIR --source TREE

It uses Python's standard library and the commands `age`, `age-keygen` and `zstd`, nothing of voltool but the BLAKE3 of
examples/restore.py, which has a test of its own against the published vectors. It cuts files in far smaller pieces than voltool, so that a
tree of a few megabytes has every shape that the format knows. The repository holds, for --volume (default `everything`) on --engine:

    older       a snapshot of TREE in which each chunk of each page-structured file (*.db, *.img) begins with other bytes
    latest      TREE; those chunks are deltas against the older ones
    forgotten   a newer snapshot, forgotten
    rejected    the newest snapshot, rejected by a collection

and, all of them with nothing but an empty root: volume `nothing`, volume `twice` on two engines. Beside that: the session and the pack of
a writer that died, and a collection epoch whose condemned pack is gone. What was made is printed as JSON.
"""

import argparse
import base64
import hashlib
import hmac
import importlib.util
import json
import os
import pty
import secrets
import select
import stat
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SPEC = importlib.util.spec_from_file_location("restore", os.path.join(HERE, "..", "..", "examples", "restore.py"))
sys.dont_write_bytecode = True
RESTORE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(RESTORE)

BUNDLE, CDC, FIXED, LEAF, LIST = 1, 2, 3, 4, 5
CHUNKER = {"bundle_max_file": 4096, "bundle_target": 16384, "cdc_min": 4096, "cdc_avg": 8192, "cdc_max": 16384, "fixed": 16384}
PACK_TARGET, LEAF_ENTRIES, MAX_SEGMENTS, LIST_SEGMENTS = 1 << 20, 256, 256, 100
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid_value(milliseconds):
    return milliseconds << 80 | secrets.randbits(80)


def ulid_text(value):
    return "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def run(arguments, data=b""):
    done = subprocess.run(arguments, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit("%s failed: %s" % (arguments[0], done.stderr.decode()))
    return done.stdout


def encrypt_with_passphrase(path, data, passphrase):
    """`age -p`, which asks for the passphrase twice, on a terminal only."""
    with tempfile.NamedTemporaryFile() as plain:
        plain.write(data)
        plain.flush()
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvp("age", ["age", "-p", "-o", path, plain.name])
        said = b""
        while select.select([terminal], [], [], 60)[0]:
            try:
                said += os.read(terminal, 4096)
            except OSError:
                break
            if said.rstrip().endswith(b":"):
                os.write(terminal, passphrase + b"\n")
                said = b""
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "age -p failed: %r" % said


def named(entry, name, value):
    """Puts a name into a JSON object, in base64 if it is not UTF-8."""
    try:
        entry[name] = value.decode()
    except UnicodeDecodeError:
        entry[name + "64"] = base64.b64encode(value).decode()


class Repository:
    """The parts that sessions have in common: where objects go, the secrets, and what is stored already."""

    def __init__(self, out, mode):
        self.out, self.mode, self.id = out, mode, ulid_text(ulid_value(1_767_225_600_000))
        self.known = set()
        self.id_key = secrets.token_bytes(32) if mode != "none" else None
        self.mac_key = secrets.token_bytes(32) if mode != "none" else b""
        self.recipient = None
        os.makedirs(out)

    def put(self, key, data, encrypt=False):
        path = os.path.join(self.out, key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        assert not os.path.exists(path), "objects are never changed"
        if encrypt and self.recipient:
            data = run(["age", "-r", self.recipient], data)
        with open(path, "wb") as file:
            file.write(data)
        return data

    def put_json(self, key, value):
        self.put(key, json.dumps(value).encode())

    def chunk_id(self, data):
        return RESTORE.blake3(data, self.id_key)

    def create(self, identity_file, passphrase_file):
        about = {"format": 1, "id": self.id, "created": "2026-01-01T00:00:00Z", "features": [],
                 "encryption": "none" if self.mode == "none" else "age", "chunker": CHUNKER, "storage": {}}
        if self.mode != "none":
            identity = run(["age-keygen"]).decode().split("\n")
            secret = next(line for line in identity if line.startswith("AGE-SECRET-KEY-"))
            self.recipient = about["recipient"] = next(line for line in identity if "public key:" in line).split()[-1]
            text = json.dumps({"repository": self.id, "identity": secret, "id_key": self.id_key.hex(), "mac_key": self.mac_key.hex()}).encode()
            key = "keys/%s.age" % ulid_text(ulid_value(1_767_225_600_001))
            if self.mode == "identity":
                if not os.path.exists(identity_file):
                    subprocess.run(["age-keygen", "-o", identity_file], check=True, stderr=subprocess.DEVNULL)
                people = run(["age-keygen", "-y", identity_file]).decode().split()
                self.put(key, run(["age"] + [word for one in people for word in ("-r", one)], text))
            else:
                if not os.path.exists(passphrase_file):
                    with open(os.open(passphrase_file, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
                        file.write("correct horse %s staple\n" % secrets.token_hex(4))
                with open(passphrase_file, "rb") as file:
                    passphrase = file.read().rstrip(b"\n")
                os.makedirs(os.path.join(self.out, "keys"))
                encrypt_with_passphrase(os.path.join(self.out, key), text, passphrase)
        self.put_json("voltool.json", about)
        for name in ("restore.py", "README-repository.txt"):
            with open(os.path.join(HERE, "..", "..", "examples", name), "rb") as file:
                self.put("README.txt" if name.endswith(".txt") else name, file.read())


class Session:
    """One writer: it puts packs, an index and a record."""

    def __init__(self, repository, milliseconds):
        self.repository, self.value = repository, ulid_value(milliseconds)
        self.id = ulid_text(self.value)
        self.pending = {"data": [], "metadata": []}
        self.packs, self.rows = [], []  # for the index: (number, size, header) and rows
        self.number = self.added = self.stored = 0
        repository.put_json("sessions/%s.json" % self.id, {"session": self.id, "started": "2026-01-01T00:00:00Z", "tool": "make_repository.py"})

    def chunk(self, kind, data, base=None):
        """Stores a chunk unless it is stored already; `base` is (id, data) of the chunk to make a delta against."""
        chunk = self.repository.chunk_id(data)
        if chunk not in self.repository.known:
            self.repository.known.add(chunk)
            self.added += len(data)
            queue = "data" if kind <= FIXED else "metadata"
            self.pending[queue].append((chunk, kind, data, base))
            if sum(len(waiting[2]) for waiting in self.pending[queue]) > PACK_TARGET:
                self.flush(queue)
        return chunk

    def frame(self, data, base):
        arguments = ["zstd", "-3", "-q", "-c", "--check", "--stream-size=%d" % len(data)]
        if base is None:
            return run(arguments, data)
        with tempfile.NamedTemporaryFile() as file:
            file.write(base)
            file.flush()
            return run(arguments + ["--patch-from=" + file.name], data)

    def flush(self, queue):
        pending, self.pending[queue] = self.pending[queue], []
        if not pending:
            return
        pack, table = b"", b""
        for chunk, kind, data, base in pending:
            flags, base_id = (1, base[0]) if base else (0, b"")
            frame = self.frame(data, base[1] if base else None)
            payload = b"VTC1" + chunk + struct.pack("<IBB", len(data), kind, flags) + base_id
            pack += struct.pack("<II", 0x184D2A50, len(payload)) + payload
            row = struct.pack("<IIIBB", len(pack), len(frame), len(data), kind, flags)
            table += chunk + row + base_id
            self.rows.append((chunk, len(self.packs), row, base_id))
            pack += frame
        table += struct.pack("<II", len(pending), len(table) + 16) + b"VTPACK01"
        pack += struct.pack("<II", 0x184D2A5E, len(table)) + table
        stored = self.repository.put("packs/%s/%d.pack" % (self.id, self.number), pack, encrypt=True)
        header = b""
        if self.repository.recipient:
            end = stored.index(b"\n", stored.index(b"\n--- ") + 1) + 1 + 16
            header = stored[:end]
        self.packs.append((self.number, len(stored), header))
        self.stored += len(stored)
        self.number += 1

    def index(self, damage=False):
        self.flush("data")
        self.flush("metadata")
        out = b"VTINDEX1" + struct.pack("<I", len(self.packs))
        for number, size, header in self.packs:
            out += self.value.to_bytes(16, "big") + struct.pack("<IQH", number, size, len(header)) + header
        rows = sorted(self.rows)
        out += struct.pack("<I", len(rows))
        for chunk, pack, row, _ in rows:
            out += chunk + struct.pack("<I", pack) + row + b"\0\0"
        bases = [struct.pack("<I", number) + row[3] for number, row in enumerate(rows) if row[3]]
        out += struct.pack("<I", len(bases)) + b"".join(bases)
        data = run(["zstd", "-q", "-c", "--check", "--stream-size=%d" % len(out)], out)
        if damage:
            data = data[:-40] + bytes(40)
        self.repository.put("index/%s.idx" % ulid_text(ulid_value(self.value >> 80)), data, encrypt=True)

    def commit(self, volume, engine, time, root, entries, parent=None, finish=True, errors=()):
        repository = self.repository
        name = engine.encode() + b"\0" + volume.encode()
        source = hmac.new(repository.mac_key, name, hashlib.sha256).hexdigest()[:32]
        if repository.mode == "none":
            source = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in volume)[:64] + "." + source[:16]
        files = [entry for entry in entries if entry["t"] == "f"]
        linked = {entry["hl"]: entry["s"] for entry in files if "hl" in entry}
        record = {"version": 1, "id": self.id, "volume": volume, "engine": engine, "kind": "volume", "time": time, "finished": time,
                  "parent": parent, "root": [chunk.hex() for chunk in root], "entries": len(entries), "files": len(files),
                  "bytes": sum(entry["s"] for entry in files if "hl" not in entry) + sum(linked.values()),
                  "added_bytes": self.added, "stored_bytes": self.stored, "errors": list(errors), "tags": ["test"], "tool": "make_repository.py",
                  "docker": {"volume": {"name": volume, "driver": "local", "labels": {"made-by": "make_repository.py"}, "options": {},
                                        "anonymous": False}, "containers": []}}
        key = "snapshots/%s/%s.json" % (source, self.id)
        line = json.dumps(record).encode()
        mac = hmac.new(repository.mac_key, key.encode() + b"\n" + line, hashlib.sha256).hexdigest()
        repository.put(key, line + b"\n" + json.dumps({"mac": mac}).encode() + b"\n", encrypt=True)
        if finish:
            os.unlink(os.path.join(repository.out, "sessions", self.id + ".json"))


def walk(root):
    """The paths below `root` in the order of the format: `/` sorts below every other byte."""
    paths = []

    def below(folder):
        for name in os.listdir(os.path.join(root, folder) if folder else root):
            path = os.path.join(folder, name) if folder else name
            paths.append(path)
            if stat.S_ISDIR(os.lstat(os.path.join(root, path)).st_mode):
                below(path)

    below(b"")
    return [b"."] + sorted(paths, key=lambda path: path.replace(b"/", b"\0"))


def extents(path, size):
    """(offset, length, has content) over a whole file."""
    with open(path, "rb") as file:
        at = 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                start = size
            if start > at:
                yield at, start - at, False
            if start < size:
                end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                yield start, end - start, True
                start = end
            at = start


class Snapshot:
    """Turns a tree into entries. With `older`, page-structured files get other content: the bases of the deltas that follow."""

    def __init__(self, session, source, older=False, bases=None):
        self.session, self.source, self.older = session, os.fsencode(source), older
        self.bases = bases if bases is not None else {}
        self.bundle, self.bundled = b"", []  # content that waits for a chunk, and [segments list, start, length] of the files in it
        self.links = {}
        self.entries = [self.entry(path) for path in walk(self.source)]
        self.end_bundle()

    def entry(self, path):
        full = os.path.join(self.source, path)
        info = os.lstat(full)
        kind = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p", stat.S_IFSOCK: "s", stat.S_IFCHR: "c",
                stat.S_IFBLK: "b"}[stat.S_IFMT(info.st_mode)]
        entry = {}
        named(entry, "p", path)
        entry.update(t=kind, m=stat.S_IMODE(info.st_mode), u=info.st_uid, g=info.st_gid, mt=list(divmod(info.st_mtime_ns, 10**9)),
                     ct=list(divmod(info.st_ctime_ns, 10**9)), i=info.st_ino)
        attributes = []
        for name in sorted(os.fsencode(n) for n in os.listxattr(full, follow_symlinks=False)):
            value = base64.b64encode(os.getxattr(full, name, follow_symlinks=False)).decode()
            try:
                attributes.append([name.decode(), value])
            except UnicodeDecodeError:
                attributes.append(["", value, base64.b64encode(name).decode()])
        if attributes:
            entry["x"] = attributes
        if kind != "d" and info.st_nlink > 1:
            entry["hl"] = self.links.setdefault((info.st_dev, info.st_ino), "link%d" % len(self.links))
        if kind == "l":
            named(entry, "l", os.readlink(full))
        elif kind in "cb":
            entry["dv"] = [os.major(info.st_rdev), os.minor(info.st_rdev)]
        elif kind == "f":
            entry["s"] = info.st_size
            if info.st_size:
                self.content(entry, full, path)
        return entry

    def content(self, entry, full, path):
        if path.endswith((b".db", b".img")):
            entry["k"] = "fixed"
        elif entry["s"] <= CHUNKER["bundle_max_file"]:
            entry["k"] = "bundle"
        else:
            entry["k"] = "cdc"
        segments = []
        with open(full, "rb") as file:
            if entry["k"] == "bundle":
                data = file.read()
                entry["h"] = self.session.repository.chunk_id(data).hex()
                entry["c"] = segments
                self.bundle_in(segments, data)
                return
            for offset, length, is_data in extents(full, entry["s"]):
                file.seek(offset)
                if not is_data:
                    segments.append([length])
                    continue
                end = offset + length
                while offset < end:
                    piece = file.read(min(end, self.cut(entry["k"], path, offset)) - offset)
                    segments.append([self.store(entry["k"], path, offset, piece).hex(), len(piece)])
                    offset += len(piece)
        if len(segments) <= MAX_SEGMENTS:
            entry["c"] = segments
            return
        entry["cl"] = []
        for first in range(0, len(segments), LIST_SEGMENTS):
            part = segments[first : first + LIST_SEGMENTS]
            lines = "".join(json.dumps(segment) + "\n" for segment in part).encode()
            entry["cl"].append([self.session.chunk(LIST, lines).hex(), sum(s[1] if len(s) > 1 else s[0] for s in part)])

    def cut(self, kind, path, offset):
        """Where the chunk that begins at `offset` ends at the latest."""
        if kind == "fixed":
            return (offset // CHUNKER["fixed"] + 1) * CHUNKER["fixed"]
        spread = int.from_bytes(hashlib.sha256(path + b"%d" % offset).digest()[:4], "little")  # readers do not care where
        return offset + CHUNKER["cdc_min"] + spread % (CHUNKER["cdc_max"] - CHUNKER["cdc_min"])

    def store(self, kind, path, offset, piece):
        if kind == "cdc":
            return self.session.chunk(CDC, piece)
        if self.older:
            piece = b"older!" + piece[6:]
            chunk = self.session.chunk(FIXED, piece)
            self.bases[path, offset] = chunk, piece
            return chunk
        return self.session.chunk(FIXED, piece, self.bases.get((path, offset)))

    def bundle_in(self, segments, data):
        while data:
            part = data[: CHUNKER["bundle_target"] - len(self.bundle)]
            self.bundled.append((segments, len(self.bundle), len(part)))
            self.bundle += part
            data = data[len(part) :]
            if len(self.bundle) == CHUNKER["bundle_target"]:
                self.end_bundle()

    def end_bundle(self):
        if self.bundle:
            chunk = self.session.chunk(BUNDLE, self.bundle).hex()
            for segments, start, length in self.bundled:
                segments.append([chunk, length, start] if start or length != len(self.bundle) else [chunk, length])
        self.bundle, self.bundled = b"", []

    def root(self):
        """Stores the listing; the ids of the chunks that list its leaves."""
        leaves = []
        for first in range(0, len(self.entries), LEAF_ENTRIES):
            part = self.entries[first : first + LEAF_ENTRIES]
            chunk = self.session.chunk(LEAF, "".join(json.dumps(entry) + "\n" for entry in part).encode())
            leaf = {"leaf": chunk.hex(), "entries": len(part)}
            leaf.update({"first" + name[1:]: part[0][name] for name in ("p", "p64") if name in part[0]})
            leaves.append(leaf)
        text = "".join(json.dumps(leaf) + "\n" for leaf in leaves).encode()
        half = len(text) // 2  # on purpose not at the end of a line
        return [self.session.chunk(LIST, part) for part in (text[:half], text[half:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--encrypt", choices=("none", "identity", "passphrase"), required=True)
    parser.add_argument("--identity", metavar="FILE", help="for --encrypt identity; made if it is not there")
    parser.add_argument("--passphrase-file", metavar="FILE", help="for --encrypt passphrase; made if it is not there")
    parser.add_argument("--out", required=True, metavar="DIR", help="the repository; must not exist")
    parser.add_argument("--source", required=True, metavar="TREE", help="the directory to store")
    parser.add_argument("--volume", default="everything", metavar="NAME")
    parser.add_argument("--engine", default="engine-1", metavar="NAME")
    parser.add_argument("--index", choices=("good", "damaged", "missing"), default="good", help="the state of the latest snapshot's index")
    args = parser.parse_args()
    if args.encrypt == "identity" and not args.identity or args.encrypt == "passphrase" and not args.passphrase_file:
        parser.error("--encrypt %s needs the file" % args.encrypt)
    repository = Repository(args.out, args.encrypt)
    repository.create(args.identity, args.passphrase_file)
    day = 86_400_000
    start = 1_767_225_600_000  # 2026-01-01
    made, bases, parent = {}, {}, None
    for number, name in enumerate(("older", "latest")):
        session = Session(repository, start + number * day + 1)
        snapshot = Snapshot(session, args.source, name == "older", bases)
        root = snapshot.root()
        session.flush("data")
        session.flush("metadata")
        if name == "older" or args.index != "missing":
            session.index(damage=name == "latest" and args.index == "damaged")
        session.commit(args.volume, args.engine, "2026-01-0%dT00:00:00.000000001Z" % (number + 1), root, snapshot.entries, parent,
                       errors=[{"path": "made/up", "error": "permission denied"}] if name == "older" else [])
        made[name] = parent = session.id
    with tempfile.TemporaryDirectory() as empty:
        others = ((args.volume, args.engine, "forgotten"), (args.volume, args.engine, "rejected"), ("nothing", args.engine, "nothing"),
                  ("twice", args.engine, "twice"), ("twice", "engine-2", "twice-2"))
        for number, (volume, engine, name) in enumerate(others, 2):
            session = Session(repository, start + number * day)
            snapshot = Snapshot(session, empty)
            root = snapshot.root()
            session.index()
            session.commit(volume, engine, "2026-01-0%dT00:00:00Z" % (number + 1), root, snapshot.entries, finish=name != "rejected")
            made[name] = session.id
    repository.put_json("forgotten/%s.json" % made["forgotten"], {"session": made["forgotten"], "time": "2026-02-01T00:00:00Z"})
    dead = Session(repository, start + 20 * day)
    dead.chunk(CDC, b"of a writer that died before its record")
    dead.flush("data")
    repository.put_json("gc/0.json", {"epoch": 0, "condemned": ["packs/%s/0.pack" % ulid_text(ulid_value(start))]})
    repository.put("fences/%s/0" % made["rejected"], b"")
    repository.put_json("gc/0.decided", {"epoch": 0, "rejected": [made["rejected"]]})
    print(json.dumps({"repository": repository.id, "volume": args.volume, "engine": args.engine, "snapshots": made}))


if __name__ == "__main__":
    main()
