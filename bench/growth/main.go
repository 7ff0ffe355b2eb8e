// Command growth fills each session store with more and more sessions, and measures what they and the requests of their
// users cost then. bench/growth.sh builds what it needs and starts it.
package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"authproxy/bench/rig"
	"authproxy/session"
)

var (
	sizes  = flag.String("sizes", "1,1000,100000", "`NUMBERS` of sessions, growing")
	stores = flag.String("stores", strings.Join(rig.Stores, ","), "`STORES` to fill")
	rounds = flag.Int("rounds", 9, "`TURNS` of wrk at each proxy")
)

const (
	turn   = time.Second
	warmUp = 8 * time.Second        // with the requests of that time every cache is full
	lag    = 500 * time.Millisecond // after which what is done beside the requests is done
	busy   = 1000                   // sessions that fit into every cache
	unused = 20_000                 // sessions that nobody has used for a minute
	found  = 20_000                 // times a session is looked for
)

func main() { rig.Main(4*time.Hour, measure) }

func measure(ctx context.Context, r *rig.Rig) error {
	upstream, err := r.Upstream(ctx)
	if err != nil {
		return err
	}
	bare, err := r.Bare(ctx, upstream)
	if err != nil {
		return err
	}
	fmt.Printf("%s; %s, %d turns of %s at authproxy and the bare proxy each\n", rig.Machine(), rig.Wrk, *rounds, turn)
	var kept, requests strings.Builder
	fmt.Fprintf(&kept, "%-7s %9s %14s %9s %17s %9s\n", "store", "sessions", "bytes/session", "logins/s", "Find µs, p50 p99", "sweep s")
	fmt.Fprintf(&requests, "%-7s %9s  %-26s %14s %22s %15s %9s %15s\n", "store", "sessions", "requests of", "CPU µs/request", "times the bare proxy's", "store's CPU µs", "p99 ms", "MiB, file mapped")
	for store := range strings.SplitSeq(*stores, ",") {
		g, err := newGrowth(ctx, r, store)
		if err != nil {
			return err
		}
		for text := range strings.SplitSeq(*sizes, ",") {
			size, err := strconv.Atoi(text)
			if err != nil {
				return err
			}
			line, err := g.fill(ctx, size)
			if err != nil {
				return fmt.Errorf("%s store, %d sessions: %w", store, size, err)
			}
			fmt.Fprintf(&kept, "%-7s %9d %s\n", store, size, line)
			lines, err := g.serve(ctx, upstream, bare)
			if err != nil {
				return fmt.Errorf("%s store, %d sessions: %w", store, size, err)
			}
			for _, line := range lines {
				fmt.Fprintf(&requests, "%-7s %9d  %s\n", store, size, line)
			}
		}
		g.used.Close()
	}
	fmt.Printf("\n%s\n%s", &kept, &requests)
	return nil
}

// A growth is a store that grows.
type growth struct {
	rig   *rig.Rig
	store string
	empty float64 // bytes of the store without sessions
	used  *rig.Cookies
	stale *rig.Cookies // of sessions that were not used for a minute; nil where there are few sessions
}

func newGrowth(ctx context.Context, r *rig.Rig, store string) (*growth, error) {
	s, err := r.Open(ctx, store)
	if err != nil {
		return nil, err
	}
	s.Close()
	g := &growth{rig: r, store: store}
	if g.empty, err = r.StoreBytes(ctx, store); err != nil {
		return nil, err
	}
	g.used, err = r.NewCookies()
	return g, err
}

