#!/bin/sh
# Installs the programs that the tests need, if run as root on Debian or a derivative.
# A test whose program is missing is skipped on a developer's machine, and fails if CI is set.
set -eu

missing=""
for pair in chromium:chromium redis-server:redis-server nginx:nginx curl:curl openssl:openssl haproxy:haproxy caddy:caddy wrk:wrk \
        cc:build-essential promtool:prometheus php:php-cli systemd-analyze:systemd; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
# Gives processes another clock.
ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
# The installed package is compiled, and tested that way.
python3 -c 'import os, sysconfig; exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    missing="$missing python3-dev"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing, and not installed without root on Debian:$missing; the tests that need them are skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# The packages must not start their services: the tests start their own.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d.waitroom
chmod +x /usr/sbin/policy-rc.d.waitroom
[ -e /usr/sbin/policy-rc.d ] || { mv /usr/sbin/policy-rc.d.waitroom /usr/sbin/policy-rc.d; ours=yes; }
trap '[ "${ours:-}" != yes ] || rm -f /usr/sbin/policy-rc.d; rm -f /usr/sbin/policy-rc.d.waitroom' EXIT
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
