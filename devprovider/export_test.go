package devprovider

import (
	"net/url"
	"time"
)

// A Shelf is a shelf for tests.
type Shelf struct{ s shelf[string] }

func NewShelf(max int) *Shelf { return &Shelf{newShelf[string](max)} }

func (s *Shelf) Put(key, v string, now, expires time.Time) { s.s.put(key, v, now, expires) }

func (s *Shelf) Get(key string, now time.Time) (string, bool) { return s.s.get(key, now) }

func (s *Shelf) Len() int { return s.s.order.Len() }

func WithQuery(to, separator string, values url.Values) string {
	return withQuery(to, separator, values)
}

func IsWebURL(s string) bool { return isWebURL(s) }

func OpenJWT(token string) (header, claims map[string]any, input string, sig []byte, err error) {
	return openJWT(token)
}
