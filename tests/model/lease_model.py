#!/usr/bin/env python3
"""Explore every interleaving of the lease protocol of docs/format.md, "Leases", in a small world.

    lease_model.py                              the checks that belong to the test suite: safe as it is, unsafe with each mistake
    lease_model.py --hosts 3 --takeovers 1 --limit 0    one world, as large as you have time for
    lease_model.py --mistake no_second_list     one mistake, and the steps that lead to the loss

The storage offers unconditional PUT, DELETE and strongly consistent LIST, nothing else; each is one step. Any host may stop for ever between any
two steps: nothing has to happen next. A host may also *restart*: it knows only what is on its disk and begins again. A PUT may *fail*: the host is told
so, and the object lands whenever it likes, or never. How often each of these happens in one world is limited.

A *host* asks for the lease of one volume: it lists, puts a claim above everything that it saw, lists, puts that it holds, lists again. Then it
writes its claim to its disk, deletes what is lower, reads which snapshots there are (what it begins with), commits, and releases. If somebody else
holds the lease, its user may ask for that holder to be taken over. A claim is (epoch, host, attempt); claims are ordered so.

What must never happen:

1. two hosts believe that they hold the lease, and nobody asked for either to be taken over;
2. an epoch is held that is not above every epoch that was held before: two hosts would commit under one number;
3. a commit is reported as done, and a later holder that had begun before does not know it;
4. after a commit under an epoch was reported, the newest snapshot is one of a lower epoch;
5. a host is told that the claim on its disk was the last one (so that its own copy is current), or that there was none, and that is wrong;
6. nobody holds the lease, and a host that is alone cannot have it; or somebody does, and it cannot be taken over;
7. a host that knows that it does not hold the lease is what others see as its holder.

A mistake is a protocol with one step left out or changed. Each must be caught, or the model says nothing.
"""

import argparse
import functools
import sys
from collections import deque, namedtuple

MISTAKES = {
    "no_first_list": "a host does not list after it put its claim",
    "no_second_list": "a host does not list after it put that it holds",
    "held_ignored": "after its claim, a host looks for higher claims, and not at who holds",
    "any_claim_blocks": "after its claim, a host yields to any other claim, whether lower or higher",
    "same_epoch": "a host goes on although its epoch was held, and released, by another one",
    "take_over_anyone": "a host that was asked to take over one holder takes over whoever holds",
    "withdraw_by_delete": "a host that put that it holds, and may not, deletes what it put",
    "withdrawn_was_held": "who withdrew is taken for somebody who held and released",
    "release_by_delete": "who releases deletes its objects instead of adding one",
    "resume_given_back": "a host goes on with a lease that it tried in vain to release",
    "no_check_after": "a commit is reported without a look at the leases after the record",
    "own_host_is_current": "a host takes its own copy for current if a claim of its own is the last one, whether on its disk or not",
    "clean_before_disk": "a host deletes what is lower before its own claim is on its disk",
    "by_time": "of two snapshots the one with the later time is the newer, whatever their epochs",
}

# What the storage holds (`objects` are claims with a fourth part, their kind; `landing` is what may still turn up), what was forgotten and reported,
# what each holder began with, the claim that was held last, the last one that was used, those that somebody asked to take over, those that a
# restart left behind, how much may still go wrong, the hosts.
World = namedtuple("World", "objects landing records forgotten reported began held used asked left takeovers restarts failures hosts")
# `step` is what it does next; `over` is the claim that it takes over; `going` is what it deletes; `disk` is the claim that it used
# last, and `given` whether it has given that back.
Host = namedtuple("Host", "step attempt claim over going commits disk given")

NONE = frozenset()
BELIEVE = {"disk", "clean", "begin", "own", "record", "postcheck"}


def beginning(hosts, takeovers, restarts, failures):
    hosts = (Host("look", 0, None, None, NONE, 0, None, False),) * hosts
    return World(NONE, NONE, NONE, NONE, NONE, NONE, None, None, NONE, NONE, takeovers, restarts, failures, hosts)


View = namedtuple("View", "epoch claims held top free")


@functools.lru_cache(maxsize=None)
def view(objects, mistake=None):
    """What a LIST tells: the highest epoch, the claims that were not withdrawn, those that were held, the highest of these, and whether
    nobody holds."""
    withdrawn = {o[:3] for o in objects if o[3] == "withdrawn"} if mistake != "withdrawn_was_held" else set()
    over = {o[:3] for o in objects if o[3] == "released" or o[3] == "withdrawn"}
    held = frozenset(o[:3] for o in objects if o[3] == "held") - withdrawn
    top = max(held, default=None)
    epoch = max((o[0] for o in objects), default=0)
    return View(epoch, frozenset(o[:3] for o in objects) - withdrawn, held, top, top is None or top in over)


