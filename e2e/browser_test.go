package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// shared is the one Chromium of most tests. Each test has a browser context of its own in it, which shares no cookies with
// the others.
var shared struct {
	once   sync.Once
	ctx    context.Context
	err    error
	cancel func()
}

func closeBrowser() {
	if shared.cancel != nil {
		shared.cancel()
	}
}

// launch starts a headless Chromium that speaks to this machine only. Its profile is fresh, with these preferences (JSON) if
// there are any.
func launch(preferences []byte) (context.Context, func(), error) {
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, _ = exec.LookPath(name); path != "" {
			break
		}
	}
	if path == "" {
		return nil, nil, errors.New("there is no chromium: install it (Debian: apt-get install chromium), or run test.sh as root, which does")
	}
	profile, err := os.MkdirTemp(filepath.Dir(program), "") // a short name: there will be sockets in it
	if err != nil {
		return nil, nil, err
	}
	temporary := filepath.Join(profile, "tmp")
	if err := errors.Join(os.Mkdir(filepath.Join(profile, "Default"), 0o700), os.Mkdir(temporary, 0o700)); err != nil {
		return nil, nil, err
	}
	if len(preferences) > 0 {
		if err := os.WriteFile(filepath.Join(profile, "Default", "Preferences"), preferences, 0o600); err != nil {
			return nil, nil, err
		}
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(profile), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.DisableGPU,
		chromedp.Flag("no-sandbox", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-breakpad", true), chromedp.Flag("password-store", "basic"), chromedp.Flag("lang", "en"), chromedp.WindowSize(1000, 1400),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"),
		chromedp.Env("HOME="+profile, "XDG_CONFIG_HOME="+profile, "XDG_CACHE_HOME="+profile, "TMPDIR="+temporary),
	}
	allocator, closeAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	stop := func() {
		ended, done := context.WithTimeout(ctx, patience)
		defer done()
		chromedp.Cancel(ended)
		cancel()
		closeAllocator()
	}
	if err := chromedp.Do(ctx); err != nil {
		stop()
		return nil, nil, fmt.Errorf("starting %s: %w", path, err)
	}
	return ctx, stop, nil
}

// A browser is one person's: its tabs share cookies with each other and with nobody else.
type browser struct {
	t       *testing.T
	context context.Context
	options []chromedp.ContextOption // of the first tab
	first   context.Context

	mu       sync.Mutex
	problems []string // what a developer would see in the console
	loads    []load
}

// A load is a document that arrived in a tab, redirects included.
type load struct {
	url    string
	status int64
}

// newBrowser returns a browser with an empty profile. The test fails if a page writes an error to the console, throws, or
// violates its policy (CSP), on whatever page.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	return watched(unwatched(t))
}

