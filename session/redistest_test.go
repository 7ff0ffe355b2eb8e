package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"authproxy/session"
)

// A redisServer is a real redis-server on a loopback port.
type redisServer struct {
	t    testing.TB
	args []string
	port string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// startRedis starts a server that writes nothing to disk, with further arguments.
func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	s := newRedis(t, args...)
	s.start()
	return s
}

// newRedis has its port, and does not run yet.
func newRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	port := freePort(t)
	s := &redisServer{t: t, port: port, args: append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, args...)}
	t.Cleanup(s.kill)
	return s
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (s *redisServer) start() {
	s.t.Helper()
	s.run("redis-server", s.args...)
	eventually(s.t, 10*time.Second, "redis-server answers", func() bool {
		_, err := s.command("PING")
		return err == nil
	})
}

func (s *redisServer) run(program string, args ...string) {
	s.t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		s.t.Fatalf("%v: install the package redis-server", err)
	}
	s.out.Reset()
	s.cmd = exec.Command(path, args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// kill ends it as a crash would.
func (s *redisServer) kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

// freeze leaves its connections open and everything unanswered, as a broken network does.
func (s *redisServer) freeze() { s.cmd.Process.Signal(syscall.SIGSTOP) }
func (s *redisServer) thaw()   { s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *redisServer) addr() string { return "127.0.0.1:" + s.port }
func (s *redisServer) url() string  { return "redis://" + s.addr() + "/0" }

// command sends a command with redis-cli.
func (s *redisServer) command(args ...string) (string, error) {
	out, err := exec.Command("redis-cli", append([]string{"-e", "--no-raw", "-h", "127.0.0.1", "-p", s.port}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("redis-cli %q: %w: %s", args, err, out)
	}
	return string(out), nil
}

// cli fails the test when the command fails.
func (s *redisServer) cli(args ...string) string {
	s.t.Helper()
	out, err := s.command(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// replicated waits until a replica has acknowledged everything. WAIT would not do: it counts replicas, of what its own
// connection wrote.
func (s *redisServer) replicated() {
	s.t.Helper()
	eventually(s.t, 20*time.Second, "everything is replicated", func() bool {
		info := s.cli("INFO", "replication")
		_, rest, _ := strings.Cut(info, "master_repl_offset:")
		offset, _, _ := strings.Cut(rest, "\r\n")
		return offset != "" && strings.Contains(info, ",offset="+offset+",")
	})
}

// calls is how often clients sent a command.
func (s *redisServer) calls(command string) (n int) {
	s.t.Helper()
	stats := s.cli("INFO", "commandstats")
	if !strings.Contains(stats, "\ncmdstat_hello:calls=") {
		s.t.Fatalf("INFO does not say how often clients sent HELLO, which they all did: %q", stats)
	}
	_, rest, _ := strings.Cut(stats, "\ncmdstat_"+command+":calls=")
	fmt.Sscanf(rest, "%d", &n)
	return n
}

// usedMemory is what it allocated, in bytes.
func (s *redisServer) usedMemory() (n int) {
	s.t.Helper()
	_, rest, _ := strings.Cut(s.cli("INFO", "memory"), "used_memory:")
	fmt.Sscanf(rest, "%d", &n)
	return n
}

// startSentinel watches over master under the name "mymaster".
func startSentinel(t testing.TB, master *redisServer) *redisServer {
	t.Helper()
	s := &redisServer{t: t, port: freePort(t)}
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 %s 1\nsentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 5000\n", s.port, master.port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	s.run("redis-server", conf, "--sentinel")
	eventually(t, 10*time.Second, "the sentinel knows the replica", func() bool {
		out, err := s.command("SENTINEL", "REPLICAS", "mymaster")
		return err == nil && strings.Contains(out, "role-reported") && strings.Contains(out, `"ok"`)
	})
	return s
}

// A cutter forwards connections to a server, and breaks the one on which the server answers with the text to cut, or the one
// on which a client sends the text to hold: what it sent with that is held.
type cutter struct {
	addr      string
	cut, hold atomic.Pointer[string] // nil when it was done
	held      atomic.Pointer[[]byte]
}

func newCutter(t testing.TB, server string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &cutter{addr: l.Addr().String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go c.forward(client, server)
		}
	}()
	return c
}

func (c *cutter) forward(client net.Conn, addr string) {
	defer client.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		for b := make([]byte, 64<<10); ; {
			n, err := client.Read(b)
			if err != nil {
				return
			}
			if text := c.hold.Load(); text != nil && bytes.Contains(b[:n], []byte(*text)) {
				c.hold.Store(nil)
				held := bytes.Clone(b[:n])
				c.held.Store(&held)
				client.Close()
				return
			}
			if _, err := server.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	for b := make([]byte, 64<<10); ; {
		n, err := server.Read(b)
		if err != nil {
			return
		}
		if text := c.cut.Load(); text != nil && bytes.Contains(b[:n], []byte(*text)) {
			c.cut.Store(nil)
			return
		}
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}

// eventually asks a real server again and again, because nothing tells us when it is ready.
func eventually(t testing.TB, limit time.Duration, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// A logged collects log lines.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), part)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func redisStore(t testing.TB, opts session.RedisOptions, now func() time.Time, keys ...[]byte) *session.RedisStore {
	t.Helper()
	if opts.Prefix == "" {
		opts.Prefix = "authproxy:"
	}
	r, err := session.OpenRedisStore(opts, sealer(t, keys...), keys, cookie, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// replica is a store with a manager, as one process has them.
func replica(t testing.TB, opts session.RedisOptions) *session.Manager {
	t.Helper()
	m := session.NewManager(redisStore(t, opts, nil, keys[0]), cookie, time.Hour, 24*time.Hour)
	t.Cleanup(func() { m.Close() })
	return m
}

// begin signs subject in and returns the cookie value. A store that is not connected yet, on a busy machine, is waited for.
func begin(t testing.TB, m *session.Manager, login *session.Session) (string, *session.Session) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, c, err := m.Begin(context.Background(), login)
		if err == nil {
			return c.Value, s
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// word says how a lookup went: "alive", "ended" or "failed".
func word(err error) string {
	switch {
	case err == nil:
		return "alive"
	case errors.Is(err, session.ErrNone):
		return "ended"
	}
	return "failed"
}

func state(m *session.Manager, value string) string {
	return word(m.Check(context.Background(), value))
}