def may_hold(objects, claim, over, mistake):
    """What a host decides from the LIST after its claim."""
    if mistake == "no_first_list":
        return True
    seen = view(objects, mistake)
    if any(other > claim or other != claim and mistake == "any_claim_blocks" and other != over for other in seen.claims):
        return False
    if mistake == "held_ignored":
        return True
    if mistake != "same_epoch" and seen.top and seen.top[0] >= claim[0]:
        return False
    return seen.free or seen.top == over or (mistake == "take_over_anyone" and over is not None)


def holds(objects, claim, mistake):
    """What a host decides from the LIST after it put that it holds."""
    return mistake == "no_second_list" or not any(other > claim for other in view(objects, mistake).claims)


def standing(objects, claim, mistake):
    """Whether the lease is still that host's."""
    seen = view(objects, mistake)
    return seen.top == claim and not seen.free


def before(objects, claim, disk, mistake):
    """Who used the lease before that host: "nobody", "this host" (its copy is current), or "another" (it may not be)."""
    skipped = False
    for held in sorted((held for held in view(objects, mistake).held if held < claim), reverse=True):
        if held == disk or mistake == "own_host_is_current" and held[1] == claim[1]:
            return "this host"
        if held[1] != claim[1]:
            return "another"
        # It is on no disk, so it was never used.
        skipped = True
    return "another" if skipped else "nobody"


def counting(world):
    return world.records - world.forgotten


class Wrong(Exception):
    """Something happened that must never happen."""


def check_holder(world, me, mistake):
    """What has to be true when a host believes that it holds."""
    if world.held and world.held[0] >= me.claim[0]:
        raise Wrong("epoch %d is held after epoch %d was" % (me.claim[0], world.held[0]))
    said = before(world.objects, me.claim, me.disk, mistake)
    if said == "nobody" and world.used is not None or said == "this host" and world.used != me.disk:
        raise Wrong("%s is told that %s held the lease before, but the last one was %s" % (me.claim, said, world.used))
    others = view(world.objects).held if me.disk else NONE
    others = [held for held in others if held[1] != me.claim[1] and me.disk < held < me.claim]
    if said == "another" and me.disk and world.used == me.disk and not others:
        raise Wrong("%s is not told that it used the lease last, with %s" % (me.claim, me.disk))


