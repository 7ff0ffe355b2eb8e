package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// A FileStore keeps sessions in a file on this machine, for one process. What it wrote survives a crash.
//
// The file holds only ciphertext, under a hash of the ticket, and tags made with the session keys by which the sessions of
// a user are found.
type FileStore struct {
	tickets tickets
	tagger  tagger
	infos   infos
	idle    time.Duration
	now     func() time.Time
	db      *bbolt.DB
	opened  *opened
	stop    func()
	swept   *sync.WaitGroup
}

var (
	bucketSessions = []byte("sessions") // row -> header, info, ciphertext
	bucketIndex    = []byte("index")    // tag, row -> nothing
)

// header is the beginning of a row: when it may be forgotten (milliseconds), its version, its tags, and how long its info is.
type header struct {
	Until   int64
	Version uint32
	Tags    [3]tag
	Info    uint32
}

var headerSize = binary.Size(header{})

// ErrFileInUse says that another process has the file of a FileStore open.
var ErrFileInUse = errors.New("another process has it open; a file is for one process, use redis for several")

// OpenFileStore opens or creates the file, readable by its owner only, in a directory that is there. Sessions unused for idle are swept from it every
// minute. A nil now means time.Now. The error is ErrFileInUse when another process has the file
// open.
func OpenFileStore(path string, sealer *Sealer, keys [][]byte, cookie Cookie, idle time.Duration, now func() time.Time) (*FileStore, error) {
	if now == nil {
		now = time.Now
	}
	t, err := newTagger(keys)
	if err != nil {
		return nil, err
	}
	n, err := newInfos(keys)
	if err != nil {
		return nil, err
	}
	db, err := openFile(path, bucketSessions, bucketIndex)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &FileStore{tickets: tickets{sealer, cookie.Name}, tagger: t, infos: n, idle: idle, now: now, db: db, opened: newOpened(new(atomic.Uint64)), swept: new(sync.WaitGroup), stop: cancel}
	f.swept.Go(func() {
		tick := time.NewTicker(time.Minute)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				f.Sweep() // an error here is one that requests will meet, and report, as well
			}
		}
	})
	return f, nil
}

// openFile opens or creates a file with these buckets, readable by its owner only, in a directory that is there.
func openFile(path string, buckets ...[]byte) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 3 * time.Second, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("session store %s: %w", path, ErrFileInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("session store %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("session store %s: %w", path, err)
	}
	return db, nil
}

// put writes a session's row and index within a transaction.
func (f *FileStore) put(tx *bbolt.Tx, row []byte, s *Session, sealed []byte) error {
	info, err := f.infos.seal(row, s)
	if err != nil {
		return err
	}
	until := s.Expires
	if idle := s.Used.Add(f.idle); idle.Before(until) {
		until = idle
	}
	h := header{until.UnixMilli(), s.version, f.tagger.of(s), uint32(len(info))}
	var value bytes.Buffer
	binary.Write(&value, binary.BigEndian, h) // into memory: cannot fail
	value.Write(info)
	value.Write(sealed)
	for _, t := range h.Tags {
		if err := tx.Bucket(bucketIndex).Put(slices.Concat(t[:], row), nil); err != nil {
			return err
		}
	}
	sessions := tx.Bucket(bucketSessions)
	if sessions.Get(row) == nil {
		if err := changeCount(tx, 1); err != nil {
			return err
		}
	}
	return sessions.Put(row, value.Bytes())
}

// get reads a row. What it returns is valid within the transaction only.
func get(tx *bbolt.Tx, row []byte) (h header, info, sealed []byte, ok bool) {
	value := tx.Bucket(bucketSessions).Get(row)
	if len(value) < headerSize {
		return header{}, nil, nil, false
	}
	if _, err := binary.Decode(value, binary.BigEndian, &h); err != nil || len(value)-headerSize < int(h.Info) {
		return header{}, nil, nil, false
	}
	value = value[headerSize:]
	return h, value[:h.Info], value[h.Info:], true
}

