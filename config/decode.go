package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// A loader reads one file and collects what is wrong with it.
type loader struct {
	file   string
	files  []File // that were read
	getenv func(string) (string, bool)

	lines    map[string]int    // where each key stands that was seen
	written  map[string]bool   // the keys of the schema that have a value
	texts    map[string]string // what single values are in the file, with their references
	broken   map[string]bool   // the keys with mistakes, and all above them
	meant    map[string]bool   // the keys that unknown ones were taken for
	secret   bool              // the value being decoded must not be shown
	mistakes Mistakes
	warnings Mistakes
}

// A key is a row of the schema.
type key struct {
	name     string
	decode   decoder
	need     string // the hint for those who left it out; "" when they may
	below    []key  // the keys of its mapping, or of the mappings in its list
	always   bool   // its mapping is read, as an empty one, when it is absent
	many     bool   // it is a list of mappings
	switches bool   // its presence switches something on, so that it must say how
}

// A decoder checks the value n of the key at and puts it where it belongs. n is never null, an alias or tagged.
type decoder func(l *loader, at string, n *yaml.Node)

// A fault is what is wrong with one value. Problem and hint hold nothing of the value, which may be a secret; problem is
// what stands behind the value in "VALUE has no scheme".
type fault struct {
	problem, hint string
	better        string // a better value, shown instead of the hint when the value may be shown; may be ""
}

// A parser turns the text of a value into what the value means.
type parser[T any] func(text string) (T, *fault)

// mistakeIn reports a mistake in a line.
func (l *loader) mistakeIn(line int, at, problem, hint string) {
	for up := at; ; up = parentKey(up) {
		l.broken[up] = true
		if up == "" {
			break
		}
	}
	l.mistakes = append(l.mistakes, Mistake{File: l.file, Line: line, Key: at, Problem: problem, Hint: hint})
}

// mistake reports a mistake where the key stands or, when it is absent, where its parent stands.
func (l *loader) mistake(at, problem, hint string) { l.mistakeIn(l.line(at), at, problem, hint) }

// warn reports something that does not forbid to run.
func (l *loader) warn(at, problem, hint string) {
	l.warnings = append(l.warnings, Mistake{File: l.file, Line: l.line(at), Key: at, Problem: problem, Hint: hint})
}

func (l *loader) line(at string) int { return nearestLine(l.lines, at) }

// nearestLine is the line of the key at or of the nearest one above it that has one, otherwise 1.
func nearestLine(lines map[string]int, at string) int {
	for ; at != ""; at = parentKey(at) {
		if line, ok := lines[at]; ok {
			return line
		}
	}
	return 1
}

// given reports whether the key is in the file.
func (l *loader) given(at string) bool { _, ok := l.lines[at]; return ok }

// sound reports whether the values of these keys and of all below them are without mistakes so far, and none was written
// under another key, so that rules between keys need not repeat what is known.
func (l *loader) sound(keys ...string) bool {
	return !slices.ContainsFunc(keys, func(at string) bool { return l.broken[at] || l.misspelt(at) })
}

// misspelt reports whether the key at, or one above it, is not in the file and was probably meant by an unknown key.
func (l *loader) misspelt(at string) bool {
	for ; at != ""; at = parentKey(at) {
		if l.meant[at] && !l.given(at) {
			return true
		}
	}
	return false
}

// usable refuses what YAML has beyond plain values. Without aliases a small file cannot become a large configuration.
func (l *loader) usable(at string, n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		l.mistakeIn(n.Line, at, "uses a YAML anchor or alias", "write the value itself; put values that begin with & or * in quotes")
	case n.Style&yaml.TaggedStyle != 0:
		l.mistakeIn(n.Line, at, "has a YAML tag", "remove the tag; put values that begin with ! in quotes")
	default:
		return true
	}
	return false
}

// present reports whether n is a usable value where null is none.
func (l *loader) present(at string, n *yaml.Node) bool {
	if isNull(n) {
		l.mistakeIn(n.Line, at, "has no value", "write a value or remove it")
		return false
	}
	return l.usable(at, n)
}

// kind names what n is.
func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case isNull(n):
		return "empty"
	case n.Tag == "!!bool":
		return "true or false"
	}
	return "a single value"
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// entries calls visit for each entry of the mapping n whose key is text and not a duplicate.
func (l *loader) entries(at string, n *yaml.Node, visit func(name, at string, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		l.mistakeIn(n.Line, at, "is "+kind(n)+", expected a mapping", "write KEY: VALUE lines below it, or {KEY: VALUE}")
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.Tag != "!!str" || k.Anchor != "" || k.Style&yaml.TaggedStyle != 0 {
			l.mistakeIn(k.Line, joinKey(at, k.Value), "is not a plain text key", "write a word as the key, in quotes if need be; merge keys, anchors and tags are not used here")
			continue
		}
		below := joinKey(at, k.Value)
		if line := first[k.Value]; line > 0 {
			l.mistakeIn(k.Line, below, fmt.Sprintf("is here for the second time, after line %d", line), "keep one of the two")
			continue
		}
		first[k.Value] = k.Line
		l.lines[below] = k.Line
		if v.Kind == yaml.ScalarNode && v.Value != "" {
			l.lines[below] = v.Line // may begin below its key
		}
		visit(k.Value, below, v)
	}
}

