// Package engine accepts runs, executes them and records what became of them.
//
// A run is the log of its records in the journal, one subject a run. Every
// record holds the run as it stands from then on, and beside it the payload
// that came with the change: the first record the input, the last one of a run
// that succeeded the output. So the newest record of each subject is all that is
// read at a start, and the index of runs in memory is a projection of the log.
//
// A change is appended with the run's last sequence as its condition, under the
// run's turn: a run changes in one place at a time, and ends once. What a caller
// is told is durable; the engine itself goes on from what is only appended, so
// that a run somebody waits for costs one commit, before its answer.
//
// Many runs are accepted as one is, all checked and with room for all of them
// before the first is appended, and with one commit.
//
// Runs that were running when the process died are queued again at the next
// Start and count another attempt; those that died in each of their attempts
// fail. A run that finds a place free begins with its acceptance: one record is
// both. Runs given back by a graceful Stop do not count the attempt.
//
// Deadlines and timeouts run on the monotonic clock; only across a restart does
// a deadline follow the wall clock.
package engine
