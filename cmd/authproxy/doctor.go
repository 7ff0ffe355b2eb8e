package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"authproxy/config"
	"authproxy/oidc"
	"authproxy/proxy"
	"authproxy/session"
)

// doctorCommand makes the checks that need the network. It changes nothing and signs nobody in.
func doctorCommand(e *environment, args []string) int {
	f := e.flags("doctor")
	file := configFlag(f)
	if status, ok := e.parse(f, args, 0); !ok {
		return status
	}
	cfg, ok := e.load(*file)
	if !ok {
		return exitConfig
	}
	d := &doctor{w: e.stdout, cfg: cfg}
	a, err := build(cfg, slog.New(&d.heard), closedStore)
	if err != nil {
		e.mistakes(err)
		return exitConfig
	}
	ctx, cancel := context.WithTimeout(e.ctx, time.Minute)
	defer cancel()
	d.provider(a.provider.Diagnose(ctx))
	d.store(ctx)
	d.upstreams(ctx)
	if d.failed {
		return exitError
	}
	return exitOK
}

// A doctor prints one line for each thing that it looked at: ok, warn or fail, with a hint below what is not ok.
type doctor struct {
	w      io.Writer
	cfg    *config.Config
	failed bool
	heard  remarks
}

const (
	fine   = "ok"
	warn   = "warn"
	failed = "fail"
)

func (d *doctor) say(level, about, text, hint string) {
	d.failed = d.failed || level == failed
	fmt.Fprintf(d.w, "%-4s  %-9s  %s\n", level, about, printable(text)) // some of it others have said
	if hint != "" && level != fine {
		fmt.Fprintf(d.w, "%17shint: %s\n", "", hint)
	}
}

// repeat says what was logged since the last time.
func (d *doctor) repeat(about string) {
	for _, r := range d.heard.take() {
		d.say(warn, about, r.text, r.hint)
	}
}

// explained is an error with the hint that it may have.
func explained(err error) (text, hint string) {
	if m, ok := errors.AsType[*oidc.Misconfigured](err); ok {
		return m.Detail, m.Hint
	}
	text, hint, _ = strings.Cut(err.Error(), "; hint: ")
	return text, hint
}

// provider says what was found out about the provider.
func (d *doctor) provider(p oidc.Diagnosis) {
	if p.Discovery != nil {
		d.heard.take() // the same once more
		text, hint := explained(p.Discovery)
		d.say(failed, "provider", text, cmp.Or(hint, "check provider.domain or provider.issuer, and that this machine reaches it (DNS, firewall, HTTPS_PROXY)"))
		d.say(warn, "keys", "not checked, and neither are clock, client and callback: the provider must answer first", "")
		return
	}
	d.say(fine, "provider", d.cfg.Provider.Issuer+" answers and is the issuer", "")
	d.repeat("provider")

	alg := d.cfg.Provider.IDTokenAlg
	switch {
	case p.KeysErr != nil:
		text, hint := explained(p.KeysErr)
		d.say(failed, "keys", text, cmp.Or(hint, "nobody can sign in until the provider publishes its keys: look at the jwks_uri of its discovery document"))
	case p.Keys == 0:
		d.say(failed, "keys", "the provider publishes none for "+alg, "set provider.id_token_alg to what the provider signs with, or let it sign with "+alg)
	default:
		d.say(fine, "keys", fmt.Sprintf("%s for %s", count(p.Keys, "key"), alg), "")
	}

	leeway := d.cfg.Provider.Leeway
	off, text := p.Ahead.Abs().Round(time.Second), "the provider's clock is ahead of this machine's by "
	if p.Ahead < 0 {
		text = "the provider's clock is behind this machine's by "
	}
	hint := "let NTP set the clock of this machine, or raise provider.leeway"
	switch {
	case !p.HasClock:
		d.say(warn, "clock", "not known: the provider's answers have no Date", "")
	case off > leeway:
		d.say(failed, "clock", text+off.String()+", more than provider.leeway, "+leeway.String()+": its tokens are refused", hint)
	case off > leeway/2 && off > time.Second:
		d.say(warn, "clock", text+off.String()+", and provider.leeway is "+leeway.String(), hint)
	default:
		d.say(fine, "clock", "the provider's clock is that of this machine, to "+max(off, time.Second).String(), "")
	}

	d.outcome("client", "the provider takes the client's credentials", p.Client)
	d.outcome("callback", "the provider sends users back to "+publicURL(d.cfg)+d.cfg.Prefix+"/callback", p.Callback)
}

