// Package flask_test runs the example with the python3 of the system.
package flask_test

import (
	"os"
	"os/exec"
	"testing"

	"authproxy/examples/exampletest"
)

const python = "/usr/bin/python3" // the one that the packages are for, whatever else is in PATH

func TestApp(t *testing.T) {
	if out, err := exec.Command(python, "-c", "import flask, jwt, cryptography").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\nthe example needs the Debian packages python3-flask, python3-jwt and python3-cryptography; ./test.sh installs them", err, out)
	}
	exampletest.Run(t, func(t *testing.T, env []string) string {
		cmd := exec.Command(python, "app.py")
		cmd.Env = append(os.Environ(), append(env, "PYTHONDONTWRITEBYTECODE=1", "FLASK_DEBUG=0")...)
		return exampletest.Process(t, cmd, "Running on ")
	})
}
