package operated_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// A load is requests that some workers make one after the other, until it is stopped.
type load struct {
	over    chan struct{}
	workers sync.WaitGroup

	mu      sync.Mutex
	answers []answer // without their bodies
	wrong   []string // what a worker did not like
}

// startLoad lets workers call ask, which returns the answer, and "" or what is wrong with it.
func startLoad(t testing.TB, workers int, ask func(worker, n int) (answer, string)) *load {
	l := &load{over: make(chan struct{})}
	for worker := range workers {
		l.workers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-l.over:
					return
				case <-time.After(3 * time.Millisecond): // leaves some of the machine to those that answer
				}
				a, wrong := ask(worker, n)
				a.body = ""
				l.mu.Lock()
				l.answers = append(l.answers, a)
				if wrong != "" {
					l.wrong = append(l.wrong, fmt.Sprintf("%s: %s", a.began.Format("05.000"), wrong))
				}
				l.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { l.stop(t) })
	return l
}

// stop ends the load. It fails the test when an answer was wrong, and returns them all. A test that ends without it does it too.
func (l *load) stop(t testing.TB) []answer {
	t.Helper()
	select {
	case <-l.over:
	default:
		close(l.over)
	}
	l.workers.Wait()
	defer func() { l.wrong = nil }() // it was said
	if n := len(l.wrong); n > 0 {
		t.Errorf("%d of %d answers are wrong, such as:", n, len(l.answers))
		for _, w := range l.wrong[:min(n, 10)] {
			t.Error(w)
		}
	}
	return l.answers
}

// since are the answers so far to requests that began after that time.
func (l *load) since(begin time.Time) []answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.answers), func(a answer) bool { return a.began.Before(begin) })
}

// longest is how long the slowest answer of that status took; 0 stands for all.
func longest(answers []answer, status int) (d time.Duration) {
	for _, a := range answers {
		if status == 0 || a.status == status {
			d = max(d, a.took)
		}
	}
	return d
}

func count(answers []answer, status int) (n int) {
	for _, a := range answers {
		if a.status == status {
			n++
		}
	}
	return n
}