// mapping decodes the mapping n by these keys. Null values count as absent, but for keys that switch something on.
func (l *loader) mapping(at string, n *yaml.Node, keys []key) {
	seen := make([]bool, len(keys))
	l.entries(at, n, func(name, below string, v *yaml.Node) {
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		if i < 0 {
			l.unknown(at, name, keys)
			return
		}
		if isNull(v) && keys[i].switches { // most likely only this line was uncommented
			seen[i] = true
			l.mistakeIn(v.Line, below, "has no value", "write "+name+": {} to switch it on, or remove it")
			return
		}
		if isNull(v) || !l.usable(below, v) {
			seen[i] = !isNull(v)
			return
		}
		seen[i] = true
		l.written[below] = true
		keys[i].decode(l, below, v)
	})
	if n.Kind != yaml.MappingNode {
		return
	}
	for i, k := range keys {
		switch below := joinKey(at, k.name); {
		case seen[i]:
		case k.always:
			l.mapping(below, &yaml.Node{Kind: yaml.MappingNode}, k.below)
		case k.need != "":
			l.mistake(below, "is missing", k.need)
		}
	}
}

// foreign are our keys by the names that they have in programs of this kind.
var foreign = map[string]string{
	"cookie_secret": "session.keys", "session_secret": "session.keys", "issuer_url": "provider.issuer", "oidc_issuer_url": "provider.issuer",
	"redirect_url": "public_url", "callback_url": "public_url", "base_url": "public_url", "email_domains": "routes[].allow[].email_domains",
	"http_address": "listen",
}

// unknown reports a key that the schema does not have below the key at.
func (l *loader) unknown(at, name string, keys []key) {
	var names []string
	for _, k := range keys {
		names = append(names, k.name)
	}
	hint := "keys that may stand here: " + strings.Join(names, ", ")
	if meant := near(name, names); meant != "" {
		hint = "write " + meant
		l.meant[joinKey(at, meant)] = true
	} else if elsewhere := cmp.Or(find(l.schema(defaults()), "", name), foreign[name]); elsewhere != "" {
		hint = "write it as " + elsewhere
		l.meant[elsewhere] = true
	}
	l.mistake(joinKey(at, name), fmt.Sprintf("%q is not a key here", cut(name, 60)), hint)
}

// find returns the path of the first key of that name, "" when there is none.
func find(keys []key, at, name string) string {
	for _, k := range keys {
		path := joinKey(at, k.name)
		if k.name == name {
			return path
		}
		if k.many {
			path += "[]"
		}
		if below := find(k.below, path, name); below != "" {
			return below
		}
	}
	return ""
}

