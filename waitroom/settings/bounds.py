"""The bounds of the limits that both a room and its events set, with the reasons for them."""

from __future__ import annotations

from pydantic import Field

RATE = Field(gt=0, le=10_000_000)
MAX_ACTIVE = Field(ge=1, le=10_000_000)
SESSION = Field(ge=60, le=86_400)
SESSION_MAX = Field(ge=60, le=604_800)
HIDDEN_TAB = Field(ge=90, le=86_400)
KEEP_PLACE = Field(ge=90, le=604_800)
RECOVERY = Field(ge=0, le=3600)

HIDDEN_TAB_REASON = "Browsers let a hidden tab poll only once a minute, and the longest polling interval is 30 s."
SESSION_REASON = "Below one minute, a visitor who reads a page would lose the session."
