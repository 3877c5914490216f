#!/usr/bin/env python3
"""Compares a report of the Autobahn test suite with the committed expectation.

    compare.py [--agent NAME] [--seconds N] --expected expected.json INDEX.json...

The reports are the parts of one run.

Prints the totals and every difference. Exit status: 0 if each of the 517 cases has exactly the
expected behavior and behaviorClose, 1 if anything differs, is missing or is new, 2 if a file cannot
be used. A result better than expected is a difference too: the expectation has to be changed then.
"""

import argparse
import collections
import json
import sys

CASES = 517
FIELDS = ("behavior", "behaviorClose")


def case_order(case):
    """Sorts 2.10 behind 2.9."""
    return [int(part) if part.isdigit() else part for part in case.split(".")]


def differences(expected, actual):
    """One line for each case and field that differs, in the order of the cases."""
    lines = []
    for case in sorted(expected.keys() | actual.keys(), key=case_order):
        if case not in actual:
            lines.append(f"{case}: expected, but did not run")
        elif case not in expected:
            lines.append(f"{case}: ran, but is not expected")
        else:
            for field in FIELDS:
                want, got = expected[case].get(field), actual[case].get(field)
                if want != got:
                    lines.append(f"{case} {field}: expected {want}, got {got}")
    for name, cases in (("expected", expected), ("run", actual)):
        if len(cases) != CASES:
            lines.append(f"{len(cases)} cases {name}, not {CASES}")
    return lines


def totals(actual, field):
    counts = collections.Counter(str(result.get(field)) for result in actual.values())
    return ", ".join(f"{count} {behavior}" for behavior, count in counts.most_common())


def load(path, agent=None):
    """Cases by id; a report holds them by agent."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        cases = document[agent] if agent is not None else document
        if not all(isinstance(result, dict) for result in cases.values()):
            raise ValueError("not a table of results by case")
        return cases
    except KeyError:
        problem = f"no results of agent {agent!r}"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        problem = error
    print(f"{path}: {problem}", file=sys.stderr)
    sys.exit(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", default="steadfast")
    parser.add_argument("--seconds", type=int, help="how long the run took")
    parser.add_argument("--expected", required=True)
    parser.add_argument("reports", nargs="+")
    options = parser.parse_args()
    actual = {}
    for report in options.reports:
        actual.update(load(report, options.agent))
    expected = load(options.expected)

    took = "" if options.seconds is None else f" in {options.seconds} s"
    print(f"{len(actual)} cases{took}")
    for field in FIELDS:
        print(f"{field}: {totals(actual, field)}")
    lines = differences(expected, actual)
    for line in lines:
        print(f"  {line}")
    print(f"{len(lines)} differences" if lines else "as expected")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
