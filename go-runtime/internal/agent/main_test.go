package agent

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox/check"
)

// launchArgument makes the test binary the launcher of the sandbox.
const launchArgument = "sandbox-exec"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == launchArgument {
		os.Exit(check.Launch(os.Args[2:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}
