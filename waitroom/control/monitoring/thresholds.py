"""When an upstream is failing: one table for the dashboard, the webhooks and the autopilot, with the reasons.

They differ because what follows differs: a line on a page costs a glance, a webhook may wake somebody, and the
autopilot keeps visitors waiting. All of them take failures as a share of the answers: requests whose visitor gave up
say nothing of how the upstream would have answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Threshold:
    """When something is said or done about failures.

    Attributes:
        share: Of the answers, from which on.
        fewest_failures: In the window, so that chance alone isn't enough.
        fewest_answers: In the window.
    """

    share: float
    fewest_failures: float = 0.0
    fewest_answers: float = 0.0

    def reached(self, answers: float, failures: float) -> bool:
        """Whether so many failures among so many answers are enough."""
        enough = failures > 0 and failures >= self.fewest_failures and answers >= self.fewest_answers
        return enough and failures >= self.share * answers


# The dashboard names it, over ten seconds. Somebody is looking already, so it says so early: at one answer in fifty,
# which shops in good health stay well below. Of 20 answers one failure is five in a hundred and may be chance, so fewer
# answers say nothing.
NOTICE: Final = Threshold(share=0.02, fewest_answers=20)
# The webhook `shop_failing`, over a minute. It may wake somebody, so it takes one answer in twenty, the share at which
# the Prometheus alerts go off, too; and five failures, since two at night are chance.
ALERT: Final = Threshold(share=0.05, fewest_failures=5)
# `shop_well`: further off than what begins it, so that a shop at the border isn't told of again and again.
ALERT_ENDS_SHARE: Final = 0.01
# The autopilot goes back with the rate, over its window of 2 to 60 s. It costs the waiting a little time alone and is
# taken back by itself, so one answer in two hundred is enough; and two failures, since one may be anything.
BACK_OFF: Final = Threshold(share=0.005, fewest_failures=2)
# The autopilot lets nobody in. With one answer in five failing, hardly a purchase succeeds, and more visitors make it
# worse; five failures, so that it doesn't stop for a handful of requests.
HOLD: Final = Threshold(share=0.2, fewest_failures=5)
# The autopilot takes the shop for slow when visitors give up before the answer: one in ten doesn't do so by chance.
GIVING_UP: Final = Threshold(share=0.1, fewest_failures=5)
