"""Break the hardware on purpose and see whether the tests notice: ``python tests/mutations``.

Without options every mutation of the catalogue meets the test that must catch it; the exit status
is 0 only if all are caught.
"""

import argparse
import sys
import time

from catalogue import MUTATIONS, Mutation, StaleMutation
from mutant import ROOT
from trials import Outcome, Trial, Verdict, run


def catalogue(jobs: int, only: str) -> bool:
    """Run the catalogue, print a table, and return whether every mutation is caught."""
    start = time.monotonic()
    chosen = [m for m in MUTATIONS if only in m.name or only in m.file]
    stale: list[str] = []
    trials: list[Trial] = []
    of_trial: list[Mutation | str] = []
    for test in dict.fromkeys(mutation.test for mutation in chosen):
        trials.append(Trial((test,)))
        of_trial.append(test)
    for mutation in chosen:
        try:
            text = mutation.apply((ROOT / mutation.file).read_text())
        except StaleMutation as error:
            stale.append(str(error))
            continue
        trials.append(Trial((mutation.test,), mutation.file, text))
        of_trial.append(mutation)

    baselines: dict[str, Outcome] = {}
    outcomes: dict[str, Outcome] = {}
    for number, outcome in run(trials, jobs=jobs):
        which = of_trial[number]
        if isinstance(which, str):
            baselines[which] = outcome
        else:
            outcomes[which.name] = outcome
        if sys.stderr.isatty():
            done = len(baselines) + len(outcomes)
            print(f"\r{done} of {len(trials)} runs ", end="", file=sys.stderr, flush=True)

    caught = 0
    print(f"{'file':26} {'mutation':72} verdict")
    for mutation in chosen:
        outcome = outcomes.get(mutation.name)
        if outcome is None:
            verdict = "STALE"
        elif baselines[mutation.test].verdict is not Verdict.PASSED:
            verdict = f"TEST FAILS UNCHANGED: {baselines[mutation.test].message}"
        elif outcome.verdict is Verdict.MISMATCH:
            caught += 1
            verdict = f"caught by {mutation.test.rpartition('::')[2]}"
        elif outcome.verdict is Verdict.PASSED:
            verdict = f"SURVIVED {mutation.test}"
        else:
            verdict = f"{outcome.verdict.name}, no mismatch: {outcome.message}"
        print(f"{mutation.file:26} {mutation.name:72} {verdict}")
    for sentence in stale:
        print(sentence)
    score = 100 * caught / len(chosen)
    print(
        f"mutation score: {caught} of {len(chosen)} caught = {score:.1f} %, in "
        f"{len({mutation.file for mutation in chosen})} files, {time.monotonic() - start:.0f} s"
    )
    return caught == len(chosen)


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python tests/mutations", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--only", default="", help="mutations whose name or file contains this")
    options = parser.parse_args()
    return 0 if catalogue(options.jobs, options.only) else 1


if __name__ == "__main__":
    sys.exit(main())
