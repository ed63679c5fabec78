"""Django's test runner with one line of JSON for each planned and each finished test, and the report over those lines.

As a runner it appends to $OUTCOMES, so that a label that hangs and is killed still leaves what it did. Run as a program
(`outcomes.py FILE`) it prints the causes of failures and, last, `N passed, N failed, N skipped`; exit code 0 if nothing
failed and everything that was planned ran.
"""

import json
import os
import signal
import sys

# Asserts that root is refused by a directory's mode, which holds on no file system. As root it counts as skipped.
ROOT_CANNOT = {"file_uploads.tests.DirectoryCreationTests.test_readonly_root"}
TEST_LIMIT_S = 60


def note(**event):
    with open(os.environ["OUTCOMES"], "a") as log:
        log.write(json.dumps(event) + "\n")


def last_line(text):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def runner():
    """The classes need Django, which the report doesn't."""
    import unittest

    from django.test.runner import DiscoverRunner, iter_test_cases

    class TooLong(Exception):
        """Deliberately no OSError: lexists() and Django swallow those."""

    def too_long(*_):
        raise TooLong(f"longer than {TEST_LIMIT_S} s")

    class Noting(unittest.TextTestResult):
        def startTest(self, test):
            super().startTest(test)
            signal.alarm(TEST_LIMIT_S)
            note(test=test.id(), outcome="started")

        def stopTest(self, test):
            signal.alarm(0)
            super().stopTest(test)

        def addSuccess(self, test):
            super().addSuccess(test)
            note(test=test.id(), outcome="passed")

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            note(test=test.id(), outcome="skipped", why=reason)

        def addExpectedFailure(self, test, error):
            super().addExpectedFailure(test, error)
            note(test=test.id(), outcome="skipped", why="expected failure")

        def addFailure(self, test, error):
            super().addFailure(test, error)
            note(test=test.id(), outcome="failed", why=last_line(self.failures[-1][1]))

        def addError(self, test, error):
            super().addError(test, error)
            note(test=test.id(), outcome="failed", why=last_line(self.errors[-1][1]))

        def addSubTest(self, test, subtest, error):
            super().addSubTest(test, subtest, error)
            if error is not None:
                note(test=test.id(), outcome="failed", why=last_line(self._exc_info_to_string(error, test)))

    class Runner(DiscoverRunner):
        def get_resultclass(self):
            return Noting

        def run_suite(self, suite, **options):
            signal.signal(signal.SIGALRM, too_long)
            for test in iter_test_cases(suite):
                note(test=test.id(), outcome="planned")
            return super().run_suite(suite, **options)

    return Runner


def report(path, as_root):
    """Prints; returns whether all is well."""
    worst = ["planned", "started", "passed", "skipped", "failed"]  # a later word outranks the ones before it
    outcomes, causes, outside = {}, {}, []
    with open(path) as log:
        for event in map(json.loads, log):
            test, outcome = event["test"], event["outcome"]
            if outcome != "planned" and test not in outcomes:  # setUpClass and the like
                outside.append(f"{test}: {event.get('why', '')}")
                continue
            if worst.index(outcome) >= worst.index(outcomes.get(test, "planned")):
                outcomes[test], causes[test] = outcome, event.get("why", "")
    for test in ROOT_CANNOT & outcomes.keys() if as_root else ():
        if outcomes[test] == "failed":
            outcomes[test] = "skipped"
    ill = {test: outcome for test, outcome in outcomes.items() if outcome not in ("passed", "skipped")}
    for test, outcome in sorted(ill.items()):
        print(f"FAILED {test}: {causes[test] or {'planned': 'did not run', 'started': 'hung or was killed'}.get(outcome, '')}")
    for line in outside:
        print(f"FAILED {line}")
    count = list(outcomes.values()).count
    print(f"{count('passed')} passed, {len(ill) + len(outside)} failed, {count('skipped')} skipped")
    return bool(outcomes) and not ill and not outside


if __name__ == "__main__":
    sys.exit(0 if report(sys.argv[1], os.geteuid() == 0) else 1)


def __getattr__(name):
    """Settings name the runner as `outcomes.Runner`."""
    if name == "Runner":
        return runner()
    raise AttributeError(name)
