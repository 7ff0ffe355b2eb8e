// Package authproxy_test keeps the shape of the tree: which package may import which, and what no package may do.
package authproxy_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"authproxy/config"
	"authproxy/identity"
)

// A unit is a directory with its one job. Of the module's packages it imports those of the units named here and, inside
// itself, its own; what is below a unit and has no line of its own is part of it. Test files import what they need.
type unit struct {
	dir, job string
	imports  string
}

const anything = "*"

var units = []unit{
	{"identity", "what we know about a user; anonymous is a value here", ""},
	{"policy", "who may use a route", "identity"},
	{"oidc", "the relying party", "identity"},
	{"session", "remembering a login", "identity"},
	{"assertion", "the signed statement for upstreams", "identity"},
	{"config", "YAML text to checked plain values, or every mistake at once", ""},
	{"proxy", "the HTTP surface", "oidc session policy assertion identity proxy/pages"},
	{"proxy/pages", "the pages that people see", ""},
	{"devprovider", "an OpenID Provider for development and tests", ""},
	{"upstream", "who is calling, for apps behind us that are written in Go", "assertion"},
	{"demoapp", "the sample upstream of the demo", "assertion proxy/pages"},
	{"convert", "the configuration of oauth2-proxy as one of ours", ""},
	{"frontproxies", "the configuration of proxies that ask us, and what it lets pass", "config proxy"},
	{"cmd", "flags, configuration to constructors, listeners, signals, shutdown", anything},

	{"bench", "how fast it is, with the means to measure it again", anything},
	{"deploy", "how to run it", ""},
	{"docs", "what operators and developers read", ""},
	{"operated", "how it behaves as processes that are reloaded, restarted and killed under load", ""},
	{"e2e", "what a real browser and a provider nobody here wrote see; a module of its own", ""},
	{"examples", "apps behind it", anything},
	{"testdata", "files of this module's tests", ""},
	{"tools", "the programs that check the code, pinned; a module of its own", ""},
}

func TestTheTreeKeepsItsShape(t *testing.T) {
	found, err := violations(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Error(v)
	}
}

// The names of fields are in two packages, because config imports none of ours.
func TestConfigAndIdentityNameTheSameFields(t *testing.T) {
	if c, i := config.Fields(), identity.Fields(); !slices.Equal(c, i) {
		t.Errorf("config.Fields() = %q, want those of identity: %q", c, i)
	}
}

