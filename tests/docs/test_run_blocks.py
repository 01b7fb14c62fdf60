#!/usr/bin/env python3
"""Tests of run_blocks.py itself: what it takes from a document, and which output it accepts. They need no engine.

    python3 -m unittest discover -s tests/docs
"""

import os
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import run_blocks  # noqa: E402

DOCUMENT = """# Title

```sh
first
```

## Nothing to run

```toml
key = 1
```

## One

<!-- setup: hidden one -->
<!-- setup:
hidden two
hidden three
-->
1. A step.

   ```sh
   step one
     indented
   ```

<!-- skip: because -->
```sh
not run
```

## Two

```console
$ voltool ls
NAME   SIZE
$ voltool \\
>   backup
…
done
$ quiet
```
<!-- check: last -->

## Three

<!-- any order: they race -->
```console
$ both
```
```console
$ one
```
"""


class Parse(unittest.TestCase):
    def test_document(self):
        prologue, scenarios = run_blocks.parse(DOCUMENT)
        self.assertEqual([piece.commands for piece in prologue], ["first"])
        self.assertEqual([(heading, skipped) for heading, _, skipped in scenarios], [("One", 1), ("Two", 0), ("Three", 0)])
        self.assertEqual([piece.ordered for piece in scenarios[2][1]], [False, True])
        one, two = scenarios[0][1], scenarios[1][1]
        self.assertEqual([(piece.commands.strip(), piece.hidden) for piece in one],
                         [("hidden one", True), ("hidden two\nhidden three", True), ("step one\n  indented", False)])
        self.assertEqual([(piece.commands.strip(), piece.expected) for piece in two],
                         [("voltool ls", ["NAME   SIZE"]), ("voltool \\\n  backup", ["…", "done"]), ("quiet", []), ("last", None)])
        self.assertEqual(DOCUMENT.split("\n")[one[2].line - 1].strip(), "step one")

    def test_documents_that_make_no_sense(self):
        for text in ("```sh\nno end", "<!-- setup: no end", "<!-- any order: of nothing -->\n", "## H\n<!-- skip: nothing -->\n", "```console\nno command\n```\n"):
            with self.assertRaises(run_blocks.BadDocument, msg=text):
                run_blocks.parse(text)


class Matches(unittest.TestCase):
    def test_wildcards(self):
        for expected, lines, good in (
            ([], [], True),
            ([], ["x"], False),
            (["a b"], ["a b"], True),
            (["a … c"], ["a b b c"], True),
            (["a … c"], ["a b d"], False),
            (["a.c"], ["abc"], False),
            (["…", "end"], ["x", "y", "end"], True),
            (["…", "end"], ["end"], True),
            (["start", "…"], ["start"], True),
            (["start", "…", "end"], ["start", "end", "more"], False),
        ):
            self.assertEqual(run_blocks.matches(expected, lines), good, (expected, lines))

    def test_any_order(self):
        for expected, lines, good in (
            ([], [], True),
            ([], ["x"], False),
            (["a", "b"], ["b", "a"], True),
            (["a", "b"], ["b"], False),
            (["a"], ["b", "a"], False),
            (["… s", "b …"], ["b s", "a s"], True),
            (["a", "a"], ["a", "b"], False),
        ):
            self.assertEqual(run_blocks.matches_in_any_order(expected, lines), good, (expected, lines))


if __name__ == "__main__":
    unittest.main()
