package session

import (
	"context"

	"go.etcd.io/bbolt"
)

// A Counter is a Store that knows how many sessions it keeps without looking at each.
type Counter interface {
	// Count returns how many there are. Those whose time is over may be among them for about a minute.
	Count(ctx context.Context) (int64, error)
}

// Count implements [Counter]. The number is kept with the rows, in the same transactions: see changeCount.
func (f *FileStore) Count(context.Context) (n int64, err error) {
	err = f.db.View(func(tx *bbolt.Tx) error {
		n = int64(tx.Bucket(bucketSessions).Sequence())
		return nil
	})
	return n, err
}

// changeCount notes that there are by more rows than before. The bucket's sequence number, which nothing else uses, holds
// the count, so that it is committed and rolled back with the rows.
func changeCount(tx *bbolt.Tx, by int64) error {
	b := tx.Bucket(bucketSessions)
	return b.SetSequence(uint64(int64(b.Sequence()) + by))
}
