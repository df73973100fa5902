#!/bin/sh
# Installs the programs that the tests run and this machine lacks, through the
# system's own package manager, then the npm packages of the Express backend that the
# end-to-end tests put behind moat, of the OpenID provider that they sign in at, of the
# providers of models, and those that build the page's client.
#
# It says what is missing and what it is about to run before it runs it, asks every
# program for its version afterwards, and fails when one does not answer. When nothing
# is missing it prints one line. It uses no program besides those it looks for, the
# package manager, id and sudo.
set -eu

# The one list of programs. "needed by": e2e rows are those in e2e/programs.go, and a
# test compares the two; race is for go test -race, which needs a C compiler. "found
# as": the names that will do, the first one found is used. Then the packages of each
# package manager; "-" says that it has none that serves.
table='
# program  needed by  found as                                                      apt-get        dnf       apk           pacman    brew
chromium   e2e        chromium,chromium-browser,google-chrome,google-chrome-stable  chromium       chromium  chromium      chromium  -
firefox    e2e        firefox-esr,firefox                                           firefox-esr    firefox   firefox-esr   firefox   -
node       e2e        node                                                          nodejs         nodejs    nodejs        nodejs    node
npm        e2e        npm                                                           npm            npm       npm           npm       node
curl       e2e        curl                                                          curl           curl      curl          curl      curl
nginx      e2e        nginx                                                         nginx          nginx     nginx         nginx     nginx
caddy      e2e        caddy                                                         caddy          caddy     caddy         caddy     caddy
valkey     e2e        valkey-server,redis-server                                    redis-server   valkey    valkey        valkey    valkey
xvfb       e2e        Xvfb                                                          xvfb           xorg-x11-server-Xvfb  xvfb  xorg-server-xvfb  -
gcc        race       gcc                                                           gcc,libc6-dev  gcc       gcc,musl-dev  gcc       -
'
oldest_node=20

