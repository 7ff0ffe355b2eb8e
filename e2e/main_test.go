// Package e2e_test looks at authproxy from where its users stand: a real browser goes through the demo, and a provider that
// nobody here wrote signs people in. Nothing of the program is imported but the development provider: what is tested is the
// binary.
package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// program is the binary under test, built by TestMain.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "authproxy-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "authproxy")
	build := exec.Command("go", "build", "-race", "-o", program, "./cmd/authproxy")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s\nbuilding authproxy: %v\n", out, err)
		return 1
	}
	defer closeBrowser()
	return m.Run()
}
