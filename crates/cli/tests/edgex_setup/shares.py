"""resp-init.json and kdf-salt.dat by another implementation: Python's `cryptography`.

open DIR IKM LABEL    print the shares, one a line, in hexadecimal
write DIR IKM LABEL   wrap the shares that are there (under the label `secretstore` or `vault`) anew under LABEL
"""

import json
import os
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

verb, folder, ikm, label = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]), sys.argv[4]
path = os.path.join(folder, "resp-init.json")
with open(os.path.join(folder, "kdf-salt.dat"), "rb") as f:
    salt = f.read()
assert len(salt) == 32


def key(label, index):
    return AESGCM(HKDF(SHA256(), 32, salt, f"{label}{index}".encode()).derive(ikm))


def opened(label):
    with open(path) as f:
        text = json.load(f)
    pairs = zip(text["encrypted_keys"], text["nonces"], strict=True)
    return [key(label, i).decrypt(bytes.fromhex(n), bytes.fromhex(s), None) for i, (s, n) in enumerate(pairs)]


if verb == "open":
    print("\n".join(share.hex() for share in opened(label)))
else:
    try:
        shares = opened("secretstore")
    except InvalidTag:
        shares = opened("vault")
    nonces = [os.urandom(12) for _ in shares]
    sealed = [key(label, i).encrypt(n, s, None) for i, (s, n) in enumerate(zip(shares, nonces))]
    with open(path, "w") as f:
        json.dump({"encrypted_keys": [s.hex() for s in sealed], "nonces": [n.hex() for n in nonces]}, f)
