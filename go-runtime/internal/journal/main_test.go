package journal_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(orderHelper); dir != "" {
		os.Exit(appendAndTell(dir))
	}
	goleak.VerifyTestMain(m,
		// Process-wide clocks of the NATS server and client, without an end.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"),
	)
}
