package rig

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// headers are what a browser sends for an image or script, beside the cookie.
var headers = []string{
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
	"Accept-Language: en-GB,en;q=0.8,de;q=0.5",
	"Accept-Encoding: gzip, deflate, br, zstd",
	"Referer: http://127.0.0.1/orders",
	"Sec-Fetch-Dest: document",
	"Sec-Fetch-Mode: navigate",
	"Sec-Fetch-Site: same-origin",
	"Sec-Fetch-User: ?1",
	"Upgrade-Insecure-Requests: 1",
	"Priority: u=0, i",
}

// Wrk says in a few words how Turn uses wrk.
const Wrk = "wrk -t2 -c32"

//go:embed report.lua
var report string

//go:embed cookies.lua
var manyCookies string

// Traffic is whose requests are sent: those of one session, or of many.
type Traffic struct {
	Cookie string // NAME=VALUE, of one session; or:

	Cookies     *Cookies
	From, Count int  // these of the cookies
	Walk        bool // each once, then the turn is over; otherwise one at random for each request
}

// A Result is what a turn came to.
type Result struct {
	CPU      float64 // microseconds per request, of the proxy
	Store    float64 // and of the store's process
	Rate     float64 // requests per second
	P50, P99 float64 // milliseconds
}

// Turn lets wrk at the proxy for that long, and counts what the proxy and the store, which may be nil, spend on it until
// lag later: some work is done beside the requests.
func (r *Rig) Turn(ctx context.Context, p *Process, t Traffic, d, lag time.Duration, store *Process) (Result, error) {
	if store == nil {
		store = p
	}
	script := filepath.Join(r.dir, "wrk.lua")
	args := []string{"-t2", "-c32", "--timeout", "30s", "-d" + strconv.Itoa(int(d.Seconds())) + "s", "-s", script, "-H", "Cookie: theme=dark; " + t.Cookie}
	for _, h := range headers {
		args = append(args, "-H", h)
	}
	args = append(args, p.URL+"/orders/4711?tab=items")
	text := report
	if c := t.Cookies; c != nil {
		text += manyCookies
		args = append(args, "--", c.file.Name(), strconv.Itoa(c.width), strconv.Itoa(t.From), strconv.Itoa(t.Count), strconv.FormatBool(t.Walk))
	}
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		return Result{}, err
	}
	before, err := p.CPU()
	if err != nil {
		return Result{}, err
	}
	storeBefore, err := store.CPU()
	if err != nil {
		return Result{}, err
	}
	out, err := exec.CommandContext(ctx, "wrk", args...).CombinedOutput()
	if err != nil {
		return Result{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	time.Sleep(lag)
	after, err := p.CPU()
	if err != nil {
		return Result{}, err
	}
	storeAfter, err := store.CPU()
	if err != nil {
		return Result{}, err
	}
	_, line, _ := strings.Cut(string(out), "REPORT ")
	var requests, micros, failed, p50, p99 float64
	if _, err := fmt.Sscan(line, &requests, &micros, &failed, &p50, &p99); err != nil || requests == 0 {
		return Result{}, fmt.Errorf("wrk counted no requests:\n%s", out)
	}
	if failed > 0 {
		return Result{}, fmt.Errorf("%.0f of %.0f requests failed", failed, requests)
	}
	if err := p.forgetLog(); err != nil {
		return Result{}, err
	}
	result := Result{CPU: float64((after - before).Microseconds()) / requests, Rate: requests / (micros / 1e6), P50: p50, P99: p99}
	if store != p {
		result.Store = float64((storeAfter - storeBefore).Microseconds()) / requests
	}
	return result, nil
}

// Cookies are the cookies of many sessions, in a file from which wrk takes them one by one.
type Cookies struct {
	file  *os.File
	width int // of a line
	n     int
}

// NewCookies makes an empty file for cookies.
func (r *Rig) NewCookies() (*Cookies, error) {
	f, err := os.CreateTemp(r.dir, "cookies")
	if err != nil {
		return nil, err
	}
	return &Cookies{file: f, width: 1024}, nil
}

// Len is how many there are.
func (c *Cookies) Len() int { return c.n }

// Add appends cookies.
func (c *Cookies) Add(cookies []string) error {
	var b strings.Builder
	for _, v := range cookies {
		if len(v) >= c.width {
			return fmt.Errorf("a cookie of %d bytes, want less than %d", len(v), c.width)
		}
		fmt.Fprintf(&b, "%-*s\n", c.width-1, v)
	}
	c.n += len(cookies)
	_, err := c.file.WriteString(b.String())
	return err
}

// At returns one of them.
func (c *Cookies) At(i int) (string, error) {
	b := make([]byte, c.width)
	if _, err := c.file.ReadAt(b, int64(i)*int64(c.width)); err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// Close deletes the file.
func (c *Cookies) Close() {
	c.file.Close()
	os.Remove(c.file.Name())
}
