package session

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/singleflight"
)

// RedisOptions says where a RedisStore keeps sessions, or a CookieStore what it knows of them, and how they use it.
type RedisOptions struct {
	// URL is redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS, or unix:///PATH. Several hosts, separated by
	// commas, are a cluster; with the option ?master_set=NAME they are Sentinels, which may have credentials of their own
	// (sentinel_username, sentinel_password). The option ca_file names the PEM file of the authorities to trust instead of
	// the system's, and db the database.
	URL string

	Prefix       string        // of all keys
	MaxStaleness time.Duration // how long a session that was ended elsewhere may be believed when Redis cannot be reached; 0 means 1 s
	Log          *slog.Logger  // hears what operators should know about the connection; nil means nobody does
}

// Check says what is wrong with the URL. Nothing is connected to.
func (o RedisOptions) Check() error {
	_, err := parseRedisURL(o.URL)
	return err
}

// A RedisStore keeps sessions in Redis or Valkey, for any number of processes. A session that is in use is kept opened in
// this process as well, so that finding it again asks nobody; Redis reports changes, and what this process cannot know to be
// so within MaxStaleness it asks for. Where Redis cannot report changes sessions are asked for again after MaxStaleness.
//
// Redis holds only ciphertext, under hashes of the tickets, and tags made with the session keys by which the sessions of a
// user are found. It forgets sessions by itself when they have ended.
//
// What Redis loses is lost: when a master dies with changes that no replica has, logins and logouts among them are undone.
// It must not evict keys to make room.
type RedisStore struct {
	opts    RedisOptions
	tickets tickets
	tagger  tagger
	infos   infos
	idle    time.Duration
	now     func() time.Time
	link    *redisLink
	opened  *cache[*atomic.Pointer[answered]] // by cookie value
	probed  *cache[*atomic.Pointer[probe]]    // by session ID
	asking  singleflight.Group                // by key
}

// An answer is what Redis said about a session, "" when it has none.
type answer struct {
	raw   string
	asked moment
}

// answered is an answer that was opened.
type answered struct {
	answer
	session *Session
	current string // the value that the browser should have
}

// OpenRedisStore returns a store for that cookie, whose sessions end when they are unused for idle. A nil now means
// time.Now. It is no error that Redis cannot be reached: until it can, every call of the store fails at once.
func OpenRedisStore(opts RedisOptions, sealer *Sealer, keys [][]byte, cookie Cookie, idle time.Duration, now func() time.Time) (*RedisStore, error) {
	if now == nil {
		now = time.Now
	}
	if opts.MaxStaleness <= 0 {
		opts.MaxStaleness = time.Second
	}
	r, err := (&RedisStore{opts: opts, now: now}).with(sealer, keys, cookie, idle)
	if err != nil {
		return nil, err
	}
	if r.link, err = openRedisLink(opts, opts.Prefix+"s:"); err != nil {
		return nil, err
	}
	return r, nil
}

// with is the store for other keys, another cookie and another idle time.
func (r *RedisStore) with(sealer *Sealer, keys [][]byte, cookie Cookie, idle time.Duration) (*RedisStore, error) {
	t, err := newTagger(keys)
	if err != nil {
		return nil, err
	}
	n, err := newInfos(keys)
	if err != nil {
		return nil, err
	}
	return &RedisStore{opts: r.opts, link: r.link, now: r.now, tickets: tickets{sealer, cookie.Name}, tagger: t, infos: n, idle: idle,
		opened: newCache[*atomic.Pointer[answered]](cacheBytes / 8 * 7), probed: newCache[*atomic.Pointer[probe]](cacheBytes / 8)}, nil
}

// SetCache implements [Cacher].
func (r *RedisStore) SetCache(bytes int) {
	r.opened.bound(bytes / 8 * 7)
	r.probed.bound(bytes / 8)
}

// Reopen implements [Reopener]: the connection is shared, and closed when one of them is.
func (r *RedisStore) Reopen(sealer *Sealer, keys [][]byte, cookie Cookie, idle, _ time.Duration) (Store, error) {
	return r.with(sealer, keys, cookie, idle)
}