// outcome says how a question to the provider was answered: wrongly configured is a failure, unclear is none.
func (d *doctor) outcome(about, well string, err error) {
	var (
		wrong *oidc.Misconfigured
		down  *oidc.Unavailable
	)
	switch {
	case err == nil:
		d.say(fine, about, well, "")
	case errors.As(err, &wrong), errors.As(err, &down):
		text, hint := explained(err)
		d.say(failed, about, text, hint)
	default:
		text, hint := explained(err)
		d.say(warn, about, "cannot be told: "+text, cmp.Or(hint, "sign in once to be sure"))
	}
}

// store says whether sessions can be kept.
func (d *doctor) store(ctx context.Context) {
	s := d.cfg.Session
	switch cmp.Or(s.Endings, s.Store) {
	case "file":
		if _, err := os.Stat(s.FilePath); errors.Is(err, fs.ErrNotExist) {
			// It is not made here: this may be another user than authproxy's.
			if st, err := os.Stat(filepath.Dir(s.FilePath)); err != nil || !st.IsDir() {
				d.say(failed, "sessions", fmt.Sprintf("%q cannot be made: its directory is not there", s.FilePath), "make the directory, for the user that authproxy runs as alone")
				return
			}
			d.say(fine, "sessions", s.FilePath+" will be made at the start", "")
			return
		}
	case "redis":
	default:
		d.say(fine, "sessions", "in cookies: there is nothing to reach", "")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	store, err := openAndPing(ctx, d.cfg, slog.New(&d.heard))
	mistakes, known := errors.AsType[config.Mistakes](err)
	switch {
	case errors.Is(err, session.ErrFileInUse):
		d.say(fine, "sessions", s.FilePath+" is in use by another process: authproxy, if it runs", "")
	case known:
		d.say(failed, "sessions", mistakes[0].Problem, mistakes[0].Hint)
	case err != nil:
		d.heard.take() // the same once more
		d.say(failed, "sessions", strings.TrimPrefix(err.Error(), "session store: "), "see that Redis runs, and that session.redis.url is where it is and has its password")
	default:
		d.say(fine, "sessions", store+" answers", "")
		d.repeat("sessions")
	}
}

// openAndPing opens the configured store, asks whether it answers, and closes it again. It says which it is.
func openAndPing(ctx context.Context, cfg *config.Config, log *slog.Logger) (which string, err error) {
	sealer, err := session.NewSealer(cfg.Session.Keys)
	if err != nil {
		return "", err
	}
	store, err := openConfiguredStore(cfg, log, sealer, session.Cookie{Name: cfg.Session.Cookie.Name})
	if err != nil {
		return "", err
	}
	defer store.Close()
	if which = "Redis"; cmp.Or(cfg.Session.Endings, cfg.Session.Store) == "file" {
		which = cfg.Session.FilePath
	}
	return which, store.Ping(ctx)
}

// upstreams looks at each app, as authproxy reaches it.
func (d *doctor) upstreams(ctx context.Context) {
	seen := map[string]bool{}
	look := func(u *config.Upstream, path string) {
		if u == nil || seen[u.URL.String()] {
			return
		}
		seen[u.URL.String()] = true
		d.upstream(ctx, u, path)
	}
	look(d.cfg.Upstream, "/")
	for _, r := range d.cfg.Routes {
		if r.StripPrefix {
			r.Path = "/"
		}
		look(r.Upstream, r.Path)
	}
}

func (d *doctor) upstream(ctx context.Context, u *config.Upstream, path string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	to := u.URL.String()
	nobody, err := d.probe(ctx, u, path, nil)
	if err != nil {
		d.say(failed, "upstream", to+" does not answer: "+err.Error(), "start the app, or write where it is")
		return
	}
	d.say(fine, "upstream", fmt.Sprintf("%s answers (GET %s: %d)", to, path, nobody.status), "")
	exposed := d.exposed(ctx, u)
	mark := "doctor-" + strings.ToLower(rand.Text())
	forged := http.Header{}
	for _, name := range identityHeaders(d.cfg) {
		forged.Set(name, mark)
	}
	somebody, err := d.probe(ctx, u, path, forged)
	believes := err == nil && (strings.Contains(somebody.text, mark) || somebody.status/100 == 2 && nobody.status/100 != 2)
	const verify = "let only authproxy reach it, or have the app verify the assertion (docs/apps.md)"
	switch {
	case believes && exposed != "":
		d.say(failed, "forgery", to+" believes identity headers without the assertion, and is "+exposed+": who goes around authproxy can be anybody", verify)
	case believes:
		d.say(warn, "forgery", to+" believes identity headers without the assertion", "only this machine reaches it, so that is as safe as what else runs here; an app that verifies the assertion needs no such trust (docs/apps.md)")
	case exposed != "":
		d.say(warn, "forgery", to+" is "+exposed+": who gets there has gone around authproxy. The app did not visibly believe forged identity headers", verify)
	default:
		d.say(fine, "forgery", to+" is reached from this machine only, and did not visibly believe forged identity headers", "")
	}
}

// identityHeaders are those by which apps know users: ours, and those of other products that an app may still listen to.
func identityHeaders(cfg *config.Config) (names []string) {
	for _, h := range cfg.Identity.Headers {
		names = append(names, h.Name)
	}
	return append(names, "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "Remote-User", "X-Remote-User", "X-Auth-Request-User", "X-Auth-Request-Email")
}

// exposed says at which addresses others than this machine may reach the app; "" when they cannot.
func (d *doctor) exposed(ctx context.Context, u *config.Upstream) string {
	if u.URL.Scheme == "unix" {
		return ""
	}
	host, port := u.URL.Hostname(), cmp.Or(u.URL.Port(), map[string]string{"https": "443"}[u.URL.Scheme], "80")
	found, err := new(net.Resolver).LookupNetIP(ctx, "ip", host)
	if err != nil {
		return ""
	}
	for _, ip := range found {
		if !ip.Unmap().IsLoopback() {
			return "reached at " + net.JoinHostPort(ip.Unmap().String(), port)
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || n.IP.IsLoopback() || n.IP.IsLinkLocalUnicast() {
			continue
		}
		at := net.JoinHostPort(n.IP.String(), port)
		if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", at); err == nil {
			c.Close()
			return "reached at " + at + " as well"
		}
	}
	return ""
}

// An impression is what an app answered.
type impression struct {
	status int
	text   string
}

// probe asks the app as nobody, with these headers.
func (d *doctor) probe(ctx context.Context, u *config.Upstream, path string, h http.Header) (impression, error) {
	up := proxy.Upstream(*u)
	resp, err := up.Probe(ctx, d.cfg.PublicURL.Host, path, h)
	if err != nil {
		return impression{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return impression{resp.StatusCode, string(body)}, err
}

// count is n things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// remarks are the warnings that were logged since the last take, for a logger without attributes of its own.
type remarks struct {
	mu  sync.Mutex
	all []remark
}

type remark struct{ text, hint string }

func (r *remarks) take() []remark {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

// Enabled implements [slog.Handler].
func (r *remarks) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements [slog.Handler].
func (r *remarks) Handle(_ context.Context, record slog.Record) error {
	one := remark{text: record.Message}
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == "hint" {
			one.hint = a.Value.String()
		} else {
			one.text += fmt.Sprintf(", %s: %s", a.Key, a.Value)
		}
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, one)
	return nil
}

// WithAttrs implements [slog.Handler].
func (r *remarks) WithAttrs([]slog.Attr) slog.Handler { return r }

// WithGroup implements [slog.Handler].
func (r *remarks) WithGroup(string) slog.Handler { return r }
