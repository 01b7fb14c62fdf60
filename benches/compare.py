#!/usr/bin/env python3
"""Compare voltool with the backup tools that are installed here, on the same trees, in one run.

    cargo build --release
    benches/compare.py                                     # everything; takes a while
    benches/compare.py --trees linux --runs 5              # one tree, more runs
    benches/compare.py --tools voltool,restic --json out.json
    benches/compare.py --trees small,large --scale 0.1     # a quick look

Trees:  linux  the Linux source (Debian's package linux-source-6.1, installed with apt-get if it is missing: 84,000 entries, 1.3 GB)
        small  many small files: 200,000 of up to 8 KiB (times --scale)
        large  few large files, 2.5 GiB (times --scale): incompressible, sparse, and pages as a database writes them
Rows:   first      a new repository
        unchanged  the same tree again
        changed    after about 1 % of the files were changed, some added and some removed
        restore    the newest snapshot into an empty directory; afterwards, what came back is compared with the tree
Tools:  voltool (target/release/voltool, or --voltool), restic, borg, rustic, and `tar | zstd -3 -T2`, which neither encrypts nor
        deduplicates: each of its backups is a full one. All others encrypt. One that is not installed is reported and left out.

Every tool does every row in every run; the order changes from run to run, and the figures are medians. Wall time is that of the command;
cpu is user and system time of all its processes; peak is the largest resident set of any one of its processes (what getrusage gives; small
figures hold that of the process that starts it, about 10 MiB); size is the repository's, as the sum of its files. Repositories, caches and trees
are all in --scratch, and the file system's cache is warm. Nothing outside --scratch is read or written, but for the Linux source.

Exit code: 0, or 1 if a tool failed or brought back something else than the tree.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = ("first", "unchanged", "changed", "restore")


class Failed(Exception):
    """A tool ended with an error, or did not bring the tree back."""


# A process's largest resident set counts what it was forked from, too. So commands are started by a small process, not by this one.
LAUNCHER = """
import os, sys, time
start = time.monotonic()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
wall = time.monotonic() - start
os.write(int(sys.argv[1]), b"%d %f %f %d" % (os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss))
"""


def measure(arguments, environment, folder):
    """Runs a command; returns wall seconds, cpu seconds and peak resident bytes."""
    log = os.path.join(folder, "log")
    read_end, write_end = os.pipe()
    with open(log, "wb") as out, open(read_end, "rb") as result:
        launch = [sys.executable, "-S", "-E", "-c", LAUNCHER, str(write_end), *arguments]
        subprocess.run(launch, env={**os.environ, **environment}, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                       pass_fds=[write_end], check=False)
        os.close(write_end)
        figures = result.read().split()
    if not figures or figures[0] != b"0":
        with open(log, "rb") as file:
            tail = file.read()[-2000:].decode("utf-8", "replace").strip()
        raise Failed("%s ended with code %s: %s" % (" ".join(arguments), b"".join(figures[:1]).decode() or "unknown", tail))
    return {"wall": float(figures[1]), "cpu": float(figures[2]), "peak": int(figures[3]) * 1024}


def size_of(folder):
    return sum(os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(folder) for name in names)


# ---------------------------------------------------------------------------------------------------------------------- tools


class Tool:
    """A backup tool with a repository of its own below `folder`. `tree` is the absolute path of what is backed up."""

    name = ""
    encrypted = True

    def __init__(self, folder, tree):
        self.folder, self.tree = folder, tree
        self.repository, self.target, self.number = os.path.join(folder, "repository"), os.path.join(folder, "restored"), 0
        os.makedirs(folder)

    @classmethod
    def version(cls):
        """What the tool calls itself, or None if it is not installed."""
        if not shutil.which(cls.name):
            return None
        words = subprocess.run([cls.name, "version" if cls.name == "restic" else "--version"], stdout=subprocess.PIPE, check=False).stdout
        return words.decode().split("\n", maxsplit=1)[0]

    def environment(self):
        return {}

    def init(self):
        """The command that makes the repository, or None."""

    def backup(self):
        raise NotImplementedError

    def restore(self):
        raise NotImplementedError

    def restored(self):
        """Where the tree is after a restore."""
        return self.target

    def run(self, arguments):
        return measure(arguments, self.environment(), self.folder)


class Voltool(Tool):
    name = "voltool"
    program = os.path.join(HERE, "..", "target", "release", "voltool")

    @classmethod
    def version(cls):
        if not os.access(cls.program, os.X_OK):
            return None
        return subprocess.run([cls.program, "--version"], stdout=subprocess.PIPE, check=False).stdout.decode().strip()

    def environment(self):
        inside = lambda name: os.path.join(self.folder, name)
        return {"VOLTOOL_STATE_DIR": inside("state"), "VOLTOOL_CACHE_DIR": inside("cache"), "VOLTOOL_CONFIG": inside("config.toml"),
                "VOLTOOL_IDENTITY": inside("identity.txt")}

    def command(self, *arguments):
        return [self.program, *arguments, "--repo", self.repository]

    def init(self):
        return self.command("init", "--identity", os.path.join(self.folder, "identity.txt"))

    def backup(self):
        return self.command("backup", "--path", self.tree, "--name", "bench")

    def restore(self):
        return self.command("restore", "bench", "--to-dir", self.target)


class Restic(Tool):
    name = "restic"

    def environment(self):
        return {"RESTIC_REPOSITORY": self.repository, "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": os.path.join(self.folder, "cache")}

    def init(self):
        return ["restic", "init"]

    def backup(self):
        return ["restic", "backup", "--quiet", self.tree]

    def restore(self):
        return ["restic", "restore", "--quiet", "latest", "--target", self.target]

    def restored(self):
        return self.target + self.tree


class Rustic(Restic):
    name = "rustic"

    def environment(self):
        return {"RUSTIC_REPOSITORY": self.repository, "RUSTIC_PASSWORD": "bench", "RUSTIC_CACHE_DIR": os.path.join(self.folder, "cache"),
                "RUSTIC_NO_PROGRESS": "true"}

    def init(self):
        return ["rustic", "init"]

    def backup(self):
        return ["rustic", "backup", self.tree]

    def restore(self):
        return ["rustic", "restore", "latest", self.target]


class Borg(Tool):
    name = "borg"

    def environment(self):
        return {"BORG_BASE_DIR": os.path.join(self.folder, "base"), "BORG_PASSPHRASE": "bench", "BORG_REPO": self.repository}

    def init(self):
        return ["borg", "init", "--encryption", "repokey-blake2"]

    def backup(self):
        self.number += 1
        return ["borg", "create", "--compression", "zstd,3", "::%d" % self.number, self.tree]

    def restore(self):
        os.makedirs(self.target)
        return ["sh", "-c", 'cd "$0" && exec borg extract "::$1"', self.target, str(self.number)]

    def restored(self):
        return self.target + self.tree


class TarZstd(Tool):
    name = "tar+zstd"
    encrypted = False

    @classmethod
    def version(cls):
        return "tar | zstd -3 -T2, not encrypted" if shutil.which("zstd") and shutil.which("bash") else None

    def backup(self):
        os.makedirs(self.repository, exist_ok=True)
        self.number += 1
        return ["bash", "-o", "pipefail", "-c", 'tar -C "$0" -cS . | zstd -q -3 -T2 -o "$1/$2.tar.zst"', self.tree, self.repository, str(self.number)]

    def restore(self):
        os.makedirs(self.target)
        return ["bash", "-o", "pipefail", "-c", 'zstd -dcq "$1/$2.tar.zst" | tar -C "$0" -x', self.target, self.repository, str(self.number)]


TOOLS = {tool.name: tool for tool in (Voltool, Restic, Borg, Rustic, TarZstd)}

# ---------------------------------------------------------------------------------------------------------------------- trees


def make_linux(folder, _scale):
    archive = "/usr/src/linux-source-6.1.tar.xz"
    if not os.path.exists(archive):
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "linux-source-6.1"], check=True, stdout=subprocess.DEVNULL)
    os.makedirs(folder)
    subprocess.run(["tar", "-C", folder, "-xf", archive], check=True)


def text_of(rng, length):
    """Text that compresses about as well as source code does."""
    words = [b"%x" % rng.getrandbits(rng.choice((8, 12, 16, 24, 32))) for _ in range(400)]
    out = []
    while length > 0:
        out.append(b" ".join(rng.choices(words, k=200)) + b"\n")
        length -= len(out[-1])
    return b"".join(out)


def make_small(folder, scale):
    rng = random.Random(1)
    pool = text_of(rng, 4 << 20)
    for number in range(int(200_000 * scale)):
        where = os.path.join(folder, "%02x" % (number % 256), "%02x" % (number // 256 % 8))
        if number < 256 * 8:
            os.makedirs(where)
        at, length = rng.randrange(len(pool) - 8192), min(rng.randrange(8192), rng.randrange(8192))
        with open(os.path.join(where, "%d.txt" % number), "wb") as file:
            file.write(b"%d " % number + pool[at : at + length])


def make_large(folder, scale):
    rng = random.Random(2)
    os.makedirs(folder)
    mebi = lambda count: max(1, int(count * scale))
    for name in ("one.bin", "two.bin"):
        with open(os.path.join(folder, name), "wb") as file:
            for _ in range(mebi(512)):
                file.write(rng.randbytes(1 << 20))
    with open(os.path.join(folder, "sparse.img"), "wb") as file:
        file.truncate(mebi(4096) << 20)
        for _ in range(mebi(512)):
            file.seek(rng.randrange(mebi(4096)) << 20)
            file.write(rng.randbytes(1 << 19) + bytes(1 << 19))
    with open(os.path.join(folder, "table.db"), "wb") as file:
        for _ in range(mebi(1024) * 16):
            file.write(b"".join(page(rng) for _ in range(8)))


def page(rng):
    """A database page of 8 KiB: rows with a counter and some noise, and free space in between."""
    rows = b"".join(b"%012d|customer-%05d|%s|active\n" % (rng.getrandbits(36), rng.randrange(99999), rng.randbytes(12)) for _ in range(120))
    return rng.randbytes(24) + rows[:6000].ljust(8192 - 24, b"\0")


TREES = {"linux": make_linux, "small": make_small, "large": make_large}


def change(folder, seed):
    """Changes about 1 % of the files (of large ones 1 % of the pages), adds 0.2 % and removes 0.1 %; returns how many of each."""
    rng = random.Random(seed)
    files = sorted(os.path.join(where, name) for where, _, names in os.walk(folder) for name in names)
    files = [path for path in files if os.path.isfile(path) and not os.path.islink(path)]
    changed = added = removed = 0
    for path in files:
        size = os.path.getsize(path)
        if size > 16 << 20:
            with open(path, "r+b") as file:
                for _ in range(max(1, size // 8192 // 100) if path.endswith(".db") else 4):
                    file.seek(rng.randrange(size // 8192) * 8192)
                    file.write(page(rng))
            changed += 1
        elif rng.random() < 0.01:
            with open(path, "r+b") as file:
                file.seek(size // 2)
                file.write(b"changed in run %d\n" % seed)
            changed += 1
        elif rng.random() < 0.001:
            os.unlink(path)
            removed += 1
        if rng.random() < 0.002:
            with open(os.path.join(os.path.dirname(path), "added-%d-%d" % (seed, added)), "wb") as file:
                file.write(text_of(rng, rng.randrange(1, 20_000)))
            added += 1
    return {"files": len(files), "changed": changed, "added": added, "removed": removed}


def compare(tree, restored):
    """Raises Failed unless both have the same entries with the same sizes, times and modes."""
    def facts(root):
        found = {}
        for where, folders, names in os.walk(root):
            for name in folders + names:
                path = os.path.join(where, name)
                info = os.lstat(path)
                regular = os.path.isfile(path) and not os.path.islink(path)
                # tar's default format keeps whole seconds, so no more is asked for.
                found[os.path.relpath(path, root)] = (info.st_mode, info.st_size if regular else 0, int(info.st_mtime) if regular else 0)
        return found
    want, got = facts(tree), facts(restored)
    wrong = sorted(path for path in set(want) | set(got) if want.get(path) != got.get(path))
    if wrong:
        raise Failed("%d entries came back different, the first: %s" % (len(wrong), wrong[0]))


# ------------------------------------------------------------------------------------------------------------------- one tree


def quiet(tree):
    """Everything is on the disk and in the cache, and the last change is so long ago that no tool has reason to doubt a time stamp."""
    os.sync()
    time.sleep(3)
    for where, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(where, name)
            if os.path.islink(path):
                continue
            with open(path, "rb", buffering=0) as file:
                at, size = 0, os.fstat(file.fileno()).st_size
                while at < size:
                    try:
                        at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                    except OSError:
                        break
                    at += len(file.read(1 << 20)) or size


def one_run(names, tree, scratch, number):
    """All rows for all tools; {tool: {row: figures}}, with a text under "failed" if something went wrong."""
    order = names[number % len(names) :] + names[: number % len(names)]
    tools = {name: TOOLS[name](os.path.join(scratch, "run", name.replace("+", "-")), tree) for name in order}
    results = {name: {} for name in names}

    def step(name, row):
        tool, result = tools[name], results[name]
        if "failed" in result:
            return
        try:
            if row == "first" and tool.init():
                tool.run(tool.init())
            figures = tool.run(tool.restore() if row == "restore" else tool.backup())
            if row == "restore":
                compare(tree, tool.restored())
            figures["size"] = size_of(tool.repository)
            result[row] = figures
            print("  %-10s %-10s %s" % (row, name, show(figures)), file=sys.stderr)
        except (Failed, OSError) as error:
            result["failed"] = "%s: %s" % (row, error)
            print("  %-10s %-10s failed: %s" % (row, name, error), file=sys.stderr)
        if row == "restore":
            shutil.rmtree(tool.target, ignore_errors=True)
        os.sync()

    quiet(tree)
    for name in order:
        step(name, "first")
        step(name, "unchanged")
    results["change"] = change(tree, number + 1)
    quiet(tree)
    for name in order:
        step(name, "changed")
        step(name, "restore")
    shutil.rmtree(os.path.join(scratch, "run"))
    return results


# ------------------------------------------------------------------------------------------------------------------- figures


def show(figures):
    return "%7.2f s wall  %7.2f s cpu  %5d MiB peak  %6d MiB repository" % (
        figures["wall"], figures["cpu"], figures["peak"] >> 20, figures["size"] >> 20)


def medians(runs, names):
    """{row: {tool: median figures}} with the range of the wall time, of the runs in which the row was done."""
    table = {}
    for row in ROWS:
        for name in names:
            done = [run[name][row] for run in runs if row in run[name]]
            if done:
                figures = {key: statistics.median(d[key] for d in done) for key in done[0]}
                figures["wall_min"], figures["wall_max"] = min(d["wall"] for d in done), max(d["wall"] for d in done)
                table.setdefault(row, {})[name] = figures
    return table


def print_table(tree, table):
    print("\n%s\n%-10s %-10s %9s %17s %9s %9s %11s" % (tree, "row", "tool", "wall s", "range", "cpu s", "peak MiB", "size MiB"))
    for row in ROWS:
        for name, f in table.get(row, {}).items():
            spread = "%.2f to %.2f" % (f["wall_min"], f["wall_max"])
            print("%-10s %-10s %9.2f %17s %9.2f %9d %11.1f" % (row, name, f["wall"], spread, f["cpu"], int(f["peak"]) >> 20, f["size"] / (1 << 20)))


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown processor")
    return {"processor": model, "cores": len(os.sched_getaffinity(0)), "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
            "kernel": os.uname().release}


def names_in(text, known, parser, what):
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            parser.error("there is no %s %r; there are %s" % (what, name, ", ".join(known)))
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", default=",".join(TREES), help="which of %s" % ", ".join(TREES))
    parser.add_argument("--tools", default=",".join(TOOLS), help="which of %s" % ", ".join(TOOLS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the trees small and large")
    parser.add_argument("--voltool", default=Voltool.program, metavar="FILE", help="the program to measure")
    parser.add_argument("--scratch", metavar="DIR", help="where everything is done; kept if given, else a temporary directory")
    parser.add_argument("--json", metavar="FILE", help="write every single figure there; - for standard output instead of the tables")
    args = parser.parse_args()
    Voltool.program = os.path.abspath(args.voltool)
    trees, wanted = names_in(args.trees, TREES, parser, "tree"), names_in(args.tools, TOOLS, parser, "tool")
    versions = {name: TOOLS[name].version() for name in wanted}
    for name, version in versions.items():
        print("%-10s %s" % (name, version or "not installed: left out"), file=sys.stderr)
    names = [name for name in wanted if versions[name]]
    scratch = os.path.abspath(args.scratch or tempfile.mkdtemp(prefix="voltool-bench-", dir="/var/tmp"))
    report = {"machine": machine(), "versions": versions, "runs": args.runs, "scale": args.scale, "trees": {}}
    failed = False
    try:
        for tree in trees:
            # The changes of a run stay in the tree, so each run of the harness begins with a new one.
            folder = os.path.join(scratch, "tree-" + tree)
            shutil.rmtree(folder, ignore_errors=True)
            TREES[tree](folder, args.scale)
            runs = []
            for number in range(args.runs):
                print("%s, run %d of %d" % (tree, number + 1, args.runs), file=sys.stderr)
                runs.append(one_run(names, folder, scratch, number))
            failed = failed or any("failed" in run[name] for run in runs for name in names)
            report["trees"][tree] = {"median": medians(runs, names), "runs": runs}
            shutil.rmtree(folder)
            if args.json != "-":
                print_table(tree, report["trees"][tree]["median"])
    finally:
        if not args.scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    if args.json:
        with (sys.stdout if args.json == "-" else open(args.json, "w", encoding="utf-8")) as file:
            json.dump(report, file, indent=1)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