// A session is kept under PREFIX s:NAME, where NAME is half of the row's hash, as: version (4 bytes), length of the info
// (2 bytes), info, ciphertext.
const rowName = 16

func (r *RedisStore) key(name string) string {
	return r.opts.Prefix + "s:" + base64.RawURLEncoding.EncodeToString([]byte(name))
}

// pack returns the name of the session and what is kept of it.
func (r *RedisStore) pack(t ticket, s *Session) (name, raw string, err error) {
	row := t.row()
	info, err := r.infos.seal(row[:rowName], s)
	if err != nil {
		return "", "", err
	}
	if len(info) > math.MaxUint16 {
		return "", "", errors.New("session store: issuer, subject and User-Agent together are too long")
	}
	sealed, err := t.encrypt(s)
	if err != nil {
		return "", "", err
	}
	b := binary.BigEndian.AppendUint32(nil, s.version)
	b = binary.BigEndian.AppendUint16(b, uint16(len(info)))
	b = append(append(b, info...), sealed...)
	return string(row[:rowName]), string(b), nil
}

func unpack(raw string) (info, sealed []byte, err error) {
	if len(raw) >= 6 {
		if n := int(binary.BigEndian.Uint16([]byte(raw[4:6]))); len(raw)-6 >= n {
			return []byte(raw[6 : 6+n]), []byte(raw[6+n:]), nil
		}
	}
	return nil, nil, errors.New("session store: what Redis holds is no session")
}

// open is the reverse of pack.
func open(t ticket, raw string) (*Session, error) {
	_, sealed, err := unpack(raw)
	if err != nil {
		return nil, err
	}
	s, err := t.decrypt(sealed)
	if err != nil {
		return nil, fmt.Errorf("session store: %w", err)
	}
	return s, nil
}

// until is when Redis may forget the session, and left how long that is from now. Redis counts with a clock of its own.
func (r *RedisStore) until(s *Session) (until time.Time, left time.Duration) {
	until = s.Expires
	if idle := s.Used.Add(r.idle); idle.Before(until) {
		until = idle
	}
	return until, max(time.Millisecond, until.Sub(r.now()))
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// bounded is ctx for a call of the store.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, redisCall)
}

// Create implements [Store].
func (r *RedisStore) Create(ctx context.Context, s *Session) (string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	t := newTicket()
	value, err := r.tickets.seal(t)
	if err != nil {
		return "", err
	}
	name, raw, err := r.pack(t, s)
	if err != nil {
		return "", err
	}
	if err := r.index(ctx, name, s); err != nil {
		return "", err
	}
	_, left := r.until(s)
	_, err = r.link.doOnce(ctx, func(b rueidis.Builder) []rueidis.Completed { // a copy could arrive after the logout
		return []rueidis.Completed{b.Set().Key(r.key(name)).Value(raw).PxMilliseconds(left.Milliseconds()).Build()}
	})
	if err != nil {
		return "", err
	}
	if name[0]%16 == 0 { // often enough
		r.trim(ctx, s)
	}
	return value, nil
}

// Load implements [Store]. It does not wait for ctx: what is asked is for all that wait for the same session, and is
// answered or has failed within a second.
func (r *RedisStore) Load(_ context.Context, value string) (*Session, string, error) {
	held, ok := r.opened.get(value)
	var known *answered
	if ok {
		if known = held.Load(); r.link.current(known.asked, r.opts.MaxStaleness) {
			return known.session, known.current, nil
		}
	}
	t, isCurrent, ok := r.tickets.open(value)
	if !ok {
		return nil, "", ErrNone
	}
	row := t.row()
	a, err := r.ask(r.key(string(row[:rowName])))
	if err != nil {
		return nil, "", err
	}
	if a.raw == "" {
		r.opened.remove(value)
		return nil, "", ErrNone
	}
	if known != nil && known.raw == a.raw { // the same snapshot, with what was derived from it
		held.Store(&answered{a, known.session, known.current})
		return known.session, known.current, nil
	}
	s, err := open(t, a.raw)
	if err != nil {
		return nil, "", err
	}
	current := value
	if !isCurrent { // an older key sealed the ticket: the browser gets it anew
		if current, err = r.tickets.seal(t); err != nil {
			return nil, "", err
		}
	}
	fresh := &answered{a, s, current}
	made := new(atomic.Pointer[answered])
	made.Store(fresh)
	if held := r.opened.put(value, made, cost(value)+4*len(a.raw)); held != made {
		held.Store(fresh)
	}
	return s, current, nil
}

