// Package convert turns the configuration of oauth2-proxy into ours.
//
// What it prints is never wider than what it read: a restriction that has no equivalent leaves nobody in until somebody has read
// the remark about it, and an exception from the login that cannot be said in paths is left out.
package convert

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"gopkg.in/yaml.v3"
)

// A Result is a configuration of ours, with what to know about it.
type Result struct {
	Config  []byte   // YAML
	Remarks []Remark // by line
}

// A Remark says what has no equivalent, or what must be done before the configuration is used.
type Remark struct {
	Line          int // where the option is; 0 when it is not there
	Option        string
	Problem, Hint string
}

// OAuth2Proxy reads the options of oauth2-proxy (7.x): its file in TOML, or its environment, OAUTH2_PROXY_NAME=VALUE in each line. The
// error says that it is neither. Secrets are not repeated: where they were, there are environment variables.
func OAuth2Proxy(text []byte) (*Result, error) {
	c := &conversion{options: map[string]any{}, lines: map[string]int{}, seen: map[string]bool{}}
	if err := c.read(text); err != nil {
		return nil, err
	}
	config := c.config()
	for _, name := range slices.Sorted(maps.Keys(c.options)) {
		if !c.seen[name] {
			c.remark(name, "is no option of oauth2-proxy that is known here", "see what it did, and whether config.yaml.example has it")
		}
	}
	slices.SortStableFunc(c.remarks, func(a, b Remark) int { return cmp.Compare(a.Line, b.Line) })
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(config.node()); err != nil {
		return nil, err
	}
	return &Result{out.Bytes(), c.remarks}, nil
}

// A conversion is one file on its way.
type conversion struct {
	options map[string]any // as the file has them: text, truth, number or list
	lines   map[string]int
	seen    map[string]bool
	remarks []Remark
}

func (c *conversion) remark(option, problem, hint string) {
	c.remarks = append(c.remarks, Remark{c.lines[option], option, problem, hint})
}

const environment = "OAUTH2_PROXY_"

var (
	setting = regexp.MustCompile(`^\s*(?:export\s+)?` + environment + `([A-Z0-9_]+)=(.*)$`)
	option  = regexp.MustCompile(`^\s*"?([a-z0-9_]+)"?\s*=`)
	alpha   = regexp.MustCompile(`(?m)^(upstreamConfig|injectRequestHeaders|injectResponseHeaders|providers|server|metricsServer):`)
)

func (c *conversion) read(text []byte) error {
	inEnvironment := false
	for i, line := range strings.Split(string(text), "\n") {
		if m := setting.FindStringSubmatch(line); m != nil {
			inEnvironment = true
			name := strings.ToLower(m[1])
			c.options[name], c.lines[name] = strings.Trim(strings.TrimSpace(m[2]), `"'`), i+1
		} else if m := option.FindStringSubmatch(line); m != nil && c.lines[m[1]] == 0 {
			c.lines[m[1]] = i + 1
		}
	}
	switch {
	case inEnvironment:
		return nil
	case alpha.Match(text):
		return fmt.Errorf("this is oauth2-proxy's alpha configuration: convert reads its options, in TOML or as %s variables", environment)
	}
	if err := toml.Unmarshal(text, &c.options); err != nil {
		return fmt.Errorf("this is no file of options in TOML, and has no %s variables: %w", environment, err)
	}
	if len(c.options) == 0 {
		return errors.New("there are no options in it")
	}
	return nil
}

// has says whether an option is set to anything.
func (c *conversion) has(name string) bool {
	c.seen[name] = true
	v, ok := c.options[name]
	return ok && v != "" && v != false
}

// text is the value of an option; "" when it is not there.
func (c *conversion) text(name string) string {
	if !c.has(name) {
		return ""
	}
	if l := c.list(name); len(l) == 1 {
		return l[0]
	}
	return fmt.Sprint(c.options[name])
}

// list is the value of an option that may have several, or one, or several in one text.
func (c *conversion) list(name string) (all []string) {
	if !c.has(name) {
		return nil
	}
	values, ok := c.options[name].([]any)
	if !ok {
		for part := range strings.SplitSeq(fmt.Sprint(c.options[name]), ",") {
			values = append(values, strings.TrimSpace(part))
		}
	}
	for _, v := range values {
		if t := fmt.Sprint(v); t != "" {
			all = append(all, t)
		}
	}
	return all
}

// truth is the value of an option that is true or false.
func (c *conversion) truth(name string, otherwise bool) bool {
	if c.seen[name] = true; c.options[name] == nil {
		return otherwise
	}
	b, err := strconv.ParseBool(fmt.Sprint(c.options[name]))
	return err == nil && b
}

// duration is the value of an option, as we write it.
func (c *conversion) duration(name string) string {
	d, err := time.ParseDuration(c.text(name))
	if err != nil || d <= 0 {
		return ""
	}
	if d%time.Second != 0 {
		return strconv.FormatInt(max(1, d.Milliseconds()), 10) + "ms"
	}
	text := d.String()
	for _, zero := range []string{"0s", "0m"} { // of 1h0m0s
		if strings.HasSuffix(text, "m"+zero) || strings.HasSuffix(text, "h"+zero) {
			text = strings.TrimSuffix(text, zero)
		}
	}
	return text
}

// An object is a mapping that keeps its order.
type object []member

type member struct {
	name  string
	value any // text, truth, list, object, list of objects, or literal
}

// literal is a text in which $ has our meaning.
type literal string

// add appends a member, unless it is empty.
func (o *object) add(name string, value any) {
	switch v := value.(type) {
	case string:
		if v == "" {
			return
		}
	case []string:
		if len(v) == 0 {
			return
		}
	case object:
		if len(v) == 0 {
			return
		}
	case []object:
		if len(v) == 0 {
			return
		}
	}
	*o = append(*o, member{name, value})
}

func (o object) node() *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, m := range o {
		n.Content = append(n.Content, scalar(m.name), nodeOf(m.value))
	}
	return n
}

// compact is a mapping or a list in one line.
func compact(n *yaml.Node) *yaml.Node {
	n.Style = yaml.FlowStyle
	return n
}

func nodeOf(value any) *yaml.Node {
	switch v := value.(type) {
	case literal:
		return scalar(string(v))
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}
	case []string:
		return list(v)
	case []literal:
		return list(v)
	case []object:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for _, o := range v {
			n.Content = append(n.Content, compact(o.node()))
		}
		return n
	case object:
		return v.node()
	}
	return scalar(strings.ReplaceAll(fmt.Sprint(value), "$", "$$"))
}

func list[T any](values []T) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for _, v := range values {
		n.Content = append(n.Content, nodeOf(v))
	}
	return compact(n)
}

func scalar(text string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(text)
	return n
}
