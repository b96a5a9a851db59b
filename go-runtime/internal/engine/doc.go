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
// A run is executed in one of three ways: by a task of the runtime itself, by a
// server behind HTTP, which is such a task, or by a worker, a process that is
// connected (Session). The scheduler decides which queued run begins next, and
// where. Whoever executes has a lease, named by the sequence of the record with
// which the attempt began: nothing is recorded under a lease that is over. A
// worker keeps its runs while it is heard of within the lease time, also over a
// broken connection and a restart of the runtime.
//
// What an agent emits stands in the same stream under a second subject per run,
// so that the journal's sequence orders a run's changes and its events: together
// they are its history, which is what WatchRun and FollowRuns hand out, and from
// which a later attempt gets recorded steps and answers.
//
// Runs that were running in the runtime when the process died are queued again at
// the next Start and count another attempt, as do those whose worker is lost;
// those that died in each of their attempts fail. A run that finds a place free
// in the runtime begins with its acceptance: one record is both. Runs given back
// by a graceful stop go on with the attempt they were at.
//
// Deadlines and timeouts run on the monotonic clock; only across a restart does
// a deadline follow the wall clock.
package engine
