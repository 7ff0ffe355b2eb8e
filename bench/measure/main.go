// Command measure starts a bare reverse proxy and authproxy with each of its session stores, logs in, lets wrk send requests
// to one after the other in many short turns, and compares the CPU time that the proxies took per request. bench/run.sh
// builds what it needs and starts it.
package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"authproxy/bench/rig"
)

const (
	warmUp = time.Second // of each proxy, not counted
	turn   = time.Second // of wrk at one proxy: short, so that what else the machine does hits all alike
)

var seconds = flag.Int("seconds", 60, "`SECONDS` to take, about")

func main() { rig.Main(time.Hour, measure) }

// A contender is a proxy in a process of its own.
type contender struct {
	name  string
	proxy *rig.Process
	login bool // a session is begun before each turn
	turns []rig.Result
}

func measure(ctx context.Context, r *rig.Rig) error {
	upstream, err := r.Upstream(ctx)
	if err != nil {
		return err
	}
	bare, err := r.Bare(ctx, upstream)
	if err != nil {
		return err
	}
	contenders := []*contender{{name: "bare ReverseProxy", proxy: bare}}
	for _, store := range rig.Stores {
		p, err := r.Authproxy(ctx, store, upstream)
		if err != nil {
			return err
		}
		contenders = append(contenders, &contender{name: "authproxy, " + store + " store", proxy: p, login: true})
	}

	total := time.Duration(*seconds) * time.Second
	rounds := max(1, int((total-time.Duration(len(contenders))*warmUp)/(time.Duration(len(contenders))*turn)))
	fmt.Printf("%s; %s, %d rounds of %s for each proxy in turn; access log: JSON to a file\n", rig.Machine(), rig.Wrk, rounds, turn)
	cookie := "" // of the login before; the bare proxy gets it too
	for round := range rounds + 1 {
		d := turn
		if round == 0 {
			d = warmUp
		}
		for i := range contenders { // backwards in every other round: what comes first has no advantage
			c := contenders[i]
			if round%2 == 1 {
				c = contenders[len(contenders)-1-i]
			}
			if c.login {
				// A new session for each turn, because after a minute of use the cookie store would replace the cookie in every
				// answer: wrk, unlike a browser, would not take the new one.
				if cookie, err = c.proxy.Login(ctx); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
			result, err := r.Turn(ctx, c.proxy, rig.Traffic{Cookie: cookie}, d, 0, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				c.turns = append(c.turns, result)
			}
		}
	}
	summarize(contenders)
	return nil
}

func cpu(r rig.Result) float64 { return r.CPU }

// summarize prints the medians, and each contender's cost as a multiple of the first one's in the same round.
func summarize(contenders []*contender) {
	fmt.Printf("\n%-24s %16s %12s %9s %9s\n", "", "CPU µs/request", "requests/s", "p50 ms", "p99 ms")
	for _, c := range contenders {
		fmt.Printf("%-24s %16.1f %12.0f %9.2f %9.2f\n", c.name, rig.Of(c.turns, cpu).Median(),
			rig.Of(c.turns, func(r rig.Result) float64 { return r.Rate }).Median(),
			rig.Of(c.turns, func(r rig.Result) float64 { return r.P50 }).Median(),
			rig.Of(c.turns, func(r rig.Result) float64 { return r.P99 }).Median())
	}
	bare := rig.Of(contenders[0].turns, cpu)
	fmt.Println()
	for _, c := range contenders[1:] {
		ratios := rig.Of(c.turns, cpu).Ratios(bare)
		low, high := ratios.Half()
		fmt.Printf("%s: %.2f times the CPU of the bare proxy (half of the rounds: %.2f to %.2f)\n", c.name, ratios.Median(), low, high)
	}
}
