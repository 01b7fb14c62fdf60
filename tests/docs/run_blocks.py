#!/usr/bin/env python3
"""Run the commands in a Markdown document, so that what it says stays true.

    tests/docs/run_blocks.py docs/runbook.md
    tests/docs/run_blocks.py README.md --only 'two-minute tour' --verbose

A scenario is a heading of level 2 with the blocks under it; each scenario gets a Docker engine of its own (in namespaces and a directory of
its own), an empty home, and one shell (`bash -euo pipefail`) that runs everything in order:

    ```sh                     commands, which must succeed
    ```console                commands (lines that begin with `$ `, continued by lines that begin with `> `), and the output that each must
                              give; `…` stands for any text in a line, and alone in a line for any lines
    <!-- setup: … -->         commands that readers do not see; `check:` instead of `setup:` means the same
    <!-- skip: reason -->     the next block is not run, for this reason
    <!-- any order: reason -->  the lines of output in the next block may come in any order
    ```anything else          is not run

What stands above the first heading of level 2 runs at the beginning of every scenario. The shell has: DOCKER_HOST; `voltool` in PATH, with
VOLTOOL_CONFIG, VOLTOOL_STATE_DIR and VOLTOOL_CACHE_DIR in the scratch directory; REPO and IDENTITY, paths where nothing is yet; an image
`busybox` (made here, nothing is pulled); and the function `new_host`, which removes every container and volume of the private engine and
everything that voltool keeps on this host, but for $REPO and $IDENTITY. It starts in an empty directory.

VOLTOOL_TEST_DOCKERD names the engine's program (default: dockerd), --voltool the voltool to test. Needs root. Exit code: 0 if every
scenario passed, 1 if one failed, 2 if the document makes no sense.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PROJECT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))


class BadDocument(Exception):
    """The document has a block that cannot be understood."""


class Piece:
    """Something to run: the commands, where they stand, and the output that is expected (None: any)."""

    def __init__(self, line, commands, expected=None, hidden=False, ordered=True):
        self.line, self.commands, self.expected, self.hidden, self.ordered = line, commands, expected, hidden, ordered


# ------------------------------------------------------------------------------------------------------------ the document


def parse(text):
    """The pieces above the first heading of level 2, and a list of (heading, pieces, number of skipped blocks)."""
    prologue, scenarios, pieces, skip, any_order = [], [], None, None, None
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line, start = lines[at], at + 1
        at += 1
        if line.startswith("## "):
            scenarios.append([line[3:].strip(), [], 0])
            pieces = scenarios[-1][1]
        into = prologue if pieces is None else pieces
        comment = re.match(r"\s*<!-- *(setup|check|skip|any order):", line)
        fence = re.match(r"(\s*)```(\w*)", line)
        if comment:
            body = [line[comment.end() :]]
            while "-->" not in body[-1]:
                if at == len(lines):
                    raise BadDocument("line %d: a comment without an end" % start)
                body.append(lines[at])
                at += 1
            body[-1] = body[-1][: body[-1].index("-->")]
            if comment.group(1) == "skip":
                skip = start
            elif comment.group(1) == "any order":
                any_order = start
            else:
                into.append(Piece(start, "\n".join(body), hidden=True))
        elif fence:
            body = []
            while at < len(lines) and lines[at].strip() != "```":
                body.append(lines[at][len(fence.group(1)) :] if lines[at].startswith(fence.group(1)) else lines[at])
                at += 1
            if at == len(lines):
                raise BadDocument("line %d: a block without an end" % start)
            at += 1
            if fence.group(2) in ("sh", "console"):
                if skip is not None:
                    skip = None
                    if scenarios:
                        scenarios[-1][2] += 1
                elif fence.group(2) == "sh":
                    into.append(Piece(start + 1, "\n".join(body)))
                else:
                    into += console(body, start + 1, any_order is None)
                any_order = None
    if skip is not None:
        raise BadDocument("line %d: nothing to skip follows" % skip)
    if any_order is not None:
        raise BadDocument("line %d: no block follows" % any_order)
    return prologue, [s for s in scenarios if any(not piece.hidden for piece in s[1])]


def console(body, first, ordered=True):
    """The pieces of a block that shows commands and their output."""
    pieces = []
    for number, line in enumerate(body, first):
        if line.startswith("$ "):
            pieces.append(Piece(number, line[2:], [], ordered=ordered))
        elif not pieces:
            raise BadDocument("line %d: a console block begins with a line that begins with `$ `" % number)
        elif line.startswith("> ") and not pieces[-1].expected:
            pieces[-1].commands += "\n" + line[2:]
        else:
            pieces[-1].expected.append(line.rstrip())
    return pieces


def matches(expected, lines):
    """Whether output lines are what is expected; `…` is a wildcard."""
    if not expected:
        return not lines
    if expected[0].strip() == "…":
        return any(matches(expected[1:], lines[skipped:]) for skipped in range(len(lines) + 1))
    return bool(lines) and matches_line(expected[0], lines[0]) and matches(expected[1:], lines[1:])


def matches_line(expected, line):
    return re.fullmatch(".*".join(re.escape(part) for part in expected.split("…")), line.rstrip()) is not None


def matches_in_any_order(expected, lines):
    """As matches, but each expected line (none of them a lone `…`) stands for one line anywhere."""
    if not expected:
        return not lines
    return any(matches_line(expected[0], line) and matches_in_any_order(expected[1:], lines[:at] + lines[at + 1 :])
               for at, line in enumerate(lines))


# --------------------------------------------------------------------------------------------------------------- the engine


class Engine:
    """A private Docker engine: own data, own network and mount namespaces; gone when it is stopped."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("plugins", "etc"):
            os.makedirs(os.path.join(folder, name))
        self.host = "unix://" + os.path.join(folder, "docker.sock")
        self.log = os.path.join(folder, "log")
        # The bind mounts hide the plugins and the configuration of this machine's engine. Without a network namespace,
        # --bridge=none would remove the docker0 of this machine.
        script = """
            mount --make-rprivate /
            mkdir -p /run/docker/plugins /etc/docker
            mount --bind "$0/plugins" /run/docker/plugins
            mount --bind "$0/etc" /etc/docker
            ip link set lo up 2>/dev/null || true
            exec "$1" --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/pid" --host "unix://$0/docker.sock" \
                --bridge=none --iptables=false"""
        program = os.environ.get("VOLTOOL_TEST_DOCKERD") or "dockerd"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["unshare", "--mount", "--net", "sh", "-euc", script, folder, program], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        for _ in range(600):
            if self.docker("version", check=False).returncode == 0:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.stop()
        with open(self.log, encoding="utf-8", errors="replace") as file:
            sys.exit("run_blocks.py: the private engine did not start:\n" + file.read()[-3000:])

    def docker(self, *arguments, check=True):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        return subprocess.run(["docker", *arguments], env={**environment, "DOCKER_HOST": self.host}, check=check, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def make_busybox(self):
        """Makes the image `busybox` from the static busybox of this machine."""
        root = os.path.join(self.folder, "image")
        program = shutil.which("busybox")
        os.makedirs(os.path.join(root, "bin"))
        os.makedirs(os.path.join(root, "tmp"))
        shutil.copy(program, os.path.join(root, "bin", "busybox"))
        for applet in subprocess.run([program, "--list"], stdout=subprocess.PIPE, check=True).stdout.decode().split():
            if applet != "busybox":
                os.symlink("busybox", os.path.join(root, "bin", applet))
        archive = os.path.join(self.folder, "image.tar")
        subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
        self.docker("import", "--change", 'CMD ["sh"]', archive, "busybox")

    def stop(self):
        if self.process.poll() is None:
            running = subprocess.run(["docker", "-H", self.host, "ps", "-q"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
            if running.stdout.split():
                self.docker("kill", *running.stdout.decode().split(), check=False)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


# ------------------------------------------------------------------------------------------------------------- one scenario

SHELL = """
new_host() {
    docker ps -aq | xargs -r docker rm -f -v >/dev/null
    docker volume ls -q | xargs -r docker volume rm >/dev/null
    rm -rf "$VOLTOOL_STATE_DIR" "$VOLTOOL_CACHE_DIR" "$(dirname "$VOLTOOL_CONFIG")"
    mkdir "$(dirname "$VOLTOOL_CONFIG")"
    : >"$VOLTOOL_CONFIG"   # empty: one that is named must be there
}
trap 'printf "\\nthe commands in line %s ended with code %s\\n" "$__line" "$?" >&2' ERR
set -E
"""


def script_of(pieces, folder):
    out = [SHELL]
    for piece in pieces:
        out.append("__line=%d" % piece.line)
        out.append("printf '\\n### line %d%s\\n'" % (piece.line, " (hidden)" if piece.hidden else ""))
        if piece.expected is None:
            out.append(piece.commands)
        else:
            file = os.path.join(folder, "output-%d" % piece.line)
            out.append("{ %s\n} >'%s' 2>&1 || { cat '%s'; false; }\ncat '%s'" % (piece.commands, file, file, file))
    return "\n".join(out) + "\n"


def run_scenario(pieces, voltool, timeout):
    """Returns (what went wrong or None, the output)."""
    with tempfile.TemporaryDirectory(prefix="voltool-docs-") as scratch:
        inside = lambda *parts: os.path.join(scratch, *parts)
        for name in ("home", "work", "bin", "engine", "output", "voltool"):
            os.makedirs(inside(name))
        os.symlink(voltool, inside("bin", "voltool"))
        engine = Engine(inside("engine"))
        try:
            engine.make_busybox()
            keep = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "VOLTOOL_", "AWS_", "XDG_"))}
            environment = {**keep, "HOME": inside("home"), "PATH": inside("bin") + ":" + os.environ["PATH"], "DOCKER_HOST": engine.host,
                           "VOLTOOL_CONFIG": inside("voltool", "config.toml"), "VOLTOOL_STATE_DIR": inside("state"),
                           "VOLTOOL_CACHE_DIR": inside("cache"), "REPO": inside("repository"), "IDENTITY": inside("identity.txt"),
                           "LC_ALL": "C.UTF-8"}
            with open(inside("script"), "w", encoding="utf-8") as file:
                file.write(script_of(pieces, inside("output")))
            with open(inside("log"), "wb") as log:
                shell = subprocess.Popen(["bash", "-euo", "pipefail", inside("script")], cwd=inside("work"), env=environment,
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
                try:
                    code = shell.wait(timeout)
                    problem = None if code == 0 else "exit code %d" % code
                except subprocess.TimeoutExpired:
                    os.killpg(shell.pid, signal.SIGKILL)
                    shell.wait()
                    problem = "not done after %d s" % timeout
            if problem is None:
                problem = compare(pieces, inside("output"))
            with open(inside("log"), encoding="utf-8", errors="replace") as file:
                return problem, file.read()
        finally:
            engine.stop()


def compare(pieces, folder):
    for piece in pieces:
        if piece.expected is not None:
            with open(os.path.join(folder, "output-%d" % piece.line), encoding="utf-8", errors="replace") as file:
                lines = file.read().rstrip("\n").split("\n")
            while piece.expected and not piece.expected[-1]:
                piece.expected.pop()
            if not (matches if piece.ordered else matches_in_any_order)(piece.expected, lines if lines != [""] else []):
                return "line %d: the output is not what the document shows:\n  %s\nbut:\n  %s" % (
                    piece.line, "\n  ".join(piece.expected), "\n  ".join(lines))
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document")
    parser.add_argument("--only", metavar="TEXT", help="only scenarios with this in their heading")
    parser.add_argument("--voltool", default=os.path.join(PROJECT, "target", "release", "voltool"), metavar="FILE")
    parser.add_argument("--timeout", type=int, default=300, metavar="SECONDS", help="for each scenario")
    parser.add_argument("--list", action="store_true", help="show what would be run")
    parser.add_argument("--verbose", action="store_true", help="show all output, not only that of scenarios that failed")
    args = parser.parse_args()
    try:
        with open(args.document, encoding="utf-8") as file:
            prologue, scenarios = parse(file.read())
    except (OSError, BadDocument) as error:
        print("run_blocks.py: %s: %s" % (args.document, error), file=sys.stderr)
        return 2
    scenarios = [s for s in scenarios if args.only is None or args.only.lower() in s[0].lower()]
    if not scenarios:
        print("run_blocks.py: %s: there is nothing to run" % args.document, file=sys.stderr)
        return 2
    if args.list:
        for heading, pieces, skipped in scenarios:
            print("%s: %d pieces, %d skipped" % (heading, len(prologue) + len(pieces), skipped))
        return 0
    voltool = os.path.realpath(args.voltool)
    for need in (voltool, "docker", "unshare", "busybox", os.environ.get("VOLTOOL_TEST_DOCKERD") or "dockerd"):
        if not shutil.which(need):
            print("run_blocks.py: %s is not there" % need, file=sys.stderr)
            return 2
    failed = 0
    for heading, pieces, skipped in scenarios:
        start = time.monotonic()
        problem, output = run_scenario(prologue + pieces, voltool, args.timeout)
        failed += problem is not None
        print("%-6s %s (%.1f s%s)" % ("FAILED" if problem else "ok", heading, time.monotonic() - start,
                                      ", %d blocks skipped" % skipped if skipped else ""), flush=True)
        if problem or args.verbose:
            print("    " + output.replace("\n", "\n    "))
        if problem:
            print("  %s: %s" % (args.document, problem), flush=True)
    print("%s: %d scenarios, %d failed" % (args.document, len(scenarios), failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
