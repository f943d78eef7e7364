#!/usr/bin/env python3
"""Makes the keys and signatures of this folder anew, with OpenSSL; the private halves are thrown away.

An image extends PCR 11, which begins at zeros, by 32 octets of one value. `pol` is what TPM2_PolicyPCR comes to in a new session
then (TPM 2.0 Library, part 3, 23.7), and `sig` signs it, as systemd-measure does.
"""
import base64, hashlib, json, os, subprocess, tempfile

here = os.path.dirname(os.path.abspath(__file__))


def openssl(*args, data=None):
    return subprocess.run(["openssl", *args], input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def policy(image):
    value = bytes(32) if image is None else sha256(bytes(32), bytes([image]) * 32)
    selection = bytes.fromhex("00000001000b03000800")  # PCR 11 of the SHA-256 bank
    return sha256(bytes(32), bytes.fromhex("0000017f"), selection, sha256(value))


def fingerprint(public):
    """Of the key alone, as systemd has it: RSAPublicKey, or the uncompressed point."""
    der = openssl("pkey", "-pubin", "-outform", "DER", data=public)
    if b"\x2a\x86\x48\xce\x3d\x02\x01" in der:
        return sha256(der[-65:])
    return sha256(openssl("rsa", "-pubin", "-RSAPublicKey_out", "-outform", "DER", data=public))


def entry(key, public, image):
    pol = policy(image)
    sig = openssl("dgst", "-sha256", "-sign", key, data=pol)
    return {"pcrs": [11], "pkfp": fingerprint(public).hex(), "pol": pol.hex(), "sig": base64.b64encode(sig).decode()}


def key(directory, name, *options):
    path = os.path.join(directory, name)
    openssl("genpkey", *options, "-out", path)
    public = openssl("pkey", "-in", path, "-pubout")
    with open(os.path.join(here, f"pcr-{name}.pem"), "wb") as out:
        out.write(public)
    if name not in ("rsa", "p256"):
        return path, public
    with open(os.path.join(here, f"pcr-{name}.fingerprint"), "w") as out:
        out.write(fingerprint(public).hex() + "\n")
    return path, public


with tempfile.TemporaryDirectory() as directory:
    rsa = key(directory, "rsa", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    p256 = key(directory, "p256", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    other = key(directory, "other", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    unmeasured = key(directory, "unmeasured", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    key(directory, "rsa3072", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072")
    for name, entries in {
        # Two images of the RSA key, one of the other.
        "pcr-signature.json": [entry(*rsa, 0xBB), entry(*rsa, 0xCC), entry(*p256, 0xBB)],
        # Somebody else's approval of a third image.
        "pcr-signature-other.json": [entry(*other, 0xDD)],
        # A register that no image has extended.
        "pcr-signature-unmeasured.json": [entry(*unmeasured, None)],
        # The other key's approval, by its form one of the RSA key's.
        "pcr-signature-forged.json": [entry(*other, 0xDD) | {"pkfp": entry(*rsa, 0xDD)["pkfp"]}],
    }.items():
        with open(os.path.join(here, name), "w") as out:
            out.write(json.dumps({"sha256": entries}) + "\n")
