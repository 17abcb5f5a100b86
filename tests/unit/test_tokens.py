"""Tickets and passes: valid ones, and one test for every way in which one can be invalid."""

from __future__ import annotations

import hashlib
import string

import pytest
from itsdangerous import Signer

from waitroom.errors import InvalidTokenError
from waitroom.tokens import (
    BOUND_TO_AGENT,
    BOUND_TO_NETWORK,
    MAX_CACHED_VALUE_BYTES,
    MAX_TOKEN_BYTES,
    TICKET_SECONDS,
    Pass,
    Ticket,
    Tokens,
    binding_kind,
)

SECRET = "the newest secret of this gateway"
OLDER = "an older secret of this gateway"
TICKET = Ticket(place=123_456, generation=7, joined_at=1_800_000_000, start_position=42, promised_seconds=90)
PASS = Pass(session=123_456, expires_at=1_800_000_900, ends_at=1_800_014_400)

tokens = Tokens([SECRET], "shop")


def signed(text: str, kind: str = "ticket") -> bytes:
    """A text that carries a good signature all the same."""
    signer = tokens._tickets if kind == "ticket" else tokens._passes
    return signer.sign(text)


def test_a_signed_ticket_can_be_read():
    assert tokens.read_ticket(tokens.sign_ticket(TICKET).encode()) == TICKET


def test_a_signed_pass_can_be_read():
    assert tokens.read_pass(tokens.sign_pass(PASS).encode()) == PASS


@pytest.mark.parametrize(("held", "binding", "fields"), [(0, 0, 3), (900, 0, 4), (0, 77, 5), (900, 77, 5)])
def test_a_pass_carries_holds_and_its_binding_if_it_has_any(held, binding, fields):
    """The others stay as short as they were, and are read by the release before."""
    one = Pass(123_456, 1_800_000_900, 1_800_014_400, held, binding)
    value = tokens.sign_pass(one)
    assert len(value.split(".")) == fields + 1
    assert tokens.read_pass(value.encode()) == one


def test_a_pass_of_the_previous_release_can_be_read():
    value = b"1e240.6b49d584.6b4a0a40." + signed("1e240.6b49d584.6b4a0a40", "pass").rpartition(b".")[2]
    assert tokens.read_pass(value) == Pass(0x1E240, 0x6B49D584, 0x6B4A0A40, held=0, binding=0)


def test_a_binding_reveals_only_its_kind():
    (agent,) = tokens.bindings(BOUND_TO_AGENT, b"Firefox")
    (network,) = tokens.bindings(BOUND_TO_NETWORK, b"Firefox")
    assert (binding_kind(agent), binding_kind(network), binding_kind(0)) == (BOUND_TO_AGENT, BOUND_TO_NETWORK, 0)
    assert agent >> 2 != network >> 2
    assert tokens.bindings(BOUND_TO_AGENT, b"Firefox") == (agent,)
    assert tokens.bindings(BOUND_TO_AGENT, b"Chrome") != (agent,)
    assert Tokens([OLDER], "shop").bindings(BOUND_TO_AGENT, b"Firefox") != (agent,), "only with the secret"
    assert Tokens([SECRET], "shop2").bindings(BOUND_TO_AGENT, b"Firefox") != (agent,), "in this room"
    assert max(agent, network) < 1 << 42, "a pass stays short"


def test_bindings_survive_a_rotation_of_secrets():
    (old,) = Tokens([OLDER], "shop").bindings(BOUND_TO_AGENT, b"Firefox")
    (new,) = tokens.bindings(BOUND_TO_AGENT, b"Firefox")
    assert Tokens([SECRET, OLDER], "shop").bindings(BOUND_TO_AGENT, b"Firefox") == (new, old)


@pytest.mark.interpreted
def test_cached_bindings_are_bounded(monkeypatch):
    monkeypatch.setattr("waitroom.tokens.MAX_CACHED_BINDINGS", 3)
    fresh = Tokens([SECRET], "shop")
    for number in range(10):
        fresh.bindings(BOUND_TO_AGENT, b"%d" % number)
    fresh.bindings(BOUND_TO_AGENT, b"x" * (MAX_CACHED_VALUE_BYTES + 1))
    assert list(fresh._bindings) == [(BOUND_TO_AGENT, b"%d" % number) for number in (7, 8, 9)]