func TestViolationsAreNoticed(t *testing.T) {
	for name, test := range map[string]struct{ file, text, want string }{
		"a sibling": {"policy/x.go", `import "authproxy/oidc"`, "policy/x.go: imports authproxy/oidc, which policy must not"},
		"a sibling, from a package below": {"session/redis/x.go", `import _ "authproxy/proxy"`,
			"session/redis/x.go: imports authproxy/proxy, which session must not"},
		"any of ours in a leaf":       {"identity/x.go", `import "authproxy/policy"`, "identity/x.go: imports authproxy/policy, which identity must not"},
		"a unit by its neighbour":     {"demoapp/x.go", `import "authproxy/proxy"`, "demoapp/x.go: imports authproxy/proxy, which demoapp must not"},
		"helpers of tests":            {"session/x.go", `import "authproxy/session/storetest"`, "session/x.go: imports authproxy/session/storetest, which is for tests"},
		"the program":                 {"cmd/other/x.go", `import "authproxy/cmd/authproxy"`, "cmd/other/x.go: imports authproxy/cmd/authproxy, and nobody imports a program"},
		"the program, from a test":    {"proxy/x_test.go", `import "authproxy/cmd/authproxy"`, "proxy/x_test.go: imports authproxy/cmd/authproxy, and nobody imports a program"},
		"a directory without a job":   {"util/x.go", ``, "util: is not in the list of directories with their jobs"},
		"random numbers that repeat":  {"session/x.go", `import "math/rand/v2"`, "session/x.go: imports math/rand/v2: secrets come from crypto/rand"},
		"the client of everybody":     {"oidc/x.go", "import \"net/http\"\nvar c = http.DefaultClient", "oidc/x.go:4: http.DefaultClient: it never times out and belongs to everybody"},
		"the same, without saying so": {"oidc/x.go", "import \"net/http\"\nfunc f() { http.Get(\"\") }", "oidc/x.go:4: http.Get uses http.DefaultClient"},
		"an unchecked certificate":    {"oidc/x.go", "import \"crypto/tls\"\nvar c = tls.Config{InsecureSkipVerify: true}", "oidc/x.go:4: InsecureSkipVerify is true"},
		"the same, set later":         {"oidc/x.go", "import \"crypto/tls\"\nfunc f(c *tls.Config) { c.InsecureSkipVerify = true }", "oidc/x.go:4: InsecureSkipVerify is true"},
	} {
		t.Run(name, func(t *testing.T) {
			name := path.Base(path.Dir(test.file))
			tree := fstest.MapFS{test.file: {Data: fmt.Appendf(nil, "// Package %s is an example.\npackage %s\n%s\n", name, name, test.text)}}
			found, err := violations(tree)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(found, []string{test.want}) {
				t.Errorf("violations = %q, want %q", found, test.want)
			}
		})
	}
	t.Run("a package without a comment", func(t *testing.T) {
		found, err := violations(fstest.MapFS{
			"oidc/x.go":            {Data: []byte("package oidc\n")},
			"oidc/x_test.go":       {Data: []byte("// Package oidc_test is an example.\npackage oidc_test\n")},
			"cmd/program/x.go":     {Data: []byte("// Package main is an example.\npackage main\n")},
			"examples/x/x_test.go": {Data: []byte("package x_test\n")},
		})
		want := []string{
			"cmd/program: has no package comment that begins with Command program",
			"examples/x: has no package comment that begins with Package x_test",
			"oidc: has no package comment that begins with Package oidc",
		}
		if err != nil || !slices.Equal(found, want) {
			t.Errorf("violations = %q, %v, want %q", found, err, want)
		}
	})
	t.Run("none in other modules and in tests", func(t *testing.T) {
		found, err := violations(fstest.MapFS{
			"e2e/go.mod":       {},
			"e2e/x.go":         {Data: []byte("package e2e\n\nimport \"math/rand\"\n")},
			"policy/x.go":      {Data: []byte("// Package policy is an example.\npackage policy\n")},
			"policy/x_test.go": {Data: []byte("package policy_test\n\nimport (\n\t\"authproxy/oidc\"\n\t\"math/rand\"\n)\n")},
		})
		if err != nil || len(found) > 0 {
			t.Errorf("violations = %q, %v, want none", found, err)
		}
	})
}

// violations says what is wrong with the tree of the module.
func violations(tree fs.FS) (found []string, err error) {
	packages := map[string]*pkg{} // by directory
	err = fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(tree, name, &found)
		}
		dir := path.Dir(name)
		if path.Ext(name) != ".go" || dir == "." {
			return nil
		}
		if _, ok := unitOf(dir); !ok {
			return nil // said of the directory
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if packages[dir] == nil {
			packages[dir] = &pkg{dir: dir}
		}
		packages[dir].add(file, strings.HasSuffix(name, "_test.go"))
		found = append(found, imports(name, file)...)
		if !strings.HasSuffix(name, "_test.go") {
			found = append(found, forbidden(files, file)...)
		}
		return nil
	})
	for _, p := range packages {
		if want := p.comment(); want != "" {
			found = append(found, p.dir+": has no package comment that begins with "+want)
		}
	}
	slices.Sort(found)
	return found, err
}

// A pkg is what the files of a directory say about it.
type pkg struct {
	dir, name            string // the name without _test
	code                 bool   // there is more than tests
	documented, testsAre bool   // by the files of the package, by its tests
}

func (p *pkg) add(file *ast.File, isTest bool) {
	p.name = strings.TrimSuffix(file.Name.Name, "_test")
	comment := file.Doc.Text()
	if isTest {
		p.testsAre = p.testsAre || strings.HasPrefix(comment, "Package "+file.Name.Name+" ")
		return
	}
	p.code = true
	p.documented = p.documented || strings.HasPrefix(comment, p.wanted()+" ")
}