// ask asks Redis for a key. Callers that ask for the same at the same time share an answer, unless it may be from before a
// change that they know of.
func (r *RedisStore) ask(key string) (answer, error) {
	get := func() (any, error) {
		ctx, cancel := bounded(context.Background())
		defer cancel()
		a := answer{asked: r.link.moment(key)}
		answers, err := r.link.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
			return []rueidis.Completed{b.Get().Key(key).Build()}
		})
		if err == nil {
			a.raw, err = answers[0].ToString()
		}
		if rueidis.IsRedisNil(err) {
			err = nil
		}
		return a, err
	}
	a, err, shared := r.asking.Do(key, get)
	if shared && err == nil && !r.link.unchanged(a.(answer).asked) {
		a, err = get()
	}
	if err != nil {
		return answer{}, err
	}
	return a.(answer), nil
}

// saveScript replaces a session, KEYS[1], of the version ARGV[1] by ARGV[2] for ARGV[3] milliseconds. Sent twice it does the
// same as sent once.
const saveScript = `local v = redis.call('GET', KEYS[1])
if not v then return 'none' end
if v ~= ARGV[2] then
  if string.sub(v, 1, 4) ~= ARGV[1] then return 'conflict' end
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 'saved'`

// Save implements [Store].
func (r *RedisStore) Save(ctx context.Context, value string, s *Session) (string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	t, isCurrent, ok := r.tickets.open(value)
	if !ok {
		return "", ErrNone
	}
	name, raw, err := r.pack(t, s)
	if err != nil {
		return "", err
	}
	if err := r.index(ctx, name, s); err != nil {
		return "", err
	}
	_, left := r.until(s)
	from := string(binary.BigEndian.AppendUint32(nil, s.version-1))
	answers, err := r.link.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
		return []rueidis.Completed{b.Eval().Script(saveScript).Numkeys(1).Key(r.key(name)).Arg(from, raw, millis(left)).Build()}
	})
	r.link.changed(r.key(name)) // whether it worked or not: what follows asks again
	if err != nil {
		return "", err
	}
	switch outcome, err := answers[0].ToString(); {
	case err != nil:
		return "", fmt.Errorf("session store: redis: %w", err)
	case outcome == "none":
		return "", ErrNone
	case outcome == "conflict":
		return "", ErrConflict
	}
	if isCurrent {
		return value, nil
	}
	return r.tickets.seal(t)
}

// The index tells which sessions bear a tag. It is spread over 4096 hashes for each kind of tag, in which the field of a
// session is its tag and its name, and the value when it may be forgotten (seconds): one key for each tag would cost more
// memory than the session. Sessions are written after their index and removed before it, so that what is interrupted leaves
// at worst a field without a session.

// bucket is the key of the hash in which a tag is.
func (r *RedisStore) bucket(t tag) string {
	return fmt.Sprintf("%s%c:%03x", r.opts.Prefix, t[0], binary.BigEndian.Uint16(t[1:3])>>4)
}

const buckets = 1 << 12

// indexLeeway is how long the index outlives its sessions, so that clocks may differ.
const indexLeeway = time.Hour

// indexScript sets the field ARGV[1] of the hash KEYS[1] to ARGV[2] and keeps the hash for ARGV[3] milliseconds at least.
const indexScript = `redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1`

func (r *RedisStore) index(ctx context.Context, name string, s *Session) error {
	until, left := r.until(s)
	_, err := r.link.do(ctx, func(b rueidis.Builder) (all []rueidis.Completed) {
		for _, t := range r.tagger.of(s) {
			if t[0] == 'p' && s.ProviderSID == "" {
				continue // nobody looks for that
			}
			all = append(all, b.Eval().Script(indexScript).Numkeys(1).Key(r.bucket(t)).
				Arg(string(t[:])+name, strconv.FormatInt(until.Unix(), 10), millis(left+indexLeeway)).Build())
		}
		return all
	})
	return err
}

