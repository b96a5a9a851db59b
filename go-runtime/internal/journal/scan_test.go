package journal_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// The newest records are more than one pull brings: a cursor that opened its
// consumer again in between would give older ones too.
func TestScanLastOnlyOverManyPulls(t *testing.T) {
	t.Parallel()
	const subjects, versions = 1000, 3
	j := start(t, journal.Config{DataDir: t.TempDir()})
	s := open(t, j, journal.StreamConfig{Name: "SCAN", Subjects: []string{"scan.>"}})
	var ms []journal.Message
	for i := range subjects {
		for version := range versions {
			ms = append(ms, journal.Message{Subject: "scan." + strconv.Itoa(i), Data: fmt.Append(nil, version)})
		}
	}
	if _, err := s.AppendAll(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	seen := 0
	_, err := s.Scan(t.Context(), 0, true, []string{"scan.>"}, func(r journal.Record) error {
		seen++
		if want := strconv.Itoa(versions - 1); string(r.Data) != want {
			t.Errorf("record %d of %s is version %s, not the newest", r.Sequence, r.Subject, r.Data)
		}
		return nil
	})
	if err != nil || seen != subjects {
		t.Errorf("scan gave %d records of %d subjects, %v", seen, subjects, err)
	}
}