// unwatched is a browser whose console says what it likes.
func unwatched(t *testing.T) *browser {
	t.Helper()
	shared.once.Do(func() {
		shared.ctx, shared.cancel, shared.err = launch(nil)
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return &browser{t: t, context: shared.ctx, options: []chromedp.ContextOption{chromedp.WithNewBrowserContext()}}
}

// newBrowserThat is a browser with a Chromium of its own and these preferences.
func newBrowserThat(t *testing.T, preferences map[string]any) *browser {
	t.Helper()
	text, err := json.Marshal(preferences)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop, err := launch(text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return watched(&browser{t: t, context: ctx})
}

func watched(b *browser) *browser {
	b.t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, p := range b.problems {
			b.t.Errorf("the console of the browser says: %s", p)
		}
		if b.t.Failed() {
			for _, l := range b.loads {
				b.t.Logf("%d %s", l.status, l.url)
			}
		}
	})
	return b
}

// listen takes note of what happens in a tab. It must not call into the browser.
func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	problem := func(format string, args ...any) { b.problems = append(b.problems, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if e.Type == network.ResourceTypeDocument && e.RedirectResponse != nil {
			b.loads = append(b.loads, load{e.RedirectResponse.URL, e.RedirectResponse.Status})
		}
	case *network.EventResponseReceived:
		if e.Type == network.ResourceTypeDocument {
			b.loads = append(b.loads, load{e.Response.URL, e.Response.Status})
		}
	case *log.EventEntryAdded:
		// That a document has an error status is for the tests to judge, which know what they asked for.
		statusOfDocument := e.Entry.Source == log.EntrySourceNetwork && slices.ContainsFunc(b.loads, func(l load) bool { return l.url == e.Entry.URL && l.status >= 400 })
		if e.Entry.Level != log.EntryLevelInfo && e.Entry.Level != log.EntryLevelVerbose && !statusOfDocument {
			problem("%s: %s: %s (%s)", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		problem("exception: %s (%s)", e.ExceptionDetails.Text, e.ExceptionDetails.URL)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			problem("console.%s", e.Type)
		}
	case *audits.EventIssueAdded:
		if e.Issue.Code == audits.InspectorIssueCodeContentSecurityPolicyIssue {
			details, _ := json.Marshal(e.Issue.Details.ContentSecurityPolicyIssueDetails)
			problem("content security policy: %s", details)
		}
	}
}

// count is how many documents were loaded whose URL has that part, redirects included.
func (b *browser) count(part string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.loads {
		if strings.Contains(l.url, part) {
			n++
		}
	}
	return n
}

// find is the URL of the last document that was loaded from a URL with that prefix.
func (b *browser) find(prefix string) string {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range slices.Backward(b.loads) {
		if strings.HasPrefix(l.url, prefix) {
			return l.url
		}
	}
	b.t.Fatalf("nothing was loaded from %s", prefix)
	return ""
}

// A tab is a tab of a browser, used as a person uses it: by what stands on the page, with mouse and keyboard.
type tab struct {
	b   *browser
	t   *testing.T
	ctx context.Context
}

// tab opens a new tab.
func (b *browser) tab() *tab {
	b.t.Helper()
	parent, options := b.context, b.options
	if b.first != nil {
		parent, options = b.first, nil
	}
	ctx, cancel := chromedp.NewContext(parent, append(slices.Clone(options), chromedp.WithListener(b.listen))...)
	b.t.Cleanup(cancel)
	// Started without a deadline: the tab would end with it.
	if err := chromedp.Do(ctx); err != nil {
		b.t.Fatalf("opening a tab: %v", err)
	}
	if b.first == nil {
		b.first = ctx
	}
	tb := &tab{b: b, t: b.t, ctx: ctx}
	tb.must("Audits.enable", func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, audits.Enable, cdp.Empty{})
		return err
	})
	return tb
}

// must does something in the tab within the time that tests have.
func (tb *tab) must(what string, do func(context.Context) error) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	if err := do(ctx); err != nil {
		tb.t.Fatalf("%s: %v\n%s", what, err, tb.describe())
	}
}

// do performs actions in the tab.
func (tb *tab) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	tb.must(what, func(ctx context.Context) error { return chromedp.Do(ctx, actions...) })
}

// A state is what a tab shows.
type state struct {
	URL, Title, Heading, Text, Focus string
	Complete                         bool
}

// look is evaluated in the page. Focus is the text or label of what has the focus.
const look = `(() => {
	const text = e => (e ? e.innerText || "" : "").replace(/\s+/g, " ").trim();
	const f = document.activeElement;
	const focus = !f || f === document.body ? "" : f.labels && f.labels.length && f.tagName !== "BUTTON" ? text(f.labels[0]) : text(f);
	return {URL: location.href, Title: document.title, Heading: text(document.querySelector("h1")), Text: text(document.body), Focus: focus,
		Complete: document.readyState === "complete"};
})()`

// state is what the tab shows now; the zero value while it is between two pages.
func (tb *tab) state() state {
	ctx, cancel := context.WithTimeout(tb.ctx, time.Second)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[state](look))
	if err != nil {
		return state{}
	}
	return s
}

func (tb *tab) describe() string {
	s := tb.state()
	return fmt.Sprintf("the tab is at %s, titled %q, and says: %.1500s", s.URL, s.Title, s.Text)
}

