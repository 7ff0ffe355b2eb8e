// Package pagestest reads the proxy's pages in tests, and checks what every one of them promises.
//
// Pages are written so that they are well-formed XML too. Reading them as such is stricter than any browser: markup that
// came in with a value cannot hide in something that a browser would repair.
package pagestest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// A Node is an element, or with an empty Name the text between elements.
type Node struct {
	Name     string
	Attrs    map[string]string
	Children []*Node

	text string
	keys []string // of Attrs, in order
}

// Parse reads a page; the result is its html element.
func Parse(page string) (*Node, error) {
	d := xml.NewDecoder(strings.NewReader(strings.ToValidUTF8(page, "\ufffd"))) // as browsers read invalid bytes
	top := new(Node)
	open := []*Node{top}
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		in := open[len(open)-1]
		switch token := token.(type) {
		case xml.StartElement:
			n := &Node{Name: token.Name.Local, Attrs: map[string]string{}}
			for _, a := range token.Attr {
				n.Attrs[a.Name.Local] = a.Value
				n.keys = append(n.keys, a.Name.Local)
			}
			in.Children = append(in.Children, n)
			open = append(open, n)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			in.Children = append(in.Children, &Node{text: string(token)})
		case xml.Comment, xml.ProcInst:
			return nil, errors.New("a comment or processing instruction, want elements and text only")
		}
	}
	if all := top.All(""); len(all) != 1 || all[0].Name != "html" {
		return nil, errors.New("want one html element")
	}
	return top.All("")[0], nil
}

// All returns the elements of that name below n in the order of the page, with "" the children of n that are elements.
func (n *Node) All(name string) (all []*Node) {
	for _, c := range n.Children {
		if c.Name == "" {
			continue
		}
		if name == "" || c.Name == name {
			all = append(all, c)
		}
		if name != "" {
			all = append(all, c.All(name)...)
		}
	}
	return all
}

// Each calls f for n and every element below it.
func (n *Node) Each(f func(*Node)) {
	f(n)
	for _, c := range n.All("") {
		c.Each(f)
	}
}

// Text is what a reader sees of n, with white space made single blanks.
func (n *Node) Text() string {
	var b strings.Builder
	var walk func(*Node)
	walk = func(n *Node) {
		b.WriteString(n.text)
		for _, c := range n.Children {
			walk(c)
		}
	}
	walk(n)
	return strings.Join(strings.Fields(b.String()), " ")
}

// Skeleton is the elements and the names of their attributes without any text or value. Pages that differ in what users
// and providers said must have the same.
func (n *Node) Skeleton() string {
	var b strings.Builder
	var walk func(*Node)
	walk = func(n *Node) {
		b.WriteString("<" + strings.Join(append([]string{n.Name}, n.keys...), " ") + ">")
		for _, c := range n.All("") {
			walk(c)
		}
		b.WriteString("</>")
	}
	walk(n)
	return b.String()
}

// Check fails the test unless the answer is a page as every page of the proxy should be: with all headers, one style element
// and at most one script that the policy names by their hashes, nothing else that a policy would have to forbid, and what screen readers need.
func Check(t testing.TB, header http.Header, body string) *Node {
	t.Helper()
	page, err := Parse(body)
	if err != nil {
		t.Fatalf("the page is not well-formed: %v\n%s", err, body)
	}
	checkHeader(t, header, page)
	checkMarkup(t, page)
	checkReading(t, page)
	return page
}

