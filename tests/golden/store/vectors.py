#!/usr/bin/env python3
"""Golden vectors of the store's formats, from docs/formats.md alone (Python's `cryptography` 42 or newer, OpenSSL 3.2).

    python3 tests/golden/store/vectors.py > tests/golden/store/store.v1.txt
"""
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV

STORE_ID = b"\x07" * 16
ROOT_KEY = b"\x01" * 32
NAMES, HEAD, AUDIT, SNAPSHOTS, MACS = (bytes([n]) * 32 for n in range(0x11, 0x16))
TERMS = [(1, b"\x21" * 32), (2, b"\x22" * 32)]


def hkdf(salt, key, info, length=32):
    prk = hmac.new(salt, key, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()[:length]


def hidden(parent, component, is_dir):
    text = struct.pack(">H", len(component)) + component
    text += b"\0" * (-len(text) % 32)
    return AESGCMSIV(NAMES).encrypt(b"\0" * 12, text, STORE_ID + parent + bytes([is_dir]))


def main():
    keyring_clear = NAMES + HEAD + AUDIT + SNAPSHOTS + MACS + struct.pack(">H", len(TERMS))
    keyring_clear += b"".join(struct.pack(">I", term) + key for term, key in TERMS)
    header = b"\x01" + STORE_ID
    nonce = b"\x31" * 12
    keyring = header + nonce + AESGCM(hkdf(STORE_ID, ROOT_KEY, b"edgekeep/v1/keyring")).encrypt(
        nonce, keyring_clear, header
    )

    secret = hidden(b"\0" * 16, b"secret", True)
    edgex = hidden(secret[-16:], b"edgex", True)
    redisdb = hidden(edgex[-16:], b"redisdb", False)

    version, nonce = 3, b"\x32" * 12
    associated = b"\x01" + STORE_ID + edgex[-16:] + struct.pack(">Q", version) + redisdb
    entry = b"\x01" + struct.pack(">I", 2) + nonce + AESGCM(TERMS[1][1]).encrypt(nonce, b"value", associated)

    root_key = hkdf(STORE_ID, HEAD, b"edgekeep/v1/head/root")
    rows = [
        (b"\0" * 16, secret, 0, b"\0" * 16, 0),
        (secret[-16:], edgex, 0, b"\0" * 16, 0),
        (edgex[-16:], redisdb, version, entry[-16:], 1),
    ]
    root = 0
    for directory, name, at, tag, row in rows:
        code = hmac.new(root_key, directory + struct.pack(">Q", at) + tag + struct.pack(">Q", row) + name, hashlib.sha256)
        root = (root + int.from_bytes(code.digest(), "big")) % 2**256

    head_clear = struct.pack(">Q", 3) + b"\x03" * 16 + struct.pack(">QQ", 2, 1) + b"\x02" + struct.pack(">Q", 4)
    head_clear += b"\x09" * 32 + b"\x03" * 16 + struct.pack(">QQ", 77, 88) + hashlib.sha256(keyring).digest()
    head_clear += struct.pack(">Q", len(rows)) + root.to_bytes(32, "big")
    head_clear += b"\0" * (290 - len(head_clear))
    nonce = b"\x33" * 12
    head = header + nonce + AESGCM(hkdf(STORE_ID, HEAD, b"edgekeep/v1/head/seal")).encrypt(nonce, head_clear, header)

    mac = hmac.new(hkdf(STORE_ID, MACS, b"edgekeep/v1/mac/token"), b"s.example", hashlib.sha256).digest()

    for name, value in [
        ("keyring", keyring), ("secret/", secret), ("edgex/", edgex), ("redisdb", redisdb),
        ("entry", entry), ("root", root.to_bytes(32, "big")), ("head", head), ("mac", mac),
    ]:
        print(name, value.hex())


main()