// wait waits until the tab shows what ok asks for.
func (tb *tab) wait(what string, ok func(state) bool) state {
	tb.t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		s := tb.state()
		if s.Complete && ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			tb.t.Fatalf("%s has not happened within %v: %s", what, patience, tb.describe())
		}
	}
}

// shows waits until the tab is at a URL that begins with prefix and shows a page with that heading, and returns what it shows.
func (tb *tab) shows(prefix, heading string) state {
	tb.t.Helper()
	return tb.wait(fmt.Sprintf("%q at %s", heading, prefix), func(s state) bool { return strings.HasPrefix(s.URL, prefix) && s.Heading == heading })
}

// open types a URL into the address bar.
func (tb *tab) open(url string) {
	tb.t.Helper()
	tb.do("opening "+url, chromedp.Navigate(url))
}

// back presses the button of the browser.
func (tb *tab) back() { tb.t.Helper(); tb.travel(-1) }

// travel does not wait: a page out of the browser's cache is never loaded.
func (tb *tab) travel(steps int64) {
	tb.t.Helper()
	tb.must("going through the history", func(ctx context.Context) error {
		h, err := chromedp.Call(ctx, cdppage.GetNavigationHistory, cdp.Empty{})
		if err != nil {
			return err
		}
		to := h.CurrentIndex + steps
		if to < 0 || to >= int64(len(h.Entries)) {
			return errors.New("there is nothing in that direction")
		}
		_, err = chromedp.Call(ctx, cdppage.NavigateToHistoryEntry, cdppage.NavigateToHistoryEntryParams{EntryID: h.Entries[to].ID})
		return err
	})
}

// place is evaluated in the page with what it looks for: a link, button or field by its text or label. It scrolls there and
// returns its middle, or an error if a click would hit something else.
const place = `((wanted) => {
	const text = e => (e.labels && e.labels.length && e.tagName !== "BUTTON" ? e.labels[0].innerText : e.innerText || "").replace(/\s+/g, " ").trim();
	const all = [...document.querySelectorAll("a, a *, button, button *, input")].filter(e => text(e) === wanted || e.placeholder === wanted);
	const found = [...new Set(all.map(e => e.closest("a, button, input")))];
	if (found.length !== 1) return {Error: found.length + " of them on the page"};
	found[0].scrollIntoView({block: "center"});
	const r = found[0].getBoundingClientRect(), x = r.left + r.width / 2, y = r.top + r.height / 2, top = document.elementFromPoint(x, y);
	if (!top || !found[0].contains(top)) return {Error: "something else is in front of it"};
	return {X: x, Y: y};
})`

// click clicks on the link, button or field with that text or label.
func (tb *tab) click(label string) {
	tb.t.Helper()
	wanted, err := json.Marshal(label)
	if err != nil {
		tb.t.Fatal(err)
	}
	tb.must(fmt.Sprintf("clicking on %q", label), func(ctx context.Context) error {
		at, err := chromedp.Run(ctx, chromedp.Evaluate[struct {
			Error string
			X, Y  float64
		}](fmt.Sprintf("%s(%s)", place, wanted)))
		if err != nil {
			return err
		}
		if at.Error != "" {
			return errors.New(at.Error)
		}
		return chromedp.Do(ctx, chromedp.MouseClickXY(at.X, at.Y))
	})
}

// fill clicks on a field and types.
func (tb *tab) fill(label, text string) {
	tb.t.Helper()
	tb.click(label)
	tb.press(text)
}

// press types on the keyboard.
func (tb *tab) press(keys string) {
	tb.t.Helper()
	tb.do("typing", chromedp.KeyEvent(keys))
}

// cookies are the names of the tab's cookies at a URL.
func (tb *tab) cookies(url string) []string {
	tb.t.Helper()
	names := map[string]bool{}
	tb.must("Network.getCookies", func(ctx context.Context) error {
		all, err := chromedp.Call(ctx, network.GetCookies, network.GetCookiesParams{URLs: []string{url}})
		for _, c := range all.Cookies {
			names[c.Name] = true
		}
		return err
	})
	return slices.Sorted(maps.Keys(names))
}
