package main

import (
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

const damageUsage = `Usage: agent-runtime damage show [flags]
       agent-runtime damage acknowledge [flags]

show names the records that the store lost with a damaged disk, as each start of
serve does in its log, in /readyz and in the metrics. acknowledge shows the same
and makes later starts name it no more; stop the runtime for it. Readers that
have not passed a lost range are told of it either way. Exit code: 0, 1 when it
failed, 2 when the configuration has mistakes.

Flags:
`

func damage(args []string, getenv func(string) string, to streams) int {
	read := journal.Damage
	switch {
	case len(args) > 0 && args[0] == "show":
		args = args[1:]
	case len(args) > 0 && args[0] == "acknowledge":
		args, read = args[1:], journal.AcknowledgeDamage
	case len(args) > 0 && !strings.HasPrefix(args[0], "-"):
		to.complainf("agent-runtime damage: there is no command %q\n", args[0])
		return exitUsage
	default:
		args = []string{"--help"}
	}
	cfg, code, done := configure("damage", damageUsage, args, getenv, to)
	if done {
		return code
	}
	problems, err := read(cfg.DataDir)
	if err != nil {
		return fail(to, err)
	}
	for _, p := range problems {
		to.sayf("%s\n", p.Message)
	}
	return exitOK
}
