// Package workspace keeps the files of runs: a folder for each run that an
// agent of the runtime writes into, and what was saved of it in the journal.
//
// # Folder
//
// A workspace that is open has a real folder, of regular files only. Paths are
// portable and cannot lead out of it; how many files there are, how large one
// is and how large all are is limited. The folder is there while the workspace
// is open; Open makes it anew from what was saved last, on whichever machine.
//
// # Store
//
// Save keeps the folder as it is. The contents that are new go into packs, the
// records of one subject of the stream FILES; behind them a root record says
// where each file's content is. Contents are known by their SHA-256, so a file
// that was saved before is not written again. The root is one record, appended
// last: a save is there as a whole or not at all, and it is durable when Save
// returns. Packs in place of a subject for each content, because a subject
// costs memory for as long as it is there.
//
// What was saved is removed with Delete, and by the store itself a time after
// its run has ended.
package workspace
