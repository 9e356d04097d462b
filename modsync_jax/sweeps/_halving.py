"""Successive halving: the comparisons of a sweep's configurations, and the survivors.

Every configuration trains for a short time, the best 1/η of them for η times as long, and so on
until the last ones reach the end (Jamieson & Talwalkar, Non-stochastic Best Arm Identification and
Hyperparameter Optimization, AISTATS 2016).
"""

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence

from modsync_jax.sweeps._grid import Replica
from modsync_jax.training import ConfigError


def rungs(replicas: Sequence[Replica], eta: int) -> list[int]:
    """Returns the steps after which configurations are compared; none without halving.

    Args:
      replicas: all replicas of the sweep.
      eta: η: one configuration of η goes on; 0 for no halving.

    Raises:
      ConfigError: on an η that is 1 or negative, or replicas of unequal steps.
    """
    if eta == 0:
        return []
    if eta < 2:
        raise ConfigError(
            f"halving is {eta}; it must be 0 (off), or 2 or more: one of so many stays"
        )
    schedules = {(replica.config.steps, replica.config.eval_every) for replica in replicas}
    if len(schedules) > 1:
        raise ConfigError(
            "halving compares networks after equal steps; take steps and eval_every out of the grid"
        )
    ((steps, every),) = schedules
    count = len({_configuration(replica) for replica in replicas})
    found = set()
    while count > 1 and (after := steps // eta // every * every) > 0:
        found.add(after)
        count, steps = math.ceil(count / eta), after
    return sorted(found)


def survivors(
    replicas: Sequence[Replica], scores: Mapping[str, float | None], eta: int
) -> list[Replica]:
    """Returns the replicas of the best 1/η of their configurations, in the given order.

    Args:
      replicas: the replicas to compare.
      scores: by name, the lowest error on validation points so far (unweighted loss without a
        reference), None for a replica that is not finite. A configuration's score is the geometric
        mean over its finite seeds.
      eta: η.
    """
    members: dict[str, list[Replica]] = {}
    for replica in replicas:
        members.setdefault(_configuration(replica), []).append(replica)

    def mean(name: str) -> float:
        known = [scores[replica.name] for replica in members[name]]
        smallest = sys.float_info.min  # the logarithm of an exact solution's 0 would be infinite
        logs = [math.log(max(score, smallest)) for score in known if score is not None]
        return math.exp(statistics.fmean(logs)) if logs else math.inf

    ranked = sorted(members, key=mean)
    kept = set(ranked[: math.ceil(len(ranked) / eta)])
    return [replica for replica in replicas if _configuration(replica) in kept]


def _configuration(replica: Replica) -> str:
    """Returns a label that replicas share if they differ in their seed alone."""
    return json.dumps({name: v for name, v in replica.point.items() if name != "seed"})
