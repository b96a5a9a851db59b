// Package sandbox runs commands that nobody vouches for: tools of agents, on
// what models wrote.
//
// # What a command gets
//
// A copy of a folder, as /workspace, and what it left there is handed back; the
// programs of the machine, read-only; an empty /tmp; an environment of PATH,
// HOME and LANG. It gets no other file of the machine, no network, no sight of
// other processes and no rights, and its time, memory, processes, files and
// output are bounded. When it ends, or its time is over, everything that it
// started ends with it, whether or not it went into the background.
//
// # How
//
// The runtime starts its own binary a second time as the launcher: process 1 in
// namespaces of its own (user, mount, process, network, IPC, host name). The
// launcher makes the view of the files, takes in the copy, starts the command
// with limits and without capabilities, watches its memory and sends the copy
// back once every other process is gone. Copies live in memory file systems of
// a fixed size, so a command fills neither the disk nor anybody's folder. When
// the runtime dies, so does the launcher, and with it the command.
//
// All that needs Linux 5.12 and user namespaces; root is not needed. What is
// there is tried at the start. Where it is not, commands are not run, rather
// than run unprotected.
package sandbox
