package main

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"authproxy/proxy"
	"authproxy/session"
)

// meters count what happens, for /metrics of the admin listener. They outlive a reload. Label values come from the
// configuration and from small fixed sets: what clients, users and the provider send never becomes one.
//
// The series of a route are looked up once, so that counting a request takes no lock and no memory.
type meters struct {
	registry *prometheus.Registry
	sessions atomic.Pointer[session.Manager] // whose sessions are counted; nil: none yet

	requests           *prometheus.CounterVec
	ours, upstream     *prometheus.HistogramVec
	panics             prometheus.Counter
	started, completed prometheus.Counter // logins
	failed             *prometheus.CounterVec
	refreshes          *prometheus.CounterVec
	logouts            *prometheus.CounterVec
	refetches          *prometheus.CounterVec
	reloads            *prometheus.CounterVec
	lastReload         prometheus.Gauge
	store, providers   operations

	mu     sync.Mutex // held while routes grows
	routes atomic.Pointer[map[string]*routeMetrics]
}

// newMeters returns meters at zero.
func newMeters() *meters {
	m := &meters{registry: prometheus.NewRegistry()}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "authproxy", Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	counter := func(name, help string) prometheus.Counter { return counters(name, help).WithLabelValues() }
	seconds := func(name, help string, buckets []float64, label string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "authproxy", Name: name, Help: help, Buckets: buckets}, []string{label})
		m.registry.MustRegister(h)
		return h
	}
	gauge := func(name, help string, labels prometheus.Labels) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "authproxy", Name: name, Help: help, ConstLabels: labels})
		m.registry.MustRegister(g)
		return g
	}

	m.requests = counters("requests_total", "Requests answered, by route of the configuration, decision and class of the status.", "route", "decision", "status")
	m.ours = seconds("request_duration_seconds", "Time that this proxy took: until the upstream was asked, or until the end where it was not.",
		[]float64{25e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, .1, .5, 2.5, 10}, "route")
	m.upstream = seconds("upstream_duration_seconds", "Time that the upstream took until the header of its answer was there.",
		[]float64{1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}, "route")
	m.panics = counter("panics_total", "Requests that ended in a panic, which is a bug.")

	m.started = counter("logins_started_total", "Browsers sent to the provider.")
	m.completed = counter("logins_completed_total", "Logins that ended in a session.")
	m.failed = counters("logins_failed_total", "Logins that did not start or did not end in a session, by reason.", "reason")
	m.refreshes = counters("refreshes_total", "Tries to renew the tokens of a session, by result.", "result")
	m.logouts = counters("backchannel_logouts_total", "Logouts that the provider asked for, by result.", "result")

	m.store = operations{
		seconds("store_duration_seconds", "Time that the session store took, by operation.", []float64{1e-6, 5e-6, 25e-6, 100e-6, 500e-6, 1e-3, 5e-3, 25e-3, .1, .5, 1}, "operation"),
		counters("store_errors_total", "Times that the session store did not answer, or with an error of its own, by operation.", "operation"), nil,
	}.of("create", "load", "save", "end", "list", "count", "ping")
	m.providers = operations{
		seconds("provider_duration_seconds", "Time that the provider took to answer, by operation.", []float64{5e-3, 10e-3, 25e-3, 50e-3, .1, .25, .5, 1, 2.5, 5}, "operation"),
		counters("provider_errors_total", "Times that the provider did not answer, or with what cannot be an answer, by operation.", "operation"), nil,
	}.of("discovery", "keys", "token", "refresh", "userinfo", "revocation")
	m.refetches = counters("key_refetches_total", "Times that the provider's keys were fetched, by result.", "result")

	m.reloads = counters("reloads_total", "Tries to take over a changed configuration, by result.", "result")
	m.lastReload = gauge("last_reload_successful", "Whether the configuration that was tried last is in use.", nil)
	m.lastReload.Set(1)
	version, commit := buildInfo()
	gauge("build_info", "What this program is; always 1.", prometheus.Labels{"version": version, "commit": commit, "goversion": runtime.Version()}).Set(1)

	for vec, results := range map[*prometheus.CounterVec][]string{ // there from the beginning, so that the first of each is seen as a change
		m.refreshes: {"renewed", "unavailable", "ended", "failed"},
		m.logouts:   {"obeyed", "replayed", "refused", "failed"},
		m.refetches: {resultDone, resultFailed},
		m.reloads:   {resultDone, resultFailed},
	} {
		for _, r := range results {
			vec.WithLabelValues(r)
		}
	}
	m.registry.MustRegister(sessionCounter{m, prometheus.NewDesc("authproxy_sessions_active", "Sessions in the store, where it counts them; up to a minute after their end.", nil, nil)},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.routes.Store(&map[string]*routeMetrics{})
	return m
}

// Results of what only succeeds or fails.
const (
	resultDone   = "done"
	resultFailed = "failed"
)

func result(ok bool) string {
	if ok {
		return resultDone
	}
	return resultFailed
}

