// Package check tells what is wrong with files that an agent wrote: whether
// they parse, are formatted, pass linters and their own tests.
//
// Which checks there are depends on the files and on the programs of the
// machine, which are looked for once, at the start. A check that cannot be made
// is skipped, with the reason; it never counts as passed. Programs run in a
// sandbox, on a copy that is thrown away, so checks change nothing.
package check