// wanted is how the package comment begins (go.dev/doc/comment).
func (p *pkg) wanted() string {
	if p.name == "main" {
		return "Command " + path.Base(p.dir)
	}
	return "Package " + p.name
}

// comment is how the package comment that is missing would begin, or "". Where there are only tests it is theirs.
func (p *pkg) comment() string {
	switch {
	case p.code && p.documented, !p.code && p.testsAre:
		return ""
	case !p.code:
		return "Package " + p.name + "_test"
	}
	return p.wanted()
}

// enter decides whether a directory is looked into: not when it is hidden, holds test data, or is another module.
func enter(tree fs.FS, name string, found *[]string) error {
	if name == "." {
		return nil
	}
	base := path.Base(name)
	if strings.HasPrefix(base, ".") || base == "node_modules" {
		return fs.SkipDir
	}
	if _, ok := unitOf(name); !ok {
		*found = append(*found, name+": is not in the list of directories with their jobs")
		return fs.SkipDir
	}
	if _, err := fs.Stat(tree, path.Join(name, "go.mod")); err == nil || base == "testdata" {
		return fs.SkipDir
	}
	return nil
}

// unitOf is the unit that a directory belongs to: the closest one above it or itself.
func unitOf(dir string) (unit, bool) {
	for ; dir != "."; dir = path.Dir(dir) {
		for _, u := range units {
			if u.dir == dir {
				return u, true
			}
		}
	}
	return unit{}, false
}

// imports says which imports of a file are not allowed.
func imports(name string, file *ast.File) (found []string) {
	isTest := strings.HasSuffix(name, "_test.go")
	from, _ := unitOf(path.Dir(name))
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
		dir, ours := strings.CutPrefix(imported, "authproxy/")
		to, known := unitOf(dir)
		complain := func(format string, args ...any) {
			found = append(found, name+": imports "+imported+fmt.Sprintf(format, args...))
		}
		switch {
		case ours && strings.HasPrefix(dir, "cmd/"):
			complain(", and nobody imports a program")
		case isTest:
		case imported == "math/rand" || imported == "math/rand/v2":
			complain(": secrets come from crypto/rand")
		case !ours:
		case strings.HasSuffix(dir, "test") && !strings.HasSuffix(path.Dir(name), "test"):
			complain(", which is for tests")
		case from.imports != anything && (!known || to.dir != from.dir && !slices.Contains(strings.Fields(from.imports), to.dir)):
			complain(", which %s must not", from.dir)
		}
	}
	return found
}

// viaDefaultClient are the functions of net/http that use http.DefaultClient.
var viaDefaultClient = []string{"Get", "Head", "Post", "PostForm"}

// forbidden says where a file does what none but a test may.
func forbidden(files *token.FileSet, file *ast.File) (found []string) {
	complain := func(at ast.Node, problem string) {
		p := files.Position(at.Pos())
		found = append(found, fmt.Sprintf("%s:%d: %s", p.Filename, p.Line, problem))
	}
	isTrue := func(e ast.Expr) bool { id, ok := e.(*ast.Ident); return ok && id.Name == "true" }
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); !ok || pkg.Name != "http" {
				break
			}
			if n.Sel.Name == "DefaultClient" {
				complain(n, "http.DefaultClient: it never times out and belongs to everybody")
			}
			if slices.Contains(viaDefaultClient, n.Sel.Name) {
				complain(n, "http."+n.Sel.Name+" uses http.DefaultClient")
			}
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && key.Name == "InsecureSkipVerify" && isTrue(n.Value) {
				complain(n, "InsecureSkipVerify is true")
			}
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				if s, ok := left.(*ast.SelectorExpr); ok && s.Sel.Name == "InsecureSkipVerify" && i < len(n.Rhs) && isTrue(n.Rhs[i]) {
					complain(n, "InsecureSkipVerify is true")
				}
			}
		}
		return true
	})
	return found
}