// remove deletes a row with its index.
func remove(tx *bbolt.Tx, row []byte, h header) error {
	for _, t := range h.Tags {
		if err := tx.Bucket(bucketIndex).Delete(slices.Concat(t[:], row)); err != nil {
			return err
		}
	}
	if err := changeCount(tx, -1); err != nil {
		return err
	}
	return tx.Bucket(bucketSessions).Delete(row)
}

// Create implements [Store].
func (f *FileStore) Create(_ context.Context, s *Session) (string, error) {
	t := newTicket()
	value, err := f.tickets.seal(t)
	if err != nil {
		return "", err
	}
	sealed, err := t.encrypt(s)
	if err != nil {
		return "", err
	}
	row := t.row()
	gen := f.opened.gen.Load()
	if err := f.db.Batch(func(tx *bbolt.Tx) error { return f.put(tx, row[:], s, sealed) }); err != nil {
		return "", err
	}
	f.opened.add(value, s, gen)
	return value, nil
}

// Load implements [Store].
func (f *FileStore) Load(_ context.Context, value string) (*Session, string, error) {
	gen := f.opened.gen.Load() // before the file is read: an ending in between is noticed next time
	if h, ok := f.opened.byValue.get(value); ok && h.checked.Load() == gen {
		st := h.state.Load()
		return st.session, st.current, nil
	}
	t, isCurrent, ok := f.tickets.open(value)
	if !ok {
		return nil, "", ErrNone
	}
	row := t.row()
	var s *Session
	err := f.db.View(func(tx *bbolt.Tx) (err error) {
		_, _, sealed, ok := get(tx, row[:])
		if !ok {
			return ErrNone
		}
		s, err = t.decrypt(sealed)
		return err
	})
	if err != nil {
		if h, ok := f.opened.byValue.get(value); ok {
			f.opened.forget(value, h.state.Load().session)
		}
		if errors.Is(err, ErrNone) {
			return nil, "", ErrNone
		}
		return nil, "", fmt.Errorf("session store: %w", err)
	}
	current := value
	if !isCurrent { // an older key sealed the ticket: the browser gets it anew
		if current, err = f.tickets.seal(t); err != nil {
			return nil, "", err
		}
	}
	h := f.opened.add(current, s, gen)
	f.opened.byValue.put(value, h, cost(value))
	h.checked.Store(gen)
	st := h.state.Load()
	return st.session, st.current, nil
}

// Save implements [Store].
func (f *FileStore) Save(_ context.Context, value string, s *Session) (string, error) {
	t, _, ok := f.tickets.open(value)
	if !ok {
		return "", ErrNone
	}
	sealed, err := t.encrypt(s)
	if err != nil {
		return "", err
	}
	row := t.row()
	err = f.db.Batch(func(tx *bbolt.Tx) error {
		h, _, _, ok := get(tx, row[:])
		if !ok {
			return ErrNone
		}
		if h.Version+1 != s.version {
			return ErrConflict
		}
		if h.Tags != f.tagger.of(s) { // made with an older key
			if err := remove(tx, row[:], h); err != nil {
				return err
			}
		}
		return f.put(tx, row[:], s, sealed)
	})
	if err != nil {
		f.opened.forget(value, s)
		return "", err
	}
	return f.opened.advance(value, s), nil
}

