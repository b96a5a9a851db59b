package main

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/djangobridge/djangobridge/go-runtime/internal/token"
)

//nolint:gosec // it holds no credential
const tokenUsage = `Usage: agent-runtime token create --name NAME [flags]
       agent-runtime token hash < FILE

create makes a secret and shows it once, on standard output, with the entry for
the tokens file, which holds only its hash. hash reads a secret from standard
input and writes its hash.

A tokens file (--tokens-file of serve) is YAML:

  tokens:
    - name: web
      hash: 0f7e...            # SHA-256 of the secret
      namespaces: [default]    # or ["*"]: every one
      access: write            # or read
      rate: 1000               # calls a second; none: not limited
      burst: 2000              # calls at once; none: as many as rate

A client sends the secret as metadata "authorization: Bearer SECRET". One with a
certificate (--client-ca) may call without: the entry whose name is the
certificate's common name counts, and needs no hash.

Flags of create:
`

func tokens(args []string, to streams) int {
	flags := pflag.NewFlagSet("token create", pflag.ContinueOnError)
	flags.SortFlags = false
	name := flags.String("name", "", "`name` of the token, for logs")
	namespaces := flags.StringSlice("namespaces", []string{"default"}, "`namespaces` it may use, with commas between, or *")
	access := flags.String("access", string(token.Write), "read or write")
	rate := flags.Float64("rate", 0, "calls per second; 0: not limited")
	burst := flags.Int("burst", 0, "calls at once; 0: as many as rate")
	switch {
	case len(args) == 1 && args[0] == "hash":
		return hashToken(os.Stdin, to)
	case len(args) > 0 && args[0] == "create":
		args = args[1:]
	case len(args) > 0 && !strings.HasPrefix(args[0], "-"):
		to.complainf("agent-runtime token: there is no command %q\n", args[0])
		return exitUsage
	default:
		args = []string{"--help"}
	}
	if code, done := parse(flags, tokenUsage, args, to); done {
		return code
	}
	secret := token.NewSecret()
	entry := token.Entry{
		Name: *name, Hash: token.Hash(secret), Namespaces: *namespaces,
		Access: token.Access(*access), Rate: *rate, Burst: *burst,
	}
	if err := entry.Validate(); err != nil {
		to.complainf("agent-runtime token create: %v\n", err)
		return exitUsage
	}
	lines, err := yaml.Marshal([]token.Entry{entry})
	if err != nil {
		return fail(to, err)
	}
	to.complainf("The secret, shown only now; then its entry under \"tokens:\" in the tokens file.\n")
	to.sayf("%s\n\n", secret)
	for line := range strings.Lines(string(lines)) {
		to.sayf("  %s", line)
	}
	return exitOK
}

func hashToken(from io.Reader, to streams) int {
	text, err := io.ReadAll(io.LimitReader(from, maxSecretBytes))
	if err != nil {
		return fail(to, err)
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" {
		to.complainf("agent-runtime token hash: want a secret on standard input\n")
		return exitUsage
	}
	to.sayf("%s\n", token.Hash(secret))
	return exitOK
}

// maxSecretBytes is more than any sensible secret has.
const maxSecretBytes = 4096
