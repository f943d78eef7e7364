"""Roles and logins of auth/cert by hvac, whose requests are OpenBao's own.

usage: certificates_hvac.py URL TOKEN_FILE CA SITE_CA CERTIFICATE KEY FOREIGN_CERTIFICATE FOREIGN_KEY
"""
import json
import sys

import hvac
from hvac.exceptions import InvalidPath, InvalidRequest

url, token_file, ca, site_ca, certificate, key, foreign, foreign_key = sys.argv[1:]
with open(token_file) as file:
    token = json.load(file)["auth"]["client_token"]
keeper = hvac.Client(url=url, token=token, verify=ca).auth.cert


def refused(error, call):
    try:
        call()
    except error as e:
        return str(e.errors)
    raise AssertionError("allowed, but must be refused")


with open(site_ca) as file:
    pem = file.read()
keeper.create_ca_certificate_role(
    name="by-hvac", certificate=pem, allowed_common_names="device-*", token_ttl="60s", token_policies="p1"
)
role = keeper.read_ca_certificate_role("by-hvac")["data"]
assert role["allowed_common_names"] == ["device-*"] and role["token_ttl"] == 60, role
assert "by-hvac" in keeper.list_certificate_roles()["data"]["keys"]


def login(cert_pem, key_pem, name="by-hvac"):
    device = hvac.Client(url=url, verify=ca)
    reply = device.auth.cert.login(name=name, cert_pem=cert_pem, key_pem=key_pem)
    return device, reply["auth"]


device, auth = login(certificate, key)
assert auth["metadata"]["common_name"] == "device-07" and auth["policies"] == ["default", "p1"], auth
assert device.auth.token.lookup_self()["data"]["display_name"] == "cert-by-hvac"
said = refused(InvalidRequest, lambda: login(foreign, foreign_key))
assert "invalid certificate or no client certificate supplied" in said, said
bare = hvac.Client(url=url, verify=ca).adapter
said = refused(InvalidRequest, lambda: bare.post(url="/v1/auth/cert/login", json={"name": "by-hvac"}))
assert "no client certificate found" in said, said
keeper.delete_certificate_role("by-hvac")
refused(InvalidPath, lambda: keeper.read_ca_certificate_role("by-hvac"))
refused(InvalidRequest, lambda: login(certificate, key))
print("done")