// trim removes from the hashes of a session's tags the fields of sessions that have ended. It is no harm when it fails.
func (r *RedisStore) trim(ctx context.Context, s *Session) {
	tags := r.tagger.of(s)
	answers, err := r.link.do(ctx, func(b rueidis.Builder) (all []rueidis.Completed) {
		for _, t := range tags {
			all = append(all, b.Hgetall().Key(r.bucket(t)).Build())
		}
		return all
	})
	if err != nil {
		return
	}
	forgotten := r.now().Add(-indexLeeway).Unix()
	r.link.do(ctx, func(b rueidis.Builder) (all []rueidis.Completed) {
		for i, a := range answers {
			fields, _ := a.AsStrMap()
			for field, value := range fields {
				if until, err := strconv.ParseInt(value, 10, 64); err != nil || until < forgotten {
					all = append(all, b.Hdel().Key(r.bucket(tags[i])).Field(field).Build())
				}
			}
		}
		return all
	})
}

// fields returns the index's fields of the first tag for the sessions that bear each of the tags.
func (r *RedisStore) fields(ctx context.Context, tags []tag) ([]string, error) {
	answers, err := r.link.do(ctx, func(b rueidis.Builder) (all []rueidis.Completed) {
		for _, t := range tags {
			all = append(all, b.Hkeys().Key(r.bucket(t)).Build())
		}
		return all
	})
	if err != nil {
		return nil, err
	}
	bearers := map[string]int{} // name -> how many of the tags it bears
	for i, a := range answers {
		fields, err := a.AsStrSlice()
		if err != nil {
			return nil, fmt.Errorf("session store: redis: %w", err)
		}
		for _, f := range fields {
			if name, ok := strings.CutPrefix(f, string(tags[i][:])); ok {
				bearers[name]++
			}
		}
	}
	var found []string
	for name, n := range bearers {
		if n == len(tags) {
			found = append(found, string(tags[0][:])+name)
		}
	}
	return found, nil
}

// allFields returns the fields of every session, some at a time.
func (r *RedisStore) allFields(ctx context.Context, do func(fields []string) error) error {
	const some = 64
	for from := 0; from < buckets; from += some {
		answers, err := r.link.do(ctx, func(b rueidis.Builder) (all []rueidis.Completed) {
			for n := from; n < from+some; n++ {
				all = append(all, b.Hkeys().Key(r.bucket(tag{'i', byte(n >> 4), byte(n << 4)})).Build())
			}
			return all
		})
		if err != nil {
			return err
		}
		var found []string
		for _, a := range answers {
			fields, err := a.AsStrSlice()
			if err != nil {
				return fmt.Errorf("session store: redis: %w", err)
			}
			found = append(found, fields...)
		}
		if err := do(found); err != nil {
			return err
		}
	}
	return nil
}

// selected calls do with the index's fields of the sessions that sel selects, some at a time. A session may come twice.
func (r *RedisStore) selected(ctx context.Context, sel Selector, do func(fields []string) error) error {
	if sel.All {
		return r.allFields(ctx, do)
	}
	for _, tags := range r.tagger.sought(sel) {
		found, err := r.fields(ctx, tags)
		if err != nil {
			return err
		}
		if err := do(found); err != nil {
			return err
		}
	}
	return nil
}

// split returns the tag and the session's name of a field of the index.
func split(field string) (t tag, name string) {
	n := copy(t[:], field)
	return t, field[n:]
}

