// Package php_test runs the example with the php of the system.
package php_test

import (
	"os"
	"os/exec"
	"testing"

	"authproxy/examples/exampletest"
)

func TestApp(t *testing.T) {
	if out, err := exec.Command("php", "-d", "apc.enable_cli=1", "-r", "exit(extension_loaded('openssl') && apcu_enabled() ? 0 : 1);").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\nthe example needs the Debian packages php-cli and php-apcu; ./test.sh installs them", err, out)
	}
	exampletest.Run(t, func(t *testing.T, env []string) string {
		cmd := exec.Command("php", "-d", "apc.enable_cli=1", "-d", "display_errors=0", "-S", "127.0.0.1:0", "index.php")
		cmd.Env = append(os.Environ(), env...)
		return exampletest.Process(t, cmd, "Development Server (")
	})
}
