package config

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// A Mistake is something wrong in a configuration file. It never holds a secret, nor anything that a reference in the
// file stands for.
type Mistake struct {
	File    string // as the caller named it
	Line    int    // from 1; of the parent when a key is missing
	Key     string // path of the key, such as "routes[2].upstream"; without colons and spaces
	Problem string // what was found and what was expected
	Hint    string // what to do; never empty
}

// String is the mistake as operators see it, in two lines without a final line break.
func (m Mistake) String() string {
	return fmt.Sprintf("authproxy: %s:%d: %s: %s\nhint: %s", oneLine(m.File), m.Line, m.Key, oneLine(m.Problem), oneLine(m.Hint))
}

// Mistakes are all that is wrong in a configuration file, sorted by line. It is the type of the errors of [Load] and
// [Parse]; as such it is never empty.
type Mistakes []Mistake

// Error is one Mistake's text below the other, two lines each.
func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i := range m {
		lines[i] = m[i].String()
	}
	return strings.Join(lines, "\n")
}

// Print writes what Error says, with a line break after each Mistake.
func (m Mistakes) Print(w io.Writer) error {
	for _, one := range m {
		if _, err := fmt.Fprintln(w, one); err != nil {
			return err
		}
	}
	return nil
}

func (m Mistakes) sort() {
	slices.SortStableFunc(m, func(a, b Mistake) int { return cmp.Compare(a.Line, b.Line) })
}

// oneLine keeps text from the file and file names from forging lines of output.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}

// joinKey is the path of the key name below the key at. Names are the file's and may be anything; whoever reads a path
// may split the line of a Mistake at colons and spaces.
func joinKey(at, name string) string {
	name = strings.Map(func(r rune) rune {
		if r == ':' || !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return '_'
		}
		return r
	}, cut(name, 80))
	if name == "" {
		name = `""`
	}
	if at == "" {
		return name
	}
	return at + "." + name
}

// element is the path of an element of the list at.
func element(at string, i int) string { return fmt.Sprintf("%s[%d]", at, i) }

// parentKey is the path above that of a key, "" at the top.
func parentKey(at string) string { return at[:max(0, strings.LastIndexAny(at, ".["))] }

// cut shortens s to about n bytes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