// End implements [Store]. Other processes know within the time that Redis takes to tell them, or within MaxStaleness.
func (r *RedisStore) End(ctx context.Context, sel Selector) error {
	limit := redisCall
	if sel.All {
		limit = redisBulk
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return r.selected(ctx, sel, func(fields []string) error {
		for some := range slices.Chunk(fields, 512) {
			answers, err := r.link.do(ctx, func(b rueidis.Builder) (all []rueidis.Completed) {
				for _, f := range some {
					_, name := split(f)
					all = append(all, b.Del().Key(r.key(name)).Build())
				}
				return all
			})
			for _, f := range some {
				_, name := split(f)
				r.link.changed(r.key(name)) // whether it worked or not
			}
			if err != nil {
				return err
			}
			// The sessions have ended: fields that stay are trimmed one day. That of a session that was not there may be of one that is
			// just being written, and which the next logout has to find.
			r.link.do(ctx, func(b rueidis.Builder) (all []rueidis.Completed) {
				for i, f := range some {
					if n, err := answers[i].AsInt64(); err != nil || n == 0 {
						continue
					}
					t, _ := split(f)
					all = append(all, b.Hdel().Key(r.bucket(t)).Field(f).Build())
				}
				return all
			})
		}
		return nil
	})
}

// errEnough ends a walk through the sessions.
var errEnough = errors.New("enough")

// List implements [Lister]. Of more than 10 000 sessions it returns any 10 000.
func (r *RedisStore) List(ctx context.Context, sel Selector) (all []Info, err error) {
	ctx, cancel := context.WithTimeout(ctx, redisBulk)
	defer cancel()
	seen := map[string]bool{}
	err = r.selected(ctx, sel, func(fields []string) error {
		for some := range slices.Chunk(fields, 256) {
			answers, err := r.link.do(ctx, func(b rueidis.Builder) (all []rueidis.Completed) {
				for _, f := range some {
					_, name := split(f)
					all = append(all, b.Get().Key(r.key(name)).Build())
				}
				return all
			})
			if err != nil {
				return err
			}
			for i, a := range answers {
				_, name := split(some[i])
				raw, err := a.ToString()
				if err != nil || seen[name] {
					continue // it has ended, or is in the index with a tag of an older key too
				}
				seen[name] = true
				if sealed, _, err := unpack(raw); err == nil {
					if i, ok := r.infos.open([]byte(name), sealed); ok {
						all = append(all, i)
					}
				}
			}
			if len(all) >= maxListed {
				return errEnough
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	slices.SortFunc(all, func(a, b Info) int { return b.Created.Compare(a.Created) })
	return all[:min(len(all), maxListed)], nil
}

// A probe is what is known of a session without its cookie value.
type probe struct {
	name  string
	asked moment
	info  Info // zero when it has ended
}

// Alive implements [Prober]. Asking again costs no round trip, as with Load. A session unused for the idle time has ended.
func (r *RedisStore) Alive(ctx context.Context, s *Session) (bool, error) {
	held, ok := r.probed.get(s.ID)
	if !ok {
		name, err := r.nameOf(ctx, s.ID)
		if err != nil || name == "" {
			return false, err
		}
		made := new(atomic.Pointer[probe])
		made.Store(&probe{name: name})
		held = r.probed.put(s.ID, made, 1024)
	}
	p := held.Load()
	if !r.link.current(p.asked, r.opts.MaxStaleness) {
		a, err := r.ask(r.key(p.name))
		if err != nil {
			return false, err
		}
		p = &probe{name: p.name, asked: a.asked}
		if a.raw != "" {
			sealed, _, err := unpack(a.raw)
			if err != nil {
				return false, err
			}
			p.info, _ = r.infos.open([]byte(p.name), sealed)
		}
		held.Store(p)
	}
	return p.info.ID == s.ID && p.info.Issuer == s.Identity.Issuer && p.info.Subject == s.Identity.Subject &&
		r.now().Sub(p.info.Used) < r.idle, nil
}

// nameOf returns the name of the session of an ID, "" when there is none.
func (r *RedisStore) nameOf(ctx context.Context, id string) (name string, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	err = r.selected(ctx, Selector{ID: id}, func(fields []string) error {
		for _, f := range fields {
			_, name = split(f)
		}
		return nil
	})
	return name, err
}

// Ping implements [Store]. It asks as Load does.
func (r *RedisStore) Ping(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	_, err := r.link.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
		return []rueidis.Completed{b.Exists().Key(r.opts.Prefix + "s:").Build()}
	})
	return err
}

// Close implements [Store].
func (r *RedisStore) Close() error {
	r.link.close()
	return nil
}
