package main

import "testing"

func TestTheGarbageCollectorGetsBoundedHeadroom(t *testing.T) {
	for live, want := range map[uint64]int{0: 800, 1 << 20: 800, 8 << 20: 800, 16 << 20: 400, 32 << 20: 200, 64 << 20: 100, 1 << 40: 100} {
		if got := gcPercent(live); got != want {
			t.Errorf("gcPercent(%d) = %d, want %d", live, got, want)
		}
		if more := live * uint64(gcPercent(live)) / 100; live >= 8<<20 && live <= 64<<20 && more > 64<<20 {
			t.Errorf("a heap of %d may grow by %d", live, more)
		}
	}
}
