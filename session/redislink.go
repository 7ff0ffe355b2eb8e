package session

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// What we wait for at most. A call may wait for a connection that another call is making, so that it is over after the
// first two together.
const (
	redisCall   = 400 * time.Millisecond // a call of the store
	redisDial   = 250 * time.Millisecond // connecting; greeting the server may take as long again, within the call
	redisBulk   = 10 * time.Second       // a call that goes through all sessions
	redisPing   = 150 * time.Millisecond // silence on a connection before it is pinged
	redisSilent = 300 * time.Millisecond // an unanswered ping before the connection is given up
	redisAgain  = 100 * time.Millisecond // after which a failed call is not tried again
)

// A redisLink is the connection to Redis, with what it tells about keys that were read through it: Redis reports every change
// of theirs to us (CLIENT TRACKING, broadcasting). Where a managed Redis refuses that, tracked is false.
type redisLink struct {
	opt     rueidis.ClientOption
	log     *slog.Logger
	client  atomic.Pointer[rueidis.Client] // nil until connected for the first time
	refused atomic.Pointer[error]          // why not
	tracked atomic.Bool

	stop   context.CancelFunc
	worker sync.WaitGroup

	began time.Time // of the clock that at and heard are read from, which nobody can set
	mu    sync.Mutex
	conns atomic.Pointer[[]*redisConn] // those that were heard from and are not closed; replaced under mu

	// A change of a key increments the count in its slot; whatever makes us miss changes increments epoch. Slots are shared: a
	// change makes us ask again for a few other keys too.
	seed  maphash.Seed
	epoch atomic.Uint64
	slots [1 << 18]atomic.Uint32
}

// A moment says how often keys had changed when something was asked.
type moment struct {
	slot, changes uint32
	epoch         uint64        // from 1: the zero moment is never current
	at            time.Duration // since began
}

// moment is taken before Redis is asked for key.
func (l *redisLink) moment(key string) moment {
	slot := uint32(maphash.String(l.seed, key) % uint64(len(l.slots)))
	return moment{slot, l.slots[slot].Load(), l.epoch.Load(), l.elapsed()}
}

// unchanged says that no change is known since that moment.
func (l *redisLink) unchanged(m moment) bool {
	return l.epoch.Load() == m.epoch && l.slots[m.slot].Load() == m.changes
}

// current says that what was answered after that moment is still so, or was until at most staleness ago.
func (l *redisLink) current(m moment, staleness time.Duration) bool {
	since := m.at
	if l.tracked.Load() {
		since = l.heard() // a change since then would have been reported
	}
	return l.unchanged(m) && l.elapsed()-since <= staleness
}

// changed notes a change of what key holds, or of everything.
func (l *redisLink) changed(key string) {
	l.slots[maphash.String(l.seed, key)%uint64(len(l.slots))].Add(1)
}
func (l *redisLink) changedAll() { l.epoch.Add(1) }

// elapsed is positive.
func (l *redisLink) elapsed() time.Duration { return time.Since(l.began) + 1 }

// heard is since when nothing was heard from the connection that has been silent for longest.
func (l *redisLink) heard() time.Duration {
	oldest := time.Duration(math.MaxInt64)
	conns := l.conns.Load()
	if conns == nil || len(*conns) == 0 {
		return math.MinInt64 / 2
	}
	for _, c := range *conns {
		oldest = min(oldest, time.Duration(c.heard.Load()))
	}
	return oldest
}

// A redisConn notes when something was read from it.
type redisConn struct {
	net.Conn
	link   *redisLink
	heard  atomic.Int64 // elapsed time, 0 before the first byte
	closed bool         // guarded by link.mu
}

func (c *redisConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.heard.Swap(int64(c.link.elapsed())) == 0 {
		c.link.mu.Lock()
		defer c.link.mu.Unlock()
		if !c.closed {
			c.link.replaceConns(func(conns []*redisConn) []*redisConn { return append(conns, c) })
			c.link.changedAll() // it may replace one that did not live to report a change
		}
	}
	return n, err
}

func (c *redisConn) Close() error {
	c.link.mu.Lock()
	c.closed = true
	c.link.replaceConns(func(conns []*redisConn) []*redisConn {
		return slices.DeleteFunc(conns, func(o *redisConn) bool { return o == c })
	})
	c.link.mu.Unlock()
	return c.Conn.Close()
}

