// Package state keeps the values that Django, Go and the agents share: JSON
// texts under string keys, separate in each namespace.
//
// Every key is one subject of a journal stream that keeps the newest record of
// each subject. A record's sequence is the key's revision: it rises over all
// keys and is never reused. A deletion is a record as well, a marker that stays
// for a day so that watchers who were away see it.
//
// What a call changed is durable when the call returns, and reads show nothing
// that is not durable.
//
// # Repeats
//
// A caller that got no answer repeats its call with the same request id, and the
// repeat has no second effect and the first one's answer:
//
//   - Set without an expectation: for a minute. If the runtime was restarted in
//     between, only as long as the call's record is the key's newest.
//   - Delete of a key that was there: as Set, and beyond the minute as long as the
//     call's record is the key's newest.
//   - Set with an expectation: as long as the call's record is the key's newest.
//     After another write it reports the key's revision, a *RevisionError.
//   - Transact: as long as one of the call's records is the newest of its key.
//
// A Delete that found no key leaves no trace; its repeat is a call of its own.
package state
