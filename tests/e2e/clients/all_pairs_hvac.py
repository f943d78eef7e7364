"""Every service's token, as delivered, by hvac: it writes and reads its own secrets, and is refused everyone else's.

usage: all_pairs_hvac.py URL SECRETS_DIR    (SECRETS_DIR/<service>/{secrets-token.json,ca.pem})
"""
import json
import pathlib
import sys

import hvac
from hvac.exceptions import Forbidden

url, folder = sys.argv[1], pathlib.Path(sys.argv[2])
services = sorted(p.name for p in folder.iterdir() if (p / "secrets-token.json").is_file())


def client(service):
    token = json.loads((folder / service / "secrets-token.json").read_text())["auth"]["client_token"]
    return hvac.Client(url=url, token=token, verify=str(folder / service / "ca.pem"))


def refused(call):
    try:
        call()
    except Forbidden:
        return
    raise AssertionError("allowed, but must be refused")


clients = {s: client(s) for s in services}
for s, c in clients.items():
    assert c.is_authenticated(), s
    c.secrets.kv.v1.create_or_update_secret(path=f"edgex/{s}/own", secret={"owner": s, "n": 7}, mount_point="secret")
    got = c.secrets.kv.v1.read_secret(path=f"edgex/{s}/own", mount_point="secret")["data"]
    assert got == {"owner": s, "n": 7}, (s, got)
    assert "own" in c.secrets.kv.v1.list_secrets(path=f"edgex/{s}", mount_point="secret")["data"]["keys"]

pairs = 0
for s, c in clients.items():
    for other in services:
        if other == s:
            continue
        path = f"edgex/{other}/own"
        refused(lambda: c.secrets.kv.v1.read_secret(path=path, mount_point="secret"))
        # EdgeX's own configuration lets this one write, never read, everywhere below secret/edgex/.
        if s != "security-spiffe-token-provider":
            refused(lambda: c.secrets.kv.v1.create_or_update_secret(path=path, secret={"x": "y"}, mount_point="secret"))
            refused(lambda: c.secrets.kv.v1.delete_secret(path=path, mount_point="secret"))
        pairs += 1
    refused(lambda: c.sys.create_or_update_policy("mine", 'path "*" { capabilities = ["sudo"] }'))
    refused(lambda: c.auth.token.create(policies=["root"]))

print(json.dumps({"services": len(services), "pairs": pairs}))
