package journal_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

const (
	// orderHelper makes the test binary append to the folder that it names.
	orderHelper = "JOURNAL_TEST_ORDER_DIR"
	orderWrites = 20
	orderMark   = "record-under-observation-"
	orderAck    = "acknowledged-"
)

// appendAndTell writes to standard output after each commit.
func appendAndTell(dir string) int {
	ctx := context.Background()
	j, err := journal.New(journal.Config{DataDir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		return 2
	}
	if err := j.Start(ctx); err != nil {
		return 3
	}
	s, err := j.OpenStream(ctx, journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}})
	if err != nil {
		return 4
	}
	for i := range orderWrites {
		seq, err := s.Append(ctx, journal.Message{Subject: "log.a", Data: fmt.Appendf(nil, "%s%02d.", orderMark, i)})
		if err != nil || s.Commit(ctx, seq) != nil {
			return 5
		}
		if _, err := fmt.Fprintf(os.Stdout, "%s%02d.\n", orderAck, i); err != nil {
			return 7
		}
	}
	if err := j.Stop(ctx); err != nil {
		return 6
	}
	return 0
}

// The kernel's view: for each record, the write of the record, then the begin
// and the end of a sync, then the acknowledgement.
func TestSyncComesBeforeAcknowledgement(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: the order of system calls cannot be observed")
	}
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), strace, "-f", "-o", trace, "-s", "4096",
		"-e", "trace=write,pwrite64,writev,syncfs,fdatasync,fsync", os.Args[0])
	cmd.Env = append(os.Environ(), orderHelper+"="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	written := map[int]int{} // record: line of its write to a file
	acked := map[int]int{}   // record: line of its acknowledgement
	type span struct{ begin, end int }
	var syncs []span
	unfinished := map[string]int{} // thread: line on which its sync began
	syncCall := regexp.MustCompile(`^(\d+) +(syncfs|fdatasync|fsync)\(`)
	resumed := regexp.MustCompile(`^(\d+) +<\.\.\. (syncfs|fdatasync|fsync) resumed>.*= 0`)
	record := regexp.MustCompile(orderMark + `(\d\d)\.`)
	ack := regexp.MustCompile(`write\(1, .*` + orderAck + `(\d\d)\.`)
	for n, line := range strings.Split(string(readFile(t, trace)), "\n") {
		if m := syncCall.FindStringSubmatch(line); m != nil && strings.Contains(line, "<unfinished") {
			unfinished[m[1]] = n
		} else if m != nil && strings.HasSuffix(line, "= 0") {
			syncs = append(syncs, span{n, n})
		} else if m := resumed.FindStringSubmatch(line); m != nil {
			syncs = append(syncs, span{unfinished[m[1]], n})
		} else if m := ack.FindStringSubmatch(line); m != nil {
			acked[number(t, m[1])] = n
		} else if m := record.FindStringSubmatch(line); m != nil && strings.Contains(line, "log.a") {
			// The connection to the embedded server is a pipe in memory, so
			// the kernel sees the write to the block only.
			written[number(t, m[1])] = n
		}
	}
	for i := range orderWrites {
		ordered := false
		for _, sync := range syncs {
			ordered = ordered || written[i] < sync.begin && sync.end < acked[i]
		}
		if written[i] == 0 || acked[i] == 0 || !ordered {
			t.Errorf("record %d: written on line %d, acknowledged on line %d, no sync in between", i, written[i], acked[i])
		}
	}
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
