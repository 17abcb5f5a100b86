"""Thresholds of upstream failures: one table for the dashboard, the webhooks and the autopilot, with the reasons.

They differ because their consequences differ: a line on a page costs a glance, a webhook may wake somebody, and the
autopilot keeps visitors waiting. All of them use the share of failures among the answers: requests whose visitor gave
up say nothing about the answer of the upstream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Threshold:
    """The failures that trigger a reaction.

    Attributes:
        share: The minimum share of the answers.
        min_failures: The minimum number in the window, so that chance alone isn't enough.
        min_answers: The minimum number of answers in the window.
    """

    share: float
    min_failures: float = 0.0
    min_answers: float = 0.0

    def reached(self, answers: float, failures: float) -> bool:
        """Whether this number of failures among this number of answers reaches the threshold."""
        enough = failures > 0 and failures >= self.min_failures and answers >= self.min_answers
        return enough and failures >= self.share * answers


# The dashboard reports failures over ten seconds. Its reader is already looking, so it does so early: at one answer in
# fifty, a share that healthy shops stay far below. One failure in 20 answers is 5 % and may be chance, so fewer
# answers say nothing.
NOTICE: Final = Threshold(share=0.02, min_answers=20)
# The webhook `shop_failing`, over a minute. It may wake somebody, so it requires one answer in twenty, the share of the
# Prometheus alerts, and five failures, since two at night are chance.
ALERT: Final = Threshold(share=0.05, min_failures=5)
# `shop_well`: a lower threshold than the start's, so that a shop near the limit doesn't cause event after event.
ALERT_ENDS_SHARE: Final = 0.01
# The autopilot lowers the rate, over its window of 2 to 60 s. That only costs visitors a short wait and is reversed
# automatically, so one answer in two hundred is enough, with two failures, since a single one may be anything.
BACK_OFF: Final = Threshold(share=0.005, min_failures=2)
# The autopilot stops admission. With one answer in five failing, hardly a purchase succeeds, and more visitors make it
# worse. Five failures, so that it doesn't stop for a handful of requests.
HOLD: Final = Threshold(share=0.2, min_failures=5)
# The autopilot considers the shop slow when visitors give up before the answer: one in ten is not chance.
GIVING_UP: Final = Threshold(share=0.1, min_failures=5)
