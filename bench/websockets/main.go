// Command websockets opens many WebSockets through a bare reverse proxy and through authproxy with each of its session
// stores, leaves them idle, and compares the resident memory of the proxies per connection. bench/websockets.sh builds what
// it needs and starts it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"authproxy/bench/rig"
)

var (
	sockets = flag.Int("sockets", 10_000, "`CONNECTIONS` to open, or as many as the files that a process may have open allow")
	rounds  = flag.Int("rounds", 3, "`TIMES` to measure each proxy, started anew")
	settle  = flag.Duration("settle", 5*time.Second, "`TIME` between the last handshake, or close, and what follows")
)

// idleFor is how long the CPU time of idle connections is measured.
const idleFor = 10 * time.Second

func main() { rig.Main(time.Hour, measure) }

// A result is what one round at one proxy came to.
type result struct {
	before  float64 // resident bytes of the proxy
	first   float64 // resident bytes for each connection, of a proxy that had none before
	again   float64 // the same when as many had come and gone: what Go takes for them has been used and is resident
	opening float64 // CPU, microseconds for each handshake
	idle    float64 // CPU, percent of a core while nothing is sent
}

func first(r result) float64 { return r.first }
func again(r result) float64 { return r.again }

func measure(ctx context.Context, r *rig.Rig) error {
	n, err := affordable(*sockets)
	if err != nil {
		return err
	}
	fmt.Printf("%s; %d WebSockets with a session each, %d rounds, %s and %s of silence\n", rig.Machine(), n, *rounds, *settle, idleFor)
	contenders := append([]string{""}, rig.Stores...)
	results := map[string][]result{}
	for range *rounds {
		for _, store := range contenders {
			one, err := round(ctx, r, store, n)
			if err != nil {
				return fmt.Errorf("%s: %w", name(store), err)
			}
			results[store] = append(results[store], one)
		}
	}

	fmt.Printf("\n%-24s %16s %16s %11s %21s %12s\n", "", "KiB/connection", "the second time", "MiB before", "CPU µs per handshake", "idle, % CPU")
	for _, store := range contenders {
		of := func(f func(result) float64) float64 { return rig.Of(results[store], f).Median() }
		fmt.Printf("%-24s %16.1f %16.1f %11.1f %21.0f %12.2f\n", name(store), of(first)/1024, of(again)/1024, of(func(r result) float64 { return r.before })/(1<<20),
			of(func(r result) float64 { return r.opening }), of(func(r result) float64 { return r.idle }))
	}
	fmt.Println()
	for _, store := range rig.Stores {
		ratios := func(f func(result) float64) string {
			n := rig.Of(results[store], f).Ratios(rig.Of(results[""], f))
			return fmt.Sprintf("%.2f (%.2f to %.2f)", n.Median(), n.Percentile(0), n.Percentile(100))
		}
		fmt.Printf("%s: %s times the memory of the bare proxy, the second time %s\n", name(store), ratios(first), ratios(again))
	}
	return nil
}

func name(store string) string {
	if store == "" {
		return "bare ReverseProxy"
	}
	return "authproxy, " + store + " store"
}

// affordable is n, or how many connections a proxy may have, which needs two files for each.
func affordable(n int) (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	const others = 100 // files of a proxy: logs, listeners, the store
	if most := (int(min(limit.Max, 1<<30)) - others) / 2; n > most {
		fmt.Printf("A process may have %d files open here, and a proxy needs two for each connection: %d instead of %d.\n", limit.Max, most, n)
		return most, nil
	}
	return n, nil
}

// round measures a proxy that was just started, with an upstream of its own.
func round(ctx context.Context, r *rig.Rig, store string, n int) (result, error) {
	upstream, err := r.Upstream(ctx)
	if err != nil {
		return result{}, err
	}
	defer upstream.Stop()
	var proxy *rig.Process
	cookies := make([]string, n)
	if store == "" {
		proxy, err = r.Bare(ctx, upstream)
	} else {
		if cookies, err = sessions(ctx, r, store, n); err != nil {
			return result{}, err
		}
		proxy, err = r.Authproxy(ctx, store, upstream)
	}
	if err != nil {
		return result{}, err
	}
	defer proxy.Stop()

	warm, err := open(ctx, proxy, cookies[:1]) // what the first connection needs is not for each
	defer closeAll(warm)
	if err != nil {
		return result{}, err
	}
	before, err := read(proxy)
	if err != nil {
		return result{}, err
	}
	var one result
	one.before = before.memory
	if one.first, _, _, err = occupy(ctx, proxy, cookies[1:], before); err != nil {
		return result{}, proxy.Blame(err)
	}
	time.Sleep(*settle) // the proxy closes its side as well
	if before.cpu, err = proxy.CPU(); err != nil {
		return result{}, err
	}
	if one.again, one.opening, one.idle, err = occupy(ctx, proxy, cookies[1:], before); err != nil {
		return result{}, proxy.Blame(err)
	}
	return one, nil
}

