package session

import "context"

// A Prober is a Store that can say whether a session is alive without the cookie value that names it.
type Prober interface {
	// Alive says whether the session was not ended. Of s count the ID, the issuer and subject of the Identity, ProviderSID
	// and Created; lifetimes are not judged.
	Alive(ctx context.Context, s *Session) (bool, error)
}

// Alive says whether a session that was known once still is one, for credentials that hang on it but do not hold its cookie
// value. What must be known of it is what [Prober] says, and Expires. It does not count as a use. With the cookie store
// nobody knows when a session was used last, so whoever asks bounds the idle time. The error means that the store could not
// answer, or cannot ever.
func (m *Manager) Alive(ctx context.Context, s *Session) (bool, error) {
	if m.Expired(s) {
		return false, nil
	}
	if p, ok := m.store.(Prober); ok {
		return p.Alive(ctx, s)
	}
	all, err := m.List(ctx, Selector{ID: s.ID, Issuer: s.Identity.Issuer, Subject: s.Identity.Subject})
	return err == nil && len(all) > 0, err
}

// Alive implements [Prober].
func (c *CookieStore) Alive(_ context.Context, s *Session) (bool, error) {
	if err := c.fresh(); err != nil {
		return false, err
	}
	return !c.endings.ended(s, c.tagger), nil
}
