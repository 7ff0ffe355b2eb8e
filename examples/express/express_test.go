// Package express_test runs the example with the node of the system.
package express_test

import (
	"os"
	"os/exec"
	"testing"

	"authproxy/examples/exampletest"
)

func TestApp(t *testing.T) {
	if _, err := os.Stat("node_modules/jose"); err != nil {
		t.Fatalf("%v\nthe example needs its packages: npm ci; ./test.sh installs them", err)
	}
	exampletest.Run(t, func(t *testing.T, env []string) string {
		cmd := exec.Command("node", "app.js")
		cmd.Env = append(os.Environ(), env...)
		return exampletest.Process(t, cmd, "listening on ")
	})
}
