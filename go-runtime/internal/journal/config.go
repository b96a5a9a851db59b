package journal

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Durability says when Commit returns.
type Durability string

// The durabilities. In a cluster, Fsync means the acknowledgement of a quorum.
const (
	Fsync Durability = "fsync" // after the disk has the data
	OS    Durability = "os"    // once the operating system has it
)

const (
	defaultReplicas     = 3
	defaultMinFreeBytes = 64 << 20
	// defaultMessageBytes leaves room for headers above the 1 MiB that users
	// may store by default.
	defaultMessageBytes = 1<<20 + 64<<10
)

// Config says where the journal keeps its records and how safely.
type Config struct {
	// DataDir is the folder of the embedded store. One process at a time may
	// use it.
	DataDir string
	// NATSURL is the address of an external cluster (several are separated by
	// commas); empty for the embedded store.
	NATSURL string
	// Replicas of each stream on an external cluster: 1, 3 or 5; 0 means 3.
	Replicas int
	// Durability says when Commit returns; empty means Fsync.
	Durability Durability
	// MaxStoreBytes limits the records of the embedded store; 0 means the size
	// of the disk. Records whose Purpose is not Accept may go an eighth, at most
	// 64 MiB, beyond it, and always by four of the largest.
	MaxStoreBytes int64
	// MinFreeBytes is the disk space that appends leave free; 0 means 64 MiB.
	// Of the rest a quarter, at most a sixteenth of the disk, is held in a file
	// that a start on a full disk gives up; records whose Purpose is not Accept
	// may leave less than that.
	MinFreeBytes int64
	// MaxMessageBytes is the largest record with its headers; 0 means 1 MiB
	// and 64 KiB for headers.
	MaxMessageBytes int
}

// withDefaults returns the configuration with every unset value filled in.
func (c Config) withDefaults() Config {
	if c.Replicas == 0 {
		c.Replicas = defaultReplicas
	}
	if c.Durability == "" {
		c.Durability = Fsync
	}
	if c.MinFreeBytes == 0 {
		c.MinFreeBytes = defaultMinFreeBytes
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = defaultMessageBytes
	}
	return c
}

// validate reports every mistake at once.
func (c Config) validate() error {
	var errs []error
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.NATSURL == "" && c.DataDir == "" {
		mistake("a data folder or the address of a NATS cluster is required")
	}
	if c.Durability != Fsync && c.Durability != OS {
		mistake("durability %q is neither %q nor %q", c.Durability, Fsync, OS)
	}
	if c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5 {
		mistake("replicas must be 1, 3 or 5, not %d", c.Replicas)
	}
	if c.NATSURL != "" && c.Replicas == 1 && c.Durability == Fsync {
		mistake("one replica on a cluster cannot promise durability %q: use 3 replicas or durability %q", Fsync, OS)
	}
	if c.MaxStoreBytes < 0 {
		mistake("the store limit must not be negative: %d", c.MaxStoreBytes)
	}
	if c.MinFreeBytes < 0 {
		mistake("the free space to keep must not be negative: %d", c.MinFreeBytes)
	}
	if c.MaxMessageBytes < 1024 || c.MaxMessageBytes > math.MaxInt32/4 {
		mistake("the largest record must be between 1024 and %d bytes, not %d", math.MaxInt32/4, c.MaxMessageBytes)
	}
	return errors.Join(errs...)
}

// StreamConfig describes a stream.
type StreamConfig struct {
	// Name is upper-case by custom, for example "STATE".
	Name string
	// Subjects that belong to it, for example "state.>". Streams must not
	// overlap.
	Subjects []string
	// MaxAge is how long records are kept; 0 means for ever.
	MaxAge time.Duration
	// MaxBytes is how much is kept, the oldest records leave first; 0 means
	// no limit.
	MaxBytes int64
	// LastPerSubject keeps only the newest record of each subject, and leaves
	// a marker (Record.Expired) where one reached its TTL.
	LastPerSubject bool
	// DedupeWindow is how long Message.DedupeID is remembered; 0 means off.
	DedupeWindow time.Duration
}

func (c StreamConfig) validate() error {
	var errs []error
	if c.Name == "" || strings.ContainsFunc(c.Name, func(r rune) bool { return r > 0x7f || !isPlain(byte(r)) }) {
		errs = append(errs, fmt.Errorf("stream name %q must be of letters, digits, _ and -", c.Name))
	}
	if len(c.Subjects) == 0 {
		errs = append(errs, errors.New("a stream needs a subject"))
	}
	if c.MaxAge < 0 || c.MaxBytes < 0 || c.DedupeWindow < 0 {
		errs = append(errs, errors.New("limits must not be negative"))
	}
	return errors.Join(errs...)
}
