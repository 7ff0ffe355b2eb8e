// Command measure starts an upstream, a bare reverse proxy and authproxy with each of its session stores, logs in, lets wrk
// send requests to one after the other in many short turns, and compares the CPU time that the proxies took per request.
// bench/run.sh builds what it needs and starts it.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"authproxy/devprovider"
)

const (
	warmUp = time.Second // of each proxy, not counted
	turn   = time.Second // of wrk at one proxy: short, so that what else the machine does hits all alike
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

func main() {
	dir := flag.String("dir", "", "`DIRECTORY` with the programs authproxy, upstream and bareproxy; logs and sessions go there too")
	seconds := flag.Int("seconds", 60, "`SECONDS` to take, about")
	flag.Parse()
	// The bound is for what hangs: a machine that is merely slow gets through.
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(*seconds)*time.Second*2+time.Minute)
	defer cancel()
	if err := measure(ctx, *dir, time.Duration(*seconds)*time.Second); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A contender is a proxy in a process of its own.
type contender struct {
	name    string
	url     string
	process *os.Process
	log     string // file; "" when it logs nothing
	login   bool   // a session is begun before each turn

	turns []result
}

// A result is what one turn came to.
type result struct {
	cpu      float64 // microseconds per request
	rate     float64 // requests per second
	p50, p99 float64 // milliseconds
}

func measure(ctx context.Context, dir string, total time.Duration) error {
	dir, err := filepath.Abs(dir) // os/exec looks for a program without a slash elsewhere
	if err != nil {
		return err
	}
	script := filepath.Join(dir, "report.lua")
	if err := os.WriteFile(script, []byte(report), 0o600); err != nil {
		return err
	}
	upstreamURL, _, err := start(ctx, filepath.Join(dir, "upstream"))
	if err != nil {
		return err
	}
	bareURL, bare, err := start(ctx, filepath.Join(dir, "bareproxy"), upstreamURL)
	if err != nil {
		return err
	}
	secret := rand.Text()
	provider, err := devprovider.Start(devprovider.Options{
		Clients: []devprovider.Client{{ID: "bench", Secret: secret}},
		Users:   devprovider.DemoUsers(),
	})
	if err != nil {
		return err
	}
	defer provider.Close()
	provider.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" }) // without pages; everything else is as always

	contenders := []*contender{{name: "bare ReverseProxy", url: bareURL, process: bare}}
	for _, store := range []string{"cookie", "file"} {
		c, err := startAuthproxy(ctx, dir, store, provider.Issuer(), secret, upstreamURL)
		if err != nil {
			return err
		}
		contenders = append(contenders, c)
	}

	rounds := max(1, int((total-time.Duration(len(contenders))*warmUp)/(time.Duration(len(contenders))*turn)))
	fmt.Printf("%s, %d CPUs; wrk -t2 -c32, %d rounds of %s for each proxy in turn; access log: JSON to a file\n",
		runtime.Version(), runtime.NumCPU(), rounds, turn)
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
				if cookie, err = login(ctx, c.url); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
			r, err := c.turn(ctx, script, cookie, d)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				c.turns = append(c.turns, r)
			}
		}
	}
	summarize(os.Stdout, contenders)
	return nil
}

// start starts a program that prints the address it listens on. It ends with ctx, or with this process.
func start(ctx context.Context, program string, args ...string) (at string, p *os.Process, err error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", nil, fmt.Errorf("%s did not say where it listens: %w", program, err)
	}
	return "http://" + strings.TrimSpace(address), cmd.Process, nil
}

const config = `
public_url: http://%[1]s
listen: %[1]s
admin: {listen: ""}
log: {format: json}
provider: {issuer: %[2]q, client_id: bench, client_secret: %[3]q}
session:
  keys: [%[4]q]
  store: %[5]s
  file: {path: %[6]q}
upstream: %[7]s
`

func startAuthproxy(ctx context.Context, dir, store, issuer, secret, upstream string) (*contender, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // to learn a free port
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close()
	key := make([]byte, 32)
	rand.Read(key)
	name := filepath.Join(dir, store)
	text := fmt.Sprintf(config, address, issuer, secret, base64.RawURLEncoding.EncodeToString(key), store, name+".db", upstream)
	if err := os.WriteFile(name+".yaml", []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(name+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "authproxy"), "serve", "-config", name+".yaml")
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &contender{name: "authproxy, " + store + " store", url: "http://" + address, process: cmd.Process, log: log.Name(), login: true}
	for range 500 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return c, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	said, _ := os.ReadFile(c.log)
	return nil, fmt.Errorf("%s does not listen; it said:\n%s", c.name, said)
}

