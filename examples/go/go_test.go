package main

import (
	"os"
	"os/exec"
	"testing"

	"authproxy/examples/exampletest"
)

func TestApp(t *testing.T) {
	exampletest.Run(t, func(t *testing.T, env []string) string {
		cmd := exec.Command("go", "run", ".")
		cmd.Env = append(os.Environ(), env...)
		return exampletest.Process(t, cmd, "listening on ")
	})
}
