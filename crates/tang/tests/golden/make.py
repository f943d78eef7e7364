#!/usr/bin/env python3
"""Makes the golden files of this folder: python3 make.py, with the package `cryptography` for ES512.

The curve's arithmetic is written out below, from SP 800-186 alone, and HKDF from RFC 5869, so that the vectors owe nothing
to the code that is held against them. Keys and scalars come from SHA-512 of fixed words: the same files each time, but for
the signatures, whose nonces are random.
"""

import base64
import hashlib
import hmac
import json
import pathlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

P = 2**521 - 1
B = int(
    "0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1"
    "ef451fd46b503f00", 16)
N = int(
    "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47ae"
    "bb6fb71e91386409", 16)
G = (
    int("c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a42"
        "9bf97e7e31c2e5bd66", 16),
    int("11839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b9013fad0761353c7086a272c"
        "24088be94769fd16650", 16),
)


def add(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    if a == b:
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    y = (slope * (a[0] - x) - a[1]) % P
    assert (y * y - (x**3 - 3 * x + B)) % P == 0
    return (x, y)


def times(k, point):
    out = None
    while k:
        if k & 1:
            out = add(out, point)
        point, k = add(point, point), k >> 1
    return out


def minus(point):
    return (point[0], -point[1] % P)


def scalar(word):
    wide = hashlib.sha512(b"1" + word.encode()).digest() + hashlib.sha512(b"2" + word.encode()).digest()
    return int.from_bytes(wide, "big") % N


def octets(n):
    return n.to_bytes(66, "big")


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(point, **more):
    return {**more, "crv": "P-521", "kty": "EC", "x": b64(octets(point[0])), "y": b64(octets(point[1]))}


def thumbprint(point):
    key = jwk(point)
    canonical = json.dumps({k: key[k] for k in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return b64(hashlib.sha256(canonical.encode()).digest())


def compressed(point):
    return bytes([2 + (point[1] & 1)]) + octets(point[0])


def key_of(k, binding):
    """HKDF-SHA-256 without salt, one block."""
    prk = hmac.new(bytes(32), octets(k[0]), hashlib.sha256).digest()
    return hmac.new(prk, b"edgekeep/v1/tang-share" + binding + b"\x01", hashlib.sha256).digest()


def sign(secret, protected, payload):
    key = ec.derive_private_key(secret, ec.SECP521R1())
    r, s = decode_dss_signature(key.sign(f"{protected}.{payload}".encode(), ec.ECDSA(hashes.SHA512())))
    return b64(octets(r) + octets(s))


def advertisement(keys, signer, flattened=False):
    payload = b64(json.dumps({"keys": keys}, separators=(",", ":")).encode())
    protected = b64(b'{"alg":"ES512","cty":"jwk-set+json"}')
    one = {"protected": protected, "signature": sign(signer, protected, payload)}
    whole = {"payload": payload, **(one if flattened else {"signatures": [one]})}
    return json.dumps(whole, separators=(",", ":"))


signing, exchange, stranger, c, e = (scalar(w) for w in ("signing", "exchange", "stranger", "client", "blinding"))
s_point = times(exchange, G)
signing_key = jwk(times(signing, G), alg="ES512", key_ops=["verify"])
exchange_key = jwk(s_point, alg="ECMR", key_ops=["deriveKey"])
others_key = jwk(times(stranger, G), alg="ECMR", key_ops=["deriveKey"])
rsa_key = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}

c_point = times(c, G)
k_point = times(c, s_point)
binding = compressed(s_point) + compressed(c_point)
request = add(c_point, times(e, G))
reply = times(exchange, request)
assert add(reply, minus(times(e, s_point))) == k_point

here = pathlib.Path(__file__).parent
for name, text in {
    "advertisement.json": advertisement([rsa_key, signing_key, exchange_key], signing),
    "advertisement-flattened.json": advertisement([signing_key, exchange_key], signing, flattened=True),
    "advertisement-swapped.json": advertisement([signing_key, others_key], stranger),
    "advertisement-no-exchange.json": advertisement([signing_key, rsa_key], signing),
    "exchange.json": json.dumps({
        "signing_thumbprint": thumbprint(times(signing, G)),
        "exchange_thumbprint": thumbprint(s_point),
        "c": octets(c).hex(),
        "e": octets(e).hex(),
        "binding": binding.hex(),
        "path": f"/rec/{thumbprint(s_point)}",
        "request": jwk(request, alg="ECMR"),
        "reply": jwk(reply, alg="ECMR", key_ops=["deriveKey"]),
        "undoing_reply": jwk(times(e, s_point), alg="ECMR"),
        "key": key_of(k_point, binding).hex(),
    }, indent=1),
}.items():
    (here / name).write_text(text + "\n")
