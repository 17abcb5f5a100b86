"""How many refused attempts are recorded."""

from __future__ import annotations

from waitroom.control.audit.refusals import BURST, STRANGERS_BURST, RefusalLimiter


def test_omitted_attempts_are_counted_for_each_actor() -> None:
    limiter = RefusalLimiter()
    assert [limiter.permit("eve", 0, known=True) for _ in range(BURST)] == [0] * BURST
    assert [limiter.permit("eve", 0, known=True) for _ in range(7)] == [None] * 7
    assert limiter.permit("ada", 0, known=True) == 0
    assert limiter.permit("eve", 0, known=False) == 0, "a stranger who uses the name"
    assert limiter.permit("eve", 1, known=True) == 7
    assert limiter.permit("eve", 1, known=True) is None


def test_strangers_have_less() -> None:
    limiter = RefusalLimiter()
    assert [limiter.permit("unknown", 0, known=False) for _ in range(STRANGERS_BURST)] == [0] * STRANGERS_BURST
    assert limiter.permit("unknown", 1.9, known=False) is None
    assert limiter.permit("unknown", 2, known=False) == 1
