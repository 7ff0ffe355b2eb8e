#!/bin/sh
# Measures what authproxy costs per request beside a bare reverse proxy. See README.md.
set -eu
cd "$(dirname "$0")/.."
. ./bench/prepare.sh
need wrk wrk
build measure
"$dir/measure" -dir "$dir" -seconds "${BENCH_SECONDS:-60}"
