package journal

import "testing"

// Retention that goes on during a read is no truncation as long as every record
// it removed was read.
func TestRemovedRecordsThatWereReadAreNotMissed(t *testing.T) {
	t.Parallel()
	records := func(sequences ...uint64) []Record {
		var rs []Record
		for _, seq := range sequences {
			rs = append(rs, Record{Sequence: seq})
		}
		return rs
	}
	for name, test := range map[string]struct {
		after, first uint64
		read         []Record
		want         bool
	}{
		"nothing removed":              {after: 4, first: 5, want: true},
		"nothing removed, some read":   {after: 4, first: 2, read: records(7, 9), want: true},
		"all removed ones read":        {after: 4, first: 7, read: records(5, 6, 9), want: true},
		"everything read is removed":   {after: 4, first: 7, read: records(5, 6), want: true},
		"removed before the read":      {after: 4, first: 7, read: records(7, 8), want: false},
		"one removed was not read":     {after: 4, first: 8, read: records(5, 7, 8), want: false},
		"more removed than were read":  {after: 4, first: 9, read: records(5, 6), want: false},
		"removed and nothing was read": {after: 4, first: 6, want: false},
	} {
		if got := coversRemoved(test.after, test.first, test.read); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
