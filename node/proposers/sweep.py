"""A numeric search over the constants of a program: CMA-ES, started from what every earlier experiment with them gave.

Each proposal is one sample: the distribution is estimated anew from the history (Nomura et al., "Warm Starting
CMA-ES", 2021), own trials and peers' alike, so that it is a pure function of the situation and a seed. A sample moves
few constants at a time, because a program whose every dial moves at once tells nothing about any of them.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from ...protocols.canonical import digest
from ...protocols.tags import Tag
from .base import Hypothesis, Situation
from .catalogue_dials import KINDS, LIMITS
from .constants import constants, encode
from .edits import Draft, NotApplicable, literal

REACH = 16.0  # how far from where it stands a number may go, as a factor
WHOLE_REACH = 4.0  # a whole number: sizes cost steps
SPREAD = 0.1  # of the first samples, in shares of the range: a factor of 1.7, or 1.3 for whole numbers
AT_ONCE = 3  # constants that one sample moves, at most
HOPELESS = 1.0  # standard deviations worse than its parent: such a point says nothing of where to look
BEST_SHARE = 0.5  # of the other points, from which the distribution is estimated
MAX_POINTS = 200
MAX_DIALS = 32  # a stranger's program may have any number of constants
_SAMPLES = 40
_EDIT_CHARACTERS = 64 - len("sweep:")  # what a record's proposer field holds
_DECAYS = ("BETAS", "MOMENTUM", "EMA_DECAY")


@dataclass(frozen=True)
class Dial:
    """One number and its range; positions are shares of the range, on a scale of factors."""

    name: str
    value: float
    low: float
    high: float
    whole: bool

    @property
    def decays(self) -> bool:
        """Whether what counts is the distance from one."""
        return self.name.partition(".")[0] in _DECAYS

    def place(self, value: float) -> float:
        """Where a value stands, cut to the range."""
        low, high, at = (math.log(1 - one if self.decays else one) for one in (self.low, self.high, self._cut(value)))
        return (at - low) / (high - low)

    def value_at(self, place: float) -> float:
        """The value at a place, as a program would state it: whole, or with three digits."""
        low, high = (math.log(1 - one if self.decays else one) for one in (self.low, self.high))
        number = math.exp(low + min(1.0, max(0.0, place)) * (high - low))
        if self.decays:
            return 1 - float(f"{number:.2g}")
        return float(max(1, round(number))) if self.whole else float(f"{number:.3g}")

    def _cut(self, value: float) -> float:
        return min(self.high, max(self.low, value))


class Sweep:
    """Proposes samples of the constants; equal seed and situation give an equal proposal."""

    name = "sweep"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def choose(self, situation: Situation) -> Hypothesis | None:
        """An untried sample, or None when the program has no constants to move."""
        space = dials(situation.parent)
        if not space:
            return None
        place = digest(f"sweep/{self._seed}/{len(situation.trials)}/{situation.parent}".encode())
        chance = random.Random(place)
        for sample in _samples(situation, space, chance):
            chosen = chance.sample(range(len(space)), min(len(space), chance.randint(1, AT_ONCE)))
            moved = {space[index].name: space[index].value_at(sample[index]) for index in chosen}
            source = _set(situation.parent, moved)
            if source is not None and not situation.tried(source):
                return self._hypothesis(situation.parent, source)
        return None

    def _hypothesis(self, parent: str, source: str) -> Hypothesis:
        before, after = constants(parent), constants(source)
        moved = tuple(sorted((name, after[name]) for name in after if after[name] != before.get(name)))
        words = ", ".join(f"{name} {literal(before[name])} → {literal(value)}" for name, value in moved)
        tags: dict[Tag, None] = {}  # a set that keeps its order
        for name, _ in moved:
            for tag in _kinds(name):
                tags[tag] = None
        reason = "A sample near the numbers that did best so far."
        return Hypothesis(
            source, f"sweep: {words}"[:120], reason, tuple(tags)[:3], self.name, encode(moved, _EDIT_CHARACTERS)
        )


def _kinds(name: str) -> tuple[Tag, ...]:
    return KINDS.get(name.partition(".")[0]) or ("other",)


def dials(source: str) -> list[Dial]:
    """The constants of a program that can be moved, in the order of the text."""
    found: list[Dial] = []
    for name, value in constants(source).items():
        base = name.partition(".")[0]
        whole = isinstance(value, int) and base not in _DECAYS
        if base in _DECAYS:
            low, high = 1 - min(0.9, REACH * (1 - value)), 1 - (1 - value) / REACH
            fits = 0 < value < 1
        else:
            reach = WHOLE_REACH if whole else REACH
            least, most = LIMITS.get(base, (1 if whole else 0.0, math.inf))
            low, high = max(value / reach, min(least, value)), min(value * reach, max(most, value))
            fits = value > 0
        if fits and low < high:
            found.append(Dial(name, value, low, high, whole))
    return found[:MAX_DIALS]


def _samples(situation: Situation, space: list[Dial], chance: random.Random) -> list[list[float]]:
    import cmaes  # with numpy, 0.2 s that only those pay who sweep
    import numpy as np

    points = history(situation, space)
    solutions = [(np.array(point), value) for point, value in points]
    best = max(BEST_SHARE, 1 / len(solutions))
    mean, sigma, covariance = cmaes.get_warm_start_mgd(solutions, gamma=best, alpha=SPREAD)
    search = cmaes.CMA(
        mean=np.clip(mean, 0.0, 1.0), sigma=sigma, cov=covariance, bounds=np.array([[0.0, 1.0]] * len(space)),
        seed=chance.getrandbits(32),
    )  # fmt: skip
    return [[float(one) for one in search.ask()] for _ in range(_SAMPLES)]


def history(situation: Situation, space: list[Dial]) -> list[tuple[list[float], float]]:
    """Points with values, lower is better: what each trial set, on top of where the program stands now, and how many
    standard deviations worse than its parent it was. The program itself is one, with 0."""
    here = [dial.place(dial.value) for dial in space]
    index = {dial.name: number for number, dial in enumerate(space)}
    noise = max(situation.noise or 0.0, 0.002 * abs(situation.parent_score or 1.0))
    points: list[tuple[list[float], float]] = [(here, 0.0)]
    for trial in situation.trials[-MAX_POINTS:]:
        moved = [(index[name], value) for name, value in trial.moved if name in index]
        if not moved or trial.gain is None or -trial.gain / noise > HOPELESS:
            continue
        point = list(here)
        for number, value in moved:
            point[number] = space[number].place(value)
        points.append((point, -trial.gain / noise))
    return points


def _set(source: str, moved: dict[str, float]) -> str | None:
    """The program with its constants set and made to fit each other; None when that changes nothing."""
    try:
        draft = Draft(source)
        known = draft.constants()
        changed: dict[str, int | float | tuple[float, ...]] = {}
        for name, value in _fitting(moved, known).items():
            base, _, member = name.partition(".")
            old = changed.get(base, known.get(base))
            if isinstance(old, tuple) and member:
                changed[base] = tuple(value if str(at) == member else one for at, one in enumerate(old))
            elif isinstance(old, int | float) and not member:
                changed[base] = int(value) if isinstance(old, int) else float(value)
        for name, value in changed.items():
            draft.set(name, value)
        edited = draft.result()
    except (NotApplicable, SyntaxError, ValueError):
        return None
    return edited if edited != source else None


def _fitting(moved: dict[str, float], known: dict[str, object]) -> dict[str, float]:
    """The same with a width that its heads divide into even parts of at least 8."""
    moved = dict(moved)
    width, heads = (moved.get(name, known.get(name)) for name in ("WIDTH", "HEADS"))
    if isinstance(width, int | float) and isinstance(heads, int | float) and {"WIDTH", "HEADS"} & set(moved):
        if "HEADS" in moved:
            heads = moved["HEADS"] = float(2 ** round(math.log2(max(1.0, heads))))
        part = 8 * int(heads)
        moved["WIDTH"] = float(max(1, round(width / part)) * part)
    if "SEQ" in moved:
        moved["SEQ"] = float(max(16, round(moved["SEQ"] / 8) * 8))
    return moved
