"""Signatures follow the specification Standard Webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.delivery.signing import Signer

CASES = json.loads((Path(__file__).parent.parent.parent / "vectors" / "signatures.json").read_text())["cases"]
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["about"])
def test_known_signatures(case):
    """The published example and openssl give exactly the same signatures."""
    signer = Signer(case["secrets"])
    signature = signer.sign(case["webhook-id"], case["webhook-timestamp"], case["body"].encode())
    assert signature == case["webhook-signature"]


@given(
    st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3),
    st.from_regex(r"\Amsg_[0-9a-f]{24}\Z"),
    st.integers(0, 2**40),
    st.binary(max_size=50),
)
def test_signatures_agree_with_plain_hmac(keys, message_id, timestamp, body):
    """Each secret makes one signature, in order: HMAC-SHA256 over id, timestamp and body with dots
    between.
    """
    secrets = " ".join(base64.b64encode(key).decode() for key in keys)
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    expected = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    assert Signer(secrets).sign(message_id, timestamp, body) == " ".join(f"v1,{one}" for one in expected)


def test_secrets_are_separated_by_any_white_space():
    """A secret may stand on its own line or after a space, with or without the prefix."""
    bare = SECRET.removeprefix("whsec_")
    assert (
        Signer(f"\n{SECRET}\n\t{bare}  ").sign("msg_1", 5, b"{}").split(" ")
        == [Signer(SECRET).sign("msg_1", 5, b"{}")] * 2
    )


OTHER = "whsec_" + base64.b64encode(b"another secret, 24 bytes").decode()


@pytest.mark.parametrize("of", [SECRET, OTHER, f"{OTHER} {SECRET}"])
def test_what_was_signed(of):
    """One right signature among several is enough, by any of the secrets; another message's is not."""
    signer = Signer(f"{SECRET} {OTHER}")
    right = Signer(of).sign("msg_1", 5, b"{}")
    for given_ in (right, f"v1,x {right}", f"{right} v2,gehéim\ud800"):
        assert signer.has_signed("msg_1", 5, b"{}", given_)
    for about in (("msg_2", 5, b"{}"), ("msg_1", 6, b"{}"), ("msg_1", 5, b"[]")):
        assert not signer.has_signed(*about, right)
    for wrong in ("", "v1,x", right.replace("v1", "v2"), right.replace("v1", "\tv1")):
        assert not signer.has_signed("msg_1", 5, b"{}", wrong)


@pytest.mark.parametrize("secrets", ["", "  \n"])
def test_no_secret_is_refused(secrets):
    """An empty setting must not mean unsigned POSTs."""
    with pytest.raises(ValueError, match=r"^a signing secret is needed$"):
        Signer(secrets)


@pytest.mark.parametrize(
    "secret", ["not-base64!", "abcde", SECRET + "!", SECRET[:-1], "whsec-" + SECRET[6:], "gehéim" * 8]
)
def test_a_secret_that_is_not_base64_is_refused(secret):
    """The error says what a secret looks like, and shows no secret, not even a valid second one."""
    for secrets in (secret, f"{SECRET} {secret}"):
        with pytest.raises(
            ValueError, match=r"^a signing secret must be base64, with or without 'whsec_' before it$"
        ) as caught:
            Signer(secrets)
        assert caught.value.__suppress_context__


@pytest.mark.parametrize("length", [0, 1, 23])
def test_a_short_secret_is_refused(length):
    """The specification asks for at least 24 bytes. The error gives only the length."""
    secret = base64.b64encode(b"k" * length).decode()
    with pytest.raises(ValueError, match=f"^a signing secret must have at least 24 bytes, not {length}$"):
        Signer(f"whsec_{secret}")


def test_a_signer_does_not_show_its_secrets():
    """Its repr counts them."""
    assert repr(Signer(SECRET)) == "<Signer, secrets: 1>"
