#!/bin/sh
# Lays out what a package or an image of edgekeep holds, below ROOT:
#   packaging/layout.sh ROOT EDGEKEEP [IKM_PKCS11]
# EDGEKEEP is the static executable, under its own name and those by which EdgeX and containers call it. IKM_PKCS11 is dynamic, for it
# loads a vendor's module: it belongs into packages for devices with a smart card or HSM, and into no image FROM scratch.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
root=${1:?ROOT, the directory to lay out in} edgekeep=${2:?EDGEKEEP, the executable}

install -D -m 0755 "$edgekeep" "$root/usr/bin/edgekeep"
for name in edgekeep-ikm security-bootstrapper security-secretstore-setup security-file-token-provider; do
    ln -sfn edgekeep "$root/usr/bin/$name"
done
# Who can write here decides what gets the device's key: root alone.
install -d -m 0700 "$root/etc/edgekeep"
install -D -m 0644 "$here/edgekeep.service" "$root/usr/lib/systemd/system/edgekeep.service"
install -D -m 0644 "$here/../docs/edgekeep.toml" "$root/usr/share/doc/edgekeep/edgekeep.toml"
install -D -m 0644 "$here/../LICENSE" "$root/usr/share/doc/edgekeep/copyright"
for policy in "$here"/escrow/*.hcl; do
    install -D -m 0644 "$policy" "$root/usr/share/doc/edgekeep/escrow/${policy##*/}"
done
if [ $# -ge 3 ]; then
    install -D -m 0755 "$3" "$root/usr/libexec/edgekeep/ikm-pkcs11"
fi