// selected calls f for each row that sel selects. It may remove the row.
func (f *FileStore) selected(tx *bbolt.Tx, sel Selector, do func(row []byte, h header, info []byte) error) error {
	var rows [][]byte
	all := f.tagger.sought(sel)
	if sel.All {
		all = [][]tag{nil}
		c := tx.Bucket(bucketSessions).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			rows = append(rows, bytes.Clone(k))
		}
	}
	for _, tags := range all {
		if !sel.All {
			rows = rows[:0]
			c := tx.Bucket(bucketIndex).Cursor()
			for k, _ := c.Seek(tags[0][:]); bytes.HasPrefix(k, tags[0][:]); k, _ = c.Next() {
				rows = append(rows, bytes.Clone(k[len(tag{}):]))
			}
		}
		for _, row := range rows {
			h, info, _, ok := get(tx, row)
			if !ok || slices.ContainsFunc(tags, func(t tag) bool { return !slices.Contains(h.Tags[:], t) }) {
				continue
			}
			if err := do(row, h, info); err != nil {
				return err
			}
		}
	}
	return nil
}

// End implements [Store].
func (f *FileStore) End(_ context.Context, sel Selector) error {
	err := f.db.Update(func(tx *bbolt.Tx) error {
		return f.selected(tx, sel, func(row []byte, h header, _ []byte) error { return remove(tx, row, h) })
	})
	f.opened.gen.Add(1)
	return err
}

// maxListed bounds a list of sessions.
const maxListed = 10_000

// List implements [Lister].
func (f *FileStore) List(_ context.Context, sel Selector) (all []Info, err error) {
	err = f.db.View(func(tx *bbolt.Tx) error {
		return f.selected(tx, sel, func(row []byte, h header, info []byte) error {
			if i, ok := f.infos.open(row, info); ok {
				all = append(all, i)
			}
			return nil
		})
	})
	slices.SortFunc(all, func(a, b Info) int { return b.Created.Compare(a.Created) })
	return all[:min(len(all), maxListed)], err
}

// Sweep forgets the sessions whose time is over. Logins wait for at most some of them to be removed, not for the search.
func (f *FileStore) Sweep() error {
	now := f.now().UnixMilli()
	over, err := f.over(now)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(over, 1000) {
		if err := f.removeOver(some, now); err != nil {
			return err
		}
	}
	return nil
}

// isOver says whether what is at a row may be forgotten: its time is over, or it cannot be read.
func isOver(tx *bbolt.Tx, row []byte, now int64) (header, bool) {
	h, _, _, ok := get(tx, row)
	return h, !ok || h.Until < now
}

// over returns the rows of sessions whose time is over.
func (f *FileStore) over(now int64) (rows [][]byte, err error) {
	err = f.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketSessions).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if _, ok := isOver(tx, k, now); ok {
				rows = append(rows, bytes.Clone(k))
			}
		}
		return nil
	})
	return rows, err
}

// removeOver removes rows that were over when they were found, unless they have been used or removed since.
func (f *FileStore) removeOver(rows [][]byte, now int64) error {
	return f.db.Update(func(tx *bbolt.Tx) error {
		for _, row := range rows {
			h, ok := isOver(tx, row, now)
			if !ok || tx.Bucket(bucketSessions).Get(row) == nil {
				continue
			}
			if err := remove(tx, row, h); err != nil {
				return err
			}
		}
		return nil
	})
}

// Reopen implements [Reopener]: the file is shared, and closed when one of them is.
func (f *FileStore) Reopen(sealer *Sealer, keys [][]byte, cookie Cookie, idle, _ time.Duration) (Store, error) {
	t, err := newTagger(keys)
	if err != nil {
		return nil, err
	}
	n, err := newInfos(keys)
	if err != nil {
		return nil, err
	}
	return &FileStore{tickets: tickets{sealer, cookie.Name}, tagger: t, infos: n, idle: idle, now: f.now, db: f.db, opened: newOpened(f.opened.gen), stop: f.stop, swept: f.swept}, nil
}

// SetCache implements [Cacher].
func (f *FileStore) SetCache(bytes int) { f.opened.bound(bytes) }

// Ping implements [Store].
func (f *FileStore) Ping(context.Context) error {
	return f.db.View(func(*bbolt.Tx) error { return nil })
}

// Close implements [Store].
func (f *FileStore) Close() error {
	f.stop()
	f.swept.Wait()
	return f.db.Close()
}
