// Command revocation ends sessions at one authproxy and measures how long it takes until another, which shares a Redis with
// it, refuses their requests. bench/revocation.sh builds what it needs and starts it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"

	"authproxy/bench/rig"
)

var revocations = flag.Int("revocations", 1000, "`SESSIONS` to revoke, one after the other")

func main() { rig.Main(time.Hour, measure) }

// A result is what became of one session, in milliseconds since A was asked to end it.
type result struct {
	answered float64 // A said that it had
	refused  float64 // the first refusal of B was there
}

func measure(ctx context.Context, r *rig.Rig) error {
	upstream, err := r.Upstream(ctx)
	if err != nil {
		return err
	}
	a, err := r.Authproxy(ctx, "redis", upstream)
	if err != nil {
		return err
	}
	b, err := r.Authproxy(ctx, "redis", upstream)
	if err != nil {
		return err
	}
	store, err := r.Open(ctx, "redis")
	if err != nil {
		return err
	}
	m := rig.Manager(store)
	defer m.Close()

	fmt.Printf("%s; two authproxy with one Redis; %d sessions in use at both, each ended at A's admin listener while B gets one request after the other\n",
		rig.Machine(), *revocations)
	var results []result
	for range *revocations {
		cookie, s, err := r.Begin(ctx, m)
		if err != nil {
			return err
		}
		one, err := revoke(ctx, a, b, cookie, s.ID)
		if err != nil {
			return a.Blame(b.Blame(err))
		}
		results = append(results, one)
	}
	fmt.Printf("\n%-52s %9s %9s %9s\n", "ms", "p50", "p99", "most")
	for _, row := range []struct {
		name string
		of   func(result) float64
	}{
		{"from asking A until B refused", func(r result) float64 { return r.refused }},
		{"from A's answer until B refused, 0: B was first", func(r result) float64 { return max(0, r.refused-r.answered) }},
		{"from asking A until A's answer", func(r result) float64 { return r.answered }},
	} {
		n := rig.Of(results, row.of)
		fmt.Printf("%-52s %9.2f %9.2f %9.2f\n", row.name, n.Percentile(50), n.Percentile(99), n.Percentile(100))
	}
	return nil
}

// revoke ends a session at A that both let through, and asks B until it refuses.
func revoke(ctx context.Context, a, b *rig.Process, cookie, id string) (result, error) {
	for _, p := range []*rig.Process{a, b} { // from here on each has it in its cache
		if status, err := ask(ctx, http.MethodGet, p.URL+"/orders/4711", cookie); err != nil || status != http.StatusOK {
			return result{}, fmt.Errorf("a request with a live session: %d, %v", status, err)
		}
	}
	begin, refused, failed := make(chan struct{}), make(chan time.Time, 1), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			status, err := ask(ctx, http.MethodGet, b.URL+"/orders/4711", cookie)
			switch {
			case err != nil:
				failed <- err
				return
			case status == http.StatusUnauthorized:
				refused <- time.Now()
				return
			case status != http.StatusOK:
				failed <- fmt.Errorf("the answer to a request at B was %d", status)
				return
			}
			if n == 5 { // the connection is there, and B is busy with it
				close(begin)
			}
		}
	}()
	select {
	case <-begin:
	case err := <-failed:
		return result{}, err
	}
	asked := time.Now()
	if status, err := ask(ctx, http.MethodDelete, a.Admin+"/sessions/"+id, ""); err != nil || status != http.StatusNoContent {
		return result{}, fmt.Errorf("ending the session: %d, %v", status, err)
	}
	answered := time.Now()
	select {
	case at := <-refused:
		since := func(t time.Time) float64 { return float64(t.Sub(asked).Microseconds()) / 1000 }
		return result{since(answered), since(at)}, nil
	case err := <-failed:
		return result{}, err
	}
}

var client = &http.Client{
	Transport:     &http.Transport{},
	Timeout:       10 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// ask sends a request as a page's script does and returns the status of the answer.
func ask(ctx context.Context, method, url, cookie string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, err
	}
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	response, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}
