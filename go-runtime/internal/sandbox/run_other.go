//go:build !linux

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

func (s *Sandbox) execute(context.Context, Command) (response, Outcome, error) {
	return response{}, Outcome{}, fmt.Errorf("commands can be isolated on Linux only, this is %s", runtime.GOOS)
}

// Launch is the launcher, which there is on Linux only.
func Launch([]string) error { return errors.New("commands can be isolated on Linux only") }
