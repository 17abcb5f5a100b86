"""The shop's side of a proof: what is accepted, and what is refused and why."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitroom.edge.rooms.proofs import Proofs
from waitroom.shop import ProofVerifier
from waitroom.shop.proof import MAX_PROOF_LENGTH, VIAS, InvalidProofError

SECRET = "a-secret-of-the-shop-0123456789-abcdefgh"
NEXT_SECRET = "the-next-secret-of-the-shop-0123456789-abc"
FOREVER = 4_000_000_000
CLAIMS = {"iss": "waitroom", "aud": "sale", "sub": "5a", "via": "session", "iat": FOREVER - 120, "exp": FOREVER}


def verifier(**more: Any) -> ProofVerifier:
    return ProofVerifier(**{"room": "sale", "secrets": [SECRET], **more})


def part(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def by_hand(header: object, claims: object = CLAIMS, key: bytes = SECRET.encode()) -> str:
    """A token with any header and claims, with an HMAC-SHA256 whatever the header says."""
    text = f"{part(header)}.{part(claims)}"
    return f"{text}.{part(hmac.new(key, text.encode(), hashlib.sha256).digest())}"


def signed(secret: str = SECRET, *, without: str = "", **claims: Any) -> str:
    kept = {name: value for name, value in (CLAIMS | claims).items() if name != without}
    return by_hand({"alg": "HS256", "typ": "JWT"}, kept, secret.encode())


def reason(*proofs: str, **more: Any) -> str:
    with pytest.raises(InvalidProofError) as caught:
        verifier(**more).verify(proofs)
    return str(caught.value)


def test_what_the_gateway_sends_is_accepted() -> None:
    header = Proofs(SECRET, "sale").header(None, "bypass", time.time())
    claims = verifier().verify([header.decode().removeprefix("Waitroom-Proof: ").strip()])
    assert (claims["aud"], claims["via"], claims["exp"] - claims["iat"]) == ("sale", "bypass", 120)


@pytest.mark.parametrize("via", VIAS)
def test_every_way_is_accepted_by_default(via: str) -> None:
    assert verifier().verify([signed(via=via)]) == CLAIMS | {"via": via}


def test_a_proof_without_a_session() -> None:
    assert "sub" not in verifier().verify([signed(without="sub", via="health")])


def test_only_some_ways() -> None:
    assert verifier(via=["session", "health"]).verify([signed(via="health")])
    assert reason(signed(via="bypass"), via=["session", "health"]) == "not accepted this way"


def test_two_secrets_during_a_rotation() -> None:
    both = verifier(secrets=[NEXT_SECRET, SECRET])
    assert both.verify([signed(SECRET)]) == both.verify([signed(NEXT_SECRET)]) == CLAIMS
    assert reason(signed("another" + SECRET), secrets=[NEXT_SECRET, SECRET]) == "signed with another secret"


@pytest.mark.parametrize(
    ("proofs", "why"),
    [
        ([], "no proof"),
        ([signed(), signed()], "several proofs"),
        ([signed(NEXT_SECRET)], "signed with another secret"),
        ([signed()[:-2] + "AA"], "signed with another secret"),
        ([".".join((signed().split(".")[0], part(CLAIMS | {"sub": "5b"}), signed().split(".")[2]))],
         "signed with another secret"),
        ([signed(exp=1_700_000_000)], "expired proof, or wrong clock"),
        ([signed(aud="other")], "proof of another room"),
        ([signed(aud=["sale"])], "proof of another room"),
        ([signed(iss="somebody")], "proof of another room"),
        ([signed(iss=["waitroom"])], "proof of another room"),
        ([signed(via="door")], "not accepted this way"),
        ([signed(via=["session"])], "not accepted this way"),
        ([signed(via={"session": 1})], "not accepted this way"),
        ([signed(without="via")], "not accepted this way"),
        *[([signed(without=name)], "malformed proof") for name in ("iss", "aud", "iat", "exp")],
        *[([signed(exp=value)], "malformed proof") for value in ("soon", [FOREVER], {}, None)],
        ([signed(sub=5)], "malformed proof"),
        ([by_hand({"alg": "HS256"}, [1])], "malformed proof"),
        ([by_hand({"alg": "HS256"}, b"\xff{")], "malformed proof"),
        # Tokens of other kinds, with the right secret.
        ([jwt.encode(CLAIMS, None, "none")], "malformed proof"),
        ([by_hand({"alg": "none"})], "malformed proof"),
        ([by_hand({"alg": "None"})], "malformed proof"),
        ([by_hand({"alg": "hs256"})], "malformed proof"),
        ([by_hand({"alg": "RS256"})], "malformed proof"),
        ([by_hand({"alg": "ES256"})], "malformed proof"),
        ([by_hand({"alg": "HS512"})], "malformed proof"),
        ([by_hand({"alg": ["HS256"]})], "malformed proof"),
        ([by_hand({"typ": "JWT"})], "malformed proof"),
        ([by_hand(["HS256"])], "malformed proof"),
        ([by_hand(b"[" * 1000)], "malformed proof"),
        ([by_hand({"alg": "HS256", "crit": ["x"], "x": 1})], "malformed proof"),
        ([by_hand({"alg": "HS256", "b64": False, "crit": ["b64"]})], "malformed proof"),
        ([by_hand({"alg": "HS256", "jwk": {"kty": "oct", "k": part(b"x" * 32)}}, CLAIMS, b"x" * 32)],
         "signed with another secret"),
        # Garbage.
        *[([value], "malformed proof") for value in ("", ".", "..", "a.b.c", "Bearer " + signed(), signed() + "\n")],
        ([signed() + "," + signed()], "malformed proof"),
        ([signed(sub="é") + "é"], "malformed proof"),
        (["x" * 65_536], "malformed proof"),
        (["." * 65_536], "malformed proof"),
        ([signed(sub="5" * 65_536)], "malformed proof"),
        (["\0\xff" * 32_768], "malformed proof"),
    ],
)  # fmt: skip
def test_refused(proofs: list[str], why: str) -> None:
    assert reason(*proofs) == why


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_longer_hashes_are_refused(algorithm: str) -> None:
    secret = SECRET * 2  # as long as these need
    assert reason(jwt.encode(CLAIMS, secret, algorithm), secrets=[secret]) == "malformed proof"


def test_a_public_key_is_no_secret() -> None:
    """The confusion of RS256 and HS256: a token signed with the public key's text, which anybody may know."""
    public_key = f"-----BEGIN PUBLIC KEY-----\n{'A' * 64}\n-----END PUBLIC KEY-----\n"
    with pytest.raises(ValueError, match="secret 1 must have"):
        verifier(secrets=[public_key])
    assert reason(signed(public_key)) == "signed with another secret"