def test_signatures_match_the_librarys():
    """Only how often the key is taken in differs."""
    for secrets in ([SECRET], [SECRET, OLDER]):
        value = Tokens(secrets, "shop").sign_ticket(TICKET)
        plain = Signer(list(reversed(secrets)), salt="waitroom.ticket.1.shop", digest_method=hashlib.sha256)
        assert plain.sign(value.rpartition(".")[0]).decode() == value


@pytest.mark.parametrize("number", [0, 1, 15, 16, 2**31, 2**62, 2**63 - 1])
def test_all_numbers_survive_a_round_trip(number):
    ticket = Ticket(number, number, number, number, number)
    assert tokens.read_ticket(tokens.sign_ticket(ticket).encode()) == ticket


def test_a_token_is_short_and_needs_no_quoting():
    most = 2**63 - 1
    for value in (
        tokens.sign_ticket(Ticket(most, most, most, most, most)),
        tokens.sign_pass(Pass(most, most, most, most, most)),
    ):
        assert len(value) <= 128
        assert set(value) <= set(string.ascii_letters + string.digits + "-_.")


@pytest.mark.parametrize("value", [tokens.sign_ticket(TICKET).encode(), tokens.sign_pass(PASS).encode()])
def test_a_token_altered_in_any_byte_is_invalid(value):
    read = tokens.read_ticket if value.count(b".") == 5 else tokens.read_pass
    read(value)
    for at in range(len(value)):
        for other in (*b"0aAzZ9-_.=+/ \x00\xff", value[at] ^ 1):
            if other != value[at]:
                with pytest.raises(InvalidTokenError):
                    read(value[:at] + bytes([other]) + value[at + 1 :])


def test_a_token_has_one_spelling():
    """Base64 has several for the same bytes: bits that are left over, and characters that are skipped."""
    value = tokens.sign_ticket(TICKET).encode()
    for other in (value[:-1] + bytes([last]) for last in string.printable.encode() if last != value[-1]):
        with pytest.raises(InvalidTokenError):
            tokens.read_ticket(other)
    for junk in (b"!", b"=", b" ", b"\n", b"\x00", b"\xff", b"A"):
        for at in range(len(value) + 1):
            with pytest.raises(InvalidTokenError):
                tokens.read_ticket(value[:at] + junk + value[at:])


def test_a_truncated_token_is_invalid():
    value = tokens.sign_ticket(TICKET).encode()
    for length in range(len(value)):
        with pytest.raises(InvalidTokenError):
            tokens.read_ticket(value[:length])
        with pytest.raises(InvalidTokenError):
            tokens.read_ticket(value[-length:] if length else b"")


@pytest.mark.parametrize(
    "value",
    [b"", b".", b"..", b".....", b"0", b"\xff\xfe", "Schlüssel.ü".encode(), b"a.b.c.d.e.", b".a", b"\x00" * 40, b"%00"],
)
def test_junk_is_invalid(value):
    with pytest.raises(InvalidTokenError):
        tokens.read_ticket(value)
    with pytest.raises(InvalidTokenError):
        tokens.read_pass(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2.3.4",
        "1.2.3.4.5.6",
        "1.2.3.4.",
        ".2.3.4.5",
        "1..3.4.5",
        "1.2.3.4.x",
        "-1.2.3.4.5",
        "1_0.2.3.4.5",
        " 1.2.3.4.5",
        "0x1.2.3.4.5",
        "A.2.3.4.5",
        "\uff11.2.3.4.5",
    ],
)
def test_wrong_fields_with_a_valid_signature_are_invalid(text):
    with pytest.raises(InvalidTokenError):
        tokens.read_ticket(signed(text))


def test_a_ticket_with_a_passs_fields_is_no_pass():
    with pytest.raises(InvalidTokenError):
        tokens.read_pass(signed("1.2.3"))
    with pytest.raises(InvalidTokenError):
        tokens.read_pass(signed("1.2", "pass"))
    assert tokens.read_pass(signed("1.2.3", "pass")) == Pass(1, 2, 3)
    with pytest.raises(InvalidTokenError):
        tokens.read_pass(signed("1.2.3.4.5.6", "pass"))


