package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/singleflight"
)

// A redisEndings is a log in Redis, for any number of processes: a stream. Redis tells us when it changes, and then the next
// request reads what is new; without a change a request costs no round trip. What cannot be known to be so within staleness
// is asked for, as a RedisStore does.
type redisEndings struct {
	link      *redisLink
	key       string
	staleness time.Duration
	store     *CookieStore // whose endings it fills
	asked     atomic.Pointer[moment]
	reading   singleflight.Group

	// For who reads.
	last  entry          // the last one that was read
	found map[label]bool // what was found since everything is read; nil when that is done
}

// An entry is an ending in the stream.
type entry struct {
	id string
	ending
}

// endingsPage is how many entries are asked for at once.
const endingsPage = 1000

// OpenCookieStoreWithRedis returns a store for that cookie that keeps in Redis which sessions were ended, so that all replicas
// obey: under labels made with the session keys, so that Redis holds nothing about users. No session lives longer than life. A
// nil now means time.Now. It is no error that Redis cannot be reached: until it can, sessions are neither found nor ended, and
// the store says so.
//
// The clocks of replicas must agree. What Redis loses its replicas tell it again as long as they run; when it has lost
// everything, all sessions have ended.
func OpenCookieStoreWithRedis(opts RedisOptions, sealer *Sealer, keys [][]byte, cookie Cookie, life time.Duration, now func() time.Time) (*CookieStore, error) {
	if opts.MaxStaleness <= 0 {
		opts.MaxStaleness = time.Second
	}
	c, err := newCookieStore(sealer, keys, cookie, life, now, opts.Log)
	if err != nil {
		return nil, err
	}
	key := opts.Prefix + "endings"
	link, err := openRedisLink(opts, key)
	if err != nil {
		return nil, err
	}
	r := &redisEndings{link: link, key: key, staleness: opts.MaxStaleness, store: c}
	c.log = r
	if r.fresh() == nil { // otherwise requests try again
		c.warnOfOtherKeys()
	}
	return c, nil
}

// fresh implements [endingsLog].
func (r *redisEndings) fresh() error {
	if asked := r.asked.Load(); asked != nil && r.link.current(*asked, r.staleness) {
		return nil
	}
	return r.ask()
}

// ask reads what is new. Callers at the same time share an answer, unless it may be from before a change that they know of.
func (r *redisEndings) ask() error {
	_, err, shared := r.reading.Do("", r.read)
	if shared && err == nil && !r.link.unchanged(*r.asked.Load()) {
		_, err, _ = r.reading.Do("", r.read)
	}
	return err
}

// read adds what is new in the stream to the endings. It begins with the last entry that was read before: when that is not
// there it was dropped with all before it, or Redis has lost something, and everything is read again. What was read stays so
// when the rest fails.
func (r *redisEndings) read() (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), redisBulk)
	defer cancel()
	for more := true; more; {
		asked := r.link.moment(r.key)
		page, err := r.page(ctx, cmp.Or(r.last.id, "-"))
		if err != nil {
			return nil, err
		}
		more = len(page) == endingsPage
		switch {
		case r.last.id == "" && len(page) == 0:
			if err := r.append(ctx, firstEnding(r.store.now()), 0); err != nil {
				return nil, err
			}
			r.store.say.Warn(newLog)
			more = true
		case r.last.id == "":
			r.found = map[label]bool{}
		case len(page) > 0 && page[0] == r.last:
			page = page[1:]
		default:
			r.last, page, more = entry{}, nil, true
		}
		for _, e := range page {
			r.store.endings.add(e.ending, r.store.oldest())
			r.last = e
			if r.found != nil {
				r.found[e.label] = true
			}
		}
		if !more {
			if err := r.restore(ctx); err != nil {
				return nil, err
			}
			r.asked.Store(&asked)
		}
	}
	return nil, nil
}

// page returns entries of the stream from one on, some at a time.
func (r *redisEndings) page(ctx context.Context, from string) ([]entry, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	answers, err := r.link.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
		return []rueidis.Completed{b.Xrange().Key(r.key).Start(from).End("+").Count(endingsPage).Build()}
	})
	if err != nil {
		return nil, err
	}
	found, err := answers[0].AsXRange()
	if err != nil {
		return nil, fmt.Errorf("session store: redis: %w", err)
	}
	page := make([]entry, len(found))
	for i, f := range found {
		e := entry{id: f.ID}
		n := copy(e.label[:], f.FieldValues["label"])
		var badAt, badFloor error
		e.at, badAt = strconv.ParseInt(f.FieldValues["at"], 10, 64)
		e.floor, badFloor = strconv.ParseInt(f.FieldValues["floor"], 10, 64)
		if badAt != nil || badFloor != nil || n != 0 && n != len(e.label) {
			return nil, errors.New("session store: what Redis holds is no list of ended sessions")
		}
		page[i] = e
	}
	return page, nil
}

// appendScript adds an ending to the stream KEYS[1]: of the label ARGV[1], at ARGV[2], with the floor ARGV[3]. It drops at the
// beginning what makes more than ARGV[4] entries, and some of what is from before ARGV[5]. Where there is a stream, an ending
// that only begins one is not added. Sent twice it does what it does when sent once.
const appendScript = `local list, label, at, floor = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local last = redis.call('XREVRANGE', list, '+', '-', 'COUNT', 1)[1]
if last then
  if label == '' and floor < at then return 'there' end
  floor = math.max(floor, tonumber(last[2][6]))
else
  floor = math.max(floor, at - 1)
end
local left = redis.call('XLEN', list)
for _ = 1, 1000 do
  local first = redis.call('XRANGE', list, '-', '+', 'COUNT', 1)[1]
  if not first then break end
  local from = tonumber(first[2][4])
  if left < tonumber(ARGV[4]) and from >= tonumber(ARGV[5]) then break end
  floor = math.max(floor, from)
  redis.call('XDEL', list, first[1])
  left = left - 1
end
return redis.call('XADD', list, '*', 'label', label, 'at', ARGV[2], 'floor', string.format('%.0f', floor))`

// append implements [endingsLog].
func (r *redisEndings) append(ctx context.Context, n ending, oldest int64) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	text := ""
	if n.label != (label{}) {
		text = string(n.label[:])
	}
	decimal := func(i int64) string { return strconv.FormatInt(i, 10) }
	_, err := r.link.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
		return []rueidis.Completed{b.Eval().Script(appendScript).Numkeys(1).Key(r.key).
			Arg(text, decimal(n.at), decimal(n.floor), strconv.Itoa(r.store.endings.limit), decimal(oldest)).Build()}
	})
	return err
}

// restore tells Redis again what it has lost, when everything was read: the endings that we know and that are not found in it,
// unless its floor stands for them. A master that takes over, or one that was restarted, may lack the latest.
func (r *redisEndings) restore(ctx context.Context) error {
	if r.found == nil {
		return nil
	}
	for _, n := range r.store.endings.since(r.last.floor) {
		if n.label != (label{}) && r.found[n.label] {
			continue
		}
		if err := r.append(ctx, n, r.store.oldest()); err != nil {
			return err
		}
		r.found[n.label] = true
	}
	r.found = nil
	return nil
}

func (r *redisEndings) ping(context.Context) error { return r.ask() }

func (r *redisEndings) close() error {
	r.link.close()
	return nil
}
