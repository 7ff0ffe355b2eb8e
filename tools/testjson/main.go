// Command testjson reads what go test -json says and prints what a person wants to know of it: the line of each package, and
// of what failed everything. With -skipped it writes the tests that were skipped into a file, one per line with the reason,
// so that a test that does not run does not go unnoticed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	skipped := flag.String("skipped", "", "write the skipped tests to `FILE`")
	flag.Parse()
	r := &report{out: os.Stdout, buffers: map[test]*strings.Builder{}}
	err := r.read(os.Stdin)
	if err == nil && *skipped != "" {
		err = os.WriteFile(*skipped, []byte(strings.Join(r.skipped, "")), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testjson:", err)
		os.Exit(1)
	}
	if r.failed {
		os.Exit(1)
	}
}

// An event is a line of go test -json (go doc test2json).
type event struct {
	Action, Package, Test, Output string
}

// A test is a test by its package and name; the package itself has an empty name.
type test struct{ pkg, name string }

// A report is what has been read and not been printed yet.
type report struct {
	out     io.Writer
	buffers map[test]*strings.Builder
	order   []test // of buffers
	skipped []string
	failed  bool
}

func (r *report) read(from io.Reader) error {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil && err != io.EOF {
			return err
		}
		var e event
		if json.Unmarshal(line, &e) != nil { // said by go itself, such as that it downloads something
			r.out.Write(line)
			continue
		}
		r.add(e)
	}
}

func (r *report) add(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		io.WriteString(r.out, e.Output)
	case "build-fail":
		r.failed = true
	case "output":
		if strings.HasPrefix(e.Output, "=== ") { // which test is running now
			return
		}
		if r.buffers[t] == nil {
			r.buffers[t] = new(strings.Builder)
			r.order = append(r.order, t)
		}
		r.buffers[t].WriteString(e.Output)
	case "skip":
		if e.Test != "" {
			r.skipped = append(r.skipped, fmt.Sprintf("%s in %s: skipped: %s\n", e.Test, e.Package, reason(r.take(t))))
		}
		r.finish(t, false)
	case "pass":
		r.finish(t, false)
	case "fail":
		r.failed = true
		r.finish(t, true)
	}
}

// finish prints what is worth it of a test, or of a package with all that is left in it.
func (r *report) finish(t test, failed bool) {
	if t.name != "" {
		if text := r.take(t); failed {
			io.WriteString(r.out, text)
		}
		return
	}
	if failed { // tests that never ended are in the middle of something
		for _, unfinished := range slices.Clone(r.order) {
			if unfinished.pkg == t.pkg && unfinished.name != "" {
				io.WriteString(r.out, r.take(unfinished))
			}
		}
	}
	for line := range strings.Lines(r.take(t)) {
		if failed || strings.HasPrefix(line, "ok  ") || strings.HasPrefix(line, "?   ") {
			io.WriteString(r.out, line)
		}
	}
}

// take removes and returns what a test has written.
func (r *report) take(t test) string {
	b := r.buffers[t]
	if b == nil {
		return ""
	}
	delete(r.buffers, t)
	r.order = slices.DeleteFunc(r.order, func(o test) bool { return o == t })
	return b.String()
}

// reason is what a skipped test said, on one line.
func reason(output string) string {
	var said []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "---") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}
