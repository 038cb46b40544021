"""Break the hardware on purpose and see whether the tests notice: ``python tests/mutations``.

Without options every mutation of the catalogue meets the test that must catch it; the exit status
is 0 only if all are caught. With ``--sweep N`` a random choice of N small changes of the hardware's
text meets the quick tests of its component; the exit status is 0 only if those that none of them
notices are known to change nothing.
"""

import argparse
import random
import sys
import time
from collections import Counter

from catalogue import MUTATIONS, Mutation, StaleMutation
from equivalents import EQUIVALENTS
from mutant import ROOT
from sweep import COMPONENTS, Change, changes
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
        _progress(len(baselines) + len(outcomes), len(trials))

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


def sweep(count: int, seed: int, jobs: int, only: str) -> bool:
    """Try random changes, print those that survive, and return whether none should not."""
    start = time.monotonic()
    everything = [change for file in COMPONENTS if only in file for change in changes(file)]
    chosen = random.Random(seed).sample(everything, min(count, len(everything)))
    trials = [Trial(COMPONENTS[change.file], change.file, change.text) for change in chosen]
    verdicts: Counter[Verdict] = Counter()
    survivors: list[Change] = []
    for done, (number, outcome) in enumerate(run(trials, jobs=jobs), start=1):
        verdicts[outcome.verdict] += 1
        _progress(done, len(trials))
        if outcome.verdict is Verdict.PASSED:
            survivors.append(chosen[number])
    reasons = {(e.file, e.old, e.new): e.reason for e in EQUIVALENTS}
    open_ = 0
    for change in sorted(survivors, key=lambda change: (change.file, change.line)):
        reason = reasons.get(change.key)
        open_ += reason is None
        print(f"{change.file}:{change.line} {'SURVIVED' if reason is None else 'changes nothing'}")
        print(f"  - {change.old}\n  + {change.new}")
        if reason is not None:
            print(f"  {reason}")
    alive = len(survivors) - open_
    print(
        f"{len(chosen)} of {len(everything)} changes (seed {seed}): "
        f"{verdicts[Verdict.MISMATCH]} caught by a mismatch, {verdicts[Verdict.ERROR]} refused by "
        f"an exception, {verdicts[Verdict.TIMEOUT]} without end; {alive} survive and change "
        f"nothing, {open_} survive; {time.monotonic() - start:.0f} s"
    )
    return open_ == 0


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total} runs ", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python tests/mutations", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--only", default="", help="mutations whose name or file contains this")
    parser.add_argument("--sweep", type=int, metavar="N", help="try N random changes instead")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of changes")
    options = parser.parse_args()
    if options.sweep is None:
        return 0 if catalogue(options.jobs, options.only) else 1
    return 0 if sweep(options.sweep, options.seed, options.jobs, options.only) else 1


if __name__ == "__main__":
    sys.exit(main())
