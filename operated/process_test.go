package operated_test

import (
	"bytes"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take before a test gives up. It is long because machines that run tests are busy.
const patience = 20 * time.Second

// eventually asks again and again until ok says true, and returns how long that took.
func eventually(t testing.TB, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for tick := time.NewTicker(5 * time.Millisecond); !ok(); <-tick.C {
		if time.Since(began) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
	return time.Since(began)
}

// freePort is a port of 127.0.0.1 that nobody listens on. It is below the ports that connections get from the system, so
// that a server which is restarted finds it free again.
func freePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(10_000 + rand.IntN(20_000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// An output collects what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// A process runs until its test ends.
type process struct {
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed when it has ended
	err  error         // how; to be read after done
}

// start runs a program. What it has written at last is shown when the test has failed.
func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		out := p.out.String()
		if strings.Contains(out, "DATA RACE") || strings.Contains(out, "panic: ") {
			t.Errorf("%s wrote:\n%.10000s", filepath.Base(name), out)
		} else if t.Failed() {
			t.Logf("%s wrote at last:\n%s", filepath.Base(name), out[max(0, len(out)-4000):])
		}
	})
	return p
}

func (p *process) signal(s os.Signal) { p.cmd.Process.Signal(s) }

// kill ends it as a crash does.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// freeze leaves its connections open and everything unanswered, as a broken network does.
func (p *process) freeze() { p.signal(syscall.SIGSTOP) }
func (p *process) thaw()   { p.signal(syscall.SIGCONT) }

// ended waits until it has ended, and fails the test unless it did so with status 0.
func (p *process) ended(t testing.TB) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%s goes on", filepath.Base(p.cmd.Path))
	}
	if p.err != nil {
		t.Errorf("%s ended: %v", filepath.Base(p.cmd.Path), p.err)
	}
}

// running says whether it has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// write writes a file that only its owner reads.
func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
