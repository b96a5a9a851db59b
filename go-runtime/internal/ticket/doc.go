// Package ticket makes and checks stream tickets: short texts, for an address,
// that let whoever has one read the events of one run until a time.
//
// A ticket carries what it allows, signed with HMAC-SHA-256 by a key that is kept
// in the journal, so that it holds across restarts and on every runtime that
// shares the journal. There is a new key every RotateEvery; an older one verifies
// until the last ticket that it signed is over, and is then removed.
//
//	base64url( version, key, expiry, visibility, namespace, run, principal, signature )
//
// Nothing of it is secret but the whole: it must not get into a log.
package ticket
