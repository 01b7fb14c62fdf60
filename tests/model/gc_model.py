#!/usr/bin/env python3
"""Explore every interleaving of the commit and collection protocol of docs/format.md, in a small world.

    gc_model.py                              the checks that belong to the test suite: safe as it is, unsafe with each mistake
    gc_model.py --collectors 2 --limit 0     one world, as large as you have time for
    gc_model.py --mistake no_relist          one mistake, and the steps that lead to the loss

The storage offers unconditional PUT, DELETE and strongly consistent LIST, nothing else; each is one step. Any process may stop for ever
between any two steps: nothing has to happen next. In the beginning there is one snapshot, `s0`, that uses the pack `P0`.

A *writer* backs up once. It lists the sessions that are open (their packs may be adopted), puts its own session, lists what is
condemned, then either refers to a pack that is indexed or adopted and not condemned, or uploads one and indexes it; puts its record, looks
for fences, and reports success if there are none. A *collector* goes through one epoch. Anyone may forget any snapshot at any time.

Two things must never happen:

1. a snapshot that counts (recorded, not forgotten, not rejected) whose pack is gone;
2. a backup that was reported as committed, and was not forgotten, that does not count.

A mistake is a protocol with one step left out or moved. Each must be caught, or the model says nothing.
"""

import argparse
import sys
from collections import deque, namedtuple

MISTAKES = {
    "ignore_condemned": "a writer refers to packs although they are condemned",
    "epoch_first": "a writer looks at what is condemned before it announces itself",
    "no_fence_check": "a writer does not look for fences after its record",
    "no_fence": "a collector does not wait for open sessions, and does not fence them either",
    "no_relist": "a collector deletes what it condemned without looking at the snapshots again",
    "delete_before_decided": "a collector deletes before it has said which late records are rejected",
    "adopt_condemned": "a writer adopts packs of others although they are condemned",
}

# What the storage holds (sets of names; snapshots are pairs of name and pack), what was reported to users, and where each process is.
World = namedtuple("World", "packs index sessions snapshots forgotten condemned fences rejected reported writers collectors")
# `step` is what it does next; `adopted` and `hidden` are what it has seen, `pack` what its snapshot will use.
Writer = namedtuple("Writer", "step attempt adopted hidden pack")
# `packs` are those listed or condemned, `open` sessions still to be waited for, `fenced` those given up, `late` those to be rejected.
Collector = namedtuple("Collector", "step packs open fenced late")

NONE = frozenset()


def beginning(writers, collectors):
    return World(
        packs=frozenset({"P0"}), index=frozenset({"P0"}), sessions=NONE, snapshots=frozenset({("s0", "P0")}), forgotten=NONE, condemned=NONE,
        fences=NONE, rejected=NONE, reported=frozenset({"s0"}),
        writers=(Writer("look", 0, NONE, NONE, None),) * writers, collectors=(Collector("packs", NONE, NONE, NONE, NONE),) * collectors)


def owner(pack):
    """The session that wrote a pack: the pack of session `w0.1` is `Pw0.1`."""
    return pack[1:]


def used(world):
    """The packs that snapshots that count use."""
    return frozenset(pack for name, pack in world.snapshots if name not in world.forgotten and name not in world.rejected)


def writer_steps(world, number, attempts, mistake):
    """The worlds to which the next step of a writer may lead, with what was done."""
    me = world.writers[number]
    name = "w%d.%d" % (number, me.attempt)

    def after(what, me, **changes):
        writers = world.writers[:number] + (me,) + world.writers[number + 1 :]
        return "%s %s" % (name, what), world._replace(writers=writers, **changes)

    def ended():
        if me.attempt + 1 < attempts:
            return Writer("look", me.attempt + 1, NONE, NONE, None)
        return Writer("done", me.attempt, NONE, NONE, None)

    announce = {"sessions": world.sessions | {name}}
    if me.step == "look":
        yield after("lists sessions", me._replace(step="announce", adopted=world.sessions))
    elif me.step == "announce" and mistake == "epoch_first":
        yield after("lists what is condemned", me._replace(step="announce late", hidden=world.condemned))
    elif me.step == "announce":
        yield after("announces itself", me._replace(step="epochs"), **announce)
    elif me.step == "announce late":
        yield after("announces itself", me._replace(step="refer"), **announce)
    elif me.step == "epochs":
        yield after("lists what is condemned", me._replace(step="refer", hidden=world.condemned))
    elif me.step == "refer":
        known = world.index if mistake == "ignore_condemned" else world.index - me.hidden
        adopted = frozenset(pack for pack in world.packs if owner(pack) in me.adopted)
        if mistake != "adopt_condemned":
            adopted -= me.hidden
        for pack in sorted(known | adopted):
            yield after("refers to " + pack, me._replace(step="record", pack=pack, adopted=NONE, hidden=NONE))
        mine = "P" + name
        yield after("uploads " + mine, me._replace(step="index", pack=mine, adopted=NONE, hidden=NONE), packs=world.packs | {mine})
    elif me.step == "index":
        yield after("indexes its pack", me._replace(step="record"), index=world.index | {me.pack})
    elif me.step == "record":
        yield after("puts its record", me._replace(step="fences"), snapshots=world.snapshots | {(name, me.pack)})
    elif me.step == "fences":
        if mistake != "no_fence_check" and any(fenced == name for fenced, _ in world.fences):
            # The attempt does not count; it is marked as forgotten, and another one begins.
            yield after("finds a fence", ended(), sessions=world.sessions - {name}, forgotten=world.forgotten | {name})
        else:
            yield after("reports success", me._replace(step="leave"), reported=world.reported | {name})
    elif me.step == "leave":
        yield after("removes its session", ended(), sessions=world.sessions - {name})


