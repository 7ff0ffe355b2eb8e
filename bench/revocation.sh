#!/bin/sh
# Measures how soon a logout at one replica is obeyed by another. See README.md.
set -eu
cd "$(dirname "$0")/.."
. ./bench/prepare.sh
build revocation
"$dir/revocation" -dir "$dir" -revocations "${BENCH_REVOCATIONS:-1000}"
