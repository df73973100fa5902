#!/bin/sh
# Builds the page: build.sh [folder], by default dist beside this file. It needs Go, and
# gzip for the compressed copy.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
dist=${1:-$here/dist}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mkdir -p "$dist"
dist=$(CDPATH= cd -- "$dist" && pwd)
files="index.html page.css page.js moat-explain.js engine.js worker.js dom.js form.js share.js style.js view.js presets.json icon.svg manifest.webmanifest"
for f in $files; do
	cp "$here/$f" "$dist/$f"
done

# golang.org/x/net/publicsuffix imports net/http/cookiejar for the name of one interface,
# and with it net/http and crypto/tls: a quarter of the size. For this build the package
# consists of that interface.
goroot=$(go env GOROOT)
printf 'package cookiejar\n\ntype PublicSuffixList interface {\n\tPublicSuffix(domain string) string\n\tString() string\n}\n' >"$scratch/list.go"
printf 'package cookiejar\n' >"$scratch/empty.go"
replace=
for f in "$goroot"/src/net/http/cookiejar/*.go; do
	case $f in
	*_test.go) continue ;;
	*/jar.go) with=$scratch/list.go ;;
	*) with=$scratch/empty.go ;;
	esac
	replace="$replace${replace:+,}\"$f\":\"$with\""
done
printf '{"Replace":{%s}}' "$replace" >"$scratch/overlay.json"

cd "$here"
# Without inlining (-l) it compresses better by a tenth, and still answers in milliseconds.
GOOS=js GOARCH=wasm go build -overlay "$scratch/overlay.json" -trimpath -gcflags=all=-l -ldflags "-s -w" -o "$dist/moat.wasm" ./wasm
# Go's own half of the bridge goes with the compiler that built the other half.
cp "$goroot/lib/wasm/wasm_exec.js" "$dist/wasm_exec.js"
chmod 644 "$dist/moat.wasm" "$dist/wasm_exec.js"
gzip -9 -n -c "$dist/moat.wasm" >"$dist/moat.wasm.gz"

all="./ $files wasm_exec.js moat.wasm"
version=$(cd "$dist" && cat ${all#./ } "$here/sw.js" | cksum | tr " " -)
list=$(printf '"%s", ' $all)
sed -e "s|\"VERSION\"|\"$version\"|" -e "s|\[\"FILES\"\]|[${list%, }]|" "$here/sw.js" >"$dist/sw.js"

size() { wc -c <"$1" | tr -d ' '; }
first=$(cd "$dist" && for f in $files; do gzip -9 -n -c "$f"; done | wc -c | tr -d ' ')
echo "moat.wasm: $(size "$dist/moat.wasm") bytes, $(size "$dist/moat.wasm.gz") gzipped; all the rest: $first gzipped"
