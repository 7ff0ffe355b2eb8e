package proxy_test

import (
	"testing"
)

func TestALoginLeadsToTheAppAndItsUpstreamKnowsWho(t *testing.T) {
	w := newWorld(t, setup{})
	b := w.newBrowser(t)
	b.follow("/deep?x=1&y=%2F").wants(t, 200, "GET /deep?x=1&y=%2F")
	h := w.upstream.last(t).Header
	if got := h.Get("X-Forwarded-User"); got != "auth0|65f0a1ada0000000000000a1" {
		t.Errorf("the upstream got X-Forwarded-User %q", got)
	}
	if h.Get("X-Authproxy-Assertion") == "" || h.Get("Cookie") != "" {
		t.Errorf("the upstream got an assertion %q and cookies %q", h.Get("X-Authproxy-Assertion"), h.Get("Cookie"))
	}
}