// login begins a session as a browser does, sees to it that the upstream gets an assertion with it, and returns the cookie.
// There is a new one for each turn, because after a minute of use the proxy would replace it in every answer: wrk, unlike a
// browser, would not take the new one.
func login(ctx context.Context, proxy string) (cookie string, err error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	browser := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, proxy+"/assertion", nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept", "text/html")
	response, err := browser.Do(request) // to the provider, and back
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK || strings.Count(string(body), ".") != 2 {
		return "", fmt.Errorf("the login came to %s at %s, and the upstream got no assertion", response.Status, response.Request.URL.Path)
	}
	at, err := url.Parse(proxy)
	if err != nil {
		return "", err
	}
	for _, c := range jar.Cookies(at) {
		if c.Name == "authproxy" {
			return c.Name + "=" + c.Value, nil
		}
	}
	return "", errors.New("the login gave no session cookie")
}

// report makes wrk say what it counted in a form that is easy to read.
const report = `
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\nREPORT %d %d %d %.3f %.3f\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
`

// turn lets wrk at the proxy for that long.
func (c *contender) turn(ctx context.Context, script, cookie string, d time.Duration) (result, error) {
	args := []string{"-t2", "-c32", "--timeout", "30s", "-d" + strconv.Itoa(int(d.Seconds())) + "s", "-s", script, "-H", "Cookie: theme=dark; " + cookie}
	for _, h := range headers {
		args = append(args, "-H", h)
	}
	before, err := cpuTime(c.process.Pid)
	if err != nil {
		return result{}, err
	}
	out, err := exec.CommandContext(ctx, "wrk", append(args, c.url+"/orders/4711?tab=items")...).CombinedOutput()
	if err != nil {
		return result{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	after, err := cpuTime(c.process.Pid)
	if err != nil {
		return result{}, err
	}
	_, line, _ := strings.Cut(string(out), "REPORT ")
	var requests, micros, failed, p50, p99 float64
	if _, err := fmt.Sscan(line, &requests, &micros, &failed, &p50, &p99); err != nil || requests == 0 {
		return result{}, fmt.Errorf("wrk counted no requests:\n%s", out)
	}
	if failed > 0 {
		return result{}, fmt.Errorf("%.0f of %.0f requests failed", failed, requests)
	}
	if c.log != "" {
		if err := os.Truncate(c.log, 0); err != nil { // it is opened for appending
			return result{}, err
		}
	}
	return result{float64((after - before).Microseconds()) / requests, requests / (micros / 1e6), p50, p99}, nil
}

// cpuTime is the time that a process has spent in user and kernel mode, to a hundredth of a second (proc(5): the fields
// utime and stime of /proc/PID/stat, in USER_HZ, which is 100).
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // from the third on
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

// summarize prints the medians, and each contender's cost as a multiple of the first one's in the same round.
func summarize(w io.Writer, contenders []*contender) {
	fmt.Fprintf(w, "\n%-24s %16s %12s %9s %9s\n", "", "CPU µs/request", "requests/s", "p50 ms", "p99 ms")
	for _, c := range contenders {
		column := func(f func(result) float64) float64 { return median(c.turns, f) }
		fmt.Fprintf(w, "%-24s %16.1f %12.0f %9.2f %9.2f\n", c.name, column(func(r result) float64 { return r.cpu }),
			column(func(r result) float64 { return r.rate }), column(func(r result) float64 { return r.p50 }), column(func(r result) float64 { return r.p99 }))
	}
	bare := contenders[0]
	fmt.Fprintln(w)
	for _, c := range contenders[1:] {
		ratios := make([]float64, len(c.turns))
		for i, r := range c.turns {
			ratios[i] = r.cpu / bare.turns[i].cpu
		}
		slices.Sort(ratios)
		n := len(ratios)
		fmt.Fprintf(w, "%s: %.2f times the CPU of the bare proxy (half of the rounds: %.2f to %.2f)\n",
			c.name, median(ratios, func(x float64) float64 { return x }), ratios[n/4], ratios[n-1-n/4])
	}
}

func median[T any](values []T, of func(T) float64) float64 {
	all := make([]float64, len(values))
	for i, v := range values {
		all[i] = of(v)
	}
	slices.Sort(all)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}