// fill begins sessions until there are size, and says what they cost.
func (g *growth) fill(ctx context.Context, size int) (string, error) {
	s, err := g.rig.Open(ctx, g.store)
	if err != nil {
		return "", err
	}
	defer s.Close()
	m := rig.Manager(s)
	add, began := size-g.used.Len(), time.Now()
	if g.stale != nil {
		add -= g.stale.Len() // of the size before; they stay
		g.stale.Close()
		g.stale = nil
	}
	beginning := add
	if size >= 5*unused && g.store != "cookie" { // which records a use by giving the browser another cookie; wrk would not take it
		if g.stale, err = g.rig.NewCookies(); err != nil {
			return "", err
		}
		m.Now = func() time.Time { return time.Now().Add(-2 * time.Minute) }
		if err := g.rig.BeginMany(ctx, g.store, m, unused, g.stale.Add); err != nil {
			return "", err
		}
		add -= unused
	}
	m.Now = func() time.Time { return time.Now().Add(time.Hour) } // so that no use is to be recorded while we measure
	if err := g.rig.BeginMany(ctx, g.store, m, add, g.used.Add); err != nil {
		return "", err
	}
	perSecond := float64(beginning) / time.Since(began).Seconds()

	bytes, err := g.rig.StoreBytes(ctx, g.store)
	if err != nil {
		return "", err
	}
	finds := make(rig.Numbers, found)
	for i := range finds {
		cookie, err := g.used.At(i * 7919 % g.used.Len())
		if err != nil {
			return "", err
		}
		_, value, _ := strings.Cut(cookie, "=")
		began := time.Now()
		if _, _, err := m.Find(ctx, value, true); err != nil {
			return "", err
		}
		finds[i] = float64(time.Since(began).Nanoseconds()) / 1000
	}
	sweep := "-"
	if f, ok := s.(*session.FileStore); ok {
		began := time.Now()
		if err := f.Sweep(); err != nil {
			return "", err
		}
		sweep = fmt.Sprintf("%.3f", time.Since(began).Seconds())
	}
	return fmt.Sprintf("%14.0f %9.0f %8.1f %8.1f %9s", (bytes-g.empty)/float64(size), perSecond, finds.Percentile(50), finds.Percentile(99), sweep), nil
}

// serve measures the requests of these sessions, and says what they cost.
func (g *growth) serve(ctx context.Context, upstream, bare *rig.Process) (lines []string, err error) {
	proxy, err := g.rig.Authproxy(ctx, g.store, upstream)
	if err != nil {
		return nil, err
	}
	defer proxy.Stop()
	var redis *rig.Process
	if g.store == "redis" {
		server, err := g.rig.Redis(ctx)
		if err != nil {
			return nil, err
		}
		redis = server.Process
	}
	all := g.used.Len()
	line := func(what string, warmUp time.Duration, traffic func(round int) rig.Traffic) error {
		var ours, theirs []rig.Result
		if warmUp > 0 {
			if _, err := g.rig.Turn(ctx, proxy, traffic(0), warmUp, 0, nil); err != nil {
				return proxy.Blame(err)
			}
		}
		for round := range *rounds {
			b, err := g.rig.Turn(ctx, bare, traffic(round), turn, 0, nil)
			if err != nil {
				return err
			}
			theirs = append(theirs, b)
			o, err := g.rig.Turn(ctx, proxy, traffic(round), turn, lag, redis)
			if err != nil {
				return proxy.Blame(err)
			}
			ours = append(ours, o)
		}
		memory, err := proxy.Memory()
		if err != nil {
			return err
		}
		cpu := func(r rig.Result) float64 { return r.CPU }
		ratios := rig.Of(ours, cpu).Ratios(rig.Of(theirs, cpu))
		low, high := ratios.Half()
		stores := "-"
		if redis != nil {
			stores = fmt.Sprintf("%.1f", rig.Of(ours, func(r rig.Result) float64 { return r.Store }).Median())
		}
		lines = append(lines, fmt.Sprintf("%-26s %14.1f %5.2f (%.2f to %.2f)  %15s %9.1f %6.0f %6.0f", what, rig.Of(ours, cpu).Median(), ratios.Median(), low, high,
			stores, rig.Of(ours, func(r rig.Result) float64 { return r.P99 }).Median(), memory.Own/(1<<20), memory.Mapped/(1<<20)))
		return nil
	}
	some := min(all, busy)
	if err := line(fmt.Sprintf("%d of them", some), 2*time.Second, func(int) rig.Traffic { return rig.Traffic{Cookies: g.used, Count: some} }); err != nil {
		return nil, err
	}
	if all > busy {
		if err := line("all, at random", warmUp, func(int) rig.Traffic { return rig.Traffic{Cookies: g.used, Count: all} }); err != nil {
			return nil, err
		}
	}
	if g.stale != nil {
		each := g.stale.Len() / *rounds
		if err := line("each, once in a minute", 0, func(round int) rig.Traffic {
			return rig.Traffic{Cookies: g.stale, From: round * each, Count: each, Walk: true}
		}); err != nil {
			return nil, err
		}
	}
	return lines, nil
}
