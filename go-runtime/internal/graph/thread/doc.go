// Package thread keeps threads of graphs that live over many runs, in the journal.
//
// A thread is one subject of a stream, a thread of a subgraph a subject below it. A
// record has one checkpoint or several that follow each other, as graph.Checkpoint.Pack
// makes them, one a line; they are numbered from 1 on. It is appended on the condition
// that the one before it is still the thread's last: of several who run a thread each
// loses, with graph.ErrConflict, what it wanted to add behind another's.
//
// The oldest checkpoints of a thread may be removed, up to a whole one: what is behind it
// needs nothing before it.
package thread
