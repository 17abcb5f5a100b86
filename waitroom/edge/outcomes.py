"""The outcomes of requests, by which `waitroom_requests_total` counts them; docs/operating.md describes each."""

from __future__ import annotations

from typing import Literal

# The outcomes under which a request is forwarded, and counted if its exchange ends well.
ForwardOutcome = Literal["admitted", "bypass", "transit", "uncovered", "without_pass"]

# The ends of an exchange with the shop; "ok" is counted as the request's `ForwardOutcome`.
ExchangeOutcome = Literal["ok", "buffers_full", "busy", "failed", "gone", "idle", "session_ended"]

RequestOutcome = (
    ForwardOutcome
    | Literal["buffers_full", "busy", "failed", "gone", "idle", "session_ended"]
    | Literal["claim", "held", "join", "join_limited", "leave", "queued", "status", "turned_away", "waiting"]
    | Literal["bypass_capped", "bypass_draft", "bypass_draft_capped", "prefetch", "refused", "session_limited"]
    | Literal["preflight", "preflight_cached", "preflight_refused", "sent_to_wait", "too_many_at_once"]
)
