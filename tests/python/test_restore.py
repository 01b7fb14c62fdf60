#!/usr/bin/env python3
"""Tests of examples/restore.py: every kind of entry, every kind of repository, every kind of damage.

    python3 -m unittest discover -s tests/python            (as root, to have devices, owners and attributes in it)

The repositories come from make_repository.py, an independent writer of the format; the tar goes through GNU tar.
"""

import contextlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import unittest
from unittest import mock

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import make_repository  # noqa: E402

PROGRAM = os.path.join(HERE, "..", "..", "examples", "restore.py")
ROOT = os.geteuid() == 0
BLAKE3_VECTORS = {  # input length: (hash, keyed hash), from BLAKE3's published test vectors, the first 16 bytes
    0: ("af1349b9f5f9a1a6a0404dea36dcc949", "92b2b75604ed3c761f9d6f62392c8a92"),
    1: ("2d3adedff11b61f14c886e35afa03673", "6d7878dfff2f485635d39013278ae14f"),
    1023: ("10108970eeda3eb932baac1428c7a216", "c951ecdf03288d0fcc96ee3413563d8a"),
    1024: ("42214739f095a406f3fc83deb889744a", "75c46f6f3d9eb4f55ecaaee480db732e"),
    1025: ("d00278ae47eb27b34faecf67b4fe263f", "357dc55de0c7e382c900fd6e320acc04"),
    2049: ("5f4d72f40d7a5f82b15ca2b2e44b1de3", "9f29700902f7c86e514ddc4df1e3049f"),
    3073: ("7124b49501012f81cc7f11ca069ec922", "68dede9bef00ba89e43f31a6825f4cf4"),
    7169: ("a003fc7a51754a9b3c7fae0367ab3d78", "ed9b1a922c046fdb3d423ae34e143b05"),
    102400: ("bc3e3d41a1146b069abffad3c0d44860", "1c35d1a5811083fd7119f5d5d1ba027b"),
}


def describe(root, times=True):
    """Everything about a tree that a restore has to bring back, as {path: facts}."""
    facts, links = {}, {}
    for path in make_repository.walk(os.fsencode(root)):
        full = os.path.join(os.fsencode(root), path)
        info = os.lstat(full)
        if stat.S_ISSOCK(info.st_mode):
            continue
        fact = {"mode": info.st_mode, "owner": (info.st_uid, info.st_gid) if ROOT else None, "device": info.st_rdev,
                "mtime": info.st_mtime_ns if times else None,
                "attributes": {n: os.getxattr(full, n, follow_symlinks=False) for n in os.listxattr(full, follow_symlinks=False)}}
        if stat.S_ISLNK(info.st_mode):
            fact["target"] = os.readlink(full)
        if not stat.S_ISDIR(info.st_mode):
            fact["linked"] = links.setdefault((info.st_dev, info.st_ino), path)
        if stat.S_ISREG(info.st_mode):
            fact["size"] = info.st_size
            content = []
            with open(full, "rb") as file:
                for offset, length, is_data in make_repository.extents(full, info.st_size):
                    file.seek(offset)
                    content.append((offset, file.read(length) if is_data else length))
            fact["content"] = content
        facts[path] = fact
    return facts


SHARED = {}  # one tree and one repository of each sort for all tests


def setUpModule():
    SHARED["scratch"] = scratch = tempfile.mkdtemp(prefix="voltool-test-")
    unittest.addModuleCleanup(subprocess.run, ["rm", "-rf", scratch], check=True)
    SHARED["tree"] = os.path.join(scratch, "tree")
    SHARED["made"] = {}
    subprocess.run([sys.executable, os.path.join(HERE, "make_tree.py"), SHARED["tree"]] + ([] if ROOT else ["--plain"]), check=True)


