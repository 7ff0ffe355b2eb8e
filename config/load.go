// Package config turns config.yaml into checked plain values, or into every mistake that it holds.
//
//	c, err := config.Load("config.yaml", nil)
//	if err != nil {
//		fmt.Fprintln(os.Stderr, err) // all mistakes, each with line, key and hint
//	}
//
// A [Config] keeps every rule that can be checked without the network: defaults are filled in, files that it names have
// been read and parsed, and keys that depend on each other agree. It promises nothing about what others say: that the
// provider exists, that the client secret is right, that an upstream answers.
//
// The schema is one table in schema.go; rules of a single value are the functions in values.go, rules between keys are in
// validate.go, and routes.go finds routes that can never match.
package config

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	maxConfig = 1 << 20   // bytes of a configuration file
	maxFile   = 256 << 10 // bytes of a file that the configuration names
)

// Load reads a configuration file. It returns a complete Config, or as [Mistakes] everything that is wrong with the file.
// References such as ${NAME} are looked up with getenv; nil means [os.LookupEnv]. Relative paths in the file are relative
// to its directory.
//
// What it returns was in all its files at the same time: a secret of yesterday does not meet a policy of today. It gives up on
// that when the files change again and again.
func Load(file string, getenv func(string) (string, bool)) (*Config, error) {
	for try := 1; ; try++ {
		c, files, err := load(file, getenv)
		if try == maxTries || !slices.ContainsFunc(files, func(f File) bool { return f.Now() != f }) {
			return c, err
		}
	}
}

const maxTries = 5

func load(file string, getenv func(string) (string, bool)) (*Config, []File, error) {
	text, err := readFile(file, maxConfig)
	if err != nil {
		hint := "name a readable file with -config FILE or in $AUTHPROXY_CONFIG"
		if errors.Is(err, fs.ErrNotExist) {
			hint = "write one (see config.yaml.example), name it with -config FILE or in $AUTHPROXY_CONFIG, or try authproxy demo, which needs none"
		}
		return nil, nil, Mistakes{{File: file, Line: 1, Key: fileKey, Problem: "cannot be read: " + err.Error(), Hint: hint}}
	}
	return parse(file, text, getenv)
}

// Parse does what [Load] does with a text in the place of the file's; name stands for the file's name, in mistakes and
// where relative paths begin.
func Parse(name string, text []byte, getenv func(string) (string, bool)) (*Config, error) {
	c, _, err := parse(name, text, getenv)
	return c, err
}

// parse is Parse that also returns the files that were read, whether there are mistakes or not.
func parse(name string, text []byte, getenv func(string) (string, bool)) (*Config, []File, error) {
	if getenv == nil {
		getenv = os.LookupEnv
	}
	l := &loader{file: name, files: []File{newFile(name, text, nil)}, getenv: getenv, lines: map[string]int{}, written: map[string]bool{}, texts: map[string]string{}, broken: map[string]bool{}, meant: map[string]bool{}}
	c := defaults()
	c.File = name
	if root := l.parse(text); root != nil {
		l.mapping("", root, l.schema(c))
		l.validate(c)
	}
	if len(l.mistakes) > 0 {
		l.withoutMissing()
		l.mistakes.sort()
		return nil, l.files, l.mistakes
	}
	l.warnings.sort()
	c.Warnings = l.warnings
	c.lines = l.lines
	c.Files = l.files
	return c, l.files, nil
}

// withoutMissing removes the mistakes about keys that are not in the file because they are misspelt: the unknown key is
// one already, and stays.
func (l *loader) withoutMissing() {
	l.mistakes = slices.DeleteFunc(l.mistakes, func(m Mistake) bool { return !l.given(m.Key) && l.misspelt(m.Key) })
}

// fileKey stands for a key in mistakes about the file as a whole.
const fileKey = "(file)"

var (
	yamlLine = regexp.MustCompile(`^line (\d+): `)

	// What of a line cannot be a reference without quotes, and a reference in a [ ] or { } that begins in the line.
	quotedOrComment = regexp.MustCompile(`"(\\.|[^"\\])*("|$)|'[^']*('|$)|(^|\s)#.*`)
	flowReference   = regexp.MustCompile(`^[\s-]*([^:\[{]*:\s+)?[\[{].*\$\{`)
)

// parse returns the root of the only document in text, or nil after reporting why there is none.
func (l *loader) parse(text []byte) *yaml.Node {
	if len(text) > maxConfig {
		l.mistakeIn(1, fileKey, "is larger than 1 MiB", "remove what does not belong in a configuration")
		return nil
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	err := d.Decode(&document)
	if errors.Is(err, io.EOF) {
		return &yaml.Node{Kind: yaml.MappingNode, Line: 1}
	}
	if err == nil {
		if err = d.Decode(&second); err == nil {
			l.mistakeIn(second.Content[0].Line, fileKey, "a second YAML document begins here", "keep one document: remove the line --- and what belongs to the other")
			return nil
		}
	}
	if !errors.Is(err, io.EOF) {
		l.syntax(text, err)
		return nil
	}
	root := document.Content[0]
	if isNull(root) {
		return &yaml.Node{Kind: yaml.MappingNode, Line: 1}
	}
	if !l.usable(fileKey, root) {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		l.mistakeIn(root.Line, fileKey, "is "+kind(root)+", expected a mapping", "begin with lines such as public_url: https://app.example.com")
		return nil
	}
	return root
}

// syntax reports an error of the YAML parser.
func (l *loader) syntax(text []byte, err error) {
	problem := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := yamlLine.FindStringSubmatch(problem); m != nil {
		problem = problem[len(m[0]):]
		line, _ = strconv.Atoi(m[1])
	}
	line = max(1, line)
	var around []string // the parser names the line where it gave up, which may be the next one
	if lines := strings.Split(string(text), "\n"); line <= len(lines) {
		around = lines[max(0, line-2):min(line+1, len(lines))]
	}
	hint := "correct this line or the one above: indent evenly with spaces, and put text that holds : # [ ] { } in quotes"
	open := unclosed(text)
	switch {
	case strings.Contains(problem, "anchor"): // the parser's text quotes the name, which may be a secret that begins with *
		problem = "a value that begins with * refers to nothing"
		hint = "put values that begin with * in quotes"
	case open > 0: // the parser names the line where it began with what it did not understand in the end, or gave up
		line, hint = open, "close the quotes that this line opens"
	case slices.ContainsFunc(around, func(s string) bool { return strings.Contains(s, "\t") }):
		hint = "indent with spaces instead of tabs"
	case slices.ContainsFunc(around, func(s string) bool {
		return flowReference.MatchString(quotedOrComment.ReplaceAllString(s, `""`))
	}):
		hint = `inside [ ] and { } put values with references in quotes: "${NAME}"`
	}
	l.mistakeIn(line, fileKey, "is not YAML: "+problem, hint)
}

var (
	closedQuotes = regexp.MustCompile(`"(\\.|[^"\\])*"|'[^']*'`)
	comment      = regexp.MustCompile(`(^|\s)#.*`)
	openedQuotes = regexp.MustCompile(`"|(^|[:,\[{-])\s*'`) // an apostrophe within a word opens none
)

// unclosed is the first line in which quotes are opened and not closed, or 0. Values of several lines are not for us.
func unclosed(text []byte) int {
	for i, line := range strings.Split(string(text), "\n") {
		if openedQuotes.MatchString(comment.ReplaceAllString(closedQuotes.ReplaceAllString(line, "x"), "")) {
			return i + 1
		}
	}
	return 0
}

// path makes a path in the file relative to the file's directory.
func (l *loader) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(l.file), name)
}
