package main

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"authproxy/config"
)

func checkCommand(e *environment, args []string) int {
	f := e.flags("check")
	file := configFlag(f)
	if status, ok := e.parse(f, args, 0); !ok {
		return status
	}
	cfg, ok := e.load(*file)
	if !ok {
		return exitConfig
	}
	a, err := build(cfg, slog.New(slog.DiscardHandler), closedStore)
	if err != nil {
		e.mistakes(err)
		return exitConfig
	}
	for _, w := range a.warnings() {
		fmt.Fprintf(e.stderr, "warning: %s:%d: %s: %s\nhint: %s\n", w.File, w.Line, w.Key, w.Problem, w.Hint)
	}
	a.summary(e.stdout)
	return exitOK
}

// summary says what the configuration comes to, and what to enter at the provider.
func (a *assembly) summary(w io.Writer) {
	cfg := a.cfg
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-18s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(w, "%s is fine.\n\n", cfg.File)
	line("public_url", "%s", publicURL(cfg))
	line("listen", "%s", cfg.Listen)
	if cfg.Admin.Listen.Network != "" {
		line("admin", "%s", cfg.Admin.Listen)
	}
	line("provider", "%s", cfg.Provider.Issuer)
	line("sessions", "%s store%s, idle %s, at most %s", cfg.Session.Store, describeEndings(cfg.Session), span(cfg.Session.IdleTimeout), span(cfg.Session.MaxLifetime))
	for i, r := range cfg.Routes {
		line(fmt.Sprintf("routes[%d]", i), "%s", describeRoute(r))
	}
	if cfg.Upstream != nil {
		line("everything else", "signed-in users, to %s", cfg.Upstream.URL)
	} else {
		line("everything else", "404, there is no upstream")
	}

	base := publicURL(cfg) + cfg.Prefix
	fmt.Fprintf(w, "\nEnter at the provider")
	if cfg.Provider.Domain != "" {
		fmt.Fprintf(w, " (Auth0: Applications > your Regular Web Application > Settings)")
	}
	fmt.Fprintf(w, ":\n\n")
	paste := func(name string, urls ...string) {
		for _, u := range urls {
			fmt.Fprintf(w, "  %-24s %s\n", name, u)
		}
	}
	paste("Allowed Callback URLs", base+"/callback")
	paste("Allowed Logout URLs", base+"/")
	note := ""
	if cfg.PublicURL.Scheme != "https" {
		note = " (Auth0 takes public https addresses only; leave it empty while you develop)"
	}
	paste("Back-Channel Logout URI", base+"/backchannel-logout"+note)
	paste("Application Login URI", base+"/login"+note)
	if cfg.Provider.Domain != "" {
		fmt.Fprint(w, `
In the same application: Credentials > Authentication Method "`+auth0Method(cfg)+`",
Advanced Settings > OAuth > JSON Web Token Signature Algorithm `+cfg.Provider.IDTokenAlg+`.
`)
	}
	fmt.Fprint(w, "\nNext: authproxy serve -config ", cfg.File, "\n")
}

func auth0Method(cfg *config.Config) string {
	switch {
	case cfg.Provider.PrivateKey != nil:
		return "Private Key JWT"
	case cfg.Provider.ClientAuth == "basic":
		return "Client Secret (Basic)"
	}
	return "Client Secret (Post)"
}

// describeEndings says where it is kept which sessions were ended, unless that is where they were.
func describeEndings(s config.Session) string {
	switch {
	case s.Store != "cookie":
		return ""
	case s.Endings == "file":
		return " (endings in " + s.FilePath + ")"
	case s.Endings == "redis":
		return " (endings in Redis)"
	}
	return " (endings in memory)"
}

func describeRoute(r config.Route) string {
	var b strings.Builder
	b.WriteString(r.Host + r.Path)
	if r.Exact {
		b.WriteString(" (exactly)")
	}
	if len(r.Methods) > 0 {
		b.WriteString(" " + strings.Join(r.Methods, " "))
	}
	switch {
	case r.Anyone:
		b.WriteString(": anyone, without signing in")
	case r.SignedIn:
		b.WriteString(": signed-in users")
	default:
		b.WriteString(": signed-in users with ")
		for i, a := range r.Allow {
			if i > 0 {
				b.WriteString(", or ")
			}
			b.WriteString(describeEntry(a))
		}
	}
	if r.Upstream != nil {
		fmt.Fprintf(&b, ", to %s", r.Upstream.URL)
	}
	return b.String()
}

// describeEntry says what an entry of allow asks for: all of its keys, and of each key one value.
func describeEntry(a config.Allow) string {
	var keys []string
	add := func(key string, values []string) {
		if len(values) > 0 {
			keys = append(keys, key+" "+strings.Join(values, " or "))
		}
	}
	add("groups", a.Groups)
	add("emails", a.Emails)
	add("email_domains", a.EmailDomains)
	add("subjects", a.Subjects)
	add("permissions", a.Permissions)
	add("scopes", a.Scopes)
	add("organizations", a.Organizations)
	for _, c := range a.Claims {
		var values []string
		for _, v := range c.Values {
			values = append(values, c.Name+"="+v)
		}
		add("claims", values)
	}
	text := strings.Join(keys, " and ")
	if a.UnverifiedEmail {
		text += " (verified or not)"
	}
	return text
}

// span writes a duration as people do: 24h, 7d.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d > day && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

func keygenCommand(e *environment, args []string) int {
	if status, ok := e.parse(e.flags("keygen"), args, 0); !ok {
		return status
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails (crypto/rand)
	fmt.Fprintln(e.stdout, base64.RawURLEncoding.EncodeToString(key))
	return exitOK
}

// version and commit are set by release builds with -ldflags "-X main.version=v1.2.3 -X main.commit=...".
var version, commit string

func versionCommand(e *environment, args []string) int {
	if status, ok := e.parse(e.flags("version"), args, 0); !ok {
		return status
	}
	name, commit := buildInfo()
	fmt.Fprintf(e.stdout, "authproxy %s, commit %s, %s %s/%s\n", name, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitOK
}

// buildInfo is what is known of how this program was built.
func buildInfo() (name, revision string) {
	name, revision = version, commit
	if info, ok := debug.ReadBuildInfo(); ok {
		name = cmp.Or(name, info.Main.Version)
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = cmp.Or(revision, s.Value)
			}
		}
	}
	return cmp.Or(name, "(devel)"), cmp.Or(revision, "unknown")
}
