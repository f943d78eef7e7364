#!/bin/sh
# Makes Debian packages of what packaging/layout.sh has laid out:
#   packaging/deb.sh ROOT VERSION ARCHITECTURE OUT "NAME <ADDRESS>"
# The last is the maintainer, whom users of the packages write to: whoever publishes them.
# edgekeep is static and needs nothing. edgekeep-ikm-pkcs11, where it was laid out, is dynamic, and of the very same version: the two
# speak to each other.
set -eu
umask 022
root=${1:?ROOT, a layout} version=${2:?VERSION} architecture=${3:?ARCHITECTURE, as Debian names it} out=${4:?OUT, a directory}
maintainer=${5:?MAINTAINER, whom users of the packages write to, as \"Name <address>\"}
case $maintainer in
*[!\ ]\ \<*[!\ ]@[!\ ]*\>) ;;
*) echo "$0: the maintainer \"$maintainer\" is not of the form \"Name <address>\"" >&2 && exit 64 ;;
esac
homepage=$(sed -n 's/^repository = "\(.*\)"$/\1/p' "$(dirname "$0")/../Cargo.toml")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

package() { # NAME DESCRIPTION [LINE OF CONTROL]
    install -d -m 0755 "$work/$1/DEBIAN"
    cat >"$work/$1/DEBIAN/control" <<CONTROL
Package: $1
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Homepage: ${homepage:?repository, in Cargo.toml}
Section: admin
Priority: optional
${3:+$3
}Description: $2
CONTROL
    # Nothing starts by itself: without a configuration edgekeep does nothing, and says so.
    dpkg-deb --root-owner-group --build "$work/$1" "$out/$1_${version}_$architecture.deb"
}

mkdir "$work/edgekeep"
cp -a "$root/." "$work/edgekeep"
helper=usr/libexec/edgekeep/ikm-pkcs11
if [ -e "$root/$helper" ]; then
    rm -r "$work/edgekeep/usr/libexec"
    install -D -m 0755 "$root/$helper" "$work/edgekeep-ikm-pkcs11/$helper"
    glibc=$(grep -ao 'GLIBC_2\.[0-9]*' "$root/$helper" | sort -uV | tail -n 1)
    package edgekeep-ikm-pkcs11 "edgekeep's helper, which loads the PKCS #11 module of a smart card or HSM" \
        "Depends: edgekeep (= $version), libc6 (>= ${glibc#GLIBC_})"
fi
package edgekeep "keeper of an edge device's secrets, unsealed by its hardware"
