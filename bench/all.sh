#!/bin/sh
# Measures everything that docs/performance.md has figures of. See README.md.
set -eu
cd "$(dirname "$0")/.."
for what in run growth websockets revocation; do
	printf '\n== %s.sh\n' "$what"
	"./bench/$what.sh"
done
printf '\n== a session in the cache of the Redis store\n'
go test ./session -run '^$' -bench 'BenchmarkRedisLoad/hit' -count "${BENCH_LOOKUPS:-10}"
