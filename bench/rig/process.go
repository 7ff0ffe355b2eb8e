package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Process is a program that was started. It ends with the context that it was started with, or with this process.
type Process struct {
	URL   string // where it listens
	Admin string // the same of authproxy's admin listener
	cmd   *exec.Cmd
	log   string // file; "" when it logs nothing
}

func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start starts a program that writes into a log.
func start(ctx context.Context, log, program string, args ...string) (*Process, error) {
	to, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	cmd := command(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = to, to
	return &Process{cmd: cmd, log: log}, cmd.Start()
}

// startPrinting starts a program that prints the address it listens on.
func startPrinting(ctx context.Context, program string, args ...string) (*Process, error) {
	cmd := command(ctx, program, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("%s did not say where it listens: %w", program, err)
	}
	return &Process{URL: "http://" + strings.TrimSpace(address), cmd: cmd}, nil
}

// listens waits until the process does.
func (p *Process) listens(address string) error {
	for range 1000 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return p.Blame(errors.New("it does not listen"))
}

// Blame is err with the last that the process said in its log.
func (p *Process) Blame(err error) error {
	said, _ := os.ReadFile(p.log) // "" cannot be read
	return fmt.Errorf("%s: %w; the end of its log:\n%s", filepath.Base(p.cmd.Path), err, said[max(0, len(said)-2000):])
}

// Stop ends the process and waits for its end.
func (p *Process) Stop() {
	p.cmd.Process.Signal(os.Interrupt)
	p.cmd.Wait() // how it went is of no interest any more
}

// forgetLog empties the log, which is opened for appending.
func (p *Process) forgetLog() error {
	if p.log == "" {
		return nil
	}
	return os.Truncate(p.log, 0)
}

// CPU is the time that a process has spent in user and kernel mode, to a hundredth of a second (proc(5): the fields utime
// and stime of /proc/PID/stat, in USER_HZ, which is 100).
func (p *Process) CPU() (time.Duration, error) {
	name := fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid)
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // from the third on
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s: %q", name, text)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

// Memory is what a process has in memory, in bytes.
type Memory struct {
	Own    float64 // RssAnon: what it allocated
	Mapped float64 // RssFile: of its program and of files that it maps, which the system can take back at any time
}

// Resident is all of it.
func (m Memory) Resident() float64 { return m.Own + m.Mapped }

// Memory reads /proc/PID/status.
func (p *Process) Memory() (m Memory, err error) {
	name := fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)
	text, err := os.ReadFile(name)
	if err != nil {
		return Memory{}, err
	}
	for _, field := range []struct {
		name string
		to   *float64
	}{{"RssAnon:", &m.Own}, {"RssFile:", &m.Mapped}} {
		_, rest, found := strings.Cut(string(text), field.name)
		if _, err := fmt.Sscan(rest, field.to); err != nil || !found {
			return Memory{}, fmt.Errorf("%s has no %s", name, field.name)
		}
		*field.to *= 1024 // they are in KiB
	}
	return m, nil
}
