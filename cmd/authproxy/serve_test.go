package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// served runs authproxy serve with a configuration that cannot be served; DIR in it is a directory of the test. It returns
// what was printed beside log lines.
func served(t *testing.T, dir, text string) (status int, printed string) {
	t.Helper()
	file := filepath.Join(dir, "config.yaml")
	text = "public_url: http://localhost:8080\nprovider: {issuer: 'http://127.0.0.1:1/', client_id: c, client_secret: s3cret}\nupstream: http://127.0.0.1:5000\nlog: {format: json}\n" +
		strings.ReplaceAll(text, "DIR", dir)
	if !strings.Contains(text, "session:") {
		text += "\nsession: {keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY]}"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	status = run(&environment{t.Context(), nil, strings.NewReader(""), &out, &errs}, []string{"serve", "-config", file})
	return status, strings.ReplaceAll(regexp.MustCompile(`(?m)^\{.*\}\n`).ReplaceAllString(errs.String(), ""), dir, "DIR")
}

func TestWhatKeepsItFromServingIsNamedWithItsLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().String()
	const files = "session:\n  keys: [MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY]\n  store: file\n"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "garbage.db"), bytes.Repeat([]byte("x"), 2100), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ yaml, says, hint string }{
		"the port in use":                           {"listen: " + port, "5: listen: " + port + ": address already in use by another program", "stop it, or choose another port"},
		"the admin port in use":                     {"listen: 127.0.0.1:0\nadmin: {listen: '" + port + "'}", "6: admin.listen: " + port + ": address already in use", "stop it, or choose another port"},
		"no address of ours":                        {"listen: 192.0.2.1:8080", "5: listen: 192.0.2.1:8080 is no address of this machine", "write an address of this machine"},
		"a socket in a directory that is not there": {"listen: unix:DIR/no/socket", "5: listen: unix:DIR/no/socket cannot be listened on: ", "choose another path"},
		"no session database":                       {files + "  file: {path: DIR/garbage.db}", `8: session.file.path: "DIR/garbage.db" is not a session database of authproxy: `, "name another file, or remove it"},
		"no directory":                              {files + "  file: {path: DIR/no/sessions.db}", `8: session.file.path: "DIR/no/sessions.db" cannot be made: its directory is not there`, "make the directory"},
		"a directory as file":                       {files + "  file: {path: DIR}", `8: session.file.path: "DIR" cannot be opened: is a directory`, "name another file"},
	} {
		t.Run(name, func(t *testing.T) {
			status, printed := served(t, dir, row.yaml)
			want := regexp.MustCompile(fmt.Sprintf(`\Aauthproxy: DIR/config.yaml:%s.*\nhint: .*%s.*\n\z`, regexp.QuoteMeta(row.says), regexp.QuoteMeta(row.hint)))
			if status != exitError || !want.MatchString(printed) {
				t.Errorf("status %d, want %d:\n%s\nwant %s", status, exitError, printed, want)
			}
		})
	}
}
