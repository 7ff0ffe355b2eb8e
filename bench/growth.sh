#!/bin/sh
# Measures what more sessions cost authproxy and its stores. See README.md.
set -eu
cd "$(dirname "$0")/.."
. ./bench/prepare.sh
need wrk wrk
build growth
"$dir/growth" -dir "$dir" -sizes "1,1000,100000${BENCH_MILLION:+,1000000}" -stores "${BENCH_STORES:-cookie,file,redis}"
