package check

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// launchArgument makes the test binary the launcher.
const launchArgument = "sandbox-exec"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == launchArgument {
		os.Exit(Launch(os.Args[2:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m,
		// Process-wide clocks of the NATS server and client, without an end.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"),
	)
}
