package journal

import (
	"errors"
	"testing"
)

func TestAcknowledgements(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]uint64{
		`{"stream":"STATE","seq":18446744073709551615}`:                18446744073709551615,
		`{"stream":"STATE", "seq":7}`:                                  7,
		`{"stream":"STATE","domain":"d","seq":7}`:                      7,
		`{"stream":"STATE","seq":7,"duplicate": true}`:                 7,
		`{"stream":"STATE","seq":7,"batch":"b","count":2}`:             7,
		`{"type":"x","stream":"STATE","seq":7,"error":null}`:           7,
		`{"stream":"a\",\"seq\":5}","seq":7}`:                          7,
		`{"stream":"STATE","seq":0,"error":null,"future":{"seq":"9"}}`: 0,
	} {
		if ack, err := decodeAck([]byte(data)); err != nil || ack.Sequence != want {
			t.Errorf("%s: %d, %v", data, ack.Sequence, err)
		}
	}
	for _, data := range []string{``, `{"stream":"STATE","seq":7`, `{"stream":"STATE","seq":-7}`, `{"stream":"STATE","seq":18446744073709551616}`} {
		if ack, err := decodeAck([]byte(data)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %d, %v", data, ack.Sequence, err)
		}
	}
}