// handler answers scrapes. Of several at once, and of those that take long, some get 503: each costs memory.
func (m *meters) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// observers are the hooks that feed m.
func (m *meters) observers() observers {
	return observers{request: m.request, renewal: m.renewal, provider: m.provider, store: m.stored, reload: m.reloaded}
}

// reloaded counts a reload, and remembers whether the new configuration is in use.
func (m *meters) reloaded(ok bool) {
	m.reloads.WithLabelValues(result(ok)).Inc()
	m.lastReload.Set(0)
	if ok {
		m.lastReload.Set(1)
	}
}

// routeMetrics are the series of a route.
type routeMetrics struct {
	ours, upstream prometheus.Observer
	requests       [len(decisions)][len(classes)]atomic.Pointer[prometheus.Counter] // nil until there was one
}

// Of each, the first stands for what is not in the list.
var (
	decisions = [...]string{"other", "allow", "deny", "login", "own"}
	classes   = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}
)

// route finds the series of a route. There are as many as routes in the configuration, and one for no route.
func (m *meters) route(name string) *routeMetrics {
	if r := (*m.routes.Load())[name]; r != nil {
		return r
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := *m.routes.Load()
	if r := known[name]; r != nil {
		return r
	}
	r := &routeMetrics{ours: m.ours.WithLabelValues(routeLabel(name)), upstream: m.upstream.WithLabelValues(routeLabel(name))}
	grown := maps.Clone(known)
	grown[name] = r
	m.routes.Store(&grown)
	return r
}

// routeLabel names what had no route: our own endpoints, and what was refused before there was one.
func routeLabel(name string) string {
	if name == "" {
		return "none"
	}
	return name
}

// request counts a request.
func (m *meters) request(e proxy.Event) {
	r := m.route(e.Route)
	decision, class := 0, 0
	for i, d := range decisions {
		if d == e.Decision {
			decision = i
		}
	}
	if c := e.Status / 100; c > 0 && c < len(classes) {
		class = c
	}
	counter := r.requests[decision][class].Load()
	if counter == nil {
		c := m.requests.WithLabelValues(routeLabel(e.Route), decisions[decision], classes[class])
		counter = &c
		r.requests[decision][class].Store(counter)
	}
	(*counter).Inc()
	r.ours.Observe(e.Ours.Seconds())
	if e.Upstream > 0 {
		r.upstream.Observe(e.Upstream.Seconds())
	}
	if e.Panicked {
		m.panics.Inc()
	}
	switch e.Login {
	case proxy.LoginStarted:
		m.started.Inc()
	case proxy.LoginCompleted:
		m.completed.Inc()
	case proxy.LoginFailed:
		m.failed.WithLabelValues(e.LoginFailure).Inc()
	}
	if e.BackchannelLogout != "" {
		m.logouts.WithLabelValues(e.BackchannelLogout).Inc()
	}
}

func (m *meters) renewal(result string) { m.refreshes.WithLabelValues(result).Inc() }

// provider counts a request to the provider.
func (m *meters) provider(op string, took time.Duration, err error) {
	m.providers.observe(op, took, err != nil && !errors.Is(err, context.Canceled))
	if op == "keys" {
		m.refetches.WithLabelValues(result(err == nil)).Inc()
	}
}

// stored counts a request to the session store.
func (m *meters) stored(op string, took time.Duration, err error) {
	m.store.observe(op, took, err != nil && isStoreFailure(err))
}

// isStoreFailure says whether an error is the store's fault: not that there is no such session, that it was changed meanwhile
// or is too large, or that nobody waits for the answer any more.
func isStoreFailure(err error) bool {
	var large *session.TooLargeError
	return !errors.Is(err, session.ErrNone) && !errors.Is(err, session.ErrConflict) && !errors.Is(err, context.Canceled) && !errors.As(err, &large)
}

// operations are the durations and errors of what somebody else is asked to do.
type operations struct {
	took   *prometheus.HistogramVec
	failed *prometheus.CounterVec
	byName map[string]operation
}

type operation struct {
	took   prometheus.Observer
	failed prometheus.Counter
}

// of returns o for operations of these names; all others are one.
func (o operations) of(names ...string) operations {
	o.byName = map[string]operation{}
	for _, name := range append(names, "other") {
		o.byName[name] = operation{o.took.WithLabelValues(name), o.failed.WithLabelValues(name)}
	}
	return o
}

func (o operations) observe(name string, took time.Duration, failed bool) {
	op, ok := o.byName[name]
	if !ok {
		op = o.byName["other"]
	}
	op.took.Observe(took.Seconds())
	if failed {
		op.failed.Inc()
	}
}

// A sessionCounter asks the store at each scrape how many sessions there are. Where it cannot say there is no sample: no
// number is better than a wrong one.
type sessionCounter struct {
	m    *meters
	desc *prometheus.Desc
}

func (c sessionCounter) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

func (c sessionCounter) Collect(to chan<- prometheus.Metric) {
	sessions := c.m.sessions.Load()
	if sessions == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if n, err := sessions.Count(ctx); err == nil {
		to <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n))
	}
}