def test_an_overlong_token_with_a_valid_signature_is_invalid():
    """A number of thousands of digits would cost more to read than the whole request."""
    with pytest.raises(InvalidTokenError, match="long"):
        tokens.read_ticket(signed("f" * MAX_TOKEN_BYTES + ".2.3.4.5"))
    with pytest.raises(InvalidTokenError, match="long"):
        tokens.read_ticket(b"f" * (MAX_TOKEN_BYTES + 1))


def test_a_token_of_the_maximum_length_can_be_read():
    fields = ".2.3.4.5"
    digits = MAX_TOKEN_BYTES - len(signed(fields))
    value = signed("f" * digits + fields)
    assert len(value) == MAX_TOKEN_BYTES
    assert tokens.read_ticket(value).place == 16**digits - 1


def test_passes_and_tickets_are_not_interchangeable():
    with pytest.raises(InvalidTokenError):
        tokens.read_ticket(tokens.sign_pass(PASS).encode())
    with pytest.raises(InvalidTokenError):
        tokens.read_pass(tokens.sign_ticket(TICKET).encode())


def test_another_rooms_tokens_are_invalid():
    other = Tokens([SECRET], "shop2")
    with pytest.raises(InvalidTokenError):
        other.read_ticket(tokens.sign_ticket(TICKET).encode())
    with pytest.raises(InvalidTokenError):
        other.read_pass(tokens.sign_pass(PASS).encode())


def test_tokens_of_another_secret_are_invalid():
    other = Tokens(["another secret altogether"], "shop")
    with pytest.raises(InvalidTokenError):
        other.read_ticket(tokens.sign_ticket(TICKET).encode())
    with pytest.raises(InvalidTokenError):
        other.read_pass(tokens.sign_pass(PASS).encode())


def test_tokens_of_another_format_are_invalid():
    other = Signer(SECRET, salt="waitroom.ticket.0.shop", digest_method=tokens._tickets.digest_method)
    with pytest.raises(InvalidTokenError):
        tokens.read_ticket(other.sign("1.2.3.4.5"))


def test_secrets_rotate():
    before, between, after = Tokens([OLDER], "shop"), Tokens([SECRET, OLDER], "shop"), Tokens([SECRET], "shop")
    old, new = before.sign_ticket(TICKET).encode(), between.sign_ticket(TICKET).encode()
    assert new == after.sign_ticket(TICKET).encode(), "the newest signs"
    assert between.read_ticket(old) == between.read_ticket(new) == TICKET, "all verify"
    with pytest.raises(InvalidTokenError):
        after.read_ticket(old)  # the older one is rotated out
    with pytest.raises(InvalidTokenError):
        before.read_ticket(new)  # and this one doesn't know the newest


def test_secrets_rotate_for_passes():
    between, after = Tokens([SECRET, OLDER], "shop"), Tokens([SECRET], "shop")
    old = Tokens([OLDER], "shop").sign_pass(PASS).encode()
    assert between.read_pass(old) == PASS
    with pytest.raises(InvalidTokenError):
        after.read_pass(old)


def test_secrets_do_not_appear_in_representations():
    both = Tokens([SECRET, OLDER], "shop")
    with pytest.raises(InvalidTokenError) as raised:
        both.read_ticket(both.sign_pass(PASS).encode())
    cause: BaseException | None = raised.value
    shown = repr(both) + str(both)
    while cause is not None:
        shown += repr(cause) + str(cause)
        cause = cause.__cause__ or cause.__context__
    assert SECRET not in shown
    assert OLDER not in shown


def test_errors_do_not_contain_the_token():
    """Logs are read by more people than may hold a pass."""
    value = tokens.sign_pass(PASS)
    with pytest.raises(InvalidTokenError) as raised:
        tokens.read_ticket(value.encode())
    assert value[:8] not in str(raised.value)


def test_a_ticket_expires_after_a_week():
    assert not TICKET.expired(TICKET.joined_at)
    assert not TICKET.expired(TICKET.joined_at + TICKET_SECONDS - 1)
    assert TICKET.expired(TICKET.joined_at + TICKET_SECONDS)