// replaceConns is called with mu held; f may change what it is given.
func (l *redisLink) replaceConns(f func([]*redisConn) []*redisConn) {
	var conns []*redisConn
	if old := l.conns.Load(); old != nil {
		conns = slices.Clone(*old)
	}
	conns = f(conns)
	l.conns.Store(&conns)
}

// dial connects to an address, or to a socket's path.
func (l *redisLink) dial(ctx context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, redisDial)
	defer cancel()
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c = &redisConn{Conn: c, link: l}
	if conf == nil {
		return c, nil
	}
	conf = conf.Clone()
	conf.ServerName, _, _ = net.SplitHostPort(addr) // each node has a name of its own
	t := tls.Client(c, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

// openRedisLink returns once the first attempt to connect has succeeded or failed. It goes on in the background. It is told of
// changes of the keys that begin with prefix.
func openRedisLink(opts RedisOptions, prefix string) (*redisLink, error) {
	opt, err := parseRedisURL(opts.URL)
	if err != nil {
		return nil, err
	}
	l := &redisLink{log: opts.Log, began: time.Now(), seed: maphash.MakeSeed()}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	opt.DialCtxFn = l.dial
	opt.Dialer = net.Dialer{Timeout: redisDial, KeepAlive: min(redisPing, opts.MaxStaleness/4)}
	opt.Sentinel.Dialer = opt.Dialer
	opt.Sentinel.TopologyRefreshInterval = time.Second
	opt.ConnWriteTimeout = redisSilent
	opt.ClientName = "authproxy"
	opt.ClientSetInfo = rueidis.DisableClientSetInfo
	opt.PipelineMultiplex = -1 // one connection to each server: commands are pipelined, and reports come once
	opt.DisableRetry = true
	opt.ClientTrackingOptions = []string{"BCAST", "PREFIX", prefix}
	opt.OnInvalidations = func(keys []rueidis.RedisMessage) {
		if keys == nil { // everything was deleted, or a connection was lost
			l.changedAll()
		}
		for _, m := range keys {
			if key, err := m.ToString(); err == nil {
				l.changed(key)
			}
		}
	}
	l.opt = opt
	l.changedAll()
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	tried := make(chan struct{})
	l.worker.Go(func() { l.connect(ctx, sync.OnceFunc(func() { close(tried) })) })
	<-tried
	return l, nil
}

// connect tries until it succeeds or ctx ends. From then on the client keeps itself connected.
func (l *redisLink) connect(ctx context.Context, tried func()) {
	defer tried()
	said := ""
	for delay := 50 * time.Millisecond; ctx.Err() == nil; delay = min(2*delay, redisCall) {
		client, err := rueidis.NewClient(l.opt)
		if errors.Is(err, rueidis.ErrNoCache) && !l.opt.DisableCache {
			l.log.Warn("session store: Redis does not report changes to us (CLIENT TRACKING); it is asked again after max_staleness", "error", err.Error())
			l.opt.DisableCache = true
			continue
		}
		if err == nil {
			l.tracked.Store(!l.opt.DisableCache)
			l.client.Store(&client)
			l.warnOfEviction(ctx)
			return
		}
		l.refused.Store(&err)
		if said != err.Error() {
			said = err.Error()
			l.log.Warn("session store: no connection to Redis yet, trying again", "error", said)
		}
		tried()
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
}

// warnOfEviction tells the operator when Redis may drop keys: an index without some of its entries finds not all sessions
// that a logout is to end, and without the list of endings everybody must sign in again.
func (l *redisLink) warnOfEviction(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, redisCall)
	defer cancel()
	c := *l.client.Load()
	info, err := c.Do(ctx, c.B().Info().Section("memory").Build()).ToString()
	if err != nil {
		return // not everybody may ask
	}
	for line := range strings.Lines(info) {
		if policy, ok := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:"); ok && policy != "noeviction" {
			l.log.Warn("session store: Redis may evict sessions and what logouts find them by; set its maxmemory-policy to noeviction", "maxmemory_policy", policy)
		}
	}
}

func (l *redisLink) close() {
	l.stop()
	l.worker.Wait()
	if c := l.client.Load(); c != nil {
		(*c).Close()
	}
}

// do sends what build makes, in one go, and sends it once more when the connection turned out to be broken: it may arrive
// twice, and the second time late. The error is the first of the answers' that is not "nil".
func (l *redisLink) do(ctx context.Context, build func(b rueidis.Builder) []rueidis.Completed) ([]rueidis.RedisResult, error) {
	return l.send(ctx, true, build)
}

