#!/bin/sh
# Fuzzes every fuzz target of every module, one after the other, for $FUZZTIME
# each (10s unless set; anything that go test -fuzztime takes). It fails when a target
# finds a crasher, and when it finds no target at all.
set -eu

case $0 in
*/*) cd "${0%/*}/.." ;;
*) cd .. ;;
esac
fuzztime=${FUZZTIME:-10s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# once fuzzes one target and leaves the output in $log.
once() { # package, target
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$fuzztime" -fuzzminimizetime 20x "$1" >"$log" 2>&1 </dev/null
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

targets=0
failed=
root=$PWD
for module in . */go.mod; do
	module=${module%/go.mod}
	[ "$module" != tools ] || continue
	cd "$root/$module"
	packages=$(go list -f '{{.ImportPath}} {{.Dir}}' ./...)
	while read -r package dir; do
		# go test -list has the last word on what a target is, but it links a test binary:
		# packages without the word are not asked.
		grep -qs '^func Fuzz' "$dir"/*_test.go || continue
		listed=$(go test -list '^Fuzz' "$package" </dev/null)
		for target in $listed; do
			case $target in Fuzz*) ;; *) continue ;; esac
			targets=$((targets + 1))
			if fuzz "$package" "$target"; then
				execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
				printf 'fuzz: ok      %s %s (%s executions)\n' "$package" "$target" "${execs:-0}"
			else
				printf 'fuzz: FAILED  %s %s\n' "$package" "$target"
				cat "$log"
				failed="$failed $target"
			fi
		done
	done <<END
$packages
END
done
cd "$root"

if [ "$targets" = 0 ]; then
	echo "fuzz: error: found no fuzz target" >&2
	exit 1
fi
if [ -n "$failed" ]; then
	echo "fuzz: error: failed:$failed" >&2
	echo "fuzz: hint: mend the code, and commit any input that go test wrote to testdata/fuzz" >&2
	exit 1
fi
echo "fuzz: $targets targets, $fuzztime each, no crasher"
