#!/bin/sh
# Fuzzes every fuzz target of every module for $FUZZTIME each (10s unless set; anything
# that go test -fuzztime takes), two for each core at once, with one worker each.
# It fails when a target finds a crasher, and when it finds no target at all.
set -eu

case $0 in
*/*) here=${0%/*} ;;
*) here=. ;;
esac
root=$(cd "$here/.." && pwd)
fuzztime=${FUZZTIME:-10s}
cores=$(getconf _NPROCESSORS_ONLN)

# This script calls itself, by xargs below, for each package and for each target.
case ${1-} in
build) # scratch, module, package, directory
	# One program for all targets of a package: go test would link it anew for each.
	binary=$2/$(printf %s "$4" | tr -c 'A-Za-z0-9\n' _).test
	go -C "$3" test -c -fuzz . -ldflags '-s -w' -o "$binary" "$4"
	cd "$5"
	"$binary" -test.list '^Fuzz' | while read -r target; do
		case $target in Fuzz*) echo "$binary $4 $5 $target" ;; esac
	done
	exit
	;;
fuzz) # scratch, binary, package, directory, target
	scratch=$2 binary=$3 package=$4 target=$6
	log=$binary.$target.log
	cd "$5"
	# once fuzzes the target. It begins with the seeds alone: what earlier runs left in Go's
	# cache can take all of the time to read in.
	once() {
		"$binary" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$fuzztime" -test.fuzzminimizetime 20x \
			-test.parallel 1 -test.fuzzcachedir "$scratch/corpus/$package" >"$log" 2>&1 </dev/null
	}
	# deadline says whether a run failed only because its time was up: Go 1.26 can report
	# its own deadline as a failure (https://go.dev/issue/75804, mended in 1.27). A crasher
	# always leaves its input behind, and says so.
	deadline() {
		grep -qx ' *context deadline exceeded' "$log" && ! grep -q 'Failing input written to' "$log"
	}
	if once || { deadline && once; }; then
		execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
		printf 'fuzz: ok      %s %s (%s executions)\n' "$package" "$target" "${execs:-0}"
		exit 0
	fi
	printf 'fuzz: FAILED  %s %s\n%s\n' "$package" "$target" "$(cat "$log")"
	exit 1
	;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# packages prints the module, package and directory of each package that has targets.
packages() {
	for module in . */go.mod; do
		module=${module%/go.mod}
		[ "$module" != tools ] || continue
		go -C "$module" list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package dir; do
			! grep -qs '^func Fuzz' "$dir"/*_test.go || echo "$module $package $dir"
		done
	done
}

cd "$root"
packages >"$scratch/packages"
if ! xargs -P "$cores" -L 1 sh "$root/scripts/fuzz.sh" build "$scratch" <"$scratch/packages" >"$scratch/targets"; then
	echo "fuzz: error: a package does not build, see above" >&2
	exit 1
fi
if ! [ -s "$scratch/targets" ]; then
	echo "fuzz: error: found no fuzz target" >&2
	exit 1
fi
if ! xargs -P $((cores * 2)) -L 1 sh "$root/scripts/fuzz.sh" fuzz "$scratch" <"$scratch/targets"; then
	echo "fuzz: error: a target failed, see above" >&2
	echo "fuzz: hint: mend the code, and commit any input that the target wrote to testdata/fuzz" >&2
	exit 1
fi
echo "fuzz: $(wc -l <"$scratch/targets") targets, $fuzztime each, no crasher"
