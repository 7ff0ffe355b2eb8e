package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/redis/rueidis"
)

// A Redis is a server that writes nothing to disk.
type Redis struct {
	*Process
	url    string
	client rueidis.Client
}

// Redis is the one Redis of a rig, started when it is needed for the first time.
func (r *Rig) Redis(ctx context.Context) (*Redis, error) {
	if r.redis != nil {
		return r.redis, nil
	}
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errors.New("redis-server is missing: apt-get install redis-server")
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(address)
	p, err := start(ctx, filepath.Join(r.dir, "redis.log"), program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", r.dir)
	if err != nil {
		return nil, err
	}
	if err := p.listens(address); err != nil {
		return nil, err
	}
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}, DisableCache: true})
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	r.redis = &Redis{p, "redis://" + address + "/0", c}
	return r.redis, nil
}

// Used is the memory that it has allocated for what it holds, in bytes.
func (s *Redis) Used(ctx context.Context) (n float64, err error) {
	info, err := s.client.Do(ctx, s.client.B().Info().Section("memory").Build()).ToString()
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(info, "used_memory:")
	_, err = fmt.Sscan(rest, &n)
	return n, err
}

// Clear deletes everything.
func (s *Redis) Clear(ctx context.Context) error {
	return s.client.Do(ctx, s.client.B().Flushall().Build()).Error()
}
