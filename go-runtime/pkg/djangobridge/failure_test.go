package djangobridge

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/config"
)

// TestAFailureTakesReadinessAway is inside the package because a disk cannot be
// broken from outside without its own file system.
func TestAFailureTakesReadinessAway(t *testing.T) {
	t.Parallel()
	flags := config.Flags("test")
	if err := flags.Parse([]string{"--listen=127.0.0.1:0", "--http=off", "--durability=os", "--data-dir=" + t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	nothing := func(string) string { return "" }
	cfg, err := config.Load(flags, nothing)
	if err != nil {
		t.Fatal(err)
	}
	i, err := New(cfg, "test", nothing, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if r := i.readiness(); r.Ready || len(r.Reasons) != 1 {
		t.Errorf("before Start: %+v", r)
	}
	if err := i.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := i.readiness(); !r.Ready || i.Err() != nil {
		t.Errorf("after Start: %+v, %v", r, i.Err())
	}
	cause := errors.New("the disk is gone")
	i.fail(cause)
	i.fail(errors.New("and then some"))
	<-i.Failed()
	if r := i.readiness(); r.Ready || len(r.Reasons) != 1 || r.Reasons[0] != cause.Error() || !errors.Is(i.Err(), cause) {
		t.Errorf("after a failure: %+v, %v", r, i.Err())
	}
	if err := i.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}
