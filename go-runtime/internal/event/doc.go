// Package event keeps what happened, in order, and hands it to subscribers,
// separate in each namespace.
//
// All events are records of one journal stream, under a subject made of the
// namespace and the event's type, one token for each of its words. An event's
// sequence is its record's: it rises over all events and is never reused. Events
// are kept until retention, by age and by size, removes them.
//
// What Publish accepted is durable when it returns, and subscribers see nothing
// that is not durable.
package event
