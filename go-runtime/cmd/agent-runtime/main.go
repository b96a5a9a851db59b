// Command agent-runtime runs the Go side of DjangoBridge.
package main

import (
	"context"
	"os"
)

// version is set by the build: -ldflags "-X main.version=...".
var version = "dev"

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Getenv, os.Environ(), os.Stdout, os.Stderr))
}