@pytest.mark.parametrize(("age", "valid"), [(119, True), (124, True), (126, False)])
def test_leeway_for_clocks_that_differ(monkeypatch: pytest.MonkeyPatch, age: int, valid: bool) -> None:
    class Later(jwt.api_jwt.datetime):  # type: ignore[misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(1_800_000_000 + age, tz)

    monkeypatch.setattr(jwt.api_jwt, "datetime", Later)
    proof = signed(iat=1_800_000_000, exp=1_800_000_120)
    if valid:
        assert verifier().verify([proof])
    else:
        assert reason(proof) == "expired proof, or wrong clock"


def test_a_gateway_whose_clock_is_ahead_is_accepted() -> None:
    assert verifier().verify([signed(iat=FOREVER - 120)])


@given(st.text(max_size=MAX_PROOF_LENGTH + 1))
def test_no_text_is_accepted_or_raises_another_error(text: str) -> None:
    assert reason(text)


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(min_size=32, max_size=32))
def test_no_token_is_accepted_or_raises_another_error(header: bytes, claims: bytes, signature: bytes) -> None:
    assert reason(f"{part(header)}.{part(claims)}.{part(signature)}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(CLAIMS)), inner, max_size=6),
    max_leaves=8,
)


@given(JSON, JSON)
def test_no_signed_nonsense_raises_another_error(header: Any, claims: Any) -> None:
    for made in (by_hand(header, claims), by_hand({"alg": "HS256"}, claims)):
        assert reason(made)


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/healthz", True),
        ("/healthz/", False),
        ("/healthz/x", False),
        ("/healthz2", False),
        ("/HEALTHZ", False),
        ("/static/", True),
        ("/static/a.css", True),
        ("/static/img/..a/b.png", True),
        ("/static", False),
        ("/staticfiles/a", False),
        ("/", False),
        ("", False),
        ("healthz", False),
        ("/static/../order", False),
        ("/static/./order", False),
        ("/static/..", False),
        ("/static/..;/order", False),
        ("/static//order", False),
        ("//static/a", False),
        ("/static\\..\\order", False),
        ("/static/%2e%2e/order", False),
    ],
)
def test_paths_that_need_no_proof(path: str, left: bool) -> None:
    assert verifier(leave_alone=["/healthz", "/static/"]).leaves_alone(path) is left


def test_no_path_is_left_alone_by_default() -> None:
    assert not verifier().leaves_alone("/healthz")


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"room": ""}, ValueError, "room must not be empty"),
        ({"secrets": []}, ValueError, "secrets must not be empty"),
        ({"secrets": SECRET}, TypeError, "secrets must be a list"),
        ({"secrets": [SECRET, "hunter2"]}, ValueError, "secret 2 must have at least 32 characters"),
        ({"secrets": [SECRET + "\n"]}, ValueError, "no line end"),
        ({"via": "session"}, TypeError, "via must be a list"),
        ({"via": ["session", "door"]}, ValueError, "unknown values: door"),
        ({"leave_alone": "/healthz"}, TypeError, "leave_alone must be a list"),
        ({"leave_alone": ["healthz"]}, ValueError, 'must begin with "/"'),
        ({"leave_alone": ["/"]}, ValueError, "covers every path"),
    ],
)
def test_arguments_that_would_leave_the_shop_open_or_shut(wrong: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        verifier(**wrong)
    assert "hunter2" not in str(caught.value)


def test_a_shop_needs_no_other_package_than_pyjwt() -> None:
    """In a Python that has only the standard library, PyJWT and `waitroom.shop`."""
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import waitroom.shop\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "print(sorted(names), sorted(name for name in sys.modules if name.startswith('waitroom.')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    own = [f"waitroom.shop{name}" for name in ("", ".asgi", ".proof", ".wsgi")]
    assert done.stdout.strip() == f"{['jwt', 'waitroom']} {own}"
