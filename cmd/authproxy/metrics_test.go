package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"authproxy/devprovider"
	"authproxy/proxy"
	"authproxy/session"
)

// startCounted is a world that is counted.
func startCounted(t *testing.T, set settings) *world {
	t.Helper()
	m := newMeters()
	set.watch = m.observers()
	set.prepare = func(s *server) {
		s.meters = m
		m.sessions.Store(s.now().sessions)
	}
	return start(t, set)
}

// A sample is one line of a scrape: "authproxy_x_total" with {"label": "value"}.
type sample struct {
	name   string
	labels map[string]string
	value  string
}

var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	labelPair  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?`)
)

// scrape reads the metrics of w.
func scrape(t *testing.T, w *world) (all []sample) {
	t.Helper()
	w.settle()
	body := w.admin("GET", "/metrics").want(t, http.StatusOK).body
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		parts := sampleLine.FindStringSubmatch(line)
		if parts == nil {
			t.Fatalf("no sample: %q", line)
		}
		s := sample{parts[1], map[string]string{}, parts[3]}
		for _, pair := range labelPair.FindAllStringSubmatch(parts[2], -1) {
			s.labels[pair[1]] = pair[2]
		}
		all = append(all, s)
	}
	return all
}

// value is that of the one sample with this name and these labels, each as name=value.
func value(t *testing.T, all []sample, name string, labels ...string) string {
	t.Helper()
	want := map[string]string{}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		want[k] = v
	}
	for _, s := range all {
		if s.name == name && maps.Equal(s.labels, want) {
			return s.value
		}
	}
	return "none"
}

const counted = `
routes:
  - {path: /open, allow: anyone}
  - {path: /admin, allow: [{groups: [admins]}]}
