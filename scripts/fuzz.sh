#!/bin/sh
# Fuzzes every fuzz target of every module for $FUZZTIME each (10s unless set; anything
# that go test -fuzztime takes), three at once for two cores, since each is linked and read in
# between, with one worker each.
# It fails when a target finds a crasher, and when it finds no target at all.
set -eu

case $0 in
*/*) here=${0%/*} ;;
*) here=. ;;
esac
root=$(cd "$here/.." && pwd)
fuzztime=${FUZZTIME:-10s}
scratch=$(mktemp -d)
log=$scratch/log
trap 'rm -rf "$scratch"' EXIT

# once fuzzes one target and leaves the output in $log. It begins with the seeds alone: what
# earlier runs left in Go's cache can take all of the time to read in.
once() { # package, target
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$fuzztime" -fuzzminimizetime 20x -parallel 1 "$1" \
		-test.fuzzcachedir "$scratch/corpus" >"$log" 2>&1 </dev/null
}

# deadline says whether a run failed only because its time was up: Go 1.26 can report
# its own deadline as a failure (https://go.dev/issue/75804, mended in 1.27). A crasher
# always leaves its input behind, and says so.
deadline() {
	grep -qx ' *context deadline exceeded' "$log" && ! grep -q 'Failing input written to' "$log"
}

# fuzz runs one target, and once more if only the deadline failed it.
fuzz() { # package, target
	once "$1" "$2" || { deadline && once "$1" "$2"; }
}

# This script calls itself, by xargs below, for each target.
if [ "${1-}" = target ]; then
	cd "$root/$2"
	if fuzz "$3" "$4"; then
		execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
		printf 'fuzz: ok      %s %s (%s executions)\n' "$3" "$4" "${execs:-0}"
		exit 0
	fi
	printf 'fuzz: FAILED  %s %s\n%s\n' "$3" "$4" "$(cat "$log")"
	exit 1
fi

# list prints the module, package and name of every target.
list() {
	for module in . */go.mod; do
		module=${module%/go.mod}
		[ "$module" != tools ] || continue
		go -C "$module" list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package dir; do
			# go test -list has the last word on what a target is, but it links a test binary:
			# packages without the word are not asked.
			grep -qs '^func Fuzz' "$dir"/*_test.go || continue
			for target in $(go -C "$module" test -list '^Fuzz' "$package" </dev/null); do
				case $target in Fuzz*) echo "$module $package $target" ;; esac
			done
		done
	done
}

cd "$root"
targets=$(list)
if [ -z "$targets" ]; then
	echo "fuzz: error: found no fuzz target" >&2
	exit 1
fi
cores=$(getconf _NPROCESSORS_ONLN)
if ! printf '%s\n' "$targets" | xargs -P $(((cores * 3 + 1) / 2)) -L 1 sh "$root/scripts/fuzz.sh" target; then
	echo "fuzz: error: a target failed, see above" >&2
	echo "fuzz: hint: mend the code, and commit any input that go test wrote to testdata/fuzz" >&2
	exit 1
fi
echo "fuzz: $(printf '%s\n' "$targets" | wc -l) targets, $fuzztime each, no crasher"