// doOnce is do for what could undo, if it arrived late, what was done since.
func (l *redisLink) doOnce(ctx context.Context, build func(b rueidis.Builder) []rueidis.Completed) ([]rueidis.RedisResult, error) {
	return l.send(ctx, false, build)
}

func (l *redisLink) send(ctx context.Context, again bool, build func(b rueidis.Builder) []rueidis.Completed) ([]rueidis.RedisResult, error) {
	c := l.client.Load()
	if c == nil {
		return nil, fmt.Errorf("session store: no connection to Redis yet: %w", *l.refused.Load())
	}
	start := time.Now()
	for ; ; again = false {
		answers := (*c).DoMulti(ctx, build((*c).B())...)
		i := slices.IndexFunc(answers, func(a rueidis.RedisResult) bool { return a.Error() != nil && !rueidis.IsRedisNil(a.Error()) })
		if i < 0 {
			return answers, nil
		}
		err := answers[i].Error()
		if _, answered := rueidis.IsRedisErr(err); answered || !again || ctx.Err() != nil || time.Since(start) > redisAgain {
			return nil, fmt.Errorf("session store: redis: %w", err)
		}
	}
}

// parseRedisURL reads what RedisOptions.URL documents. Errors do not repeat the URL, which may hold a password.
func parseRedisURL(text string) (opt rueidis.ClientOption, err error) {
	malformed := func(what string) (rueidis.ClientOption, error) {
		return rueidis.ClientOption{}, fmt.Errorf("session store: the Redis URL %s; want redis://[USER:PASSWORD@]HOST[:PORT][,HOST...][/DATABASE]", what)
	}
	scheme, rest, _ := strings.Cut(text, "://")
	rest, query, _ := strings.Cut(rest, "?")
	options, err := url.ParseQuery(query)
	if err != nil {
		return malformed("has malformed options")
	}
	for name, values := range options {
		if !slices.Contains([]string{"master_set", "sentinel_username", "sentinel_password", "ca_file", "db"}, name) || len(values) != 1 {
			return malformed("has an option that is not master_set, sentinel_username, sentinel_password, ca_file or db, or has one twice")
		}
	}
	opt.Sentinel.MasterSet = options.Get("master_set")
	opt.Sentinel.Username, opt.Sentinel.Password = options.Get("sentinel_username"), options.Get("sentinel_password")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, password, _ := strings.Cut(rest[:at], ":")
		rest = rest[at+1:]
		var bad error
		opt.Username, err = url.PathUnescape(user)
		opt.Password, bad = url.PathUnescape(password)
		if err != nil || bad != nil {
			return malformed("has a malformed escape before the @")
		}
	}
	db := options.Get("db")
	switch scheme {
	case "unix":
		opt.InitAddress = []string{rest}
		if !strings.HasPrefix(rest, "/") {
			return malformed("has no absolute path")
		}
	case "rediss":
		opt.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		fallthrough
	case "redis":
		hosts, path, _ := strings.Cut(rest, "/")
		if path != "" {
			db = path
		}
		for host := range strings.SplitSeq(hosts, ",") {
			addr, err := redisAddr(host, opt.Sentinel.MasterSet != "")
			if err != nil {
				return malformed("has a host that is not HOST or HOST:PORT")
			}
			opt.InitAddress = append(opt.InitAddress, addr)
		}
	default:
		return malformed("does not begin with redis://, rediss:// or unix://")
	}
	if db != "" {
		n, err := strconv.ParseUint(db, 10, 16)
		if err != nil {
			return malformed("has no number as its database")
		}
		opt.SelectDB = int(n)
	}
	if file := options.Get("ca_file"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return opt, fmt.Errorf("session store: ca_file of the Redis URL: %w", err)
		}
		roots := x509.NewCertPool()
		if opt.TLSConfig == nil || !roots.AppendCertsFromPEM(pem) {
			return opt, fmt.Errorf("session store: ca_file of the Redis URL: %s holds no certificate, or the URL is not rediss://", file)
		}
		opt.TLSConfig.RootCAs = roots
	}
	opt.Sentinel.TLSConfig = opt.TLSConfig
	return opt, nil
}

// redisAddr is host with a port, by default that of Redis or of its Sentinels.
func redisAddr(host string, sentinel bool) (string, error) {
	if i := strings.LastIndexByte(host, ':'); i < 0 || strings.HasSuffix(host, "]") {
		host += map[bool]string{false: ":6379", true: ":26379"}[sentinel]
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return "", err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || name == "" {
		return "", errors.New("no host or no port")
	}
	return host, nil
}