def host_steps(world, number, attempts, commits, mistake):
    """The worlds to which the next step of a host may lead, with what was done."""
    me = world.hosts[number]
    objects = world.objects

    def after(what, me, **changes):
        hosts = world.hosts[:number] + (me,) + world.hosts[number + 1 :]
        return "host %d %s" % (number, what), world._replace(hosts=hosts, **changes)

    def ended(me=me):
        step = "look" if me.attempt + 1 < attempts else "done"
        return Host(step, me.attempt + 1, None, None, NONE, me.commits, me.disk, me.given)

    def put(what, kind, then, if_failed):
        thing = me.claim + (kind,)
        yield after("puts that it " + what, me._replace(step=then), objects=objects | {thing})
        if world.failures:
            yield after("fails to put that it " + what, me._replace(step=if_failed), landing=world.landing | {thing}, failures=world.failures - 1)

    if world.restarts and me.claim and me.step != "done":
        goes_on = me.disk and (not me.given or mistake == "resume_given_back")
        again = Host("resume" if goes_on else "look", me.attempt + 1, None, None, NONE, me.commits, me.disk, me.given)
        yield after("restarts", again, restarts=world.restarts - 1, left=world.left | {me.claim})
    if me.step == "resume":
        if standing(objects, me.disk, mistake):
            yield after("still holds", me._replace(step="own", claim=me.disk))
        yield after("begins anew", me._replace(step="look"))
    elif me.step == "look":
        seen = view(objects, mistake)
        claim = (seen.epoch + 1, number, me.attempt)
        if seen.free or seen.top[1] == number:
            # Its own lease, from before a restart, is no obstacle.
            yield after("lists", me._replace(step="claim", claim=claim, over=None if seen.free else seen.top))
        elif world.takeovers:
            asked = me._replace(step="claim", claim=claim, over=seen.top)
            yield after("is asked to take over %s" % (seen.top,), asked, takeovers=world.takeovers - 1, asked=world.asked | {seen.top})
    elif me.step == "claim":
        yield from put("claims %s" % (me.claim,), "claim", "check", "yield")
    elif me.step == "check":
        good = may_hold(objects, me.claim, me.over, mistake)
        yield after("lists after its claim", me._replace(step="hold" if good else "yield"))
    elif me.step == "yield":
        yield after("yields", ended(), objects=objects - {me.claim + ("claim",)})
    elif me.step == "hold":
        yield from put("holds %s" % (me.claim,), "held", "confirm", "withdraw")
    elif me.step == "confirm":
        if holds(objects, me.claim, mistake):
            check_holder(world, me, mistake)
            lower = frozenset(o for o in objects if o[:3] < me.claim)
            step = "clean" if mistake == "clean_before_disk" else "disk"
            yield after("lists again, and holds", me._replace(step=step, going=lower), held=me.claim)
        else:
            yield after("lists again", me._replace(step="withdraw"))
    elif me.step == "withdraw" and mistake == "withdraw_by_delete":
        yield after("deletes what it put", ended(), objects=objects - {me.claim + ("claim",), me.claim + ("held",)})
    elif me.step == "withdraw":
        yield after("withdraws", ended(), objects=objects | {me.claim + ("withdrawn",)})
    elif me.step == "clean" and me.going:
        going = min(me.going)
        yield after("deletes %s" % (going,), me._replace(going=me.going - {going}), objects=objects - {going})
    elif me.step == "disk" or me.step == "clean" and me.disk != me.claim:
        yield after("writes its claim to its disk", me._replace(step="clean", disk=me.claim, given=False), used=max(world.used or me.claim, me.claim))
    elif me.step == "clean":
        yield after("reads which snapshots there are", me._replace(step="own"), began=world.began | {(me.claim[0], counting(world))})
    elif me.step == "own":
        if me.commits < commits:
            yield after("looks whether it still holds", me._replace(step="record" if standing(objects, me.claim, mistake) else "lost"))
        yield after("writes to its disk that it gives the lease back", me._replace(step="release", given=True))
    elif me.step == "release":
        mine = {o for o in objects if o[:3] == me.claim}
        gone = objects - mine if mistake == "release_by_delete" else objects | {me.claim + ("released",)}
        yield after("releases", ended(), objects=gone)
        if world.failures:
            thing = me.claim + ("released",)
            # It has to be tried again; until then others see a holder.
            yield after("fails to release", ended(), landing=world.landing | {thing}, failures=world.failures - 1, left=world.left | {me.claim})
    elif me.step == "record":
        record = (me.claim[0], number, me.commits)
        yield after("puts its record", me._replace(step="postcheck"), records=world.records | {record})
        if world.failures:
            yield after("fails to put its record", me._replace(step="own", commits=me.commits + 1), landing=world.landing | {record}, failures=world.failures - 1)
    elif me.step == "postcheck":
        record = (me.claim[0], number, me.commits)
        if mistake == "no_check_after" or standing(objects, me.claim, mistake):
            unknown = [epoch for epoch, base in world.began if epoch > record[0] and record not in base]
            if unknown:
                raise Wrong("%s is reported as committed, and the holder of epoch %d does not know it" % (record, unknown[0]))
            yield after("reports its commit", me._replace(step="own", commits=me.commits + 1), reported=world.reported | {record})
        else:
            yield after("sees that it lost the lease", me._replace(step="forget"))
    elif me.step == "forget":
        yield after("forgets its record", me._replace(step="lost"), forgotten=world.forgotten | {(me.claim[0], number, me.commits)})


def steps(world, attempts, commits, mistake):
    for thing in sorted(world.landing, key=str):
        rest = world.landing - {thing}
        if len(thing) == 4:
            yield "%s lands late" % (thing,), world._replace(landing=rest, objects=world.objects | {thing})
        else:
            yield "the record %s lands late" % (thing,), world._replace(landing=rest, records=world.records | {thing})
    for number in range(len(world.hosts)):
        yield from host_steps(world, number, attempts, commits, mistake)


@functools.lru_cache(maxsize=None)
def stuck(objects, mistake):
    """Whether a host that is alone can neither have the lease nor take it over."""
    seen = view(objects, mistake)
    claim = (seen.epoch + 1, 99, 0)
    over = None if seen.free else seen.top
    objects |= {claim + ("claim",)}
    return not (may_hold(objects, claim, over, mistake) and holds(objects | {claim + ("held",)}, claim, mistake))


