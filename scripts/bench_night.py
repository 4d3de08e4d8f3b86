#!/usr/bin/env python3
"""What a night of a swarm brings, with real node processes over real libp2p on this machine.

    scripts/bench night compare OUT    swarm against solo at equal compute, without verification, and among liars
    scripts/bench night crowd OUT      many nodes, one night: how discoveries spread
    scripts/bench night staircase OUT  one node, beside the rule "keep if lower": what fresh seeds leave of the gains
    scripts/bench night report OUT     report.md and plots of what OUT holds

What is judged, and by what, is written to OUT before anything runs. Every finished arm is a line of OUT/*.jsonl, and a
second start with the same settings goes on where the first stopped. The ledgers stay in OUT. Compute is the CPU time of
all runs of the honest nodes by their own journals (training, evaluation, noise, verification; 0.6 s for each round of
measuring what a step costs), so that other load on the machine does not count.
"""

import argparse
import signal
from pathlib import Path


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("out", type=Path)
    shared.add_argument("--size", default="150", help="steps of a baseline run, or a named size of gpt-cpu")
    shared.add_argument("--stall", type=float, default=600.0, help="seconds without progress after which an arm ends")

    one = commands.add_parser("compare", parents=[shared], help="swarm against solo at equal compute")
    one.add_argument("--nodes", default="2,4,8", help="honest nodes, several numbers with commas")
    one.add_argument("--reps", type=int, default=3)
    one.add_argument(
        "--arms", default="solo,swarm,unverified,liars", help="and private: of members; single: one with all"
    )
    one.add_argument("--budget", type=float, default=1200.0, help="CPU seconds for each node; an arm has N times that")
    one.add_argument("--seeds", type=int, default=5, help="fresh runs that judge a program")
    one.add_argument("--from", dest="start", type=Path, help="a train.py to start from, in place of gpt-cpu's")
    one.add_argument("--parallel", type=int, default=1, help="arms at a time: as many as there are cores for")

    two = commands.add_parser("crowd", parents=[shared], help="many nodes, one night")
    two.add_argument("--nodes", type=int, default=35)
    two.add_argument("--experiments", type=int, default=333, help="of all nodes together")
    two.add_argument("--at-once", type=int, help="nodes that start at one time (all)")

    three = commands.add_parser("staircase", parents=[shared], help="one node, beside the rule: keep if lower")
    three.add_argument("--experiments", type=int, default=126)
    three.add_argument("--seeds", type=int, default=5, help="fresh runs of each program on the staircases")
    three.add_argument("--proposer-seed", type=int, default=1)

    four = commands.add_parser("report", help="report.md and plots of what OUT holds")
    four.add_argument("out", type=Path)
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background of a shell, Ctrl-C is ignored from the start
        signal.signal(number, signal.default_int_handler)
    try:
        run(parser.parse_args(), parser)
    except KeyboardInterrupt:
        parser.exit(130, "stopped; started again with the same settings, it goes on\n")


def run(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Do what was asked for."""
    if getattr(given, "seeds", 2) < 2:
        parser.error("one run has no standard error: --seeds is at least 2")
    if given.command == "compare":
        import night_compare as compare

        arms, nodes = tuple(given.arms.split(",")), tuple(int(text) for text in given.nodes.split(","))
        if unknown := set(arms) - set(compare.ARMS):
            parser.error(f"no arm is called {', '.join(unknown)}; there are {', '.join(compare.ARMS)}")
        if given.start and not given.start.is_file():
            parser.error(f"{given.start} is not there: --from names a train.py")
        start = given.start.read_text() if given.start else ""
        settings = compare.Settings(nodes, given.reps, arms, given.size, given.budget, given.seeds, given.stall, start)
        compare.compare(given.out, settings, given.parallel)
    elif given.command == "crowd":
        import night_crowd as crowd

        at_once = given.at_once or given.nodes
        crowd.crowd(given.out, crowd.Settings(given.nodes, given.experiments, given.size, given.stall, at_once))
    elif given.command == "staircase":
        import night_staircase as staircase

        staircase.staircase(
            given.out,
            staircase.Settings(given.experiments, given.size, given.seeds, given.proposer_seed, given.stall),
        )
    else:
        import night_report as report

        print(report.report(given.out))


if __name__ == "__main__":
    main()
