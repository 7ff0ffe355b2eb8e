#!/bin/sh
# Measures what an idle WebSocket costs authproxy beside a bare reverse proxy. See README.md.
set -eu
cd "$(dirname "$0")/.."
. ./bench/prepare.sh
build websockets
ulimit -n 65536 2>/dev/null || true # the program says how far it gets with less
"$dir/websockets" -dir "$dir" -sockets "${BENCH_SOCKETS:-10000}"
