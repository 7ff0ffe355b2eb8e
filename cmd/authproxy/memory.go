package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Most of what a request allocates is garbage at its end, and little stays. With Go's default the heap may only double
// before it is collected, so that a small heap is collected many times a second. We spend up to headroom more memory to
// collect less often, however large the heap is; above it, Go's default holds.
const (
	headroom   = 64 << 20 // bytes
	maxPercent = 800
	tuneEvery  = 10 * time.Second
)

// gcPercent is how much the heap may grow over what is live before it is collected.
func gcPercent(live uint64) int {
	if live == 0 {
		return maxPercent
	}
	return int(min(max(headroom*100/live, 100), maxPercent))
}

// tuneGC keeps the garbage collector's target to gcPercent until ctx ends. Who sets GOGC or GOMEMLIMIT knows better.
func tuneGC(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	tick := time.NewTicker(tuneEvery)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		metrics.Read(live)
		debug.SetGCPercent(gcPercent(live[0].Value.Uint64()))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
