package operated_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A redis is a real redis-server, or a Sentinel, that keeps its port and its files when it is started again.
type redis struct {
	t    testing.TB
	port string
	args []string
	*process
}

// startRedis starts a server that keeps on disk what it has acknowledged, so that it survives a kill.
func startRedis(t testing.TB, args ...string) *redis {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("there is no redis-server: install the package of that name") // test.sh counts it
	}
	r := &redis{t: t, port: freePort(t)}
	r.args = append([]string{"--port", r.port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0"}, args...)
	r.start()
	return r
}

// startSentinel watches over master under the name "main".
func startSentinel(t testing.TB, master *redis) *redis {
	t.Helper()
	r := &redis{t: t, port: freePort(t)}
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	write(t, conf, fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 %s 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n", r.port, master.port))
	r.args = []string{conf, "--sentinel"}
	r.start()
	eventually(t, "the sentinel knows the replica", func() bool {
		out := r.cli("SENTINEL", "REPLICAS", "main")
		return strings.Contains(out, "role-reported") && strings.Contains(out, "master-link-status\nok")
	})
	return r
}

func (r *redis) start() {
	r.t.Helper()
	r.process = start(r.t, "redis-server", r.args...)
	eventually(r.t, "redis-server answers", func() bool { return r.cli("PING") == "PONG\n" })
}

func (r *redis) url() string { return "redis://127.0.0.1:" + r.port + "/0" }

// cli sends a command with redis-cli and returns what that prints.
func (r *redis) cli(args ...string) string {
	out, _ := exec.Command("redis-cli", append([]string{"--raw", "-h", "127.0.0.1", "-p", r.port}, args...)...).CombinedOutput()
	return string(out)
}

// role is master or slave.
func (r *redis) role() string {
	role, _, _ := strings.Cut(r.cli("ROLE"), "\n")
	return role
}

// replicated says whether the one replica has acknowledged all that this master has. WAIT would not do: it counts replicas, of
// what its own connection wrote.
func (r *redis) replicated() bool {
	role := strings.Fields(r.cli("ROLE")) // "master", its offset; then address, port and acknowledged offset of each replica
	return len(role) == 5 && role[0] == "master" && role[1] == role[4]
}
