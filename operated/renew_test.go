package operated_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"authproxy/devprovider"
)

// renewing are settings of a world whose sessions have refresh tokens. The provider rotates them, and ends the whole login
// when one is used twice (Auth0: reuse detection without a leeway).
func renewing(url string) settings {
	return settings{
		provider: fmt.Sprintf("audience: %q, scopes: [openid, profile, offline_access]", audience),
		session:  fmt.Sprintf("store: redis, redis: {url: %q}", url),
		more:     "identity: {access_token: true}",
	}
}

// Issue 3: two replicas, a hundred requests at the moment of expiry, of which some are given up while the provider is asked:
// exactly one refresh, and nobody is logged out.
func TestAHundredRequestsOverTwoReplicasMakeOneRefresh(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	w := newWorld(t, renewing(redis.url()))
	replicas := []*replica{w.replica(), w.replica()}
	clients := []*client{w.client(replicas[0].addr), w.client(replicas[1].addr)}
	const life = 4 * time.Second
	asked, reply := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.provider.Set(func(f *devprovider.Faults) {
		f.TokenResponse = func(answer map[string]any) { answer["expires_in"] = life.Seconds() }
		f.RefreshResponse = func(answer map[string]any) {
			answer["expires_in"] = 3600
			once.Do(func() { close(asked) })
			<-reply
		}
	})
	cookie := w.signIn("ada", replicas[0].addr, replicas[1].addr)
	expired := time.Now().Add(life)
	former, _ := settled(func() answer { return clients[1].get("/", cookie) }).reached()
	eventually(t, "the access token has expired", func() bool { return time.Now().After(expired) })

	ctx, giveUp := context.WithCancel(t.Context())
	answers := make([]answer, 100)
	var patient, impatient sync.WaitGroup
	for i := range answers {
		running := &patient
		r := w.request(context.Background(), "GET", "/", cookie)
		if i%10 < 3 {
			running, r = &impatient, r.WithContext(ctx)
		}
		running.Go(func() { answers[i] = roundTrip(clients[i%2].Transport, r) })
	}
	<-asked
	giveUp() // 15 at each replica, whichever of them asks the provider
	impatient.Wait()
	time.AfterFunc(300*time.Millisecond, func() { close(reply) }) // those who wait find no answer too soon
	patient.Wait()

	token := ""
	for i, c := range clients {
		s, ok := settled(func() answer { return c.get("/", cookie) }).reached()
		if !ok || s.Token == "" || s.Token == former.Token || token != "" && s.Token != token {
			t.Errorf("afterwards replica %d does not know the new access token", i)
		}
		token = s.Token
	}
	busy := 0
	for i, a := range answers {
		s, ok := a.reached()
		switch {
		case errors.Is(a.err, context.Canceled):
		case a.status == http.StatusServiceUnavailable, ok && s.Token == former.Token: // a machine too busy for the store's time limits
			busy++
		case !ok || s.User != "ada" || s.Token != token:
			t.Errorf("request %d gets %s, want the app with the new access token", i, a)
		}
	}
	if busy > 35 {
		t.Errorf("for %d of 70 requests the store was too slow", busy)
	}
	if n, reused := w.provider.Refreshes(), w.provider.ReusedRefreshTokens(); n != 1 || reused != 0 {
		t.Errorf("the provider was asked %d times, and %d refresh tokens were used twice", n, reused)
	}
	t.Logf("the slowest of those who waited took %v, of which the provider took at least 300ms", longest(answers, http.StatusOK))
}
