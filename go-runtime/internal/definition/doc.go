// Package definition keeps the graphs and agents that are data: documents by
// namespace, kind and name, each in versions.
//
// A version is named by its text. A text that is registered again is the version that it
// was before, so that whoever registers what it has at every start adds nothing. One
// version is current: what new runs use. A run that began with another one goes on with
// that, and so versions outlive both their successors and the deletion of their name.
//
// Documents without a namespace are the runtime's own: built in, or read from a folder.
// Every namespace sees them. Their texts are given at each start; what the journal has of
// them is there for runs that began with an earlier text.
//
// # Limits
//
// A namespace has at most MaxDefinitions, and as many deleted names whose versions are
// still kept; above that the name goes first that was deleted first. Of each name
// MaxVersions are kept; above that the oldest goes first that is not current.
package definition
