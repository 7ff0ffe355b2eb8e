package config

import (
	"fmt"
	"regexp"
	"strings"
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces the references in s: ${NAME} by a variable of the environment, ${file:PATH} by a file's content without
// its final line break, $$ by $. Any other $ stays. What a reference stands for is not expanded again, and is never part
// of the fault, whose problem is a whole sentence.
func (l *loader) expand(s string) (string, *fault) {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, "$")
		out.WriteString(before)
		switch {
		case !found:
			return out.String(), nil
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			s = after[1:]
		case strings.HasPrefix(after, "{"):
			name, rest, closed := strings.Cut(after[1:], "}")
			if !closed {
				return "", &fault{problem: "a reference begins with ${ and does not end", hint: "add the closing }, or write $${ for the characters ${ themselves"}
			}
			text, f := l.lookUp(name)
			if f != nil {
				return "", f
			}
			out.WriteString(text)
			s = rest
		default:
			out.WriteByte('$')
			s = after
		}
	}
}

// lookUp returns what the reference ${name} stands for.
func (l *loader) lookUp(name string) (string, *fault) {
	shown := cut(name, 200)
	path, isFile := strings.CutPrefix(name, "file:")
	switch {
	case strings.Contains(name, "${"):
		return "", &fault{problem: fmt.Sprintf("the reference ${%s} holds another one", shown), hint: "references cannot be nested: write the name or path itself"}
	case isFile && path == "":
		return "", &fault{problem: "the reference ${file:} names no file", hint: "write ${file:/path/to/file}"}
	case isFile:
		text, err := l.read(path)
		if err != nil {
			return "", &fault{problem: fmt.Sprintf("the file %q cannot be read: %v", cut(path, 200), err), hint: "check the path and that this user may read the file"}
		}
		return chomp(string(text)), nil
	case !envName.MatchString(name):
		return "", &fault{problem: fmt.Sprintf("${%s} is not a reference", shown), hint: "write ${NAME} with letters, digits and _, or ${file:/path}; for the characters ${ themselves write $${"}
	}
	text, set := l.getenv(name)
	if !set {
		return "", &fault{problem: fmt.Sprintf("the environment variable %s is not set", shown), hint: fmt.Sprintf("set %s in the environment of authproxy, or write ${file:/path} to read a file", shown)}
	}
	return text, nil
}

// emptyReference is the fault of a secret in which there is nothing but references to nothing. The problem is a whole
// sentence.
func emptyReference(value string) *fault {
	name := strings.TrimSuffix(strings.TrimPrefix(value, "${"), "}")
	path, isFile := strings.CutPrefix(name, "file:")
	switch {
	case strings.Contains(name, "${"):
		return &fault{problem: "what the references stand for is empty", hint: "put the secret there"}
	case isFile:
		return &fault{problem: fmt.Sprintf("the file %q is empty", cut(path, 200)), hint: "write the secret into it"}
	}
	return &fault{problem: fmt.Sprintf("the environment variable %s is empty", cut(name, 200)), hint: "set it"}
}

// chomp removes one line break from the end.
func chomp(s string) string {
	s, found := strings.CutSuffix(s, "\n")
	if found {
		s = strings.TrimSuffix(s, "\r")
	}
	return s
}