// listable is a value, or several with commas, that can stand in a list as it is.
var listable = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ,._/@-]{0,80}$`)

// each calls visit for each element of the list n that is a value.
func (l *loader) each(at string, n *yaml.Node, visit func(i int, at string, n *yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		hint := "write a list: [ONE, TWO], or lines that begin with -"
		if n.Kind == yaml.ScalarNode && !isNull(n) && !l.secret && listable.MatchString(n.Value) {
			hint = "write [" + n.Value + "]"
		}
		l.mistakeIn(n.Line, at, "is "+kind(n)+", expected a list", hint)
		return
	}
	for i, e := range n.Content {
		below := element(at, i)
		l.lines[below] = e.Line
		if l.present(below, e) {
			visit(i, below, e)
		}
	}
}

// scalar returns the text of the single value n with its references replaced. A value that is $NAME and nothing else is
// refused: it is meant as a reference more often than as these characters.
func (l *loader) scalar(at string, n *yaml.Node) (text string, ok bool) {
	if n.Kind != yaml.ScalarNode {
		l.mistakeIn(n.Line, at, "is "+kind(n)+", expected a single value", "write one value")
		return "", false
	}
	l.note(at, n)
	if l.secret && n.Style == 0 && len(n.LineComment) > 1 && n.LineComment[1] != ' ' && !strings.Contains(n.Value, "$") {
		l.warn(at, "ends before a # that begins a comment", "put the value in quotes if it goes on there, or a space behind the #")
	}
	if name, found := strings.CutPrefix(n.Value, "$"); found && envName.MatchString(name) {
		l.fault(at, n, &fault{problem: "is $NAME, taken literally", hint: "write ${NAME}, or $$NAME for these characters"})
		return "", false
	}
	text, f := l.expand(n.Value)
	if f != nil {
		l.mistakeIn(n.Line, at, f.problem, f.hint)
		return "", false
	}
	if l.secret && text == "" && n.Value != "" {
		f := emptyReference(n.Value)
		l.mistakeIn(n.Line, at, f.problem, f.hint)
		return "", false
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		l.fault(at, n, &fault{problem: "holds a line break, another control character or bytes that are not UTF-8",
			hint: "keep the value in one line of text; of a file only one final line break is removed"})
		return "", false
	}
	return text, true
}

// fault reports what a parser says about n. Of a value with references only the references are shown.
func (l *loader) fault(at string, n *yaml.Node, f *fault) {
	hint := f.hint
	if f.better != "" && !l.secret && !strings.Contains(n.Value, "$") && withoutUserinfo(f.better) == f.better {
		hint = "write " + f.better
	}
	l.mistakeIn(n.Line, at, l.shown(at)+" "+f.problem, hint)
}

// note keeps what shown shows.
func (l *loader) note(at string, n *yaml.Node) {
	if !l.secret {
		l.texts[at] = n.Value
	}
}

// shown is the value of a key as mistakes may show it: quoted as it is in the file, never what a reference stands for.
func (l *loader) shown(at string) string {
	text, ok := l.texts[at]
	if !ok {
		return "the value"
	}
	return fmt.Sprintf("%q", cut(withoutUserinfo(text), 60))
}

// withoutUserinfo hides user name and password of a URL.
func withoutUserinfo(s string) string {
	begin, end := strings.Index(s, "//"), strings.LastIndex(s, "@")
	if begin < 0 || end < begin {
		return s
	}
	return s[:begin+2] + "..." + s[end:]
}

// parsed returns what the single value n means.
func parsed[T any](l *loader, at string, n *yaml.Node, parse parser[T]) (v T, ok bool) {
	text, ok := l.scalar(at, n)
	if !ok {
		return v, false
	}
	v, f := parse(text)
	if f != nil {
		l.fault(at, n, f)
	}
	return v, f == nil
}

// value decodes a single value. A bare true or false is none: it is a slip where text is expected.
func value[T any](to *T, parse parser[T]) decoder {
	return func(l *loader, at string, n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" {
			l.note(at, n)
			l.fault(at, n, &fault{problem: "is true or false, expected text", hint: "put it in quotes if it is meant as text"})
		} else if v, ok := parsed(l, at, n, parse); ok {
			*to = v
		}
	}
}

// valueOrNone decodes a single value of which "" is the absence.
func valueOrNone[T any](to *T, parse parser[T]) decoder {
	return value(to, func(text string) (v T, f *fault) {
		if text == "" {
			return v, nil
		}
		return parse(text)
	})
}

// boolean decodes true or false.
func boolean(to *bool) decoder {
	return func(l *loader, at string, n *yaml.Node) {
		v, ok := parsed(l, at, n, func(text string) (bool, *fault) {
			if text != "true" && text != "false" {
				return false, &fault{problem: "is neither true nor false", hint: "write true or false"}
			}
			return text == "true", nil
		})
		if ok {
			*to = v
		}
	}
}

// list decodes a list of single values, an empty one as nil. A wrong one keeps its place, so that indexes are those of
// the file.
func list[T any](to *[]T, parse parser[T]) decoder {
	return func(l *loader, at string, n *yaml.Node) {
		all := make([]T, len(n.Content))
		l.each(at, n, func(i int, at string, n *yaml.Node) { value(&all[i], parse)(l, at, n) })
		*to = orNil(all)
	}
}

func orNil[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

// someOf decodes a list of at least one single value. An empty list of those who may is not "everybody", and more often a
// slip than meant as "nobody".
func someOf[T any](to *[]T, parse parser[T]) decoder {
	return func(l *loader, at string, n *yaml.Node) {
		if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
			l.mistakeIn(n.Line, at, "is an empty list", "write at least one value, or remove the key")
			return
		}
		list(to, parse)(l, at, n)
	}
}

// secret decodes a value that mistakes must not show.
func secret(decode decoder) decoder {
	return func(l *loader, at string, n *yaml.Node) {
		l.secret = true
		defer func() { l.secret = false }()
		decode(l, at, n)
	}
}

// optional is a key that may be left out.
func optional(name string, decode decoder) key { return key{name: name, decode: decode} }

// required is a key that must be there; need is the hint for those who left it out.
func required(name, need string, decode decoder) key {
	return key{name: name, decode: decode, need: need}
}

// section is a mapping that is there in any case.
func section(name string, keys ...key) key {
	return key{name: name, below: keys, always: true,
		decode: func(l *loader, at string, n *yaml.Node) { l.mapping(at, n, keys) }}
}

// feature is a mapping whose presence switches something on. begin is its value when the mapping is empty.
func feature[T any](name string, to **T, begin T, keys func(*T) []key) key {
	return key{name: name, below: keys(new(T)), switches: true,
		decode: func(l *loader, at string, n *yaml.Node) {
			*to = &begin
			l.mapping(at, n, keys(&begin))
		}}
}

// mappings is a list of mappings.
func mappings[T any](name string, to *[]T, keys func(*T) []key) key {
	return key{name: name, below: keys(new(T)), many: true,
		decode: func(l *loader, at string, n *yaml.Node) {
			all := make([]T, len(n.Content))
			l.each(at, n, func(i int, at string, n *yaml.Node) { l.mapping(at, n, keys(&all[i])) })
			*to = orNil(all)
		}}
}