def wrong(world, mistake):
    """What must never happen, if it has."""
    believing = [host.claim for host in world.hosts if host.step in BELIEVE and host.claim not in world.asked]
    if len(believing) > 1:
        return "both %s and %s believe that they hold" % tuple(believing[:2])
    if world.reported:
        newest = max(counting(world), key=lambda record: record[1:] if mistake == "by_time" else record)
        highest = max(world.reported)
        if newest[0] < highest[0]:
            return "%s was reported, and the newest is %s" % (highest, newest)
    if stuck(world.objects, mistake):
        return "a host that is alone cannot have the lease"
    seen = view(world.objects, mistake)
    if not seen.free and seen.top not in world.left and world.hosts[seen.top[1]].claim != seen.top:
        return "%s seems to hold, and knows that it does not" % (seen.top,)
    return None


def explore(hosts, attempts, commits, takeovers, restarts, failures, mistake=None, limit=0):
    """Looks at every world that can come about, nearest first. Returns (what went wrong, the steps to it, worlds seen, whether all were)."""
    first = beginning(hosts, takeovers, restarts, failures)
    came_from, queue = {first: None}, deque([first])

    def way_to(world):
        way = []
        while came_from[world]:
            what, world = came_from[world]
            way.append(what)
        return way[::-1]

    while queue:
        world = queue.popleft()
        try:
            problem = wrong(world, mistake)
            if problem:
                raise Wrong(problem)
            for what, following in steps(world, attempts, commits, mistake):
                if following not in came_from:
                    came_from[following] = what, world
                    queue.append(following)
        except Wrong as problem:
            return str(problem), way_to(world), len(came_from), False
        if limit and len(came_from) >= limit:
            return None, [], len(came_from), False
    return None, [], len(came_from), True


# Hosts, attempts, commits, takeovers, restarts, failures.
SAFE = ((3, 1, 0, 0, 0, 1), (3, 1, 1, 1, 0, 0), (2, 1, 1, 1, 1, 0), (2, 2, 0, 0, 1, 0))
# Each mistake in the smallest world that shows it.
UNSAFE = {
    "no_first_list": (2, 1, 0, 0, 0, 0),
    "no_second_list": (2, 1, 0, 0, 0, 0),
    "held_ignored": (2, 1, 0, 0, 0, 0),
    "any_claim_blocks": (2, 1, 0, 0, 0, 0),
    "same_epoch": (2, 1, 0, 0, 0, 0),
    "take_over_anyone": (2, 2, 0, 1, 1, 0),
    "withdraw_by_delete": (2, 2, 0, 0, 0, 1),
    "withdrawn_was_held": (2, 2, 0, 0, 0, 0),
    "release_by_delete": (2, 1, 0, 0, 0, 0),
    "resume_given_back": (2, 2, 0, 0, 1, 1),
    "no_check_after": (2, 1, 1, 1, 0, 0),
    "own_host_is_current": (2, 2, 0, 1, 1, 0),
    "clean_before_disk": (2, 2, 0, 1, 1, 0),
    "by_time": (2, 1, 1, 1, 0, 0),
}


def suite():
    """What the test suite asks for; small enough for every run."""
    good = True
    for world in SAFE:
        loss, way, seen, whole = explore(*world)
        good &= not loss and whole
        print("%d hosts, %d attempts, %d commits, %d takeovers, %d restarts, %d failures: %s, %d worlds" % (*world, loss or "safe", seen))
        print("".join("    %s\n" % step for step in way), end="")
    for mistake, what in MISTAKES.items():
        loss, way, seen, _ = explore(*UNSAFE[mistake], mistake=mistake)
        good &= bool(loss)
        print("%s (%s): %s" % (mistake, what, "caught after %d steps: %s" % (len(way), loss) if loss else "NOT CAUGHT in %d worlds" % seen))
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--attempts", type=int, default=1, help="how often a host asks for the lease")
    parser.add_argument("--commits", type=int, default=1, help="how often a host commits")
    parser.add_argument("--takeovers", type=int, default=0)
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--failures", type=int, default=0, help="how many PUTs fail, and land late or never")
    parser.add_argument("--mistake", choices=MISTAKES)
    parser.add_argument("--limit", type=int, default=1_000_000, help="worlds to look at; 0 for all")
    if len(sys.argv) == 1:
        sys.exit(0 if suite() else 1)
    args = parser.parse_args()
    loss, way, seen, whole = explore(
        args.hosts, args.attempts, args.commits, args.takeovers, args.restarts, args.failures, args.mistake, args.limit)
    for step in way:
        print(step)
    print("%s, %d worlds%s" % (loss or "safe", seen, "" if whole or loss else ", not all of them"))
    sys.exit(1 if loss else 0)


if __name__ == "__main__":
    main()
