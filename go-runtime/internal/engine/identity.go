package engine

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// runIDSpace is the UUIDv5 namespace of run ids made from keys.
//
//nolint:gochecknoglobals // a constant, were UUIDs one
var runIDSpace = uuid.MustParse("6f0d6c0e-5d0b-5a43-9d0e-0b6f5a0f4c11")

// identify gives a request the run's id: the caller's own, else one made from
// its idempotency key, else from its request id, else a new one. So a repeated
// call names the same run.
func identify(namespace string, r CreateRequest) (string, error) {
	switch {
	case r.RunID != "":
		id, err := uuid.Parse(r.RunID)
		if err != nil || len(r.RunID) != 36 {
			return "", violation.New("run_id", "must be a UUID such as %s", uuid.Nil)
		}
		return id.String(), nil
	case r.IdempotencyKey != "":
		return keyedID(namespace, "idempotency_key", r.IdempotencyKey), nil
	case r.RequestID != "":
		return keyedID(namespace, "request_id", r.RequestID), nil
	default:
		id, err := uuid.NewV7()
		return id.String(), err
	}
}

func keyedID(namespace, kind, key string) string {
	return uuid.NewSHA1(runIDSpace, []byte(namespace+"\x00"+kind+"\x00"+key)).String()
}

// payloadHash tells whether a repeated call asks for the same work.
type payloadHash [sha256.Size]byte

func hashPayload(r CreateRequest) payloadHash {
	sum := sha256.New()
	for _, part := range [][]byte{[]byte(r.Target), []byte(r.AgentID), []byte(r.TaskType), r.Input, r.Metadata} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		sum.Write(size[:])
		sum.Write(part)
	}
	return payloadHash(sum.Sum(nil))
}
