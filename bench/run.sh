#!/bin/sh
# Measures what authproxy costs per request beside a bare reverse proxy. See README.md.
set -eu
cd "$(dirname "$0")/.."
if ! command -v wrk >/dev/null; then
	echo "bench: wrk is missing: apt-get install wrk" >&2
	exit 1
fi
if ! [ -r /proc/self/stat ]; then
	echo "bench: CPU time is read from /proc, which this system does not have: run it on Linux" >&2
	exit 1
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
go build -o "$dir/" ./cmd/authproxy ./bench/upstream ./bench/bareproxy ./bench/measure
"$dir/measure" -dir "$dir" -seconds "${BENCH_SECONDS:-60}"