func checkHeader(t testing.TB, header http.Header, page *Node) {
	t.Helper()
	styles := page.All("style")
	if len(styles) != 1 {
		t.Fatalf("%d style elements, want 1", len(styles))
	}
	hash := func(n *Node) string {
		sum := sha256.Sum256([]byte(n.Children[0].text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	script := ""
	switch scripts := page.All("script"); {
	case len(scripts) > 1:
		t.Fatalf("%d script elements, want at most 1", len(scripts))
	case len(scripts) == 1:
		script = "script-src " + hash(scripts[0]) + "; "
	}
	for name, want := range map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Cache-Control":           "no-store",
		"Referrer-Policy":         "no-referrer",
		"X-Content-Type-Options":  "nosniff",
		"Content-Security-Policy": "default-src 'none'; " + script + "style-src " + hash(styles[0]) + "; img-src data:; base-uri 'none'; frame-ancestors 'none'",
	} {
		if got := header.Values(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

// elements are those that pages use. A new one is a decision: it must do nothing that the policy would have to allow.
var elements = strings.Fields(`html head meta title link style body header main nav section figure figcaption
	svg rect path circle h1 h2 p span strong a br code pre blockquote time ul li dl div dt dd details summary
	table thead tbody tr th td form input button script`)

func checkMarkup(t testing.TB, page *Node) {
	t.Helper()
	page.Each(func(n *Node) {
		if !slices.Contains(elements, n.Name) {
			t.Errorf("a %s element", n.Name)
		}
		if to, ok := strings.CutPrefix(n.Attrs["content"], "0; url="); n.Attrs["http-equiv"] != "" &&
			(n.Attrs["http-equiv"] != "refresh" || !ok || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.HasPrefix(to, `/\`)) {
			t.Errorf("a meta element %v", n.Attrs)
		}
		for name, value := range n.Attrs {
			if strings.HasPrefix(name, "on") || name == "style" || name == "src" || name == "srcset" || name == "target" {
				t.Errorf("a %s with the attribute %s", n.Name, name)
			}
			if name == "href" && n.Name == "link" {
				if !strings.HasPrefix(value, "data:image/svg+xml,") {
					t.Errorf("a link element to %q", value)
				}
			} else if name == "href" || name == "action" {
				scheme, _, found := strings.Cut(value, ":")
				if found && !strings.ContainsAny(scheme, "/?#") && scheme != "http" && scheme != "https" && scheme != "mailto" {
					t.Errorf("%s = %q", name, value)
				}
			}
		}
	})
}

func checkReading(t testing.TB, page *Node) {
	t.Helper()
	for name, want := range map[string]int{"h1": 1, "main": 1, "header": 1, "title": 1} {
		all := page.All(name)
		if len(all) != want {
			t.Errorf("%d %s elements, want %d", len(all), name, want)
		}
		if (name == "h1" || name == "title") && len(all) == 1 && all[0].Text() == "" {
			t.Errorf("the %s is empty", name)
		}
	}
	if page.Attrs["lang"] != "en" {
		t.Errorf("lang = %q, want en", page.Attrs["lang"])
	}
	ids := map[string]bool{}
	page.Each(func(n *Node) {
		if id, ok := n.Attrs["id"]; ok {
			if ids[id] {
				t.Errorf("the id %q comes twice", id)
			}
			ids[id] = true
		}
	})
	labels := map[string]bool{}
	for _, l := range page.All("label") {
		labels[l.Attrs["for"]] = l.Text() != ""
	}
	page.Each(func(n *Node) {
		for _, ref := range []string{"aria-labelledby", "aria-describedby"} {
			if id, ok := n.Attrs[ref]; ok && !ids[id] {
				t.Errorf("%s = %q names no element", ref, id)
			}
		}
		switch n.Name {
		case "a", "button", "summary":
			if n.Text() == "" {
				t.Errorf("a %s without text: %v", n.Name, n.Attrs)
			}
		case "input":
			if n.Attrs["type"] != "hidden" && n.Attrs["aria-label"] == "" && !labels[n.Attrs["id"]] {
				t.Errorf("an input without label: %v", n.Attrs)
			}
		case "section", "nav":
			if n.Attrs["aria-labelledby"] == "" && n.Attrs["aria-label"] == "" {
				t.Errorf("a %s without a name", n.Name)
			}
		case "form":
			if n.Attrs["method"] != "post" || n.Attrs["action"] == "" || len(n.All("button")) != 1 {
				t.Errorf("a form with method %q, action %q and %d buttons", n.Attrs["method"], n.Attrs["action"], len(n.All("button")))
			}
		}
	})
}
