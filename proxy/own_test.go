package proxy_test

import (
	"crypto/ecdsa"
	"slices"
	"testing"
	"time"

	"authproxy/config"
	"authproxy/proxy"
)

// The paths of our endpoints are in two packages, because config imports none of ours.
func TestConfigKnowsOurEndpoints(t *testing.T) {
	for name, conf := range map[string]*config.AppToken{"without app_token": nil, "with app_token": {}, "with the hand-over page": {Handoff: true}} {
		w := newWorld(t, setup{options: func(o *proxy.Options) {
			o.Prefix = ""
			if conf != nil {
				o.AppToken = &proxy.AppToken{TTL: time.Minute, Handoff: conf.Handoff, SigningKeys: []*ecdsa.PrivateKey{worldKey(t)}}
			}
		}})
		if got, want := w.proxy.OwnPaths(), slices.Sorted(slices.Values((&config.Config{AppToken: conf}).OwnPaths())); !slices.Equal(got, want) {
			t.Errorf("%s we serve %q, and config knows %q", name, got, want)
		}
	}
}