def collector_steps(world, number, mistake):
    """As `writer_steps`, for a collector."""
    me = world.collectors[number]

    def after(what, me, **changes):
        collectors = world.collectors[:number] + (me,) + world.collectors[number + 1 :]
        return "c%d %s" % (number, what), world._replace(collectors=collectors, **changes)

    end = Collector("done", NONE, NONE, NONE, NONE)
    if me.step == "packs":
        yield after("lists packs", me._replace(step="owners", packs=world.packs))
    elif me.step == "owners":
        yield after("lists sessions", me._replace(step="snapshots", open=world.sessions))
    elif me.step == "snapshots":
        owned = frozenset(pack for pack in me.packs if owner(pack) in me.open)
        unused = me.packs - owned - used(world)
        yield after("lists snapshots", Collector("condemn", unused, NONE, NONE, NONE) if unused else end)
    elif me.step == "condemn":
        what = "condemns " + ", ".join(sorted(me.packs))
        yield after(what, me._replace(step="sessions"), condemned=world.condemned | me.packs)
    elif me.step == "sessions":
        yield after("lists sessions again", me._replace(step="wait", open=NONE if mistake == "no_fence" else world.sessions))
    elif me.step == "wait" and me.open:
        # Whether a writer is dead is a guess, and may be wrong: it may be fenced at any time.
        session = min(me.open)
        rest = me._replace(open=me.open - {session})
        if session not in world.sessions:
            yield after("sees that %s is gone" % session, rest)
        yield after("fences " + session, rest._replace(fenced=me.fenced | {session}), fences=world.fences | {(session, number)})
    elif me.step == "wait":
        recorded = frozenset(name for name, _ in world.snapshots)
        going = me.packs if mistake == "no_relist" else me.packs - used(world)
        then = "delete" if mistake == "delete_before_decided" else "decide"
        yield after("lists snapshots again", me._replace(step=then, packs=going, late=me.fenced - recorded))
    elif me.step == "decide":
        yield after("decides", me._replace(step="delete"), rejected=world.rejected | me.late)
    elif me.step == "delete" and me.packs:
        pack = min(me.packs)
        yield after("deletes " + pack, me._replace(packs=me.packs - {pack}), packs=world.packs - {pack})
    elif me.step == "delete":
        # Late if that is the mistake, again if not. What it fenced off is over, so their sessions can go.
        yield after("clears up", end, rejected=world.rejected | me.late, sessions=world.sessions - me.fenced)


def steps(world, attempts, mistake):
    for name, _ in sorted(world.snapshots):
        if name not in world.forgotten:
            yield "somebody forgets " + name, world._replace(forgotten=world.forgotten | {name})
    for number in range(len(world.writers)):
        yield from writer_steps(world, number, attempts, mistake)
    for number in range(len(world.collectors)):
        yield from collector_steps(world, number, mistake)


def wrong(world):
    """What must never happen, if it has."""
    for name, pack in sorted(world.snapshots):
        if name not in world.forgotten and name not in world.rejected and pack not in world.packs:
            return "%s counts, and its pack %s is gone" % (name, pack)
    for name in sorted(world.reported & world.rejected - world.forgotten):
        return "%s was reported as committed, and is rejected" % name
    return None


def explore(writers, attempts, collectors, mistake=None, limit=0):
    """Looks at every world that can come about, nearest first. Returns (what went wrong, the steps to it, worlds seen, whether all were)."""
    first = beginning(writers, collectors)
    came_from, queue = {first: None}, deque([first])
    while queue:
        world = queue.popleft()
        loss = wrong(world)
        if loss:
            way = []
            while came_from[world]:
                what, world = came_from[world]
                way.append(what)
            return loss, way[::-1], len(came_from), False
        for what, following in steps(world, attempts, mistake):
            if following not in came_from:
                came_from[following] = what, world
                queue.append(following)
        if limit and len(came_from) >= limit:
            return None, [], len(came_from), False
    return None, [], len(came_from), True


def suite():
    """What the test suite asks for; small enough for every run."""
    good = True
    for writers, attempts, collectors in ((2, 1, 1), (1, 2, 1), (1, 1, 2)):
        loss, way, seen, whole = explore(writers, attempts, collectors)
        good &= not loss and whole
        print("%d writers, %d attempts, %d collectors: %s, %d worlds" % (writers, attempts, collectors, loss or "safe", seen))
        print("".join("    %s\n" % step for step in way), end="")
    for mistake, what in MISTAKES.items():
        loss, way, seen, _ = explore(2, 1, 1, mistake)
        good &= bool(loss)
        print("%s (%s): %s" % (mistake, what, "caught after %d steps: %s" % (len(way), loss) if loss else "NOT CAUGHT in %d worlds" % seen))
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--attempts", type=int, default=1, help="how often a writer begins again")
    parser.add_argument("--collectors", type=int, default=1)
    parser.add_argument("--mistake", choices=MISTAKES)
    parser.add_argument("--limit", type=int, default=1_000_000, help="worlds to look at; 0 for all")
    if len(sys.argv) == 1:
        sys.exit(0 if suite() else 1)
    args = parser.parse_args()
    loss, way, seen, whole = explore(args.writers, args.attempts, args.collectors, args.mistake, args.limit)
    for step in way:
        print(step)
    print("%s, %d worlds%s" % (loss or "safe", seen, "" if whole or loss else ", not all of them"))
    sys.exit(1 if loss else 0)


if __name__ == "__main__":
    main()
