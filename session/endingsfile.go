package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"
)

// A fileEndings is a log in a file, for one process.
type fileEndings struct {
	db    *bbolt.DB
	known *endings
}

var bucketEndings = []byte("endings") // sequence number -> ending

// OpenCookieStoreWithFile returns a store for that cookie that keeps in the file, which is for one process, which sessions were
// ended: under labels made with the session keys, so that the file says nothing about users. No session lives longer than
// life. A nil now means time.Now, a nil log that nobody hears what operators should know.
func OpenCookieStoreWithFile(path string, log *slog.Logger, sealer *Sealer, keys [][]byte, cookie Cookie, life time.Duration, now func() time.Time) (*CookieStore, error) {
	c, err := newCookieStore(sealer, keys, cookie, life, now, log)
	if err != nil {
		return nil, err
	}
	db, err := openFile(path, bucketEndings)
	if err != nil {
		return nil, err
	}
	f := &fileEndings{db, c.endings}
	if err := f.read(c); err != nil {
		db.Close()
		return nil, fmt.Errorf("session store %s: %w", path, err)
	}
	c.log = f
	c.warnOfOtherKeys()
	return c, nil
}

// read fills the endings of c, and begins the log when there is none.
func (f *fileEndings) read(c *CookieStore) error {
	return f.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketEndings)
		if k, _ := b.Cursor().First(); k == nil {
			c.say.Warn(newLog)
			if err := f.put(tx, firstEnding(c.now()), 0); err != nil {
				return err
			}
		}
		return b.ForEach(func(_, value []byte) error {
			n, err := decodeEnding(value)
			if err == nil {
				f.known.add(n, c.oldest())
			}
			return err
		})
	})
}

// append implements [endingsLog].
func (f *fileEndings) append(_ context.Context, n ending, oldest int64) error {
	if err := f.db.Batch(func(tx *bbolt.Tx) error { return f.put(tx, n, oldest) }); err != nil {
		return fmt.Errorf("session store: %w", err)
	}
	return nil
}

// put adds n at the end and drops at the beginning what is too old or too much. There are no gaps in between.
func (f *fileEndings) put(tx *bbolt.Tx, n ending, oldest int64) error {
	b := tx.Bucket(bucketEndings)
	number, err := b.NextSequence()
	if err != nil {
		return err
	}
	c := b.Cursor()
	if _, value := c.Last(); value != nil {
		last, err := decodeEnding(value)
		if err != nil {
			return err
		}
		n.floor = max(n.floor, last.floor)
	}
	for k, value := c.First(); k != nil; k, value = c.First() {
		first, err := decodeEnding(value)
		if err != nil {
			return err
		}
		if number-binary.BigEndian.Uint64(k) < uint64(f.known.limit) && first.at >= oldest {
			break
		}
		n.floor = max(n.floor, first.at)
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return b.Put(binary.BigEndian.AppendUint64(nil, number), n.encode())
}

// encode returns the label, then at and floor.
func (n ending) encode() []byte {
	b := binary.BigEndian.AppendUint64(n.label[:], uint64(n.at))
	return binary.BigEndian.AppendUint64(b, uint64(n.floor))
}

func decodeEnding(b []byte) (n ending, err error) {
	if len(b) != len(n.label)+16 {
		return ending{}, errors.New("what the file holds is no ending")
	}
	times := b[copy(n.label[:], b):]
	n.at, n.floor = int64(binary.BigEndian.Uint64(times)), int64(binary.BigEndian.Uint64(times[8:]))
	return n, nil
}

// fresh implements [endingsLog]: nobody else writes.
func (f *fileEndings) fresh() error { return nil }

func (f *fileEndings) ping(context.Context) error {
	return f.db.View(func(*bbolt.Tx) error { return nil })
}

func (f *fileEndings) close() error { return f.db.Close() }
