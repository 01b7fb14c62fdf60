#!/usr/bin/env python3
"""Make a directory with every kind of entry that a volume can hold: the subject of restore tests.

    make_tree.py DIRECTORY [--plain] [--huge GIB]

Everything about it is reproducible (contents, times, owners). As root, and on a file system that offers them, it has device nodes, foreign
owners, POSIX ACLs, capabilities and every kind of extended attribute; `--plain` leaves out what only root can make.
"""

import argparse
import os
import random
import socket
import struct
import subprocess

EPOCH = 1_700_000_000


def acl(*entries):
    """The bytes of a POSIX ACL attribute."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
ACCESS_ACL = acl((1, 6, NOBODY), (2, 4, 1234), (4, 4, NOBODY), (8, 2, 4321), (16, 6, NOBODY), (32, 0, NOBODY))
DEFAULT_ACL = acl((1, 7, NOBODY), (2, 5, 1234), (4, 5, NOBODY), (16, 5, NOBODY), (32, 5, NOBODY))
# cap_net_bind_service and cap_sys_time, permitted and effective (vfs_cap_data, revision 2)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10 | 1 << 25, 0, 0, 0)


def write(path, content, mode=0o644):
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def sparse(path, size, extents, seed):
    """A file of `size` bytes that has content at `extents` and holes elsewhere."""
    rng = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, length in extents:
            file.seek(offset)
            file.write(rng.randbytes(length))


def long_path(root, names):
    """Makes directories below each other whose path is longer than one system call takes, and a file at the end."""
    fd = os.open(root, os.O_RDONLY)
    try:
        for name in names:
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        with os.fdopen(os.open("end", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd), "wb") as file:
            file.write(b"the end of a long path\n")
    finally:
        os.close(fd)


def make_files(root, rng, huge):
    for name in ("empty-dir", "many", "mail", "data", "linked", "special", "meta", "names"):
        os.mkdir(os.path.join(root, name))
    join = lambda *parts: os.path.join(root, *parts)
    write(join("README"), b"A volume with everything in it.\n")
    write(join("empty"), b"")
    write(join("script.sh"), b"#!/bin/sh\nexit 0\n", 0o755)
    for i in range(600):  # enough for more than one leaf
        write(join("many", "file-%03d" % i), (b"line %d\n" % i) * (i % 40))
    for i in range(40):
        write(join("mail", "%d.eml" % i), rng.randbytes(rng.randrange(200, 9000)))
    text = b"".join(b"%d: the quick brown fox jumps over the lazy dog\n" % rng.randrange(10**6) for _ in range(20000))
    write(join("data", "log.txt"), text)
    write(join("data", "photo.jpg"), rng.randbytes(700_001))
    write(join("data", "many-segments.bin"), rng.randbytes(3 << 20))
    write(join("data", "pages.db"), b"".join(struct.pack("<I", i) * 256 + rng.randbytes(3072) for i in range(100)))
    write(join("data", "zeros.db"), bytes(200_000))
    sparse(join("data", "hole-in-the-middle.img"), 5 << 20, [(0, 65536), (3 << 20, 40000)], 1)
    sparse(join("data", "hole-at-both-ends.img"), 4 << 20, [(1 << 20, 100_000)], 2)
    sparse(join("data", "only-a-hole.img"), 1 << 20, [], 3)
    sparse(join("data", "huge.img"), huge << 30, [(huge << 29, 4096), ((huge << 30) - 4096, 4096)], 4)
    write(join("linked", "one"), b"one inode, three names\n")
    os.link(join("linked", "one"), join("linked", "two"))
    os.link(join("linked", "one"), join("data", "three"))
    os.symlink("one", join("linked", "relative"))
    os.symlink("/nowhere/at/all", join("linked", "dangling"))
    os.symlink("x" * 3000, join("linked", "long-target"))
    os.symlink(b"caf\xe9", os.fsencode(join("linked", "target-not-utf8")))
    os.link(join("linked", "dangling"), join("linked", "same-dangling"), follow_symlinks=False)
    os.mkfifo(join("special", "fifo"), 0o640)
    bound = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(join("special"))  # a socket's path must be short
    bound.bind("socket")
    os.chdir(here)
    bound.close()
    for mode in (0o000, 0o4755, 0o2755, 0o1777, 0o400):
        write(join("meta", "mode-%04o" % mode), b"mode\n", mode)
    os.mkdir(join("meta", "sticky"))
    os.chmod(join("meta", "sticky"), 0o1777)


def make_names(root):
    names = [b"new\nline", b"tab\there", b"back\\slash", b"quote\"'", b" leading space", b"trailing space ", b"-rf", b"caf\xc3\xa9", b"caf\xe9",
             b"\xff\xfe", b"star*?[x]", b"%41=percent", b"..hidden", b"...", b"a" * 255, b"\xe6\x97\xa5" * 85, b"dir", b"dir.txt", b"dir-a", b"dir!"]
    folder = os.fsencode(os.path.join(root, "names"))
    for name in names:
        path = os.path.join(folder, name)
        if name == b"dir":
            os.mkdir(path)
            path = os.path.join(path, b"inside")
        write(path, b"my name is " + name + b"\n")
    os.mkdir(os.path.join(folder, b"dir\xe9"))
    write(os.path.join(folder, b"dir\xe9", b"inside"), b"below a name that is not UTF-8\n")
    os.symlink(b"caf\xe9", os.path.join(folder, b"zz-link"))
    long_path(os.path.join(root, "names"), ["n%02d" % i + "x" * 247 for i in range(15)])  # 15 x 251 bytes: below 4,000 in all


def attributes(root, plain):
    path = os.path.join(root, "meta", "attributes")
    write(path, b"attributes\n")
    try:
        os.setxattr(path, "user.text", b"hello")
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.binary", bytes(range(256)))
        os.setxattr(path, "user.a=b%c", b"a name with an equals sign")
        os.setxattr(path, b"user.caf\xe9", b"a name that is not UTF-8")
        os.setxattr(os.path.join(root, "meta"), "user.folder", b"on a directory")
    except OSError as error:
        print("no user attributes here: %s" % error)
    if plain:
        return
    for name, attribute, value in (("acl", "system.posix_acl_access", ACCESS_ACL), ("capable", "security.capability", CAPABILITY),
                                   ("trusted", "trusted.voltool", b"only root sees this")):
        path = os.path.join(root, "meta", name)
        write(path, name.encode() + b"\n", 0o755)
        try:
            os.setxattr(path, attribute, value)
        except OSError as error:
            print("no %s here: %s" % (attribute, error))
    os.mkdir(os.path.join(root, "meta", "acl-default"))
    try:
        os.setxattr(os.path.join(root, "meta", "acl-default"), "system.posix_acl_default", DEFAULT_ACL)
        os.setxattr(os.path.join(root, "linked", "relative"), "trusted.link", b"on a symbolic link", follow_symlinks=False)
    except OSError as error:
        print("no ACLs here: %s" % error)


def owners_and_devices(root):
    for name, kind, device in (("null", "c", (1, 3)), ("disk", "b", (8, 1)), ("big", "c", (4000, 1_000_000))):
        subprocess.run(["mknod", "-m", "0640", os.path.join(root, "special", name), kind, str(device[0]), str(device[1])], check=True)
    for name, owner in (("mode-0400", (999, 999)), ("mode-0000", (70, 70)), ("sticky", (3_000_000, 4_000_000_000))):
        os.chown(os.path.join(root, "meta", name), *owner)
    for name in ("relative", "dangling"):
        os.chown(os.path.join(root, "linked", name), 999, 998, follow_symlinks=False)


def set_times(root):
    """Gives every entry a time of its own, with nanoseconds; the deepest first, so that directories keep theirs."""
    number = 0
    for folder, directories, files, fd in os.fwalk(os.fsencode(root), topdown=False):
        for name in sorted(files + directories):
            number += 1
            at = (EPOCH + number) * 10**9 + number * 1_000_003 % 10**9
            os.utime(name, ns=(at, at), dir_fd=fd, follow_symlinks=False)
    at = {"empty": -1_500_000_000, "README": 0, "script.sh": 5_000_000_000 * 10**9 + 1, "data/log.txt": EPOCH * 10**9}
    for name, moment in at.items():
        os.utime(os.path.join(root, name), ns=(moment, moment))
    for name in ("data", "."):
        os.utime(os.path.join(root, name), ns=(EPOCH * 10**9 + 123_456_789,) * 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("directory", help="where to make it; must not exist")
    parser.add_argument("--plain", action="store_true", help="leave out what only root can make")
    parser.add_argument("--huge", type=int, default=2, metavar="GIB", help="apparent size of the sparse file data/huge.img")
    args = parser.parse_args()
    os.mkdir(args.directory)
    make_files(args.directory, random.Random(42), args.huge)
    make_names(args.directory)
    attributes(args.directory, args.plain)
    if not args.plain:
        owners_and_devices(args.directory)
    set_times(args.directory)
    os.chmod(args.directory, 0o750)


if __name__ == "__main__":
    main()
