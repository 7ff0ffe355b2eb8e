package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"authproxy/config"
)

// newLogger logs to w what is at least of that level. Format auto means text when the terminal is looked at, and JSON
// otherwise.
func newLogger(w io.Writer, terminal io.Writer, c config.Log, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "text" || c.Format == "auto" && isTerminal(terminal) {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// A logWriter gathers log lines and writes them together, so that requests do not wait for the disk or a pipe. What cannot
// be written, because the disk is full or the reader hangs, is lost rather than kept in ever growing memory.
type logWriter struct {
	out  io.Writer
	done chan struct{}
	ends sync.WaitGroup

	writing sync.Mutex // held while writing to out

	mu  sync.Mutex
	buf *bytes.Buffer

	spare *bytes.Buffer // guarded by writing
}

const (
	logDelay = 50 * time.Millisecond
	logLimit = 4 << 20 // bytes waiting to be written
)

func newLogWriter(out io.Writer) *logWriter {
	w := &logWriter{out: out, done: make(chan struct{}), buf: new(bytes.Buffer), spare: new(bytes.Buffer)}
	w.ends.Go(func() {
		tick := time.NewTicker(logDelay)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.Flush()
			case <-w.done:
				return
			}
		}
	})
	return w
}

// Write implements io.Writer; slog calls it once per line.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.buf.Len()+len(line) > logLimit {
		return 0, io.ErrShortBuffer
	}
	return w.buf.Write(line)
}

// Flush writes what was gathered.
func (w *logWriter) Flush() {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	lines := w.buf
	w.buf = w.spare
	w.mu.Unlock()
	if lines.Len() > 0 {
		w.out.Write(lines.Bytes())
	}
	lines.Reset() // keeps its memory
	w.spare = lines
}

// Close writes what was gathered and ends.
func (w *logWriter) Close() {
	close(w.done)
	w.ends.Wait()
	w.Flush()
}