class Base(unittest.TestCase):
    maxDiff = 2000

    @classmethod
    def setUpClass(cls):
        cls.scratch, cls.tree, cls.made = SHARED["scratch"], SHARED["tree"], SHARED["made"]
        cls.identity = os.path.join(cls.scratch, "key")
        cls.passphrase = os.path.join(cls.scratch, "phrase")

    @classmethod
    def repository(cls, mode):
        """(directory, options that open it); made once."""
        keys = {"none": [], "identity": ["--identity", cls.identity], "passphrase": ["--passphrase-file", cls.passphrase]}[mode]
        path = os.path.join(cls.scratch, mode)
        if mode not in cls.made:
            arguments = ["--encrypt", mode, "--out", path, "--source", cls.tree]
            done = subprocess.run([sys.executable, os.path.join(HERE, "make_repository.py")] + arguments + keys, check=True, stdout=subprocess.PIPE)
            cls.made[mode] = json.loads(done.stdout)["snapshots"]
        return path, keys

    def copy(self, mode):
        """A copy of a repository that a test may damage."""
        path, keys = self.repository(mode)
        place = tempfile.mkdtemp(dir=self.scratch)
        self.addCleanup(shutil.rmtree, place)
        shutil.copytree(path, os.path.join(place, "copy"))
        return os.path.join(place, "copy"), keys

    def restore(self, *arguments, code=0):
        """Runs restore.py; returns (its output, its messages)."""
        done = subprocess.run([sys.executable, PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                              stdin=subprocess.DEVNULL, env={**os.environ, "TZ": "UTC+5"})  # five hours behind
        messages = done.stderr.decode()
        self.assertEqual(done.returncode, code, messages)
        self.assertNotIn("Traceback", messages)
        return done.stdout, messages

    def unpack(self, tar):
        place = tempfile.mkdtemp(dir=self.scratch)
        self.addCleanup(subprocess.run, ["rm", "-rf", place], check=True)
        command = ["tar", "-x", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*", "-C", place]
        done = subprocess.run(command, input=tar, stderr=subprocess.PIPE, check=False)
        said = [line for line in done.stderr.decode().splitlines() if "time stamp" not in line]  # it finds the times in the tree odd
        self.assertEqual((done.returncode, said), (0, []))
        return place

    def same(self, tar, but=()):
        """The tar holds the tree, but for the content of the files named."""
        want, got = describe(self.tree), describe(self.unpack(tar))
        self.assertEqual(sorted(want), sorted(got))
        for path, fact in want.items():
            if path.decode("latin-1") in but:
                fact.pop("content"), got[path].pop("content")
            for name, value in fact.items():
                self.assertEqual(value, got[path][name], "%s of %r" % (name, path))


class Blake3(unittest.TestCase):
    def test_vectors(self):
        for length, (plain, keyed) in BLAKE3_VECTORS.items():
            data = (bytes(range(251)) * (length // 251 + 1))[:length]
            blake3 = make_repository.RESTORE.blake3
            self.assertEqual(blake3(data).hex()[:32], plain, length)
            self.assertEqual(blake3(data, b"whats the Elvish word for friend").hex()[:32], keyed, length)


class Whole(Base):
    def test_every_entry_kind(self):
        for mode in ("none", "identity", "passphrase"):
            with self.subTest(mode):
                path, keys = self.repository(mode)
                tar, messages = self.restore(*keys, path, "everything")
                self.same(tar)
                self.assertIn("special/socket is a socket", messages)

    def test_verify(self):
        path, keys = self.repository("identity")
        self.same(self.restore("--verify", *keys, path, "everything@latest")[0])

    def test_python_reads_the_tar_too(self):
        path, keys = self.repository("none")
        with tarfile.open(fileobj=io.BytesIO(self.restore(*keys, path, "everything")[0])) as tar:
            names = {os.fsencode(os.path.normpath(member.name)) for member in tar}
        self.assertEqual(names, set(describe(self.tree)))

    def test_the_older_snapshot_has_the_bases_of_the_deltas(self):
        path, keys = self.repository("none")
        got = describe(self.unpack(self.restore(*keys, path, "everything@2026-01-01T12:00")[0]))
        self.assertEqual(got[b"data/pages.db"]["content"][0][1][:6], b"older!")
        self.assertEqual(got[b"data/log.txt"], describe(self.tree)[b"data/log.txt"])

    def test_format_shapes_are_in_the_test(self):
        """The tests are worth something only if the writer uses all of the format."""
        path, _ = self.repository("none")
        text = b"".join(make_repository.RESTORE.Repository(path).chunk(chunk) for chunk in self.chunks(path, 4))
        for shape in (b'"p64"', b'"l64"', b'"hl"', b'"cl"', b'"x"', b'"dv"', b'"k": "bundle"', b'"k": "cdc"', b'"k": "fixed"'):
            if ROOT or shape != b'"dv"':
                self.assertIn(shape, text)
        self.assertTrue(any(row.base for row in self.rows(path)))

    def rows(self, path):
        repository = make_repository.RESTORE.Repository(path)
        for key in repository.list("packs", ".pack"):
            yield from make_repository.RESTORE.Pack(key, repository.read(key)).rows

    def chunks(self, path, kind):
        repository = make_repository.RESTORE.Repository(path)
        repository.load_indexes()
        return [row.id for row in self.rows(path) if row.kind == kind]


class Choosing(Base):
    def entries(self, tar):
        with tarfile.open(fileobj=io.BytesIO(tar)) as file:
            return len(file.getmembers())

    def test_which_snapshot(self):
        path, keys = self.repository("none")
        made = self.made["none"]
        for which, expected in (("", "latest"), ("@latest", "latest"), ("@" + made["older"], "older"), ("@" + made["latest"][:8].lower(), "latest"),
                                ("@2026-01-02T00:00:00.000000001Z", "latest"), ("@2026-01-02T00:00:00.000000000Z", "older"),
                                ("@2026-01-02T00:00:00Z", "latest"), ("@2026-01-01T23:59Z", "older"), ("@2026-01-01T23:59", "latest"),
                                ("@2026-01-02", "latest"), ("@2026-01-01 18:59", "older"), ("@2030-01-01", "latest"), ("@2025-12-31", "older"),
                                ("@2026-01-02T01:59+02:00", "older"), ("@2026-01-02T02:00:00+02:00", "latest")):
            _, messages = self.restore(*keys, path, "everything" + which)
            self.assertIn("snapshot %s," % made[expected], messages, which)

    def test_what_does_not_count(self):
        path, keys = self.repository("none")
        listing, _ = self.restore("--list", *keys, path)
        for name, session in self.made["none"].items():
            self.assertEqual(session.encode() in listing, name not in ("forgotten", "rejected"), name)
        for name in ("forgotten", "rejected"):
            self.restore(*keys, path, "everything@" + self.made["none"][name], code=1)

    def test_not_found(self):
        path, keys = self.repository("none")
        self.assertIn("everything, nothing, twice", self.restore(*keys, path, "evrything", code=1)[1])
        self.assertIn("is meant by", self.restore(*keys, path, "everything@2025-01-01", code=1)[1])
        self.assertIn("several snapshots", self.restore(*keys, path, "everything@01K", code=1)[1])
        self.assertIn("is not a time", self.restore(*keys, path, "everything@2026-13-01", code=2)[1])

    def test_engines(self):
        path, keys = self.repository("identity")
        self.assertIn("engine-1, engine-2", self.restore(*keys, path, "twice", code=1)[1])
        self.assertEqual(self.entries(self.restore("--engine", "engine-2", *keys, path, "twice")[0]), 1)

    def test_keys(self):
        path, keys = self.repository("identity")
        other = os.path.join(self.scratch, "other-identity")
        subprocess.run(["age-keygen", "-o", other], check=True, stderr=subprocess.DEVNULL)
        self.restore("--list", path, code=12)
        self.restore("--list", "--identity", other, path, code=12)
        self.restore("--list", "--identity", os.path.join(self.scratch, "absent"), path, code=1)
        self.restore("--list", "--identity", other, "--passphrase-file", other, path, code=2)
        locked, _ = self.repository("passphrase")
        wrong = os.path.join(self.scratch, "wrong")
        for text, code in ((b"wrong\n", 12), (b"", 12), (b"with\x03control\x04characters\x7f", 12)):
            with open(wrong, "wb") as file:
                file.write(text)
            self.restore("--list", "--passphrase-file", wrong, locked, code=code)
        self.restore("--list", "--identity", other, locked, code=12)
        moved, _ = self.copy("identity")
        shutil.rmtree(os.path.join(moved, "keys"))
        shutil.copytree(os.path.join(path, "keys"), os.path.join(moved, "keys"))
        about = os.path.join(moved, "voltool.json")
        with open(about, encoding="utf-8") as file:
            text = json.load(file)
        text["id"] = "0" * 26
        with open(about, "w", encoding="utf-8") as file:
            json.dump(text, file)
        self.assertIn("another repository", self.restore("--list", *keys, moved, code=12)[1])

    def test_not_a_repository(self):
        self.restore("--list", self.tree, code=10)
        self.restore("--list", os.path.join(self.scratch, "absent"), code=10)
        for change in ({"format": 2}, {"features": ["holograms"]}):
            path, _ = self.copy("none")
            about = os.path.join(path, "voltool.json")
            with open(about, encoding="utf-8") as file:
                text = json.load(file)
            text.update(change)
            with open(about, "w", encoding="utf-8") as file:
                json.dump(text, file)
            self.restore("--list", path, code=1)


class Damage(Base):
    def packs(self, path, name="older"):
        folder = os.path.join(path, "packs", self.made[self.mode][name])
        return sorted(os.path.join(folder, n) for n in os.listdir(folder))

    def damaged(self, mode):
        self.mode = mode
        return self.copy(mode)

    @staticmethod
    def edit(path, at, data=None):
        with open(path, "r+b") as file:
            file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
            old = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([old[0] ^ 1]) if data is None else data)

    def holding(self, path, content):
        """The data pack of the older snapshot that holds these bytes uncompressed (of a photo, which does not compress), and where."""
        for pack in self.packs(path):
            with open(pack, "rb") as file:
                at = file.read().find(content)
            if at >= 0:
                return pack, at
        raise AssertionError("not found")

    def photo(self, offset=300_000):
        with open(os.path.join(self.tree, "data", "photo.jpg"), "rb") as file:
            file.seek(offset)
            return file.read(64)

    def test_without_indexes(self):
        for mode in ("none", "identity"):
            path, keys = self.damaged(mode)
            shutil.rmtree(os.path.join(path, "index"))
            self.same(self.restore(*keys, path, "everything")[0])

    def test_damaged_indexes(self):
        for mode in ("none", "identity"):
            path, keys = self.damaged(mode)
            folder = os.path.join(path, "index")
            for number, name in enumerate(sorted(os.listdir(folder))):
                if number % 2:
                    self.edit(os.path.join(folder, name), -20)
                else:
                    os.truncate(os.path.join(folder, name), os.path.getsize(os.path.join(folder, name)) // 2)
            tar, messages = self.restore(*keys, path, "everything")
            self.same(tar)
            self.assertIn(".idx is damaged", messages)

    def test_lost_tables(self):
        path, keys = self.damaged("none")
        for pack in self.packs(path) + self.packs(path, "latest"):
            os.truncate(pack, os.path.getsize(pack) - 7)
        tar, messages = self.restore(*keys, path, "everything")
        self.same(tar)
        self.assertIn("its table is damaged", messages)

    def test_a_byte_in_a_chunk(self):
        path, keys = self.damaged("none")
        pack, at = self.holding(path, self.photo())
        self.edit(pack, at)
        tar, messages = self.restore(*keys, path, "everything", code=1)
        self.same(tar, but=["data/photo.jpg"])
        self.assertRegex(messages, r"data/photo.jpg is damaged: bytes \d+ to \d+ are zeros here: chunk [0-9a-f]{64} is lost: packs/")

    def test_a_byte_in_an_id(self):
        path, keys = self.damaged("none")
        pack, at = self.holding(path, self.photo())
        with open(pack, "rb") as file:
            head = file.read(at).rfind(b"VTC1")
        self.edit(pack, head + 10)
        tar, messages = self.restore(*keys, path, "everything")
        self.same(tar)
        self.assertIn("disagree about 1 chunks", messages)

    def test_an_encrypted_pack(self):
        path, keys = self.damaged("identity")
        pack = max(self.packs(path), key=os.path.getsize)
        self.edit(pack, os.path.getsize(pack) // 2)
        tar, messages = self.restore(*keys, path, "everything", code=1)
        self.assertIn(os.path.relpath(pack, path) + " is damaged", messages)
        self.unpack(tar)

    def test_a_pack_that_is_gone(self):
        path, keys = self.damaged("identity")
        pack = self.packs(path)[0]
        os.unlink(pack)
        tar, messages = self.restore(*keys, path, "everything", code=1)
        self.assertIn(os.path.relpath(pack, path) + " is missing", messages)
        self.assertEqual(sorted(describe(self.tree)), sorted(describe(self.unpack(tar))))

    def test_swapped_packs(self):
        path, keys = self.damaged("identity")
        one, two = self.packs(path)[:2]
        os.rename(one, one + ".x")
        os.rename(two, one)
        os.rename(one + ".x", two)
        self.same(self.restore(*keys, path, "everything")[0])  # the packs say what they hold

    def test_a_lost_leaf(self):
        path, keys = self.damaged("none")
        for name in self.packs(path):
            with open(name, "rb") as file:
                pack = make_repository.RESTORE.Pack(name, file.read())
            leaves = [row for row in pack.rows if row.kind == 4]
            if leaves:
                self.edit(name, leaves[1].offset + 40)
        tar, messages = self.restore(*keys, path, "everything", code=1)
        self.assertRegex(messages, r"256 entries from '[^']+' on are lost: a leaf of the listing is damaged")
        want, got = describe(self.tree), describe(self.unpack(tar))
        self.assertEqual(len(got), len(want) - 256)

    def test_records(self):
        path, keys = self.damaged("none")
        folder = next(f for f in os.listdir(os.path.join(path, "snapshots")) if f.startswith("everything"))
        record = os.path.join(path, "snapshots", folder, self.made["none"]["latest"] + ".json")
        self.edit(record, 100)
        _, messages = self.restore(*keys, path, "everything", code=1)
        self.assertRegex(messages, r"a newer snapshot is damaged: snapshots/.*\n.*everything@" + self.made["none"]["older"])
        self.restore(*keys, path, "everything@" + self.made["none"]["older"])
        self.restore("--list", *keys, path, code=1)

    def test_a_record_under_another_key(self):
        path, keys = self.damaged("identity")
        for folder, _, names in os.walk(os.path.join(path, "snapshots")):
            if self.made["identity"]["older"] + ".json" in names:
                os.rename(os.path.join(folder, self.made["identity"]["older"] + ".json"), os.path.join(folder, "0" * 26 + ".json"))
        self.assertIn("its MAC is wrong", self.restore("--list", *keys, path, code=1)[1])


class Hostile(unittest.TestCase):
    """Repositories that no honest writer makes."""

    def setUp(self):
        self.place = tempfile.mkdtemp(prefix="voltool-test-")
        self.addCleanup(shutil.rmtree, self.place)
        self.path = os.path.join(self.place, "repository")
        self.repository = make_repository.Repository(self.path, "none")
        self.repository.create(None, None)

    def commit(self, entries, change=None):
        session = make_repository.Session(self.repository, 1)
        empty = os.path.join(self.place, "empty")
        os.makedirs(empty, exist_ok=True)
        snapshot = make_repository.Snapshot(session, empty)
        for entry in entries:
            snapshot.entries.append({"t": "f", "m": 420, "u": 0, "g": 0, "mt": [0, 0], "s": 0, **entry})
        root = snapshot.root()
        if change:
            change(session)
        session.index()
        session.commit("v", "e", "2026-01-01T00:00:00Z", root, snapshot.entries)

    def restore(self, *options):
        done = subprocess.run([sys.executable, PROGRAM, *options, self.path, "v"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            return done.returncode, tar.getnames(), done.stderr.decode()

    def test_paths(self):
        self.commit([{"p": "../up"}, {"p": "/absolute"}, {"p": "a/../../b"}, {"p": ""}, {"p": "a//b"}, {"p": "a/./b"}, {"p": "nul\0"}, {"p": "good"}])
        code, names, messages = self.restore()
        self.assertEqual((code, names, messages.count("refused")), (1, [".", "./good"], 7))

    def test_below_a_link(self):
        self.commit([{"p": "link", "t": "l", "l": "/etc"}, {"p": "link/passwd"}, {"p": "link/x/y"}, {"p": "linked"}, {"p": "link/late"}])
        code, names, messages = self.restore()
        self.assertEqual((code, names, messages.count("refused")), (1, [".", "./link", "./linked"], 3))

    def test_a_name_twice(self):
        self.commit([{"p": "a", "t": "d"}, {"p": "a", "t": "l", "l": "/etc"}, {"p": "a/b"}])
        self.assertEqual(self.restore()[:2], (1, [".", "./a", "./a/b"]))

    def test_entries_that_make_no_sense(self):
        self.commit([{"p": "a", "mt": 5}, {"p": "b", "s": 3, "c": [[-1], [4]]}, {"p": "c", "t": "x"}, {"p": "d", "s": 1, "c": [["zz", 1]]},
                     {"p": "e", "t": "l"}, {"p": "f", "x": [["user.x", "!"]]}, {"p": "good"}])
        code, names, messages = self.restore()
        self.assertEqual((code, names, messages.count("makes no sense")), (1, [".", "./good"], 6))

    def test_a_delta_of_a_delta(self):
        entries = [{"p": "file", "s": 4, "k": "fixed", "c": []}]
        data = [b"one!", b"two!", b"tre!"]
        ids = [self.repository.chunk_id(piece) for piece in data]
        entries[0]["c"].append([ids[2].hex(), 4])

        def change(session):
            session.chunk(3, data[0], (ids[1], data[1]))  # each is the base of the other
            session.chunk(3, data[1], (ids[0], data[0]))
            session.chunk(3, data[2], (ids[0], data[0]))

        self.commit(entries, change)
        code, names, messages = self.restore()
        self.assertEqual((code, names), (1, [".", "./file"]))
        self.assertIn("file is damaged", messages)

    def test_wrong_content_under_an_id(self):
        def change(session):
            with mock.patch.object(self.repository, "chunk_id", lambda data: b"\7" * 32), contextlib.suppress(KeyError):
                session.chunk(3, b"lies")

        self.commit([{"p": "file", "s": 4, "k": "fixed", "c": [["07" * 32, 4]]}], change)
        self.assertEqual(self.restore()[0], 0)
        code, _, messages = self.restore("--verify")
        self.assertEqual(code, 1)
        self.assertIn("does not have the id 0707", messages)

    def test_lengths(self):
        chunk = self.repository.chunk_id(b"four").hex()
        self.commit([{"p": "a", "s": 5, "k": "fixed", "c": [[chunk, 4]]}, {"p": "b", "s": 9, "k": "fixed", "c": [[chunk, 9]]},
                     {"p": "c", "s": 2, "k": "bundle", "c": [[chunk, 2, 1]]}], lambda session: session.chunk(3, b"four"))
        code, names, messages = self.restore()
        self.assertEqual((code, names), (1, [".", "./b", "./c"]))
        self.assertIn("a is left out", messages)
        self.assertIn("b is damaged: bytes 0 to 9", messages)


if __name__ == "__main__":
    unittest.main()
