#!/bin/sh
# Installs what `make eval-bots` runs beyond the programs of `make setup`, where there is apt-get. Elsewhere, and where
# that fails, the tables say which tools are missing.
set -eu
cd "${0%/*}"

packages=
want() { # program, package
	command -v "$1" >/dev/null 2>&1 || packages="$packages $2"
}
want wget wget
want python3 python3
want certutil libnss3-tools
want chromedriver chromium-driver
if [ -n "$packages" ] && command -v apt-get >/dev/null 2>&1; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	echo "eval-bots: running: $sudo apt-get install -y --no-install-recommends$packages" >&2
	# shellcheck disable=SC2086 # they are meant to be split
	$sudo apt-get install -y --no-install-recommends $packages >&2 </dev/null || echo "eval-bots: going on without$packages" >&2
fi
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
	echo "eval-bots: running: npm ci --no-audit --no-fund, in eval/bots" >&2
	npm ci --no-audit --no-fund >&2 </dev/null
fi