`

// live makes everything happen that is counted: requests of each decision, logins, a renewal, a logout by the provider.
func live(t *testing.T, w *world) {
	t.Helper()
	w.visitor().get("/open/x", "*/*")
	w.visitor().get("/x", "*/*")
	v := w.signIn("bob")
	v.open("/admin/x")
	w.provider.Set(func(f *devprovider.Faults) { f.Deny = "access_denied" })
	w.visitor().open("/x")
	w.provider.Set(func(f *devprovider.Faults) {
		f.Deny = ""
		f.TokenResponse = func(answer map[string]any) { answer["expires_in"] = 0.5 } // so that the token is to be renewed at once
		f.RefreshResponse = func(answer map[string]any) { answer["expires_in"] = 3600 }
	})
	due := w.signIn("ada")
	w.provider.Set(func(f *devprovider.Faults) { f.TokenResponse = nil })
	deadline := time.Now().Add(10 * time.Second)
	for due.open("/x"); value(t, scrape(t, w), "authproxy_refreshes_total", "result=renewed") != "1"; due.open("/x") {
		if time.Now().After(deadline) {
			t.Fatal("the tokens of a session are not renewed")
		}
	}
	token := w.provider.LogoutToken("client", "bob", "", nil)
	for _, token := range []string{token, token, token + "x"} {
		w.provider.SendLogout("client", token)
	}
}

func TestMetricsCountWhatHappens(t *testing.T) {
	w := startCounted(t, settings{more: counted})
	before := scrape(t, w)
	live(t, w)
	after := scrape(t, w)
	for _, test := range []struct {
		before, after string
		name          string
		labels        []string
	}{
		{"none", "1", "authproxy_requests_total", []string{"route=/open", "decision=allow", "status=2xx"}},
		{"none", "1", "authproxy_requests_total", []string{"route=/admin", "decision=deny", "status=4xx"}},
		{"none", "1", "authproxy_requests_total", []string{"route=default", "decision=login", "status=4xx"}},
		{"none", "3", "authproxy_requests_total", []string{"route=default", "decision=login", "status=3xx"}}, // bob, nobody, ada
		{"none", "2", "authproxy_requests_total", []string{"route=none", "decision=own", "status=3xx"}},      // the callbacks of bob and ada
		{"none", "1", "authproxy_request_duration_seconds_count", []string{"route=/open"}},
		{"none", "1", "authproxy_upstream_duration_seconds_count", []string{"route=/open"}},
		{"none", "0", "authproxy_upstream_duration_seconds_count", []string{"route=/admin"}},
		{"0", "3", "authproxy_logins_started_total", nil},
		{"0", "2", "authproxy_logins_completed_total", nil},
		{"none", "1", "authproxy_logins_failed_total", []string{"reason=login_denied"}},
		{"0", "1", "authproxy_refreshes_total", []string{"result=renewed"}},
		{"0", "0", "authproxy_refreshes_total", []string{"result=failed"}},
		{"0", "1", "authproxy_backchannel_logouts_total", []string{"result=obeyed"}},
		{"0", "1", "authproxy_backchannel_logouts_total", []string{"result=replayed"}},
		{"0", "1", "authproxy_backchannel_logouts_total", []string{"result=refused"}},
		{"0", "1", "authproxy_sessions_active", nil}, // of ada
		{"0", "2", "authproxy_store_duration_seconds_count", []string{"operation=create"}},
		{"0", "0", "authproxy_store_errors_total", []string{"operation=load"}},
		{"0", "2", "authproxy_provider_duration_seconds_count", []string{"operation=token"}},
		{"0", "1", "authproxy_provider_duration_seconds_count", []string{"operation=refresh"}},
		{"0", "0", "authproxy_provider_errors_total", []string{"operation=token"}},
		{"0", "1", "authproxy_key_refetches_total", []string{"result=done"}},
		{"0", "0", "authproxy_reloads_total", []string{"result=done"}},
		{"0", "0", "authproxy_reloads_total", []string{"result=failed"}},
		{"1", "1", "authproxy_last_reload_successful", nil},
		{"0", "0", "authproxy_panics_total", nil},
	} {
		if got := value(t, before, test.name, test.labels...); got != test.before {
			t.Errorf("%s%q is %s before anything happened, want %s", test.name, test.labels, got, test.before)
		}
		if got := value(t, after, test.name, test.labels...); got != test.after {
			t.Errorf("%s%q = %s, want %s", test.name, test.labels, got, test.after)
		}
	}
	info := slices.IndexFunc(after, func(s sample) bool { return s.name == "authproxy_build_info" })
	if info < 0 || after[info].labels["version"] == "" || !strings.HasPrefix(after[info].labels["goversion"], "go1.") {
		t.Errorf("no build info")
	}
}

func TestMetricsKnowNobodyAndNoSecret(t *testing.T) {
	w := startCounted(t, settings{token: "a-token-for-the-admin", more: counted})
	live(t, w)
	v := w.signIn("bob")
	body := w.admin("GET", "/metrics").want(t, http.StatusOK).body // without the token: there is nothing in it to guard
	for _, secret := range append(v.cookies(), ada, bob, "@example.com", "a secret", "a-token-for-the-admin", "127.0.0.1", "Go-http-client") {
		if strings.Contains(body, secret) {
			t.Errorf("the metrics have %q", secret)
		}
	}
	for _, s := range scrape(t, w) {
		if !regexp.MustCompile(`^(authproxy|go|process)_`).MatchString(s.name) {
			t.Errorf("%s is neither ours nor Go's", s.name)
		}
	}
}

// What clients choose never becomes a label: paths, methods, hosts, users, request IDs.
func TestClientsCannotMakeSeries(t *testing.T) {
	w := startCounted(t, settings{more: counted})
	strange := func(i int) {
		req, err := http.NewRequest(fmt.Sprintf("METHOD%d", i), fmt.Sprintf("%s/strange/%d?q=%d", w.url, i, i), nil)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			req.Host = fmt.Sprintf("h%d.example", i)
		}
		resp, err := w.visitor().http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		w.visitor().get(fmt.Sprintf("/auth/callback?state=%d&code=%d&error=e%d", i, i, i), "*/*")
		w.visitor().get(fmt.Sprintf("/auth/nothing/%d", i), "*/*")
		w.admin("GET", fmt.Sprintf("/sessions/none%d", i))
	}
	names := func() (all []string) {
		for _, s := range scrape(t, w) {
			all = append(all, fmt.Sprint(s.name, s.labels))
		}
		return all
	}
	strange(1)
	strange(2)
	before := names()
	for i := range 100 {
		strange(i)
	}
	if after := names(); !slices.Equal(before, after) {
		t.Errorf("%d series became %d", len(before), len(after))
	}
}

func TestAStoreThatCannotCountHasNoNumberOfSessions(t *testing.T) {
	w := startCounted(t, settings{store: "cookie"})
	w.signIn("ada")
	if got := value(t, scrape(t, w), "authproxy_sessions_active"); got != "none" {
		t.Errorf("authproxy_sessions_active = %s with the cookie store", got)
	}
}

func TestTheNumberOfSessionsFollowsTheStore(t *testing.T) {
	w := startCounted(t, settings{})
	want := func(n string) {
		t.Helper()
		if got := value(t, scrape(t, w), "authproxy_sessions_active"); got != n {
			t.Errorf("authproxy_sessions_active = %s, want %s", got, n)
		}
	}
	want("0")
	w.signIn("ada")
	w.signIn("ada")
	w.signIn("bob")
	want("3")
	w.admin("DELETE", "/sessions"+ofSubject(ada)).want(t, http.StatusNoContent)
	want("1")
	w.admin("DELETE", "/sessions?all=true").want(t, http.StatusNoContent)
	want("0")
	w.server.now().sessions.Close()
	want("none")
}

func TestOnlyWhatIsTheirsCountsAsAnErrorOfProviderAndStore(t *testing.T) {
	m := newMeters()
	failure := errors.New("connection refused")
	for _, err := range []error{nil, session.ErrNone, session.ErrConflict, &session.TooLargeError{}, fmt.Errorf("loading: %w", context.Canceled), failure, context.DeadlineExceeded} {
		m.stored("load", time.Millisecond, err)
	}
	m.stored("an operation of a later version", time.Millisecond, failure)
	for _, err := range []error{nil, context.Canceled, failure} {
		m.provider("keys", time.Millisecond, err)
	}
	m.reloaded(false)
	m.reloaded(true)
	m.reloaded(false)
	m.request(proxy.Event{Route: "/x", Decision: "a decision of a later version", Status: 700, Panicked: true})
	w := start(t, settings{prepare: func(s *server) { s.meters = m }})
	all := scrape(t, w)
	for _, test := range []struct {
		want, name string
		labels     []string
	}{
		{"7", "authproxy_store_duration_seconds_count", []string{"operation=load"}},
		{"2", "authproxy_store_errors_total", []string{"operation=load"}},
		{"1", "authproxy_store_errors_total", []string{"operation=other"}},
		{"3", "authproxy_provider_duration_seconds_count", []string{"operation=keys"}},
		{"1", "authproxy_provider_errors_total", []string{"operation=keys"}},
		{"1", "authproxy_key_refetches_total", []string{"result=done"}},
		{"2", "authproxy_reloads_total", []string{"result=failed"}},
		{"1", "authproxy_reloads_total", []string{"result=done"}},
		{"0", "authproxy_last_reload_successful", nil},
		{"1", "authproxy_requests_total", []string{"route=/x", "decision=other", "status=other"}},
		{"1", "authproxy_panics_total", nil},
	} {
		if got := value(t, all, test.name, test.labels...); got != test.want {
			t.Errorf("%s%q = %s, want %s", test.name, test.labels, got, test.want)
		}
	}
}

func TestTheDocumentationNamesEachMetric(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	w := startCounted(t, settings{more: counted})
	live(t, w)
	there := map[string]bool{}
	for _, s := range scrape(t, w) {
		name := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(s.name, "")
		there[name] = true
		if strings.HasPrefix(name, "authproxy_") && !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
	}
	for _, name := range regexp.MustCompile("`(authproxy_[a-z_]+)`").FindAllStringSubmatch(string(text), -1) {
		if !there[name[1]] {
			t.Errorf("docs/metrics.md has %s, which there is not", name[1])
		}
	}
}

var usual = proxy.Event{Route: "/app", Decision: "allow", Status: 200, Ours: 40 * time.Microsecond, Upstream: 3 * time.Millisecond}

func TestCountingARequestTakesNoMemory(t *testing.T) {
	m := newMeters()
	if n := testing.AllocsPerRun(100, func() {
		m.request(usual)
		m.stored("load", time.Microsecond, nil)
	}); n > 0 {
		t.Errorf("%v allocations per request, want none", n)
	}
}

func BenchmarkCountingARequest(b *testing.B) {
	m := newMeters()
	for i := range 20 {
		m.route(fmt.Sprintf("/route/%d", i))
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.request(usual)
			m.stored("load", time.Microsecond, nil)
		}
	})
}

// monitoring is where dashboard and rules are.
const monitoring = "../../deploy/monitoring"

// expressions are those of the dashboard and of the alert rules, by what they are of.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	text, err := os.ReadFile(filepath.Join(monitoring, "grafana-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		UID, Title string
		Panels     []struct {
			ID          int
			Type, Title string
			Description string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatalf("the dashboard: %v", err)
	}
	if dashboard.UID == "" || dashboard.Title == "" || len(dashboard.Panels) == 0 {
		t.Fatal("the dashboard has no uid, title or panels")
	}
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d, %q, lacks a title, a description, a target or a place", p.ID, p.Title)
		}
		for _, target := range p.Targets {
			all["panel "+p.Title+" "+target.RefID] = strings.NewReplacer("$__rate_interval", "5m", "$job", ".*").Replace(target.Expr)
		}
	}
	text, err = os.ReadFile(filepath.Join(monitoring, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr string
				For         string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatalf("the alert rules: %v", err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("rule %q lacks a name, a severity, a summary or a description", r.Alert)
			}
			all["rule "+r.Alert] = r.Expr
		}
	}
	if len(all) < 20 {
		t.Fatalf("%d expressions in dashboard and rules: too few to believe that they were read", len(all))
	}
	return all
}

var (
	promString = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	promRange  = regexp.MustCompile(`\[[0-9]+[smhd]\]`)
	promGroup  = regexp.MustCompile(`\b(by|without)\s*\([^()]*\)`)
	promSelect = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)?\{([^{}]*)\}`)
	promName   = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\b\s*\(?`)
	promMatch  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
)

// metricsIn are the names of the metrics that an expression asks for.
func metricsIn(expr string) (names []string) {
	expr = promString.ReplaceAllString(expr, "")
	expr = promSelect.ReplaceAllString(expr, "$1 ")
	expr = promGroup.ReplaceAllString(expr, " ")
	expr = promRange.ReplaceAllString(expr, "")
	for _, name := range promName.FindAllString(expr, -1) {
		if name = strings.TrimSpace(name); strings.HasSuffix(name, "(") || slices.Contains([]string{"and", "or", "unless", "on", "ignoring", "bool", "offset"}, name) {
			continue // functions and operators
		}
		names = append(names, name)
	}
	return names
}

// An expression about a metric or label that nobody exports is no error to Prometheus and Grafana: it is silent for ever.
func TestDashboardAndRulesAskForWhatThereIs(t *testing.T) {
	w := startCounted(t, settings{more: counted})
	live(t, w)
	labels := map[string]map[string]bool{"up": {}} // by metric; up is Prometheus' own
	for _, s := range scrape(t, w) {
		if labels[s.name] == nil {
			labels[s.name] = map[string]bool{"job": true, "instance": true}
		}
		for l := range s.labels {
			labels[s.name][l] = true
		}
	}
	labels["up"]["job"] = true
	used := map[string]bool{}
	for of, expr := range expressions(t) {
		for open, closed := range map[string]string{"(": ")", "{": "}", "[": "]"} {
			if strings.Count(expr, open) != strings.Count(expr, closed) {
				t.Errorf("%s: %q and %q do not come in pairs: %s", of, open, closed, expr)
			}
		}
		names := metricsIn(expr)
		if len(names) == 0 {
			t.Errorf("%s: no metric in %s", of, expr)
		}
		for _, name := range names {
			used[name] = true
			if labels[name] == nil {
				t.Errorf("%s: there is no metric %s", of, name)
			}
		}
		for _, selector := range promSelect.FindAllStringSubmatch(expr, -1) {
			for _, match := range promMatch.FindAllStringSubmatch(selector[2], -1) {
				if !labels[selector[1]][match[1]] {
					t.Errorf("%s: %s has no label %s", of, selector[1], match[1])
				}
			}
		}
		for _, group := range promGroup.FindAllString(expr, -1) {
			_, list, _ := strings.Cut(strings.TrimSuffix(group, ")"), "(")
			for label := range strings.SplitSeq(list, ",") {
				label = strings.TrimSpace(label)
				if !slices.ContainsFunc(names, func(name string) bool { return labels[name][label] }) {
					t.Errorf("%s: no metric in it has the label %s", of, label)
				}
			}
		}
	}
	if !used["up"] || !used["authproxy_requests_total"] || used["sum"] || used["by"] {
		t.Errorf("metrics were not found in the expressions: %v", slices.Sorted(maps.Keys(used)))
	}
	for name := range labels {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "authproxy_") && !used[name] && !used[base+"_bucket"] && !used[base+"_count"] {
			t.Errorf("nobody looks at %s", name)
		}
	}
}

// Values of labels that an expression compares with must be ones that occur.
func TestDashboardAndRulesCompareWithValuesThatOccur(t *testing.T) {
	occur := map[string][]string{
		"status": classes[1:], "route": {"none"}, "result": {"done", "failed", "renewed", "unavailable", "ended", "obeyed", "replayed", "refused"},
		"reason": {"too_many_logins"}, "job": {"authproxy", ".*"},
	}
	for of, expr := range expressions(t) {
		for _, match := range promMatch.FindAllStringSubmatch(expr, -1) {
			values := []string{match[3]}
			if strings.HasSuffix(match[2], "~") {
				values = strings.Split(match[3], "|")
			}
			for _, v := range values {
				if !slices.Contains(occur[match[1]], v) {
					t.Errorf("%s: %s is never %q", of, match[1], v)
				}
			}
		}
	}
}

// promtool, where it is installed, reads every expression as Prometheus does.
func TestPrometheusUnderstandsDashboardAndRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian: prometheus)")
	}
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	type group struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	}
	all := expressions(t)
	var rules []rule
	for i, of := range slices.Sorted(maps.Keys(all)) {
		rules = append(rules, rule{fmt.Sprintf("test:%d", i), all[of]})
	}
	text, err := yaml.Marshal(map[string][]group{"groups": {{"test", rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{file, filepath.Join(monitoring, "alerts.yaml")} {
		if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil {
			t.Errorf("promtool: %v\n%s", err, out)
		}
	}
	w := startCounted(t, settings{more: counted})
	live(t, w)
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = strings.NewReader(w.admin("GET", "/metrics").body)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
