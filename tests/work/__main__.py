"""``python -m tests.work``: show what calls and pieces cost, beside what is expected; ``--accept`` what was found."""

from __future__ import annotations

import argparse
import sys

from tests.work.guard import EXPECTED, Expected, compare, write
from tests.work.measure import WIRES, instructions_by_file, measure


def _show_files() -> None:
    for wire in WIRES:
        for what, files in instructions_by_file(wire).items():
            print(f"\n{wire} {what}: {sum(files.values()):g} instructions")
            for file, number in sorted(files.items(), key=lambda item: -item[1]):
                if number:
                    print(f"{number:10g}  {file}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.work", description=__doc__)
    parser.add_argument("--accept", action="store_true", help="write what was measured into expected.json")
    parser.add_argument("--because", metavar="REASON", help="why something grew; goes into the changelog")
    parser.add_argument("--files", action="store_true", help="instructions of calls and pieces, file by file")
    options = parser.parse_args()
    if options.files:
        _show_files()
        return 0
    measured = measure()
    expected = Expected.parse(EXPECTED.read_text("utf-8")) if EXPECTED.exists() else None
    known = expected.figures if expected is not None else {}
    for name, number in measured.figures.items():
        before = known.get(name)
        change = "" if not before or before == number else f"{(number / before - 1) * 100:+.1f} %"
        print(f"{name:60} {number:>9g} {'' if before is None else format(before, 'g'):>9} {change:>8}")
    if options.accept:
        try:
            print(write(measured, because=options.because))
        except ValueError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    found = compare(measured, expected) if expected is not None else ["nothing is expected yet: --accept"]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