case $0 in
*/*) here=${0%/*} ;;
*) here=. ;;
esac
root=$(cd "$here/.." && pwd)
# The folders with npm packages of their own.
npm_folders='e2e/express e2e/oidc e2e/providers client lab/web dashboard/web'

say() { printf 'setup: %s\n' "$*"; }

die() {
	printf 'setup: error: %s\n' "$1" >&2
	shift
	for hint in "$@"; do printf 'setup: hint: %s\n' "$hint" >&2; done
	exit 1
}

# locate prints the first of the comma-separated names that is in PATH.
locate() {
	set -f
	old=$IFS
	IFS=,
	# shellcheck disable=SC2086 # splitting at the commas is the point
	set -- $1
	IFS=$old
	set +f
	for name in "$@"; do
		if command -v "$name" >/dev/null 2>&1; then
			command -v "$name"
			return 0
		fi
	done
	return 1
}

# usable says whether a program is there and, for node, new enough.
usable() { # program, path
	[ "$1" = node ] || return 0
	version=$("$2" --version 2>/dev/null) || return 1
	major=${version#v}
	major=${major%%.*}
	[ "$major" -ge "$oldest_node" ] 2>/dev/null
}

# rows reads the table and calls a function with the eight fields of each row.
rows() {
	while read -r program user names apt dnf apk pacman brew; do
		case $program in '' | '#') continue ;; esac
		"$1" "$program" "$user" "$names" "$apt" "$dnf" "$apk" "$pacman" "$brew"
	done <<-END
		$table
	END
}

missing=
note_missing() {
	if path=$(locate "$3") && usable "$1" "$path"; then return 0; fi
	missing="$missing $1"
}

# npm_unready prints the folders where npm has not finished since the lock file last
# changed: npm writes this file last.
npm_unready() {
	for folder in $npm_folders; do
		# shellcheck disable=SC3013 # dash, busybox, ksh and bash all know -nt
		[ "$root/$folder/node_modules/.package-lock.json" -nt "$root/$folder/package-lock.json" ] || printf '%s ' "$folder"
	done
}

manager=
find_manager() {
	for manager in apt-get dnf apk pacman brew; do
		if command -v "$manager" >/dev/null 2>&1; then return 0; fi
	done
	manager=
}

# snap_only says whether this is Ubuntu, whose packages of browsers are only doors to
# snaps. A snap has a /tmp of its own, so it cannot see the profile that a test makes.
snap_only() {
	[ "$manager" = apt-get ] && [ -r "$os_release" ] || return 1
	while read -r line; do
		case $line in ID=ubuntu | ID=\"ubuntu\") return 0 ;; esac
	done <"$os_release"
	return 1
}
os_release=${OS_RELEASE_FILE:-/etc/os-release}

packages=
unpackaged=
note_packages() {
	case " $missing " in *" $1 "*) ;; *) return 0 ;; esac
	case $manager in
	apt-get) wanted=$4 ;;
	dnf) wanted=$5 ;;
	apk) wanted=$6 ;;
	pacman) wanted=$7 ;;
	brew) wanted=$8 ;;
	*) wanted=- ;;
	esac
	case $1 in chromium | firefox) if snap_only; then wanted=-; fi ;; esac
	if [ "$wanted" = - ]; then
		unpackaged="$unpackaged $1"
		return 0
	fi
	while [ -n "$wanted" ]; do
		one=${wanted%%,*}
		case " $packages " in *" $one "*) ;; *) packages="$packages $one" ;; esac
		case $wanted in *,*) wanted=${wanted#*,} ;; *) wanted= ;; esac
	done
}

# run says a command, and runs it.
run() {
	say "running: $*"
	"$@" </dev/null
}

# install installs $packages. They are meant to be split into words.
# shellcheck disable=SC2086
install() {
	sudo=
	if [ "$manager" != brew ] && [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null 2>&1 ||
			die "not root, and there is no sudo to install with" \
				"as root, install with $manager:$packages"
		sudo=sudo
	fi
	say "installing with${sudo:+ $sudo} $manager:$packages"
	case $manager in
	apt-get)
		run $sudo apt-get update
		run $sudo apt-get install -y --no-install-recommends $packages
		;;
	dnf) run $sudo dnf install -y $packages ;;
	apk) run $sudo apk add $packages ;;
	pacman) run $sudo pacman -S --needed --noconfirm $packages ;;
	brew) run brew install $packages ;;
	esac
}

verify() {
	path=$(locate "$3") || die "$1 is still missing after the installation" \
		"is its directory in PATH? it may be called: $3"
	how=--version to=2
	case $1 in
	nginx) how=-v to=1 ;; # it says so on stderr
	caddy) how=version ;;
	xvfb) how=-help to=1 ;; # on stderr too, and it knows no version
	esac
	version=$("$path" "$how" 2>&"$to") || die "$path is there, but $path $how failed"
	usable "$1" "$path" || die "$path is $version; the tests need $oldest_node or later" \
		"install a current Node.js and put it first in PATH"
	first=${version%%
*}
	say "$1 is $path, $first"
}

rows note_missing
if [ -z "$missing" ] && [ -z "$(npm_unready)" ]; then
	say "nothing to install"
	exit 0
fi

if [ -n "$missing" ]; then
	say "missing:$missing"
	find_manager
	rows note_packages
	if [ -z "$manager" ]; then
		die "found none of apt-get, dnf, apk, pacman, brew to install with" \
			"install these and put them in PATH:$missing (node: $oldest_node or later)"
	fi
	if [ -n "$unpackaged" ]; then
		die "no package for$unpackaged that would serve here, with $manager" \
			"install by hand and put in PATH:$unpackaged (for chromium, google-chrome does)"
	fi
	install
	hash -r
	rows verify
fi

for folder in $(npm_unready); do
	say "running: npm ci --no-audit --no-fund, in $folder"
	(cd "$root/$folder" && npm ci --no-audit --no-fund </dev/null)
done
say "done"
