// Package journal keeps the runtime's records: durable, ordered streams on
// NATS JetStream, embedded in the process or on an external cluster.
//
// # Order
//
// A stream has one order. Sequences rise and are never reused, not after a
// crash and not after damage to the store; they may have gaps. Append returns
// a record's sequence.
//
// # Durability
//
// Append hands a record to the operating system (embedded) or to a quorum
// (cluster). Commit returns when the record is durable: with Fsync on the
// embedded store, when a sync that started after the append has ended. One
// sync serves every writer that waits. Readers see durable records only: one
// that meets a younger record waits for the sync as a writer would, so what
// was seen cannot be taken back by a power cut.
//
// # Followers
//
// Follow delivers a stream's records to any number of readers, each at its
// own pace. Recent records come from memory that all readers share; one that
// falls behind reads from disk, filtered by the server, and blocks nobody.
//
// # Faults
//
// A full or broken disk, a failed sync and a lost lease are final: Failed is
// closed and the process must exit. Damage found at the start is named by
// Problems, and the journal goes on with what is left.
package journal