// occupy opens a WebSocket for each cookie, measures what they cost while they are silent, and closes them.
func occupy(ctx context.Context, proxy *rig.Process, cookies []string, before reading) (each, opening, idle float64, err error) {
	conns, err := open(ctx, proxy, cookies)
	defer closeAll(conns)
	if err != nil {
		return 0, 0, 0, err
	}
	opened, err := read(proxy)
	if err != nil {
		return 0, 0, 0, err
	}
	time.Sleep(*settle)
	settled, err := read(proxy)
	if err != nil {
		return 0, 0, 0, err
	}
	time.Sleep(idleFor)
	after, err := read(proxy)
	if err != nil {
		return 0, 0, 0, err
	}
	for _, c := range conns {
		if err := echoes(c); err != nil {
			return 0, 0, 0, fmt.Errorf("a connection was lost: %w", err)
		}
	}
	n := float64(len(conns))
	return (settled.memory - before.memory) / n, float64((opened.cpu - before.cpu).Microseconds()) / n,
		100 * (after.cpu - settled.cpu).Seconds() / idleFor.Seconds(), nil
}

// A reading is what a process had used at a moment.
type reading struct {
	memory float64 // resident bytes
	cpu    time.Duration
}

func read(p *rig.Process) (reading, error) {
	m, err := p.Memory()
	if err != nil {
		return reading{}, err
	}
	cpu, err := p.CPU()
	return reading{m.Resident(), cpu}, err
}

// sessions begins n sessions and returns their cookies.
func sessions(ctx context.Context, r *rig.Rig, store string, n int) (cookies []string, err error) {
	s, err := r.Open(ctx, store)
	if err != nil {
		return nil, err
	}
	m := rig.Manager(s)
	defer m.Close()
	err = r.BeginMany(ctx, store, m, n, func(some []string) error {
		cookies = append(cookies, some...)
		return nil
	})
	return cookies, err
}

// open opens a WebSocket for each cookie, some at a time. What it returns with an error is to be closed as well.
func open(ctx context.Context, proxy *rig.Process, cookies []string) ([]net.Conn, error) {
	conns := make([]net.Conn, len(cookies))
	var next atomic.Int64
	some, ctx := errgroup.WithContext(ctx)
	for range 32 {
		some.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(cookies) {
					return nil
				}
				var err error
				if conns[i], err = dial(ctx, proxy, cookies[i]); err != nil {
					return err
				}
			}
		})
	}
	return conns, some.Wait()
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// dial shakes hands as a browser does (RFC 6455 §4.1). It reads no further than to the end of the answer's header.
func dial(ctx context.Context, proxy *rig.Process, cookie string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(proxy.URL, "http://"))
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(c, "GET /socket HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nCookie: theme=dark; %s\r\n\r\n",
		strings.TrimPrefix(proxy.URL, "http://"), proxy.URL, cookie)
	var answer []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(answer), "\r\n\r\n"); {
		if _, err := c.Read(b); err != nil {
			c.Close()
			return nil, fmt.Errorf("the handshake came to %q: %w", answer, err)
		}
		answer = append(answer, b...)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 101 ") {
		c.Close()
		return nil, fmt.Errorf("the handshake came to %q", answer)
	}
	if err := echoes(c); err != nil { // a connection is idle after something was sent, not before
		c.Close()
		return nil, err
	}
	return c, nil
}

// echoes sends a frame and reads what the upstream sends back.
func echoes(c net.Conn) error {
	c.SetDeadline(time.Now().Add(time.Minute))
	defer c.SetDeadline(time.Time{})
	const frame = "\x81\x82\x00\x00\x00\x00hi" // text, masked with zeros
	if _, err := io.WriteString(c, frame); err != nil {
		return err
	}
	b := make([]byte, len(frame))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != frame {
		return fmt.Errorf("%q came back as %q", frame, b)
	}
	return nil
}
